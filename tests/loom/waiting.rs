//! Futures: no wake-up is lost, and nothing is left behind (rules 15 and 17).

use std::sync::Arc;
use std::task::Poll;

use context_merge::{Canceller, Context, any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Seen, Waiter, beside, cancelling, model, source};

/// Polls `ctx` against a cancel: pending means that the waker was woken once the cancel has returned.
pub(crate) fn parked_is_woken(seen: &Seen, ctx: Context, canceller: Canceller) {
    let cancel = cancelling(canceller, "over");
    let mut waiter = Waiter::new(&ctx);
    let (first, lay) = cancel.against(|| waiter.poll());
    assert!(cancel.join());
    if first.is_pending() {
        assert_eq!(waiter.woken(), 1, "a wake-up is lost");
    }
    assert_eq!(waiter.poll(), Poll::Ready("over".into()));
    seen.note(match (first.is_ready(), waiter.woken()) {
        (false, _) => format!("parked {lay}"),
        (true, 0) => format!("ready {lay}"),
        (true, _) => format!("ready and woken {lay}"),
    });
    waiter.drop_whole();
}

#[test]
fn register_against_cancel() {
    model(
        Preemptions(5),
        &["parked within", "ready within", "ready and woken within", "ready around", "ready and woken around"],
        |seen| {
            let (ctx, canceller) = source();
            parked_is_woken(seen, ctx, canceller);
        },
    );
}

#[test]
fn register_with_a_merge_against_cancel() {
    model(Preemptions(5), &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        parked_is_woken(seen, merge(source().0, ctx), canceller);
    });
}

#[test]
fn register_with_a_child_against_cancel() {
    model(Preemptions(5), &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        let (child, _cancel_child) = ctx.with_cancel();
        parked_is_woken(seen, child, canceller);
    });
}

/// The list is there already: the second waiter meets the closing of a list, not the making of one.
#[test]
fn register_second_against_cancel() {
    model(
        Preemptions(5),
        &["parked within", "ready within", "ready and woken within", "ready around", "ready and woken around"],
        |seen| {
            let (ctx, canceller) = source();
            let first = Waiter::parked(&ctx);
            parked_is_woken(seen, ctx, canceller);
            assert_eq!(first.woken(), 1);
            first.drop_whole();
        },
    );
}

#[test]
fn two_register_against_cancel() {
    model(Preemptions(3), &["parked within", "ready within", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        let other = beside({
            let mut waiter = Waiter::new(&ctx);
            move || (waiter.poll(), waiter)
        });
        parked_is_woken(seen, ctx, canceller);
        let (first, waiter) = other.join();
        assert!(first.is_ready() || waiter.woken() == 1, "a wake-up is lost");
        waiter.drop_whole();
    });
}

#[test]
fn register_against_two_cancels() {
    model(
        Preemptions(3),
        &["parked around, woken 2", "ready across, woken 1", "ready around, woken 0", "ready around, woken 2"],
        |seen| {
            let (a, cancel_a) = source();
            let (b, cancel_b) = source();
            let other = cancelling(cancel_b, "over");
            let mut waiter = Waiter::new(&merge(&a, &b));
            let cancel = cancelling(cancel_a, "over");
            let (first, lay) = cancel.against(|| waiter.poll());
            assert!(cancel.join() && other.join());
            assert!(first.is_ready() || waiter.woken() > 0, "a wake-up is lost");
            assert!(waiter.poll().is_ready());
            seen.note(format!("{} {lay}, woken {}", if first.is_ready() { "ready" } else { "parked" }, waiter.woken()));
            waiter.drop_whole();
        },
    );
}

/// `ctx` is polled again with a new waker against a cancel: then the new one is the one to wake.
fn newest_is_woken(seen: &Seen, ctx: &Context, canceller: Canceller) {
    let mut waiter = Waiter::parked(ctx);
    let old = waiter.renew();
    let cancel = cancelling(canceller, "over");
    let (second, lay) = cancel.against(|| waiter.poll());
    assert!(cancel.join());
    assert!(second.is_ready() || waiter.woken() == 1, "the newest waker is the one to wake");
    assert!(old.woken() + waiter.woken() <= 1, "one waiter, one wake-up");
    assert!(waiter.poll().is_ready());
    seen.note(match (second.is_ready(), old.woken(), waiter.woken()) {
        (false, ..) => format!("parked {lay}"),
        (true, 0, 0) => format!("ready {lay}"),
        (true, 0, _) => format!("ready {lay}, the new one woken"),
        (true, ..) => format!("ready {lay}, the old one woken"),
    });
    waiter.drop_whole();
    assert!(old.is_left_nowhere());
}

