//! Comparisons in turn: ours, peer, ours, peer, so that what the machine does meanwhile meets both.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Bencher, BenchmarkId, Criterion};
use tokio::runtime::Runtime;

use crate::figures::{self, Figure};
use crate::peer::Peer;

/// The ratio that counts is the median over so many rounds.
const ROUNDS: usize = 9;

/// From this size on once a round, which is long enough to be timed by itself.
const TOO_BIG: usize = 100_000;

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

    fn leaves_out(&self, id: &str) -> bool {
        self.filter.as_ref().is_some_and(|filter| !id.contains(filter))
    }

    /// A measure by the name that the report shows.
    pub fn measure<'a>(&'a mut self, name: &str) -> Measure<'a> {
        Measure { turns: self, name: name.into(), sides: Vec::new() }
    }
}

type Bench<'a> = Box<dyn FnMut(&mut Bencher) + 'a>;
type Time<'a> = Box<dyn FnMut() -> Duration + 'a>;

enum How<'a> {
    Criterion(Bench<'a>),
    Once(Time<'a>),
}

struct Side<'a> {
    name: String,
    /// How many inputs, waiters, threads or levels, where the measure has several sizes.
    size: usize,
    how: How<'a>,
}

/// One measure, and its sides: ours, and the peers.
pub struct Measure<'a> {
    turns: &'a mut Turns,
    name: String,
    sides: Vec<Side<'a>>,
}

impl<'a> Measure<'a> {
    /// A side that criterion times.
    pub fn side(self, name: &str, bench: impl FnMut(&mut Bencher) + 'a) -> Self {
        self.sized(name, 1, bench)
    }

    /// The same for one of several sizes.
    pub fn sized(mut self, name: &str, size: usize, bench: impl FnMut(&mut Bencher) + 'a) -> Self {
        self.sides.push(Side { name: name.into(), size, how: How::Criterion(Box::new(bench)) });
        self
    }

    /// A side in another language, left out where there is none.
    pub fn peer(self, name: &str, peer: Option<&'a Peer>, operation: &'static str, size: usize) -> Self {
        let Some(peer) = peer else { return self };
        self.sized(name, size, move |b| b.iter_custom(|iterations| peer.time(operation, size, iterations)))
    }

    /// A side that times a part of what it does: as often as criterion wants, or, where it is too big to repeat, once a
    /// round.
    pub fn timed(mut self, name: &str, size: usize, mut time: impl FnMut() -> Duration + 'a) -> Self {
        if size < TOO_BIG {
            return self.sized(name, size, move |b| b.iter_custom(|iterations| (0..iterations).map(|_| time()).sum()));
        }
        self.sides.push(Side { name: name.into(), size, how: How::Once(Box::new(time)) });
        self
    }

    /// Measures all sides in turn.
    pub fn run(mut self) {
        let rounds = if self.turns.test { 1 } else { ROUNDS };
        for round in 0..rounds {
            for Side { name, size, how } in &mut self.sides {
                let figure = Figure { measure: self.name.clone(), side: name.clone(), size: *size, round };
                match how {
                    How::Criterion(bench) => {
                        let mut group = self.turns.criterion.benchmark_group(&self.name);
                        group.bench_function(BenchmarkId::new(name.as_str(), figure.parameter()), bench);
                        group.finish();
                    }
                    How::Once(_) if self.turns.leaves_out(&figure.id()) => {}
                    How::Once(time) => {
                        let time = time();
                        println!("{}: {time:?}", figure.id());
                        if !self.turns.test {
                            figure.keep(time);
                        }
                    }
                }
            }
        }
    }
}

/// Times `operation`, one after the other, as a task of `runtime` calls it.
pub fn on<T>(runtime: &Runtime, b: &mut Bencher, operation: impl AsyncFn() -> T) {
    b.iter_custom(|iterations| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..iterations {
                black_box(operation().await);
            }
            start.elapsed()
        })
    });
}
