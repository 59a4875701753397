//! Work that outlives its request, but neither its limit nor the application.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::time::Duration;

use context_merge::shutdown::Shutdown;
use context_merge::{Context, Error, merge};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
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
    pub(crate) shutdown: Shutdown,
    pub(crate) limit: Duration,
    pub(crate) outcomes: UnboundedSender<Outcome>,
}

impl Tasks {
    pub(crate) fn start(&self, request: Context, length: Duration) {
        // For whom: the request. Until when: the limit, or the application's end; not the request's.
        let limit = format!("a task may take {:?}", self.limit);
        let own = request.without_cancel().named(LIMIT).with_timeout_cause(self.limit, limit);
        let ctx = merge(own, self.shutdown.stopping());
        let (outcomes, span) = (self.outcomes.clone(), span(&ctx));
        self.shutdown.spawn(
            async move {
                // Where nobody wants to know the receiver is gone.
                let _ = outcomes.send(run(ctx, request, length).await);
            }
            .instrument(span),
        );
    }
}

const LIMIT: &str = "task limit";

async fn run(ctx: Context, request: Context, length: Duration) -> Outcome {
    let started = Instant::now();
    info!(?length, limit = ctx.remaining().map(tracing::field::debug), "STARTED");
    let result = ctx.run(tokio::time::sleep(length)).await;
    let (at, outlived) = (Instant::now(), request.is_done());
    let after = at - started;
    match &result {
        Ok(()) => info!(?after, "FINISHED"),
        Err(err) => warn!(?after, "{}", chain(err)),
    }
    Outcome { id: ctx.value::<RequestId>().map(|id| id.0), result, after, at, outlived }
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
