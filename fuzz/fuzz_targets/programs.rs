//! Calls made one after the other, by the crate and by the naive model that the tests use.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::one_by_one::agree_on;
use model::scope::Draws;

fuzz_target!(|draws: Draws| agree_on(&draws.0));
