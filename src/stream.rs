//! Streams under a context.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use tokio::runtime::Handle;

use crate::context::Context;
use crate::done::Waiting;
use crate::error::Error;
use crate::take_until_done::TakeUntilDone;

/// Items until the context finishes; made by [`StreamExt::with_context`].
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct StreamWithContext<S> {
    waiting: Waiting<Context>,
    #[pin]
    stream: Option<S>,
}

/// A stream that ends with a context.
pub trait StreamExt: Stream {
    /// The items of this stream as `Ok` until the context finishes; then one `Err`, and the end. The stream is
    /// dropped before the `Err`.
    ///
    /// The context is looked at before each item, so that a stream that is always ready ends too, and the task that polled
    /// last is woken by the finish, whether it was told an item or to wait. The stream is dropped at the poll that
    /// follows. Where none may follow, as for the body of a response whose reader has stalled, put
    /// [`take_until_done`](Self::take_until_done) under it: `stream.take_until_done(&ctx).with_context(&ctx)` is dropped by
    /// the finish itself, and tells the error.
    ///
    /// ```
    /// use context_merge::{Context, StreamExt as _};
    /// use futures::{StreamExt as _, stream};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let mut numbers = std::pin::pin!(stream::iter(0..).with_context(&ctx));
    /// assert_eq!(numbers.next().await.unwrap().unwrap(), 0);
    /// canceller.cancel();
    /// assert!(numbers.next().await.unwrap().unwrap_err().is_cancelled());
    /// assert!(numbers.next().await.is_none());
    /// # }
    /// ```
    ///
    /// # Panics
    /// As [`Context::run`].
    fn with_context(self, ctx: impl Into<Context>) -> StreamWithContext<Self>
    where
        Self: Sized,
    {
        StreamWithContext { waiting: Waiting::new(ctx.into()), stream: Some(self) }
    }

    /// The items of this stream until the context finishes; then the end, without an error: what is written out of it ends
    /// cleanly. [`TakeUntilDone::err`] tells which end it was.
    ///
    /// The finish itself drops the stream, on the thread that cancels or on the runtime that reaches the deadline, also
    /// where nobody polls it any more: a body that waits for a client that does not read holds nothing on. (While it is
    /// polled, that poll drops it. A foreign [`Signal`](crate::Signal) is seen when its future wakes, or at a poll.) Then
    /// the task that polled last is woken. A panic of that drop is left to the panic hook.
    ///
    /// For a stream that borrows, or must stay on its thread, `futures::StreamExt::take_until(ctx.done())` ends cleanly too,
    /// at its next poll.
    ///
    /// ```
    /// use context_merge::{Context, StreamExt as _};
    /// use futures::{StreamExt as _, stream};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let (held, mut numbers) = (std::sync::Arc::new(0), stream::iter(0..).take_until_done(&ctx));
    /// let kept = held.clone();
    /// let mut others = stream::repeat_with(move || *kept).take_until_done(&ctx);
    /// assert_eq!(numbers.next().await, Some(0));
    /// canceller.cancel();
    /// assert_eq!(numbers.next().await, None);
    /// assert!(numbers.err().unwrap().is_cancelled());
    /// assert_eq!(std::sync::Arc::strong_count(&held), 1, "let go of, though never polled");
    /// assert_eq!(others.next().await, None);
    /// # }
    /// ```
    ///
    /// # Panics
    /// On a live context with a deadline, outside a tokio runtime with time enabled.
    fn take_until_done(self, ctx: impl Into<Context>) -> TakeUntilDone<Self>
    where
        Self: Sized + Send + 'static,
    {
        TakeUntilDone::new(self, ctx.into())
    }
}

impl<S: Stream> StreamExt for S {}

impl<S: Stream> Stream for StreamWithContext<S> {
    type Item = Result<S::Item, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let next = match this.waiting.ctx().err() {
            Some(err) => Some(Err(err)),
            None => match stream.poll_next(cx) {
                Poll::Ready(item) => {
                    // Nobody may ask for the next one: the finish has to wake this task all the same.
                    if item.is_some() && can_wait(this.waiting.ctx()) {
                        let _seen_at_the_next_poll = this.waiting.poll(cx);
                    }
                    item.map(Ok)
                }
                Poll::Pending => match this.waiting.poll(cx) {
                    Poll::Ready(err) => Some(Err(err)),
                    Poll::Pending => return Poll::Pending,
                },
            },
        };
        if !matches!(next, Some(Ok(_))) {
            this.stream.set(None);
            this.waiting.stop();
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The error may come before the first item, or after the last.
        let most = self.stream.as_ref().map_or(Some(0), |stream| stream.size_hint().1?.checked_add(1));
        (0, most)
    }
}

/// Whether waiting needs no runtime, or has one.
fn can_wait(ctx: &Context) -> bool {
    ctx.deadline().is_none() || Handle::try_current().is_ok()
}

impl<S: Stream> FusedStream for StreamWithContext<S> {
    fn is_terminated(&self) -> bool {
        self.stream.is_none()
    }
}

impl<S> fmt::Debug for StreamWithContext<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWithContext").field("ctx", self.waiting.ctx()).finish_non_exhaustive()
    }
}
