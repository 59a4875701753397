//! Rules 1 to 7: what finishes a context, in which order, and what cancelling does.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::Poll;
use std::time::Duration;

use context_merge::{Context, Error, any_of, merge};
use support::{Counting, calling, poll};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn cause(err: &Error) -> String {
    err.cause().map(ToString::to_string).unwrap_or_default()
}

fn why(ctx: &Context) -> String {
    ctx.err().as_ref().map(cause).unwrap_or_else(|| "live".into())
}

/// Rule 1.
#[test]
fn all_observers_agree() {
    let (ctx, canceller) = Context::background().with_cancel();
    let merged = merge(&ctx, Context::background().with_cancel().0);
    let waker = Counting::new();
    let mut done = pin!(merged.done());
    assert!(!merged.is_done() && merged.err().is_none() && merged.check().is_ok());
    assert!(poll(done.as_mut(), &waker).is_pending());
    canceller.cancel_with("over");
    let Poll::Ready(from_done) = poll(done.as_mut(), &waker) else { panic!("is_done and done disagree") };
    let pointers = [from_done, merged.err().unwrap(), merged.check().unwrap_err(), merged.wait()]
        .map(|err| std::ptr::from_ref(err.cause().unwrap()).cast::<()>());
    assert!(merged.is_done() && pointers.iter().all(|cause| *cause == pointers[0]));
}

/// Rule 2: the first is found however late somebody looks, and in whichever order the arguments stand.
#[test]
fn the_first_cancel_is_told_by_a_late_look() {
    let (a, cancel_a) = Context::background().with_cancel();
    let (b, cancel_b) = Context::background().with_cancel();
    let before = [merge(&a, &b), merge(&b, &a), merge(a.relay(), &b), any_of([&a.relay(), &b.relay()])];
    cancel_b.cancel_with("b");
    cancel_a.cancel_with("a");
    let after = [merge(&a, &b), merge(&b, &a), any_of([&a, &b])];
    for ctx in before.iter().chain(&after) {
        assert_eq!(why(ctx), "b");
    }
}

/// Rule 2, where the cancels overlap: all contexts over the two tell the same story.
#[test]
fn overlapping_cancels_are_put_in_one_order() {
    for _ in 0..2_000 {
        let (a, cancel_a) = Context::background().with_cancel();
        let (b, cancel_b) = Context::background().with_cancel();
        let views = [merge(&a, &b), merge(&b, &a), merge(a.relay(), &b), merge(&a, b.relay())];
        let start = Barrier::new(4);
        let story = |view: &Context| {
            start.wait();
            loop {
                if let Some(err) = view.err() {
                    return cause(&err);
                }
                std::hint::spin_loop();
            }
        };
        let stories = std::thread::scope(|scope| {
            let watchers = [&views[0], &views[3]].map(|view| scope.spawn(|| story(view)));
            for (canceller, name) in [(&cancel_a, "a"), (&cancel_b, "b")] {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    canceller.cancel_with(name);
                });
            }
            watchers.map(|watcher| watcher.join().unwrap())
        });
        let told: Vec<_> = stories.into_iter().chain(views.iter().map(why)).collect();
        assert!(told.iter().all(|story| *story == told[0]), "{told:?}");
        assert_eq!(why(&merge(&b, &a)), told[0]);
    }
}

/// Rule 2: at one instant a deadline comes before a cancel, and equal deadlines go to the earlier argument.
#[tokio::test(start_paused = true)]
async fn ties_are_broken_by_rule() {
    let at = Instant::now() + SECOND;
    let (ctx, canceller) = Context::background().with_cancel();
    let both = ctx.with_deadline_cause(at, "deadline");
    let [x, y] = ["x", "y"].map(|cause| Context::background().with_deadline_cause(at, cause));
    let (xy, yx) = (merge(&x, &y), merge(&y, &x));
    let over_more = merge(&x, ctx.with_deadline_cause(at, "y"));
    let names = merge(Context::background().named("x").with_deadline(at), ctx.named("y").with_deadline(at));
    advance(SECOND).await;
    canceller.cancel_with("cancel");
    assert_eq!(why(&both), "deadline");
    assert_eq!((why(&xy), why(&yx)), ("x".into(), "y".into()));
    assert_eq!(why(&merge(&y, &x)), "y");
    assert_eq!((why(&over_more).as_str(), names.err().unwrap().origin()), ("x", Some("x")));
}

