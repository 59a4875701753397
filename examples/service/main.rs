//! One service with every kind of endpoint, under load, and shut down without losing a request.
//!
//! Plain requests, SSE, a WebSocket, downloads and writes to replicas (axum); unary calls and a stream (tonic); a queue; and,
//! where `DATABASE_URL` is set, transfers in PostgreSQL. SIGTERM begins a [`Shutdown`]: it accepts no more, what is in flight
//! has the grace, streams end cleanly, and what is left is cancelled and told why.
//!
//! Without arguments the example starts the service as a process, keeps sending requests on HTTP/1.1, HTTP/2 and gRPC, sends it
//! a real SIGTERM, and prints what came of it:
//!
//! ```sh
//! cargo run --all-features --example service
//! cargo run --all-features --example service -- serve    # by hand: it logs where it listens
//! ```
//!
//! [`Shutdown`]: context_merge::shutdown::Shutdown

mod database;
mod driver;
mod endpoints;
mod load;
mod open;
mod process;
mod queue;
mod replicas;
mod rpc;
mod service;

use std::process::ExitCode;
use std::time::Duration;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is in flight at the signal may take so long.
const GRACE: Duration = Duration::from_millis(1500);
/// What was cancelled then may take so long to put things away.
const SLACK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ended = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => driver::run().await,
        ["serve"] => service::run().await,
        _ => Err("usage: service [serve]".into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("service: {err}");
            ExitCode::FAILURE
        }
    }
}