#[test]
fn repolling_with_a_new_waker_against_cancel() {
    model(
        Preemptions(5),
        &["parked across", "ready across", "ready around, the new one woken", "ready around, the old one woken"],
        |seen| {
            let (ctx, canceller) = source();
            newest_is_woken(seen, &ctx, canceller);
        },
    );
}

#[test]
fn repolling_a_relay_with_a_new_waker_against_cancel() {
    model(
        Preemptions(5),
        &["parked across", "ready across", "ready around, the new one woken", "ready around, the old one woken"],
        |seen| {
            let (ctx, canceller) = source();
            newest_is_woken(seen, &ctx.relay(), canceller);
        },
    );
}

#[test]
fn repolling_a_gather_with_a_new_waker_against_cancel() {
    model(
        Unbounded,
        &["parked across", "ready around, the new one woken", "ready around, the old one woken"],
        |seen| {
            let (ctx, canceller) = source();
            newest_is_woken(seen, &any_of([&source().0, &ctx, &source().0]), canceller);
        },
    );
}

#[test]
fn dropping_a_future_against_cancel() {
    model(Unbounded, &["let go across", "let go around", "woken across", "woken around"], |seen| {
        let (ctx, canceller) = source();
        let waiter = Waiter::parked(&merge(&ctx, source().0));
        let count = waiter.count();
        let cancel = cancelling(canceller, "over");
        let ((), lay) = cancel.against(|| drop(waiter));
        assert!(cancel.join());
        seen.note(format!("{} {lay}", if count.woken() == 0 { "let go" } else { "woken" }));
        assert!(count.is_left_nowhere(), "a waiter is left behind");
    });
}

/// The source that is quiet lives on, and holds nothing of a waiter that another source finished.
#[test]
fn dropping_a_future_against_cancel_leaves_the_other_source_empty() {
    model(
        Preemptions(5),
        &["parked around", "parked and woken around", "ready and woken around", "ready around"],
        |seen| {
            let (a, cancel_a) = source();
            let (b, cancel_b) = source();
            let mut waiter = Waiter::new(&merge(&a, &b));
            let count = waiter.count();
            let cancel = cancelling(cancel_a, "over");
            let (first, lay) = cancel.against(|| {
                let first = waiter.poll();
                drop(waiter);
                first
            });
            assert!(cancel.join());
            assert!(count.is_left_nowhere(), "a waiter is left behind");
            assert!(cancel_b.cancel());
            let woken = if count.woken() == 0 { "" } else { " and woken" };
            seen.note(format!("{}{woken} {lay}", if first.is_ready() { "ready" } else { "parked" }));
        },
    );
}

/// One source can fire no more, and is let go of; the other one still wakes.
#[test]
fn the_last_canceller_against_registering_with_a_merge() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        other_source_still_wakes(seen, &merge(&a, &b), cancel_a, &cancel_b);
    });
}

/// `ctx` is polled while the canceller of one of its two sources goes.
pub(crate) fn other_source_still_wakes(seen: &Seen, ctx: &Context, goes: Canceller, stays: &Canceller) {
    let mut waiter = Waiter::new(ctx);
    let gone = beside(move || drop(goes));
    let (first, lay) = gone.against(|| waiter.poll());
    gone.join();
    assert!(first.is_pending() && waiter.woken() == 0, "dropping a canceller is not a cancel");
    assert!(stays.cancel_with("over"));
    assert_eq!(waiter.woken(), 1, "a wake-up is lost");
    seen.note(lay);
    waiter.drop_whole();
}

