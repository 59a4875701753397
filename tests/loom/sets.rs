//! Gathers, which stand for the sources past the bound: one story, and told before anybody is woken (rules 2 and 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use context_merge::{Context, any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Beside, Seen, Waiter, acting, beside, cancelling, model, or_live, source, told};
use crate::waiting::{other_source_still_wakes, parked_is_woken};

/// A gather over a gather, and below that the last source: `[[first, 2, 3], 4, 5]`.
fn nested(first: &Context) -> Context {
    let inner = any_of([first, &source().0, &source().0]);
    any_of([&inner, &source().0, &source().0])
}

#[test]
fn register_through_a_gather_against_cancel() {
    model(Unbounded, &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        parked_is_woken(seen, any_of([source().0, ctx, source().0]), canceller);
    });
}

#[test]
fn register_through_nested_gathers_against_cancel() {
    model(Unbounded, &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        parked_is_woken(seen, nested(&ctx), canceller);
    });
}

#[test]
fn register_through_a_relay_of_a_gather_against_cancel() {
    model(Unbounded, &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        parked_is_woken(seen, any_of([source().0, ctx, source().0]).relay(), canceller);
    });
}

#[test]
fn the_last_canceller_against_registering_through_a_gather() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let all = any_of([&a, &b, &source().0]);
        other_source_still_wakes(seen, &all, cancel_a, &cancel_b);
    });
}

/// A gather links itself in while its sources lose their cancellers or are cancelled.
#[test]
fn gathering_against_the_last_canceller() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let gone = beside(move || drop(cancel_a));
        let (all, lay) = gone.against(|| any_of([&a, &b, &source().0]));
        gone.join();
        let waiter = Waiter::parked(&all);
        assert!(cancel_b.cancel_with("over"));
        assert_eq!((told(&all).as_deref(), waiter.woken()), (Some("over"), 1));
        seen.note(lay);
        waiter.drop_whole();
    });
}

#[test]
fn gathering_against_cancel() {
    model(Preemptions(4), &["live across", "over across", "over around", "live across, told late"], |seen| {
        let (ctx, canceller) = source();
        let others = [source(), source()];
        let cancel = cancelling(canceller, "over");
        let (all, lay) = cancel.against(|| any_of([&others[0].0, &ctx, &others[1].0]));
        let known = ctx.is_done();
        let early = told(&all);
        let mut waiter = Waiter::new(&all);
        let first = waiter.poll();
        assert!(cancel.join());
        assert_eq!(told(&all).as_deref(), Some("over"), "the cancel has returned");
        assert!(first.is_ready() || waiter.woken() == 1, "a wake-up is lost");
        let late = if known && early.is_none() { ", told late" } else { "" };
        seen.note(format!("{} {lay}{late}", or_live(early.as_deref())));
        waiter.drop_whole();
    });
}

/// Two of three sources are cancelled at once: the same story in any order, nested, and made later.
#[test]
fn two_cancels_tell_a_gather_one_story() {
    model(Preemptions(4), &["a, then a", "b, then b", "live, then a", "live, then b"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (c, _) = source();
        let contexts = [any_of([&a, &b, &c]), any_of([&c, &b, &a])];
        one_story_of_gathers(seen, contexts, [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")], &[a, b, c]);
    });
}

/// The same across two gathers: one source stands in the inner, the other beside it.
#[test]
fn two_cancels_tell_nested_gathers_one_story() {
    model(Preemptions(3), &["a, then a", "b, then b", "live, then a", "live, then b"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (c, _) = source();
        let inner = any_of([&a, &c, &source().0]);
        let contexts = [any_of([&inner, &b, &source().0]), any_of([&b, &source().0, &inner])];
        one_story_of_gathers(seen, contexts, [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")], &[a, b, c]);
    });
}

fn one_story_of_gathers(seen: &Seen, contexts: [Context; 2], cancels: [Beside<bool>; 2], sources: &[Context; 3]) {
    let early = told(&contexts[0]);
    assert!(cancels.into_iter().all(|cancel| cancel.join()));
    let [first, second] = contexts.map(|ctx| told(&ctx).expect("finished"));
    assert_eq!(first, second, "two contexts over the same sources tell two stories");
    let [a, b, c] = sources;
    for ctx in [any_of([c, a, b]), any_of([b, a, c]), merge(merge(a, c), b), merge(a, b)] {
        assert_eq!(told(&ctx).as_deref(), Some(&*first), "also for a context made later");
    }
    assert!(early.is_none() || early.as_deref() == Some(&first), "an answer changed");
    seen.note(format!("{}, then {first}", or_live(early.as_deref())));
}

/// A waker of the source itself sees each context past the bound done, across two gathers (W3).
#[test]
fn gathers_are_told_before_the_first_waker_runs() {
    model(Preemptions(3), &["[false, false] across", "[false, true] around", "[true, true] around"], |seen| {
        let (ctx, canceller) = source();
        let all = [any_of([&ctx, &source().0, &source().0]), nested(&ctx)];
        let woken = Arc::new(AtomicUsize::new(0));
        let mut waiter = Waiter::new(&ctx);
        let waker = acting({
            let (all, woken) = (all.clone(), Arc::clone(&woken));
            move || {
                assert!(all.iter().all(Context::is_done), "woken before all were told");
                woken.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(waiter.poll_with(&waker).is_pending());
        drop(waker);
        let cancel = cancelling(canceller, "over");
        let (early, lay) = cancel.against(|| all.each_ref().map(Context::is_done));
        assert!(cancel.join());
        assert_eq!(woken.load(Ordering::SeqCst), 1);
        seen.note(format!("{early:?} {lay}"));
    });
}

/// Two calls of one canceller: whichever returns, every context over the source is done, past the bound too.
#[test]
fn a_gather_is_done_when_either_of_two_cancels_has_returned() {
    model(Preemptions(3), &["lost across", "won across", "won around"], |seen| {
        let (ctx, canceller) = source();
        let all = any_of([&ctx, &source().0, &source().0]);
        let other = beside({
            let (canceller, all) = (canceller.clone(), all.clone());
            move || {
                let won = canceller.cancel_with("other");
                assert!(all.is_done(), "the other cancel has returned");
                won
            }
        });
        let (won, lay) = other.against(|| canceller.cancel_with("mine"));
        assert!(all.is_done(), "this cancel has returned");
        assert_ne!(won, other.join());
        seen.note(format!("{} {lay}", if won { "won" } else { "lost" }));
    });
}

/// The child's cancel is too late, and returns while the one of the parent is under way: no context over the child is
/// live then, though a gather may have been reached by nobody yet.
#[test]
fn a_gather_is_done_when_the_cancel_of_a_child_was_too_late() {
    model(Preemptions(3), &["lost", "won"], |seen| {
        let (parent, cancel_parent) = source();
        let (child, cancel_child) = any_of([&parent, &source().0, &source().0]).with_cancel();
        let below = [any_of([&child, &source().0, &source().0]), any_of([&source().0, &source().0, &child])];
        let cancel = cancelling(cancel_parent, "parent");
        let won = cancel_child.cancel();
        assert!(below.iter().all(Context::is_done), "this cancel has returned");
        assert!(cancel.join());
        seen.note(if won { "won" } else { "lost" });
    });
}
