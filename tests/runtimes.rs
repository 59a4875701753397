//! Runtimes that end, or that nobody drives: rules 15a, 17, 19 and 20.

mod support;

use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use context_merge::{Canceller, Context, Error, FutureExt as _, Signal, StreamExt as _, merge};
use futures::{FutureExt as _, StreamExt as _, stream};
use support::{Counting, adding, calling, panic_of, poll, poll_with, ways_to_see, within};
use tokio::runtime::{Builder, Runtime};

const HOUR: Duration = Duration::from_secs(3600);
/// Comes by itself, and leaves time for what has to happen before.
const SOON: Duration = Duration::from_millis(30);
/// Stands for never.
const PATIENCE: Duration = Duration::from_secs(10);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Driven, it is at the next deadline at once.
fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

type Wait = Pin<Box<dyn Future<Output = Error> + Send>>;

/// All that waits for the finish of a context.
fn waits(ctx: &Context) -> Vec<(&'static str, Wait)> {
    let [a, b, c] = [(); 3].map(|()| ctx.clone());
    vec![
        ("done_owned", Box::pin(ctx.done_owned())),
        ("done", Box::pin(async move { a.done().await })),
        ("run", Box::pin(async move { b.run(pending::<()>()).await.unwrap_err() })),
        ("sleep", Box::pin(async move { c.sleep(2 * HOUR).await.unwrap_err() })),
        ("with_context", Box::pin(pending::<()>().with_context(ctx).map(Result::unwrap_err))),
        ("stream", {
            let mut items = Box::pin(stream::pending::<()>().with_context(ctx));
            Box::pin(async move { items.next().await.unwrap().unwrap_err() })
        }),
    ]
}

/// Drives it on this thread, without a runtime.
fn outside<F: Future>(future: F) -> F::Output {
    let (mut future, thread) = (pin!(future), thread::current());
    let waker = calling(move || thread.unpark());
    loop {
        if let Poll::Ready(output) = poll_with(future.as_mut(), &waker) {
            return output;
        }
        thread::park();
    }
}

/// Polled once inside the runtime, which is not driven.
fn poll_in(runtime: &Runtime, wait: &mut Wait, waker: &Arc<Counting>) -> Poll<Error> {
    let _entered = runtime.enter();
    poll(wait.as_mut(), waker)
}

/// A context that `make` puts on a source of its own with a deadline that nobody has heard, though it has passed: what
/// `wait` has made before that, in time.
fn passed<T>(mut wait: impl FnMut(&Context) -> Option<T>) -> (Context, Canceller, T) {
    for _ in 0..100 {
        let (ctx, canceller) = Context::background().with_timeout(SOON).with_cancel();
        let Some(made) = wait(&ctx) else { continue };
        if !ctx.is_done() {
            thread::sleep(ctx.remaining().unwrap());
            assert!(ctx.is_done());
            return (ctx, canceller, made);
        }
    }
    panic!("never in time");
}

#[test]
fn a_wait_outlives_the_runtime_that_polled_it_first() {
    for at in 0..6 {
        let said = within(move || {
            let (first, second, waker) = (paused(), paused(), Counting::new());
            let ctx = Context::background().with_timeout(HOUR);
            let (name, mut wait) = waits(&ctx).swap_remove(at);
            assert!(poll_in(&first, &mut wait, &waker).is_pending(), "{name}");
            drop(first);
            assert!(poll_in(&second, &mut wait, &waker).is_pending(), "{name}");
            second.block_on(wait)
        });
        assert!(said.is_deadline_exceeded());
    }
}

#[test]
fn a_sleep_outlives_the_runtime_that_polled_it_first() {
    within(|| {
        let (first, second, waker) = (paused(), paused(), Counting::new());
        let (ctx, _canceller) = Context::background().with_cancel();
        let mut sleep = Box::pin(ctx.sleep(HOUR));
        {
            let _entered = first.enter();
            assert!(poll(sleep.as_mut(), &waker).is_pending());
        }
        drop(first);
        second.block_on(sleep).unwrap();
    });
}

