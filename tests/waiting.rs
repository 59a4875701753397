//! Rules 17 to 21: waiting, running work, callbacks, threads, the clock.

mod support;

use std::cell::Cell;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use context_merge::{Context, Error, FutureExt as _, Signal, StreamExt as _, any_of, merge};
use futures::future::FusedFuture;
use futures::stream::{self, FusedStream, Stream};
use support::{Counting, Hooks, adding, calling, poll, poll_with, stopped_in_a_race};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn live() -> Context {
    Context::background().with_cancel().0
}

/// Rule 17: the newest waker is woken, once per source that fires, and none is left behind.
#[test]
fn the_newest_waker_is_woken_and_nothing_is_left_behind() {
    let (a, cancel_a) = Context::background().with_cancel();
    let (b, cancel_b) = Context::background().with_cancel();
    let crowd: Vec<_> = (0..20).map(|_| Context::background().with_cancel()).collect();
    let relayed = any_of(crowd.iter().map(|(ctx, _)| ctx)).relay();
    let ctx = any_of([&a, &b, &relayed]);
    let (old, new) = (Counting::new(), Counting::new());
    let mut done = Box::pin(ctx.done_owned());
    assert!(poll(done.as_mut(), &old).is_pending());
    assert!(poll(done.as_mut(), &new).is_pending());
    assert!(poll(done.as_mut(), &new).is_pending());
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is gone from all three");
    cancel_a.cancel_with("a");
    assert_eq!((old.woken(), new.woken()), (0, 1));
    assert!(poll(done.as_mut(), &new).is_ready());
    assert_eq!(Arc::strong_count(&new), 1, "ready, though b and the crowd live on");
    assert!(done.is_terminated());

    let waker = Counting::new();
    let ctx = any_of([&b, &relayed]);
    let mut done = Box::pin(ctx.done_owned());
    assert!(poll(done.as_mut(), &waker).is_pending());
    drop(done);
    assert_eq!(Arc::strong_count(&waker), 1, "dropped half-way");
    cancel_b.cancel();
    crowd[7].1.cancel();
    assert_eq!(waker.woken(), 0);
}

/// Rule 17: a poll with the waker of the last one does not clone it again.
#[test]
fn polling_again_with_the_same_waker_registers_nothing() {
    let (ctx, _keep) = Context::background().with_cancel();
    let cloned = Arc::new(AtomicUsize::new(0));
    let waker = Arc::new(Hooks::on_clone(adding(&cloned))).waker();
    let mut done = pin!(ctx.done());
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    let once = cloned.load(Ordering::SeqCst);
    assert!(poll_with(done.as_mut(), &waker).is_pending());
    assert_eq!(cloned.load(Ordering::SeqCst), once);
}

/// Rule 17: of a crowd of waiters one that leaves takes nobody else along.
#[test]
fn a_waiter_that_leaves_a_crowd_takes_nobody_along() {
    let (ctx, canceller) = Context::background().with_cancel();
    let waker = Counting::new();
    let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(ctx.done())).collect();
    assert!(crowd.iter_mut().all(|done| poll(done.as_mut(), &waker).is_pending()));
    drop(crowd.swap_remove(50));
    canceller.cancel();
    assert_eq!(waker.woken(), 99);
}

/// Rule 17: each of many sources that were merged one after the other wakes who waits on them all.
#[test]
fn each_of_a_chain_of_merges_wakes() {
    for fired in 0..20 {
        let sources: Vec<_> = (0..20).map(|_| Context::background().with_cancel()).collect();
        let all = sources.iter().fold(Context::background(), |all, (ctx, _)| merge(&all, ctx));
        let waker = Counting::new();
        let mut done = pin!(all.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        sources[fired].1.cancel();
        assert_eq!(waker.woken(), 1);
    }
}

/// Rule 17 between threads: whatever the overlap, a parked waiter is woken.
#[test]
fn no_wake_up_is_lost() {
    for round in 0..1_000 {
        let (root, canceller) = Context::background().with_cancel();
        let others: Vec<_> = (0..if round % 2 == 0 { 1 } else { 12 }).map(|_| live()).collect();
        let ctx = any_of(others.iter().chain([&root]));
        let ctx = if round % 3 == 0 { ctx.relay() } else { ctx };
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    assert!(ctx.wait().is_cancelled());
                });
            }
            start.wait();
            canceller.cancel();
        });
    }
}

