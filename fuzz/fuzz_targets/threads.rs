//! Calls of three real threads at once, whose history the naive model has to explain.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::overlapping::Program;
use model::scope::Draws;

fuzz_target!(|draws: Draws| {
    let (before, threads) = draws.for_threads();
    Program::drawn(&before, &threads).run();
});
