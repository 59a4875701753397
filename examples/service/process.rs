//! The service as a process, with what it prints for us to read.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use crate::BoxError;

/// Killed when dropped.
pub(crate) struct Process {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) async fn start() -> Result<Process, BoxError> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut listening = async |what| -> Result<SocketAddr, BoxError> {
            let line = lines.next_line().await?.ok_or("the service has ended before it listened")?;
            Ok(line.strip_prefix(what).ok_or_else(|| format!("{what:?} is missing in {line:?}"))?.parse()?)
        };
        let (http, grpc) = (listening("LISTENING http ").await?, listening("LISTENING grpc ").await?);
        Ok(Process { http, grpc, child, lines })
    }

    /// Through the shell, which always has a `kill`.
    pub(crate) async fn terminate(&self) -> Result<(), BoxError> {
        let kill = format!("kill -s TERM {}", self.child.id().ok_or("it has ended already")?);
        let status = Command::new("sh").arg("-c").arg(&kill).status().await?;
        if status.success() { Ok(()) } else { Err(format!("{kill}: {status}").into()) }
    }

    /// What it prints to its end, and how long that takes from `since`.
    pub(crate) async fn end(mut self, since: Instant) -> Result<(String, Duration), BoxError> {
        let mut shown = String::new();
        while let Some(line) = self.lines.next_line().await? {
            shown = shown + &line + "\n";
        }
        let status = self.child.wait().await?;
        if status.success() { Ok((shown, since.elapsed())) } else { Err(format!("{status}\n{shown}").into()) }
    }
}