/// Work that counts its polls and tells when it is dropped.
struct Work<'a> {
    polls: &'a Cell<usize>,
    dropped: &'a Cell<bool>,
    result: Poll<u32>,
}

impl Future for Work<'_> {
    type Output = u32;

    fn poll(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<u32> {
        self.polls.set(self.polls.get() + 1);
        self.result
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.dropped.set(true);
    }
}

/// Rule 18.
#[test]
fn run_polls_the_work_first_and_drops_it_before_the_error() {
    let (polls, dropped) = (Cell::new(0), Cell::new(false));
    let work = |result| {
        dropped.set(false);
        Work { polls: &polls, dropped: &dropped, result }
    };
    let waker = Counting::new();
    let (ctx, canceller) = Context::background().with_cancel();

    let mut run = pin!(ctx.run(work(Poll::Ready(1))));
    assert_eq!(poll(run.as_mut(), &waker).map(Result::unwrap), Poll::Ready(1));
    assert!(dropped.get() && run.is_terminated());
    assert_eq!(Arc::strong_count(&waker), 1, "ready at once: no registration");

    let mut waits = pin!(ctx.run(work(Poll::Pending)));
    assert!(poll(waits.as_mut(), &waker).is_pending());
    let result = Cell::new(Poll::Pending);
    let mut wins = pin!(ctx.run(poll_fn(|_| result.get())));
    assert!(poll(wins.as_mut(), &waker).is_pending());
    let mut late = pin!(ctx.run(work(Poll::Ready(2))));
    canceller.cancel_with("over");

    result.set(Poll::Ready(3));
    assert_eq!(poll(wins.as_mut(), &waker).map(Result::unwrap), Poll::Ready(3), "ready wins at the same poll");
    dropped.set(false);
    let Poll::Ready(Err(err)) = poll(waits.as_mut(), &waker) else { panic!("the context was cancelled") };
    assert!(dropped.get() && err.cause().is_some());
    let before = polls.get();
    dropped.set(false);
    assert!(matches!(poll(late.as_mut(), &waker), Poll::Ready(Err(_))));
    assert_eq!((polls.get(), dropped.get()), (before, true), "finished before the first poll: not polled at all");
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 18: a deadline ends work, `sleep` is work, and an owned run can be spawned.
#[tokio::test(start_paused = true)]
async fn run_with_a_deadline() {
    let start = Instant::now();
    let ctx = Context::background().with_timeout(SECOND);
    assert!(ctx.sleep(SECOND / 2).await.is_ok());
    assert!(ctx.sleep(SECOND).await.unwrap_err().is_deadline_exceeded());
    assert!(start.elapsed() < SECOND + Duration::from_millis(5));
    let task = tokio::spawn(pending::<()>().with_context(merge(live(), Context::background().with_timeout(SECOND))));
    assert!(task.await.unwrap().unwrap_err().is_deadline_exceeded());
}

/// Rule 18: a stream that is always ready ends too: items, one error, the end.
#[test]
fn a_stream_ends_with_its_context() {
    let waker = Counting::new();
    let next = |stream: Pin<&mut context_merge::StreamWithContext<_>>| {
        let mut stream = stream;
        poll(pin!(poll_fn(|cx| stream.as_mut().poll_next(cx))), &waker)
    };
    let (ctx, canceller) = Context::background().with_cancel();
    let mut numbers = pin!(stream::iter(0..).with_context(&ctx));
    assert!(matches!(next(numbers.as_mut()), Poll::Ready(Some(Ok(0)))));
    assert!(matches!(next(numbers.as_mut()), Poll::Ready(Some(Ok(1)))));
    assert!(!numbers.is_terminated());
    canceller.cancel();
    assert!(matches!(next(numbers.as_mut()), Poll::Ready(Some(Err(_)))));
    assert!(matches!(next(numbers.as_mut()), Poll::Ready(None)));
    assert!(numbers.is_terminated());
}

/// Rule 18: a stream that waits is woken, and one that ends by itself ends without an error.
#[test]
fn a_pending_stream_is_woken() {
    let waker = Counting::new();
    let (ctx, canceller) = Context::background().with_cancel();
    let mut waits = pin!(stream::pending::<u8>().with_context(&ctx));
    assert!(poll(pin!(poll_fn(|cx| waits.as_mut().poll_next(cx))), &waker).is_pending());
    let mut ends = pin!(stream::iter([1]).with_context(&ctx));
    assert_eq!(ends.size_hint(), (0, Some(2)));
    assert!(matches!(poll(pin!(poll_fn(|cx| ends.as_mut().poll_next(cx))), &waker), Poll::Ready(Some(Ok(1)))));
    assert!(matches!(poll(pin!(poll_fn(|cx| ends.as_mut().poll_next(cx))), &waker), Poll::Ready(None)));
    canceller.cancel();
    assert_eq!(waker.woken(), 1);
    assert!(matches!(poll(pin!(poll_fn(|cx| waits.as_mut().poll_next(cx))), &waker), Poll::Ready(Some(Err(_)))));
}

/// Rule 19: at once on this thread, or on the one that cancels; exactly once.
#[test]
fn callbacks_run_once_on_the_right_thread() {
    let (a, cancel_a) = Context::background().with_cancel();
    let (b, cancel_b) = Context::background().with_cancel();
    let ctx = any_of([&a, &b, &a.relay()]);
    let (send, receive) = mpsc::channel();
    let on_done = ctx.on_done({
        let send = send.clone();
        move |err| send.send((thread::current().id(), err.cause().unwrap().to_string())).unwrap()
    });
    let other = thread::spawn(move || {
        cancel_a.cancel_with("a");
        thread::current().id()
    });
    let thread_of_cancel = other.join().unwrap();
    assert_eq!(receive.try_recv().unwrap(), (thread_of_cancel, "a".to_owned()));
    cancel_b.cancel_with("b");
    assert!(!on_done.stop(), "it has run");
    let at_once = ctx.on_done(move |_| send.send((thread::current().id(), String::new())).unwrap());
    assert_eq!(receive.try_recv().unwrap().0, thread::current().id());
    assert!(!at_once.stop());
    assert!(receive.try_recv().is_err(), "each exactly once");
}

/// Rule 19: stop is true exactly when it kept the callback from running; dropping stops, and takes it out.
#[test]
fn stopped_callbacks_do_not_run() {
    let (a, cancel_a) = Context::background().with_cancel();
    let ctx = merge(&a, live());
    let token = Arc::new(AtomicBool::new(false));
    let register = |ctx: &Context| {
        let token = Arc::clone(&token);
        ctx.on_done(move |_| token.store(true, Ordering::SeqCst))
    };
    assert!(register(&ctx).stop());
    assert!(register(&Context::background()).stop());
    drop(register(&ctx));
    assert_eq!(Arc::strong_count(&token), 1, "what was stopped is gone");
    cancel_a.cancel();
    assert!(!token.load(Ordering::SeqCst));
}

/// Rule 19 between threads: either it ran, or stop says that it did not.
#[test]
fn stop_races_cancel() {
    for _ in 0..1_000 {
        let (ctx, canceller) = Context::background().with_cancel();
        let ran = Arc::new(AtomicUsize::new(0));
        let on_done = merge(&ctx, live()).on_done({
            let ran = Arc::clone(&ran);
            move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
            }
        });
        let stopped = stopped_in_a_race(on_done, &canceller);
        assert_eq!(ran.load(Ordering::SeqCst), usize::from(!stopped));
    }
}

