//! What brings the later stages: time.

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Shutdown, Stages};
use crate::Error;

/// Drains and stops when it is time. Dropped before that, it stops.
pub(super) struct Timer {
    pub(super) shutdown: Shutdown,
    pub(super) began: Error,
    pub(super) delay: Duration,
}

impl Timer {
    pub(super) fn start(self) {
        let Stages { grace, runtime, stopping: (stopping, _), .. } = &*self.shutdown.0;
        let runtime = Handle::try_current().ok().or_else(|| runtime.clone());
        // For the clock of that runtime, which may be paused.
        let entered = runtime.as_ref().map(Handle::enter);
        let drain = stopping.with_timeout(self.delay);
        let stop = stopping.with_timeout(self.delay.saturating_add(*grace));
        drop(entered);
        match runtime {
            Some(runtime) => drop(runtime.spawn(async move {
                drain.done().await;
                self.drain();
                stop.done().await;
                self.stop();
            })),
            // Where there is no thread to be had, the timer is dropped.
            None => drop(thread::Builder::new().name("shutdown".into()).spawn(move || {
                drain.wait();
                self.drain();
                stop.wait();
                self.stop();
            })),
        }
    }

    fn drain(&self) {
        let over = Over { what: format!("the delay of {:?} is over", self.delay), began: self.began.clone() };
        quietly(|| self.shutdown.0.draining.1.cancel_with(over));
    }

    pub(super) fn stop(&self) {
        let over =
            Over { what: format!("the grace of {:?} is over", self.shutdown.0.grace), began: self.began.clone() };
        quietly(|| self.shutdown.stop(over));
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let what = "the runtime that measured the grace is gone".to_owned();
        quietly(|| self.shutdown.stop(Over { what, began: self.began.clone() }));
    }
}

/// For callbacks that panic where nobody could do anything about it: the panic hook has told.
pub(super) fn quietly(cancel: impl FnOnce() -> bool) {
    let _ = catch_unwind(AssertUnwindSafe(cancel));
}

/// The cause of a stage that time has brought; behind it, that of the beginning.
#[derive(Debug)]
struct Over {
    what: String,
    began: Error,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Over {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.began.source()
    }
}
