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
use pin_project::pin_project;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::context::Context;
use crate::error::Error;
use crate::registration::Registration;
use crate::sync::now;

/// A registration and a timer for the deadline, armed at the first poll that has to wait.
#[pin_project]
pub(crate) struct Waiting<C: Borrow<Context>> {
    registration: Registration<C>,
    #[pin]
    timer: Option<Sleep>,
    terminated: bool,
    /// Whether the lists of the sources are left to somebody else.
    alarms_only: bool,
}

impl<C: Borrow<Context>> Waiting<C> {
    pub(crate) fn new(ctx: C) -> Self {
        Self { registration: Registration::new(ctx), timer: None, terminated: false, alarms_only: false }
    }

    /// Waits for the deadline and the foreign signals, in no list; the timer is armed, and the futures of the
    /// signals are made, here.
    pub(crate) fn for_alarms(ctx: C) -> Self {
        let mut registration = Registration::new(ctx);
        registration.listen();
        let timer = registration.ctx().deadline().map(timer);
        Self { registration, timer, terminated: false, alarms_only: true }
    }

    pub(crate) fn ctx(&self) -> &Context {
        self.registration.ctx()
    }

    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Error> {
        let mut this = self.project();
        let look = if *this.alarms_only { Registration::poll_alarms } else { Registration::poll };
        let err = match look(this.registration, cx) {
            Poll::Ready(err) => err,
            Poll::Pending => {
                let Some(at) = this.registration.ctx().deadline() else { return Poll::Pending };
                if this.timer.is_none() {
                    this.timer.set(Some(timer(at)));
                }
                loop {
                    let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { return Poll::Pending };
                    ready!(timer.as_mut().poll(cx));
                    match look(this.registration, cx) {
                        Poll::Ready(err) => break err,
                        // Further off than a timer can reach, or read off another clock.
                        Poll::Pending => timer.reset(within_reach(at.max(now() + Duration::from_millis(1)))),
                    }
                }
            }
        };
        this.timer.set(None);
        *this.terminated = true;
        Poll::Ready(err)
    }

    /// Nothing is awaited any more: takes the waiter out, and disarms the timer.
    #[inline]
    pub(crate) fn stop(self: Pin<&mut Self>) {
        let mut this = self.project();
        this.registration.stop();
        if this.timer.is_some() {
            this.timer.set(None);
        }
    }
}

/// What a timer takes without an overflow. It rings early for a deadline beyond it, and is set again.
fn within_reach(at: Instant) -> Instant {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    if at.checked_add(A_YEAR).is_some() { at } else { now() + A_YEAR }
}

pub(crate) fn timer(at: Instant) -> Sleep {
    assert!(
        Handle::try_current().is_ok(),
        "waiting on a context with a deadline needs a tokio runtime with time enabled (or Context::wait on a thread)"
    );
    sleep_until(within_reach(at))
}

/// Finishes when the context does, with its error; made by [`Context::done`].
///
/// # Cancel safety
/// May be dropped at any time, and leaves nothing behind in any source. It may be polled from task to task: the waker
/// of the latest poll is woken.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct Done<'a>(#[pin] Waiting<&'a Context>);

/// [`Done`] that owns its context; made by [`Context::done_owned`].
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct DoneOwned(#[pin] Waiting<Context>);

macro_rules! done_future {
    ($done:ty) => {
        impl Future for $done {
            type Output = Error;

            fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Error> {
                self.project().0.poll(cx)
            }
        }

        impl FusedFuture for $done {
            fn is_terminated(&self) -> bool {
                self.0.terminated
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
    /// # Panics
    /// When polled on a context with a deadline outside a tokio runtime with time enabled.
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
    /// As [`tokio::time::sleep`]: dropping it leaves nothing behind.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn sleep(&self, for_: Duration) -> Result<(), Error> {
        self.run(async move { tokio::time::sleep(for_).await }).await
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
