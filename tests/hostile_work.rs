//! Rules 7, 17 and 18 against work that panics, and that cancels the context it runs under.

mod support;

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use context_merge::{Canceller, Context, FutureExt, StreamExt, merge};
use futures::future::FusedFuture as _;
use futures::stream::{self, FusedStream as _, Stream};
use support::{Counting, OnDrop, adding, panic_of, poll, ways_to_see};

fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Work, and a stream, that does one thing when polled and one when dropped.
struct Work {
    polled: Box<dyn FnMut() -> Poll<u32> + Send>,
    _dropped: OnDrop<Box<dyn FnMut() + Send>>,
}

fn work(polled: impl FnMut() -> Poll<u32> + Send + 'static, dropped: impl FnMut() + Send + 'static) -> Work {
    Work { polled: Box::new(polled), _dropped: OnDrop(Box::new(dropped)) }
}

impl Future for Work {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<u32> {
        (self.polled)()
    }
}

impl Stream for Work {
    type Item = u32;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u32>> {
        (self.polled)().map(Some)
    }
}

fn next<S: Stream + Unpin>(stream: &mut S, waker: &Arc<Counting>) -> Poll<Option<S::Item>> {
    poll(Box::pin(poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx))).as_mut(), waker)
}

/// Rules 7 and 17: work that panics when polled is dropped with its future, and leaves nothing behind.
#[test]
fn work_that_panics_when_polled() {
    let (root, canceller) = source();
    let (ways, _keep) = ways_to_see(&root);
    let (waker, dropped) = (Counting::new(), Arc::new(AtomicUsize::new(0)));
    for ctx in &ways {
        let flaky = || {
            let mut polls = 0;
            work(
                move || {
                    polls += 1;
                    assert!(polls != 2, "work");
                    Poll::Pending
                },
                adding(&dropped),
            )
        };
        let mut run = Box::pin(ctx.run(flaky()));
        let mut owned = Box::pin(FutureExt::with_context(flaky(), ctx));
        let mut items = Box::pin(StreamExt::with_context(flaky(), ctx));
        assert!(poll(run.as_mut(), &waker).is_pending() && poll(owned.as_mut(), &waker).is_pending());
        assert!(next(&mut items, &waker).is_pending());
        assert_eq!(panic_of(|| poll(run.as_mut(), &waker)), "work");
        assert_eq!(panic_of(|| poll(owned.as_mut(), &waker)), "work");
        assert_eq!(panic_of(|| next(&mut items, &waker)), "work");
        assert!(!run.is_terminated() && !items.is_terminated());
        assert!(poll(run.as_mut(), &waker).is_pending(), "it is work's own affair whether it goes on");
        drop((run, owned, items));
        assert_eq!(Arc::strong_count(&waker), 1);
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 9);
    assert!(canceller.cancel());
}

