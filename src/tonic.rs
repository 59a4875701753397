//! Contexts in services and clients of tonic (feature `tonic`): [`Error`] becomes a [`Status`], a request has a context, and
//! a stream ends with it.
//!
//! The contexts come from [`ContextLayer`](crate::tower::ContextLayer) on `Server::builder().layer(…)`, with the deadline
//! of `grpc-timeout`, which tonic enforces but does not show; and go out by
//! [`PropagateLayer`](crate::tower::PropagateLayer) around a channel. At a deadline tonic says `Cancelled`, and lets a stream
//! go on; a layer that [enforces](crate::tower::ContextLayer::enforce) is ahead of it, with `DeadlineExceeded`.
//!
//! ```
//! use context_merge::tonic::{RequestExt, StatusStreamExt};
//! use futures::{Stream, stream};
//! use tonic::{Request, Response, Status};
//!
//! async fn count(request: Request<u32>) -> Result<Response<impl Stream<Item = Result<u32, Status>>>, Status> {
//!     let ctx = request.context()?;
//!     ctx.check()?; // as every `?` on an error of a context, a status
//!     let numbers = stream::iter((0..request.into_inner()).map(Ok));
//!     Ok(Response::new(numbers.until_done(&ctx)))
//! }
//! ```

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use tonic::{Request, Status};

use crate::http::{grpc_status, reason};
use crate::{Context, Error, StreamExt, StreamWithContext, TakeUntilDone};

/// `DeadlineExceeded`; `Unavailable` for a cancel whose origin is [`shutdown`](crate::http::SHUTDOWN); `Cancelled` for all
/// others. The message is the error and its cause, and the error is the source.
///
/// ```
/// use context_merge::Error;
/// use tonic::{Code, Status};
///
/// let status = Status::from(Error::cancelled().with_cause("no longer needed"));
/// assert_eq!((status.code(), status.message()), (Code::Cancelled, "context cancelled: no longer needed"));
/// ```
impl From<Error> for Status {
    fn from(err: Error) -> Status {
        let mut status = Status::new(grpc_status(&err).into(), reason(&err));
        status.set_source(Arc::new(err));
        status
    }
}

/// The context of a request.
pub trait RequestExt {
    /// The context that a layer has put in the extensions.
    ///
    /// # Errors
    /// `Internal` where there is none, because the layer is missing.
    fn context(&self) -> Result<Context, Status>;

    /// This request under `ctx`, for a client with a [`PropagateLayer`](crate::tower::PropagateLayer).
    fn with_context(self, ctx: impl Into<Context>) -> Self;
}

impl<T> RequestExt for Request<T> {
    fn context(&self) -> Result<Context, Status> {
        let ctx = self.extensions().get().cloned();
        ctx.ok_or_else(|| Status::internal("no context in the extensions of the request: a ContextLayer is missing"))
    }

    fn with_context(mut self, ctx: impl Into<Context>) -> Self {
        self.extensions_mut().insert(ctx.into());
        self
    }
}

/// A stream of answers that ends with a context.
pub trait StatusStreamExt<T>: Stream<Item = Result<T, Status>> {
    /// Its items until the context finishes; then one with the status of that, and the end.
    ///
    /// The finish itself drops the stream, also where nobody polls it any more
    /// ([`take_until_done`](crate::StreamExt::take_until_done)).
    ///
    /// # Panics
    /// On a live context with a deadline, outside a tokio runtime with time enabled.
    fn until_done(self, ctx: impl Into<Context>) -> UntilDone<Self>
    where
        Self: Sized + Send + 'static,
    {
        let ctx = ctx.into();
        UntilDone(self.take_until_done(&ctx).with_context(ctx))
    }
}

impl<T, S: Stream<Item = Result<T, Status>>> StatusStreamExt<T> for S {}

/// Answers until a context finishes; made by [`StatusStreamExt::until_done`].
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct UntilDone<S>(#[pin] StreamWithContext<TakeUntilDone<S>>);

impl<T, S: Stream<Item = Result<T, Status>> + Send + 'static> Stream for UntilDone<S> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let next = task::ready!(self.project().0.poll_next(cx));
        Poll::Ready(next.map(|item| item.unwrap_or_else(|err| Err(err.into()))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Send + 'static> FusedStream for UntilDone<S> {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl<S> fmt::Debug for UntilDone<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UntilDone").field(&self.0).finish()
    }
}
