//! Rules 8 to 16: what derived and merged contexts are.

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use context_merge::{Context, Error, any_of, merge};
use futures::FutureExt as _;
use support::{Counting, poll};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn cause_pointer(err: &Error) -> *const () {
    std::ptr::from_ref(err.cause().unwrap()).cast()
}

fn finished(cause: &'static str) -> Context {
    let (ctx, canceller) = Context::background().with_cancel();
    assert!(canceller.cancel_with(cause));
    ctx
}

fn live() -> Context {
    Context::background().with_cancel().0
}

/// Rule 8: finished at birth, with the same cause by pointer, also where a deadline in the past is laid on it.
#[tokio::test(start_paused = true)]
async fn children_of_a_finished_context_are_finished_at_birth() {
    let past = Instant::now();
    advance(SECOND).await;
    let ctx = finished("first");
    let children = [
        ctx.with_cancel().0,
        ctx.with_deadline(past),
        ctx.with_deadline_cause(past, "not this"),
        ctx.with_timeout(Duration::ZERO),
        ctx.with_timeout(SECOND),
        ctx.with_value(1),
        ctx.relay(),
        ctx.named("late"),
        merge(&ctx, live()),
        merge(live(), ctx.with_deadline(past)),
        any_of([&live(), &ctx, &live()]),
    ];
    for child in &children {
        let err = child.err().expect("finished at birth");
        assert!(err.is_cancelled());
        assert_eq!(cause_pointer(&err), cause_pointer(&ctx.err().unwrap()));
    }
    assert_eq!(children[1].deadline(), Some(past), "the deadline is there all the same");
}

/// Rule 8: the same where nobody has looked since the parent's deadline.
#[tokio::test(start_paused = true)]
async fn children_of_a_context_past_its_deadline_are_finished_at_birth() {
    let past = Instant::now();
    let derive: [&dyn Fn(&Context) -> Context; 8] = [
        &|ctx| ctx.with_cancel().0,
        &|ctx| ctx.with_deadline(past),
        &|ctx| ctx.with_deadline_cause(past, "not this"),
        &|ctx| ctx.with_cancel().0.with_timeout(Duration::ZERO),
        &|ctx| ctx.named("late").relay(),
        &|ctx| merge(ctx, live()).with_deadline(past),
        &|ctx| merge(ctx.with_cancel().0.named("late"), live()),
        &|ctx| any_of([&live(), ctx, &live()]),
    ];
    let parents = derive.map(|_| Context::background().with_timeout_cause(SECOND, "deadline"));
    advance(2 * SECOND).await;
    for (derive, parent) in derive.iter().zip(&parents) {
        let err = derive(parent).err().expect("finished at birth");
        assert!(err.is_deadline_exceeded());
        assert_eq!(cause_pointer(&err), cause_pointer(&parent.err().unwrap()));
    }
}

/// Rule 8: of several finished inputs the earliest, whatever their order.
#[tokio::test(start_paused = true)]
async fn a_merge_of_finished_contexts_has_the_earliest_error() {
    let (a, b) = (finished("a"), finished("b"));
    let deadline = Context::background().with_timeout_cause(SECOND, "deadline");
    advance(SECOND).await;
    let c = finished("c");
    for inputs in [[&a, &b, &c, &deadline], [&deadline, &c, &b, &a]] {
        assert_eq!(any_of(inputs).err().unwrap().cause().unwrap().to_string(), "a");
    }
    assert_eq!(merge(&c, &deadline).err().unwrap().cause().unwrap().to_string(), "deadline");
}

/// Rule 8 for deadlines from long before the first context was made.
#[test]
fn a_merge_of_old_deadlines_has_the_earliest() {
    let minutes_ago =
        |minutes| Instant::now().checked_sub(SECOND * 60 * minutes).expect("an instant before the process's");
    let old = |minutes, cause: &'static str| Context::background().with_deadline_cause(minutes_ago(minutes), cause);
    for inputs in [[old(1, "later"), old(2, "earlier")], [old(2, "earlier"), old(1, "later")]] {
        assert_eq!(any_of(&inputs).err().unwrap().cause().unwrap().to_string(), "earlier");
        assert!(inputs.iter().all(Context::is_done), "and once they have been seen to be finished");
        assert_eq!(any_of(&inputs).err().unwrap().cause().unwrap().to_string(), "earlier");
    }
}

/// Rules 2 and 8: inputs that finish while they are collected are told in their own order.
#[tokio::test(start_paused = true)]
async fn inputs_that_finish_while_they_are_collected() {
    let (a, cancel_a) = Context::background().named("a").with_cancel();
    let (b, cancel_b) = Context::background().named("b").with_cancel();
    let before = merge(&a, &b);
    let collected = any_of([a.clone(), live()].into_iter().chain(std::iter::once_with(|| {
        cancel_a.cancel_with("a");
        cancel_b.cancel_with("b");
        b.clone()
    })));
    for ctx in [&before, &collected] {
        let err = ctx.err().unwrap();
        assert_eq!((err.origin(), err.cause().unwrap().to_string().as_str()), (Some("a"), "a"));
    }
}

