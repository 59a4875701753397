//! The seeds of the fuzz targets, and what they once found, without a fuzzer.

mod model;

use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use model::one_by_one::agree_on;
use model::overlapping::Program;
use model::scope::Draws;

/// What the fuzzer makes of each file of a folder.
fn seeds(target: &str) -> Vec<Draws> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds").join(target);
    let files = std::fs::read_dir(folder).expect("seeds are committed");
    let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    bytes.map(|bytes| Draws::arbitrary_take_rest(Unstructured::new(&bytes)).expect("any bytes will do")).collect()
}

#[test]
fn programs() {
    let seeds = seeds("programs");
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|draws| agree_on(&draws.0));
}

#[test]
fn threads() {
    let seeds = seeds("threads");
    assert!(!seeds.is_empty());
    for (before, threads) in seeds.iter().map(Draws::for_threads) {
        Program::drawn(&before, &threads).run();
    }
}
