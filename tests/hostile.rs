//! Rules 6, 7, 17 and 19 against hostile wakers and callbacks.

mod support;

use std::cell::RefCell;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_merge::{Context, DoneOwned, OnDone, any_of, merge};
use support::{Counting, Hooks, OnDrop, adding, calling, panic_of, poll, poll_with, ways_to_see};

/// Something of the test's, given away in the middle of it.
type Slot<T> = Arc<Mutex<Option<T>>>;

fn slot<T>(value: T) -> Slot<T> {
    Arc::new(Mutex::new(Some(value)))
}

fn take<T>(slot: &Slot<T>) -> Option<T> {
    slot.lock().unwrap().take()
}

/// Nothing of `ctx` and its canceller is broken: it can be waited for, registered with, let go and derived from.
fn still_works(ctx: &Context) {
    let (child, cancel_child) = merge(ctx, Context::background().with_cancel().0).with_cancel();
    let waker = Counting::new();
    let mut done = Box::pin(child.done());
    let before = child.is_done();
    assert_eq!(poll(done.as_mut(), &waker).is_ready(), before);
    let ran = Arc::new(AtomicUsize::new(0));
    let on_done = child.on_done({
        let ran = adding(&ran);
        move |_| ran()
    });
    assert_eq!(cancel_child.cancel(), !before);
    assert_eq!((waker.woken(), ran.load(Ordering::SeqCst)), (usize::from(!before), 1));
    assert!(poll(done.as_mut(), &waker).is_ready() && !on_done.stop());
    drop(done);
    assert_eq!(Arc::strong_count(&waker), 1);
}

/// Rule 7: several wakers panic, in the list of the source and in lists below it; all are woken, the first panic goes on.
#[test]
fn wakers_that_panic_when_woken() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, _keep) = ways_to_see(&root);
    let hooks: Vec<_> = (0..9)
        .map(|i| {
            Arc::new(Hooks::on_wake(move || {
                if i % 2 == 0 {
                    panic!("waker")
                }
            }))
        })
        .collect();
    let counting = Counting::new();
    let mut parked = Vec::new();
    for (i, hooks) in hooks.iter().enumerate() {
        let ctx = &ways[i % 3];
        parked.push(Box::pin(ctx.done()));
        assert!(poll_with(parked[2 * i].as_mut(), &hooks.waker()).is_pending());
        parked.push(Box::pin(ctx.done()));
        assert!(poll(parked[2 * i + 1].as_mut(), &counting).is_pending());
    }
    assert_eq!(panic_of(|| canceller.cancel()), "waker");
    assert_eq!(counting.woken(), 9);
    assert!(hooks.iter().all(|hooks| hooks.clones() == 1), "each future's own clone is left, none in a list");
    assert!(canceller.is_cancelled() && !canceller.cancel());
    assert!(parked.iter_mut().all(|done| poll(done.as_mut(), &counting).is_ready()));
    ways.iter().for_each(still_works);
}

/// Rule 17: a clone that panics, anywhere on the way, leaves the waker of the poll before it or none, and the next
/// poll is woken by every source.
#[test]
fn wakers_that_panic_when_cloned() {
    for (fires, good_clones, polled_before) in
        (0..3).flat_map(|fires| (0..4).flat_map(move |good| [(fires, good, false), (fires, good, true)]))
    {
        let sources: Vec<_> = (0..3).map(|_| Context::background().with_cancel()).collect();
        let ctx = any_of(sources.iter().map(|(ctx, _)| ctx));
        let waker = Counting::new();
        let left = AtomicUsize::new(good_clones);
        let bad = Arc::new(Hooks::on_clone(move || {
            let left = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            assert!(left.is_ok(), "clone");
        }));
        let mut done = Box::pin(ctx.done());
        if polled_before {
            assert!(poll(done.as_mut(), &waker).is_pending());
        }
        assert_eq!(panic_of(|| poll_with(done.as_mut(), &bad.waker())), "clone");
        assert!(poll(done.as_mut(), &waker).is_pending());
        assert_eq!(bad.clones(), 0, "the panicking waker is in no list");
        sources[fires].1.cancel();
        assert_eq!(waker.woken(), 1, "{good_clones} clones succeeded, source {fires} fired");
        drop(done);
        assert_eq!((bad.clones(), Arc::strong_count(&waker)), (0, 1));
        still_works(&sources[(fires + 1) % 3].0);
    }
}