/// Rule 19: a callback that has run by one source is gone from the others; stop from within itself says false.
#[test]
fn a_callback_that_ran_is_gone_from_all_sources() {
    let (a, cancel_a) = Context::background().with_cancel();
    let (b, _cancel_b) = Context::background().with_cancel();
    let token = Arc::new(());
    let slot = Arc::new(Mutex::new(None::<context_merge::OnDone>));
    let on_done = merge(&a, &b).on_done({
        let (token, slot) = (Arc::clone(&token), Arc::clone(&slot));
        move |_| {
            let _token = token;
            assert!(!slot.lock().unwrap().take().unwrap().stop());
        }
    });
    *slot.lock().unwrap() = Some(on_done);
    cancel_a.cancel();
    assert_eq!(Arc::strong_count(&token), 1);
}

/// Rule 19: with a deadline too it is the canceller's thread that runs it, before `cancel` returns.
#[test]
fn a_cancel_runs_callbacks_of_contexts_with_deadlines() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let _entered = runtime.enter();
    for _ in 0..200 {
        let (ctx, canceller) = Context::background().with_cancel();
        let (send, receive) = mpsc::channel();
        let on_done = ctx.with_timeout(SECOND * 60).on_done(move |_| send.send(thread::current().id()).unwrap());
        canceller.cancel();
        assert_eq!(receive.try_recv(), Ok(thread::current().id()));
        drop(on_done);
    }
}

