//! The algebra as laws: leaving values aside, `merge` is associative, commutative and idempotent, the background is
//! its identity, and nesting does not show.

use std::time::Duration;

use context_merge::{Canceller, Context, any_of, merge};
use proptest::prelude::*;
use tokio::time::{Instant, advance};

const SOURCES: usize = 14;

/// An operand: over which sources, how often relayed, with which deadline in milliseconds.
#[derive(Clone, Debug)]
struct Operand {
    sources: Vec<usize>,
    relayed: bool,
    deadline: Option<u64>,
}

#[derive(Clone, Debug)]
enum Event {
    Cancel(usize),
    Advance(u64),
}

fn operand() -> impl Strategy<Value = Operand> {
    let sources = prop::collection::vec(0..SOURCES, 0..12);
    (sources, any::<bool>(), prop::option::of(0..40_u64)).prop_map(|(sources, relayed, deadline)| Operand {
        sources,
        relayed,
        deadline,
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![(0..SOURCES).prop_map(Event::Cancel), (0..20_u64).prop_map(Event::Advance)];
    prop::collection::vec(event, 0..8)
}

/// What can be seen of a context, but for values and for which of two equal deadlines it was.
fn seen(ctx: &Context) -> (bool, Option<String>, Option<Instant>) {
    let err = ctx.err().map(|err| format!("{err}: {:?}", err.cause().map(ToString::to_string)));
    assert_eq!(ctx.is_done(), err.is_some());
    (ctx.is_done(), err, ctx.deadline())
}

fn laws([a, b, c]: &[Context; 3]) -> Vec<(Context, Context)> {
    let background = Context::background();
    vec![
        (merge(merge(a, b), c), merge(a, merge(b, c))),
        (merge(a, b), merge(b, a)),
        (merge(a, a), a.clone()),
        (merge(a, merge(b, a)), merge(a, b)),
        (merge(a, &background), a.clone()),
        (merge(&background, a), a.clone()),
        (any_of([a]), a.clone()),
        (any_of([a, b, c]), merge(c, merge(b, a))),
        (any_of([a, b, c, b, a]), any_of([b, c, a])),
        (merge(a.relay(), b), merge(a, b.relay())),
        (merge(a, b).with_cancel().0, merge(a.with_cancel().0, b)),
        (merge(a.without_cancel(), b), b.clone()),
    ]
}

/// Some events happen before the laws are built, the others after.
fn hold(operands: &[Operand; 3], before: &[Event], after: &[Event]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let sources: Vec<(Context, Canceller)> = (0..SOURCES).map(|_| Context::background().with_cancel()).collect();
        let happen = async |events: &[Event]| {
            for event in events {
                match event {
                    Event::Cancel(source) => drop(sources[*source].1.cancel_with(format!("source {source}"))),
                    Event::Advance(millis) => advance(Duration::from_millis(*millis)).await,
                }
            }
        };
        let operands = operands.clone().map(|operand| {
            let ctx = any_of(operand.sources.iter().map(|source| &sources[*source].0));
            let ctx = if operand.relayed { ctx.relay() } else { ctx };
            operand.deadline.map_or(ctx.clone(), |at| ctx.with_deadline(start + Duration::from_millis(at)))
        });
        happen(before).await;
        let pairs = laws(&operands);
        for step in after.chunks(1).chain([&[] as &[Event]]) {
            for (law, (left, right)) in pairs.iter().enumerate() {
                assert_eq!(seen(left), seen(right), "law {law}");
            }
            happen(step).await;
        }
        for (law, (left, right)) in pairs.iter().enumerate() {
            assert_eq!(seen(left), seen(right), "law {law}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merge_is_a_semilattice(
        operands in [operand(), operand(), operand()],
        before in events(),
        after in events(),
    ) {
        hold(&operands, &before, &after);
    }
}
