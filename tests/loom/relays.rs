//! Relays: linked in by who waits first, and gone with who holds them (rules 15 and 17).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use context_merge::{any_of, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Waiter, acting, beside, cancelling, model, or_live, source, told};
use crate::waiting::{other_source_still_wakes, parked_is_woken};

#[test]
fn register_through_a_relay_against_cancel() {
    model(Preemptions(4), &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        parked_is_woken(seen, ctx.relay(), canceller);
    });
}

#[test]
fn register_through_a_chain_of_relays_against_cancel() {
    model(Preemptions(4), &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        let chain = merge(source().0, ctx).relay().relay();
        parked_is_woken(seen, merge(chain.relay(), source().0), canceller);
    });
}

/// The relay of the merge of a relay with two more: the sources are gathered between one relay and the other.
#[test]
fn register_through_a_relay_of_a_merge_with_a_relay_against_cancel() {
    model(Preemptions(5), &["parked across", "ready across", "ready and woken around", "ready around"], |seen| {
        let (ctx, canceller) = source();
        let relay = merge(source().0, ctx).relay();
        parked_is_woken(seen, any_of([&relay, &source().0, &source().0]).relay(), canceller);
    });
}

#[test]
fn making_a_relay_against_cancel() {
    model(
        Preemptions(4),
        &["live, parked across", "live, ready across", "live, ready around", "over, ready around"],
        |seen| {
            let (ctx, canceller) = source();
            let cancel = cancelling(canceller, "over");
            let ((relay, early, mut waiter, first), lay) = cancel.against(|| {
                let relay = merge(source().0, &ctx).relay();
                let early = told(&relay);
                let mut waiter = Waiter::new(&relay);
                let first = waiter.poll();
                (relay, early, waiter, first)
            });
            assert!(cancel.join());
            assert_eq!(told(&relay).as_deref(), Some("over"), "the cancel has returned");
            assert!(first.is_ready() || waiter.woken() == 1, "a wake-up is lost");
            assert_eq!(waiter.poll(), Poll::Ready("over".into()));
            seen.note(format!(
                "{}, {} {lay}",
                or_live(early.as_deref()),
                if first.is_ready() { "ready" } else { "parked" }
            ));
            waiter.drop_whole();
        },
    );
}

/// The one who links the relay in tells the other, which may be after the cancel has returned.
#[test]
fn two_waiters_activate_one_relay_against_cancel() {
    model(Preemptions(3), &["parked and parked", "parked and ready", "ready and parked", "ready and ready"], |seen| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let other = beside({
            let mut waiter = Waiter::new(&relay);
            move || (waiter.poll(), waiter)
        });
        let cancel = cancelling(canceller, "over");
        let mut waiter = Waiter::new(&relay);
        let first = waiter.poll();
        assert!(cancel.join());
        assert!(first.is_ready() || waiter.woken() == 1, "the cancel has returned");
        let (second, other) = other.join();
        let mut outcome = Vec::new();
        for (first, mut waiter) in [(first, waiter), (second, other)] {
            assert!(first.is_ready() || waiter.woken() == 1, "a wake-up is lost");
            assert_eq!(waiter.poll(), Poll::Ready("over".into()));
            outcome.push(if first.is_ready() { "ready" } else { "parked" });
            waiter.drop_whole();
        }
        seen.note(outcome.join(" and "));
    });
}

/// Rule 4 for two who link a relay in at once, of whom one lets go of its list again, while the cancel is on its way to the
/// gathers.
#[test]
fn a_waker_of_a_relay_that_two_link_sees_the_gathers_done() {
    model(Preemptions(3), &["parked and parked", "parked and ready", "ready and parked", "ready and ready"], |seen| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let gather = any_of([&source().0, &ctx, &source().0]);
        let woken = Arc::new(AtomicUsize::new(0));
        let waker = acting({
            let woken = Arc::clone(&woken);
            move || {
                assert!(gather.is_done(), "woken before all are told");
                woken.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut other = Waiter::new(&relay);
        let linking = beside(move || (other.poll(), other));
        let cancel = cancelling(canceller, "over");
        let mut waiter = Waiter::new(&relay);
        let first = waiter.poll_with(&waker);
        let (theirs, other) = linking.join();
        assert!(cancel.join());
        assert!(first.is_ready() || woken.load(Ordering::SeqCst) == 1, "a wake-up is lost");
        assert!(theirs.is_ready() || other.woken() == 1, "a wake-up is lost");
        let word = |ready| if ready { "ready" } else { "parked" };
        seen.note(format!("{} and {}", word(first.is_ready()), word(theirs.is_ready())));
        drop(waiter);
        other.drop_whole();
    });
}

/// The relay goes with what was registered in it, whether or not the cancel has found its list.
#[test]
fn dropping_a_relay_against_cancel() {
    model(Unbounded, &["let go across", "let go around", "woken across", "woken around"], |seen| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let waiter = Waiter::parked(&relay);
        let count = waiter.count();
        let cancel = cancelling(canceller, "over");
        let ((), lay) = cancel.against(|| drop((relay, waiter)));
        assert!(cancel.join());
        seen.note(format!("{} {lay}", if count.woken() == 0 { "let go" } else { "woken" }));
        assert!(count.is_left_nowhere(), "a waiter is left behind");
    });
}

/// A relay on a relay, each waited on: the middle one goes, and the lower one is woken nevertheless.
#[test]
fn dropping_the_middle_of_a_chain_of_relays_against_cancel() {
    model(Unbounded, &["let go across", "let go around", "woken across", "woken around"], |seen| {
        let (ctx, canceller) = source();
        let middle = merge(source().0, ctx).relay();
        let lower = middle.relay();
        let mut below = Waiter::parked(&lower);
        let waiter = Waiter::parked(&middle);
        let count = waiter.count();
        let cancel = cancelling(canceller, "over");
        let ((), lay) = cancel.against(|| drop((middle, waiter)));
        assert!(cancel.join());
        assert_eq!(below.woken(), 1, "a wake-up is lost");
        assert_eq!(below.poll(), Poll::Ready("over".into()));
        seen.note(format!("{} {lay}", if count.woken() == 0 { "let go" } else { "woken" }));
        assert!(count.is_left_nowhere(), "a waiter is left behind");
        below.drop_whole();
    });
}

/// The relay is half linked in when the canceller of one of its sources goes: it is not let go of for that.
#[test]
fn the_last_canceller_against_linking_a_relay() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        other_source_still_wakes(seen, &merge(&a, &b).relay(), cancel_a, &cancel_b);
    });
}

/// One source of a relay goes while the other one is cancelled: letting go and firing meet in the relay's list.
#[test]
fn the_last_canceller_against_cancel_through_a_relay() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let mut waiter = Waiter::parked(&merge(&a, &b).relay());
        let cancel = cancelling(cancel_b, "over");
        let ((), lay) = cancel.against(|| drop(cancel_a));
        assert!(cancel.join());
        assert_eq!(waiter.woken(), 1, "a wake-up is lost");
        assert_eq!(waiter.poll(), Poll::Ready("over".into()));
        seen.note(lay);
        waiter.drop_whole();
    });
}

/// Both cancellers go at once: the relay's list is let go once, by the later one.
#[test]
fn the_last_cancellers_of_a_relay_go_at_once() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let relay = merge(&a, &b).relay();
        let waiter = Waiter::parked(&relay);
        let gone = beside(move || drop(cancel_a));
        let ((), lay) = gone.against(|| drop(cancel_b));
        gone.join();
        assert_eq!(waiter.woken(), 0, "dropping a canceller is not a cancel");
        seen.note(lay);
        waiter.drop_whole();
    });
}
