//! Calls made one after the other, by the crate and by the model; they have to agree on everything after each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Runtime;

use super::history::{Log, explain};
use super::machine::{Machine, Own};
use super::scope::{Draw, Scope};
use super::{Answer, Op, World};

/// The crate's side.
pub struct OneByOne {
    machine: Machine,
    own: Own,
    log: Arc<Log>,
    runtime: Runtime,
}

impl OneByOne {
    pub fn new() -> Self {
        let (log, runtime) = (Arc::<Log>::default(), paused());
        let entered = runtime.enter();
        let machine = Machine::new(Arc::clone(&log));
        drop(entered);
        Self { machine, own: Own::default(), log, runtime }
    }

    pub fn call(&mut self, op: &Op) -> Answer {
        let _entered = self.runtime.enter();
        self.log.record(op.clone(), |op| self.machine.call(&mut self.own, op))
    }

    /// # Panics
    /// Where something is not as the model has it.
    pub fn compare(&mut self, world: &World) {
        settle(&self.runtime);
        let _entered = self.runtime.enter();
        for look in self.machine.looks() {
            assert_eq!(self.machine.call(&mut self.own, &look), world.answer(&look), "{look:?}");
        }
        for waiter in self.own.waiters.keys().copied().collect::<Vec<_>>() {
            let poll = Op::Poll { waiter, anew: false };
            let expected = world.answer(&poll);
            let waits = &self.own.waiters[&waiter];
            let lost = waits.pending && expected != Answer::Told(None) && waits.waker.woken() == 0;
            assert!(!lost, "waiter {waiter} was not woken");
            assert_eq!(self.machine.call(&mut self.own, &poll), expected, "waiter {waiter}");
        }
        for (id, callback) in &self.own.callbacks {
            let expected = usize::from(world.has_run(*id));
            assert_eq!(callback.ran.load(Ordering::SeqCst), expected, "how often callback {id} ran");
        }
    }

    /// # Panics
    /// If something is left behind, or if what wakers and callbacks saw cannot be explained.
    pub fn end(self) {
        explain(&self.log.calls());
        let detached = self.own.end();
        drop((self.machine, self.runtime));
        all_gone(&detached, "detached callback");
    }
}

impl Own {
    /// Drops everything that waits, while the sources live; gives what tells whether the detached callbacks are gone
    /// that nothing can run any more then.
    pub fn end(self) -> Vec<Arc<impl Sized>> {
        let wakers: Vec<_> = self.waiters.into_values().map(|waiter| waiter.waker).collect();
        all_gone(&wakers, "waker");
        let (detached, callbacks): (Vec<_>, Vec<_>) =
            self.callbacks.into_values().partition(|callback| callback.detached);
        let ran = |callback: super::machine::Callback| callback.ran;
        all_gone(&callbacks.into_iter().map(ran).collect::<Vec<_>>(), "callback");
        // One with a deadline is still to run, though its runtime ends: it waits for that on the timer thread.
        detached.into_iter().filter(|callback| callback.ctx.deadline().is_none()).map(ran).collect()
    }
}

pub fn all_gone<T>(left: &[Arc<T>], what: &str) {
    for one in left {
        assert_eq!(Arc::strong_count(one), 1, "a {what} is left behind");
    }
}

/// A runtime whose clock moves by `Advance` alone.
pub fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Lets timers ring and tasks run.
pub fn settle(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    });
}

/// Makes all calls on both sides: once with a look at everything after each, and once with none before the end, which
/// has to come to the same. (Not where a signal is raised: that happens when it is first seen.)
///
/// # Panics
/// Where they do not agree.
pub fn agree(calls: &[Op]) {
    agree_looking(calls, true);
    if !calls.iter().any(|op| matches!(op, Op::Raise { .. })) {
        agree_looking(calls, false);
    }
}

fn agree_looking(calls: &[Op], always: bool) {
    let (mut crates, mut world) = (OneByOne::new(), World::new());
    for op in calls {
        let expected = world.answer(op);
        world = world.after(op);
        assert_eq!(crates.call(op), expected, "{op:?}");
        if always {
            crates.compare(&world);
        } else {
            settle(&crates.runtime);
        }
    }
    crates.compare(&world);
    crates.end();
}

/// [`agree`] on what the numbers stand for, as far as a program is not too long to be read.
pub fn agree_on(draws: &[Draw]) {
    agree(&Scope::new().calls(&draws[..draws.len().min(100)]));
}
