//! A server that is shut down without losing a request.
//!
//! `GET /?time=SECONDS` answers at once and leaves a task running, which outlives its request, has a limit of its own,
//! and ends with the application; `/work?time=SECONDS` answers when it is done; `/ticks` never is. At SIGINT or SIGTERM
//! the server accepts no more, the ticks say goodbye, and what is running may go on for a while; what is left then is
//! cancelled, and told why.
//!
//! Without arguments the example drives itself, with real requests and real signals, and prints what came of it:
//!
//! ```sh
//! cargo run --example shutdown
//! cargo run --example shutdown -- --listen 127.0.0.1:3000 --grace 5 --task-limit 20
//! ```

mod client;
mod demo;
mod options;
mod server;
mod tasks;

use std::io;
use std::process::ExitCode;

use context_merge::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::info;

use options::{Command, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Demo) => {
            log_to_stderr();
            if demo::run().await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Command::Listen(address, options)) => {
            log_to_stderr();
            by_hand(&address, options).await.map_or_else(|err| complain(&err.to_string(), 1), |()| ExitCode::SUCCESS)
        }
        Err(why) => complain(&format!("{why}\n\n{}", options::HELP), 2),
    }
}

async fn by_hand(address: &str, options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|err| io::Error::new(err.kind(), format!("cannot listen on {address}: {err}")))?;
    let shutdown = Shutdown::new(options.grace).on_signals()?;
    info!(grace = ?options.grace, task_limit = ?options.task_limit, "LISTENING on http://{}", listener.local_addr()?);
    // Nobody asks for the outcomes here: the log says it all.
    let (outcomes, _) = mpsc::unbounded_channel();
    server::run(listener, shutdown, options.task_limit, outcomes).await.map_err(io::Error::other)
}

/// Stdout is for the verdicts.
fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_target(false)
        .init();
}

fn complain(why: &str, code: u8) -> ExitCode {
    eprintln!("shutdown: {}", why.trim_end());
    ExitCode::from(code)
}
