//! On which machine, with which versions, and when.

use std::process::Command;
use std::thread::available_parallelism;
use std::{env, fs};

pub(crate) fn header() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = available_parallelism().map_or(0, usize::from);
    let lock = include_str!("../Cargo.lock");
    let peer = |program: &str, argument| {
        tool(program, argument).unwrap_or_else(|| format!("no `{program}`: its figures are left out"))
    };
    let lines = [
        ("machine", format!("{}, {cores} cores, {}", cpu.unwrap_or(env::consts::ARCH), env::consts::OS)),
        ("date", tool("date", "+%F").unwrap_or_default()),
        ("commit", commit()),
        ("Rust", tool("rustc", "--version").unwrap_or_default()),
        ("tokio", locked(lock, "tokio").unwrap_or_default().into()),
        ("tokio-util", locked(lock, "tokio-util").unwrap_or_default().into()),
        ("Go", peer("go", "version")),
        ("Node", peer("node", "--version")),
    ];
    lines.map(|(what, is)| format!("- {what}: {is}\n")).concat()
}

fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok();
    git.map(|output| String::from_utf8_lossy(&output.stdout).trim().into()).unwrap_or_default()
}

fn tool(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The version that a Cargo.lock has of a package.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_the_whole_name() {
        let lock = "[[package]]\nname = \"tokio-util\"\nversion = \"0.7.1\"\n\n[[package]]\nname = \"tokio\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked(lock, "tokio"), Some("1.2.3"));
        assert_eq!(locked(lock, "toki"), None);
    }
}
