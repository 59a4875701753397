//! The seeds of the fuzz targets, and what they once found, without a fuzzer.

mod model;

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use model::one_by_one::agree_on;
use model::overlapping::Program;
use model::scope::Draw;

/// What libFuzzer makes of each file of a folder.
fn seeds<T: for<'a> Arbitrary<'a>>(target: &str) -> Vec<T> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds").join(target);
    let files = std::fs::read_dir(folder).expect("seeds are committed");
    let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    bytes.map(|bytes| T::arbitrary_take_rest(Unstructured::new(&bytes)).expect("any bytes will do")).collect()
}

#[test]
fn programs() {
    let seeds = seeds::<Vec<Draw>>("programs");
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|draws| agree_on(draws));
}

#[test]
fn threads() {
    let seeds = seeds::<(Vec<Draw>, [Vec<Draw>; 3])>("threads");
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|(before, threads)| Program::drawn(before, threads).run());
}
