//! Peers in other languages: a program that measures itself, asked once for each sample that criterion takes.
//!
//! It reads lines of `operation size iterations` and answers each with the nanoseconds that took.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A running program; ends when it is dropped.
pub struct Peer {
    child: Child,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Peer {
    /// The program of `peers/go`, where there is a `go` to build it.
    pub fn go() -> Option<Peer> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peer-go");
        let mut build = Command::new("go");
        build.args(["build", "-o"]).arg(&program).arg(".").current_dir(directory().join("go"));
        let Ok(built) = build.status() else {
            eprintln!("go is not on PATH: left out");
            return None;
        };
        assert!(built.success(), "go build failed");
        Some(Peer::start(&mut Command::new(program)))
    }

    /// The program of `peers/node.mjs`, where there is a `node` to run it.
    pub fn node() -> Option<Peer> {
        if Command::new("node").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("node is not on PATH: left out");
            return None;
        }
        Some(Peer::start(Command::new("node").arg("--expose-gc").arg(directory().join("node.mjs"))))
    }

    fn start(command: &mut Command) -> Peer {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program of a peer");
        let pipes = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, pipes: RefCell::new(pipes) }
    }

    /// What so many iterations took, by the program's own clock.
    pub(crate) fn time(&self, operation: &str, size: usize, iterations: u64) -> Duration {
        let (input, output) = &mut *self.pipes.borrow_mut();
        writeln!(input, "{operation} {size} {iterations}").expect("a peer that reads");
        let mut line = String::new();
        output.read_line(&mut line).expect("a peer that answers");
        Duration::from_nanos(line.trim().parse().unwrap_or_else(|_| panic!("no time for {operation}: {line:?}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))
}
