//! The crate behind the same calls as the model.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll, Wake, Waker};
use std::time::Duration;

use context_merge::{Canceller, Context, DoneOwned, Error, OnDone, Signal, any_of, merge};
use tokio::sync::watch;
use tokio::time::Instant;

use super::history::Log;
use super::{Answer, BACKGROUND, Id, OF_SIGNALS, Op, Story, Why};

const NAMES: [&str; 4] = ["shutdown", "request", "limit", "signal"];

/// Handles by their numbers. All time is that of the tokio runtime that is entered.
#[derive(Clone)]
pub struct Machine {
    start: Instant,
    log: Arc<Log>,
    contexts: BTreeMap<Id, Context>,
    cancellers: BTreeMap<Id, Canceller>,
    signals: BTreeMap<Id, (Manual, Context)>,
}

/// What a thread keeps to itself.
#[derive(Default)]
pub struct Own {
    pub waiters: BTreeMap<Id, Waiter>,
    pub callbacks: BTreeMap<Id, Callback>,
}

pub struct Waiter {
    ctx: Context,
    id: Id,
    done: Pin<Box<DoneOwned>>,
    pub waker: Arc<Watcher>,
    pub pending: bool,
}

pub struct Callback {
    pub ctx: Context,
    on_done: Option<OnDone>,
    pub ran: Arc<AtomicUsize>,
    pub stopped: bool,
    pub detached: bool,
}

impl Machine {
    pub fn new(log: Arc<Log>) -> Self {
        let contexts = BTreeMap::from([(BACKGROUND, Context::background())]);
        Self { start: Instant::now(), log, contexts, cancellers: BTreeMap::new(), signals: BTreeMap::new() }
    }

    pub fn call(&mut self, own: &mut Own, op: &Op) -> Answer {
        match op {
            Op::Cancel { source } => Answer::Is(self.cancellers[source].cancel_with(Cause(Why::Cancelled(*source)))),
            Op::IsDone { ctx } => Answer::Is(self.contexts[ctx].is_done()),
            Op::IsCancelled { source } => Answer::Is(self.cancellers[source].is_cancelled()),
            Op::FinishedBy { ctx, input } => Answer::Is(self.contexts[ctx].finished_by(&self.contexts[input])),
            Op::Err { ctx } => told(self.contexts[ctx].check().err()),
            Op::Read { ctx } => {
                let ctx = &self.contexts[ctx];
                let deadline = ctx.deadline().map(|at| (at - self.start).as_millis() as u64);
                Answer::Read { deadline, value: ctx.value::<u32>().copied() }
            }
            Op::Wait { ctx, waiter } => {
                let mut new = Waiter::new(*ctx, &self.contexts[ctx], &self.log);
                let answer = new.poll();
                own.waiters.insert(*waiter, new);
                answer
            }
            Op::Poll { waiter, anew } => {
                let waiter = own.waiters.get_mut(waiter).expect("it waits");
                if *anew {
                    waiter.waker = Watcher::new(waiter.id, &waiter.ctx, &self.log);
                }
                waiter.poll()
            }
            Op::DropWaiter { waiter } => nothing(own.waiters.remove(waiter)),
            Op::OnDone { ctx, other, callback } => nothing(own.callbacks.insert(*callback, self.on_done(*ctx, *other))),
            Op::Stop { callback } => {
                let callback = own.callbacks.get_mut(callback).expect("it was registered");
                callback.stopped = callback.on_done.take().is_some_and(OnDone::stop);
                Answer::Is(callback.stopped)
            }
            Op::Detach { callback } => {
                let callback = own.callbacks.get_mut(callback).expect("it was registered");
                callback.detached = true;
                nothing(callback.on_done.take().map(OnDone::detach))
            }
            Op::DropContext { ctx } => nothing(self.contexts.remove(ctx)),
            Op::DropCanceller { source } => nothing(self.cancellers.remove(source)),
            Op::Raise { signal } => {
                let (manual, ctx) = &self.signals[signal];
                manual.raise(*signal);
                // It happens when it is first seen.
                nothing(ctx.is_done())
            }
            Op::Advance { millis } => nothing(advance(*millis)),
            _ => self.make(op),
        }
    }

    fn make(&mut self, op: &Op) -> Answer {
        let (id, made) = match op {
            Op::Cancellable { of, ctx } => (ctx, self.cancellable(*of, *ctx)),
            Op::Crowd { of, size, ctx } => {
                let crowd: Vec<_> = (ctx + 1..=ctx + size).map(|child| (child, self.cancellable(*of, child))).collect();
                self.contexts.extend(crowd.iter().cloned());
                (ctx, any_of(crowd.into_iter().map(|(_, child)| child)))
            }
            Op::Deadline { of, at, ctx } => {
                let at = self.start + Duration::from_millis(*at);
                (ctx, self.contexts[of].with_deadline_cause(at, Cause(Why::Deadline(*ctx))))
            }
            Op::Value { of, value, ctx } => (ctx, self.contexts[of].with_value(*value)),
            Op::Named { of, name, ctx } => (ctx, self.contexts[of].named(NAMES[usize::from(*name)])),
            Op::Relay { of, ctx } => (ctx, self.contexts[of].relay()),
            Op::WithoutCancel { of, ctx } => (ctx, self.contexts[of].without_cancel()),
            Op::ValuesOf { of, primary, ctx } => (ctx, self.contexts[of].with_values_of(&self.contexts[primary])),
            Op::AnyOf { of, ctx } => match &of[..] {
                [a, b] => (ctx, merge(&self.contexts[a], &self.contexts[b])),
                _ => (ctx, any_of(of.iter().map(|input| &self.contexts[input]))),
            },
            Op::Signal { ctx } => {
                let signal = Manual::new();
                let made = Context::from_signal(signal.clone());
                self.signals.insert(*ctx, (signal, made.clone()));
                (ctx, made)
            }
            _ => unreachable!("{op:?} makes no context"),
        };
        nothing(self.contexts.insert(*id, made))
    }

