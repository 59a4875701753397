//! Callbacks: each runs once, or was stopped (rule 19); with the last canceller it is let go (rule 15).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use context_merge::{Canceller, Context, Error, OnDone, any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Seen, Waiter, beside, cancelling, model, source, told, why};

/// How often a callback ran.
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn on(ctx: &Context) -> (OnDone, Runs) {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let on_done = ctx.on_done(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        (on_done, Runs(runs))
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether the callback and what it holds are gone.
    fn is_let_go(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Registers a callback against cancels of its sources: it runs once, and cannot be stopped then.
fn registered_runs_once<const N: usize>(seen: &Seen, ctx: &Context, cancellers: [Canceller; N]) {
    let cancels = cancellers.map(|canceller| cancelling(canceller, "over"));
    let ((on_done, runs), lay) = cancels[0].against(|| Runs::on(ctx));
    let ran = runs.count();
    assert!(cancels.into_iter().all(|cancel| cancel.join()));
    assert_eq!(runs.count(), 1);
    assert!(!on_done.stop());
    assert!(runs.is_let_go());
    seen.note(format!("{} {lay}", if ran == 1 { "has run" } else { "runs later" }));
}

#[test]
fn registering_a_callback_against_cancel() {
    model(Preemptions(3), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &merge(&ctx, source().0), [canceller]);
    });
}

#[test]
fn registering_a_callback_with_a_relay_against_cancel() {
    model(Preemptions(3), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &ctx.relay(), [canceller]);
    });
}

#[test]
fn registering_a_callback_with_a_gather_against_cancel() {
    model(Preemptions(4), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &any_of([&source().0, &ctx, &source().0]), [canceller]);
    });
}

#[test]
fn registering_a_callback_against_two_cancels() {
    model(Preemptions(2), &["has run around", "runs later across", "runs later around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        registered_runs_once(seen, &merge(&a, &b), [cancel_a, cancel_b]);
    });
}

/// Both sources wake the one callback.
#[test]
fn two_cancels_run_a_callback_once() {
    model(Preemptions(3), &["across, run by the other", "around, run by the other", "around, run by any"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (on_done, runs) = Runs::on(&merge(&a, &b));
        on_done.detach();
        let other = beside({
            let runs = Runs(Arc::clone(&runs.0));
            move || {
                assert!(cancel_b.cancel());
                runs.count()
            }
        });
        let (won, lay) = other.against(|| cancel_a.cancel());
        let ran = runs.count();
        let other_ran = other.join();
        assert!(won);
        assert_eq!(runs.count(), 1);
        assert!(runs.is_let_go());
        seen.note(format!("{lay}, run by {}", ["the other", "any"][ran.min(other_ran)]));
    });
}

/// Run while it is being registered, it leaves nothing in the source that stays.
#[test]
fn a_callback_that_ran_leaves_nothing_in_the_other_source() {
    model(Preemptions(3), &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let value = Arc::new(());
        let merged = merge(a.with_value(Arc::clone(&value)), &b);
        let cancel = cancelling(cancel_a, "over");
        let ((), lay) = cancel.against(|| merged.on_done(|_| ()).detach());
        drop((merged, a));
        assert!(cancel.join());
        assert_eq!(Arc::strong_count(&value), 1, "the registration holds its context");
        assert!(cancel_b.cancel());
        seen.note(lay);
    });
}

#[test]
fn stopping_a_callback_against_cancel() {
    model(Unbounded, &["has run around", "stopped across", "stopped around"], |seen| {
        let (ctx, canceller) = source();
        let (on_done, runs) = Runs::on(&ctx);
        let cancel = cancelling(canceller, "over");
        let (stopped, lay) = cancel.against(|| on_done.stop());
        assert!(cancel.join());
        assert_eq!(runs.count(), usize::from(!stopped));
        assert!(runs.is_let_go());
        seen.note(format!("{} {lay}", if stopped { "stopped" } else { "has run" }));
    });
}

/// Dropping is stopping: the callback is gone, run or not.
#[test]
fn dropping_a_callback_against_two_cancels() {
    model(Preemptions(3), &["has run across", "has run around", "stopped across", "stopped around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (on_done, runs) = Runs::on(&merge(&a, &b));
        let cancels = [cancelling(cancel_a, "a"), cancelling(cancel_b, "b")];
        let ((), lay) = cancels[0].against(|| drop(on_done));
        assert!(cancels.into_iter().all(|cancel| cancel.join()));
        assert!(runs.count() <= 1);
        assert!(runs.is_let_go());
        seen.note(format!("{} {lay}", ["stopped", "has run"][runs.count()]));
    });
}

