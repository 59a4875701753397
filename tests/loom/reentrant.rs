//! Wakers that come back into the crate while they are woken or dropped, under calls of others (rules 4 and 6).

use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use context_merge::{Context, merge};

use crate::exploring::Bound::{Preemptions, Unbounded};
use crate::exploring::{Waiter, acting, cancelling, model, source, told};

/// Parks a waiter on `ctx` whose waker does `act`.
fn parked_with(ctx: &Context, act: impl FnOnce() + Send + 'static) -> Waiter {
    let mut waiter = Waiter::new(ctx);
    assert!(waiter.poll_with(&acting(act)).is_pending());
    waiter
}

#[test]
fn a_waker_looks_and_merges() {
    model(Preemptions(4), &["live across", "done across", "done around"], |seen| {
        let (ctx, canceller) = source();
        let other = source();
        let _waiter = parked_with(&ctx, {
            let (ctx, other) = (ctx.clone(), other.0.clone());
            move || {
                for ctx in [merge(&ctx, &other), merge(&other, &ctx), ctx.with_cancel().0, ctx.relay(), ctx] {
                    assert_eq!(told(&ctx).as_deref(), Some("over"));
                }
            }
        });
        let cancel = cancelling(canceller, "over");
        let (made, lay) = cancel.against(|| merge(&ctx, &other.0));
        let early = told(&made);
        assert!(cancel.join());
        assert_eq!(told(&made).as_deref(), Some("over"));
        seen.note(format!("{} {lay}", if early.is_some() { "done" } else { "live" }));
    });
}

/// The woken one polls another future of the same source, while that source's list is registered in.
#[test]
fn a_waker_polls_another_future_of_its_source() {
    model(Preemptions(5), &["parked across", "ready across", "ready around"], |seen| {
        let (ctx, canceller) = source();
        let mut second = Waiter::new(&ctx);
        let count = second.count();
        let _waiter = parked_with(&ctx, move || assert!(second.poll().is_ready(), "the source is done"));
        let cancel = cancelling(canceller, "over");
        let mut third = Waiter::new(&ctx);
        let (first, lay) = cancel.against(|| third.poll());
        assert!(cancel.join());
        assert!(first.is_ready() || third.woken() == 1, "a wake-up is lost");
        assert!(count.is_left_nowhere());
        seen.note(format!("{} {lay}", if first.is_ready() { "ready" } else { "parked" }));
        third.drop_whole();
    });
}

/// The woken one polls a future of a source that is being cancelled: it is ready, or will be woken.
#[test]
fn a_waker_registers_with_a_source_being_cancelled() {
    model(Preemptions(5), &["parked around", "ready across", "ready around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let mut second = Waiter::new(&b);
        let count = second.count();
        let first = Arc::new(Mutex::new(None));
        let _waiter = parked_with(&a, {
            let first = Arc::clone(&first);
            move || {
                let poll = second.poll();
                *first.lock().unwrap() = Some((poll, second));
            }
        });
        let cancel = cancelling(cancel_a, "a");
        let (won, lay) = cancel.against(|| cancel_b.cancel_with("b"));
        assert!(won && cancel.join());
        let (first, second) = first.lock().unwrap().take().expect("woken");
        assert!(first.is_ready() || count.woken() == 1, "a wake-up is lost");
        drop(second);
        assert!(count.is_left_nowhere(), "a waiter is left behind");
        seen.note(format!("{} {lay}", if first.is_ready() { "ready" } else { "parked" }));
    });
}

/// The woken one drops a future that another cancel is about to wake.
#[test]
fn a_waker_drops_a_waiter_that_is_being_woken() {
    model(Unbounded, &["woken 1 around", "woken 2 across"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let second = Waiter::parked(&merge(&a, &b));
        let count = second.count();
        let _waiter = parked_with(&a, move || drop(second));
        let cancel = cancelling(cancel_a, "a");
        let (won, lay) = cancel.against(|| cancel_b.cancel_with("b"));
        assert!(won && cancel.join());
        assert!(count.is_left_nowhere(), "a waiter is left behind");
        seen.note(format!("woken {} {lay}", count.woken()));
    });
}

