//! The finish of a context as an event of `tracing` (feature `tracing`).
//!
//! With it, and feature `tower`, there are two warnings more, of target `context_merge`: one when `run` or `with_context`
//! drops work under a request because the exchange is *complete*, for that was more likely to go on after the response
//! (`tower::ServerContext`); and one, once, when a `tower::PropagateLayer` is given a request without a context. Nothing
//! else in this crate makes an event or a span.
//!
//! ```
//! use context_merge::{Context, tracing::event_on_done};
//!
//! tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
//!
//! let (ctx, canceller) = Context::background().named("request").with_cancel();
//! tracing::info_span!("serve").in_scope(|| event_on_done(&ctx).detach());
//! // DEBUG serve: context_merge: context finished kind=Cancelled origin="request" cause=hung up observed_secs=0.000031
//! canceller.cancel_with("hung up");
//! ```

use tokio::time::Instant;
use tracing::{Span, debug};

use crate::{Context, OnDone};

/// Records one event when the context finishes, at once if it is finished already, and none after the [`OnDone`] is
/// dropped; [`detach`](OnDone::detach) keeps it.
///
/// Its parent is the span that is current now, wherever the finish comes from; that span stays open until then. Its
/// target is `context_merge`, its level DEBUG: to finish is an ordinary end, and whoever acts on the error has it in
/// hand. Its fields:
///
/// | field | |
/// |---|---|
/// | `kind` | the [`ErrorKind`](crate::ErrorKind) |
/// | `origin` | [`Error::origin`](crate::Error::origin), where there is one |
/// | `cause` | [`Error::cause`](crate::Error::cause), where there is one, as an error |
/// | `observed_secs` | the time since this call, in seconds; a context does not know its age |
///
/// ```
/// use context_merge::{Context, tracing::event_on_done};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let ctx = Context::background().with_timeout(std::time::Duration::from_secs(5));
/// let _event = event_on_done(&ctx);
/// ctx.done().await;
/// # }
/// ```
///
/// # Panics
/// As [`Context::on_done`]: on a live context with a foreign signal, outside a tokio runtime; on one with a deadline, in a
/// runtime without time enabled.
pub fn event_on_done(ctx: &Context) -> OnDone {
    let (span, since) = (Span::current(), Instant::now());
    ctx.on_done(move |err| {
        debug!(
            target: "context_merge",
            parent: &span,
            kind = ?err.kind(),
            origin = err.origin(),
            cause = err.cause(),
            observed_secs = since.elapsed().as_secs_f64(),
            "context finished",
        );
    })
}
