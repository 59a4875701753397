//! A `CancellationToken` as a context, and a context as a token.
#![cfg(feature = "tokio-util")]

mod support;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use context_merge::tokio_util::token;
use context_merge::{Canceller, Context, any_of, merge};
use support::{Counting, adding, calling, panic_of, poll, poll_with, within};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, timeout};
use tokio_util::sync::CancellationToken;

fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Whether the waker is in no list any more.
fn is_let_go(waker: &Arc<Counting>) -> bool {
    Arc::strong_count(waker) == 1
}

#[test]
fn a_token_finishes_what_is_merged_with_it() {
    let (stop, (ctx, _canceller)) = (CancellationToken::new(), source());
    let all =
        [Context::from(&stop), Context::from(stop.clone()), merge(&ctx, &stop), merge(stop.clone(), &ctx).relay()];
    assert!(all.iter().all(|ctx| !ctx.is_done()));
    stop.cancel();
    for ctx in &all {
        let err = ctx.err().unwrap();
        assert!(err.is_cancelled() && err.cause().is_none() && err.origin().is_none());
    }
    assert!(!ctx.is_done(), "an input");
}

#[test]
fn a_token_that_was_cancelled_before() {
    let stop = CancellationToken::new();
    stop.cancel();
    let shutdown = Context::from(&stop);
    let ctx = merge(source().0, &shutdown);
    assert!(ctx.is_done() && ctx.finished_by(&shutdown));
    assert!(poll(pin!(ctx.run(async { unreachable!("the work is not polled") })), &Counting::new()).is_ready());
}

#[test]
fn another_input_is_first_and_the_token_is_left_alone() {
    let (stop, (ctx, canceller)) = (CancellationToken::new(), source());
    let both = merge(&ctx, &stop);
    canceller.cancel_with("hung up");
    assert!(!stop.is_cancelled());
    stop.cancel();
    assert_eq!(both.err().unwrap().cause().unwrap().to_string(), "hung up");
}

#[test]
fn who_waits_is_woken() {
    let (stop, (ctx, _canceller)) = (CancellationToken::new(), source());
    let both = merge(&ctx, &stop);
    let wakers = [(); 3].map(|()| Counting::new());
    let (mut done, mut owned, mut run) = (pin!(both.done()), pin!(both.done_owned()), pin!(both.run(pending::<()>())));
    assert!(poll(done.as_mut(), &wakers[0]).is_pending());
    assert!(poll(owned.as_mut(), &wakers[1]).is_pending());
    assert!(poll(run.as_mut(), &wakers[2]).is_pending());
    stop.cancel();
    assert_eq!(wakers.each_ref().map(|waker| waker.woken()), [1; 3]);
    assert!(matches!(poll(done, &wakers[0]), Poll::Ready(err) if err.is_cancelled()));
    assert!(matches!(poll(owned, &wakers[1]), Poll::Ready(err) if err.is_cancelled()));
    assert!(matches!(poll(run, &wakers[2]), Poll::Ready(Err(err)) if err.is_cancelled()));
}

#[test]
fn no_waiter_is_left_in_the_token() {
    let (stop, (ctx, canceller)) = (CancellationToken::new(), source());
    let (both, waker) = (merge(&ctx, &stop), Counting::new());
    {
        let mut done = pin!(both.done());
        assert!(poll(done.as_mut(), &waker).is_pending());
        assert!(!is_let_go(&waker));
    }
    assert!(is_let_go(&waker), "dropped");

    let mut run = pin!(both.run(pending::<()>()));
    assert!(poll(run.as_mut(), &waker).is_pending());
    canceller.cancel();
    assert!(poll(run.as_mut(), &waker).is_ready());
    assert!(is_let_go(&waker), "another was first");
}

