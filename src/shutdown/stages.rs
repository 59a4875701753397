//! The stages of a shutdown: three contexts, each derived from the next.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::Shutdown;
use crate::{Canceller, Context};

pub(super) struct Stages {
    pub(super) grace: Duration,
    pub(super) delay: OnceLock<Duration>,
    pub(super) runtime: Option<Handle>,
    pub(super) tracker: TaskTracker,
    pub(super) terminating: (Context, Canceller),
    pub(super) draining: (Context, Canceller),
    pub(super) stopping: (Context, Canceller),
}

/// A child named `name`, whose own children are not.
fn stage(above: &Context, name: &'static str) -> (Context, Canceller) {
    let (ctx, canceller) = above.named(name).with_cancel();
    (ctx.with_values_of(above), canceller)
}

impl Shutdown {
    /// `grace` lies between draining and stopping. Zero stops as soon as it drains; one too long to represent ends
    /// only by [`stop`](Self::stop) or a second signal.
    pub fn new(grace: Duration) -> Self {
        let stopping = stage(&Context::background(), "shutdown");
        let draining = stage(&stopping.0, "draining");
        let terminating = stage(&draining.0, "terminating");
        let (delay, runtime, tracker) = (OnceLock::new(), Handle::try_current().ok(), TaskTracker::new());
        Self(Arc::new(Stages { grace, delay, runtime, tracker, terminating, draining, stopping }))
    }

    /// Goes on accepting for so long between the signal and draining, while [`terminating`](Self::terminating) is done
    /// already: time for load balancers to look elsewhere. It does not count towards the grace. Set once; a second
    /// call, or one after the shutdown has begun, changes nothing.
    ///
    /// ```
    /// use axum::{Router, http::StatusCode, routing::get};
    /// use context_merge::shutdown::Shutdown;
    /// use std::time::Duration;
    ///
    /// let shutdown = Shutdown::new(Duration::from_secs(20)).delay(Duration::from_secs(5));
    /// let terminating = shutdown.terminating().clone();
    /// let app: Router = Router::new().route("/ready", get(async move || match terminating.is_done() {
    ///     true => StatusCode::SERVICE_UNAVAILABLE, // and all other routes go on
    ///     false => StatusCode::OK,
    /// }));
    /// ```
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        // An error is the second call.
        let _ = self.0.delay.set(delay);
        self
    }

    /// Done from the first signal on. For readiness: not ready, and still serving.
    pub fn terminating(&self) -> &Context {
        &self.0.terminating.0
    }

    /// Done when nothing new is to begin. For `with_graceful_shutdown(shutdown.draining().finished())`, and for
    /// whatever has no end of its own.
    pub fn draining(&self) -> &Context {
        &self.0.draining.0
    }

    /// Done when work is to be given up. Named `shutdown`; its cause is that of [`stop`](Self::stop) or the second
    /// signal, or that the grace is over, with the cause of [`begin`](Self::begin) behind it.
    pub fn stopping(&self) -> &Context {
        &self.0.stopping.0
    }
}