#[test]
fn a_waker_cancels_another_source_that_is_being_cancelled() {
    model(Preemptions(4), &["a first, lost around", "a first, won around", "main first, won around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let merged = merge(&a, &b);
        let waiter = Waiter::parked(&merged);
        let by_waker = Arc::new(Mutex::new(None));
        let _waiter = parked_with(&a, {
            let (cancel_b, by_waker) = (cancel_b.clone(), Arc::clone(&by_waker));
            move || *by_waker.lock().unwrap() = Some(cancel_b.cancel_with("waker"))
        });
        let cancel = cancelling(cancel_a, "a");
        let (won, lay) = cancel.against(|| cancel_b.cancel_with("main"));
        assert!(cancel.join());
        assert_eq!(*by_waker.lock().unwrap(), Some(!won), "one of the two is the one");
        assert_eq!(told(&b).as_deref(), Some(if won { "main" } else { "waker" }));
        let story = told(&merged).unwrap();
        assert!(story == "a" || (won && story == "main"), "the waker ran after a");
        assert!((1..=2).contains(&waiter.woken()));
        seen.note(format!("{story} first, {} {lay}", if won { "won" } else { "lost" }));
    });
}

/// Each waker cancels the source of the other, from two threads: nobody waits for anybody.
#[test]
fn two_wakers_cancel_each_others_source() {
    model(Preemptions(3), &["false and true around", "true and false around", "true and true around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let _waiters = [(&a, cancel_b.clone()), (&b, cancel_a.clone())].map(|(ctx, canceller)| {
            parked_with(ctx, move || {
                canceller.cancel_with("waker");
            })
        });
        let cancel = cancelling(cancel_a, "a");
        let (won, lay) = cancel.against(|| cancel_b.cancel_with("b"));
        let other = cancel.join();
        assert!(won || other, "one was there before any waker");
        assert_eq!(told(&a).as_deref(), Some(if other { "a" } else { "waker" }));
        assert_eq!(told(&b).as_deref(), Some(if won { "b" } else { "waker" }));
        assert_eq!(told(&merge(&a, &b)), told(&merge(&b, &a)));
        seen.note(format!("{other} and {won} {lay}"));
    });
}

/// A waker that does something when it is dropped.
struct Dropping(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for Dropping {
    fn drop(&mut self) {
        self.0.take().unwrap()();
    }
}

impl Wake for Dropping {
    fn wake(self: Arc<Self>) {}
}

/// A waker that is replaced drops another waiter of the same list on its way out.
#[test]
fn a_replaced_waker_drops_a_waiter() {
    model(
        Preemptions(5),
        &["parked, the other woken 0 across", "ready, the other woken 0 around", "ready, the other woken 1 around"],
        |seen| {
            let (ctx, canceller) = source();
            let second = Waiter::parked(&ctx);
            let count = second.count();
            let second = Mutex::new(Some(second));
            let old = Waker::from(Arc::new(Dropping(Some(Box::new(move || drop(second.lock().unwrap().take()))))));
            let mut waiter = Waiter::new(&ctx);
            assert!(waiter.poll_with(&old).is_pending());
            drop(old);
            let cancel = cancelling(canceller, "over");
            let (poll, lay) = cancel.against(|| waiter.poll());
            assert!(cancel.join());
            assert!(poll.is_ready() || waiter.woken() == 1, "a wake-up is lost");
            assert!(count.is_left_nowhere(), "a waiter is left behind");
            seen.note(format!(
                "{}, the other woken {} {lay}",
                if poll.is_ready() { "ready" } else { "parked" },
                count.woken()
            ));
            waiter.drop_whole();
        },
    );
}

/// The woken one drops the last canceller of its source, and of another that is being polled.
#[test]
fn a_waker_drops_the_last_canceller_of_a_source_being_polled() {
    model(Unbounded, &["across", "around"], |seen| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let _waiter = parked_with(&a, move || drop(cancel_b));
        let mut second = Waiter::new(&b);
        let cancel = cancelling(cancel_a, "a");
        let (poll, lay) = cancel.against(|| second.poll());
        assert!(cancel.join());
        assert!(poll.is_pending() && second.woken() == 0, "dropping a canceller is not a cancel");
        seen.note(lay);
        second.drop_whole();
    });
}
