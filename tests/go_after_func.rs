//! The cases of Go's tests of `AfterFunc` and of contexts that are not its own, on `on_done` and `from_signal`.
//!
//! A callback runs on the thread that cancels, where Go starts a goroutine; and a foreign context is only looked at,
//! where Go registers each child with it, or starts a goroutine for it.

mod support;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use context_merge::{Context, Error, OnDone, Signal, merge};
use support::{Counting, poll, stopped_in_a_race};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

const SHORT: Duration = Duration::from_millis(50);
const VERY_LONG: Duration = Duration::from_secs(1000 * 60 * 60);

fn cause_of(err: &Error) -> Option<String> {
    err.cause().map(ToString::to_string)
}

/// How often a callback ran. What it is registered with holds a clone.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn on_done(&self, ctx: &Context) -> OnDone {
        let runs = self.clone();
        ctx.on_done(move |_| _ = runs.0.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether the callback is gone, with what it captured.
    fn is_let_go(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Go: TestAfterFuncCalledAfterCancel.
#[test]
fn called_after_cancel() {
    let (ctx, canceller) = Context::background().with_cancel();
    let (send, receive) = mpsc::channel();
    let on_done = ctx.on_done(move |err| send.send((thread::current().id(), cause_of(err))).unwrap());
    assert!(receive.try_recv().is_err(), "it is live yet");
    let cancelling = thread::spawn(move || {
        canceller.cancel_with("because");
        thread::current().id()
    });
    let cancelling = cancelling.join().unwrap();
    // Unlike Go's it has run before the cancel returned, and on its thread; and it is told why.
    assert_eq!(receive.try_recv(), Ok((cancelling, Some("because".into()))));
    assert!(!on_done.stop());
}

/// Go: TestAfterFuncCalledAfterTimeout.
#[tokio::test(start_paused = true)]
async fn called_after_timeout() {
    let ctx = Context::background().with_timeout(SHORT);
    let (send, receive) = oneshot::channel();
    let on_done = ctx.on_done(move |err| send.send((err.clone(), Instant::now())).unwrap());
    let (err, at) = receive.await.unwrap();
    assert!(err.is_deadline_exceeded());
    assert!(at >= ctx.deadline().unwrap());
    assert!(!on_done.stop());
}

/// Go: TestAfterFuncCalledImmediately. Unlike Go's it has run when the registration returns, on this thread.
#[test]
fn called_immediately() {
    let (ctx, canceller) = Context::background().with_cancel();
    canceller.cancel_with("because");
    let (send, receive) = mpsc::channel();
    let on_done = ctx.on_done(move |err| send.send((thread::current().id(), cause_of(err))).unwrap());
    assert_eq!(receive.try_recv(), Ok((thread::current().id(), Some("because".into()))));
    assert!(!on_done.stop());
}

/// Go: TestAfterFuncNotCalledAfterStop. Go's can be stopped again, for a false; ours is used up by the first.
#[test]
fn not_called_after_stop() {
    let (ctx, canceller) = Context::background().with_cancel();
    let runs = Runs::default();
    let on_done = runs.on_done(&ctx);
    assert!(!runs.is_let_go());
    assert!(on_done.stop());
    assert!(runs.is_let_go(), "at once, not with the context");
    assert!(canceller.cancel());
    assert_eq!(runs.count(), 0);
}

/// Go: TestAfterFuncCalledAfterTimeout, which throws `stop` away: that is `detach` here, and dropping is `stop`.
#[test]
fn dropping_stops_and_detaching_does_not() {
    let (ctx, canceller) = Context::background().with_cancel();
    let (dropped, detached) = (Runs::default(), Runs::default());
    drop(dropped.on_done(&ctx));
    detached.on_done(&ctx).detach();
    assert!(dropped.is_let_go() && !detached.is_let_go());
    assert!(canceller.cancel());
    assert_eq!((dropped.count(), detached.count()), (0, 1));
    assert!(detached.is_let_go());
}

/// Go: TestAfterFuncCalledAsynchronously. Ours is not: `cancel` goes on when the callbacks have run, but they see
/// all contexts done, and nobody else has to wait for them.
#[test]
fn called_before_cancel_returns() {
    let (ctx, canceller) = Context::background().with_cancel();
    let child = ctx.with_value("child");
    let returned = Arc::new(AtomicBool::new(false));
    // Met when the callback is running, and when it may end.
    let (running, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let on_done = ctx.on_done({
        let (child, returned, running, end) = (child.clone(), returned.clone(), running.clone(), end.clone());
        move |_| {
            let child_was_done = child.is_done();
            running.wait();
            end.wait();
            // Not before the barriers, where a panic would leave the test waiting.
            assert!(child_was_done && !returned.load(Ordering::SeqCst));
        }
    });
    let cancelling = thread::spawn({
        let (canceller, returned) = (canceller.clone(), returned.clone());
        move || {
            assert!(canceller.cancel());
            returned.store(true, Ordering::SeqCst);
        }
    });
    running.wait();
    assert!(ctx.is_done() && child.is_done());
    assert!(!canceller.cancel(), "the other was first, and is not waited for");
    assert!(!on_done.stop(), "too late, and not waited for");
    assert!(!returned.load(Ordering::SeqCst));
    end.wait();
    cancelling.join().unwrap();
}

/// Go: TestAfterFuncCalledAfterCancel's `stop`, raced: it is true exactly when the callback did not run.
#[test]
fn stop_races_cancel() {
    for round in 0..200 {
        let (ctx, canceller) = Context::background().with_cancel();
        let runs = Runs::default();
        let on_done = runs.on_done(&ctx);
        let stopped = stopped_in_a_race(on_done, &canceller);
        assert_eq!(runs.count(), usize::from(!stopped), "round {round}: stop said {stopped}");
        assert!(runs.is_let_go(), "round {round}");
    }
}

/// Go: AfterFunc on a context that is never done, such as that of XTestWithoutCancel.
#[test]
fn never_called_without_a_source() {
    let (parent, canceller) = Context::background().with_cancel();
    for ctx in [parent.without_cancel(), Context::background(), Context::todo()] {
        let (stopped, dropped) = (Runs::default(), Runs::default());
        let to_stop = stopped.on_done(&ctx);
        let to_drop = dropped.on_done(&ctx);
        canceller.cancel();
        assert!(to_stop.stop());
        drop(to_drop);
        assert_eq!((stopped.count(), dropped.count()), (0, 0));
        assert!(stopped.is_let_go() && dropped.is_let_go());
    }
}

/// Somebody else's cancellation; who waits for it is counted.
#[derive(Clone)]
struct Foreign(watch::Sender<Option<Error>>);

impl Foreign {
    fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    fn context(&self) -> Context {
        Context::from_signal(self.clone())
    }

    fn finish(&self, err: Error) {
        self.0.send_replace(Some(err));
    }

    fn waiting(&self) -> usize {
        self.0.receiver_count()
    }
}

impl Signal for Foreign {
    fn err(&self) -> Option<Error> {
        self.0.borrow().clone()
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        let mut receiver = self.0.subscribe();
        Box::pin(async move {
            let err = receiver.wait_for(Option::is_some).await.expect("the context has the sender");
            err.clone().expect("it was waited for")
        })
    }
}

/// Go: TestCustomContextAfterFuncCancel.
#[test]
fn foreign_finishes_child() {
    let foreign = Foreign::new();
    let (child, canceller) = foreign.context().with_cancel();
    let waker = Counting::new();
    let mut done = pin!(child.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    foreign.finish(Error::cancelled());
    assert_eq!(waker.woken(), 1);
    assert!(poll(done.as_mut(), &waker).is_ready());
    assert!(child.err().unwrap().is_cancelled());
    assert!(!canceller.cancel());
}

/// Go: TestCustomContextAfterFuncTimeout.
#[tokio::test(start_paused = true)]
async fn foreign_finishes_timeout() {
    let foreign = Foreign::new();
    let child = foreign.context().with_timeout(VERY_LONG);
    let start = Instant::now();
    let waiting = tokio::spawn(child.done_owned());
    tokio::task::yield_now().await;
    foreign.finish(Error::cancelled());
    assert!(waiting.await.unwrap().is_cancelled());
    assert!(start.elapsed() < SHORT, "not by the timeout");
}

/// Go: TestCustomContextAfterFuncAfterFunc. It runs on the runtime, since nobody of ours is there when it happens.
#[tokio::test]
async fn foreign_calls_callback() {
    let foreign = Foreign::new();
    let ctx = foreign.context();
    let (send, receive) = oneshot::channel();
    let on_done = ctx.on_done(move |err| send.send(cause_of(err)).unwrap());
    tokio::task::yield_now().await;
    foreign.finish(Error::cancelled().with_cause("foreign"));
    assert_eq!(receive.await.unwrap().as_deref(), Some("foreign"));
    assert!(!on_done.stop());
}

/// Go: TestCustomContextAfterFuncUnregisterCancel. Deriving registers nothing; waiting does, until the finish.
#[test]
fn foreign_forgets_cancelled_children() {
    let foreign = Foreign::new();
    let parent = foreign.context();
    let (one, cancel_one) = parent.with_cancel();
    let (two, cancel_two) = parent.with_cancel();
    assert_eq!(foreign.waiting(), 0);
    let waker = Counting::new();
    let (mut of_one, mut of_two) = (Box::pin(one.done()), Box::pin(two.done()));
    assert!(poll(of_one.as_mut(), &waker).is_pending() && poll(of_two.as_mut(), &waker).is_pending());
    assert_eq!(foreign.waiting(), 2);

    assert!(cancel_one.cancel());
    assert!(poll(of_one.as_mut(), &waker).is_ready());
    assert_eq!(foreign.waiting(), 1);
    // The other is not cancelled: a wait that is dropped is forgotten as well.
    drop(of_two);
    assert_eq!(foreign.waiting(), 0);
    assert!(cancel_two.cancel());
    assert!(!parent.is_done());
}

/// Go: TestCustomContextAfterFuncUnregisterTimeout.
#[tokio::test(start_paused = true)]
async fn foreign_forgets_timed_children() {
    let foreign = Foreign::new();
    let parent = foreign.context();
    let (cancelled, canceller) = parent.with_timeout(VERY_LONG).with_cancel();
    let timed = parent.with_timeout(SHORT);
    assert_eq!(foreign.waiting(), 0);
    let waker = Counting::new();
    let (mut of_cancelled, mut of_timed) = (pin!(cancelled.done()), pin!(timed.done()));
    assert!(poll(of_cancelled.as_mut(), &waker).is_pending() && poll(of_timed.as_mut(), &waker).is_pending());
    assert_eq!(foreign.waiting(), 2);

    assert!(canceller.cancel());
    assert!(poll(of_cancelled.as_mut(), &waker).is_ready());
    assert_eq!(foreign.waiting(), 1);
    tokio::time::advance(SHORT).await;
    assert!(poll(of_timed.as_mut(), &waker).is_ready());
    assert_eq!(foreign.waiting(), 0);
    assert!(!parent.is_done());
}

/// Go: TestCustomContextAfterFuncUnregisterAfterFunc.
#[tokio::test]
async fn foreign_forgets_stopped_callback() {
    let foreign = Foreign::new();
    let ctx = foreign.context();
    let runs = Runs::default();
    let on_done = runs.on_done(&ctx);
    tokio::task::yield_now().await;
    assert!(foreign.waiting() > 0);
    assert!(on_done.stop());
    // The runtime ends what waited.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(foreign.waiting(), 0);
    assert!(runs.is_let_go());
    foreign.finish(Error::cancelled());
    tokio::task::yield_now().await;
    assert!(ctx.is_done());
    assert_eq!(runs.count(), 0);
}

/// Go: XTestCustomContextGoroutines. Go needs a goroutine for some of these; ours needs a task for none.
#[tokio::test(start_paused = true)]
async fn foreign_needs_no_task() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let foreign = Foreign::new();
    let (one, _cancel_one) = foreign.context().with_cancel();
    let (two, cancel_two) = one.with_timeout(VERY_LONG).with_value("between").with_cancel();
    let merged = merge(&two, Foreign::new().context());
    let relay = merged.relay();
    let mut done = pin!(relay.done());
    assert!(poll(done.as_mut(), &Counting::new()).is_pending());
    assert_eq!(tasks(), before);

    assert!(cancel_two.cancel());
    assert!(relay.is_done());
    // Nor of what is finished.
    let (late, _cancel_late) = two.with_cancel();
    assert!(late.with_timeout(VERY_LONG).is_done());
    assert_eq!(tasks(), before);
}

/// One of ours behind a signal whose future comes later than its error.
struct Late(Context, Foreign);

impl Signal for Late {
    fn err(&self) -> Option<Error> {
        self.0.err()
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        self.1.done()
    }
}

/// Go: TestCustomContextPropagation. A look asks the error, and need not wait for the future.
#[test]
fn foreign_passes_the_cause_on() {
    let (inner, canceller) = Context::background().with_cancel();
    let future = Foreign::new();
    let (child, _canceller) = Context::from_signal(Late(inner.clone(), future.clone())).with_cancel();
    let waker = Counting::new();
    let mut done = pin!(child.done());
    assert!(poll(done.as_mut(), &waker).is_pending());

    assert!(canceller.cancel_with("inner"));
    let cause = |ctx: &Context| std::ptr::from_ref(ctx.err().unwrap().cause().unwrap()).cast::<()>();
    assert!(child.is_done());
    assert_eq!(cause(&child), cause(&inner), "the same cause, by pointer");
    future.finish(Error::deadline_exceeded());
    assert_eq!(waker.woken(), 1);
    assert!(poll(done.as_mut(), &waker).is_ready());
    assert!(child.err().unwrap().is_cancelled(), "what was seen first stays");
}

/// Go: TestCustomContextCause, a foreign context of its own.
#[test]
fn foreign_without_a_cause() {
    let foreign = Foreign::new();
    let ctx = foreign.context();
    assert!(!ctx.is_done());
    foreign.finish(Error::cancelled());
    let err = ctx.err().unwrap();
    assert!(err.is_cancelled() && err.cause().is_none());
    // It happened when it was seen, and is not taken back.
    foreign.0.send_replace(None);
    assert!(ctx.is_done());
}

/// Go: TestCustomContextCause, a child that is cancelled before its foreign parent.
#[test]
fn foreign_after_its_child() {
    let foreign = Foreign::new();
    let parent = foreign.context();
    let (child, canceller) = parent.with_cancel();
    assert!(canceller.cancel_with("child"));
    assert_eq!(cause_of(&child.err().unwrap()).as_deref(), Some("child"));
    assert!(!parent.is_done());

    foreign.finish(Error::cancelled());
    assert_eq!(cause_of(&child.err().unwrap()).as_deref(), Some("child"));
    assert!(parent.err().unwrap().cause().is_none());
}

/// Go: TestCustomContextCause, a foreign parent that cancels its child as well.
#[test]
fn foreign_cancels_its_child() {
    let foreign = Foreign::new();
    let parent = foreign.context();
    let (child, canceller) = parent.with_cancel();
    foreign.finish(Error::cancelled());
    // Nobody has looked: this cancel is the first to see the parent, which comes before it.
    assert!(!canceller.cancel_with("child"));
    for ctx in [&parent, &child] {
        let err = ctx.err().unwrap();
        assert!(err.is_cancelled() && err.cause().is_none());
    }
}