/// Rules 7 and 17: a waker that panics in every drop is still taken out of all lists, and makes one panic.
#[test]
fn wakers_that_panic_when_dropped() {
    let (a, _cancel_a) = Context::background().with_cancel();
    let (ways, _keep) = ways_to_see(&a);
    let (b, cancel_b) = Context::background().with_cancel();
    let bad = || Arc::new(Hooks::on_drop(|| panic!("drop")));
    let waker = |hooks: &Arc<Hooks>| std::mem::ManuallyDrop::new(hooks.waker());
    for ctx in &ways {
        let ctx = any_of([ctx, &b, &Context::background().with_cancel().0]);
        let (dropped, replaced) = (bad(), bad());
        let mut done = Box::pin(ctx.done());
        assert!(poll_with(done.as_mut(), &waker(&dropped)).is_pending());
        assert_eq!(panic_of(|| drop(done)), "drop");
        assert_eq!(dropped.clones(), 1, "gone from all three lists, and from the future");

        let counting = Counting::new();
        let mut done = Box::pin(ctx.done());
        assert!(poll_with(done.as_mut(), &waker(&replaced)).is_pending());
        assert_eq!(panic_of(|| poll(done.as_mut(), &counting)), "drop");
        while std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(done.as_mut(), &counting))).is_err() {}
        assert_eq!(replaced.clones(), 1, "replaced in all three lists, and in the future");
        drop(done);
        assert_eq!(Arc::strong_count(&counting), 1);
        still_works(&ctx);
    }
    // The cancel consumes the waker in b's list; the poll that is ready takes the others out.
    let ctx = merge(&a, &b);
    let hooks = bad();
    let mut done = Box::pin(ctx.done());
    assert!(poll_with(done.as_mut(), &waker(&hooks)).is_pending());
    assert!(cancel_b.cancel());
    assert_eq!(panic_of(|| poll_with(done.as_mut(), &waker(&hooks))), "drop");
    assert!(poll_with(done.as_mut(), &waker(&hooks)).is_ready(), "the panic is over");
}

/// Rules 7 and 15: wakers that panic when they are let go with the last canceller do not keep others from being let go.
#[test]
fn wakers_that_panic_when_let_go() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, _keep) = ways_to_see(&root);
    let relay = root.relay();
    let hooks: Vec<_> = (0..9).map(|i| Arc::new(Hooks::on_drop(move || panic!("waker {i}")))).collect();
    let mut parked: Vec<_> =
        hooks.iter().enumerate().map(|(i, _)| Box::pin([&ways[0], &relay][i % 2].done())).collect();
    for (done, hooks) in parked.iter_mut().zip(&hooks) {
        assert!(poll_with(done.as_mut(), &std::mem::ManuallyDrop::new(hooks.waker())).is_pending());
    }
    assert!(panic_of(|| drop(canceller)).starts_with("waker"));
    assert!(hooks.iter().all(|hooks| hooks.clones() == 2), "one here and one in the future: none in a list");
    for done in parked {
        panic_of(|| drop(done));
    }
    still_works(&root);
}

/// Rule 7: whatever panics while a thread panics already does not make of it two panics.
#[test]
fn during_a_panic() {
    let (root, canceller) = Context::background().with_cancel();
    let (other, cancel_other) = Context::background().with_cancel();
    let counting = Counting::new();
    let hooks: Vec<_> = (0..3).map(|_| Arc::new(Hooks::on_wake(|| panic!("waker")))).collect();
    let mut parked: Vec<_> = (0..4).map(|_| Box::pin(root.done())).collect();
    for (done, hooks) in parked.iter_mut().zip(&hooks) {
        assert!(poll_with(done.as_mut(), &hooks.waker()).is_pending());
    }
    assert!(poll(parked[3].as_mut(), &counting).is_pending());
    for _ in 0..3 {
        let state = OnDrop(|| panic!("state"));
        other.on_done(move |_| drop(state)).detach();
    }
    let said = panic_of(|| {
        let _guard = canceller.clone().drop_guard();
        let _last = cancel_other;
        panic!("the work");
    });
    assert_eq!((said.as_str(), counting.woken()), ("the work", 1));
    assert!(canceller.is_cancelled() && !other.is_done());
    still_works(&root);
    still_works(&other);
}

/// Rules 7 and 19: a callback that panics at once comes out of the registration, and nothing is registered.
#[test]
fn callbacks_that_panic_at_registration() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, _keep) = ways_to_see(&root);
    canceller.cancel();
    for ctx in &ways {
        let token = Arc::new(());
        let held = Arc::clone(&token);
        assert_eq!(panic_of(|| ctx.on_done(move |_| panic!("{:?}", ((), held).0))), "()");
        assert_eq!(Arc::strong_count(&token), 1);
        still_works(ctx);
    }
}

