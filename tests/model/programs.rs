//! Programs run by the crate and by the naive model at once; they have to agree after every step.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use context_merge::{Canceller, Context, DoneOwned, Error, any_of, merge};
use tokio::time::Instant;

use super::{Ctx, Outcome, Source, Why, World};
use crate::support::{self, Counting};

/// Operands are taken modulo what there is.
#[derive(Clone, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub enum Step {
    Cancellable(u8),
    Deadline(u8, u8),
    Value(u8, u32),
    Named(u8, u8),
    Relay(u8),
    WithoutCancel(u8),
    ValuesOf(u8, u8),
    Merge(u8, u8),
    AnyOf(Vec<u8>),
    /// A context over this many new sources.
    Crowd(u8, u8),
    Cancel(u8),
    DropCanceller(u8),
    Advance(u8),
    Wait(u8),
    Repoll(u8),
    DropWaiter(u8),
}

const NAMES: [&str; 3] = ["shutdown", "request", "limit"];

struct Waiter {
    ctx: usize,
    done: Pin<Box<DoneOwned>>,
    waker: Arc<Counting>,
}

/// The same contexts on both sides.
struct Both {
    start: Instant,
    world: World,
    contexts: Vec<(Context, Ctx)>,
    cancellers: Vec<(Canceller, Ctx, Source)>,
    waiters: Vec<Waiter>,
}

impl Both {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            world: World::default(),
            contexts: vec![(Context::background(), Ctx::default())],
            cancellers: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn at(&self, index: u8) -> (Context, Ctx) {
        self.contexts[usize::from(index) % self.contexts.len()].clone()
    }

    fn cancellable(&mut self, (ctx, model): (Context, Ctx)) -> (Context, Ctx) {
        let (ctx, canceller) = ctx.with_cancel();
        let (model, source) = self.world.with_cancel(&model);
        self.cancellers.push((canceller, model.clone(), source));
        (ctx, model)
    }

    async fn run(&mut self, step: &Step) {
        let made = match step {
            Step::Cancellable(ctx) => Some(self.cancellable(self.at(*ctx))),
            Step::Deadline(ctx, at) => {
                let (ctx, model) = self.at(*ctx);
                let (model, id) = self.world.with_deadline(&model, u64::from(*at));
                let at = self.start + Duration::from_millis(u64::from(*at));
                Some((ctx.with_deadline_cause(at, format!("deadline {id}")), model))
            }
            Step::Value(ctx, value) => {
                let (ctx, model) = self.at(*ctx);
                Some((ctx.with_value(*value), Ctx { value: Some(*value), ..model }))
            }
            Step::Named(ctx, name) => {
                let (ctx, model) = self.at(*ctx);
                let name = NAMES[usize::from(*name) % NAMES.len()];
                Some((ctx.named(name), self.world.named(&model, name)))
            }
            Step::Relay(ctx) => {
                let (ctx, model) = self.at(*ctx);
                Some((ctx.relay(), model))
            }
            Step::WithoutCancel(ctx) => {
                let (ctx, model) = self.at(*ctx);
                Some((ctx.without_cancel(), Ctx { value: model.value, ..Ctx::default() }))
            }
            Step::ValuesOf(ctx, primary) => {
                let ((ctx, model), (primary, values)) = (self.at(*ctx), self.at(*primary));
                Some((ctx.with_values_of(&primary), Ctx { value: values.value, ..model }))
            }
            Step::Merge(a, b) => {
                let ((a, model_a), (b, model_b)) = (self.at(*a), self.at(*b));
                Some((merge(a, b), self.world.merge(&[model_a, model_b])))
            }
            Step::AnyOf(inputs) => {
                let (inputs, models): (Vec<_>, Vec<_>) = inputs.iter().map(|input| self.at(*input)).unzip();
                Some((any_of(inputs), self.world.merge(&models)))
            }
            Step::Crowd(ctx, size) => {
                let first = self.at(*ctx);
                let crowd: Vec<_> = (0..*size % 20).map(|_| self.cancellable(first.clone())).collect();
                let (inputs, models): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
                Some((any_of(inputs), self.world.merge(&models)))
            }
            _ => {
                self.act(step).await;
                None
            }
        };
        self.contexts.extend(made);
    }

