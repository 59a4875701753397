//! The cases of Go's own context tests, on our contexts, and where ours differ from Go's by rule.
//!
//! Two of Go's cases have nothing to stand for here: `XTestWithValueChecksKey` (a key is a type, so that it can
//! always be compared) and `XTestInvalidDerivedFail` (there is no nil context). Callbacks and foreign contexts are in
//! `go_after_func.rs`.

mod support;

use std::io;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::Duration;

use context_merge::{Canceller, Context, Error, ErrorKind, any_of, merge};
use support::{Counting, allocations, bytes_held, calling, poll};
use tokio::time::{Instant, advance};

#[global_allocator]
static A: support::CountingAlloc = support::CountingAlloc;

const SHORT: Duration = Duration::from_millis(50);
const VERY_LONG: Duration = Duration::from_secs(1000 * 60 * 60);
const MILLI: Duration = Duration::from_millis(1);
/// Only reached where a wake-up is lost: then a test fails, and does not hang.
const LOST: Duration = Duration::from_secs(60);

/// Live, whichever way it is asked.
#[track_caller]
fn assert_live(ctx: &Context) {
    assert!(!ctx.is_done());
    assert!(ctx.err().is_none());
    assert!(ctx.check().is_ok());
    assert!(poll(pin!(ctx.done()), &Counting::new()).is_pending());
}

/// The error of a finished context, which is the same whichever way it is asked.
#[track_caller]
fn finished(ctx: &Context) -> Error {
    assert!(ctx.is_done());
    let err = ctx.err().expect("it is done");
    assert!(same(&err, &ctx.check().unwrap_err()));
    match poll(pin!(ctx.done()), &Counting::new()) {
        Poll::Ready(awaited) => assert!(same(&err, &awaited)),
        Poll::Pending => panic!("is_done, but done() is pending"),
    }
    err
}

/// Of one event: the cause is the same by pointer, not only by what it says.
fn same(a: &Error, b: &Error) -> bool {
    let cause = |err: &Error| err.cause().map(|cause| std::ptr::from_ref(cause).cast::<()>());
    a.kind() == b.kind() && a.origin() == b.origin() && cause(a) == cause(b)
}

fn cause_of(err: &Error) -> Option<String> {
    err.cause().map(ToString::to_string)
}

/// Go: XTestBackground.
#[test]
fn background() {
    let ctx = Context::background();
    assert_live(&ctx);
    assert_eq!(ctx.deadline(), None);
    assert_eq!(ctx.remaining(), None);
    assert_eq!(ctx.value::<&str>(), None);
    assert!(!format!("{ctx:?}").contains("todo"));
}

/// Go: XTestTODO.
#[test]
fn todo() {
    let ctx = Context::todo();
    assert_live(&ctx);
    assert!(format!("{ctx:?}").contains("todo"));
    // Go prints where a context was derived from; ours only says what is still to be passed in itself.
    assert!(!format!("{:?}", ctx.with_cancel().0).contains("todo"));
}

/// Go: XTestWithCancel. Unlike Go's, a cancel says whether it was the one.
#[test]
fn with_cancel() {
    let (first, canceller) = Context::background().with_cancel();
    let other = first.with_value("other");
    let (second, not_called) = other.with_cancel();
    let all = [first, other, second];
    all.iter().for_each(assert_live);

    assert!(canceller.cancel());
    let err = finished(&all[0]);
    assert!(err.is_cancelled());
    assert!(all.iter().all(|ctx| same(&finished(ctx), &err)));
    assert!(!canceller.cancel());
    assert!(!not_called.cancel());
    assert!(canceller.is_cancelled() && !not_called.is_cancelled());
}