/// Rule 19: a timer that rings during a cancel leaves the callbacks to the thread that cancels.
#[test]
fn a_timer_that_finds_a_cancel_under_way_runs_no_callback() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (runtime, ringing) = (Arc::new(runtime), Arc::new(AtomicBool::new(false)));
    let _entered = runtime.enter();
    let (ctx, canceller) = Context::background().with_cancel();
    let waker = calling({
        let (runtime, ringing) = (Arc::clone(&runtime), Arc::clone(&ringing));
        move || {
            ringing.store(true, Ordering::SeqCst);
            runtime.block_on(advance(SECOND));
            runtime.block_on(tokio::task::yield_now());
            ringing.store(false, Ordering::SeqCst);
        }
    });
    let mut first = pin!(ctx.done());
    assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let (send, receive) = mpsc::channel();
    let on_done = ctx.with_timeout(SECOND).on_done(move |_| send.send(ringing.load(Ordering::SeqCst)).unwrap());
    assert!(canceller.cancel());
    assert_eq!(receive.try_recv(), Ok(false));
    drop(on_done);
}

/// Rule 19: a deadline runs it on the runtime.
#[tokio::test(start_paused = true)]
async fn a_deadline_runs_callbacks() {
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let ctx = merge(live(), Context::background().with_timeout(SECOND));
    ctx.on_done(move |err| send.send(err.clone()).unwrap()).detach();
    drop(ctx);
    assert!(receive.recv().await.unwrap().is_deadline_exceeded());
    assert!(receive.recv().await.is_none());
}

/// Rule 20.
#[test]
fn threads_wait_without_a_runtime() {
    let (ctx, canceller) = Context::background().with_cancel();
    assert!(ctx.wait_timeout(Duration::from_millis(1)).is_none());
    assert!(ctx.with_timeout(Duration::from_millis(1)).wait().is_deadline_exceeded());
    assert!(ctx.with_timeout(Duration::from_millis(1)).wait_timeout(Duration::MAX).unwrap().is_deadline_exceeded());
    let waiting = thread::spawn({
        let ctx = merge(ctx.with_timeout(SECOND * 3600), live()).relay();
        move || ctx.wait()
    });
    canceller.cancel_with("now");
    assert_eq!(waiting.join().unwrap().cause().unwrap().to_string(), "now");
    assert!(ctx.wait_timeout(Duration::ZERO).is_some());
}