    fn cancellable(&mut self, of: Id, id: Id) -> Context {
        let (ctx, canceller) = self.contexts[&of].with_cancel();
        self.cancellers.insert(id, canceller);
        ctx
    }

    fn on_done(&self, ctx: Id, other: Id) -> Callback {
        let ran = Arc::new(AtomicUsize::new(0));
        let looks = [ctx, other].map(|id| (id, self.contexts[&id].clone()));
        let on_done = self.contexts[&ctx].on_done({
            let (ran, log) = (Arc::clone(&ran), Arc::clone(&self.log));
            move |err| {
                ran.fetch_add(1, Ordering::SeqCst);
                log.record(Op::Err { ctx }, |_| told(Some(err.clone())));
                for (id, ctx) in looks {
                    log.record(Op::Err { ctx: id }, |_| told(ctx.err()));
                }
            }
        });
        let ctx = self.contexts[&ctx].clone();
        Callback { ctx, on_done: Some(on_done), ran, stopped: false, detached: false }
    }

    /// All that can be asked without a change.
    pub fn looks(&self) -> Vec<Op> {
        let contexts = self.contexts.keys().flat_map(|&ctx| [Op::Err { ctx }, Op::IsDone { ctx }, Op::Read { ctx }]);
        let neighbours = self.contexts.keys().zip(self.contexts.keys().skip(1));
        let same = neighbours.flat_map(|(&a, &b)| [(a, b), (b, a), (a, a)]);
        let same = same.map(|(ctx, input)| Op::FinishedBy { ctx, input });
        contexts.chain(same).chain(self.cancellers.keys().map(|&source| Op::IsCancelled { source })).collect()
    }

    pub fn contexts(&self) -> impl Iterator<Item = Id> {
        self.contexts.keys().copied()
    }

    /// Takes over what the other has left.
    pub fn join(&mut self, other: Machine) {
        self.contexts.extend(other.contexts);
        self.cancellers.extend(other.cancellers);
    }
}

impl Waiter {
    fn new(id: Id, ctx: &Context, log: &Arc<Log>) -> Self {
        let (done, waker) = (Box::pin(ctx.done_owned()), Watcher::new(id, ctx, log));
        Self { ctx: ctx.clone(), id, done, waker, pending: true }
    }

    fn poll(&mut self) -> Answer {
        let waker = Waker::from(Arc::clone(&self.waker));
        let polled = self.done.as_mut().poll(&mut task::Context::from_waker(&waker));
        self.pending = polled.is_pending();
        match polled {
            Poll::Ready(err) => told(Some(err)),
            Poll::Pending => Answer::Told(None),
        }
    }
}

/// Counts, and looks at its context while it is woken.
pub struct Watcher {
    woken: AtomicUsize,
    id: Id,
    ctx: Context,
    log: Arc<Log>,
}

impl Watcher {
    fn new(id: Id, ctx: &Context, log: &Arc<Log>) -> Arc<Self> {
        Arc::new(Self { woken: AtomicUsize::new(0), id, ctx: ctx.clone(), log: Arc::clone(log) })
    }

    pub fn woken(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }
}

impl Wake for Watcher {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        self.log.record(Op::Err { ctx: self.id }, |_| told(self.ctx.err()));
    }
}

fn nothing<T>(_: T) -> Answer {
    Answer::Nothing
}

fn told(err: Option<Error>) -> Answer {
    Answer::Told(err.map(|err| {
        let Cause(why) = err.cause().and_then(|cause| cause.downcast_ref()).copied().expect("each has a cause");
        assert_eq!(err.is_deadline_exceeded(), matches!(why, Why::Deadline(_)), "kind and cause of one event");
        let origin = err.origin().map(|origin| NAMES.iter().position(|name| *name == origin).expect("a name of ours"));
        Story { why, origin: origin.map(|place| place as u8) }
    }))
}

/// Moves the paused clock; timers ring when the runtime comes to run.
fn advance(millis: u64) -> Poll<()> {
    let advance = std::pin::pin!(tokio::time::advance(Duration::from_millis(millis)));
    advance.poll(&mut task::Context::from_waker(Waker::noop()))
}

#[derive(Clone, Copy, Debug)]
struct Cause(Why);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {}

/// A signal that is raised by hand.
#[derive(Clone)]
struct Manual(Arc<watch::Sender<Option<Error>>>);

impl Manual {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    fn raise(&self, id: Id) {
        let name = NAMES[usize::from(OF_SIGNALS)];
        let new = || Error::cancelled().named(name).with_cause(Cause(Why::Cancelled(id)));
        self.0.send_modify(|err| *err = Some(err.take().unwrap_or_else(new)));
    }
}

impl Signal for Manual {
    fn err(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        let (sender, mut receiver) = (Arc::clone(&self.0), self.0.subscribe());
        Box::pin(async move {
            let err = receiver.wait_for(Option::is_some).await.expect("the sender is here");
            let err = err.clone().expect("it was waited for");
            drop(sender);
            err
        })
    }
}
