//! Programs for two to four threads, drawn by proptest, whose history the naive model has to explain.
//!
//! `RUSTFLAGS="--cfg context_merge_shuttle" cargo test --release --test schedules` runs each under many schedules of
//! shuttle's, random ones and PCT's; there a set is gathered from three sources on. Without the flag each runs a few
//! times on real threads; the fuzz target `threads` does the same. A failure says how to run its schedule again.

mod model;

use model::overlapping::Program;
use model::scope::Draw;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// The numbers that a program is drawn from: what is done first, then each thread's.
type Draws = (Vec<Draw>, Vec<Vec<Draw>>);

fn draws() -> impl Strategy<Value = Draws> {
    let calls = |most| prop::collection::vec(any::<Draw>(), 1..most);
    (calls(10), prop::collection::vec(calls(7), 2..5))
}

#[test]
fn overlapping_calls_are_explained() {
    if let Ok(failed) = std::env::var("REPLAY") {
        return schedules::replay(&failed);
    }
    // The number of programs is proptest's own default of 256, or PROPTEST_CASES.
    let config = ProptestConfig { failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() };
    let explored = TestRunner::new(config).run(&draws(), |(before, threads)| {
        let program = Program::drawn(&before, &threads);
        schedules::explore(&program).map_err(|(failed, schedule)| {
            let text = text(&(before, threads));
            TestCaseError::fail(format!("{program:?}{failed}\nagain: just replay {text} {schedule}\n"))
        })
    });
    // Display, so that the program can be read.
    explored.unwrap_or_else(|failed| panic!("{failed}"));
}

/// Programs that once could not be explained.
#[test]
fn what_once_failed() {
    use model::Op::*;
    let programs = [
        // A merge with a finished input took another for live, which had finished first, but past the bound of sources
        // and so was not told yet.
        Program {
            before: vec![Crowd { of: 0, size: 10, ctx: 1 }, Cancellable { of: 0, ctx: 20 }],
            threads: vec![
                vec![Cancel { source: 2 }],
                vec![Cancel { source: 20 }, AnyOf { of: vec![1, 20], ctx: 2000 }],
            ],
        },
        // The history expected that a callback runs by a signal though nobody runs the runtime.
        Program {
            before: vec![
                Signal { ctx: 1 },
                OnDone { ctx: 1, other: 0, callback: 2 },
                Raise { signal: 1 },
                Stop { callback: 2 },
            ],
            threads: vec![vec![IsDone { ctx: 1 }], vec![IsDone { ctx: 1 }]],
        },
    ];
    for program in programs {
        (0..20).for_each(|_| schedules::explore(&program).unwrap_or_else(|failed| panic!("{failed:?}")));
    }
}

/// In one word: bytes in hexadecimal, threads behind commas.
fn text((before, threads): &Draws) -> String {
    let hex = |draws: &Vec<Draw>| draws.concat().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [before].into_iter().chain(threads).map(hex).collect::<Vec<_>>().join(",")
}

fn parsed(text: &str) -> Program {
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).expect("hexadecimal");
    let draws = |part: &str| -> Vec<Draw> {
        let bytes: Vec<u8> = part.as_bytes().chunks(2).map(byte).collect();
        bytes.chunks_exact(4).map(|draw| draw.try_into().expect("four")).collect()
    };
    let mut parts = text.split(',').map(draws);
    Program::drawn(&parts.next().expect("one part at least"), &parts.collect::<Vec<_>>())
}

/// Fails with what was wrong, and the schedule.
#[cfg(context_merge_shuttle)]
mod schedules {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::{env, fs};

    use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
    use shuttle::{Config, FailurePersistence, Runner};

    use super::Program;

    /// Of each kind.
    const SCHEDULES: usize = 60;

    /// The search for an order goes deep, and so does the message of a panic.
    const STACK: usize = 1 << 21;

    pub(super) fn explore(program: &Program) -> Result<(), (String, String)> {
        run(program, RandomScheduler::new(SCHEDULES))?;
        run(program, PctScheduler::new(3, SCHEDULES))
    }

    fn run(program: &Program, scheduler: impl Scheduler + 'static) -> Result<(), (String, String)> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schedules");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("cargo has a folder for this");
        let mut config = Config::new();
        config.stack_size = STACK;
        config.failure_persistence = FailurePersistence::File(Some(folder.clone()));
        let program = program.clone();
        let run = AssertUnwindSafe(|| Runner::new(scheduler, config).run(move || program.run()));
        catch_unwind(run).map(drop).map_err(|panic| {
            let message = panic.downcast::<String>().map_or_else(|_| "see the panic above".to_owned(), |text| *text);
            let file = fs::read_dir(&folder).into_iter().flatten().flatten().next();
            let schedule = file.and_then(|file| fs::read_to_string(file.path()).ok()).unwrap_or_default();
            (message, schedule.split_whitespace().collect())
        })
    }

    pub(super) fn replay(failed: &str) {
        let (program, schedule) = failed.split_once(' ').expect("a program and a schedule");
        let program = super::parsed(program);
        eprintln!("{program:?}");
        let mut config = Config::new();
        config.stack_size = STACK;
        let scheduler = ReplayScheduler::new_from_encoded(schedule);
        Runner::new(scheduler, config).run(move || program.run());
    }
}

#[cfg(not(context_merge_shuttle))]
mod schedules {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Program;

    pub(super) fn explore(program: &Program) -> Result<(), (String, &'static str)> {
        let run = || (0..4).for_each(|_| program.run());
        let failed = |_| ("see the panic above".to_owned(), "on real threads");
        catch_unwind(AssertUnwindSafe(run)).map_err(failed)
    }

    /// Real threads have no schedule to follow, so this tries often.
    pub(super) fn replay(failed: &str) {
        let program = super::parsed(failed.split(' ').next().expect("a program"));
        eprintln!("{program:?}");
        (0..10_000).for_each(|_| program.run());
    }
}