#[test]
fn dropped_in_any_order() {
    let waker = Counting::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let parent = CancellationToken::new();
        let mut child = Some(parent.child_token());
        let mut ctx = Some(merge(source().0, child.as_ref().unwrap()));
        let mut done = Some(Box::pin(ctx.as_ref().unwrap().done_owned()));
        assert!(poll(done.as_mut().unwrap().as_mut(), &waker).is_pending());
        for next in order {
            match next {
                0 => child = None,
                1 => ctx = None,
                _ => done = None,
            }
            assert_eq!(is_let_go(&waker), done.is_none());
        }
        drop((child, ctx, parent));
    }
    // Also with a parent that is gone, and a cancel after all.
    let child = CancellationToken::new().child_token();
    let mut done = Box::pin(Context::from(&child).done_owned());
    assert!(poll(done.as_mut(), &waker).is_pending());
    child.cancel();
    drop(child);
    assert!(poll(done.as_mut(), &waker).is_ready());
}

#[test]
fn a_child_token() {
    let parent = CancellationToken::new();
    let child = parent.child_token();
    let (of_parent, of_child) = (Context::from(&parent), Context::from(&child));
    let sibling = Context::from(parent.child_token());
    child.cancel();
    assert_eq!([&of_parent, &of_child, &sibling].map(Context::is_done), [false, true, false]);
    parent.cancel();
    assert_eq!([&of_parent, &of_child, &sibling].map(Context::is_done), [true; 3]);
}

/// Rule 23: past eight sources the older ones are gathered behind one; a token never is.
#[test]
fn any_number_of_tokens_and_where_they_stand() {
    let waker = Counting::new();
    for cancelled in 0..20 {
        let tokens: Vec<_> = (0..20).map(|_| CancellationToken::new()).collect();
        let (sources, _cancellers): (Vec<_>, Vec<_>) = (0..20).map(|_| source()).unzip();
        let of_tokens: Vec<_> = tokens.iter().map(Context::from).collect();
        let flat = any_of(of_tokens.iter().chain(&sources));
        let nested = merge(flat.relay(), source().0).relay();
        let mut done = [flat.done_owned(), nested.done_owned()].map(Box::pin);
        assert!(done.iter_mut().all(|done| poll(done.as_mut(), &waker).is_pending()));
        let before = waker.woken();
        tokens[cancelled].cancel();
        assert_eq!(waker.woken() - before, 2);
        for done in &mut done {
            let Poll::Ready(err) = poll(done.as_mut(), &waker) else { panic!("{cancelled} has been cancelled") };
            assert!(err.is_cancelled());
        }
        for ctx in [&flat, &nested] {
            let which: Vec<_> = (0..20).filter(|token| ctx.finished_by(&of_tokens[*token])).collect();
            assert_eq!(which, [cancelled]);
        }
        drop(done);
        assert!(is_let_go(&waker));
    }
}

/// Rule 12.
#[test]
fn a_token_brings_no_values() {
    let (stop, ctx) = (CancellationToken::new(), Context::background().with_value(7));
    assert_eq!(merge(&ctx, &stop).value::<i32>(), Some(&7));
    assert_eq!(merge(&stop, &ctx).value::<i32>(), None);
    assert_eq!(Context::from(&stop).with_values_of(&ctx).value::<i32>(), Some(&7));
    assert!(merge(&ctx, &stop).deadline().is_none());
}

/// Rule 20.
#[test]
fn waiting_on_a_plain_thread() {
    let stop = CancellationToken::new();
    let ctx = merge(source().0.with_timeout(Duration::from_secs(3600)), &stop);
    let waiting = thread::spawn({
        let ctx = ctx.clone();
        move || ctx.wait()
    });
    // Leaves the other time to park.
    assert!(ctx.wait_timeout(Duration::from_millis(20)).is_none());
    stop.cancel();
    assert!(within(|| waiting.join().unwrap()).is_cancelled());
}

#[tokio::test]
async fn a_callback_over_a_token() {
    let (stop, (ctx, canceller)) = (CancellationToken::new(), source());
    let both = merge(&ctx, &stop);
    let calls = Arc::<AtomicUsize>::default();
    let call = || {
        let add = adding(&calls);
        both.on_done(move |_| add())
    };
    let (kept, stopped) = (call(), call());
    call().detach();
    assert!(stopped.stop());
    yield_now().await;
    stop.cancel();
    yield_now().await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    canceller.cancel();
    yield_now().await;
    assert!(!kept.stop());
    assert_eq!(calls.load(Ordering::SeqCst), 2, "once each");
}

