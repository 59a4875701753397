//! Tasks that fail together.
#![cfg(not(any(context_merge_loom, context_merge_shuttle)))]

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_merge::{Context, Error, Group};
use futures::FutureExt as _;
use tokio::sync::Barrier;
use tokio::task::yield_now;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Ends with the context alone, and takes a second to put things away.
async fn until_told(ctx: Context, ended: Arc<AtomicUsize>) -> Result<u8, Error> {
    let told = ctx.run(pending()).await;
    sleep(SECOND).await;
    ended.fetch_add(1, Ordering::Relaxed);
    told
}

#[tokio::test(start_paused = true)]
async fn values_come_in_the_order_of_spawning() {
    let mut group = Group::new(&Context::background());
    for n in 0..5_u32 {
        group.spawn(async move |ctx| ctx.sleep(SECOND * (5 - n)).await.map(|()| n));
    }
    assert_eq!(group.join().await.unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(Group::<u8>::new(&Context::background()).join().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_rest_is_the_cause_and_all_have_ended() {
    let (mut group, ended) = (Group::new(&Context::background()), Arc::new(AtomicUsize::new(0)));
    for _ in 0..3 {
        group.spawn(|ctx| until_told(ctx, Arc::clone(&ended)));
    }
    group.spawn(async |_| {
        sleep(SECOND).await;
        Err("first")
    });
    group.spawn(async |_| {
        sleep(SECOND * 2).await;
        Err("second")
    });
    let err = group.join().await.unwrap_err();
    assert!(err.is_cancelled());
    assert_eq!(err.cause().unwrap().to_string(), "first");
    assert_eq!(ended.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_before_anybody_joins() {
    let mut group = Group::<u8>::new(&Context::background());
    group.spawn(async |_| Err("at once"));
    assert_eq!(group.context().done().await.cause().unwrap().to_string(), "at once");
    group.spawn(async |ctx| ctx.check().map(|()| 1));
    assert_eq!(group.join().await.unwrap_err().cause().unwrap().to_string(), "at once");
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_was_first_is_the_error() {
    let (parent, canceller) = Context::background().with_cancel();
    for deadline in [false, true] {
        let ctx = if deadline { Context::background().with_timeout(SECOND) } else { parent.clone() };
        let (mut group, ended) = (Group::new(&ctx), Arc::default());
        group.spawn(|ctx| until_told(ctx, ended));
        canceller.cancel_with("hung up");
        let err = group.join().await.unwrap_err();
        assert_eq!(err.is_deadline_exceeded(), deadline);
        assert_eq!(err.cause().map(ToString::to_string), (!deadline).then(|| "hung up".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_finish_that_nobody_minded_is_no_failure() {
    let (ctx, canceller) = Context::background().with_cancel();
    let mut group = Group::new(&ctx);
    group.spawn(async |_| {
        sleep(SECOND).await;
        Ok::<_, Error>(())
    });
    canceller.cancel();
    assert_eq!(group.join().await.unwrap(), [()]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_stays_below() {
    let (parent, _canceller) = Context::background().with_cancel();
    let mut group = Group::<u8>::new(&parent);
    group.spawn(async |_| Err("mine"));
    assert!(group.join().await.is_err() && !parent.is_done());
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_the_rest_and_goes_on() {
    let (mut group, ended) = (Group::new(&Context::background()), Arc::new(AtomicUsize::new(0)));
    let why = Arc::new(Mutex::new(None));
    group.spawn(|ctx| until_told(ctx, Arc::clone(&ended)));
    let told = Arc::clone(&why);
    group.spawn(async move |ctx| {
        *told.lock().unwrap() = ctx.done().await.cause().map(ToString::to_string);
        Ok::<_, Error>(1)
    });
    group.spawn(async |_| if true { panic!("a task") } else { Ok::<_, Error>(1) });
    let joined = tokio::spawn(group.join()).await;
    assert_eq!(joined.unwrap_err().into_panic().downcast_ref(), Some(&"a task"));
    assert_eq!(ended.load(Ordering::Relaxed), 1, "they were waited for");
    assert_eq!(why.lock().unwrap().as_deref(), Some("a task of the group panicked"));
}

#[tokio::test(start_paused = true)]
async fn dropping_it_cancels_and_aborts() {
    let (mut group, ended) = (Group::new(&Context::background()), Arc::new(AtomicUsize::new(0)));
    let (ctx, dropped) = (group.context().clone(), Arc::new(()));
    let held = Arc::clone(&dropped);
    group.spawn(|ctx| until_told(ctx, Arc::clone(&ended)));
    group.spawn(async move |_| {
        let _held = held;
        pending::<Result<u8, Error>>().await
    });
    yield_now().await;
    assert!(group.join().now_or_never().is_none());
    assert_eq!(ctx.err().unwrap().cause().unwrap().to_string(), "the group is over");
    while Arc::strong_count(&dropped) > 1 {
        yield_now().await;
    }
    assert_eq!(ended.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_derived_from_it_ends_with_it() {
    let group = Group::<u8>::new(&Context::background());
    let below = group.context().with_timeout(SECOND);
    group.join().await.unwrap();
    assert!(below.err().unwrap().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_failures_that_race_one_is_the_cause_for_all() {
    for _ in 0..100 {
        let (mut group, together) = (Group::<u8>::new(&Context::background()), Arc::new(Barrier::new(2)));
        for name in ["a", "b"] {
            let together = Arc::clone(&together);
            group.spawn(async move |_| {
                together.wait().await;
                Err(name)
            });
        }
        let ctx = group.context().clone();
        let err = group.join().await.unwrap_err();
        let told = ctx.err().unwrap();
        assert!(std::ptr::addr_eq(err.cause().unwrap(), told.cause().unwrap()));
    }
}