/// Rules 7 and 15: callbacks whose state panics when it is dropped: stopped, dropped, or let go, one or many at once.
#[test]
fn callbacks_whose_state_panics_when_dropped() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, keep) = ways_to_see(&root);
    let alive = Arc::new(AtomicUsize::new(0));
    let register = |ctx: &Context| {
        alive.fetch_add(1, Ordering::SeqCst);
        let alive = Arc::clone(&alive);
        let state = OnDrop(move || {
            alive.fetch_sub(1, Ordering::SeqCst);
            panic!("state");
        });
        ctx.on_done(move |_| drop(state))
    };
    for ctx in &ways {
        let on_done = register(ctx);
        assert_eq!(panic_of(|| on_done.stop()), "state");
        let on_done = register(ctx);
        assert_eq!(panic_of(|| drop(on_done)), "state");
        let on_done = register(&Context::background());
        assert_eq!(panic_of(|| on_done.stop()), "state");
    }
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    for ctx in ways.iter().cycle().take(9) {
        register(ctx).detach();
    }
    // Those of the crowd wait for its other sources still.
    assert_eq!(panic_of(|| drop(canceller)), "state");
    assert_eq!(alive.load(Ordering::SeqCst), 3);
    let mut panics = 0;
    for canceller in keep {
        let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(canceller)));
        panics += usize::from(dropped.is_err());
    }
    assert_eq!((panics, alive.load(Ordering::SeqCst)), (1, 0));
    ways.iter().for_each(still_works);
}

/// Rule 19: the callback runs although the last handle of its context, which it held, panics when it goes.
#[test]
fn callbacks_run_though_their_context_panics_when_dropped() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, _keep) = ways_to_see(&root);
    let ran = Arc::new(AtomicUsize::new(0));
    for ctx in &ways {
        let ran = adding(&ran);
        ctx.with_value(OnDrop(|| panic!("value"))).on_done(move |_| ran()).detach();
    }
    assert_eq!(panic_of(|| canceller.cancel()), "value");
    assert_eq!(ran.load(Ordering::SeqCst), 3);
    ways.iter().for_each(still_works);
}

/// Rule 6: a callback lets go of all handles there are, its own and those of other callbacks in the same list.
#[test]
fn callbacks_that_drop_the_last_handles() {
    for way in 0..3 {
        let (root, canceller) = Context::background().with_cancel();
        let (ways, keep) = ways_to_see(&root);
        let ctx = ways[way].with_value(7_u32);
        let handles: Slot<Vec<OnDone>> = slot(Vec::new());
        let contexts = slot((root, ways, keep, ctx.clone()));
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let (all, contexts, ran) = (Arc::clone(&handles), Arc::clone(&contexts), Arc::clone(&ran));
            let on_done = ctx.on_done(move |err| {
                assert!(err.is_cancelled());
                drop(take(&all));
                drop(take(&contexts));
                ran.fetch_add(1, Ordering::SeqCst);
            });
            handles.lock().unwrap().as_mut().unwrap().push(on_done);
        }
        drop(ctx);
        drop(canceller.drop_guard());
        assert_eq!(ran.load(Ordering::SeqCst), 1, "the first stopped the others");
        assert_eq!(Arc::strong_count(&handles), 1, "all of them are gone");
    }
}

/// Rule 6: a waker drops the future that it wakes, all other futures, and the last context.
#[test]
fn wakers_that_drop_the_last_handles() {
    for way in 0..3 {
        let (root, canceller) = Context::background().with_cancel();
        let (ways, keep) = ways_to_see(&root);
        let futures: Slot<Vec<std::pin::Pin<Box<DoneOwned>>>> = slot(Vec::new());
        let handles = slot((root, keep));
        let woken = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let mut done = Box::pin(ways[way].done_owned());
            let (all, handles, woken) = (Arc::clone(&futures), Arc::clone(&handles), Arc::clone(&woken));
            let waker = calling(move || {
                drop(take(&all));
                drop(take(&handles));
                woken.fetch_add(1, Ordering::SeqCst);
            });
            assert!(poll_with(done.as_mut(), &waker).is_pending());
            futures.lock().unwrap().as_mut().unwrap().push(done);
        }
        drop(ways);
        drop(canceller.drop_guard());
        assert_eq!(woken.load(Ordering::SeqCst), 5, "they had all been taken out of the list");
        assert_eq!(Arc::strong_count(&futures), 1);
    }
}

