//! What a context says of itself.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use context_merge::{Context, Error, Signal, any_of, merge};
use tokio::time::Instant;

#[test]
fn a_context_that_never_finishes() {
    assert_eq!(Context::background().explain().to_string(), "live: never finished\n");
    let ctx = Context::background().with_value(1).with_value("two");
    assert_eq!(ctx.explain().to_string(), "live: never finished\n└─ 2 values\n");
}

#[tokio::test(start_paused = true)]
async fn sources_deadline_and_values() {
    let (shutdown, stop) = Context::background().with_cancel();
    let (request, _hang_up) = Context::background().with_value("GET /").named("request").with_cancel();
    let (start, request) = (Instant::now(), request.with_timeout(Duration::from_millis(1500)));
    let ctx = merge(&request, &shutdown);
    let live = "live\n\
        ├─ source \"request\": live\n\
        ├─ source: live\n\
        ├─ deadline \"request\": in 1.5s\n\
        └─ 1 value\n";
    assert_eq!(ctx.explain().to_string(), live);

    tokio::time::advance(Duration::from_millis(1499)).await;
    stop.cancel_with("SIGTERM\nby hand");
    tokio::time::advance(Duration::from_millis(1)).await;
    let cancelled = "context cancelled: SIGTERM by hand\n\
        ├─ source \"request\": live\n\
        ├─ source: cancelled: SIGTERM by hand ← first\n\
        ├─ deadline \"request\": exceeded\n\
        └─ 1 value\n";
    assert_eq!(ctx.explain().to_string(), cancelled);
    let exceeded = "context deadline exceeded (request)\n\
        ├─ source \"request\": live\n\
        ├─ deadline \"request\": exceeded ← first\n\
        └─ 1 value\n";
    assert_eq!(request.explain().to_string(), exceeded);
    let after = "context cancelled: SIGTERM by hand\n\
        ├─ earlier finish: cancelled: SIGTERM by hand ← first\n\
        ├─ deadline \"late\": exceeded\n\
        └─ 1 value\n";
    assert_eq!(ctx.named("late").with_deadline(start).explain().to_string(), after);
}

#[test]
fn relays_are_looked_through_and_what_cannot_be_cancelled_is_told() {
    let (shutdown, stop) = Context::background().named("worker").with_cancel();
    let (abandoned, canceller) = Context::background().named("worker").with_cancel();
    drop(canceller);
    let ctx = merge(any_of([&shutdown, &abandoned]).relay(), Context::background());
    let live = "live\n\
        └─ relay\n   \
           ├─ source \"worker\": live\n   \
           └─ source \"worker\": live, and nothing can cancel it any more\n";
    assert_eq!(ctx.explain().to_string(), live);
    stop.cancel();
    let cancelled = "context cancelled (worker)\n\
        └─ relay\n   \
           ├─ source \"worker\": cancelled ← first\n   \
           └─ source \"worker\": live, and nothing can cancel it any more\n";
    assert_eq!(ctx.explain().to_string(), cancelled);
}

#[tokio::test(start_paused = true)]
async fn what_nothing_can_finish_is_told() {
    const NOTHING: &str = "live: nothing can finish it any more\n";
    let abandoned = || Context::background().with_cancel().0;
    let first_line = |ctx: &Context| ctx.explain().to_string().split_inclusive('\n').next().unwrap().to_owned();
    let crowd: Vec<_> = (0..20).map(|_| Context::background().with_cancel()).collect();
    let many = any_of(crowd.iter().map(|(ctx, _)| ctx));
    assert_eq!([first_line(&many), first_line(&many.relay())], ["live\n", "live\n"]);
    drop(crowd);
    for ctx in [&abandoned(), &merge(abandoned(), abandoned()), &abandoned().relay(), &many, &many.relay()] {
        assert_eq!(first_line(ctx), NOTHING);
        let (child, canceller) = ctx.with_cancel();
        assert_eq!(first_line(&child), "live\n");
        drop(canceller);
        assert_eq!(first_line(&child), NOTHING);
        assert_eq!(first_line(&ctx.with_timeout(Duration::from_secs(1))), "live\n");
    }
    let until = Context::until(async { panic!("an event that never comes") });
    assert_eq!(first_line(&until), "live\n");
    tokio::task::yield_now().await;
    assert_eq!(until.explain().to_string(), format!("{NOTHING}└─ until: live, and nothing can cancel it any more\n"));
}

