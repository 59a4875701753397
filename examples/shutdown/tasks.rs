//! The task manager: work that outlives its request, but neither its limit nor the application.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use context_merge::{Context, Error, merge};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span, info, info_span, warn};

// What a request's context carries, and the log lines of its task show.
pub(crate) struct RequestId(pub(crate) u64);
pub(crate) struct Url(pub(crate) String);
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What came of a task.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) id: Option<u64>,
    pub(crate) result: Result<(), Error>,
    pub(crate) after: Duration,
    pub(crate) at: Instant,
    /// Whether its request had ended before it.
    pub(crate) outlived: bool,
}

#[derive(Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    shutdown: Context,
    limit: Duration,
    outcomes: UnboundedSender<Outcome>,
}

impl Tasks {
    pub(crate) fn new(shutdown: Context, limit: Duration, outcomes: UnboundedSender<Outcome>) -> Tasks {
        Tasks { tracker: TaskTracker::new(), shutdown, limit, outcomes }
    }

    pub(crate) fn start(&self, request: &Context, length: Duration) {
        let work = Work { started: Instant::now(), request: request.clone(), length };
        let limit = format!("a task may take {:?}", self.limit);
        // For whom: the request. Until when: the limit, or the application's end; not the request's.
        let own = request.without_cancel().named("task limit").with_timeout_cause(self.limit, limit);
        let ctx = merge(own, &self.shutdown);
        let outcomes = self.outcomes.clone();
        let span = span(&ctx);
        self.tracker.spawn(
            async move {
                // Where nobody wants to know the receiver is gone.
                let _ = outcomes.send(work.run(&ctx).await);
            }
            .instrument(span),
        );
    }

    /// Counts as a task for `ended`, as long as it lives.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    pub(crate) fn running(&self) -> usize {
        self.tracker.len()
    }

    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

struct Work {
    started: Instant,
    request: Context,
    length: Duration,
}

impl Work {
    async fn run(self, ctx: &Context) -> Outcome {
        info!(length = ?self.length, limit = ctx.remaining().map(tracing::field::debug), "STARTED");
        let result = ctx.run(tokio::time::sleep(self.length)).await;
        let (at, outlived) = (Instant::now(), self.request.is_done());
        let after = at - self.started;
        match &result {
            Ok(()) => info!(?after, "FINISHED"),
            Err(err) => {
                warn!(origin = err.origin(), cause = err.cause().map(|cause| chain(cause)), ?after, "CANCELLED")
            }
        }
        Outcome { id: ctx.value::<RequestId>().map(|id| id.0), result, after, at, outlived }
    }
}

/// Everything in it comes out of the context.
fn span(ctx: &Context) -> Span {
    info_span!(
        "task",
        id = ctx.value::<RequestId>().map(|id| id.0),
        url = ctx.value::<Url>().map(|url| url.0.as_str()),
        peer = ctx.value::<Peer>().map(|peer| tracing::field::display(peer.0)),
    )
}

/// An error with all that stands behind it.
pub(crate) fn chain(err: &(dyn StdError + 'static)) -> String {
    let behind = std::iter::successors(err.source(), |&err| err.source());
    behind.fold(err.to_string(), |text, err| format!("{text}: {err}"))
}
