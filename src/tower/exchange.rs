//! How an exchange ends.

use crate::Canceller;
use std::fmt;
use std::mem;

/// How an exchange of a request and its response has ended: the [cause](crate::Error::cause) of the cancel with which
/// [`ContextLayer`](super::ContextLayer) ends the context of each request.
///
/// A client that goes away while the handler reads the body of its request shows as an error of that body; the exchange then
/// ends as what the handler makes of that, [`Complete`](Ended::Complete) where it answers. A
/// [`ReadAheadLayer`](super::ReadAheadLayer) tells it as [`InRequest`](Ended::InRequest). When a client that has gone is
/// seen, [`ContextLayer`](super::ContextLayer#when-the-client-is-seen-to-go) says.
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
    /// by a [`ReadAheadLayer`](super::ReadAheadLayer) alone.
    InRequest,
    /// The handler was dropped before it had a response: the client has gone away, or the connection was closed.
    BeforeResponse,
    /// The body of the response was dropped before its end, for the same reasons.
    InBody,
    /// The head of the response was not there in [time](super::ContextLayer::head_limit).
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

/// An exchange under way. Dropping it cancels its context, with how far it came as the cause.
#[derive(Debug)]
pub(super) struct Exchange {
    canceller: Canceller,
    so_far: Ended,
}

impl Exchange {
    pub(super) fn new(canceller: Canceller) -> Self {
        Self { canceller, so_far: Ended::BeforeResponse }
    }

    /// The response is there, and its body is still to come.
    pub(super) fn responded(&mut self) {
        self.so_far = Ended::InBody;
    }

    /// Runs a part of it, which may panic.
    pub(super) fn run<T>(&mut self, part: impl FnOnce() -> T) -> T {
        let so_far = mem::replace(&mut self.so_far, Ended::Panicked);
        let result = part();
        self.so_far = so_far;
        result
    }

    /// All of the response was handed on that has to be: it is complete, unless more of it fails.
    pub(super) fn is_whole(&mut self) {
        self.so_far = Ended::Complete;
    }

    pub(super) fn head_was_late(&mut self) {
        self.so_far = Ended::HeadLimit;
    }

    pub(super) fn has_failed(&mut self) {
        self.so_far = Ended::Failed;
    }

    /// Nothing more comes.
    pub(super) fn end(mut self) {
        if matches!(self.so_far, Ended::BeforeResponse | Ended::InBody) {
            self.so_far = Ended::Complete;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.canceller.cancel_with(self.so_far);
    }
}
