//! Rules 1, 7, 17, 19 and 21 against foreign signals that panic, block, lie and call back.

mod support;

use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use context_merge::{Canceller, Context, Error, ErrorKind, Signal, any_of, merge};
use support::{Counting, OnDrop, adding, panic_of, poll, ways_to_see, within};
use tokio::time::{Instant, advance};

type SignalDone = Pin<Box<dyn Future<Output = Error> + Send>>;

/// A signal of closures: quiet, unless told otherwise.
struct Fake {
    err: Box<dyn Fn() -> Option<Error> + Send + Sync>,
    done: Box<dyn Fn() -> SignalDone + Send + Sync>,
    deadline: fn() -> Option<Instant>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { err: Box::new(|| None), done: Box::new(|| Box::pin(pending())), deadline: || None }
    }
}

impl Signal for Fake {
    fn err(&self) -> Option<Error> {
        (self.err)()
    }

    fn done(&self) -> SignalDone {
        (self.done)()
    }

    fn deadline(&self) -> Option<Instant> {
        (self.deadline)()
    }
}

fn err_is(err: impl Fn() -> Option<Error> + Send + Sync + 'static) -> Fake {
    Fake { err: Box::new(err), ..Fake::default() }
}

fn done_is<F: Future<Output = Error> + Send + 'static>(done: impl Fn() -> F + Send + Sync + 'static) -> Fake {
    Fake { done: Box::new(move || Box::pin(done())), ..Fake::default() }
}

/// A context over a signal whose `err` panics while the switch is on.
fn panicking() -> (Context, Arc<AtomicBool>) {
    let on = Arc::new(AtomicBool::new(false));
    let panics = Arc::clone(&on);
    (
        Context::from_signal(err_is(move || {
            assert!(!panics.load(Ordering::SeqCst), "err");
            None
        })),
        on,
    )
}

fn cause(ctx: &Context) -> String {
    ctx.err().unwrap().cause().unwrap().to_string()
}

fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Rule 7: the panic of `err` comes out of whatever looks, and changes nothing.
#[test]
fn a_panicking_err_comes_out_of_the_look() {
    let (foreign, on) = panicking();
    let (root, canceller) = source();
    let ctx = merge(&root, &foreign);
    let mut done = pin!(ctx.done());
    let waker = Counting::new();
    let looks: [&dyn Fn(); 9] = [
        &|| assert!(!ctx.is_done()),
        &|| drop(ctx.err()),
        &|| drop(ctx.check()),
        &|| drop(merge(&ctx, source().0)),
        &|| drop(ctx.with_cancel()),
        &|| assert!(!ctx.finished_by(&root.with_timeout(Duration::ZERO))),
        &|| drop(ctx.relay()),
        &|| drop(ctx.on_done(|_| {})),
        &|| drop(format!("{ctx:?}")),
    ];
    on.store(true, Ordering::SeqCst);
    for look in looks {
        assert_eq!(panic_of(look), "err");
    }
    assert_eq!(panic_of(|| poll(done.as_mut(), &waker)), "err");
    assert_eq!(panic_of(|| ctx.wait_timeout(Duration::ZERO)), "err");
    on.store(false, Ordering::SeqCst);
    for look in looks {
        // No runtime for the callback.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
    }
    assert!(!ctx.is_done() && poll(done.as_mut(), &waker).is_pending());
    canceller.cancel_with("ours");
    assert_eq!((waker.woken(), cause(&ctx).as_str()), (1, "ours"));
    assert!(poll(done.as_mut(), &waker).is_ready());
}

/// Rules 4, 5 and 7: a panicking `err` above a source does not keep its cancel from happening, nor anybody from waking.
#[test]
fn a_panicking_err_does_not_keep_a_cancel_from_happening() {
    for guarded in [false, true] {
        let (foreign, on) = panicking();
        let (child, canceller) = foreign.with_cancel();
        let views = [child.clone(), merge(&child, source().0), child.relay(), merge(source().0, &child).relay()];
        let waker = Counting::new();
        let mut parked: Vec<_> = views.iter().map(|ctx| Box::pin(ctx.done())).collect();
        parked.iter_mut().for_each(|done| assert!(poll(done.as_mut(), &waker).is_pending()));
        on.store(true, Ordering::SeqCst);
        let said = panic_of(|| {
            if guarded {
                let _guard = canceller.clone().drop_guard();
                panic!("the work");
            }
            canceller.cancel_with("ours")
        });
        assert_eq!(said, if guarded { "the work" } else { "err" });
        assert!(canceller.is_cancelled() && !canceller.cancel());
        assert_eq!(waker.woken(), 4);
        for (ctx, done) in views.iter().zip(&mut parked) {
            assert!(ctx.is_done() && poll(done.as_mut(), &waker).is_ready(), "no signal is asked any more");
        }
        assert_eq!(panic_of(|| foreign.is_done()), "err", "a cancel never reaches a parent");
    }
}

