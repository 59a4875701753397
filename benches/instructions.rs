//! How many instructions the hottest operations take, against `instructions.txt`: fails where one takes more than it did.
//!
//! Each operation is run often and twice as often under callgrind: the difference is what the operation takes, without
//! the start. `instructions accept` keeps the new figures.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

const OPERATIONS: [&str; 7] = ["merge", "new_request", "ended", "exchange", "check", "await", "run"];
const TIMES: u64 = 2_000;
/// By how much an operation may grow unnoticed.
const MARGIN: f64 = 0.05;

fn main() -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("bench-check needs valgrind (apt-get install valgrind)");
        return ExitCode::FAILURE;
    }
    let counted = OPERATIONS.map(|operation| (operation, instructions(operation)));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    if env::args().nth(1).is_some_and(|arg| arg == "accept") {
        fs::write(&file, page(&rustc(), &counted)).expect("to write instructions.txt");
        println!("kept in benches/instructions.txt");
        return ExitCode::SUCCESS;
    }
    let kept = fs::read_to_string(&file).expect("instructions.txt");
    if !kept.contains(&rustc()) {
        println!("The figures kept are of another compiler than this {}.", rustc());
    }
    let verdicts = counted.map(|(operation, now)| verdict(operation, figure(&kept, operation), now));
    for verdict in &verdicts {
        println!("{}", verdict.as_ref().unwrap_or_else(|failure| failure));
    }
    if verdicts.iter().any(Result::is_err) {
        eprintln!("If that is meant, keep the new figures: just bench-accept");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What is said of an operation, as a failure where it has grown past the margin.
fn verdict(operation: &str, kept: Option<f64>, now: f64) -> Result<String, String> {
    let Some(kept) = kept else { return Err(format!("{operation}: {now:.0} instructions, and none kept")) };
    let change =
        format!("{operation}: {kept:.0} instructions kept, {now:.0} now ({:+.1} %)", (now / kept - 1.0) * 100.0);
    match now / kept - 1.0 {
        growth if growth > MARGIN => Err(format!("GROWN: {change}")),
        growth if growth < -MARGIN => Ok(format!("{change}; just bench-accept keeps that")),
        _ => Ok(change),
    }
}

/// The instructions that one run of an operation takes.
fn instructions(operation: &str) -> f64 {
    let [once, twice] = [TIMES, 2 * TIMES].map(|times| {
        let program = env::current_exe().expect("a path").with_file_name("hot");
        collected(&program, operation, times)
    });
    (twice - once) as f64 / TIMES as f64
}

fn collected(program: &PathBuf, operation: &str, times: u64) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = valgrind.args([operation, &times.to_string()]).output().expect("valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said.lines()
        .find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
        .unwrap_or_else(|| panic!("callgrind has not counted: {said}"))
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("rustc");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// instructions.txt: a line for each operation.
fn page(rustc: &str, counted: &[(&str, f64)]) -> String {
    let lines = counted.iter().map(|(operation, now)| format!("{operation} {now:.0}\n"));
    format!(
        "# Instructions of one run of each operation in hot.rs, {}, {rustc}; `just bench-accept` writes them.\n",
        env::consts::ARCH
    ) + &lines.collect::<String>()
}

fn figure(page: &str, operation: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(operation)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let page = page("rustc 1.2.3", &[("run_ready", 20.0), ("run", 10.4)]);
        assert_eq!(figure(&page, "run"), Some(10.0));
        assert_eq!(figure(&page, "merge"), None);
    }

    #[test]
    fn growth_past_the_margin_fails_and_says_from_what_to_what() {
        assert_eq!(verdict("run", Some(100.0), 104.0).unwrap(), "run: 100 instructions kept, 104 now (+4.0 %)");
        assert!(verdict("run", Some(100.0), 50.0).unwrap().ends_with("(-50.0 %); just bench-accept keeps that"));
        let failure = verdict("run", Some(100.0), 106.0).unwrap_err();
        assert_eq!(failure, "GROWN: run: 100 instructions kept, 106 now (+6.0 %)");
        assert!(verdict("run", None, 1.0).is_err());
    }
}
