//! A small service on its way from tokens and `select!` to contexts: the same one in four steps, and the same clients to
//! show that nobody notices. The section "Moving a service" of COMING_FROM.md goes through them.
//!
//! ```sh
//! cargo run --all-features --example moving
//! diff examples/moving/tokens.rs examples/moving/edge.rs
//! ```

mod contexts;
mod edge;
mod request;
mod script;
mod service;
mod tokens;

use std::future::Future;
use std::io;
use std::time::Duration;

use context_merge::shutdown::Shutdown;
use context_merge::{Context, merge};
use tokio_util::sync::CancellationToken;

use script::Seen;

const PATIENCE: Duration = Duration::from_secs(5);

/// What the last step says. The others say the same up to each colon: what is behind it is for people.
const ANSWERS: [&str; 13] = [
    "slow 100: started",
    "slow 504: context deadline exceeded (request): a report may take 50ms",
    "quick 100: started",
    "quick 200: the report",
    "left 100: started",
    "closed", // what is not a request
    "first 100: started",
    "first 200: the report",
    "late 100: started",
    "late 503: context cancelled (shutdown): SIGTERM",
    "closed",
    "closed",
    "refused",
];
const LOG: [&str; 10] = [
    "background stopped: context cancelled (shutdown): SIGTERM",
    "connection closed: context cancelled (connection): not a request, \"hello\"",
    "connection closed: context cancelled (connection): the client hung up",
    "connection closed: context cancelled (shutdown): SIGTERM",
    "connection closed: context cancelled (shutdown): SIGTERM",
    "first 200: the report",
    "late 503: context cancelled (shutdown): SIGTERM",
    "left 499: context cancelled (connection): the client hung up",
    "quick 200: the report",
    "slow 504: context deadline exceeded (request): a report may take 50ms",
];

#[tokio::main]
async fn main() -> Result<(), &'static str> {
    let mut same = true;

    let token = CancellationToken::new();
    let serve = |listener, log| tokens::serve(listener, token.clone(), log);
    same &= is_same("0 tokens", protocol, script::run(serve, || token.cancel())).await;

    // While part of the process still has a token to end it with, either does.
    let (signal, _stop) = Context::background().named("shutdown").with_cancel();
    let token = CancellationToken::new();
    let serve = |listener, log| edge::serve(listener, merge(&signal, &token), log);
    same &= is_same("1 edge, ended by a token", protocol, script::run(serve, || token.cancel())).await;

    let (signal, stop) = Context::background().named("shutdown").with_cancel();
    let serve = |listener, log| edge::serve(listener, signal, log);
    same &= is_same("1 edge", protocol, script::run(serve, || _ = stop.cancel_with("SIGTERM"))).await;

    let (signal, stop) = Context::background().named("shutdown").with_cancel();
    let serve = |listener, log| request::serve(listener, signal, log);
    same &= is_same("2 request", protocol, script::run(serve, || _ = stop.cancel_with("SIGTERM"))).await;

    // As a second signal does: the script has no patience for a grace.
    let shutdown = Shutdown::new(PATIENCE);
    let serve = |listener, log| contexts::serve(listener, shutdown.clone(), log);
    same &= is_same("3 contexts", whole, script::run(serve, || _ = shutdown.stop("SIGTERM"))).await;
    LOG.iter().filter(|_| same).for_each(|line| println!("        {line}"));

    if same { Ok(()) } else { Err("a step differs") }
}

/// Whether the part of each line that is compared is as it should be.
async fn is_same(name: &str, compared: fn(&str) -> &str, script: impl Future<Output = io::Result<Seen>>) -> bool {
    let limit = Context::background().named("patience").with_timeout(PATIENCE);
    let seen = limit.run(script).await.unwrap_or_else(|err| Err(err.into()));
    let same = |seen: &[String], expected: &[&str]| {
        seen.iter().map(|line| compared(line)).eq(expected.iter().map(|line| compared(line)))
    };
    match seen {
        Ok(seen) if same(&seen.answers, &ANSWERS) && same(&seen.log, &LOG) => {
            println!("ok      {name}");
            return true;
        }
        Ok(seen) => println!("FAILED  {name}: {seen:#?}, not {ANSWERS:#?} and {LOG:#?}"),
        Err(err) => println!("FAILED  {name}: {err}"),
    }
    false
}

fn protocol(line: &str) -> &str {
    line.split(':').next().unwrap_or(line)
}

fn whole(line: &str) -> &str {
    line
}
