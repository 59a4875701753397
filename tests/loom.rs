//! The same bodies as loom models and as plain tests.
//!
//! `RUSTFLAGS="--cfg context_merge_loom" cargo test --release --test loom` runs each through every interleaving of up
//! to three preemptions; under loom a set is gathered from three sources on. Without the flag each runs many times on
//! real threads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};

use context_merge::{Canceller, Context, DoneOwned, any_of, merge};

#[cfg(context_merge_loom)]
use loom::thread;
#[cfg(not(context_merge_loom))]
use std::thread;

#[cfg(context_merge_loom)]
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(body);
}

#[cfg(not(context_merge_loom))]
fn model(body: impl Fn() + Send + Sync + 'static) {
    (0..500).for_each(|_| body());
}

/// Counts without a switch of loom's, as a waker of somebody else's would.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(done: &mut Pin<Box<DoneOwned>>, waker: &Arc<Counting>) -> Poll<String> {
    let waker = Waker::from(Arc::clone(waker));
    done.as_mut().poll(&mut std::task::Context::from_waker(&waker)).map(|err| why(&err))
}

fn why(err: &context_merge::Error) -> String {
    err.cause().map(ToString::to_string).unwrap_or_default()
}

fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Polls `ctx` against a cancel: pending means that the waker was woken once the cancel has returned.
fn parked_is_woken(ctx: Context, canceller: Canceller) {
    let cancel = thread::spawn(move || canceller.cancel_with("over"));
    let waker = Arc::new(Counting::default());
    let mut done = Box::pin(ctx.done_owned());
    let first = poll(&mut done, &waker);
    assert!(cancel.join().unwrap());
    if first.is_pending() {
        assert_eq!(waker.0.load(Ordering::SeqCst), 1, "a wake-up is lost");
    }
    assert_eq!(poll(&mut done, &waker), Poll::Ready("over".into()));
    drop(done);
    assert_eq!(Arc::strong_count(&waker), 1, "a waiter is left behind");
}

#[test]
fn register_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        parked_is_woken(merge(source().0, ctx), canceller);
    });
}

#[test]
fn register_through_a_relay_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        parked_is_woken(ctx.relay(), canceller);
    });
}

#[test]
fn register_through_a_gather_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        parked_is_woken(any_of([source().0, ctx, source().0]), canceller);
    });
}

#[test]
fn gathering_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let others = [source(), source()];
        let cancel = thread::spawn(move || canceller.cancel_with("over"));
        let all = any_of([&others[0].0, &ctx, &others[1].0]);
        let waker = Arc::new(Counting::default());
        let mut done = Box::pin(all.relay().done_owned());
        let first = poll(&mut done, &waker);
        assert!(cancel.join().unwrap());
        assert!(all.is_done(), "the cancel has returned");
        assert!(first.is_ready() || waker.0.load(Ordering::SeqCst) == 1);
        assert_eq!(poll(&mut done, &waker), Poll::Ready("over".into()));
    });
}

/// The one who links the relay in tells the other, which may be after the cancel has returned.
#[test]
fn two_waiters_activate_one_relay_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let wait = |relay: Context| {
            let waker = Arc::new(Counting::default());
            let mut done = Box::pin(relay.done_owned());
            (poll(&mut done, &waker), done, waker)
        };
        let other = thread::spawn({
            let relay = relay.clone();
            move || wait(relay)
        });
        let cancel = thread::spawn(move || canceller.cancel_with("over"));
        let mine = wait(relay);
        assert!(cancel.join().unwrap());
        for (first, mut done, waker) in [mine, other.join().unwrap()] {
            assert!(first.is_ready() || waker.0.load(Ordering::SeqCst) == 1, "a wake-up is lost");
            assert_eq!(poll(&mut done, &waker), Poll::Ready("over".into()));
        }
    });
}

#[test]
fn dropping_a_relay_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let relay = ctx.relay();
        let waker = Arc::new(Counting::default());
        let mut done = Box::pin(relay.done_owned());
        assert!(poll(&mut done, &waker).is_pending());
        let cancel = thread::spawn(move || canceller.cancel());
        drop((relay, done));
        assert!(cancel.join().unwrap());
        assert_eq!(Arc::strong_count(&waker), 1);
    });
}

#[test]
fn repolling_with_a_new_waker_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let (old, new) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
        let mut done = Box::pin(ctx.done_owned());
        assert!(poll(&mut done, &old).is_pending());
        let cancel = thread::spawn(move || canceller.cancel());
        let second = poll(&mut done, &new);
        assert!(cancel.join().unwrap());
        assert!(second.is_ready() || new.0.load(Ordering::SeqCst) == 1, "the newest waker is the one to wake");
        assert!(poll(&mut done, &new).is_ready());
        assert_eq!((Arc::strong_count(&old), old.0.load(Ordering::SeqCst) <= 1), (1, true));
    });
}

