//! Calls of three real threads at once, whose history the naive model has to explain.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::overlapping::Program;
use model::scope::Draw;

fuzz_target!(|draws: (Vec<Draw>, [Vec<Draw>; 3])| Program::drawn(&draws.0, &draws.1).run());
