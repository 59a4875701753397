//! Streams that a context ends cleanly, and that the finish itself lets go of.
//!
//! The stream stands in a slot that two can empty: whoever polls, and the waker that waits for the finish. It is taken
//! out while it is polled, so that nothing foreign runs under the lock; a finish that comes meanwhile leaves a mark.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use futures_core::{FusedStream, Stream};

use crate::context::Context;
use crate::done::Waiting;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard, unpoisoned};

/// Items until the context finishes, then the end; made by [`StreamExt::take_until_done`](crate::StreamExt::take_until_done).
#[must_use = "streams do nothing unless polled"]
pub struct TakeUntilDone<S> {
    slot: Arc<Slot<S>>,
    /// The slot as a waker.
    waker: Waker,
    /// None once it is over.
    waiting: Option<Waiting<Context>>,
    ended_by: Option<Error>,
    /// How many items there are at most, as the stream said last.
    most: Option<usize>,
}

struct Slot<S> {
    ctx: Context,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// None while it is polled, and once it is over.
    stream: Option<Pin<Box<S>>>,
    /// Who polled last.
    task: Option<Waker>,
    finished: bool,
}

impl<S> Slot<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        unpoisoned(self.state.lock())
    }
}

impl<S: Send + 'static> Wake for Slot<S> {
    /// The context has finished, or a foreign signal wants to be asked.
    fn wake(self: Arc<Self>) {
        let finished = self.ctx.is_done();
        let mut state = self.lock();
        state.finished |= finished;
        let stream = if finished { state.stream.take() } else { None };
        let task = state.task.take();
        drop(state);
        // A panic has been reported by the hook. Here it would hit whoever cancels, or the timer of a runtime.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(stream))).map_err(std::mem::forget);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<S: Stream + Send + 'static> TakeUntilDone<S> {
    pub(crate) fn new(stream: S, ctx: Context) -> Self {
        let most = stream.size_hint().1;
        let state = State { stream: Some(Box::pin(stream)), task: None, finished: false };
        let slot = Arc::new(Slot { ctx: ctx.clone(), state: Mutex::new(state) });
        let waker = Waker::from(Arc::clone(&slot));
        let mut this = Self { slot, waker, waiting: Some(Waiting::new(ctx)), ended_by: None, most };
        // At once, so that one that is never polled is let go as well.
        let _ = this.poll_finish();
        this
    }

    /// Waits for the finish with the slot as the waker. Ready once it is over.
    fn poll_finish(&mut self) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(()) };
        let err = task::ready!(waiting.poll(&mut task::Context::from_waker(&self.waker)));
        self.ended_by = Some(err);
        self.end();
        Poll::Ready(())
    }
}

impl<S> TakeUntilDone<S> {
    /// The context's error, where that has ended the stream; None where the stream goes on, or has ended by itself.
    pub fn err(&self) -> Option<Error> {
        self.ended_by.clone()
    }

    /// Lets go of all that is left; the registration first, for the stream may hold what finishes the same context.
    fn end(&mut self) {
        self.waiting = None;
        let mut state = self.slot.lock();
        let left = (state.stream.take(), state.task.take());
        drop(state);
        drop(left);
    }
}

impl<S: Stream + Send + 'static> Stream for TakeUntilDone<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<S::Item>> {
        if self.poll_finish().is_ready() {
            return Poll::Ready(None);
        }
        let mut state = self.slot.lock();
        let (stream, task) = (state.stream.take(), state.task.take());
        drop(state);
        let task = task.filter(|task| task.will_wake(cx.waker())).unwrap_or_else(|| cx.waker().clone());
        let mut next = Poll::Ready(None);
        // None where a finish took it since the look. Where the poll panics the stream is dropped, and the next one ends.
        if let Some(mut stream) = stream {
            next = stream.as_mut().poll_next(cx);
            if !matches!(next, Poll::Ready(None)) {
                self.most = stream.size_hint().1;
                let mut state = self.slot.lock();
                if !state.finished {
                    // A finish from here on takes both out, and wakes.
                    state.stream = Some(stream);
                    state.task = Some(task);
                    return next;
                }
            }
        }
        let finished = self.slot.lock().finished;
        if finished {
            self.ended_by = self.slot.ctx.err();
        }
        self.end();
        match next {
            // The end follows at the next poll, for which nobody else would call.
            Poll::Ready(Some(item)) => {
                cx.waker().wake_by_ref();
                Poll::Ready(Some(item))
            }
            _ => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.waiting.as_ref().map_or(Some(0), |_| self.most))
    }
}

impl<S: Stream + Send + 'static> FusedStream for TakeUntilDone<S> {
    fn is_terminated(&self) -> bool {
        self.waiting.is_none()
    }
}

impl<S> Drop for TakeUntilDone<S> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S> fmt::Debug for TakeUntilDone<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakeUntilDone").field("ctx", &self.slot.ctx).finish_non_exhaustive()
    }
}
