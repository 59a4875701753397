//! Callbacks: each runs once, or was stopped (rule 19); with the last canceller it is let go (rule 15).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use context_merge::{Canceller, Context, OnDone, any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Seen, beside, cancelling, model, source};

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
    model(Preemptions(4), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &merge(&ctx, source().0), [canceller]);
    });
}

#[test]
fn registering_a_callback_with_a_relay_against_cancel() {
    model(Preemptions(4), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &ctx.relay(), [canceller]);
    });
}

#[test]
fn registering_a_callback_with_a_gather_against_cancel() {
    model(Preemptions(5), &["has run across", "has run around", "runs later across"], |seen| {
        let (ctx, canceller) = source();
        registered_runs_once(seen, &any_of([&source().0, &ctx, &source().0]), [canceller]);
    });
}

#[test]
fn registering_a_callback_against_two_cancels() {
    model(Preemptions(3), &["has run around", "runs later across", "runs later around"], |seen| {
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
