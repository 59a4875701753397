//! Programs of calls made one after the other, drawn by proptest and judged by the naive model; the fuzz target
//! `programs` runs the same. What once failed is a test of its own, in the file of its subject.

mod model;

use model::one_by_one::{OneByOne, agree_on};
use model::scope::{Draw, Scope};
use model::{Answer, Op, World};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// The model's side.
#[derive(Clone, Debug)]
struct Reference {
    world: World,
    scope: Scope,
    /// What the last call gives.
    answer: Answer,
}

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { world: World::new(), scope: Scope::new(), answer: Answer::Nothing }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Op> {
        let scope = state.scope.clone();
        any::<[u8; 4]>().prop_map(move |draw| scope.call(draw)).boxed()
    }

    fn preconditions(state: &Self, op: &Op) -> bool {
        state.scope.allows(op)
    }

    fn apply(mut state: Self, op: &Op) -> Self {
        state.scope.enter(op);
        Self { answer: state.world.answer(op), world: state.world.after(op), ..state }
    }
}

struct Programs;

impl StateMachineTest for Programs {
    type SystemUnderTest = OneByOne;
    type Reference = Reference;

    fn init_test(_: &Reference) -> OneByOne {
        OneByOne::new()
    }

    fn apply(mut crates: OneByOne, reference: &Reference, op: Op) -> OneByOne {
        assert_eq!(crates.call(&op), reference.answer, "{op:?}");
        crates.compare(&reference.world);
        crates
    }

    fn teardown(crates: OneByOne, _: Reference) {
        crates.end();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_agree_with_the_model(sequential 1..60 => Programs);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// The machine above looks at everything after each call, which would hide what is left to the first look.
    #[test]
    fn programs_agree_with_the_model_however_late_the_first_look(draws in prop::collection::vec(any::<Draw>(), 1..60)) {
        agree_on(&draws);
    }
}
