//! Rule 6: foreign code that blocks holds up the call that runs it, and nobody else, since it never runs under a lock.
//!
//! In each test a thread holds a mutex and works with contexts, while another thread is inside foreign code that waits
//! for that mutex. A lock of ours around the foreign code would make it a deadlock.

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use context_merge::{Canceller, Context, any_of, merge};
use support::{Cause, Counting, Hooks, OnDrop, calling, poll, poll_with, ways_to_see, within};

/// Blocks while the test works.
type Block = Arc<dyn Fn() + Send + Sync>;

/// Runs `act`, which is to call its `Block`, on another thread, and meanwhile does everything there is to do with the
/// source and the ways to see it.
fn while_one_blocks(act: impl FnOnce(&[Context; 3], Canceller, Block) + Send + 'static) {
    within(move || {
        let (root, canceller) = Context::background().with_cancel();
        let (ways, _keep) = ways_to_see(&root);
        let waker = Counting::new();
        let mut parked: Vec<_> = ways.iter().cycle().take(6).map(|ctx| Box::pin(ctx.done())).collect();
        parked.iter_mut().for_each(|done| assert!(poll(done.as_mut(), &waker).is_pending()));
        let callbacks: Vec<_> = ways.iter().map(|ctx| ctx.on_done(|_| {})).collect();

        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let (send, inside) = mpsc::channel();
        let block: Block = Arc::new({
            let mutex = Arc::clone(&mutex);
            move || {
                send.send(()).unwrap();
                drop(mutex.lock().unwrap());
            }
        });
        let blocked = thread::spawn({
            let ways = ways.clone();
            move || act(&ways, canceller, block)
        });
        inside.recv().unwrap();

        let new = Counting::new();
        for (ctx, done) in ways.iter().zip(&mut parked) {
            assert_eq!(ctx.is_done(), ctx.err().is_some());
            assert_eq!(merge(ctx, Context::background().with_cancel().0).is_done(), root.is_done());
            assert_eq!(any_of(ways_to_see(ctx).0).relay().is_done(), root.is_done());
            assert_eq!(poll(done.as_mut(), &new).is_ready(), root.is_done());
            assert_eq!(poll(pin!(ctx.done()), &new).is_ready(), root.is_done());
            ctx.on_done(|_| {}).stop();
            let (child, cancel_child) = ctx.with_cancel();
            assert_eq!(cancel_child.cancel(), !root.is_done());
            assert!(child.is_done());
        }
        drop(parked);
        for on_done in callbacks {
            on_done.stop();
        }
        assert!(!blocked.is_finished());
        drop(held);
        blocked.join().unwrap();
    });
}

/// A callback that the cancel runs, in the list of the source and below it.
#[test]
fn callbacks() {
    for way in 0..3 {
        while_one_blocks(move |ways, canceller, block| {
            let on_done = ways[way].on_done(move |_| block());
            assert!(canceller.cancel());
            drop(on_done);
        });
    }
}

/// A callback that is run at once.
#[test]
fn callbacks_at_registration() {
    while_one_blocks(move |ways, canceller, block| {
        canceller.cancel();
        drop(ways[2].on_done(move |_| block()));
    });
}

/// The state of a callback, dropped when that is stopped, while another thread cancels.
#[test]
fn the_state_of_stopped_callbacks() {
    for way in 0..3 {
        while_one_blocks(move |ways, canceller, block| {
            let state = OnDrop(move || {
                let canceller = canceller.clone();
                assert!(within(move || canceller.cancel()));
                block();
            });
            assert!(ways[way].on_done(move |_| drop(state)).stop());
        });
    }
}

/// The state of a callback, let go with the last canceller.
#[test]
fn the_state_of_callbacks_let_go() {
    for way in 0..2 {
        while_one_blocks(move |ways, canceller, block| {
            let state = OnDrop(move || block());
            ways[way].on_done(move |_| drop(state)).detach();
            drop(canceller);
        });
    }
}

/// A waker that blocks when woken.
#[test]
fn wakers_woken() {
    for way in 0..3 {
        while_one_blocks(move |ways, canceller, block| {
            let mut done = pin!(ways[way].done());
            assert!(poll_with(done.as_mut(), &calling(move || block())).is_pending());
            assert!(canceller.cancel());
        });
    }
}

/// A waker that blocks when cloned.
#[test]
fn wakers_cloned() {
    for way in 0..3 {
        while_one_blocks(move |ways, _canceller, block| {
            let hooks = Arc::new(Hooks::on_clone(move || block()));
            assert!(poll_with(pin!(ways[way].done()), &hooks.waker()).is_pending());
        });
    }
}

/// A waker that blocks when dropped: with its future, or replaced by another.
#[test]
fn wakers_dropped() {
    for way in 0..3 {
        for replaced in [false, true] {
            while_one_blocks(move |ways, _canceller, block| {
                // The future's own clone goes before the one in the list where both are replaced, and after it otherwise.
                let drops = AtomicUsize::new(0);
                let hooks = Arc::new(Hooks::on_drop(move || {
                    if drops.fetch_add(1, Ordering::SeqCst) == usize::from(replaced) {
                        block();
                    }
                }));
                let waker = std::mem::ManuallyDrop::new(hooks.waker());
                let mut done = Box::pin(ways[way].done());
                assert!(poll_with(done.as_mut(), &waker).is_pending());
                if replaced {
                    assert!(poll(done.as_mut(), &Counting::new()).is_pending());
                }
                drop(done);
            });
        }
    }
}

/// A waker that blocks when dropped, where the list is closed and refuses it, or lets it go with the last canceller.
#[test]
fn wakers_refused_and_let_go() {
    for refused in [false, true] {
        while_one_blocks(move |ways, canceller, block| {
            let hooks = Arc::new(Hooks::on_drop(move || block()));
            let waker = std::mem::ManuallyDrop::new(hooks.waker());
            let mut done = pin!(ways[0].done());
            let canceller = (!refused).then_some(canceller);
            assert!(poll_with(done.as_mut(), &waker).is_pending());
            drop(canceller);
        });
    }
}

/// Values and causes that block when dropped.
#[test]
fn values_and_causes() {
    while_one_blocks(move |ways, _canceller, block| drop(ways[1].with_value(OnDrop(move || block()))));
    while_one_blocks(move |_ways, canceller, block| {
        canceller.cancel_with("the first");
        assert!(!canceller.cancel_with(Cause::on_drop(move || block())));
    });
}