#[test]
fn an_alarm_follows_to_the_runtime_that_polls_now() {
    for at in 0..6 {
        let said = within(move || {
            let (first, second, waker) = (paused(), paused(), Counting::new());
            let (name, mut wait) = waits(&Context::background().with_timeout(HOUR)).swap_remove(at);
            assert!(poll_in(&first, &mut wait, &waker).is_pending(), "{name}");
            let said = second.block_on(wait);
            drop(first);
            said
        });
        assert!(said.is_deadline_exceeded());
    }
}

/// Also where there is no other runtime to go to: then the timer thread rings.
#[test]
fn a_wait_that_has_begun_goes_on_outside_any_runtime() {
    for at in 0..6 {
        let said = within(move || {
            let (first, waker) = (runtime(), Counting::new());
            let (_, mut wait) = waits(&Context::background().with_timeout(SOON)).swap_remove(at);
            if let Poll::Ready(too_late) = poll_in(&first, &mut wait, &waker) {
                return too_late;
            }
            drop(first);
            outside(wait)
        });
        assert!(said.is_deadline_exceeded());
    }
    let ctx = Context::background().with_timeout(HOUR);
    assert!(panic_of(|| poll(pin!(ctx.done()), &Counting::new())).contains("needs a tokio runtime with time enabled"));
}

#[test]
fn a_wait_that_has_begun_goes_on_in_a_runtime_without_a_timer() {
    let said = within(|| {
        let (first, waker) = (runtime(), Counting::new());
        let (_, mut wait) = waits(&Context::background().with_timeout(SOON)).swap_remove(0);
        if let Poll::Ready(too_late) = poll_in(&first, &mut wait, &waker) {
            return too_late;
        }
        Builder::new_current_thread().build().unwrap().block_on(wait)
    });
    assert!(said.is_deadline_exceeded());
}

#[test]
fn a_wait_goes_on_in_a_runtime_that_ends_under_it() {
    for cancels in [false, true] {
        let said = within(move || {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
            let (ctx, canceller) = Context::background().with_cancel();
            let ctx = ctx.with_timeout(if cancels { HOUR } else { 3 * SOON });
            let handle = runtime.handle().clone();
            let (begun, begins) = mpsc::channel();
            let waiting = runtime.spawn_blocking(move || {
                let mut done = Box::pin(ctx.done());
                handle.block_on(std::future::poll_fn(|cx| {
                    let polled = done.as_mut().poll(cx);
                    let _ = begun.send(());
                    polled
                }))
            });
            begins.recv().unwrap();
            runtime.shutdown_background();
            // Either the shutdown wakes it, or the finish does.
            let _ = begins.recv_timeout(SOON);
            if cancels {
                canceller.cancel();
            }
            outside(waiting).unwrap()
        });
        assert_eq!(said.is_cancelled(), cancels);
    }
}

#[test]
fn a_cancel_after_the_deadline_wakes_whoever_still_waits() {
    for way in 0..3 {
        for at in 0..6 {
            let (runtime, waker) = (runtime(), Counting::new());
            let (ctx, canceller, (mut wait, _keep)) = passed(|ctx| {
                let (ways, keep) = ways_to_see(ctx);
                let (_, mut wait) = waits(&ways[way]).swap_remove(at);
                poll_in(&runtime, &mut wait, &waker).is_pending().then_some((wait, keep))
            });
            let before = waker.woken();
            assert!(!canceller.cancel_with("too late") && !canceller.is_cancelled());
            assert_eq!(waker.woken(), before + 1, "way {way}");
            let Poll::Ready(err) = poll_in(&runtime, &mut wait, &waker) else { panic!("finished, and told so") };
            assert!(err.is_deadline_exceeded() && err.cause().is_none());
            assert!(ctx.err().unwrap().is_deadline_exceeded());
        }
    }
}

