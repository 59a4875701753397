//! Rules 5, 6, 7, 12 and 15 against values and causes that panic or act when they are dropped, shown or converted.

mod support;

use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use context_merge::{Canceller, Context, Error, any_of, merge};
use support::{Cause, OnDrop, adding, panic_of, ways_to_see};

fn source() -> (Context, Canceller) {
    Context::background().with_cancel()
}

/// Rule 6: a value that cancels, merges, registers and lets others go when it is dropped, by a plain drop, by a
/// callback, and with what is let go.
#[test]
fn values_that_act_when_dropped() {
    let acted = Arc::new(AtomicUsize::new(0));
    let acting = |next: Option<Context>| {
        let (root, canceller) = source();
        let (ways, keep) = ways_to_see(&root);
        let add = adding(&acted);
        let mut held = Some((next, keep));
        Context::background().with_value(OnDrop(move || {
            let held = held.take();
            let ran = Arc::new(AtomicUsize::new(0));
            for ctx in &ways {
                let (held, ran) = (held.as_ref().map(|(next, _)| next.clone()), adding(&ran));
                ctx.on_done(move |_| {
                    ran();
                    drop(held);
                })
                .detach();
            }
            assert!(!any_of(&ways).is_done() && ways[2].on_done(|_| {}).stop());
            assert!(canceller.cancel());
            assert!(merge(source().0, &ways[2]).is_done() && ways[1].relay().is_done());
            assert_eq!(ran.load(Ordering::SeqCst), 3);
            drop(held);
            add();
        }))
    };
    drop(acting(Some(acting(Some(acting(None))))));
    assert_eq!(acted.load(Ordering::SeqCst), 3);

    let (root, canceller) = source();
    let value = acting(Some(acting(None)));
    root.on_done(move |_| drop(value)).detach();
    canceller.cancel();
    assert_eq!(acted.load(Ordering::SeqCst), 5);

    let (root, canceller) = source();
    for _ in 0..3 {
        let value = acting(Some(acting(None)));
        root.on_done(move |_| drop(value)).detach();
    }
    drop(canceller);
    assert_eq!(acted.load(Ordering::SeqCst), 11);
    assert!(!root.is_done());
}

/// Rule 7 for values: all of a list are dropped, however many panic; one panic goes on, or none during another.
#[test]
fn values_that_panic_when_dropped() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let list = || {
        let mut ctx = Context::background();
        for panics in [false, true, true, false, true, false] {
            let add = adding(&dropped);
            ctx = ctx.with_value(OnDrop(move || {
                add();
                assert!(!panics, "value");
            }));
        }
        ctx
    };
    assert_eq!(panic_of(|| drop(list())), "value");
    assert_eq!(dropped.load(Ordering::SeqCst), 6);

    let shared = list();
    let (left, right) = (shared.with_value(1), shared.with_value(2));
    drop((shared, left));
    assert_eq!(dropped.load(Ordering::SeqCst), 6);
    assert_eq!(right.value::<i32>(), Some(&2));
    let said = panic_of(|| {
        let _right = right;
        panic!("the work");
    });
    assert_eq!((said.as_str(), dropped.load(Ordering::SeqCst)), ("the work", 12));
}

/// A cause that panics when it is shown does so in the formatting alone; one that is its own source is not followed.
#[test]
fn causes_that_panic_when_shown() {
    let (root, canceller) = source();
    let (ways, _keep) = ways_to_see(&root);
    canceller.cancel_with(Cause::on_format(|| panic!("format")));
    for ctx in ways.iter().chain([&ways[2].named("named")]) {
        let err = ctx.err().unwrap();
        assert!(err.to_string().starts_with("context cancelled"), "the cause is not part of it");
        assert_eq!(panic_of(|| format!("{err:?}")), "format");
        assert_eq!(panic_of(|| format!("{ctx:?}")), "format");
        assert_eq!(panic_of(|| err.cause().unwrap().to_string()), "format");
        let io = std::io::Error::from(err.clone());
        assert_eq!(panic_of(|| format!("{io:?}")), "format");
        let next = err.source().unwrap();
        assert!(std::ptr::addr_eq(next, next.source().unwrap()));
        assert!(ctx.is_done() && ctx.check().is_err() && merge(source().0, ctx).is_done());
        assert!(std::ptr::addr_eq(err.cause().unwrap(), ways[0].wait().cause().unwrap()));
        assert!(!ctx.on_done(|err| assert!(err.is_cancelled())).stop());
    }
    assert!(format!("{canceller:?}").contains("true"));
}