/// Whatever was or is being registered, detached, with a source that nobody can cancel any more is let go.
#[test]
fn the_last_canceller_against_registering_callbacks() {
    model(Unbounded, &["across", "around"], |seen| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let gone = beside(move || drop(canceller));
        let (runs, lay) = gone.against(|| {
            [&ctx, &relay].map(|ctx| {
                let (on_done, runs) = Runs::on(ctx);
                on_done.detach();
                runs
            })
        });
        gone.join();
        drop((ctx, relay));
        for runs in runs {
            assert_eq!(runs.count(), 0);
            assert!(runs.is_let_go(), "a detached callback keeps itself alive");
        }
        seen.note(lay);
    });
}

/// A callback on two sources is let go with the later of their cancellers, in whatever order they go.
#[test]
fn the_last_cancellers_of_two_sources_let_a_callback_go() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (on_done, runs) = Runs::on(&merge(a, b).relay());
        on_done.detach();
        let gone = beside(move || drop(cancel_a));
        let ((), lay) = gone.against(|| drop(cancel_b));
        gone.join();
        assert_eq!(runs.count(), 0);
        assert!(runs.is_let_go(), "a detached callback keeps itself alive");
        seen.note(lay);
    });
}

/// Rule 4 for a callback that runs on the thread that registers it, while the cancel is on its way to the gathers.
#[test]
fn a_callback_that_runs_at_once_sees_the_gathers_done() {
    model(Preemptions(3), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        let gather = any_of([&source().0, &ctx, &source().0]);
        let seen_done = sees_done(&gather);
        let cancel = cancelling(canceller, "over");
        let (on_done, lay) = cancel.against(|| ctx.on_done(seen_done.1));
        let ran = seen_done.0.count();
        assert!(cancel.join());
        assert_eq!(seen_done.0.count(), 1);
        seen.note(format!("{} {lay}", if ran == 1 { "has run" } else { "runs later" }));
        drop(on_done);
    });
}

/// Rule 4 for a callback that is run by whoever links its relay in.
#[test]
fn a_callback_run_by_who_links_its_relay_sees_the_gathers_done() {
    model(Preemptions(3), &["run", "run by the one who links"], |seen| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let gather = any_of([&source().0, &ctx, &source().0]);
        let (runs, callback) = sees_done(&gather);
        let mut waiter = Waiter::new(&relay);
        let linking = beside({
            let runs = Runs(Arc::clone(&runs.0));
            move || {
                let before = runs.count();
                waiter.poll().is_ready() && before == 0 && runs.count() == 1
            }
        });
        let cancel = cancelling(canceller, "over");
        let on_done = relay.on_done(callback);
        let ran_here = runs.count() == 1;
        let ran_there = linking.join();
        assert!(cancel.join());
        assert_eq!(runs.count(), 1);
        seen.note(if ran_there && !ran_here { "run by the one who links" } else { "run" });
        drop(on_done);
    });
}

/// Rule 4 for a callback that is run by the cancel of one source because another one was first.
#[test]
fn a_callback_run_by_the_second_cancel_sees_the_gathers_of_the_first_done() {
    model(Preemptions(2), &["a", "b"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let gather = any_of([&source().0, &a, &source().0]);
        let merged = merge(&a, &b);
        let on_done = merged.on_done(move |err| {
            assert!(why(err) == "b" || gather.is_done(), "the callback runs before all are told");
        });
        let cancel = cancelling(cancel_a, "a");
        assert!(cancel_b.cancel_with("b") && cancel.join());
        seen.note(told(&merged).unwrap());
        drop(on_done);
    });
}

/// A callback that finds `ctx` done, and counts.
fn sees_done(ctx: &Context) -> (Runs, impl FnOnce(&Error) + Send + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (counted, ctx) = (Arc::clone(&runs), ctx.clone());
    let callback = move |_: &Error| {
        assert!(ctx.is_done(), "the callback runs before all are told");
        counted.fetch_add(1, Ordering::SeqCst);
    };
    (Runs(runs), callback)
}