#[test]
fn of_many_sources_the_first_is_told_and_the_rest_counted() {
    let many: Vec<_> = (0..100).map(|at| Context::background().named(format!("input {at}")).with_cancel()).collect();
    let ctx = any_of(many.iter().map(|(ctx, _)| ctx));
    let (live, graph) = (ctx.explain().to_string(), ctx.explain().to_dot());
    assert_eq!(live.lines().count(), 1 + 1 + 16 + 1, "{live}");
    assert!(live.ends_with("   └─ 84 more, 84 live, 0 finished\n"), "{live}");
    assert!(graph.contains("p17 -> p0\n"), "{graph}");
    for at in [90, 91] {
        many[at].1.cancel();
    }
    let cancelled = ctx.explain().to_string();
    assert!(cancelled.starts_with("context cancelled (input 90)\n└─ gather"), "{cancelled}");
    assert!(cancelled.contains("   ├─ source \"input 90\": cancelled ← first\n"), "{cancelled}");
    assert!(cancelled.ends_with("   └─ 83 more, 82 live, 1 finished\n"), "{cancelled}");
}

#[tokio::test]
async fn foreign_sources() {
    struct Never;
    impl Signal for Never {
        fn err(&self) -> Option<Error> {
            None
        }
        fn done(&self) -> std::pin::Pin<Box<dyn Future<Output = Error> + Send>> {
            Box::pin(std::future::pending())
        }
    }
    let ctx = merge(Context::from_signal(Never), Context::until(std::future::pending::<()>()));
    assert_eq!(ctx.explain().to_string(), "live\n├─ signal: live\n└─ until: live\n");
}

#[test]
fn as_graphs() {
    let (shutdown, stop) = Context::background().named("a \"quoted\\name\"").with_cancel();
    let (request, _hang_up) = Context::background().with_cancel();
    let ctx = merge(request.relay(), shutdown);
    stop.cancel_with("a \"cause\"");
    let mermaid = "flowchart BT\n    \
        ctx[\"context cancelled (a #quot;quoted\\name#quot;): a #quot;cause#quot;\"]\n    \
        p0[\"relay\"] --> ctx\n    \
        p1[\"source: live\"] --> p0\n    \
        p2[\"source #quot;a \\#quot;quoted\\\\name\\#quot;#quot;: cancelled: a #quot;cause#quot;\"] ==> ctx\n";
    assert_eq!(ctx.explain().to_mermaid(), mermaid);
    let dot = ctx.explain().to_dot();
    assert!(
        dot.starts_with("digraph {\n    rankdir=BT\n    ctx [label=\"context cancelled (a \\\"quoted\\\\name\\\")")
    );
    assert!(dot.contains("    p1 [label=\"source: live\"]\n    p1 -> p0\n"), "{dot}");
    assert!(dot.contains("    p2 -> ctx [style=bold]\n}\n"), "{dot}");
}

/// Whenever it is asked, it tells a story that is whole: a finish and what was first, or neither.
#[test]
fn in_the_middle_of_a_cancel() {
    for round in 0..500 {
        let (one, cancel_one) = Context::background().with_cancel();
        let (two, cancel_two) = Context::background().with_cancel();
        let ctx = merge(&one, two.relay());
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for canceller in [&cancel_one, &cancel_two] {
                scope.spawn(|| {
                    start.wait();
                    canceller.cancel();
                });
            }
            start.wait();
            loop {
                let told = ctx.explain().to_string();
                let finished = !told.starts_with("live");
                assert_eq!(told.matches("← first").count(), usize::from(finished), "round {round}: {told}");
                assert!(finished || !told.contains("cancelled"), "round {round}: {told}");
                if finished {
                    break;
                }
            }
        });
    }
}