/// Rules 5 and 7: a cause that is refused, and panics when it is dropped, changes nothing.
#[test]
fn causes_that_panic_when_dropped() {
    let bad = || Cause::on_drop(|| panic!("cause"));
    let (root, canceller) = source();
    let (child, cancel_child) = root.with_cancel();
    assert!(canceller.cancel_with("the first"));
    for canceller in [&canceller, &cancel_child] {
        assert_eq!(panic_of(|| canceller.cancel_with(bad())), "cause");
    }
    assert_eq!(child.err().unwrap().cause().unwrap().to_string(), "the first");
    assert!(canceller.is_cancelled() && !cancel_child.is_cancelled());
    assert_eq!(panic_of(|| drop(Error::cancelled().with_cause(bad()).with_cause("another"))), "cause");

    let timed = root.without_cancel().with_timeout_cause(Duration::from_secs(3600), bad());
    assert_eq!(panic_of(|| drop(timed)), "cause");
}

/// Rule 7: the causes of all sources of a context, let go with it at once.
#[test]
fn several_causes_that_panic_when_dropped() {
    for sources in [2, 8, 20] {
        let dropped = Arc::new(AtomicUsize::new(0));
        let bad = || {
            let add = adding(&dropped);
            Cause::on_drop(move || {
                add();
                panic!("cause");
            })
        };
        let (contexts, cancellers): (Vec<_>, Vec<_>) = (0..sources).map(|_| source()).unzip();
        let ctx = any_of(&contexts).with_timeout_cause(Duration::from_secs(3600), bad());
        cancellers.iter().for_each(|canceller| assert!(canceller.cancel_with(bad())));
        assert!(ctx.is_done());
        drop((contexts, cancellers));
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        assert_eq!(panic_of(|| drop(ctx)), "cause");
        assert_eq!(dropped.load(Ordering::SeqCst), sources + 1);
    }
}

/// Rule 6: a cause whose drop cancels another source, when it is refused or goes with the last error.
#[test]
fn causes_that_cancel_when_dropped() {
    for refused in [false, true] {
        let (other, cancel_other) = source();
        let (root, canceller) = source();
        if refused {
            canceller.cancel();
        }
        // Where it is kept it must not hold its own canceller, which would be a cycle.
        let again = refused.then(|| canceller.clone());
        let cause = Cause::on_drop(move || {
            assert!(!again.as_ref().is_some_and(Canceller::cancel) && cancel_other.cancel());
        });
        assert_eq!(canceller.cancel_with(cause), !refused);
        assert_eq!(other.is_done(), refused);
        let err = root.err();
        drop((root, canceller));
        assert_eq!(other.is_done(), refused, "the error holds it");
        drop(err);
        assert!(other.is_done());
    }
}

/// What becomes a cause by a closure.
struct Becomes<F>(F);

impl<F: FnOnce() -> &'static str> From<Becomes<F>> for Box<dyn StdError + Send + Sync> {
    fn from(becomes: Becomes<F>) -> Self {
        becomes.0().into()
    }
}

/// Rule 5: a conversion that panics comes before the cancel; one that cancels the same canceller is the first.
#[test]
fn conversions_that_panic_or_call_back() {
    let (root, canceller) = source();
    assert_eq!(panic_of(|| canceller.cancel_with(Becomes(|| panic!("into")))), "into");
    assert_eq!(panic_of(|| root.with_timeout_cause(Duration::ZERO, Becomes(|| panic!("into")))), "into");
    assert!(!root.is_done() && !canceller.is_cancelled());
    let again = canceller.clone();
    let late = Becomes(move || {
        assert!(again.cancel_with("inner"));
        "outer"
    });
    assert!(!canceller.cancel_with(late));
    assert_eq!(root.err().unwrap().cause().unwrap().to_string(), "inner");
}

/// Rule 7: inputs of `any_of` that panic or cancel what was taken before them.
#[test]
fn inputs_that_panic_or_cancel() {
    let (a, cancel_a) = source();
    let (b, _cancel_b) = source();
    let token = Arc::new(());
    let held = a.with_value(Arc::clone(&token));
    let inputs = |at: usize| {
        [&held, &b, &b.relay(), &a].map(Context::clone).into_iter().enumerate().map(move |(i, ctx)| {
            assert_ne!(i, at, "input");
            ctx
        })
    };
    for at in 0..4 {
        assert!(catch_unwind(AssertUnwindSafe(|| any_of(inputs(at)))).is_err());
    }
    drop(held.clone());
    let cancels = Mutex::new(Some(cancel_a));
    let any = any_of(inputs(9).inspect(|ctx| {
        if !ctx.is_done() && ctx.value::<Arc<()>>().is_none() {
            drop(cancels.lock().unwrap().take().map(Canceller::drop_guard));
        }
    }));
    assert!(any.is_done() && any.value::<Arc<()>>().is_some());
    drop((any, held));
    assert_eq!(Arc::strong_count(&token), 1);
}
