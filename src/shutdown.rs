//! Stages of a shutdown (feature `shutdown`): [`Shutdown`] takes signals in and gives contexts out.
//!
//! | stage | begins | what to do with its context |
//! |---|---|---|
//! | [terminating](Shutdown::terminating) | with the signal | say *no* when asked whether the process is ready |
//! | [draining](Shutdown::draining) | after the [delay](Shutdown::delay), by default at once | accept no more; end SSE, WebSockets and long polls cleanly |
//! | [stopping](Shutdown::stopping) | after the grace, or at a second signal | give up: it is an input of each request's context |
//!
//! Each is derived from the next: whatever is stopped is draining, and whatever drains is terminating; never the other way
//! round. So what can end within the grace ends well, and the rest is cancelled with a reason.
//!
//! ```
//! use axum::{Router, routing::get};
//! use context_merge::{Context, merge, shutdown::Shutdown};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = Shutdown::new(Duration::from_secs(20)).on_signals()?;
//! let detached = shutdown.clone();
//! let app = Router::new().route("/", get(async move || {
//!     let request = Context::background(); // from a layer
//!     // Goes on after the response; ends with the process, which waits for it.
//!     let ctx = merge(request.without_cancel(), detached.stopping());
//!     detached.spawn(async move { ctx.run(tokio::task::yield_now()).await });
//!     "accepted"
//! }));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let server = axum::serve(listener, app).with_graceful_shutdown(shutdown.draining().finished());
//! // Spawned, so that a client that reads nothing cannot hold up the end.
//! shutdown.spawn(server.into_future());
//! # shutdown.begin("SIGTERM");
//! shutdown.ended(Duration::from_secs(1)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # HTTP/1.1
//! A response whose head goes out while the server drains says `connection: close`. An idle connection cannot be told, nor one
//! whose response had begun before: the server closes it, and a request that is on its way there just then gets no
//! answer. Clients and proxies send an idempotent one again, on another connection
//! ([RFC 9112, 9.3.1](https://www.rfc-editor.org/rfc/rfc9112#section-9.3.1)): Go's `net/http` does for GET, HEAD, OPTIONS and
//! TRACE, and where there is an `Idempotency-Key`; nginx (`proxy_next_upstream`) for all but POST, LOCK and PATCH; reqwest only
//! where it had not left. A POST is safe behind a load balancer that has looked elsewhere before
//! draining begins, which is what the [delay](Shutdown::delay) is for, and on HTTP/2, whose GOAWAY says which was the last
//! request that will be answered.
//!
//! # tonic
//! Up to 0.14.5 its servers hold on to the listener while they drain: whoever connects in that time is accepted by the system,
//! and waits for the end of the process instead of going elsewhere. (hyper and axum let go of it; so does tonic
//! [after that](https://github.com/grpc/grpc-rust/pull/2824).) End the incoming connections with draining as well:
//!
//! ```
//! use context_merge::{StreamExt as _, shutdown::Shutdown};
//! use tonic::transport::{Server, server::TcpIncoming};
//!
//! async fn serve(shutdown: &Shutdown, listener: tokio::net::TcpListener, methods: axum::Router) {
//!     let incoming = TcpIncoming::from(listener).take_until_done(shutdown.draining());
//!     let mut server = Server::builder(); // .layer(shutdown.layer().enforce())
//!     let serving = server.serve_with_incoming_shutdown(methods, incoming, shutdown.draining().finished());
//!     shutdown.spawn(serving);
//! }
//! ```
//!
//! # Kubernetes
//! A pod that is to go has `terminationGracePeriodSeconds`, 30 s where nothing else is set. In that time its `preStop` hook runs,
//! if it has one, and then its process is sent SIGTERM; at the end comes SIGKILL. Taking the pod out of its Services begins
//! at the same time and is not waited for: for some seconds connections still come. So either a `preStop` hook sleeps (`sleep` is there by
//! default since 1.30), or [`delay`](Shutdown::delay) keeps the process accepting; both is once too often. The pod counts as
//! not ready from the beginning, whatever its probe says; load balancers outside look at the probe. A liveness probe goes on
//! saying *yes* to the end. ([Termination of Pods](https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination),
//! [hooks](https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/),
//! [`sleep`](https://kubernetes.io/blog/2025/05/14/kubernetes-v1-33-updates-to-container-lifecycle))
//!
//! All of it has to fit: `preStop` + delay + grace + what `ended` adds < `terminationGracePeriodSeconds`.
//!
//! | | of 30 s, the default | of 60 s | where downloads take minutes: 330 s |
//! |---|---|---|---|
//! | `preStop: {sleep: {seconds: 5}}` *or* `.delay(5 s)` | 5 s | 10 s | 10 s |
//! | grace: the longest answer that is to end well | 20 s | 45 s | 300 s |
//! | `ended`: what was cancelled puts things away | 1 s | 2 s | 5 s |
//! | left: the last logs, the exit, a slow node | 4 s | 3 s | 15 s |
//!
//! The figures are suggestions. The delay is what the slowest load balancer in front takes to notice.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
#[cfg(any(unix, windows))]
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::Context;
#[cfg(any(unix, windows))]
use signals::Signals;
use stages::Stages;
use timer::{Timer, quietly};