#[test]
fn dropping_a_future_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let waker = Arc::new(Counting::default());
        let mut done = Box::pin(merge(&ctx, source().0).done_owned());
        assert!(poll(&mut done, &waker).is_pending());
        let cancel = thread::spawn(move || canceller.cancel());
        drop(done);
        assert!(cancel.join().unwrap());
        assert_eq!(Arc::strong_count(&waker), 1);
    });
}

#[test]
fn two_cancels_and_two_observers_tell_one_story() {
    static EARLY: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];
    model(|| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let (ab, ba) = (merge(&a, &b), merge(&b, &a));
        let cancels = [(cancel_a, "a"), (cancel_b, "b")]
            .map(|(canceller, name)| thread::spawn(move || canceller.cancel_with(name)));
        let early = [&ab, &ba].map(|ctx| ctx.err().as_ref().map(why));
        for cancel in cancels {
            assert!(cancel.join().unwrap(), "each was the first of its own context");
        }
        let story = ab.err().as_ref().map(why);
        assert_eq!(story, ba.err().as_ref().map(why));
        assert_eq!(story, merge(&a, &b).err().as_ref().map(why), "also for a context made later");
        assert_eq!(story, merge(&b, &a).err().as_ref().map(why));
        for told in early {
            let seen = ["a", "b"].iter().position(|name| told.as_deref() == Some(*name)).map_or(0, |which| which + 1);
            EARLY[seen].fetch_add(1, Ordering::Relaxed);
            assert!(told.is_none() || told == story, "an answer changed");
        }
    });
    // That the observers came between at all, and found either.
    if cfg!(context_merge_loom) {
        assert!(EARLY.iter().all(|seen| seen.load(Ordering::Relaxed) > 0), "{EARLY:?}");
    }
}

#[test]
fn a_cancel_that_returned_before_is_first() {
    model(|| {
        let (a, cancel_a) = source();
        let (b, cancel_b) = source();
        let observer = thread::spawn({
            let ab = merge(&a, &b);
            move || ab.err().as_ref().map(why)
        });
        cancel_b.cancel_with("b");
        cancel_a.cancel_with("a");
        assert_ne!(observer.join().unwrap().as_deref(), Some("a"));
        assert_eq!(merge(&a, &b).err().as_ref().map(why).as_deref(), Some("b"));
    });
}

#[test]
fn one_of_two_cancels_is_the_one() {
    model(|| {
        let (ctx, canceller) = source();
        let other = thread::spawn({
            let (canceller, ctx) = (canceller.clone(), ctx.clone());
            move || {
                let won = canceller.cancel_with("other");
                assert!(ctx.is_done());
                won
            }
        });
        let won = canceller.cancel_with("main");
        assert!(ctx.is_done());
        assert_eq!(usize::from(won) + usize::from(other.join().unwrap()), 1);
        assert_eq!(ctx.err().as_ref().map(why).as_deref(), Some(if won { "main" } else { "other" }));
    });
}

#[test]
fn parent_and_child_cancelled_at_once() {
    model(|| {
        let (parent, cancel_parent) = source();
        let (child, cancel_child) = parent.with_cancel();
        let other = thread::spawn(move || cancel_parent.cancel_with("parent"));
        let won = cancel_child.cancel_with("child");
        assert_eq!(cancel_child.is_cancelled(), won);
        assert!(other.join().unwrap());
        assert_eq!(child.err().as_ref().map(why).as_deref(), Some(if won { "child" } else { "parent" }));
        assert_eq!(parent.err().as_ref().map(why).as_deref(), Some("parent"));
    });
}

#[test]
fn registering_a_callback_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let cancel = thread::spawn(move || canceller.cancel());
        let ran = Arc::new(AtomicUsize::new(0));
        let on_done = merge(&ctx, source().0).on_done({
            let ran = Arc::clone(&ran);
            move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(cancel.join().unwrap());
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        assert!(!on_done.stop());
        assert_eq!(Arc::strong_count(&ran), 1);
    });
}

#[test]
fn stopping_a_callback_against_cancel() {
    model(|| {
        let (ctx, canceller) = source();
        let ran = Arc::new(AtomicUsize::new(0));
        let on_done = ctx.on_done({
            let ran = Arc::clone(&ran);
            move |_| {
                ran.fetch_add(1, Ordering::SeqCst);
            }
        });
        let cancel = thread::spawn(move || canceller.cancel());
        let stopped = on_done.stop();
        assert!(cancel.join().unwrap());
        assert_eq!(ran.load(Ordering::SeqCst), usize::from(!stopped));
        assert_eq!(Arc::strong_count(&ran), 1);
    });
}

#[test]
fn the_last_canceller_against_registering() {
    model(|| {
        let (ctx, canceller) = source();
        let token = Arc::new(());
        let gone = thread::spawn(move || drop(canceller));
        let relay = ctx.relay();
        for ctx in [&ctx, &relay] {
            let token = Arc::clone(&token);
            ctx.on_done(move |_| drop(token)).detach();
        }
        gone.join().unwrap();
        drop((ctx, relay));
        assert_eq!(Arc::strong_count(&token), 1, "a detached callback keeps itself alive");
    });
}
