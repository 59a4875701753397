//! Cancellation contexts that can be combined.
//!
//! A [`Context`] says until **when** a piece of work matters (deadline), **whether** it still does (done, and why), and
//! **for whom** it is done (values). [`merge()`] and [`any_of`] combine contexts: the result finishes when any input
//! does, with the earliest deadline, the error of the input that was first, and the values of the primary.
//!
//! ```
//! use context_merge::{Context, merge};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! // One for the process: everything stops with it.
//! let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
//!
//! // One for each request: a deadline, and a value.
//! let (request, hang_up) = Context::background().named("request").with_cancel();
//! let request = request.with_timeout(Duration::from_secs(5)).with_value("GET /report");
//!
//! // The work stops as soon as any of them says so, and knows which one and why.
//! let ctx = merge(&request, &shutdown);
//! tokio::spawn(async move {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     stop.cancel_with("SIGTERM");
//! });
//! let err = ctx.run(std::future::pending::<()>()).await.unwrap_err();
//! assert_eq!(err.to_string(), "context cancelled (shutdown)");
//! assert_eq!(err.cause().unwrap().to_string(), "SIGTERM");
//! assert_eq!(ctx.value::<&str>(), Some(&"GET /report"));
//! # drop(hang_up);
//! # }
//! ```
//!
//! A merge spawns no task, arms no timer and registers nowhere; a cancel is one store, which every context over that
//! source sees at the same instant. `DESIGN.md` in the repository gives the arguments.
//!
//! For axum, tonic, reqwest, databases, queues, groups of tasks, retries and blocking code see the recipes (`RECIPES.md`,
//! and the module `recipes` of this page when it is built with all features).
//!
//! # Features
//! The default build has none of these.
//! - `http`: deadlines in the headers of requests, `grpc-timeout` and others, in and out (`context_merge::http`).
//! - `tower`: a context for each request of a server, and calls of a client that end with one (`context_merge::tower`).
//! - `axum`: `Context` as an extractor, `Error` as a response (`context_merge::axum`).
//! - `tonic`: `Error` as a `Status`, the context of a request, streams that end with it (`context_merge::tonic`).
//! - `shutdown`: stages of a shutdown, from a signal to the end of all that was started (`context_merge::shutdown`).
//! - `tokio-util`: a `CancellationToken` as a context, and a context as a token (`context_merge::tokio_util`).
//! - `tracing`: an event when a context finishes (`context_merge::tracing`).

#![forbid(unsafe_code)]
// The pages of docs.rs say which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
pub mod axum;
mod canceller;
mod context;
mod derive;
mod done;
#[cfg(feature = "tower")]
mod ended;
mod error;
mod event;
mod explain;
mod finished;
mod gather;
mod group;
#[cfg(feature = "http")]
pub mod http;
mod merge;
mod on_done;
mod registration;
mod relay;
mod release;
mod run;
mod set;
#[cfg(feature = "shutdown")]
pub mod shutdown;
mod signal;
mod source;
mod stream;
mod sync;
mod take_until_done;
mod timer;
#[cfg(feature = "tokio-util")]
pub mod tokio_util;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
mod until;
mod value;
mod waiters;

pub use canceller::{Canceller, DropGuard};
pub use context::Context;
pub use done::{Done, DoneOwned};
#[cfg(feature = "tower")]
#[doc(hidden)]
pub use ended::Ended;
pub use error::{Error, ErrorKind};
pub use explain::Explanation;
pub use finished::Finished;
pub use group::Group;
pub use merge::{any_of, merge};
pub use on_done::OnDone;
pub use run::{FutureExt, Run, WithContext};
pub use signal::Signal;
pub use stream::{StreamExt, StreamWithContext};
pub use take_until_done::TakeUntilDone;

/// How contexts meet what a service is made of.
#[cfg(all(doc, feature = "axum", feature = "shutdown", feature = "tonic"))]
#[doc = include_str!("../RECIPES.md")]
pub mod recipes {}

/// Name by name from Go, tokio-util, .NET, `AbortSignal` and gRPC.
#[cfg(doc)]
#[doc = include_str!("../COMING_FROM.md")]
pub mod coming_from {}

/// The documents of the repository, whose programs run with the tests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../DESIGN.md")]
    mod design {}
    #[doc = include_str!("../tests/refused.md")]
    mod refused {}
}
