//! The server under load, over loopback: ours, the tokens that are written today, and nothing. `load` measures all of it,
//! `load requests`, `load parked` or `load memory` one part.

mod memory;
mod parked;
mod requests;
mod server;
mod table;
mod wrk;

use std::process::{Command, ExitCode};
use std::thread::available_parallelism;
use std::{env, fs};

fn main() -> ExitCode {
    let part = env::args().nth(1).unwrap_or_default();
    let wanted = |name: &str| part.is_empty() || part == name;
    if !wrk::is_there() && part != "parked" {
        eprintln!("`just load` needs wrk: apt-get install wrk, brew install wrk, or from https://github.com/wg/wrk");
        return ExitCode::FAILURE;
    }
    println!("{}", header());
    if wanted("requests") {
        println!("{}", requests::measure());
    }
    if wanted("parked") {
        println!("{}", parked::measure());
    }
    if wanted("memory") {
        let (samples, grown) = memory::measure();
        println!("{samples}");
        if let Some(grown) = grown {
            eprintln!("{grown}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// On which machine, with which versions, when, and how busy the machine was before.
fn header() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = available_parallelism().map_or(0, usize::from);
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let busy: Vec<&str> = busy.split(' ').take(2).collect();
    let lines = [
        ("machine", format!("{}, {cores} cores for server and clients", cpu.unwrap_or(env::consts::ARCH))),
        ("system", said("uname", &["-sr"])),
        ("busy before", format!("{} runnable on average of the last one and five minutes", busy.join(" and "))),
        ("date", said("date", &["+%F"])),
        ("commit", said("git", &["describe", "--always", "--dirty"])),
        ("Rust", said("rustc", &["--version"])),
        ("wrk", said("wrk", &["-v"]).split(" [").next().unwrap_or_default().into()),
        ("locked", ["axum", "hyper", "tokio", "tokio-util", "h2"].map(locked).join(", ")),
    ];
    lines.map(|(what, is)| format!("- {what}: {is}\n")).concat()
}

/// The first line of what a program says.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return format!("no `{program}`") };
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().into()
}

/// A package with the version that Cargo.lock has of it.
fn locked(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let rest = lock.split(&format!("name = \"{package}\"\nversion = \"")).nth(1).unwrap_or_default();
    format!("{package} {}", rest.split('"').next().unwrap_or_default())
}
