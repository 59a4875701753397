//! How a model is run and shows that what it is about has come up; wakers, waiters and threads for the models.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};

use context_merge::{Canceller, Context, DoneOwned, Error};

#[cfg(context_merge_loom)]
pub(crate) use loom::{sync::atomic::AtomicBool, thread};
#[cfg(not(context_merge_loom))]
pub(crate) use std::{sync::atomic::AtomicBool, thread};

/// How many preemptions a model is explored to.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Preemptions(usize),
    Unbounded,
}

/// Explores `body`. Each of the `expected` outcomes has to be noted in one execution at least: a model in which the
/// interesting overlap never comes up shows nothing. On real threads that is left to chance.
pub(crate) fn model<F: Fn(&Seen) + Send + Sync + 'static>(bound: Bound, expected: &[&str], body: F) {
    let seen = Arc::new(Seen::default());
    explore(bound, {
        let seen = Arc::clone(&seen);
        move || {
            seen.executions.fetch_add(1, Ordering::Relaxed);
            body(&seen);
        }
    });
    if cfg!(context_merge_loom) {
        seen.report(std::any::type_name::<F>(), bound);
        for outcome in expected {
            assert!(seen.outcomes.lock().unwrap().contains_key(*outcome), "{outcome:?} never came up");
        }
    }
}

#[cfg(context_merge_loom)]
fn explore(bound: Bound, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match bound {
        Bound::Preemptions(most) => Some(most),
        Bound::Unbounded => None,
    };
    builder.max_branches = 10_000;
    builder.check(body);
}

#[cfg(not(context_merge_loom))]
fn explore(_: Bound, body: impl Fn() + Send + Sync + 'static) {
    (0..300).for_each(|_| body());
}

/// How often each outcome came up, over all executions.
#[derive(Default)]
pub(crate) struct Seen {
    executions: AtomicUsize,
    outcomes: Mutex<BTreeMap<String, usize>>,
}

impl Seen {
    pub(crate) fn note(&self, outcome: impl Into<String>) {
        *self.outcomes.lock().unwrap().entry(outcome.into()).or_default() += 1;
    }

    fn report(&self, body: &str, bound: Bound) {
        let name = body.trim_end_matches("::{{closure}}").split_once("::").map_or(body, |(_, name)| name);
        let executions = self.executions.load(Ordering::Relaxed);
        let bound = match bound {
            Bound::Preemptions(most) => most.to_string(),
            Bound::Unbounded => "none".into(),
        };
        let outcomes = self.outcomes.lock().unwrap();
        let outcomes: Vec<_> = outcomes.iter().map(|(outcome, times)| format!("{outcome} {times}")).collect();
        println!("model {name}: {executions} executions, preemption bound {bound}; {}", outcomes.join("; "));
    }
}

/// A call on a thread of its own. How far it has come is told without a switch of loom's.
pub(crate) struct Beside<T> {
    thread: thread::JoinHandle<T>,
    stage: Arc<AtomicUsize>,
}

const NOT_BEGUN: usize = 0;
const UNDER_WAY: usize = 1;
const RETURNED: usize = 2;

pub(crate) fn beside<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Beside<T> {
    let stage = Arc::new(AtomicUsize::new(NOT_BEGUN));
    let thread = thread::spawn({
        let stage = Arc::clone(&stage);
        move || {
            stage.store(UNDER_WAY, Ordering::SeqCst);
            let out = call();
            stage.store(RETURNED, Ordering::SeqCst);
            out
        }
    });
    Beside { thread, stage }
}

impl<T> Beside<T> {
    pub(crate) fn join(self) -> T {
        self.thread.join().unwrap()
    }

    /// Runs `ours`, and says how it lay to the call.
    pub(crate) fn against<R>(&self, ours: impl FnOnce() -> R) -> (R, &'static str) {
        let before = self.stage.load(Ordering::SeqCst);
        let out = ours();
        let lay = match (before, self.stage.load(Ordering::SeqCst)) {
            (_, NOT_BEGUN) => "before",
            (RETURNED, _) => "after",
            (NOT_BEGUN, RETURNED) => "around",
            (UNDER_WAY, UNDER_WAY) => "within",
            _ => "across",
        };
        (out, lay)
    }
}

/// Counts without a switch of loom's, as a waker of somebody else's would.
#[derive(Default)]
struct Counting(AtomicUsize);

/// What is known of a waker.
pub(crate) struct Count(Arc<Counting>);

impl Count {
    pub(crate) fn woken(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Whether nothing else has the waker any longer.
    pub(crate) fn is_left_nowhere(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future, polled by hand with a waker that counts.
pub(crate) struct Waiter {
    done: Pin<Box<DoneOwned>>,
    count: Count,
}

impl Waiter {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self { done: Box::pin(ctx.done_owned()), count: Count(Arc::default()) }
    }

    /// One that is registered.
    pub(crate) fn parked(ctx: &Context) -> Self {
        let mut waiter = Self::new(ctx);
        assert!(waiter.poll().is_pending());
        waiter
    }

    pub(crate) fn poll(&mut self) -> Poll<String> {
        let waker = Waker::from(Arc::clone(&self.count.0));
        self.poll_with(&waker)
    }

    pub(crate) fn poll_with(&mut self, waker: &Waker) -> Poll<String> {
        self.done.as_mut().poll(&mut task::Context::from_waker(waker)).map(|err| why(&err))
    }

    pub(crate) fn woken(&self) -> usize {
        self.count.woken()
    }

    /// The count, for when the waiter is gone.
    pub(crate) fn count(&self) -> Count {
        Count(Arc::clone(&self.count.0))
    }

    /// Takes a new waker for the polls to come, and gives the old one.
    pub(crate) fn renew(&mut self) -> Count {
        std::mem::replace(&mut self.count, Count(Arc::default()))
    }

    /// Drops the future. Once all calls have returned its waker is left nowhere.
    pub(crate) fn drop_whole(self) {
        drop(self.done);
        assert!(self.count.is_left_nowhere(), "a waiter is left behind");
    }
}

/// A waker that does something, once.
pub(crate) fn acting(act: impl FnOnce() + Send + 'static) -> Waker {
    Waker::from(Arc::new(Acting(Mutex::new(Some(Box::new(act))))))
}

struct Acting(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Acting {
    fn wake(self: Arc<Self>) {
        let act = self.0.lock().unwrap().take();
        act.expect("woken once")();
    }
}

/// The cause, in words.
pub(crate) fn why(err: &Error) -> String {
    err.cause().map(ToString::to_string).unwrap_or_default()
}

/// What `ctx` says now.
pub(crate) fn told(ctx: &Context) -> Option<String> {
    ctx.err().as_ref().map(why)
}

pub(crate) fn or_live(told: Option<&str>) -> String {
    told.unwrap_or("live").into()
}

pub(crate) fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Cancels on a thread of its own.
pub(crate) fn cancelling(canceller: Canceller, cause: &'static str) -> Beside<bool> {
    beside(move || canceller.cancel_with(cause))
}