/// Rule 3, first half: a deadline counts from its instant, not from a timer or a look.
#[tokio::test(start_paused = true)]
async fn a_deadline_needs_no_timer_and_a_later_cancel_changes_nothing() {
    let (ctx, canceller) = Context::background().with_cancel();
    let (child, cancel_child) = ctx.with_timeout(SECOND).with_cancel();
    advance(SECOND - Duration::from_nanos(1)).await;
    assert!(!child.is_done());
    advance(Duration::from_nanos(1)).await;
    assert!(!cancel_child.cancel_with("too late"));
    assert!(canceller.cancel_with("also too late for the child"));
    assert!(child.err().unwrap().is_deadline_exceeded());
    assert!(child.err().unwrap().cause().is_none());
}

/// Rule 3, second half.
#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_deadline_wins_though_nobody_looked() {
    let (ctx, canceller) = Context::background().with_cancel();
    let ctx = merge(ctx, Context::background().with_timeout(SECOND));
    advance(SECOND / 2).await;
    assert!(canceller.cancel_with("in time"));
    advance(SECOND * 9).await;
    assert_eq!(why(&ctx), "in time");
}

/// Rule 4: a callback sees every context over the source done, relays and crowds included, and what it makes of them.
#[test]
fn everything_is_done_before_the_first_callback() {
    let (root, canceller) = Context::background().with_cancel();
    let crowd: Vec<_> = (0..40).map(|_| Context::background().with_cancel()).collect();
    let many = any_of(crowd.iter().map(|(ctx, _)| ctx).chain([&root]));
    let deep = many.relay().with_cancel().0.relay();
    let all = Arc::new([root.clone(), root.relay(), merge(&crowd[0].0, &root), many, deep]);
    let seen = Arc::new(AtomicUsize::new(0));
    let callbacks: Vec<_> = all
        .iter()
        .map(|ctx| {
            let (all, seen) = (Arc::clone(&all), Arc::clone(&seen));
            ctx.on_done(move |_| {
                let fresh = merge(Context::background().with_cancel().0, &all[3]);
                assert!(all.iter().all(Context::is_done) && fresh.is_done());
                seen.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    canceller.cancel();
    assert_eq!(seen.load(Ordering::SeqCst), all.len());
    drop(callbacks);
}

/// Rule 5: never a parent or an input, and true once.
#[test]
fn cancelling_reaches_only_what_is_over_the_source() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    let (other, _keep) = Context::background().with_cancel();
    let (merged, cancel_merged) = merge(&child, &other).with_cancel();
    assert!(cancel_merged.cancel_with("merged"));
    assert!(merged.is_done() && !child.is_done() && !other.is_done() && !parent.is_done());
    assert!(cancel_child.clone().cancel_with("child"));
    assert!(!cancel_child.cancel_with("again"));
    assert!(cancel_child.is_cancelled() && !parent.is_done());
    assert_eq!((why(&child), why(&merged)), ("child".into(), "merged".into()));
    assert!(cancel_parent.cancel());
    assert_eq!(why(&child), "child");
}

/// Rule 5: where a parent was first, a cancel changes nothing, cause included.
#[test]
fn a_cancel_after_the_parents_is_refused() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let (child, cancel_child) = parent.with_cancel();
    cancel_parent.cancel_with("parent");
    assert!(!cancel_child.cancel_with("child"));
    assert!(!cancel_child.is_cancelled() && cancel_parent.is_cancelled());
    assert_eq!(why(&child), "parent");
    let (born, cancel_born) = child.with_cancel();
    assert!(!cancel_born.cancel() && !cancel_born.is_cancelled());
    assert_eq!(why(&born), "parent");
}

/// Rule 5, where nobody holds the context any more: the canceller still knows which call was the first, and what came before.
#[test]
fn a_cancel_that_nobody_sees_is_the_one_all_the_same() {
    let (parent, cancel_parent) = Context::background().with_cancel();
    let cancellers = [Context::background().with_cancel().1, parent.with_cancel().1];
    let late = parent.with_cancel().1;
    for canceller in &cancellers {
        assert!(!canceller.is_cancelled());
        assert!(canceller.cancel_with("unseen"));
    }
    // Before anybody has asked whether it was the first.
    assert!(cancel_parent.cancel());
    for canceller in &cancellers {
        assert!(canceller.is_cancelled() && canceller.clone().is_cancelled(), "before the parent's");
        assert!(!canceller.cancel());
    }
    assert!(!late.cancel() && !late.is_cancelled(), "after the parent's");
}

/// Rule 5 between threads: of many calls exactly one is told that it was the one.
#[test]
fn one_of_many_cancels_is_the_one() {
    for _ in 0..200 {
        let (ctx, canceller) = Context::background().with_cancel();
        let start = Barrier::new(4);
        let won = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let won = canceller.cancel();
                        assert!(ctx.is_done(), "cancel returned before its context was done");
                        won
                    })
                })
                .collect();
            calls.into_iter().map(|call| usize::from(call.join().unwrap())).sum::<usize>()
        });
        assert_eq!(won, 1);
    }
}

