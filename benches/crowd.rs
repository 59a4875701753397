//! One cancel over many: waiters that are parked, and levels of a chain.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use context_merge::{Canceller, Context, merge};
use harness::{Turns, poll_once};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

fn main() {
    Turns::run(|turns| {
        let big = if turns.is_test() { 1_000 } else { 1_000_000 };
        for size in [1_000, 100_000, 1_000_000].into_iter().filter(|&size| size <= big) {
            turns
                .measure("one cancel, parked waiters")
                .timed("ours", size, move || merges(size).cancel())
                .timed("child tokens", size, move || tokens(size).cancel())
                .run();
            turns
                .measure("one cancel, parked tasks, until all have ended")
                .timed("ours", size, move || tasks_with_merges(size))
                .timed("child tokens", size, move || tasks_with_tokens(size))
                .run();
        }
        turns
            .measure("longest look at the root during one cancel")
            .timed("ours", big, || least_of_three(|| merges(big).longest_look()))
            .timed("child tokens", big, || least_of_three(|| tokens(big).longest_look()))
            .run();
        turns
            .measure("chain: made and dropped")
            .timed("ours", 100, || time(|| drop(contexts(100))).0)
            .timed("child tokens", 100, || time(|| drop(children(100))).0)
            .run();
        for depth in [10, 1_000, 100_000] {
            turns
                .measure("chain: make")
                .timed("ours", depth, move || time(|| contexts(depth)).0)
                .timed("child tokens", depth, move || time(|| children(depth)).0)
                .run();
            turns
                .measure("chain: cancel")
                .timed("ours", depth, move || {
                    let chain = contexts(depth);
                    time(|| chain[0].1.cancel()).0
                })
                .timed("child tokens", depth, move || {
                    let chain = children(depth);
                    time(|| chain[0].cancel()).0
                })
                .run();
            turns
                .measure("chain: drop")
                .timed("ours", depth, move || {
                    let chain = contexts(depth);
                    time(|| drop(chain)).0
                })
                .timed("child tokens", depth, move || {
                    let chain = children(depth);
                    time(|| drop(chain)).0
                })
                .run();
        }
    });
}

/// What is cancelled, and who waits for it, with wakers that do nothing.
struct Crowd<R> {
    root: R,
    _parked: Box<dyn Any>,
}

/// A root that can be cancelled and looked at.
trait Root: Sync {
    fn cancel(&self);
    fn is_done(&self) -> bool;
}

impl Root for (Context, Canceller) {
    fn cancel(&self) {
        self.1.cancel();
    }
    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl Root for CancellationToken {
    fn cancel(&self) {
        self.cancel();
    }
    fn is_done(&self) -> bool {
        self.is_cancelled()
    }
}

/// So many requests' contexts merged with one root, each merge waited on.
fn merges(size: usize) -> Crowd<(Context, Canceller)> {
    let root = Context::background().with_cancel();
    let parked = (0..size).map(|_| {
        let (request, hang_up) = Context::background().with_cancel();
        let mut done = Box::pin(merge(&request, &root.0).done_owned());
        assert!(poll_once(done.as_mut()).is_pending());
        (hang_up, done)
    });
    let parked = Box::new(parked.collect::<Vec<_>>());
    Crowd { root, _parked: parked }
}

/// So many children of one root, each waited on.
fn tokens(size: usize) -> Crowd<CancellationToken> {
    let root = CancellationToken::new();
    let parked = (0..size).map(|_| {
        let mut cancelled = Box::pin(root.child_token().cancelled_owned());
        assert!(poll_once(cancelled.as_mut()).is_pending());
        cancelled
    });
    let parked = Box::new(parked.collect::<Vec<_>>());
    Crowd { root, _parked: parked }
}

impl<R: Root> Crowd<R> {
    /// How long the cancel takes.
    fn cancel(self) -> Duration {
        time(|| self.root.cancel()).0
    }

    /// The longest that a look on another thread takes while the root is cancelled.
    fn longest_look(self) -> Duration {
        let (root, looks, over) = (&self.root, &AtomicBool::new(false), &AtomicBool::new(false));
        thread::scope(|scope| {
            let looker = scope.spawn(move || {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    longest = longest.max(time(|| root.is_done()).0);
                    looks.store(true, Ordering::Relaxed);
                }
                longest
            });
            while !looks.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            root.cancel();
            over.store(true, Ordering::Relaxed);
            looker.join().expect("the thread that looks")
        })
    }
}

/// Tasks that each wait on a merge of their own.
fn tasks_with_merges(size: usize) -> Duration {
    let (root, cancel) = Context::background().with_cancel();
    let wait = || {
        let (request, hang_up) = Context::background().with_cancel();
        let ctx = merge(&request, &root);
        async move {
            ctx.done().await;
            drop(hang_up);
        }
    };
    tasks(size, wait, || assert!(cancel.cancel()))
}

/// Tasks that each wait on a child.
fn tasks_with_tokens(size: usize) -> Duration {
    let root = CancellationToken::new();
    let wait = || {
        let child = root.child_token();
        async move { child.cancelled().await }
    };
    tasks(size, wait, || root.cancel())
}

/// From the cancel until the last of so many tasks on one thread has ended.
fn tasks<F: Future<Output = ()> + Send + 'static>(size: usize, wait: impl Fn() -> F, cancel: impl Fn()) -> Duration {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        // Steps that the tasks have taken: each starts, and ends; and who waits for the last step.
        let steps = Arc::new((AtomicUsize::new(0), Notify::new()));
        for _ in 0..size {
            let (steps, wait) = (Arc::clone(&steps), wait());
            tokio::spawn(async move {
                let step = || {
                    let taken = steps.0.fetch_add(1, Ordering::Relaxed) + 1;
                    if taken == size || taken == 2 * size {
                        steps.1.notify_one();
                    }
                };
                step();
                wait.await;
                step();
            });
        }
        // The last task is parked after the step that it tells of, before this one runs again.
        steps.1.notified().await;
        let start = Instant::now();
        cancel();
        steps.1.notified().await;
        start.elapsed()
    })
}

/// A chain of contexts, each with a cancel of its own.
fn contexts(depth: usize) -> Vec<(Context, Canceller)> {
    let mut chain = Vec::with_capacity(depth);
    chain.push(Context::background().with_cancel());
    for level in 1..depth {
        let next = chain[level - 1].0.with_cancel();
        chain.push(next);
    }
    chain
}

/// A chain of tokens.
fn children(depth: usize) -> Vec<CancellationToken> {
    let mut chain = Vec::with_capacity(depth);
    chain.push(CancellationToken::new());
    for level in 1..depth {
        let next = chain[level - 1].child_token();
        chain.push(next);
    }
    chain
}

/// The least disturbed: a thread that is made to wait for its core takes a longest look of that length.
fn least_of_three(run: impl Fn() -> Duration) -> Duration {
    run().min(run()).min(run())
}

fn time<T>(operation: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = operation();
    (start.elapsed(), result)
}