/// Rules 3 and 4: where a source was cancelled or the deadline has passed, no signal is asked: none can be earlier.
#[tokio::test(start_paused = true)]
async fn what_has_happened_needs_no_signal() {
    let (foreign, on) = panicking();
    let (root, canceller) = source();
    let (ways, _keep) = ways_to_see(&root);
    let timed =
        [foreign.with_timeout(Duration::from_secs(1)), merge(&foreign, root.with_timeout(Duration::from_secs(1)))];
    let cancelled: Vec<_> = ways.iter().flat_map(|ctx| [merge(&foreign, ctx), merge(ctx, &foreign).relay()]).collect();
    let ran = Arc::new(AtomicUsize::new(0));
    for ctx in &cancelled {
        let ran = adding(&ran);
        ctx.on_done(move |_| ran()).detach();
    }
    on.store(true, Ordering::SeqCst);
    advance(Duration::from_secs(1)).await;
    assert!(timed.iter().all(|ctx| ctx.err().unwrap().is_deadline_exceeded()));
    assert!(canceller.cancel_with("ours"));
    assert_eq!(ran.load(Ordering::SeqCst), 6, "on the thread that cancels");
    assert!(cancelled.iter().all(|ctx| cause(ctx) == "ours"));
    assert_eq!(panic_of(|| foreign.is_done()), "err");
}

/// Rule 4: a signal that blocks when it is asked holds up those who ask it, and nobody else.
#[test]
fn a_blocking_err_holds_up_who_asks() {
    within(|| {
        let gate = Arc::new(Mutex::new(()));
        let (send, inside) = mpsc::channel();
        let foreign = Context::from_signal(err_is({
            let gate = Arc::clone(&gate);
            move || {
                let _ = send.send(());
                let _open = gate.lock().unwrap();
                None
            }
        }));
        let (root, canceller) = source();
        let ctx = merge(&root, &foreign);
        inside.try_iter().count();
        let held = gate.lock().unwrap();
        let blocked = thread::spawn({
            let ctx = ctx.clone();
            move || ctx.is_done()
        });
        inside.recv().unwrap();
        let (ways, _keep) = ways_to_see(&root);
        let waker = Counting::new();
        let mut parked: Vec<_> = ways.iter().map(|ctx| Box::pin(ctx.done())).collect();
        parked.iter_mut().for_each(|done| assert!(poll(done.as_mut(), &waker).is_pending()));
        assert!(canceller.cancel_with("ours"));
        assert!(waker.woken() == 3 && ways.iter().all(Context::is_done));
        assert_eq!(cause(&ctx), "ours", "the context over it needs not ask any more");
        assert!(merge(&ctx, &root).is_done() && !blocked.is_finished());
        drop(held);
        // It may have asked before the cancel, and then decides without having seen it.
        blocked.join().unwrap();
    });
}

/// Rules 1 and 21: the error of the future counts although `err` never says so; and the other way round.
#[tokio::test(start_paused = true)]
async fn futures_and_looks_that_disagree() {
    let ready_alone = Context::from_signal(done_is(|| ready(Error::cancelled().with_cause("its future"))));
    assert!(!ready_alone.is_done());
    let ctx = merge(source().0, &ready_alone);
    assert_eq!(ctx.done().await.cause().unwrap().to_string(), "its future");
    assert_eq!((cause(&ready_alone), cause(&ctx)), ("its future".into(), "its future".into()));

    let said = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&said);
    let never_ready = Context::from_signal(err_is(move || says.load(Ordering::SeqCst).then(Error::cancelled)));
    let waker = Counting::new();
    let (mut done, mut run) = (pin!(never_ready.done()), pin!(never_ready.run(pending::<()>())));
    assert!(poll(done.as_mut(), &waker).is_pending() && poll(run.as_mut(), &waker).is_pending());
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let timed = never_ready.with_timeout(Duration::from_secs(1));
    timed.on_done(move |err| send.send(err.is_cancelled()).unwrap()).detach();
    said.store(true, Ordering::SeqCst);
    assert!(poll(done.as_mut(), &waker).is_ready() && poll(run.as_mut(), &waker).is_ready());
    assert_eq!(receive.recv().await, Some(true), "seen when the deadline woke the task");
}