#[test]
fn a_cancel_after_the_deadline_runs_the_callbacks() {
    for way in 0..3 {
        let runtime = runtime();
        let (send, receive) = mpsc::channel();
        let (_ctx, canceller, (on_done, _keep)) = passed(|ctx| {
            let (ways, keep) = ways_to_see(ctx);
            let send = send.clone();
            let _entered = runtime.enter();
            Some((ways[way].on_done(move |err| send.send((thread::current().id(), err.clone())).unwrap()), keep))
        });
        while receive.try_recv().is_ok() {}
        assert!(format!("{on_done:?}").contains("true"), "nobody drives the runtime");
        assert!(!canceller.cancel());
        let (on, err) = receive.try_recv().unwrap();
        assert!(err.is_deadline_exceeded() && on == thread::current().id());
        assert!(!canceller.cancel() && receive.try_recv().is_err() && !on_done.stop());
    }
}

/// A foreign cancellation whose future nobody polls.
#[derive(Default)]
struct Flag(Arc<AtomicBool>);

impl Signal for Flag {
    fn err(&self) -> Option<Error> {
        self.0.load(Ordering::SeqCst).then(|| Error::cancelled().with_cause("flag"))
    }

    fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
        Box::pin(pending())
    }
}

#[test]
fn a_cancel_after_a_signal_wakes_and_runs_all_that_wait() {
    let (flag, waker, ran) = (Flag::default(), Counting::new(), Arc::new(AtomicUsize::new(0)));
    let raised = Arc::clone(&flag.0);
    let (ctx, canceller) = Context::from_signal(flag).with_cancel();
    let mut done = Box::pin(ctx.done_owned());
    assert!(poll(done.as_mut(), &waker).is_pending());
    let runtime = runtime();
    let on_done = {
        let _entered = runtime.enter();
        let ran = adding(&ran);
        ctx.on_done(move |err| {
            assert_eq!(err.cause().unwrap().to_string(), "flag");
            ran();
        })
    };
    drop(runtime);
    raised.store(true, Ordering::SeqCst);
    assert!(!canceller.cancel());
    assert_eq!((waker.woken(), ran.load(Ordering::SeqCst)), (1, 1));
    assert!(matches!(poll(done.as_mut(), &waker), Poll::Ready(err) if err.cause().is_some()));
    assert!(!on_done.stop());
}

#[test]
fn callbacks_outlive_the_runtime_they_were_made_on() {
    let gone = runtime();
    let handle = gone.handle().clone();
    let (send, receive) = mpsc::channel();
    let register = |ctx: &Context, name: &'static str| {
        let _entered = handle.enter();
        let send = send.clone();
        ctx.on_done(move |err| send.send((name, err.clone())).unwrap())
    };
    let (root, canceller) = Context::background().with_cancel();
    let soon = merge(&root, Context::background().with_timeout(SOON));
    let later = root.with_timeout(HOUR);
    let kept = register(&soon, "kept");
    register(&soon, "detached").detach();
    let cancelled = register(&later, "cancelled");
    let stopped = register(&soon.with_timeout(SOON), "stopped");
    drop(gone);
    let after = register(&soon, "made after");
    // Where this comes too late, it has run.
    let was_stopped = stopped.stop();
    let mut names: Vec<_> = (0..3 + usize::from(!was_stopped))
        .map(|_| {
            let (name, err) = receive.recv_timeout(PATIENCE).expect("a callback");
            assert!(err.is_deadline_exceeded());
            name
        })
        .collect();
    names.retain(|name| *name != "stopped");
    names.sort_unstable();
    assert_eq!(names, ["detached", "kept", "made after"]);
    assert!(!kept.stop() && !after.stop());
    assert!(canceller.cancel());
    assert_eq!(receive.try_recv().unwrap().0, "cancelled");
    assert!(!cancelled.stop());
}

