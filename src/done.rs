//! Waiting: `Done`, `DoneOwned`, and `wait` for threads.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker, ready};
use std::thread::{self, Thread};
use std::time::{Duration, Instant as StdInstant};

use futures_core::FusedFuture;

use crate::context::Context;
use crate::error::Error;
use crate::registration::Registration;
use crate::timer::{self, check_timer};

/// A registration, and its timer where there is a deadline.
pub(crate) struct Waiting<C: Borrow<Context>>(Registration<C>);

impl<C: Borrow<Context>> Waiting<C> {
    #[inline]
    pub(crate) fn new(ctx: C) -> Self {
        Self(Registration::new(ctx))
    }

    /// To wait for the deadline and the foreign signals alone, by `poll_without_lists`; the futures of the signals are made,
    /// and the timer is asked for, here.
    pub(crate) fn without_lists(ctx: C) -> Self {
        let mut registration = Registration::new(ctx);
        registration.listen();
        if registration.ctx().deadline().is_some() {
            check_timer();
        }
        Self(registration)
    }

    #[inline]
    pub(crate) fn ctx(&self) -> &Context {
        self.0.ctx()
    }

    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        let polled = self.0.poll(cx);
        self.until_deadline(polled, cx, Registration::poll)
    }

    /// In no list.
    pub(crate) fn poll_without_lists(&mut self, cx: &mut task::Context<'_>) -> Poll<Error> {
        let polled = self.0.poll_without_lists(cx);
        self.until_deadline(polled, cx, Registration::poll_without_lists)
    }

    #[inline]
    fn until_deadline(
        &mut self,
        mut polled: Poll<Error>,
        cx: &mut task::Context<'_>,
        look: impl Fn(&mut Registration<C>, &mut task::Context<'_>) -> Poll<Error>,
    ) -> Poll<Error> {
        if polled.is_pending() {
            let Some(at) = self.ctx().deadline() else { return Poll::Pending };
            loop {
                ready!(self.0.timer().poll(at, cx));
                polled = look(&mut self.0, cx);
                if polled.is_ready() {
                    break;
                }
                self.0.timer().reset(at);
            }
        }
        polled
    }

    /// Nothing is awaited any more: takes the waiter out, and disarms the timer.
    #[inline]
    pub(crate) fn stop(&mut self) {
        self.0.stop();
    }
}

/// Finishes when the context does, with its error; made by [`Context::done`].
///
/// # Cancel safety
/// May be dropped at any time, and leaves nothing behind in any source. It may be polled from task to task: the waker
/// of the latest poll is woken.
#[must_use = "futures do nothing unless polled"]
pub struct Done<'a>(Waiting<&'a Context>);

/// [`Done`] that owns its context; made by [`Context::done_owned`].
#[must_use = "futures do nothing unless polled"]
pub struct DoneOwned(Waiting<Context>);

macro_rules! done_future {
    ($done:ty) => {
        impl Future for $done {
            type Output = Error;

            #[inline]
            fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Error> {
                self.0.poll(cx)
            }
        }

        impl FusedFuture for $done {
            fn is_terminated(&self) -> bool {
                self.0.0.is_finished()
            }
        }

        impl fmt::Debug for $done {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($done)).field(self.0.ctx()).finish()
            }
        }
    };
}

done_future!(Done<'_>);
done_future!(DoneOwned);

impl Context {
    /// Waits for the finish. Polled again after it was ready, it is ready again.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// tokio::spawn(async move { canceller.cancel() });
    /// assert!(ctx.done().await.is_cancelled());
    /// # }
    /// ```
    ///
    /// Where nobody can finish the context any more, this waits for ever: the last [`Canceller`](crate::Canceller) of each
    /// source is gone, which is not a cancel, and there is no deadline. [`explain`](Self::explain) tells such a context,
    /// as [`wait`](Self::wait) shows.
    ///
    /// # Runtimes
    /// A deadline fires on the runtime in which this was polled last. When that ends, whoever polls is woken; the next
    /// poll arms the deadline where it is made, also in a runtime that has ended, or has no timer, or outside any: then a
    /// thread of this process fires, by the real clock. A runtime that lives, but is driven by nobody, fires for nobody: a
    /// poll elsewhere, or any cancel, also one after the deadline, does instead.
    ///
    /// # Panics
    /// When polled for the first time on a live context with a deadline, outside a tokio runtime with time enabled.
    pub fn done(&self) -> Done<'_> {
        Done(Waiting::new(self))
    }

    /// [`done`](Self::done) without a borrow, for a task or a struct of its own.
    pub fn done_owned(&self) -> DoneOwned {
        DoneOwned(Waiting::new(self.clone()))
    }

    /// Sleeps for `for_`, unless the context finishes first.
    ///
    /// # Cancel safety
    /// As [`tokio::time::sleep`]: dropping it leaves nothing behind. It goes on where it is polled, as [`done`](Self::done).
    ///
    /// # Panics
    /// When polled for the first time outside a tokio runtime with time enabled.
    pub async fn sleep(&self, for_: Duration) -> Result<(), Error> {
        self.run(timer::sleep(for_)).await
    }

    /// Blocks this thread until the finish; needs no runtime, also with a deadline. On a thread of a runtime it
    /// blocks that, as all blocking does; where the runtime's clock is paused, a deadline is never reached while
    /// its own thread is blocked here.
    ///
    /// ```
    /// use context_merge::Context;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let worker = std::thread::spawn(move || ctx.wait());
    /// canceller.cancel_with("enough");
    /// assert_eq!(worker.join().unwrap().cause().unwrap().to_string(), "enough");
    /// ```
    ///
    /// Where nobody can finish the context any more, it blocks for ever. On a thread of `spawn_blocking` that also keeps the
    /// runtime from ending, since dropping one waits for those. What a thread hangs on, [`explain`](Self::explain) says:
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::time::Duration;
    ///
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// drop(canceller); // which is not a cancel, and it was the last
    /// assert!(ctx.wait_timeout(Duration::from_millis(1)).is_none());
    /// assert_eq!(
    ///     ctx.explain().to_string(),
    ///     "live: nothing can finish it any more\n\
    ///      └─ source: live, and nothing can cancel it any more\n"
    /// );
    /// ```
    pub fn wait(&self) -> Error {
        loop {
            if let Some(err) = self.wait_until(None) {
                return err;
            }
        }
    }

    /// [`wait`](Self::wait) for at most `max`: None if the context is not finished by then.
    pub fn wait_timeout(&self, max: Duration) -> Option<Error> {
        match StdInstant::now().checked_add(max) {
            Some(limit) => self.wait_until(Some(limit)),
            None => Some(self.wait()),
        }
    }

    fn wait_until(&self, limit: Option<StdInstant>) -> Option<Error> {
        let waker = Waker::from(Arc::new(Parked(thread::current())));
        let mut cx = task::Context::from_waker(&waker);
        let mut registration = Registration::new(self);
        loop {
            if let Poll::Ready(err) = registration.poll(&mut cx) {
                return Some(err);
            }
            let left = limit.map(|limit| limit.saturating_duration_since(StdInstant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            match left.into_iter().chain(self.remaining()).min() {
                Some(time) => thread::park_timeout(time),
                None => thread::park(),
            }
        }
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