/// Rule 20: the panic says what is missing, and leaves nothing behind.
#[test]
fn a_deadline_without_a_runtime_panics_with_a_reason() {
    let (root, _canceller) = Context::background().with_cancel();
    let ctx = root.with_timeout(SECOND * 3600);
    let waker = Counting::new();
    let message = |f: &mut dyn FnMut()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).to_owned())
    };
    let said = message(&mut || drop(poll(pin!(ctx.done()), &waker)));
    assert!(said.contains("needs a tokio runtime with time enabled"), "{said}");
    let said = message(&mut || drop(Context::from_signal(Manual::default()).on_done(|_| {})));
    assert!(said.contains("needs a tokio runtime"), "{said}");
    let no_time = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let said = message(&mut || drop(no_time.block_on(ctx.done())));
    assert!(said.contains("enable_time"), "{said}");
    let said = message(&mut || drop(no_time.block_on(async { ctx.on_done(|_| {}) })));
    assert!(said.contains("enable_time"), "{said}");
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 21: a paused clock drives deadlines, to the instant; nobody is woken before.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_drives_deadlines() {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
    let ctx = Context::background().with_timeout(MONTH);
    let waker = Counting::new();
    let mut done = pin!(ctx.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    advance(MONTH - Duration::from_nanos(1)).await;
    assert_eq!(waker.woken(), 0);
    assert!(!ctx.is_done() && poll(done.as_mut(), &waker).is_pending());
    advance(Duration::from_nanos(1)).await;
    assert!(ctx.is_done() && poll(done.as_mut(), &waker).is_ready());
}

/// A signal for tests: set by hand, and counted.
#[derive(Clone, Default)]
struct Manual {
    err: Arc<Mutex<Option<Error>>>,
    deadline: Option<Instant>,
    wakers: Arc<Mutex<Vec<std::task::Waker>>>,
}

impl Manual {
    fn set(&self, err: Option<Error>) {
        *self.err.lock().unwrap() = err;
        for waker in std::mem::take(&mut *self.wakers.lock().unwrap()) {
            waker.wake();
        }
    }
}

impl Signal for Manual {
    fn err(&self) -> Option<Error> {
        self.err.lock().unwrap().clone()
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        let this = self.clone();
        Box::pin(poll_fn(move |cx| match this.err() {
            Some(err) => Poll::Ready(err),
            None => {
                this.wakers.lock().unwrap().push(cx.waker().clone());
                Poll::Pending
            }
        }))
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Rule 21: a foreign signal happened when it was first seen, and stays.
#[tokio::test(start_paused = true)]
async fn a_foreign_signal_happens_when_it_is_seen() {
    let signal = Manual::default();
    let foreign = Context::from_signal(signal.clone());
    let (ctx, canceller) = Context::background().with_cancel();
    let ctx = merge(&ctx, &foreign);
    signal.set(Some(Error::deadline_exceeded().named("foreign").with_cause("theirs")));
    canceller.cancel_with("ours");
    assert_eq!(ctx.err().unwrap().cause().unwrap().to_string(), "ours", "nobody had seen theirs");
    let alone = merge(live(), foreign.named("ours"));
    let err = alone.err().unwrap();
    assert_eq!(err.to_string(), "context deadline exceeded (foreign)");
    signal.set(None);
    assert!(foreign.is_done() && alone.is_done(), "nothing is ever un-finished");
}

/// Foreign signals wake whoever waits, also through a relay and in a crowd, without a task; their deadline counts.
#[tokio::test(start_paused = true)]
async fn foreign_signals_wake() {
    let signal = Manual { deadline: Some(Instant::now() + SECOND), ..Manual::default() };
    let foreign = Context::from_signal(signal.clone());
    assert_eq!(foreign.deadline(), signal.deadline);
    let crowd: Vec<_> = (0..20).map(|_| live()).collect();
    let many = any_of(crowd.iter().chain([&foreign]));
    let many = many.relay().with_cancel().0;
    let waker = Counting::new();
    let mut done = pin!(many.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let on_done = many.on_done(move |err| send.send(err.is_cancelled()).unwrap());
    tokio::task::yield_now().await;
    signal.set(Some(Error::cancelled().with_cause("theirs")));
    assert!(waker.woken() > 0);
    assert!(poll(done.as_mut(), &waker).is_ready());
    assert_eq!(receive.recv().await, Some(true));
    drop(on_done);
    advance(SECOND).await;
    assert!(foreign.err().unwrap().is_cancelled());
    let late = Context::from_signal(Manual { deadline: signal.deadline, ..Manual::default() });
    assert!(late.err().unwrap().is_deadline_exceeded());
}

/// Rule 9 for foreign signals, which are not gathered: however many there are, each counts once.
#[test]
fn many_foreign_signals_count_once() {
    let signals: Vec<_> = (0..40).map(|_| Context::from_signal(Manual::default())).collect();
    let all = any_of(signals.iter().chain(&signals));
    assert_eq!(format!("{all:?}"), "Context { sources: 40, values: 0 }");
}

/// Rule 17: a signal whose first `done` panics is asked again at the next poll.
#[test]
fn a_panic_in_a_first_poll_loses_no_wake_up() {
    #[derive(Clone, Default)]
    struct Flaky(Manual, Arc<AtomicUsize>);
    impl Signal for Flaky {
        fn err(&self) -> Option<Error> {
            self.0.err()
        }
        fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
            assert!(self.1.fetch_add(1, Ordering::SeqCst) > 0, "the first time");
            self.0.done()
        }
    }
    let signal = Flaky::default();
    let ctx = merge(live(), Context::from_signal(signal.clone()));
    let waker = Counting::new();
    let mut done = pin!(ctx.done());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(done.as_mut(), &waker).is_pending()));
    assert!(panic.is_err());
    assert!(poll(done.as_mut(), &waker).is_pending());
    signal.0.set(Some(Error::cancelled()));
    assert_eq!(waker.woken(), 1);
    assert!(poll(done.as_mut(), &waker).is_ready());
    assert_eq!(signal.1.load(Ordering::SeqCst), 2, "once for each wait that was begun");
}

/// Rule 16: a deadline just inside what an instant can hold.
#[tokio::test(start_paused = true)]
async fn the_last_representable_deadline_can_be_awaited() {
    let now = Instant::now();
    let (mut most, mut step) = (Duration::ZERO, Duration::from_secs(1 << 62));
    while !step.is_zero() {
        match most.checked_add(step).filter(|more| now.checked_add(*more).is_some()) {
            Some(more) => most = more,
            None => step /= 2,
        }
    }
    let ctx = Context::background().with_timeout(most);
    assert!(ctx.deadline().is_some());
    assert!(poll(pin!(ctx.done()), &Counting::new()).is_pending());
}

/// `until`: one task, ended when nobody can see it any more; a registered callback sees it.
#[tokio::test]
async fn until_ends_its_task_when_nobody_can_see_it() {
    struct Tell(Option<tokio::sync::oneshot::Sender<()>>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let event = || {
        let (send, ended) = tokio::sync::oneshot::channel();
        let tell = Tell(Some(send));
        let ctx = Context::until(async move {
            let _tell = tell;
            pending::<()>().await;
        });
        (ctx, ended)
    };
    let (ctx, mut ended) = event();
    let (other, cancel_other) = Context::background().with_cancel();
    let merged = any_of([&merge(&ctx, &other), &other]).relay().with_value(1);
    drop(ctx);
    tokio::task::yield_now().await;
    assert!(ended.try_recv().is_err(), "the merge can see it");
    let on_done = merged.on_done(|_| {});
    drop(merged);
    tokio::task::yield_now().await;
    assert!(ended.try_recv().is_err(), "the callback can see it");
    assert!(on_done.stop());
    ended.await.unwrap();
    drop(cancel_other);

    let (ctx, ended) = event();
    let kept = merge(&ctx, &other);
    let (stop, cancel) = kept.with_cancel();
    drop((ctx, kept));
    cancel.cancel();
    let err = stop.err();
    drop((stop, cancel));
    ended.await.unwrap();
    assert!(err.is_some(), "an error is not somebody who sees it");
}

/// `until` cancels when its event is ready, and its wake-ups go through relays and crowds.
#[tokio::test]
async fn until_finishes_with_its_event() {
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let ctx = Context::until(receive).named("ours");
    let crowd: Vec<_> = (0..20).map(|_| live()).collect();
    let many = any_of(crowd.iter().chain([&ctx])).relay();
    let waiting = tokio::spawn(many.done_owned());
    tokio::task::yield_now().await;
    send.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().to_string(), "context cancelled");
    assert!(Context::until(ready(())).done().await.is_cancelled());
    let (lost, token) = (Context::until(async { panic!("the event panics") }), Arc::new(()));
    let wait = |token: Arc<()>| lost.on_done(move |_| drop(token)).detach();
    wait(Arc::clone(&token));
    tokio::task::yield_now().await;
    assert!(!lost.is_done());
    assert_eq!(Arc::strong_count(&token), 1, "nothing can come any more: what waits for it is let go");
    wait(Arc::clone(&token));
    assert_eq!(Arc::strong_count(&token), 1, "and what comes later is not kept");
}

/// Rule 21.
#[test]
fn as_an_io_error() {
    let io = |err: Error| std::io::Error::from(err);
    assert!(Error::cancelled().is_cancelled() && !Error::deadline_exceeded().is_cancelled());
    assert!(Error::deadline_exceeded().is_deadline_exceeded() && !Error::cancelled().is_deadline_exceeded());
    assert_eq!(io(Error::deadline_exceeded()).kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(io(Error::cancelled()).kind(), std::io::ErrorKind::Other);
    let err = io(Error::cancelled().with_cause("why"));
    let inner = err.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(std::error::Error::source(inner).unwrap().to_string(), "why");
}

/// What `{:?}` shows.
#[tokio::test(start_paused = true)]
async fn debug_tells_the_state() {
    let (ctx, canceller) = Context::background().named("work").with_cancel();
    let limited = ctx.with_timeout(SECOND).with_value(7);
    let on_done = ctx.on_done(|_| {});
    let never = Context::background().on_done(|_| {});
    assert_eq!(format!("{:?}", Context::background()), "Context { sources: 0, values: 0 }");
    assert_eq!(format!("{:?}", Context::todo()), "Context(todo)");
    assert_eq!(format!("{:?}", Context::todo().with_value(7)), "Context { sources: 0, values: 2 }");
    assert_eq!(format!("{:?}", Context::todo().with_cancel().0), "Context { sources: 1, values: 1 }");
    assert_eq!(format!("{limited:?}"), r#"Context { sources: 1, remaining: 1s, name: "work", values: 1 }"#);
    assert_eq!(format!("{canceller:?}"), "Canceller { is_cancelled: false }");
    assert_eq!(format!("{on_done:?} {never:?}"), "OnDone { pending: true } OnDone { pending: true }");
    canceller.cancel_with("over");
    assert_eq!(format!("{canceller:?}"), "Canceller { is_cancelled: true }");
    assert_eq!(format!("{on_done:?}"), "OnDone { pending: false }");
    let err = r#"Error { kind: Cancelled, cause: "over", origin: "work" }"#;
    assert_eq!(format!("{limited:?}"), format!(r#"Context {{ err: {err}, remaining: 1s, name: "work", values: 1 }}"#));
    assert_eq!(format!("{:?}", Error::deadline_exceeded()), "Error { kind: DeadlineExceeded }");
    let (done, run) = (format!("{:?}", limited.done_owned()), format!("{:?}", limited.run(ready(()))));
    assert!(done.contains(err) && run.contains(err));
    assert!(format!("{:?}", stream::pending::<()>().with_context(&limited)).contains(err));
}