/// Rule 6.
#[test]
fn a_token_that_is_cancelled_within_a_callback() {
    within(|| {
        let (stop, (ctx, canceller)) = (CancellationToken::new(), source());
        let child = stop.child_token();
        let seen = Context::from(&child);
        let calls = Arc::<AtomicUsize>::default();
        // The waker of a child looks at the parent, merges it, and cancels once more.
        let waker = calling({
            let (add, stop, of_parent) = (adding(&calls), stop.clone(), Context::from(&stop));
            move || {
                assert!(of_parent.is_done() && merge(source().0, &stop).is_done());
                stop.cancel();
                add();
            }
        });
        let mut done = pin!(seen.done());
        assert!(poll_with(done.as_mut(), &waker).is_pending());
        let on_done = ctx.on_done({
            let both = merge(source().0, &child);
            move |_| {
                stop.cancel();
                assert!(both.is_done());
            }
        });
        canceller.cancel();
        assert!(!on_done.stop());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(poll_with(done, &waker).is_ready());
    });
}

#[test]
fn the_token_of_a_context_that_is_cancelled_later() {
    let (ctx, canceller) = source();
    let (stop, _follows) = token(&ctx.with_value(1));
    let (child, waker) = (stop.child_token(), Counting::new());
    let mut cancelled = pin!(child.cancelled());
    assert!(poll(cancelled.as_mut(), &waker).is_pending());
    assert!(!stop.is_cancelled());
    canceller.cancel();
    assert!(stop.is_cancelled() && child.is_cancelled(), "before cancel returns");
    assert_eq!(waker.woken(), 1);
}

#[test]
fn the_token_of_a_context_that_is_finished() {
    let (stop, follows) = token(&Context::background().with_timeout(Duration::ZERO));
    assert!(stop.is_cancelled());
    assert!(!follows.stop());
    let (stop, follows) = token(&Context::background());
    assert!(!stop.is_cancelled());
    assert!(follows.stop());
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_context_with_a_deadline() {
    let start = Instant::now();
    let (stop, _follows) = token(&Context::background().with_timeout(Duration::from_secs(5)));
    advance(Duration::from_millis(4999)).await;
    assert!(!stop.is_cancelled());
    timeout(Duration::from_secs(1), stop.cancelled()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_context_over_another_token() {
    let (other, (ctx, _canceller)) = (CancellationToken::new(), source());
    let (stop, _follows) = token(&merge(&ctx, &other));
    stop.cancel();
    assert!(!other.is_cancelled(), "nothing goes up");
    let (stop, _follows) = token(&merge(&ctx, &other));
    yield_now().await;
    other.cancel();
    timeout(Duration::from_secs(1), stop.cancelled()).await.unwrap();
}

#[test]
fn a_token_follows_for_as_long_as_it_is_told_to() {
    let (ctx, canceller) = source();
    let (kept, _follows) = token(&ctx);
    let (dropped, _) = token(&ctx);
    let (stopped, follows) = token(&ctx);
    assert!(follows.stop());
    let (detached, follows) = token(&ctx);
    follows.detach();
    canceller.cancel();
    assert_eq!([kept, dropped, stopped, detached].map(|token| token.is_cancelled()), [true, false, false, true]);
}

#[test]
fn cancelling_the_token_does_not_reach_the_context() {
    let (ctx, canceller) = source();
    let (stop, follows) = token(&ctx);
    stop.cancel();
    assert!(!ctx.is_done());
    assert!(canceller.cancel());
    assert!(!follows.stop());
}

#[test]
fn a_signal_needs_a_runtime() {
    let ctx = Context::from(CancellationToken::new());
    assert!(panic_of(|| token(&ctx)).contains("needs a tokio runtime"));
}
