//! Three processes, and one context from end to end: a gateway (axum) calls a middle (tonic), which calls a backend (tonic).
//!
//! Each gives its requests a context with `ContextLayer`, merged with its own shutdown, and hands it to the next one through
//! `PropagateLayer`. A deadline, a client that goes away, and a process that is stopped thus reach whoever works for the
//! request, and their reasons come back to the edge.
//!
//! Without arguments the example starts all three, drives them with real requests and a real signal, and prints what came
//! of it. Each can be started by hand as well, and logs where it listens:
//!
//! ```sh
//! cargo run --all-features --example chain
//! cargo run --all-features --example chain -- backend
//! cargo run --all-features --example chain -- middle http://127.0.0.1:PORT    # of the backend
//! cargo run --all-features --example chain -- gateway http://127.0.0.1:PORT   # of the middle
//! curl -m 0.5 -H 'connect-timeout-ms: 1500' http://127.0.0.1:PORT/1000        # of the gateway: a thousand steps
//! ```

mod backend;
mod client;
mod driver;
mod gateway;
mod hop;
mod middle;
mod process;
mod rpc;

use std::process::ExitCode;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("chain: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => driver::run().await,
        ["backend"] => {
            let (listener, shutdown) = hop::start().await?;
            backend::serve(listener, shutdown).await
        }
        ["middle", backend] => {
            let backend = hop::connect(backend)?;
            let (listener, shutdown) = hop::start().await?;
            middle::serve(listener, shutdown, backend).await
        }
        ["gateway", middle] => {
            let middle = hop::connect(middle)?;
            let (listener, shutdown) = hop::start().await?;
            gateway::serve(listener, shutdown, middle).await
        }
        _ => Err("usage: chain [backend | middle URL | gateway URL]".into()),
    }
}