/// Rule 6: `err` may look, merge, register and cancel, also at the very context that asks.
#[test]
fn an_err_that_calls_back() {
    let this = Arc::new(OnceLock::<Context>::new());
    let (other, cancel_other) = source();
    let inside = AtomicBool::new(false);
    let looks = Arc::clone(&this);
    let foreign = Context::from_signal(err_is(move || {
        if let Some(this) = looks.get().filter(|_| !inside.swap(true, Ordering::SeqCst)) {
            assert!(!this.is_done() && !merge(this, source().0).is_done());
            assert!(this.with_cancel().1.cancel());
            assert!(poll(pin!(this.done()), &Counting::new()).is_pending());
            assert!(cancel_other.cancel_with("from within"));
            inside.store(false, Ordering::SeqCst);
            return Some(Error::cancelled().with_cause("theirs"));
        }
        None
    }));
    let ran = Arc::new(AtomicUsize::new(0));
    let add = adding(&ran);
    let on_done = other.on_done(move |_| add());
    assert!(this.set(merge(&foreign, source().0)).is_ok());
    let ctx = this.get().unwrap();
    assert_eq!((cause(ctx), cause(&other)), ("theirs".into(), "from within".into()));
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    drop(on_done);
}

/// Rule 7: panics of `deadline` and `done` come out of the calls that ask, which leave nothing behind.
#[tokio::test]
async fn a_panicking_deadline_or_done() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let state = OnDrop(adding(&dropped));
    let lost = Fake {
        deadline: || panic!("deadline"),
        ..err_is(move || {
            let _state = &state;
            None
        })
    };
    assert_eq!(panic_of(|| Context::from_signal(lost)), "deadline");
    assert_eq!(dropped.load(Ordering::SeqCst), 1);

    let ctx = merge(source().0, Context::from_signal(done_is(|| -> std::future::Ready<Error> { panic!("done") })));
    let (waker, token) = (Counting::new(), Arc::new(()));
    let held = Arc::clone(&token);
    assert_eq!(panic_of(|| ctx.on_done(move |_| drop(held))), "done");
    assert_eq!(panic_of(|| poll(pin!(ctx.done()), &waker)), "done");
    assert_eq!((Arc::strong_count(&waker), Arc::strong_count(&token)), (1, 1));
    assert!(!ctx.is_done());
}

/// Rule 7: a callback whose registration ends in a panic of `err` is not registered.
#[tokio::test]
async fn an_err_that_panics_after_the_registration() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let foreign = Context::from_signal(err_is(move || {
        assert!(counts.fetch_add(1, Ordering::SeqCst) < 1, "err");
        None
    }));
    let (root, canceller) = source();
    let ctx = merge(&root, &foreign);
    asked.store(0, Ordering::SeqCst);
    let token = Arc::new(());
    let held = Arc::clone(&token);
    assert_eq!(panic_of(|| ctx.on_done(move |_| drop(held))), "err");
    assert_eq!((asked.load(Ordering::SeqCst), Arc::strong_count(&token)), (2, 1));
    assert!(canceller.cancel());
}

