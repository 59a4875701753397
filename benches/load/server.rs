//! The server as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A running server; ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(bounds: &str) -> Server {
        let program = std::env::current_exe().expect("a path").with_file_name("server");
        let mut command = Command::new(program);
        let mut child = command.arg(bounds).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut server = Server { child, input, output, port: 0 };
        server.port = server.line().parse().expect("a port");
        server
    }

    /// What the server answers to a line.
    pub(crate) fn ask(&mut self, line: &str) -> u64 {
        writeln!(self.input, "{line}").expect("a server that reads");
        self.line().parse().expect("a number")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a server that answers");
        line.trim().into()
    }

    /// What its threads have run, by the scheduler's account.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads");
        let ran = tasks.map(|task| {
            let account = fs::read_to_string(task.expect("a thread").path().join("schedstat")).expect("its account");
            account.split(' ').next().and_then(|ran| ran.parse::<u64>().ok()).expect("nanoseconds")
        });
        Duration::from_nanos(ran.sum())
    }

    /// Its resident memory, in kilobytes.
    pub(crate) fn resident(&self) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("its memory");
        let line = maps.lines().find_map(|line| line.strip_prefix("Rss:")?.strip_suffix("kB")).expect("its size");
        line.trim().parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