/// What a callback holds goes with it, from the timer thread too.
#[test]
fn callbacks_that_moved_let_go_of_what_they_hold() {
    let (held, gone) = (Arc::new(()), runtime());
    let (root, canceller) = Context::background().with_cancel();
    let register = |ctx: &Context| {
        let held = Arc::clone(&held);
        ctx.on_done(move |_| drop(held))
    };
    let registered = {
        let _entered = gone.enter();
        [HOUR, HOUR, HOUR].map(|after| register(&root.with_timeout(after)))
    };
    let on_this_thread = register(&root.with_timeout(HOUR));
    drop(gone);
    assert_eq!(Arc::strong_count(&held), 5);
    let [stopped, dropped, cancelled] = registered;
    assert!(stopped.stop());
    drop(dropped);
    assert!(on_this_thread.stop());
    assert_eq!(Arc::strong_count(&held), 2);
    cancelled.detach();
    canceller.cancel();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn callbacks_on_plain_threads_run_at_the_deadline() {
    let (send, receive) = mpsc::channel();
    let register = |ctx: &Context| {
        let send = send.clone();
        ctx.on_done(move |err| send.send(err.clone()).unwrap())
    };
    let ctx = Context::background().with_timeout(SOON);
    let kept = register(&ctx);
    register(&ctx.with_cancel().0.relay()).detach();
    let stopped = register(&Context::background().with_timeout(HOUR));
    drop(register(&Context::background().with_timeout(HOUR)));
    assert!(stopped.stop());
    for _ in 0..2 {
        assert!(receive.recv_timeout(PATIENCE).expect("a callback").is_deadline_exceeded());
    }
    assert!(!kept.stop());
    drop(send);
    assert!(receive.recv_timeout(PATIENCE).is_err(), "no other one");
}

/// Rule 7: the timer thread is everybody's.
#[test]
fn panics_do_not_end_the_timer_thread() {
    let ctx = Context::background().with_timeout(SOON);
    let (send, receive) = mpsc::channel();
    let panics = ctx.on_done(|_| panic!("a callback that panics, as it should here"));
    let waker = calling(|| panic!("a waker that panics, as it should here"));
    let (gone, ctx) = (runtime(), ctx.with_timeout(SOON));
    let mut done = pin!(ctx.done());
    let polled = {
        let _entered = gone.enter();
        poll(done.as_mut(), &Counting::new())
    };
    drop(gone);
    if polled.is_pending() {
        let _ = poll_with(done.as_mut(), &waker);
    }
    let after = Context::background().with_timeout(3 * SOON).on_done(move |_| send.send(()).unwrap());
    receive.recv_timeout(PATIENCE).expect("the next callback");
    drop((panics, after));
}

#[cfg(feature = "tokio-util")]
#[test]
fn tokens_outlive_the_runtime_they_were_made_on() {
    use context_merge::tokio_util::token;

    let gone = runtime();
    let (ctx, _canceller) = Context::background().with_timeout(SOON).with_cancel();
    let (made_before, _follows) = {
        let _entered = gone.enter();
        token(&ctx)
    };
    drop(gone);
    let (made_after, _follows_too) = token(&ctx);
    within(move || {
        outside(async {
            made_before.cancelled().await;
            made_after.cancelled().await;
        });
    });
}

/// Random programs over runtimes that are driven, ended, or left alone.
mod programs {
    use super::*;
    use context_merge::OnDone;
    use proptest::prelude::*;
    use tokio::runtime::Handle;
    use tokio::task::JoinHandle;

    const RUNTIMES: usize = 3;
    const FAMILIES: usize = 3;

    #[derive(Clone, Debug)]
    enum Op {
        /// Makes a waiter of some kind, on a context or on something over it.
        Wait {
            family: usize,
            way: usize,
            kind: usize,
        },
        /// Polls it once inside a runtime, which may have ended.
        Poll {
            waiter: usize,
            runtime: usize,
        },
        /// Gives it to a task.
        Spawn {
            waiter: usize,
            runtime: usize,
        },
        Drop {
            waiter: usize,
        },
        /// Registers a callback inside a runtime, which may have ended, or outside.
        Call {
            family: usize,
            way: usize,
            runtime: Option<usize>,
        },
        Stop {
            callback: usize,
        },
        Detach {
            callback: usize,
        },
        Drive {
            runtime: usize,
        },
        End {
            runtime: usize,
            waits: bool,
        },
        Cancel {
            family: usize,
        },
        /// Leaves the time until its deadline.
        Pass {
            family: usize,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        let (family, way, runtime, index) = (0..FAMILIES, 0..3_usize, 0..RUNTIMES, any::<usize>());
        prop_oneof![
            4 => (family.clone(), way.clone(), 0..6_usize)
                .prop_map(|(family, way, kind)| Op::Wait { family, way, kind }),
            8 => (index, runtime.clone()).prop_map(|(waiter, runtime)| Op::Poll { waiter, runtime }),
            2 => (index, runtime.clone()).prop_map(|(waiter, runtime)| Op::Spawn { waiter, runtime }),
            1 => index.prop_map(|waiter| Op::Drop { waiter }),
            4 => (family.clone(), way, prop::option::weighted(0.8, runtime.clone()))
                .prop_map(|(family, way, runtime)| Op::Call { family, way, runtime }),
            1 => index.prop_map(|callback| Op::Stop { callback }),
            1 => index.prop_map(|callback| Op::Detach { callback }),
            2 => runtime.clone().prop_map(|runtime| Op::Drive { runtime }),
            2 => (runtime, any::<bool>()).prop_map(|(runtime, waits)| Op::End { runtime, waits }),
            1 => family.clone().prop_map(|family| Op::Cancel { family }),
            1 => family.prop_map(|family| Op::Pass { family }),
        ]
    }

    /// A context with a canceller and maybe a deadline, and what is over it.
    struct Family {
        ways: [Context; 3],
        canceller: Canceller,
        _keep: Vec<Canceller>,
    }

    struct Waiter {
        family: usize,
        wait: Wait,
        waker: Arc<Counting>,
        /// How often it had been woken when it was polled last.
        polled_at: Option<usize>,
    }

    struct Called {
        on_done: Option<OnDone>,
        ran: Arc<AtomicUsize>,
        stopped: bool,
    }

    struct World {
        runtimes: Vec<Option<Runtime>>,
        handles: Vec<Handle>,
        families: Vec<Family>,
        waiters: Vec<Waiter>,
        tasks: Vec<JoinHandle<Error>>,
        callbacks: Vec<Called>,
    }

    impl World {
        fn new(timeouts: &[Option<u64>]) -> Self {
            let runtimes: Vec<_> = (0..RUNTIMES).map(|_| Some(runtime())).collect();
            let families = timeouts.iter().map(|millis| {
                let above = Context::background();
                let above = millis.map_or(above.clone(), |millis| above.with_timeout(Duration::from_millis(millis)));
                let (ctx, canceller) = above.with_cancel();
                let (ways, _keep) = ways_to_see(&ctx);
                Family { ways, canceller, _keep }
            });
            Self {
                handles: runtimes.iter().flatten().map(|runtime: &Runtime| runtime.handle().clone()).collect(),
                families: families.collect(),
                runtimes,
                waiters: Vec::new(),
                tasks: Vec::new(),
                callbacks: Vec::new(),
            }
        }

        fn apply(&mut self, op: Op) {
            match op {
                Op::Wait { family, way, kind } => {
                    let (_, wait) = waits(&self.families[family].ways[way]).swap_remove(kind);
                    self.waiters.push(Waiter { family, wait, waker: Counting::new(), polled_at: None });
                }
                Op::Poll { waiter, runtime } => {
                    let Some(at) = at(waiter, &self.waiters) else { return };
                    let _entered = self.handles[runtime].enter();
                    let waiter = &mut self.waiters[at];
                    waiter.polled_at = Some(waiter.waker.woken());
                    if let Poll::Ready(err) = poll(waiter.wait.as_mut(), &waiter.waker) {
                        self.told(at, &err);
                    }
                }
                Op::Spawn { waiter, runtime } => {
                    let (Some(at), Some(runtime)) = (at(waiter, &self.waiters), &self.runtimes[runtime]) else {
                        return;
                    };
                    self.tasks.push(runtime.spawn(self.waiters.swap_remove(at).wait));
                }
                Op::Drop { waiter } => {
                    if let Some(at) = at(waiter, &self.waiters) {
                        let Waiter { wait, waker, .. } = self.waiters.swap_remove(at);
                        drop(wait);
                        assert_eq!(Arc::strong_count(&waker), 1, "left behind");
                    }
                }
                Op::Call { family, way, runtime } => {
                    let ran = Arc::new(AtomicUsize::new(0));
                    let runs = adding(&ran);
                    let _entered = runtime.map(|runtime| self.handles[runtime].enter());
                    let on_done = self.families[family].ways[way].on_done(move |_| runs());
                    self.callbacks.push(Called { on_done: Some(on_done), ran, stopped: false });
                }
                Op::Stop { callback } => {
                    let Some(at) = at(callback, &self.callbacks) else { return };
                    let callback = &mut self.callbacks[at];
                    let Some(on_done) = callback.on_done.take() else { return };
                    callback.stopped = on_done.stop();
                }
                Op::Detach { callback } => {
                    let Some(at) = at(callback, &self.callbacks) else { return };
                    self.callbacks[at].on_done.take().into_iter().for_each(OnDone::detach);
                }
                Op::Drive { runtime } => {
                    if let Some(runtime) = &self.runtimes[runtime] {
                        runtime.block_on(tokio::task::yield_now());
                    }
                }
                Op::End { runtime, waits } => match self.runtimes[runtime].take() {
                    Some(runtime) if !waits => runtime.shutdown_background(),
                    ended => drop(ended),
                },
                Op::Cancel { family } => {
                    self.families[family].canceller.cancel();
                    for waiter in self.waiters.iter().filter(|waiter| waiter.family == family) {
                        let woken = waiter.polled_at.is_none_or(|polled_at| waiter.waker.woken() > polled_at);
                        assert!(woken, "nobody tells it of the finish");
                    }
                }
                Op::Pass { family } => {
                    if let Some(left) = self.families[family].ways[0].remaining() {
                        thread::sleep(left);
                    }
                }
            }
        }

        /// A waiter is through.
        fn told(&mut self, at: usize, err: &Error) {
            let waiter = self.waiters.swap_remove(at);
            let seen = self.families[waiter.family].ways[0].err().expect("finished");
            assert_eq!(err.kind(), seen.kind());
        }

        /// Everybody who waits is told by the deadline, where there is one.
        fn end(mut self, drives: bool) {
            for family in self.families.iter().filter(|family| family.ways[0].deadline().is_none()) {
                family.canceller.cancel();
            }
            let fresh = runtime();
            for waiter in std::mem::take(&mut self.waiters) {
                let err = fresh
                    .block_on(async { tokio::time::timeout(PATIENCE, waiter.wait).await })
                    .expect("a waiter that is polled");
                assert_eq!(err.kind(), self.families[waiter.family].ways[0].err().expect("finished").kind());
            }
            let mut live: Vec<_> = self.runtimes.into_iter().flatten().collect();
            if !drives {
                live.clear();
            }
            let callbacks = self.callbacks;
            let accounted = || callbacks.iter().all(|one| one.stopped || one.ran.load(Ordering::SeqCst) > 0);
            let until = std::time::Instant::now() + PATIENCE;
            while !(accounted() && (live.is_empty() || self.tasks.iter().all(JoinHandle::is_finished))) {
                assert!(std::time::Instant::now() < until, "a callback or a task that nobody runs");
                live.iter()
                    .for_each(|runtime| runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await }));
                thread::yield_now();
            }
            drop(live);
            for task in self.tasks {
                assert!(fresh.block_on(task).err().is_none_or(|ended| !ended.is_panic()));
            }
            for Called { on_done, ran, stopped } in callbacks {
                assert!(!on_done.is_some_and(OnDone::stop), "it has run");
                assert_eq!(ran.load(Ordering::SeqCst), usize::from(!stopped));
            }
        }
    }

    fn at<T>(index: usize, all: &[T]) -> Option<usize> {
        (!all.is_empty()).then(|| index % all.len())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_waiter_and_every_callback_is_accounted_for(
            timeouts in prop::collection::vec(prop::option::weighted(0.8, 0..8_u64), FAMILIES),
            ops in prop::collection::vec(op(), 1..60),
            drives in any::<bool>(),
        ) {
            let mut world = World::new(&timeouts);
            ops.into_iter().for_each(|op| world.apply(op));
            world.end(drives);
        }
    }
}