mod report;
#[cfg(any(unix, windows))]
mod signals;
mod stages;
mod timer;

pub use report::Unfinished;

type Cause = Box<dyn StdError + Send + Sync>;

/// The stages of a shutdown, and what has to have ended before the process does. Clones are one and the same.
///
/// Making one begins nothing. [`on_signals`](Self::on_signals), [`on`](Self::on) and [`begin`](Self::begin) do.
/// Dropping all handles neither begins nor stops anything, and leaves nothing behind; the task of `on` keeps one until
/// its work is done.
///
/// The grace is measured by tokio's clock, on the runtime where `begin` is called or, on a plain thread, where the
/// `Shutdown` was made. Where neither has a runtime, a thread measures it. If that runtime ends during the grace, the
/// grace is over.
#[derive(Clone)]
pub struct Shutdown(Arc<Stages>);

impl Shutdown {
    /// What has to end before the process does. Its [`token`](TaskTracker::token)s count what is no task of yours: an
    /// upgraded connection, a thread, a job of a queue.
    pub fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Spawns work that [`ended`](Self::ended) waits for. It is tracked, and nothing else: it has to end by itself when
    /// [`stopping`](Self::stopping) is done, where it is safe to. Work that may be dropped anywhere is given the
    /// context: `work.with_context(shutdown.stopping())`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.tracker.spawn(work)
    }

    /// A layer for a server whose requests end with [`stopping`](Self::stopping): its handlers find
    /// [`draining`](Self::draining) and spawn what goes on after the response by a
    /// [`ServerContext`](crate::tower::ServerContext), which [`ended`](Self::ended) waits for.
    #[cfg(feature = "tower")]
    pub fn layer(&self) -> crate::tower::ContextLayer {
        let tracker = self.tracker().clone();
        let layer = crate::tower::ContextLayer::new(self.stopping()).draining(self.draining());
        layer.tracked(move || tracker.token())
    }

    /// Begins the shutdown, from any thread. True for the one call that did; any other one changes nothing. With a
    /// delay, `cause` is that of [`terminating`](Self::terminating), without one that of [`draining`](Self::draining).
    ///
    /// # Panics
    /// With the panic of a callback ([`on_done`](Context::on_done)) of that stage; the grace runs all the same.
    pub fn begin(&self, cause: impl Into<Cause>) -> bool {
        let Stages { grace, delay, terminating, draining, .. } = &*self.0;
        let delay = *delay.get_or_init(|| Duration::ZERO);
        let (first, canceller) = if delay.is_zero() { draining } else { terminating };
        let cause = cause.into();
        let began = catch_unwind(AssertUnwindSafe(|| canceller.cancel_with(cause)));
        // After a panic there is no telling; a second timer would ring later, and change nothing.
        if !matches!(began, Ok(false)) {
            let timer = Timer { shutdown: self.clone(), began: first.err().expect("begun"), delay };
            if delay.is_zero() && grace.is_zero() {
                timer.stop();
            } else {
                timer.start();
            }
        }
        began.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Stops now, skipping what is left of delay and grace. True for the one call that did, false where the shutdown
    /// has stopped already.
    ///
    /// # Panics
    /// With the panic of a callback of any stage, when all are done.
    pub fn stop(&self, cause: impl Into<Cause>) -> bool {
        self.0.stopping.1.cancel_with(cause)
    }

    /// Begins at the first of `triggers` and stops at the second one; each is the cause. By a task, which ends after the
    /// second one, with `triggers`, or once the shutdown has stopped; where its runtime ends before, nothing begins.
    ///
    /// Each such source counts its own: a signal after a [`begin`](Self::begin) by hand (a `preStop` hook) does not
    /// skip the grace.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use = "a clone of the handle: to begin by, to wait with"]
    pub fn on<S>(self, triggers: S) -> Self
    where
        S: Stream<Item: Into<Cause>> + Send + 'static,
    {
        let shutdown = self.clone();
        tokio::spawn(async move {
            let mut triggers = pin!(triggers);
            let Ok(Some(first)) = shutdown.stopping().run(next(triggers.as_mut())).await else { return };
            quietly(|| shutdown.begin(first));
            if let Ok(Some(second)) = shutdown.stopping().run(next(triggers)).await {
                quietly(|| shutdown.stop(second));
            }
        });
        self
    }

    /// [`on`](Self::on) the signals that ask a process to end: SIGTERM and SIGINT (Ctrl-C) on Unix, Ctrl-C on Windows. The
    /// cause is the signal's name. From here on, and for good, they do not end the process by themselves any more.
    ///
    /// # Errors
    /// Where the system refuses the handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with IO enabled.
    #[cfg(any(unix, windows))]
    pub fn on_signals(self) -> io::Result<Self> {
        Ok(self.on(Signals::listen()?))
    }

    /// Waits until all that is [tracked](Self::tracker) has ended. It begins nothing: where a server has failed, call
    /// [`begin`](Self::begin) first. What has not ended `slack` after the stop (after the call, where that is later) is
    /// reported instead of awaited.
    ///
    /// ```
    /// use context_merge::{FutureExt as _, shutdown::Shutdown};
    /// use std::{future::pending, time::Duration};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let shutdown = Shutdown::new(Duration::from_secs(20));
    /// let told = shutdown.spawn(pending::<()>().with_context(shutdown.stopping()));
    /// let stuck = shutdown.spawn(pending::<()>());
    /// shutdown.begin("the database is gone");
    /// let unfinished = shutdown.ended(Duration::from_secs(1)).await.unwrap_err();
    /// assert_eq!(unfinished.left(), 1);
    /// assert_eq!(told.await.unwrap().unwrap_err().to_string(), "context cancelled (shutdown)");
    /// # }
    /// ```
    ///
    /// After an error leave by `std::process::exit`: a runtime waits for its blocking threads when it is dropped.
    ///
    /// # Cancel safety
    /// May be dropped, and called again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled, where it has to wait for the slack.
    pub async fn ended(&self, slack: Duration) -> Result<(), Unfinished> {
        let tracker = self.tracker();
        tracker.close();
        if self.stopping().run(tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let late = Context::background().with_timeout(slack).run(tracker.wait()).await.is_err();
        match tracker.len() {
            left @ 1.. if late => Err(Unfinished { left, slack }),
            _ => Ok(()),
        }
    }
}

async fn next<S: Stream>(mut stream: Pin<&mut S>) -> Option<S::Item> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}