/// Rule 1: a crowd is done though what finished it was live when it was taken.
#[test]
fn a_crowd_of_which_one_finishes_while_it_is_collected() {
    let (ctx, canceller) = Context::background().with_cancel();
    let crowd = any_of(std::iter::once(ctx).chain((0..9).map(|_| {
        canceller.cancel();
        live()
    })));
    assert!(crowd.is_done());
    assert!(crowd.done().now_or_never().is_some());
}

/// Rule 2: of equal deadlines the earlier argument's, though it was live when it was taken.
#[tokio::test(start_paused = true)]
async fn inputs_that_finish_at_one_instant_while_they_are_collected() {
    let at = Instant::now() + SECOND;
    let limit = |name: &str| Context::background().named(name).with_deadline(at);
    let by_deadline = any_of(std::iter::once(limit("x")).chain(std::iter::once_with(|| {
        let _ = advance(SECOND).now_or_never();
        limit("y")
    })));
    assert_eq!(by_deadline.err().unwrap().origin(), Some("x"));
}

/// Rule 9.
#[test]
fn identities_and_duplicates() {
    let a = live();
    assert!(!any_of(Vec::<Context>::new()).is_done());
    let background = Context::background();
    assert!(merge(&background, &background).deadline().is_none());
    for ctx in [merge(&a, &a), merge(&a, &background), merge(&background, &a), any_of([&a])] {
        assert_eq!(format!("{ctx:?}"), format!("{a:?}"));
    }
    let crowd = any_of((0..50).map(|i| if i % 2 == 0 { a.clone() } else { merge(&a, &a) }));
    assert_eq!(format!("{crowd:?}"), format!("{a:?}"), "duplicates count once");
    let (b, c) = (live(), live());
    let overlapping = format!("{:?}", merge(merge(&a, &b), merge(&b, &c)));
    let all = any_of([&a, &b, &c]);
    assert_eq!(overlapping, format!("{all:?}"));
    assert_eq!(format!("{:?}", any_of((0..9).map(|_| all.relay()))), format!("{all:?}"), "relays of the same too");
}

/// Rule 10, past eight sources too.
#[test]
fn nesting_does_not_show() {
    for which in 0..12 {
        let input = |i| live().named(format!("input {i}")).with_cancel();
        let (inputs, cancellers): (Vec<_>, Vec<_>) = (0..12).map(input).unzip();
        let left = inputs.iter().skip(1).fold(inputs[0].clone(), merge);
        let right = inputs.iter().rev().skip(1).fold(inputs[11].clone(), |all, input| merge(input, all));
        let flat = any_of(&inputs);
        let halves = merge(any_of(&inputs[..6]).relay(), any_of(&inputs[3..]));
        assert!(!left.is_done() && !right.is_done() && !flat.is_done() && !halves.is_done());
        cancellers[which].cancel();
        cancellers[(which + 1) % 12].cancel();
        for ctx in [left, right, flat, halves] {
            assert_eq!(ctx.err().unwrap().origin(), Some(format!("input {which}").as_str()));
        }
    }
}

/// Rule 11.
#[tokio::test(start_paused = true)]
async fn the_deadline_is_the_earliest_and_stays() {
    let now = Instant::now();
    let ctx = any_of([3, 1, 2].map(|s| Context::background().with_deadline(now + SECOND * s)));
    let (ctx, canceller) = merge(Context::background(), ctx).with_cancel();
    assert_eq!(ctx.deadline(), Some(now + SECOND));
    assert_eq!(ctx.remaining(), Some(SECOND));
    assert_eq!(ctx.with_timeout(SECOND * 5).deadline(), Some(now + SECOND));
    canceller.cancel();
    advance(SECOND * 4).await;
    assert_eq!((ctx.deadline(), ctx.remaining()), (Some(now + SECOND), Some(Duration::ZERO)));
    assert!(ctx.err().unwrap().is_cancelled());
}

/// Rule 12.
#[test]
fn values_come_from_the_primary_alone() {
    let a = Context::background().with_value(1_u32).with_value("a");
    let (b, canceller) = Context::background().with_value(2_u32).with_value('b').with_cancel();
    let merged = merge(&a, &b);
    assert_eq!((merged.value(), merged.value()), (Some(&1_u32), Some(&"a")));
    assert_eq!(merged.value::<char>(), None, "no falling back");
    assert_eq!(merge(Context::background(), &b).value::<u32>(), None);
    assert_eq!(any_of([&b, &a]).value::<char>(), Some(&'b'));
    assert_eq!(merged.with_values_of(&b).value::<char>(), Some(&'b'));
    assert_eq!(a.with_value(3_u32).value::<u32>(), Some(&3), "the nearest wins");
    canceller.cancel();
    drop((a, b));
    assert_eq!(merged.value::<u32>(), Some(&1), "after the finish and the other handles");
}