/// Rules 4, 6 and 8: whatever is made of a done context inside a waker, a callback or a drop is done at birth, by the
/// same cause; and all operations are there.
#[test]
fn everything_from_within() {
    let (root, canceller) = Context::background().with_cancel();
    let (ways, keep) = ways_to_see(&root);
    let keep = Arc::new(keep);
    let ran = Arc::new(AtomicUsize::new(0));
    let act = {
        let (ways, canceller, ran) = (ways.clone(), canceller.clone(), Arc::clone(&ran));
        move || {
            let cause = |ctx: &Context| std::ptr::from_ref(ctx.err().unwrap().cause().unwrap()).cast::<()>();
            assert!(!canceller.cancel() && canceller.is_cancelled());
            for ctx in &ways {
                let (crowd, cancellers) = ways_to_see(&Context::background().with_cancel().0);
                let born = [
                    any_of(crowd.iter().chain([ctx])),
                    merge(Context::background().with_cancel().0, ctx),
                    ctx.relay(),
                    ctx.with_cancel().0,
                    ctx.with_timeout(Duration::ZERO),
                    ctx.named("within"),
                    merge(ctx, &crowd[2]).relay().with_value(1),
                ];
                for born in &born {
                    assert_eq!(cause(born), cause(&ways[0]));
                    assert!(poll(pin!(born.done()), &Counting::new()).is_ready());
                    assert!(born.wait_timeout(Duration::from_secs(10)).is_some());
                    let (send, receive) = std::sync::mpsc::channel();
                    assert!(!born.on_done(move |_| send.send(()).unwrap()).stop());
                    assert!(receive.try_recv().is_ok(), "at once");
                }
                // Another source: cancelled, and waited for in vain.
                let live = Context::background().with_cancel();
                assert!(live.0.wait_timeout(Duration::ZERO).is_none() && live.0.on_done(|_| {}).stop());
                assert!(live.1.cancel());
                assert!(cancellers.iter().all(|canceller| canceller.cancel()));
            }
            ran.fetch_add(1, Ordering::SeqCst);
        }
    };
    let mut parked = Vec::new();
    for ctx in &ways {
        parked.push(Box::pin(ctx.done()));
        let waker = calling(act.clone());
        assert!(poll_with(parked.last_mut().unwrap().as_mut(), &waker).is_pending());
        let keep = Arc::clone(&keep);
        let (act, state) = (act.clone(), OnDrop(act.clone()));
        ctx.on_done(move |_| {
            act();
            drop((state, keep));
        })
        .detach();
    }
    canceller.cancel_with("the cause");
    assert_eq!(ran.load(Ordering::SeqCst), 9);
    assert_eq!(Arc::strong_count(&keep), 1);
}

/// Rules 6 and 23: contexts, callbacks, wakers and guards that go at the end of a thread, with its thread-locals.
#[test]
fn at_the_end_of_a_thread() {
    thread_local! {
        static LAST: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
    }
    let (root, canceller) = Context::background().with_cancel();
    let (ways, keep) = ways_to_see(&root);
    let (other, cancel_other) = Context::background().with_cancel();
    let waker = Counting::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut parked: Vec<_> = ways.iter().map(|ctx| Box::pin(ctx.done())).collect();
    parked.iter_mut().for_each(|done| assert!(poll(done.as_mut(), &waker).is_pending()));
    for ctx in [&other, &other.relay()] {
        let (ways, state) = (ways.clone(), OnDrop(adding(&dropped)));
        ctx.on_done(move |_| drop((ways, state))).detach();
    }
    let value = other.with_value(OnDrop({
        let (dropped, ways) = (Arc::clone(&dropped), ways.clone());
        move || {
            let _ = (any_of(&ways), ways[2].relay().with_cancel(), ways[1].on_done(|_| {}).stop());
            dropped.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let mut done = Box::pin(any_of([&ways[2], &other]).done_owned());
    assert!(poll(done.as_mut(), &waker).is_pending());
    std::thread::scope(|scope| {
        let ends = scope.spawn(move || {
            LAST.with_borrow_mut(|last| {
                last.push(Box::new((done, value)));
                last.push(Box::new(cancel_other));
                last.push(Box::new((canceller.drop_guard(), keep)));
            });
        });
        // The scope itself does not wait for the thread-locals.
        ends.join().unwrap();
    });
    assert_eq!((waker.woken(), dropped.load(Ordering::SeqCst)), (3, 3));
    assert!(ways.iter().all(Context::is_done) && !other.is_done());
    drop(parked);
    assert_eq!(Arc::strong_count(&waker), 1);
}