/// Go: XTestWithCancel's contexts whose cancel is never called. Unlike Go's, losing the handles is no leak, and, as
/// there, no cancel.
#[test]
fn dropping_is_not_cancelling() {
    let (parent, canceller) = Context::background().with_cancel();
    let (child, child_canceller) = parent.with_cancel();
    let waker = Counting::new();
    let mut done = pin!(child.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    drop(child_canceller);
    drop(parent);
    assert_live(&child);
    assert_eq!(waker.woken(), 0);
    // What can still come is still waited for.
    assert!(canceller.cancel());
    assert_eq!(waker.woken(), 1);
    assert!(poll(done.as_mut(), &waker).is_ready());
    assert!(finished(&child).is_cancelled());
}

/// Go: XTestParentFinishesChild. Go looks at the parent's set of children; here only a waiter is ever registered.
#[tokio::test(start_paused = true)]
async fn parent_finishes_child() {
    let (parent, canceller) = Context::background().with_cancel();
    let (cancel_child, _stop) = parent.with_cancel();
    let value_child = parent.with_value("value");
    let timer_child = value_child.with_timeout(VERY_LONG);
    let family = [&parent, &cancel_child, &value_child, &timer_child];
    family.into_iter().for_each(assert_live);

    let wakers = family.map(|_| Counting::new());
    let mut waiting = family.map(|ctx| Box::pin(ctx.done()));
    for (done, waker) in waiting.iter_mut().zip(&wakers) {
        assert!(poll(done.as_mut(), waker).is_pending());
        assert!(Arc::strong_count(waker) > 1, "it is registered");
    }
    assert!(canceller.cancel_with("the parent"));
    let err = finished(&parent);
    for (done, waker) in waiting.iter_mut().zip(&wakers) {
        assert_eq!(waker.woken(), 1);
        assert!(poll(done.as_mut(), waker).is_ready());
        assert_eq!(Arc::strong_count(waker), 1, "nothing is registered after the finish");
    }
    for ctx in family {
        assert!(same(&finished(ctx), &err));
    }

    assert!(same(&finished(&parent.with_value("late")), &err), "finished at birth");
}

/// Go: XTestChildFinishesFirst.
#[test]
fn child_finishes_first() {
    let (cancellable, _stop) = Context::background().with_cancel();
    for parent in [Context::background(), cancellable] {
        let (child, canceller) = parent.with_cancel();
        assert_live(&parent);
        let waker = Counting::new();
        let mut done = pin!(child.done());
        assert!(poll(done.as_mut(), &waker).is_pending());

        assert!(canceller.cancel());
        assert!(finished(&child).is_cancelled());
        assert_eq!(waker.woken(), 1);
        assert!(poll(done.as_mut(), &waker).is_ready());
        assert_eq!(Arc::strong_count(&waker), 1, "the parent lives on, and has forgotten who waited for the child");
        assert_live(&parent);
    }
}

/// Go: XTestDeadline. Unlike Go's, no timer has to run: the instant alone finishes it.
#[tokio::test(start_paused = true)]
async fn deadline() {
    let at = Instant::now() + SHORT;
    let ctx = Context::background().with_deadline(at);
    assert_eq!(ctx.deadline(), Some(at));
    assert_eq!(ctx.remaining(), Some(SHORT));
    advance(SHORT - MILLI).await;
    assert_live(&ctx);
    // It counts from its instant, not from when it was laid on.
    assert_eq!(Context::background().with_deadline(at).remaining(), Some(MILLI));
    advance(MILLI).await;
    assert!(finished(&ctx).is_deadline_exceeded());
    assert_eq!(ctx.remaining(), Some(Duration::ZERO));
    assert_eq!(ctx.deadline(), Some(at), "it stays the same after the finish");
}

/// Go: XTestDeadline, the parts with a context between and with two deadlines.
#[tokio::test(start_paused = true)]
async fn deadline_of_parent_and_child() {
    let early = Instant::now() + SHORT;
    let late = Instant::now() + VERY_LONG;
    let (early_parent, _one) = Context::background().with_deadline(early).with_value("between").with_cancel();
    let (late_parent, _two) = Context::background().with_deadline(late).with_value("between").with_cancel();
    let children = [early_parent.with_deadline(late), late_parent.with_deadline(early)];
    for child in &children {
        assert_eq!(child.deadline(), Some(early));
        assert_live(child);
    }
    assert!(children[0].done().await.is_deadline_exceeded());
    let overshoot = Instant::now() - early;
    assert!(overshoot <= 2 * MILLI, "woken {overshoot:?} late");
    assert!(finished(&children[1]).is_deadline_exceeded());
    assert!(finished(&early_parent).is_deadline_exceeded());
    assert_live(&late_parent);
}

/// Go: XTestDeadline, in the past and now.
#[tokio::test(start_paused = true)]
async fn deadline_in_the_past_and_now() {
    advance(SHORT).await;
    for at in [Instant::now() - MILLI, Instant::now()] {
        let (ctx, canceller) = Context::background().with_deadline(at).with_cancel();
        assert!(finished(&ctx).is_deadline_exceeded());
        assert_eq!(ctx.deadline(), Some(at));
        assert!(!canceller.cancel(), "finished at birth");
    }
}

/// Go: XTestTimeout.
#[tokio::test(start_paused = true)]
async fn timeout() {
    let start = Instant::now();
    let plain = Context::background().with_timeout(SHORT);
    let below = plain.with_value("between").with_timeout(VERY_LONG);
    assert_eq!(below.deadline(), Some(start + SHORT));
    assert_live(&below);
    assert!(below.done().await.is_deadline_exceeded());
    assert!(Instant::now() >= start + SHORT);
    assert!(finished(&plain).is_deadline_exceeded());
    // Beyond what Go's durations can say.
    assert_eq!(Context::background().with_timeout(Duration::MAX).deadline(), None);
    assert!(finished(&Context::background().with_timeout(Duration::ZERO)).is_deadline_exceeded());
}

/// Go: XTestCanceledTimeout. A timeout has no cancel of its own here; `with_cancel` gives it one.
#[tokio::test(start_paused = true)]
async fn cancelled_timeout() {
    let parent = Context::background().with_timeout(SHORT);
    let (child, canceller) = parent.with_value("between").with_timeout(VERY_LONG).with_cancel();
    assert!(canceller.cancel());
    assert!(finished(&child).is_cancelled());
    assert_live(&parent);
    advance(VERY_LONG).await;
    assert!(finished(&child).is_cancelled(), "the first stays");
    assert!(finished(&parent).is_deadline_exceeded());
}

#[derive(Debug, PartialEq)]
struct First(&'static str);
#[derive(Debug, PartialEq)]
struct Second(&'static str);

/// Go: XTestValues. A key is a type here: two types that hold the same are two keys, and two values of one type are
/// one key, of which the nearest wins; where Go hides a value with nil, ours hides it with another of its type.
#[test]
fn values() {
    #[track_caller]
    fn check(ctx: &Context, first: Option<&'static str>, second: Option<&'static str>) {
        assert_eq!(ctx.value::<First>(), first.map(First).as_ref());
        assert_eq!(ctx.value::<Second>(), second.map(Second).as_ref());
    }
    let background = Context::background();
    check(&background, None, None);
    let one = background.with_value(First("same"));
    check(&one, Some("same"), None);
    let two = one.with_value(Second("same"));
    check(&two, Some("same"), Some("same"));
    let three = two.with_value(Second("nearer"));
    check(&three, Some("same"), Some("nearer"));
    let four = three.with_value(First(""));
    check(&four, Some(""), Some("nearer"));
    check(&one, Some("same"), None);

    // Go's contexts that are not its own: whatever lies between lets values through.
    let between = three.with_timeout(VERY_LONG).named("between").with_cancel().0.relay();
    check(&between, Some("same"), Some("nearer"));
    check(&between.with_value(First("below")), Some("below"), Some("nearer"));
}

/// Go: XTestValues. Where contexts merge, which Go's cannot, values come from the primary alone.
#[test]
fn values_of_the_primary() {
    let primary = Context::background().with_value(First("primary"));
    let other = Context::background().with_value(First("other")).with_value(Second("other"));
    for ctx in [merge(&primary, &other), any_of([&primary, &other]), other.with_values_of(&primary)] {
        assert_eq!(ctx.value(), Some(&First("primary")));
        assert_eq!(ctx.value::<Second>(), None);
    }
}

/// Go: XTestAllocs, with ceilings of ours.
#[test]
fn allocs() {
    type Case<'a> = (&'static str, usize, Box<dyn Fn() + 'a>);
    let background = Context::background();
    let (live, _canceller) = background.with_timeout(VERY_LONG).with_value(1_u8).with_cancel();
    let (done, canceller) = live.with_cancel();
    canceller.cancel_with("because");
    let eight: Vec<_> = (0..8).map(|_| background.with_cancel()).collect();

    let look = |ctx: &Context| {
        let _ = (ctx.is_done(), ctx.err(), ctx.check(), ctx.deadline(), ctx.remaining(), ctx.clone());
        assert_eq!(ctx.value::<u8>(), Some(&1));
    };
    let cases: [Case<'_>; 14] = [
        ("background", 0, Box::new(|| drop(Context::background()))),
        ("look at a live one", 0, Box::new(|| look(&live))),
        ("look at a finished one", 0, Box::new(|| look(&done))),
        ("with_value", 1, Box::new(|| drop(background.with_value(7_u64)))),
        ("with_timeout", 1, Box::new(|| drop(background.with_timeout(VERY_LONG)))),
        ("with_timeout of none", 1, Box::new(|| assert!(background.with_timeout(Duration::ZERO).is_done()))),
        ("with_timeout, later", 0, Box::new(|| drop(live.with_timeout(2 * VERY_LONG)))),
        ("with_cancel", 1, Box::new(|| drop(live.with_cancel()))),
        ("with_cancel of a finished one", 0, Box::new(|| drop(done.with_cancel()))),
        (
            "with_cancel, cancel, look",
            1,
            Box::new(|| {
                let (ctx, canceller) = background.with_cancel();
                assert!(canceller.cancel() && ctx.is_done() && ctx.err().is_some());
            }),
        ),
        ("merge", 1, Box::new(|| drop(merge(&live, &eight[0].0)))),
        ("merge that is an input", 0, Box::new(|| drop(merge(&live, &background)))),
        ("any_of eight", 2, Box::new(|| drop(any_of(eight.iter().map(|(ctx, _)| ctx))))),
        ("without_cancel", 0, Box::new(|| drop(live.without_cancel()))),
    ];
    for (name, most, case) in &cases {
        case();
        let ((), made) = allocations(|| (0..100).for_each(|_| case()));
        assert!(made <= most * 100, "{name}: {made} allocations in 100 runs, want at most {most} for each");
    }
}

/// Go: XTestSimultaneousCancels. Go asks that all finish; here all have to tell one story, too.
#[test]
fn simultaneous_cancels() {
    for seed in 0..16 {
        // A tree, four children to each: the index of the parent, and the context.
        let mut tree = vec![(0, Context::background().with_cancel())];
        for parent in 0..25 {
            for _ in 0..4 {
                let child = tree[parent].1.0.with_cancel();
                tree.push((parent, child));
            }
        }
        let order = Random(seed).shuffled(tree.len());
        let shares: Vec<_> = order.chunks(tree.len().div_ceil(8)).collect();
        let start = Barrier::new(shares.len() + 1);
        let cancel = |node: usize| tree[node].1.1.cancel_with(node.to_string());
        let firsts: usize = thread::scope(|scope| {
            let (start, cancel) = (&start, &cancel);
            let threads: Vec<_> = shares
                .iter()
                .map(|share| {
                    scope.spawn(move || {
                        start.wait();
                        share.iter().filter(|&&node| cancel(node)).count()
                    })
                })
                .collect();
            start.wait();
            for &node in order.iter().rev() {
                assert!(tree[node].1.0.wait_timeout(LOST).is_some(), "seed {seed}: node {node} was never woken");
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });

        let first_of = |node: usize| -> usize { cause_of(&finished(&tree[node].1.0)).unwrap().parse().unwrap() };
        for (node, (parent, (_, canceller))) in tree.iter().enumerate() {
            let first = first_of(node);
            assert!(first == node || first == first_of(*parent), "seed {seed}: {node} says {first}, unlike its parent");
            assert_eq!(canceller.is_cancelled(), first == node, "seed {seed}: {node}");
        }
        assert_eq!(firsts, tree.iter().filter(|(_, (_, canceller))| canceller.is_cancelled()).count(), "seed {seed}");
    }
}

/// Go: XTestInterlockedCancels.
#[test]
fn interlocked_cancels() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            parent.wait_timeout(LOST).expect("the parent was cancelled");
            cancel_child.cancel()
        });
        assert!(cancel_parent.cancel());
        child.wait_timeout(LOST).expect("the parent was cancelled");
        assert!(!waiting.join().unwrap(), "the parent was first");
    });
}