/// Rule 13.
#[test]
fn without_cancel_brings_values_only() {
    let (ctx, canceller) = Context::background().with_value(7_u32).with_timeout(SECOND).with_cancel();
    let kept = ctx.without_cancel();
    let other = live();
    let merged = merge(&kept, &other);
    assert!(canceller.cancel());
    assert!(!kept.is_done() && kept.deadline().is_none() && !merged.is_done() && merged.deadline().is_none());
    assert_eq!(merged.value::<u32>(), Some(&7));
    assert_eq!(merge(&other, &kept).value::<u32>(), None);
}

/// Rule 15: dropping is not a cancel, and a context is cancellable while a clone of its canceller lives.
#[test]
fn dropping_is_not_cancelling() {
    let (ctx, canceller) = Context::background().with_cancel();
    let child = merge(ctx.with_value(1), live());
    drop(ctx);
    let waker = Counting::new();
    let mut done = pin!(child.done());
    assert!(poll(done.as_mut(), &waker).is_pending());
    let clone = canceller.clone();
    drop(canceller);
    assert!(!child.is_done());
    clone.cancel_with("still here");
    assert!(child.is_done() && waker.woken() == 1);
    let (ctx, canceller) = Context::background().with_cancel();
    drop(canceller);
    assert!(!ctx.is_done());
}

/// Rule 15: with the last canceller all that waits for the source is let go, also below relays and crowds, so that
/// a detached callback does not keep itself alive.
#[test]
fn the_last_canceller_lets_go_of_detached_callbacks() {
    let token = Arc::new(());
    let (a, cancel_a) = Context::background().with_cancel();
    let (b, cancel_b) = Context::background().with_cancel();
    let crowd: Vec<_> = (0..20).map(|_| Context::background().with_cancel()).collect();
    let both = merge(&a, &b);
    let deep = any_of(crowd.iter().map(|(ctx, _)| ctx).chain([&a, &b])).relay().with_cancel().0.relay();
    for ctx in [&a, &both, &both.relay(), &deep] {
        let token = Arc::clone(&token);
        ctx.on_done(move |_| drop(token)).detach();
    }
    drop((a, b, both, deep));
    assert_eq!(Arc::strong_count(&token), 5);
    drop(cancel_a);
    assert_eq!(Arc::strong_count(&token), 4, "the one on a alone");
    drop(cancel_b);
    assert_eq!(Arc::strong_count(&token), 2, "those on both");
    drop(crowd);
    assert_eq!(Arc::strong_count(&token), 1, "and the deep one");
}

/// Rule 15: values go with the last handle, whoever else lives.
#[test]
fn nothing_more_is_kept_alive() {
    let value = Arc::new(());
    let (ctx, canceller) = Context::background().with_value(Arc::clone(&value)).with_cancel();
    let merged = merge(live(), &ctx);
    let done = merged.done_owned();
    drop(ctx);
    assert_eq!(Arc::strong_count(&value), 1, "a secondary's values are not kept");
    drop((canceller, done));
}

/// Rule 16.
#[tokio::test(start_paused = true)]
async fn extreme_timeouts() {
    let ctx = Context::background().with_timeout(Duration::MAX);
    assert!(ctx.deadline().is_none() && !ctx.is_done());
    assert!(Context::background().with_timeout_cause(Duration::MAX, "never").deadline().is_none());
    assert!(Context::background().with_timeout(Duration::ZERO).err().unwrap().is_deadline_exceeded());
    let far = Context::background().with_timeout(Duration::from_secs(1 << 40));
    advance(SECOND).await;
    assert!(!far.is_done() && far.deadline().is_some());
    assert!(poll(pin!(far.done()), &Counting::new()).is_pending());
}

/// Rule 2: of two deadlines at one instant the earlier argument's is told, also where one of them is the event of what was
/// finished when it was made.
#[tokio::test(start_paused = true)]
async fn of_deadlines_at_one_instant_the_earlier_arguments_is_told() {
    let before = tokio::time::Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    let at = tokio::time::Instant::now();
    let finished = Context::background().with_deadline_cause(at, "finished").with_deadline(before);
    let passed = Context::background().with_deadline_cause(at, "passed");
    let (live, _keep) = Context::background().with_cancel();
    let why = |ctx: Context| ctx.err().unwrap().cause().unwrap().to_string();
    assert_eq!(why(merge(&finished, &passed)), "finished");
    assert_eq!(why(merge(&passed, &finished)), "passed");
    assert_eq!(why(any_of([&live, &finished, &passed])), "finished");
    assert_eq!(why(any_of([&live, &passed, &finished])), "passed");
}
