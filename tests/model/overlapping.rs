//! Programs for several threads, whose history the model has to explain.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(context_merge_shuttle)]
use shuttle::thread;
#[cfg(not(context_merge_shuttle))]
use std::thread;

use tokio::runtime::Handle;

use super::history::{Log, explain};
use super::machine::{Machine, Own};
use super::one_by_one::{all_gone, paused, settle};
use super::scope::{Draw, Scope};
use super::{Answer, Id, Op};

/// What is done first, and what threads then do at once with clones of the handles.
#[derive(Clone)]
pub struct Program {
    pub before: Vec<Op>,
    pub threads: Vec<Vec<Op>>,
}

impl Program {
    /// Of each list no more than the orders of its calls can be tried.
    pub fn drawn(before: &[Draw], threads: &[Vec<Draw>]) -> Self {
        let few = |draws: &[Draw], scope: &mut Scope| scope.calls(&draws[..draws.len().min(12)]);
        let mut scope = Scope::new();
        let before = few(before, &mut scope);
        let calls = |(thread, draws): (usize, &Vec<Draw>)| few(draws, &mut scope.of_thread(thread));
        Self { before, threads: threads.iter().enumerate().map(calls).collect() }
    }

    /// # Panics
    /// Where the model cannot explain what happened, a wake-up was lost, a callback did not run exactly once or be
    /// stopped, or something is left behind.
    pub fn run(&self) {
        let runtime = paused();
        let entered = runtime.enter();
        let log = Arc::<Log>::default();
        let (mut machine, mut own) = (Machine::new(Arc::clone(&log)), Own::default());
        call_all(&log, &mut machine, &mut own, &self.before);
        let mut all = self.fork(&log, machine, runtime.handle());
        let (mut machine, _) = all.swap_remove(0);
        for (other, others) in all {
            machine.join(other);
            own.join(others);
        }
        settle(&runtime);
        own.check_woken(&log, &mut machine);
        last_looks(&log, &mut machine);
        explain(&log.calls());
        own.check_callbacks();
        let detached = own.end();
        drop((machine, entered));
        drop(runtime);
        all_gone(&detached, "detached callback");
    }

    /// The last handles are with the threads: here, all are given away.
    fn fork(&self, log: &Arc<Log>, machine: Machine, runtime: &Handle) -> Vec<(Machine, Own)> {
        let start = Arc::new(std::sync::Barrier::new(self.threads.len()));
        let spawn = |calls: &Vec<Op>| {
            let (log, mut machine, runtime) = (Arc::clone(log), machine.clone(), runtime.clone());
            let (calls, start) = (calls.clone(), Arc::clone(&start));
            thread::spawn(move || {
                // Under shuttle all of these are one thread to tokio, which has been entered already.
                let _entered = (!cfg!(context_merge_shuttle)).then(|| {
                    start.wait();
                    runtime.enter()
                });
                let mut own = Own::default();
                call_all(&log, &mut machine, &mut own, &calls);
                (machine, own)
            })
        };
        let threads: Vec<_> = self.threads.iter().map(spawn).collect();
        drop(machine);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

fn call_all(log: &Log, machine: &mut Machine, own: &mut Own, calls: &[Op]) {
    for op in calls {
        log.record(op.clone(), |op| machine.call(own, op));
    }
}

/// Looks at all that is left, also through contexts that are made only now.
fn last_looks(log: &Log, machine: &mut Machine) {
    let contexts: Vec<Id> = machine.contexts().collect();
    let all = [contexts.clone()].into_iter();
    let pairs = contexts.windows(2).flat_map(|pair| [pair.to_vec(), vec![pair[1], pair[0]]]);
    let late = (10_000..).zip(all.chain(pairs)).map(|(ctx, of)| Op::AnyOf { of, ctx });
    let late: Vec<Op> = late.collect();
    call_all(log, machine, &mut Own::default(), &late);
    call_all(log, machine, &mut Own::default(), &machine.looks());
}

impl Own {
    fn join(&mut self, other: Own) {
        self.waiters.extend(other.waiters);
        self.callbacks.extend(other.callbacks);
    }

    fn check_woken(&mut self, log: &Log, machine: &mut Machine) {
        for waiter in self.waiters.keys().copied().collect::<Vec<_>>() {
            let parked = self.waiters[&waiter].pending;
            let woken = self.waiters[&waiter].waker.woken();
            let answer = log.record(Op::Poll { waiter, anew: false }, |op| machine.call(self, op));
            assert!(!parked || woken > 0 || answer == Answer::Told(None), "waiter {waiter} was not woken");
        }
    }

    fn check_callbacks(&self) {
        for (id, callback) in &self.callbacks {
            let expected = usize::from(!callback.stopped && callback.ctx.is_done());
            assert_eq!(callback.ran.load(Ordering::SeqCst), expected, "how often callback {id} ran");
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut part = |title: String, calls: &[Op]| {
            writeln!(f, "{title}")?;
            calls.iter().try_for_each(|op| writeln!(f, "    {op:?},"))
        };
        part("before".to_owned(), &self.before)?;
        self.threads.iter().enumerate().try_for_each(|(thread, calls)| part(format!("thread {thread}"), calls))
    }
}