/// Go: XTestInterlockedCancels, from tasks that wait on each other.
#[tokio::test]
async fn interlocked_cancels_of_tasks() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    let up = tokio::spawn({
        let (child, cancel_parent) = (child.clone(), cancel_parent.clone());
        async move { (child.done().await, cancel_parent.cancel_with("up")) }
    });
    let down = tokio::spawn({
        let (parent, cancel_child) = (parent.clone(), cancel_child.clone());
        async move { (parent.done().await, cancel_child.cancel_with("down")) }
    });
    tokio::task::yield_now().await;
    assert!(cancel_child.cancel_with("start"));
    let (of_child, first) = up.await.unwrap();
    assert_eq!((cause_of(&of_child).as_deref(), first), (Some("start"), true));
    let (of_parent, first) = down.await.unwrap();
    assert_eq!((cause_of(&of_parent).as_deref(), first), (Some("up"), false));
}

/// Go: XTestInterlockedCancels, from wakers: each cancels what woke it, and what that stands on.
#[test]
fn interlocked_cancels_in_wakers() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    let waker = calling({
        let both = [cancel_child.clone(), cancel_parent];
        move || both.iter().for_each(|canceller| _ = canceller.cancel_with("from a waker"))
    });
    let (mut of_parent, mut of_child) = (pin!(parent.done()), pin!(child.done()));
    let mut cx = TaskContext::from_waker(&waker);
    assert!(of_parent.as_mut().poll(&mut cx).is_pending());
    assert!(of_child.as_mut().poll(&mut cx).is_pending());

    assert!(cancel_child.cancel_with("start"));
    assert_eq!(cause_of(&finished(&child)).as_deref(), Some("start"));
    assert_eq!(cause_of(&finished(&parent)).as_deref(), Some("from a waker"));
    assert!(of_parent.as_mut().poll(&mut cx).is_ready() && of_child.as_mut().poll(&mut cx).is_ready());
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((bits ^ (bits >> 31)) % end as u64).unwrap()
    }

    fn shuffled(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// A value in one of the layers; each `KEY` is a key of its own.
#[derive(Debug, PartialEq)]
struct Layer<const KEY: usize>(usize);

/// At least thirty layers, each kind of them among them.
#[derive(Default)]
struct Layers {
    contexts: Vec<Context>,
    /// With the layer that each cancels.
    cancellers: Vec<(usize, Canceller)>,
    /// The nearest value of each key.
    values: [Option<usize>; 3],
}

impl Layers {
    fn build(random: &mut Random, timeout: impl Fn(&mut Random) -> Duration) -> Layers {
        let (mut layers, mut ctx, mut timers) = (Layers::default(), Context::background(), 0);
        let complete = |layers: &Layers, timers| {
            layers.contexts.len() >= 30 && timers > 0 && !layers.cancellers.is_empty() && layers.values != [None; 3]
        };
        while !complete(&layers, timers) {
            let layer = layers.contexts.len();
            ctx = match random.below(3) {
                0 => {
                    let key = random.below(3);
                    layers.values[key] = Some(layer);
                    match key {
                        0 => ctx.with_value(Layer::<0>(layer)),
                        1 => ctx.with_value(Layer::<1>(layer)),
                        _ => ctx.with_value(Layer::<2>(layer)),
                    }
                }
                1 => {
                    let (child, canceller) = ctx.with_cancel();
                    layers.cancellers.push((layer, canceller));
                    child
                }
                _ => {
                    timers += 1;
                    ctx.with_timeout(timeout(random))
                }
            };
            layers.contexts.push(ctx.clone());
        }
        layers
    }

    fn innermost(&self) -> &Context {
        self.contexts.last().unwrap()
    }

    #[track_caller]
    fn check_values(&self, seed: u64) {
        let ctx = self.innermost();
        let found = [
            ctx.value::<Layer<0>>().map(|layer| layer.0),
            ctx.value::<Layer<1>>().map(|layer| layer.0),
            ctx.value::<Layer<2>>().map(|layer| layer.0),
        ];
        assert_eq!(found, self.values, "seed {seed}");
    }
}

/// Go: XTestLayersCancel. In Go the innermost is looked at; here also what lies above the cancel, which must not see
/// it, and what lies below, which must.
#[tokio::test(start_paused = true)]
async fn layers_cancel() {
    for seed in 0..64 {
        let mut random = Random(seed);
        let layers = Layers::build(&mut random, |_| VERY_LONG);
        assert!(!layers.innermost().is_done(), "seed {seed}");
        layers.check_values(seed);
        let waker = Counting::new();
        let mut done = pin!(layers.innermost().done());
        assert!(poll(done.as_mut(), &waker).is_pending(), "seed {seed}");

        let (layer, canceller) = &layers.cancellers[random.below(layers.cancellers.len())];
        assert!(canceller.cancel_with("layer"), "seed {seed}");
        for (index, ctx) in layers.contexts.iter().enumerate() {
            assert_eq!(ctx.is_done(), index >= *layer, "seed {seed}: layer {index}, cancelled was {layer}");
        }
        assert_eq!(cause_of(&layers.innermost().err().unwrap()).as_deref(), Some("layer"), "seed {seed}");
        assert!(waker.woken() > 0, "seed {seed}: nobody woke the one who waits");
        assert!(poll(done.as_mut(), &waker).is_ready(), "seed {seed}");
        assert_eq!(Arc::strong_count(&waker), 1, "seed {seed}: still registered");
        layers.check_values(seed);
    }
}

/// Go: XTestLayersTimeout.
#[tokio::test(start_paused = true)]
async fn layers_timeout() {
    for seed in 0..64 {
        let start = Instant::now();
        let layers = Layers::build(&mut Random(seed), |random| MILLI * u32::try_from(10 + random.below(90)).unwrap());
        let deadlines: Vec<_> = layers.contexts.iter().map(Context::deadline).collect();
        let first = deadlines.iter().flatten().min().copied().unwrap();
        assert_eq!(layers.innermost().deadline(), Some(first), "seed {seed}: deadlines only get earlier");
        layers.check_values(seed);

        advance(first - start - MILLI).await;
        assert!(!layers.innermost().is_done(), "seed {seed}");
        advance(MILLI).await;
        for (index, (ctx, deadline)) in layers.contexts.iter().zip(&deadlines).enumerate() {
            assert_eq!(ctx.is_done(), *deadline == Some(first), "seed {seed}: layer {index}");
        }
        assert!(finished(layers.innermost()).is_deadline_exceeded(), "seed {seed}");
        layers.check_values(seed);
    }
}

/// Go: XTestCancelRemoves. Go counts a parent's children; ours has none, so what counts is who still waits.
#[tokio::test(start_paused = true)]
async fn cancel_removes() {
    let (parent, _canceller) = Context::background().with_cancel();
    for child in [parent.clone(), parent.with_timeout(VERY_LONG)] {
        let (child, canceller) = child.with_cancel();
        let (waker, held) = (Counting::new(), Arc::new(()));
        let mut done = pin!(child.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        let on_done = child.on_done({
            let held = Arc::clone(&held);
            move |_| drop(held)
        });
        assert!(Arc::strong_count(&waker) > 1 && Arc::strong_count(&held) == 2, "both are registered");

        assert!(canceller.cancel());
        assert!(poll(done.as_mut(), &waker).is_ready());
        assert_eq!(Arc::strong_count(&waker), 1);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(!on_done.stop());
    }
    assert_live(&parent);
}

/// Go: XTestCancelRemoves. Go's child stays with its parent until it is cancelled; ours only has to be dropped.
#[test]
fn dropping_removes() {
    let (parent, _canceller) = Context::background().with_cancel();
    let waker = Counting::new();
    let once = || {
        let (child, _canceller) = parent.with_cancel();
        assert!(poll(pin!(child.done()), &waker).is_pending());
        drop(child.with_timeout(VERY_LONG));
    };
    // The parent's list of waiters is made for the first one, and stays.
    once();
    let before = bytes_held();
    (0..1000).for_each(|_| once());
    assert_eq!(bytes_held(), before);
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Go: XTestWithCancelCanceledParent.
#[test]
fn with_cancel_on_cancelled_parent() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    assert!(cancel_parent.cancel_with("because"));
    let (child, canceller) = parent.with_cancel();
    let err = finished(&child);
    assert!(err.is_cancelled());
    assert_eq!(cause_of(&err).as_deref(), Some("because"));
    assert!(same(&err, &finished(&parent)));
    assert!(!canceller.cancel_with("too late") && !canceller.is_cancelled());
    assert!(same(&err, &finished(&child)));
}

/// Go: TestWithCancelSimultaneouslyCanceledParent.
#[test]
fn with_cancel_on_parent_being_cancelled() {
    for round in 0..100 {
        let (parent, canceller) = Context::background().with_cancel();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                canceller.cancel_with("because");
            });
            start.wait();
            let (child, _child_canceller) = parent.with_cancel();
            let err = child.wait_timeout(LOST).unwrap_or_else(|| panic!("round {round}: never woken"));
            assert!(same(&err, &finished(&parent)), "round {round}");
            assert_eq!(cause_of(&err).as_deref(), Some("because"), "round {round}");
        });
    }
}