/// With the last canceller what was registered is let go, whether it came before or comes after.
#[test]
fn the_last_canceller_against_registering() {
    model(Unbounded, &["across", "around"], |seen| {
        let (ctx, canceller) = source();
        let mut waiter = Waiter::new(&ctx);
        let gone = beside(move || drop(canceller));
        let (first, lay) = gone.against(|| waiter.poll());
        gone.join();
        assert!(first.is_pending() && waiter.woken() == 0, "dropping a canceller is not a cancel");
        assert!(waiter.poll().is_pending());
        seen.note(lay);
        waiter.drop_whole();
    });
}

/// Two clones go, and one of them cancels first: it is never taken for the last one's going without a cancel.
#[test]
fn the_last_canceller_against_the_cancel_of_a_clone() {
    model(Unbounded, &["across", "around"], |seen| {
        let (ctx, canceller) = source();
        let waiter = Waiter::parked(&ctx);
        let cancel = cancelling(canceller.clone(), "over");
        let ((), lay) = cancel.against(|| drop(canceller));
        assert!(cancel.join());
        assert_eq!(waiter.woken(), 1, "a wake-up is lost");
        seen.note(lay);
        waiter.drop_whole();
    });
}

/// Whoever goes last frees the node, and sees what the other did with it.
#[test]
fn dropping_the_last_context_against_cancel() {
    model(Preemptions(4), &["done across", "done around", "live across", "live around"], |seen| {
        let (ctx, canceller) = source();
        let merged = merge(&ctx, source().0);
        let value = Arc::new(());
        let ctx = ctx.with_value(Arc::clone(&value));
        let cancel = cancelling(canceller, "over");
        let (done, lay) = cancel.against(|| {
            drop(ctx);
            let done = merged.is_done();
            drop(merged);
            done
        });
        assert!(cancel.join(), "it was the first, whether or not anybody can see it");
        assert_eq!(Arc::strong_count(&value), 1);
        seen.note(format!("{} {lay}", if done { "done" } else { "live" }));
    });
}

/// A guard leaves the end out where nobody can see it. Whoever has made something of the context meanwhile sees it done, and is
/// woken.
#[test]
fn dropping_a_guard_against_who_makes_the_last_of_its_context() {
    model(Preemptions(5), &["live across", "live around", "done across", "done around"], |seen| {
        let (ctx, canceller) = source();
        let guard = canceller.drop_guard();
        let dropping = beside(move || drop(guard));
        let ((first, waiter), lay) = dropping.against(|| {
            let mut waiter = Waiter::new(&merge(&ctx, source().0));
            let first = waiter.poll();
            drop(ctx);
            (first, waiter)
        });
        dropping.join();
        assert!(first.is_ready() || waiter.woken() == 1, "the guard was dropped");
        let mut waiter = waiter;
        assert!(waiter.poll().is_ready());
        seen.note(format!("{} {lay}", if first.is_ready() { "done" } else { "live" }));
        waiter.drop_whole();
    });
}

/// The context goes while its guard is dropped: nothing is left behind of who waited.
#[test]
fn dropping_a_guard_against_dropping_its_context() {
    model(Unbounded, &["woken across", "woken around", "left across", "left around"], |seen| {
        let (ctx, canceller) = source();
        let waiter = Waiter::parked(&ctx);
        let count = waiter.count();
        let guard = canceller.drop_guard();
        let dropping = beside(move || drop(guard));
        let ((), lay) = dropping.against(|| {
            drop(waiter);
            drop(ctx);
        });
        dropping.join();
        seen.note(format!("{} {lay}", if count.woken() == 0 { "left" } else { "woken" }));
        assert!(count.is_left_nowhere(), "a waiter is left behind");
    });
}

/// Two threads share one canceller whose context is gone: one call is the one, and both see that it was.
#[test]
fn two_cancels_of_one_canceller_that_nobody_sees() {
    model(Unbounded, &["first", "second"], |seen| {
        let canceller = Arc::new(source().1);
        let other = beside({
            let canceller = Arc::clone(&canceller);
            move || {
                let won = canceller.cancel_with("other");
                assert!(canceller.is_cancelled(), "it has returned");
                won
            }
        });
        let won = canceller.cancel();
        assert!(canceller.is_cancelled(), "it has returned");
        assert_ne!(won, other.join());
        seen.note(if won { "first" } else { "second" });
    });
}
