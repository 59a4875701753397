//! How an exchange of HTTP ends (feature `tower`), and what a piece of work makes of that.

use std::fmt;

/// How an exchange of a request and its response has ended: the [cause](crate::Error::cause) of the cancel with which
/// [`ContextLayer`](crate::tower::ContextLayer) ends the context of each request.
///
/// A client that goes away while the handler reads the body of its request shows as an error of that body; the exchange then
/// ends as what the handler makes of that, [`Complete`](Ended::Complete) where it answers. A
/// [`ReadAheadLayer`](crate::tower::ReadAheadLayer) tells it as [`InRequest`](Ended::InRequest). When a client that has gone is
/// seen, [`ContextLayer`](crate::tower::ContextLayer#when-the-client-is-seen-to-go) says.
///
/// ```
/// use context_merge::tower::Ended;
/// use context_merge::{Context, Error};
///
/// fn hung_up(err: &Error) -> bool {
///     let ended = err.cause().and_then(|cause| cause.downcast_ref());
///     matches!(ended, Some(Ended::InRequest | Ended::BeforeResponse | Ended::InBody))
/// }
/// # let (ctx, canceller) = Context::background().with_cancel();
/// # canceller.cancel_with(Ended::InBody);
/// # assert!(hung_up(&ctx.err().unwrap()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ended {
    /// The body of the request has failed: the client has gone away while it sent it, or has sent what cannot be read. Told
    /// by a [`ReadAheadLayer`](crate::tower::ReadAheadLayer) alone.
    InRequest,
    /// The handler was dropped before it had a response: the client has gone away, or the connection was closed.
    BeforeResponse,
    /// The body of the response was dropped before its end, for the same reasons.
    InBody,
    /// The head of the response was not there in [time](crate::tower::ContextLayer::head_limit).
    HeadLimit,
    /// The service has failed, or the body of the response: there is no response, or it is not whole.
    Failed,
    /// The handler has panicked, or the body.
    Panicked,
    /// It is complete: the last of the response was handed on.
    Complete,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::InRequest => "gone in the middle of the request",
            Ended::BeforeResponse => "gone before the response",
            Ended::InBody => "gone in the middle of the response",
            Ended::HeadLimit => "no response within the limit",
            Ended::Failed => "failed",
            Ended::Panicked => "panicked",
            Ended::Complete => "the exchange is complete",
        })
    }
}

impl std::error::Error for Ended {}

/// Work was dropped because its context has finished. Where the exchange it was under is complete nobody has left, and
/// nothing has failed: more likely it was meant to go on.
#[cfg(feature = "tracing")]
pub(crate) fn work_was_dropped(err: &crate::error::Error) {
    if err.cause().and_then(|cause| cause.downcast_ref()) == Some(&Ended::Complete) {
        ::tracing::warn!(
            target: "context_merge",
            "work under a request was dropped because the exchange is complete; a ServerContext goes on after the response"
        );
    }
}