/// Rule 6: everything can be done from inside a waker, a callback, or a drop.
#[test]
fn wakers_callbacks_and_drops_may_do_anything() {
    struct CancelOnDrop(context_merge::Canceller, Context);
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.cancel();
            drop(merge(&self.1, Context::background().with_cancel().0));
        }
    }

    let (root, canceller) = Context::background().with_cancel();
    let (other, cancel_other) = Context::background().with_cancel();
    let merged = merge(&root, &other);
    let held = Mutex::new(Some(other.on_done(|_| {})));
    let (victim, cancel_victim) = root.with_cancel();
    let value = Mutex::new(Some(Context::background().with_value(CancelOnDrop(cancel_victim, root.clone()))));
    let ran = Arc::new(AtomicBool::new(false));
    let waker = calling({
        let (root, other, merged, ran) = (root.clone(), other.clone(), merged.clone(), Arc::clone(&ran));
        let canceller = canceller.clone();
        move || {
            assert!(!canceller.cancel());
            assert!(merge(&other, &root).is_done() && merged.is_done());
            drop(held.lock().unwrap().take());
            drop(value.lock().unwrap().take());
            root.on_done(|_| {}).detach();
            other.on_done(|_| {}).detach();
            // Wakes this waker again, from within itself.
            let outer = !ran.swap(true, Ordering::SeqCst);
            assert_eq!(cancel_other.cancel(), outer);
        }
    });
    let mut done = pin!(merged.done());
    assert!(done.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let before = merged.on_done(move |_| drop(victim));
    canceller.cancel();
    assert!(ran.load(Ordering::SeqCst));
    drop(before);
}

/// Rule 7.
#[test]
fn a_panic_keeps_nobody_from_being_woken() {
    let (ctx, canceller) = Context::background().with_cancel();
    let relay = ctx.relay();
    let woken = Arc::new(AtomicUsize::new(0));
    let callbacks: Vec<_> = (0..30)
        .map(|i| {
            let woken = Arc::clone(&woken);
            let ctx = if i % 2 == 0 { &ctx } else { &relay };
            ctx.on_done(move |_| {
                woken.fetch_add(1, Ordering::SeqCst);
                assert!(i % 3 != 0, "callback {i}");
            })
        })
        .collect();
    let panic = catch_unwind(AssertUnwindSafe(|| canceller.cancel())).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().starts_with("callback"));
    assert_eq!(woken.load(Ordering::SeqCst), 30);
    assert!(canceller.is_cancelled() && ctx.is_done() && relay.is_done());
    let (again, cancel_again) = relay.without_cancel().with_cancel();
    assert!(cancel_again.cancel() && again.is_done());
    drop(callbacks);
}

/// Rule 7: a guard that cancels while its thread panics does not make of it two panics.
#[test]
fn a_guard_may_cancel_during_a_panic() {
    let (ctx, canceller) = Context::background().with_cancel();
    ctx.on_done(|_| panic!("callback")).detach();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _guard = canceller.drop_guard();
        panic!("the work");
    }));
    assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "the work");
    assert!(ctx.is_done());
}