/// Rules 7 and 18: work that panics when it is dropped, because it is ready, or because the context is done.
#[test]
fn work_that_panics_when_dropped() {
    let waker = Counting::new();
    let bad = |result| work(move || result, || panic!("drop"));
    for polled_before in [false, true] {
        let (ctx, canceller) = source();
        let ctx = merge(&ctx, source().0);
        let mut run = Box::pin(ctx.run(bad(Poll::Pending)));
        let mut items = Box::pin(StreamExt::with_context(bad(Poll::Pending), &ctx));
        if polled_before {
            assert!(poll(run.as_mut(), &waker).is_pending() && next(&mut items, &waker).is_pending());
        }
        canceller.cancel();
        assert_eq!(panic_of(|| poll(run.as_mut(), &waker)), "drop");
        assert_eq!(panic_of(|| next(&mut items, &waker)), "drop");
        assert!(run.is_terminated() && items.is_terminated(), "the work is gone, and is not dropped again");
        assert_eq!(next(&mut items, &waker).map(|item| item.is_none()), Poll::Ready(true));
        drop((run, items));
        assert_eq!(Arc::strong_count(&waker), 1);
    }
    let (ctx, _canceller) = source();
    let mut ready = Box::pin(ctx.run(bad(Poll::Ready(1))));
    assert_eq!(panic_of(|| poll(ready.as_mut(), &waker)), "drop");
    drop(ready);
    let abandoned = ctx.run(bad(Poll::Pending));
    assert_eq!(panic_of(|| drop(abandoned)), "drop");
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 18: work that cancels its own context: a result at the same poll wins, and the drop comes before the error.
#[test]
fn work_that_cancels_its_own_context() {
    let waker = Counting::new();
    for way in 0..3 {
        for result in [Poll::Ready(1), Poll::Pending] {
            let (root, canceller) = source();
            let (ways, _keep) = ways_to_see(&root);
            let ctx = &ways[way];
            let cancels = move |canceller: &Canceller| {
                let canceller = canceller.clone();
                move || {
                    canceller.cancel_with("work");
                    result
                }
            };
            let mut run = Box::pin(ctx.run(work(cancels(&canceller), || {})));
            let mut owned = Box::pin(FutureExt::with_context(work(cancels(&canceller), || {}), root.without_cancel()));
            let Poll::Ready(out) = poll(run.as_mut(), &waker) else { panic!("neither ready nor finished") };
            assert_eq!(
                out.map_err(|err| err.cause().unwrap().to_string()),
                match result {
                    Poll::Ready(result) => Ok(result),
                    Poll::Pending => Err("work".to_owned()),
                }
            );
            assert_eq!(poll(owned.as_mut(), &waker).map(|out| out.unwrap()), result, "not under that context");

            let (root, canceller) = source();
            let (ways, _keep) = ways_to_see(&root);
            let mut items = Box::pin(StreamExt::with_context(work(cancels(&canceller), || {}), &ways[way]));
            let first = next(&mut items, &waker);
            assert!(matches!(
                (result, first),
                (Poll::Ready(_), Poll::Ready(Some(Ok(1)))) | (Poll::Pending, Poll::Ready(Some(Err(_))))
            ));
            assert_eq!(items.is_terminated(), result.is_pending());
        }
        let (root, canceller) = source();
        let (ways, _keep) = ways_to_see(&root);
        let ctx = ways[way].clone();
        let again = canceller.clone();
        let dropped = move || assert!(again.cancel_with("drop") && ctx.is_done());
        let mut run = Box::pin(ways[way].run(work(|| Poll::Ready(2), dropped)));
        assert_eq!(poll(run.as_mut(), &waker).map(|out| out.ok()), Poll::Ready(Some(2)));
        assert!(canceller.is_cancelled());
    }
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 18: streams of other people's that go wrong behind an adapter are left alone after the end.
#[test]
fn streams_that_are_not_fused() {
    let waker = Counting::new();
    let (ctx, _canceller) = source();
    let mut polls = 0;
    let unfused = stream::poll_fn(move |_| {
        polls += 1;
        assert!(polls < 3, "polled after its end");
        Poll::Ready((polls == 1).then_some(polls))
    });
    let mut items = Box::pin(StreamExt::with_context(unfused, &ctx));
    assert!(matches!(next(&mut items, &waker), Poll::Ready(Some(Ok(1)))));
    assert!(matches!(next(&mut items, &waker), Poll::Ready(None)));
    assert!(matches!(next(&mut items, &waker), Poll::Ready(None)));
}

/// Rules 6 and 7: the event of an `until` that panics when dropped, or uses its own context, harms nobody.
#[tokio::test]
async fn events_that_panic_or_call_back() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (add, alive) = (adding(&dropped), Context::until(async {}));
    let state = OnDrop(move || {
        add();
        panic!("event");
    });
    let ctx = Context::until(async move {
        let _state = state;
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    drop(ctx);
    tokio::task::yield_now().await;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert!(alive.done().await.is_cancelled());

    let own = Arc::new(std::sync::OnceLock::<Context>::new());
    let looks = Arc::clone(&own);
    let ctx = Context::until(async move {
        let own = looks.get().unwrap();
        assert!(!own.is_done() && own.on_done(|_| {}).stop());
        own.on_done(|_| panic!("callback")).detach();
    });
    assert!(own.set(ctx.clone()).is_ok());
    assert!(ctx.done().await.is_cancelled());
    assert!(ctx.relay().is_done());
}
