//! Programs drawn at random, judged by the naive model; the fuzz target runs the same.

mod model;
mod support;

use model::programs::{Step, agree};
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    let ctx = 0..64_u8;
    prop_oneof![
        3 => ctx.clone().prop_map(Step::Cancellable),
        2 => (ctx.clone(), 0..60_u8).prop_map(|(ctx, at)| Step::Deadline(ctx, at)),
        1 => (ctx.clone(), any::<u32>()).prop_map(|(ctx, value)| Step::Value(ctx, value)),
        2 => (ctx.clone(), 0..3_u8).prop_map(|(ctx, name)| Step::Named(ctx, name)),
        2 => ctx.clone().prop_map(Step::Relay),
        1 => ctx.clone().prop_map(Step::WithoutCancel),
        1 => (ctx.clone(), ctx.clone()).prop_map(|(ctx, primary)| Step::ValuesOf(ctx, primary)),
        4 => (ctx.clone(), ctx.clone()).prop_map(|(a, b)| Step::Merge(a, b)),
        3 => prop::collection::vec(ctx.clone(), 0..14).prop_map(Step::AnyOf),
        1 => (ctx.clone(), 1..20_u8).prop_map(|(ctx, size)| Step::Crowd(ctx, size)),
        3 => ctx.clone().prop_map(Step::Cancel),
        1 => ctx.clone().prop_map(Step::DropCanceller),
        2 => (0..15_u8).prop_map(Step::Advance),
        3 => ctx.clone().prop_map(Step::Wait),
        1 => ctx.clone().prop_map(Step::Repoll),
        1 => ctx.prop_map(Step::DropWaiter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        agree(&steps);
    }
}
