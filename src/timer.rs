//! The timer of a deadline: that of the runtime that polls, or where there is none, or it has
//! ended, that of a thread.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
// Not those of `sync`: no model has the timer thread.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_timer::Delay;
use pin_project::pin_project;
use tokio::runtime::{self, Handle};
use tokio::task::try_id;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::release::{drop_foreign, ignoring_panics};
use crate::sync::{now, unpoisoned};

/// It is armed by the first poll, and follows the task to the runtime that polls now.
#[pin_project(project = Armed)]
pub(crate) enum Timer {
    Off,
    /// On the timer of a runtime, which may have ended since, or be driven by nobody.
    Runtime {
        #[pin]
        sleep: Sleep,
        runtime: runtime::Id,
        task: Option<tokio::task::Id>,
    },
    /// On the timer thread, because the runtime that polled has ended or has no timer; None is for no runtime.
    Thread {
        thread_timer: ThreadTimer,
        without: Option<runtime::Id>,
    },
}

impl Timer {
    /// Ready when it has fired, perhaps too early: the caller looks, and sets it again.
    pub(crate) fn poll(mut self: Pin<&mut Self>, at: Instant, cx: &mut task::Context<'_>) -> Poll<()> {
        self.as_mut().follow(at);
        match self.project() {
            Armed::Off => Poll::Ready(()),
            Armed::Thread { thread_timer, .. } => thread_timer.poll(cx),
            Armed::Runtime { sleep, .. } => poll_sleep(sleep, cx),
        }
    }

    /// For what was further off than a timer can reach, was read off another clock, or stood on a runtime that has ended.
    pub(crate) fn reset(mut self: Pin<&mut Self>, at: Instant) {
        if let Armed::Thread { thread_timer, .. } = self.as_mut().project() {
            thread_timer.reset(at);
        } else if !self.as_mut().fires(at) {
            self.arm(at);
        }
    }

    /// Arms it where the poll is. What a task polls stays on the task's runtime, so that this is asked no further: to
    /// ask which runtime it is counts a reference that all its cores share.
    fn follow(mut self: Pin<&mut Self>, at: Instant) {
        let (known, by_runtime) = match *self {
            Self::Off => return self.arm(at),
            Self::Runtime { task: Some(task), .. } if try_id() == Some(task) => return,
            Self::Runtime { runtime, .. } => (Some(runtime), true),
            Self::Thread { without, .. } => (without, false),
        };
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        if here != known && (here.is_some() || by_runtime) {
            self.arm(at);
        } else if let Armed::Runtime { task, .. } = self.as_mut().project() {
            *task = try_id();
        }
    }

    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let begun = !matches!(*self, Self::Off);
        let here = Handle::try_current().ok().map(|runtime| runtime.id());
        assert!(
            begun || here.is_some(),
            "waiting on a context with a deadline needs a tokio runtime with time enabled (or Context::wait on a thread)"
        );
        if let Some(runtime) = here {
            // A wait that has begun goes on where there is no timer; one that begins there is told so by tokio's panic.
            let made = if begun { catch_unwind(sleep_now).ok() } else { Some(sleep_now()) };
            if let Some(sleep) = made {
                self.set(Self::Runtime { sleep, runtime, task: try_id() });
                if self.as_mut().fires(at) {
                    return;
                }
            }
        }
        self.set(Self::Thread { thread_timer: ThreadTimer::new(at), without: here });
    }

    fn fires(self: Pin<&mut Self>, at: Instant) -> bool {
        match self.project() {
            Armed::Runtime { sleep, .. } => fires(sleep, at),
            _ => false,
        }
    }
}

fn sleep_now() -> Sleep {
    sleep_until(now())
}

/// Panics where the current runtime, if there is one, has no timer.
pub(crate) fn check_timer() {
    drop(sleep_now());
}

/// Sets it, and gives whether it will fire: on the timer of a runtime that has ended, whatever is set fires at once.
fn fires(mut sleep: Pin<&mut Sleep>, at: Instant) -> bool {
    let at = to_come(at);
    sleep.as_mut().reset(now() + within_reach(at));
    !sleep.is_elapsed()
}

fn poll_sleep(mut sleep: Pin<&mut Sleep>, cx: &mut task::Context<'_>) -> Poll<()> {
    // Asked before it is polled: the end of a runtime fires what is set there, and a poll after that panics.
    if sleep.is_elapsed() {
        return Poll::Ready(());
    }
    // The runtime may end in between.
    let polled = catch_unwind(AssertUnwindSafe(|| sleep.as_mut().poll(cx)));
    polled.unwrap_or_else(|panic| if fires(sleep, now()) { resume_unwind(panic) } else { Poll::Ready(()) })
}

/// What a timer can still fire at.
fn to_come(at: Instant) -> Instant {
    at.max(now() + Duration::from_millis(1))
}

/// How long until `at`, as far as a timer takes it without an overflow. It fires early for what is beyond, and is set again.
fn within_reach(at: Instant) -> Duration {
    const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    at.saturating_duration_since(now()).min(A_YEAR)
}

/// [`tokio::time::sleep`] that outlives the runtime that polled it first.
pub(crate) async fn sleep(for_: Duration) {
    // Where the time is over at once, no timer is asked, which takes no part of a task's budget.
    tokio::task::consume_budget().await;
    let Some(at) = now().checked_add(for_) else { return pending().await };
    let mut timer = pin!(Timer::Off);
    poll_fn(|cx| {
        loop {
            ready!(timer.as_mut().poll(at, cx));
            if now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    })
    .await;
}

/// A place on the timer thread, where it wakes by the real clock.
pub(crate) struct ThreadTimer {
    delay: Delay,
    shared: Arc<TimerWaker>,
}

/// The waker of a thread timer, which goes when that does; the timer thread may come to its own part later.
#[derive(Default)]
struct TimerWaker {
    waker: Mutex<Option<Waker>>,
    fired: AtomicBool,
}

impl ThreadTimer {
    pub(crate) fn new(at: Instant) -> Self {
        Self { delay: Delay::new(within_reach(to_come(at))), shared: Arc::default() }
    }

    fn reset(&mut self, at: Instant) {
        // Relaxed: asked by nobody but who sets it.
        self.shared.fired.store(false, Ordering::Relaxed);
        self.delay.reset(within_reach(to_come(at)));
    }

    /// Whether it fires no more.
    pub(crate) fn has_fired(&self) -> bool {
        // Acquire: pairs with the store in `wake`.
        self.shared.fired.load(Ordering::Acquire)
    }

    /// Ready when it has fired, perhaps too early.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if cfg!(any(context_merge_loom, context_merge_shuttle)) {
            // A thread of its own would meet locks that only a model's threads may take.
            return Poll::Pending;
        }
        self.shared.set_waker(Some(cx.waker().clone()));
        let shared = Waker::from(Arc::clone(&self.shared));
        Pin::new(&mut self.delay).poll(&mut task::Context::from_waker(&shared))
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        self.shared.set_waker(None);
    }
}

impl TimerWaker {
    fn set_waker(&self, waker: Option<Waker>) {
        let before = std::mem::replace(&mut *unpoisoned(self.waker.lock()), waker);
        drop_foreign(before);
    }
}

/// The timer thread serves everybody, and ends with a panic: this one the hook has reported.
impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        self.fired.store(true, Ordering::Release);
        let waker = unpoisoned(self.waker.lock()).take();
        ignoring_panics(|| waker.into_iter().for_each(Waker::wake));
    }
}
