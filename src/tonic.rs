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

use crate::http::{grpc_status, message};
use crate::tower::{ServerContext, is_shutdown};
use crate::{Context, Error, StreamExt, StreamWithContext, TakeUntilDone};

/// `DeadlineExceeded` where the deadline was first, `Cancelled` where a cancel was. The message is the kind of the error and
/// nothing else, and the error is the source. Where it was the server's shutdown the layer makes that `Unavailable`, if the
/// method answers with it before its first message.
///
/// ```
/// use context_merge::Error;
/// use tonic::{Code, Status};
///
/// let status = Status::from(Error::cancelled().with_cause("no connection to db-7"));
/// assert_eq!((status.code(), status.message()), (Code::Cancelled, "context cancelled"));
/// ```
impl From<Error> for Status {
    fn from(err: Error) -> Status {
        with_source(Status::new(grpc_status(&err).into(), message(&err)), err)
    }
}

fn with_source(mut status: Status, err: Error) -> Status {
    status.set_source(Arc::new(err));
    status
}

/// The context of a request.
pub trait RequestExt {
    /// The context that a layer has put in the extensions.
    ///
    /// # Errors
    /// `Internal` where there is none, because the layer is missing.
    fn context(&self) -> Result<Context, Status>;

    /// The context of what goes on after the response.
    ///
    /// # Errors
    /// `Internal` where there is none, because the layer is missing.
    fn server_context(&self) -> Result<ServerContext, Status>;

    /// This request under `ctx`, for a client with a [`PropagateLayer`](crate::tower::PropagateLayer).
    fn with_context(self, ctx: impl Into<Context>) -> Self;
}

impl<T> RequestExt for Request<T> {
    fn context(&self) -> Result<Context, Status> {
        self.extensions().get().cloned().ok_or_else(missing)
    }

    fn server_context(&self) -> Result<ServerContext, Status> {
        self.extensions().get().cloned().ok_or_else(missing)
    }

    fn with_context(mut self, ctx: impl Into<Context>) -> Self {
        self.extensions_mut().insert(ctx.into());
        self
    }
}

fn missing() -> Status {
    Status::internal("no context in the extensions of the request: a ContextLayer is missing")
}

/// A stream of answers that ends with a context.
pub trait StatusStreamExt<T>: Stream<Item = Result<T, Status>> {
    /// Its items until the context finishes; then one with the status of that, and the end: `Unavailable` where `ctx` is
    /// that of a request, or derived from it, and the server's shutdown was first.
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
        UntilDone { stream: self.take_until_done(&ctx).with_context(&ctx), ctx }
    }
}

impl<T, S: Stream<Item = Result<T, Status>>> StatusStreamExt<T> for S {}

/// Answers until a context finishes; made by [`StatusStreamExt::until_done`].
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct UntilDone<S> {
    #[pin]
    stream: StreamWithContext<TakeUntilDone<S>>,
    ctx: Context,
}

impl<T, S: Stream<Item = Result<T, Status>> + Send + 'static> Stream for UntilDone<S> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let next = task::ready!(this.stream.poll_next(cx));
        Poll::Ready(next.map(|item| {
            item.unwrap_or_else(|err| {
                Err(if err.is_cancelled() && is_shutdown(this.ctx) {
                    with_source(Status::unavailable(message(&err)), err)
                } else {
                    err.into()
                })
            })
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Send + 'static> FusedStream for UntilDone<S> {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

impl<S> fmt::Debug for UntilDone<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UntilDone").field(&self.stream).finish()
    }
}