    async fn act(&mut self, step: &Step) {
        match *step {
            Step::Cancel(index) if !self.cancellers.is_empty() => {
                let (canceller, model, source) = &self.cancellers[usize::from(index) % self.cancellers.len()];
                let did = canceller.cancel_with(format!("cancel {source}"));
                assert_eq!(did, self.world.cancel(model, *source), "what cancel returned");
                assert!(!did || canceller.is_cancelled());
            }
            Step::DropCanceller(index) if !self.cancellers.is_empty() => {
                let index = usize::from(index) % self.cancellers.len();
                self.cancellers.swap_remove(index);
            }
            Step::Advance(millis) => {
                tokio::time::advance(Duration::from_millis(u64::from(millis))).await;
                self.world.now += u64::from(millis);
            }
            Step::Wait(index) => {
                let ctx = usize::from(index) % self.contexts.len();
                let done = Box::pin(self.contexts[ctx].0.done_owned());
                self.waiters.push(Waiter { ctx, done, waker: Counting::new() });
            }
            Step::Repoll(index) if !self.waiters.is_empty() => {
                let index = usize::from(index) % self.waiters.len();
                self.waiters[index].waker = Counting::new();
            }
            Step::DropWaiter(index) if !self.waiters.is_empty() => {
                let index = usize::from(index) % self.waiters.len();
                self.waiters.swap_remove(index);
            }
            _ => {}
        }
    }

    fn compare(&mut self) {
        for (index, (ctx, model)) in self.contexts.iter().enumerate() {
            let expected = self.world.outcome(model);
            let deadline = model.deadline.map(|deadline| self.start + Duration::from_millis(deadline.at));
            assert_eq!(ctx.deadline(), deadline, "deadline of {index}");
            assert_eq!(ctx.value::<u32>().copied(), model.value, "value of {index}");
            assert_eq!(ctx.is_done(), expected.is_some(), "is_done of {index}: {ctx:?}, {model:?}");
            assert_same(ctx.err(), expected, index);
            assert_eq!(ctx.check().is_err(), expected.is_some(), "check of {index}");
        }
        for (canceller, model, source) in &self.cancellers {
            let own = self.world.outcome(model).is_some_and(|outcome| outcome.why == Why::Cancelled(*source));
            assert_eq!(canceller.is_cancelled(), own, "is_cancelled of source {source}");
        }
        self.waiters.retain_mut(|waiter| {
            let expected = self.world.outcome(&self.contexts[waiter.ctx].1);
            let registered = Arc::strong_count(&waiter.waker) > 1;
            if let Some(Outcome { why: Why::Cancelled(_), .. }) = expected {
                assert!(!registered || waiter.waker.woken() > 0, "a parked waiter of {} was not woken", waiter.ctx);
            }
            let ready = match support::poll(waiter.done.as_mut(), &waiter.waker) {
                std::task::Poll::Ready(err) => Some(err),
                std::task::Poll::Pending => None,
            };
            let live = ready.is_none();
            assert_same(ready, expected, waiter.ctx);
            live
        });
    }
}

fn assert_same(err: Option<Error>, expected: Option<Outcome>, index: usize) {
    let told = err.map(|err| {
        let cause = err.cause().map(ToString::to_string);
        (cause, err.is_deadline_exceeded(), err.origin().map(str::to_owned))
    });
    let expected = expected.map(|outcome| {
        let (cause, deadline) = match outcome.why {
            Why::Cancelled(source) => (format!("cancel {source}"), false),
            Why::Deadline(id) => (format!("deadline {id}"), true),
        };
        (Some(cause), deadline, outcome.origin.map(str::to_owned))
    });
    assert_eq!(told, expected, "error of {index}");
}

/// Runs a program on both sides.
///
/// # Panics
/// Where they do not agree.
pub fn agree(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut both = Both::new();
        for step in steps {
            both.run(step).await;
            both.compare();
        }
        // What waited and is gone is in no list any more.
        let wakers: Vec<_> = both.waiters.drain(..).map(|waiter| waiter.waker).collect();
        for waker in wakers {
            assert_eq!(Arc::strong_count(&waker), 1, "a dropped waiter is still registered");
        }
    });
}
