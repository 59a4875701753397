//! The examples of one file each: what they do, and `tick` as a process too.

mod dependent;
mod plain_thread;
mod slow_server;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod tick;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
