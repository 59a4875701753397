//! Rule 14: a name comes before what it names, and stays with it for life.

use std::pin::Pin;
use std::time::Duration;

use context_merge::{Context, Error, Signal, any_of, merge};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn background() -> Context {
    Context::background()
}

fn live() -> Context {
    background().with_cancel().0
}

fn origin(ctx: &Context) -> Option<String> {
    ctx.err().expect("finished").origin().map(str::to_owned)
}

/// The name of what is made below it now.
fn name(ctx: &Context) -> Option<String> {
    origin(&ctx.without_cancel().with_timeout(Duration::ZERO))
}

fn some(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test(start_paused = true)]
async fn all_that_is_made_below_is_born_under_it() {
    let ctx = background().named("work");
    let (cancelled, canceller) = ctx.with_cancel();
    let by_cause = ctx.with_cancel();
    canceller.cancel();
    by_cause.1.cancel_with("why");
    let now = Instant::now();
    let views = [
        cancelled,
        by_cause.0,
        ctx.with_deadline(now),
        ctx.with_deadline_cause(now, "late"),
        ctx.with_timeout(Duration::ZERO),
        ctx.with_timeout_cause(Duration::ZERO, "late"),
        merge(&ctx, live()).with_timeout(Duration::ZERO),
    ];
    for (index, view) in views.iter().enumerate() {
        assert_eq!(origin(view), some("work"), "view {index}");
    }
    assert_eq!(views[3].err().unwrap().to_string(), "context deadline exceeded (work)");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_blamed_for_the_callers_event() {
    for caller_is in [None, Some("caller")] {
        let root = caller_is.map_or(background(), |name| background().named(name));
        let (caller, hang_up) = root.with_cancel();
        let (late, limited) = (root.with_timeout(SECOND), caller.with_timeout(SECOND));
        let below = |caller: &Context| {
            let db = caller.named("db");
            [db.clone(), db.with_timeout(SECOND * 5), db.with_cancel().0, merge(&db, live()), db.relay()]
        };
        let (by_cancel, by_deadline) = (below(&caller), [below(&late), below(&limited)].concat());
        hang_up.cancel();
        for ctx in &by_cancel {
            assert_eq!(origin(ctx).as_deref(), caller_is);
        }
        assert_eq!(origin(&caller.named("db")).as_deref(), caller_is, "nor when it is finished");
        advance(SECOND).await;
        for ctx in by_deadline.iter().take(5) {
            assert_eq!(ctx.err().unwrap().to_string(), late.err().unwrap().to_string());
            assert_eq!(origin(ctx).as_deref(), caller_is);
        }
        for ctx in by_deadline.iter().skip(5) {
            assert_eq!(origin(ctx).as_deref(), caller_is, "cancelled first");
        }
        assert_eq!(origin(&caller).as_deref(), caller_is, "the caller's own");
    }
}

#[tokio::test(start_paused = true)]
async fn the_nearest_name_wins() {
    let ctx = background().named("outer").with_value(1).named("inner");
    assert_eq!(name(&ctx), some("inner"));
    let (outer, canceller) = background().named("outer").with_cancel();
    let inner = outer.named("inner").with_timeout(SECOND);
    let beside = outer.with_timeout(SECOND);
    let innermost = inner.named("innermost").with_timeout(Duration::ZERO);
    assert_eq!(origin(&innermost), some("innermost"));
    advance(SECOND).await;
    assert_eq!((origin(&inner), origin(&beside)), (some("inner"), some("outer")));
    canceller.cancel();
    assert_eq!(origin(&outer), some("outer"));
}

#[test]
fn the_name_goes_with_the_values() {
    let (a, _keep) = background().named("a").with_cancel();
    let b = background().named("b").with_value("of b").with_timeout(SECOND);
    let crowd = || (0..20).map(|_| live());
    for (ctx, expected) in [
        (a.clone(), Some("a")),
        (Context::from(&a), Some("a")),
        (a.with_value(1), Some("a")),
        (a.relay(), Some("a")),
        (a.with_cancel().0, Some("a")),
        (a.with_timeout(SECOND), Some("a")),
        (a.without_cancel(), Some("a")),
        (merge(&a, &b), Some("a")),
        (merge(&b, &a), Some("b")),
        (merge(a.without_cancel(), &b), Some("a")),
        (merge(live(), &a), None),
        (merge(background(), &a), None),
        (any_of([&a, &b, &live()]), Some("a")),
        (any_of([&live(), &a, &b]), None),
        (any_of(std::iter::once(b.clone()).chain(crowd())), Some("b")),
        (any_of([&a]), Some("a")),
        (a.with_values_of(&b), Some("b")),
        (b.with_values_of(&live()), None),
        (b.with_values_of(&a).with_values_of(&b), Some("b")),
    ] {
        assert_eq!(name(&ctx).as_deref(), expected, "{ctx:?}");
    }
    assert_eq!(a.with_values_of(&b).value::<&str>(), Some(&"of b"));
}

#[tokio::test(start_paused = true)]
async fn a_source_keeps_its_name_through_merges_relays_and_gathers() {
    let (ctx, canceller) = background().named("shutdown").with_cancel();
    let limit = background().named("limit").with_timeout(SECOND);
    let grow = |all: &Context| any_of([all.clone()].into_iter().chain((0..9).map(|_| live())));
    let views = |ctx: &Context| {
        let other = live().named("other");
        let deep = (0..20).fold(ctx.clone(), |deep, _| grow(&deep));
        [
            merge(&other, ctx),
            merge(ctx, &other).relay(),
            merge(ctx.relay().named("relay"), ctx),
            any_of([&other, &live(), ctx]).named("any"),
            grow(ctx).named("gather"),
            grow(&grow(ctx).relay()).relay(),
            merge(grow(ctx).named("x"), grow(ctx).named("y")),
            merge(&deep, ctx.named("nearer")),
            ctx.named("below").with_cancel().0,
            ctx.named("below").with_timeout(SECOND * 2),
            ctx.with_values_of(&other),
        ]
    };
    let (by_cancel, by_deadline) = (views(&ctx), views(&limit));
    assert!(canceller.cancel());
    advance(SECOND).await;
    for (index, (cancelled, late)) in by_cancel.iter().zip(&by_deadline).enumerate() {
        assert_eq!((origin(cancelled), origin(late)), (some("shutdown"), some("limit")), "view {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_finished_at_birth_keeps_the_origin() {
    let (cancelled, canceller) = background().named("first").with_cancel();
    let late = background().named("first").with_timeout(SECOND);
    let before = Instant::now();
    canceller.cancel();
    advance(SECOND).await;
    for ctx in [cancelled, late] {
        let second = ctx.named("second");
        let (child, canceller) = second.with_cancel();
        assert!(!canceller.cancel());
        let views = [
            second.clone(),
            child,
            second.with_timeout(Duration::ZERO),
            second.with_deadline(before),
            second.with_deadline_cause(before, "not this"),
            second.relay(),
            merge(&second, live()),
            merge(second.with_deadline(before), live().named("third")),
            any_of((0..20).map(|_| live().named("third")).chain([second.clone()])),
        ];
        for (index, view) in views.iter().enumerate() {
            assert_eq!(origin(view), some("first"), "view {index}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_deadline_adds_nothing() {
    let caller = background().named("caller").with_timeout(SECOND);
    let at = caller.deadline().unwrap();
    let db = caller.named("db");
    let (earlier, later) =
        (db.with_timeout(SECOND / 2), [db.with_deadline(at), db.with_timeout_cause(SECOND * 2, "db")]);
    advance(SECOND / 2).await;
    assert_eq!(origin(&earlier), some("db"));
    advance(SECOND).await;
    for later in later {
        let err = later.err().unwrap();
        assert_eq!((err.origin(), err.cause().is_none(), later.deadline()), (Some("caller"), true, Some(at)));
    }
}

#[test]
fn a_foreign_signal_has_the_name_that_its_error_brings() {
    struct Over(Error);
    impl Signal for Over {
        fn err(&self) -> Option<Error> {
            Some(self.0.clone())
        }
        fn done(&self) -> Pin<Box<dyn Future<Output = Error> + Send>> {
            Box::pin(std::future::ready(self.0.clone()))
        }
    }
    for (err, expected) in [
        (Error::cancelled(), None),
        (Error::cancelled().named("leadership"), Some("leadership")),
        (Error::cancelled().named("first").named("leadership"), Some("leadership")),
        (Error::deadline_exceeded().named("leadership").with_cause("lost it"), Some("leadership")),
        (Error::deadline_exceeded().with_cause("lost it").named("leadership"), Some("leadership")),
    ] {
        let foreign = Context::from_signal(Over(err.clone()));
        for ctx in [foreign.named("ours"), merge(live().named("ours"), &foreign).named("ours"), foreign.relay()] {
            let told = ctx.err().unwrap();
            assert_eq!(told.origin(), expected);
            assert_eq!((told.to_string(), told.cause().is_some()), (err.to_string(), err.cause().is_some()));
        }
    }
}