/// Go: XTestDeadlineExceededSupportsTimeout.
#[test]
fn deadline_exceeded_is_a_timeout() {
    let err = finished(&Context::background().with_timeout_cause(Duration::ZERO, "too slow"));
    let err = io::Error::from(err);
    assert_eq!(err.kind(), io::ErrorKind::TimedOut);
    let inner: &Error = err.get_ref().unwrap().downcast_ref().expect("ours is inside");
    assert_eq!(cause_of(inner).as_deref(), Some("too slow"));

    // A cancel is no timeout; and not `Interrupted`, which callers retry.
    assert_eq!(io::Error::from(Error::cancelled()).kind(), io::ErrorKind::Other);
}

/// Go: XTestCause, case by case. In Go the cause of an error without one is the error itself; here it is none.
#[test]
fn cause() {
    type Finish = Option<(ErrorKind, Option<&'static str>)>;
    type Case = (&'static str, fn() -> Context, Finish);
    const LIVE: Finish = None;
    const CANCELLED: Finish = Some((ErrorKind::Cancelled, None));
    const EXCEEDED: Finish = Some((ErrorKind::DeadlineExceeded, None));
    const TOO_SLOW: Finish = Some((ErrorKind::DeadlineExceeded, Some("too slow")));
    const fn cancelled(cause: &'static str) -> Finish {
        Some((ErrorKind::Cancelled, Some(cause)))
    }
    /// A child with a cancel of its own, after `act`.
    fn below(parent: Context, act: fn(&Canceller) -> bool) -> Context {
        let (ctx, canceller) = parent.with_cancel();
        let _ = act(&canceller);
        ctx
    }
    fn root(act: fn(&Canceller) -> bool) -> Context {
        below(Context::background(), act)
    }
    /// The child, after `act` with the canceller of the parent and its own.
    fn child(act: fn(&Canceller, &Canceller) -> (bool, bool)) -> Context {
        let (parent, of_parent) = Context::background().with_cancel();
        let (child, of_child) = parent.with_cancel();
        let _ = act(&of_parent, &of_child);
        child
    }
    fn timed(after: Duration) -> Context {
        Context::background().with_timeout(after)
    }
    fn timed_cause(after: Duration) -> Context {
        Context::background().with_timeout_cause(after, "too slow")
    }
    /// A timeout below a cancel that comes after it was laid on.
    fn stacked(after: Duration) -> Context {
        let (parent, canceller) = Context::background().with_cancel();
        let ctx = parent.with_timeout_cause(after, "too slow");
        assert!(canceller.cancel_with("early"), "the timeout is not the parent's");
        ctx
    }
    fn detached_then_cancelled() -> Context {
        let (parent, canceller) = Context::background().with_cancel();
        let ctx = parent.without_cancel();
        assert!(canceller.cancel_with("early"));
        ctx
    }
    const ZERO: Duration = Duration::ZERO;
    let cases: [Case; 21] = [
        ("Background", Context::background, LIVE),
        ("TODO", Context::todo, LIVE),
        ("WithCancel", || root(Canceller::cancel), CANCELLED),
        ("WithCancelCause", || root(|it| it.cancel_with("parent")), cancelled("parent")),
        // There is no nil to give as a cause: a cancel without one says the same.
        ("WithCancelCause nil", || root(Canceller::cancel), CANCELLED),
        // Not among Go's: one canceller, which keeps its first cause.
        ("cancelled twice", || root(|it| it.cancel_with("first") & it.cancel_with("second")), cancelled("first")),
        ("parent cause before child", || child(|p, c| (p.cancel_with("p"), c.cancel_with("c"))), cancelled("p")),
        ("parent cause after child", || child(|p, c| (c.cancel_with("c"), p.cancel_with("p"))), cancelled("c")),
        ("parent cause before nil", || child(|p, c| (p.cancel_with("p"), c.cancel())), cancelled("p")),
        ("parent cause after nil", || child(|p, c| (c.cancel(), p.cancel_with("p"))), CANCELLED),
        ("child cause after nil", || child(|p, c| (p.cancel(), c.cancel_with("c"))), CANCELLED),
        ("child cause before nil", || child(|p, c| (c.cancel_with("c"), p.cancel())), cancelled("c")),
        ("WithTimeout", || below(timed(ZERO), Canceller::cancel), EXCEEDED),
        ("WithTimeout canceled", || below(timed(VERY_LONG), Canceller::cancel), CANCELLED),
        ("WithTimeoutCause", || below(timed_cause(ZERO), Canceller::cancel), TOO_SLOW),
        ("WithTimeoutCause canceled", || below(timed_cause(VERY_LONG), Canceller::cancel), CANCELLED),
        ("WithTimeoutCause stacked", || stacked(ZERO), TOO_SLOW),
        ("WithTimeoutCause stacked canceled", || stacked(VERY_LONG), cancelled("early")),
        ("WithoutCancel", || Context::background().without_cancel(), LIVE),
        ("WithoutCancel canceled", detached_then_cancelled, LIVE),
        ("WithoutCancel timeout", || timed_cause(ZERO).without_cancel(), LIVE),
    ];
    for (name, make, want) in cases {
        let err = make().err();
        let found = err.as_ref().map(|err| (err.kind(), cause_of(err)));
        assert_eq!(found, want.map(|(kind, cause)| (kind, cause.map(str::to_owned))), "{name}");
    }
}

/// Go: XTestCauseRace.
#[test]
fn cause_race() {
    for round in 0..100 {
        let (ctx, canceller) = Context::background().with_cancel();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                canceller.cancel_with("raced for");
            });
            start.wait();
            // Looked at, not waited for: an error that can be seen has its cause.
            let err = loop {
                match ctx.err() {
                    Some(err) => break err,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(cause_of(&err).as_deref(), Some("raced for"), "round {round}");
        });
    }
}

/// Go: XTestWithoutCancel.
#[test]
fn without_cancel() {
    let (parent, canceller) = Context::background().with_timeout(VERY_LONG).with_value("value").with_cancel();
    let before = parent.without_cancel();
    assert!(canceller.cancel());
    for ctx in [before, parent.without_cancel()] {
        assert_live(&ctx);
        assert_eq!(ctx.deadline(), None);
        assert_eq!(ctx.value::<&str>(), Some(&"value"));
        // It is a root like any other.
        let (child, canceller) = ctx.with_cancel();
        assert!(canceller.cancel() && child.is_done());
        assert_live(&ctx);
    }
}
