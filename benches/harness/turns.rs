//! Comparisons in turn: ours, peer, ours, peer, so that what the machine does meanwhile meets both.

use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, SamplingMode};

use crate::figures::{self, Figure};

/// The ratio that counts is the median over so many rounds.
const ROUNDS: usize = 7;

/// The measures of one bench file.
pub struct Turns {
    criterion: Criterion,
    filter: Option<String>,
    /// Only shows that everything runs, as `cargo test` asks for.
    test: bool,
}

impl Turns {
    /// Runs what `measures` declares, as the arguments of `cargo bench` say.
    pub fn run(measures: impl FnOnce(&mut Turns)) {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        let criterion = Criterion::default()
            .sample_size(10)
            .nresamples(1_001)
            .warm_up_time(Duration::from_millis(50))
            .measurement_time(Duration::from_millis(100))
            .without_plots()
            .configure_from_args()
            .output_directory(&figures::directory());
        let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned();
        let mut turns = Turns { criterion, filter, test: has("--test") || !has("--bench") };
        measures(&mut turns);
        turns.criterion.final_summary();
    }

    /// Whether this run only shows that everything runs: sizes may be small.
    pub fn is_test(&self) -> bool {
        self.test
    }

    /// A measure by the name that the report shows.
    pub fn measure<'a>(&'a mut self, name: &str) -> Measure<'a> {
        Measure { turns: self, name: name.into(), sides: Vec::new() }
    }
}

type Benched<'a> = Box<dyn FnMut(&mut Bencher) + 'a>;

enum How<'a> {
    Benched(Benched<'a>),
    Once(Box<dyn FnMut() -> Duration + 'a>),
}

/// One measure, and its sides: ours, and the peers.
pub struct Measure<'a> {
    turns: &'a mut Turns,
    name: String,
    /// Each with a size, where the measure has several.
    sides: Vec<(String, usize, How<'a>)>,
}

impl<'a> Measure<'a> {
    /// A side that criterion benchmarks.
    pub fn side(self, name: &str, bench: impl FnMut(&mut Bencher) + 'a) -> Self {
        self.sized(name, 1, bench)
    }

    /// The same for one of several sizes: inputs, waiters, threads or depth.
    pub fn sized(mut self, name: &str, size: usize, bench: impl FnMut(&mut Bencher) + 'a) -> Self {
        self.sides.push((name.into(), size, How::Benched(Box::new(bench))));
        self
    }

    /// A side that is too big to repeat: measured once a round.
    pub fn once(mut self, name: &str, size: usize, time: impl FnMut() -> Duration + 'a) -> Self {
        self.sides.push((name.into(), size, How::Once(Box::new(time))));
        self
    }

    /// Measures all sides in turn.
    pub fn run(mut self) {
        let rounds = if self.turns.test { 1 } else { ROUNDS };
        for round in 0..rounds {
            for (side, size, how) in &mut self.sides {
                let figure = Figure { measure: self.name.clone(), side: side.clone(), size: *size, round };
                match how {
                    How::Benched(bench) => {
                        let mut group = self.turns.criterion.benchmark_group(&self.name);
                        group.sampling_mode(SamplingMode::Auto);
                        group.bench_function(BenchmarkId::new(side.as_str(), figure.parameter()), bench);
                        group.finish();
                    }
                    How::Once(time) => {
                        let wanted = self.turns.filter.as_ref().is_none_or(|filter| figure.id().contains(filter));
                        if wanted {
                            let time = time();
                            if !self.turns.test {
                                println!("{}: {time:?}", figure.id());
                                figure.keep(time);
                            }
                        }
                    }
                }
            }
        }
    }
}