/// Rules 7 and 17: futures of signals that panic when polled or dropped, alone and together, leave no waker behind.
#[test]
fn panicking_futures_of_signals() {
    let bad = || {
        Context::from_signal(done_is(|| {
            let state = OnDrop(|| panic!("drop"));
            let mut polls = 0;
            poll_fn(move |_| {
                let _state = &state;
                polls += 1;
                assert!(polls != 2, "poll");
                Poll::Pending
            })
        }))
    };
    let (root, canceller) = source();
    let (ways, _keep) = ways_to_see(&root);
    for ctx in &ways {
        let ctx = any_of([&bad(), ctx, &bad(), &bad()]);
        let waker = Counting::new();
        let mut done = Box::pin(ctx.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        assert_eq!(panic_of(|| poll(done.as_mut(), &waker)), "poll");
        assert!(!ctx.is_done() && poll(done.as_mut(), &waker).is_pending(), "begun anew, with new futures");
        assert_eq!(panic_of(|| drop(done)), "drop");
        assert_eq!(Arc::strong_count(&waker), 1);
        let mut done = Box::pin(ctx.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        let (child, cancel) = ctx.with_cancel();
        cancel.cancel();
        assert!(child.is_done());
        let mut parked = Box::pin(child.done_owned());
        assert!(poll(parked.as_mut(), &waker).is_ready());
        assert_eq!(panic_of(|| drop(done)), "drop");
    }
    let ctx = any_of([&bad(), &root, &bad()]);
    let waker = Counting::new();
    let mut done = Box::pin(ctx.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    canceller.cancel();
    assert_eq!((waker.woken(), ctx.is_done()), (1, true));
    let new = Counting::new();
    assert_eq!(panic_of(|| poll(done.as_mut(), &new)), "drop", "ready, but its parts panic when they go");
    assert!(poll(done.as_mut(), &new).is_ready());
}

/// Rules 7 and 19: signals that panic in the task of a callback do not keep the deadline or other signals from it.
#[tokio::test(start_paused = true)]
async fn panicking_signals_of_a_callback() {
    let bad = || Context::from_signal(done_is(|| poll_fn(|_| panic!("poll"))));
    let (bad_err, on) = panicking();
    let (tell, told) = futures::channel::oneshot::channel();
    let told = futures::FutureExt::shared(told);
    let good = Context::from_signal(done_is(move || futures::FutureExt::map(told.clone(), Result::unwrap)));
    let timed = any_of([&bad(), &bad_err, &bad()]).with_timeout(Duration::from_secs(1));
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    for ctx in [&timed, &any_of([&bad(), &good, &bad()])] {
        let send = send.clone();
        ctx.on_done(move |err| send.send(err.kind()).unwrap()).detach();
    }
    on.store(true, Ordering::SeqCst);
    tokio::task::yield_now().await;
    assert!(receive.try_recv().is_err());
    tell.send(Error::cancelled()).unwrap();
    assert_eq!(receive.recv().await, Some(ErrorKind::Cancelled));
    assert_eq!(receive.recv().await, Some(ErrorKind::DeadlineExceeded));
}

/// Rules 7 and 15: signals that panic when they are dropped, two in one context.
#[test]
fn signals_that_panic_when_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let bad = || {
        let dropped = Arc::clone(&dropped);
        let state = OnDrop(move || {
            dropped.fetch_add(1, Ordering::SeqCst);
            panic!("signal");
        });
        Context::from_signal(err_is(move || {
            let _state = &state;
            None
        }))
    };
    let ctx = any_of([bad(), bad(), bad()]);
    assert_eq!(panic_of(|| drop(ctx)), "signal");
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
}

/// Rule 17: wake-ups for nothing change nothing, and do not pile up.
#[test]
fn spurious_wake_ups() {
    let wakers = Arc::new(Mutex::new(Vec::new()));
    let registered = Arc::clone(&wakers);
    let foreign = Context::from_signal(done_is(move || {
        let registered = Arc::clone(&registered);
        poll_fn(move |cx| {
            cx.waker().wake_by_ref();
            *registered.lock().unwrap() = vec![cx.waker().clone()];
            Poll::Pending
        })
    }));
    let (root, canceller) = source();
    let ctx = merge(&foreign, &root);
    let waker = Counting::new();
    let mut done = Box::pin(ctx.done());
    for polls in 1..=100 {
        assert!(poll(done.as_mut(), &waker).is_pending());
        assert_eq!((waker.woken(), Arc::strong_count(&waker)), (polls, 4), "ours, the future's, the list's, theirs");
    }
    canceller.cancel();
    assert!(poll(done.as_mut(), &waker).is_ready());
    wakers.lock().unwrap().clear();
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// A relay does not stand for the signals above it: whatever is made of it has them too.
#[test]
fn signals_above_a_relay_stay_in_every_merge() {
    let happened = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&happened);
    let foreign = Context::from_signal(err_is(move || seen.load(Ordering::Relaxed).then(Error::cancelled)));
    let [(a, _keep_a), (b, _keep_b), (c, _keep_c)] = [(); 3].map(|()| source());
    let relay = merge(&foreign, &a).relay();
    let views = [merge(&relay, &b), merge(&b, &relay), any_of([&b, &c, &relay]), any_of([&relay, &b, &c])];
    assert!(!views.iter().any(Context::is_done));
    happened.store(true, Ordering::Relaxed);
    assert!(views.iter().all(Context::is_done));
}

/// A wait that has begun goes on without a runtime, also where the future of a signal panicked in between.
#[test]
fn a_wait_goes_on_without_a_runtime_after_a_panic_of_its_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let second_poll_panics = || {
        let mut polls = 0;
        std::future::poll_fn(move |_| {
            polls += 1;
            assert!(polls < 2, "done");
            Poll::<Error>::Pending
        })
    };
    let signal = Context::from_signal(done_is(second_poll_panics));
    let ctx = merge(signal, Context::background().with_timeout(Duration::from_secs(3600)));
    let mut done = pin!(ctx.done());
    let waker = Counting::new();
    let entered = runtime.enter();
    assert!(poll(done.as_mut(), &waker).is_pending());
    assert_eq!(panic_of(|| poll(done.as_mut(), &waker)), "done");
    drop(entered);
    assert!(poll(done.as_mut(), &waker).is_pending());
}
