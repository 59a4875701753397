//! Programs of contexts, judged by the naive model that the tests use.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;
#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use model::programs::{Step, agree};

fuzz_target!(|steps: Vec<Step>| agree(&steps[..steps.len().min(100)]));
