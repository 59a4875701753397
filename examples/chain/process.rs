//! This program again, in one of its roles, with its log for us to read.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

use crate::BoxError;

pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
    /// It ends when its stdin is closed, also where that is because we are gone.
    child: Child,
}

impl Process {
    pub(crate) async fn start(role: &'static str, next: Option<&Process>) -> Result<Process, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .args(next.map(|next| format!("http://{}", next.address)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(read(role, child.stdout.take().expect("piped"), sender));
        let mut log = Log { role, lines, unread: Vec::new() };
        let listening = log.line("LISTENING on http://").await?;
        let (_, address) = listening.text.rsplit_once('/').expect("in what was looked for");
        Ok(Process { address: address.parse()?, log, child })
    }

    /// Through the shell, which always has a `kill`.
    pub(crate) async fn terminate(&self) -> Result<(), BoxError> {
        let kill = format!("kill -s TERM {}", self.child.id().ok_or("it has ended already")?);
        let status = Command::new("sh").arg("-c").arg(&kill).status().await?;
        if status.success() { Ok(()) } else { Err(format!("{kill}: {status}").into()) }
    }

    /// Waits for it to end as it should; closes its stdin first.
    pub(crate) async fn end(mut self) -> Result<(), BoxError> {
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("the {}: {status}", self.log.role).into()) }
    }
}

pub(crate) struct Log {
    role: &'static str,
    lines: UnboundedReceiver<Line>,
    /// What came before a line that was looked for.
    unread: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) at: Instant,
}

impl Log {
    /// The first line with `what` in it that was not taken yet.
    pub(crate) async fn line(&mut self, what: &str) -> Result<Line, BoxError> {
        if let Some(at) = self.unread.iter().position(|line| line.text.contains(what)) {
            return Ok(self.unread.remove(at));
        }
        loop {
            let line = self.lines.recv().await.ok_or_else(|| format!("the {} has ended before {what}", self.role))?;
            if line.text.contains(what) {
                return Ok(line);
            }
            self.unread.push(line);
        }
    }
}

async fn read(role: &str, stdout: ChildStdout, lines: UnboundedSender<Line>) {
    let mut stdout = BufReader::new(stdout).lines();
    while let Ok(Some(text)) = stdout.next_line().await {
        let at = Instant::now();
        eprintln!("{role:<8}{text}");
        // Where nobody looks any more the receiver is gone.
        let _ = lines.send(Line { text, at });
    }
}
