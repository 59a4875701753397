//! Step 3: no tokens any more, and whatever ends says who ended it and why.

use std::io;
use std::time::Duration;

use context_merge::shutdown::Shutdown;
use context_merge::{Context, Error, merge};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::service::{Answers, Log, Request, report, split, sweep};

/// How long after the stop what was cancelled may take to put things away.
const SLACK: Duration = Duration::from_secs(1);

/// Returns when nothing of it runs any more.
pub(crate) async fn serve(listener: TcpListener, shutdown: Shutdown, log: Log) -> io::Result<()> {
    shutdown.spawn(background(shutdown.stopping().clone(), log.clone()));
    let accepted = shutdown.draining().run(accept(listener, &shutdown, &log)).await;
    if accepted.is_ok() {
        shutdown.stop("accepting has failed");
    }
    // Those that are connected may end well within the grace.
    shutdown.ended(SLACK).await.map_err(io::Error::other)?;
    accepted.unwrap_or(Ok(()))
}

async fn accept(listener: TcpListener, shutdown: &Shutdown, log: &Log) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        shutdown.spawn(connection(stream, shutdown.clone(), log.clone()));
    }
}

async fn connection(stream: TcpStream, shutdown: Shutdown, log: Log) {
    let (mut incoming, answers) = split(stream, log.clone());
    let (connection, hang_up) = shutdown.stopping().named("connection").with_cancel();
    // For a panic; dropping the canceller alone would end nothing.
    let _guard = hang_up.clone().drop_guard();
    // A server that drains takes no more requests; those that it has go on to the stop.
    let reading = merge(&connection, shutdown.draining());
    let requests = TaskTracker::new();
    let err = loop {
        match reading.run(incoming.next()).await {
            Ok(Ok(request)) => drop(requests.spawn(answer(request, connection.clone(), answers.clone()))),
            // The next turn ends with it, or with what was before it.
            Ok(Err(err)) => _ = hang_up.cancel_with(err),
            Err(err) => break err,
        }
    };
    requests.close();
    requests.wait().await;
    log.say(&format!("connection closed: {}", reason(&err)));
}

async fn answer(request: Request, connection: Context, answers: Answers) {
    let limit = format!("a report may take {:?}", request.within);
    let ctx = connection.named("request").with_timeout_cause(request.within, limit);
    let outcome = match ctx.run(report(&request, &answers)).await {
        Ok(done) => done.to_owned(),
        Err(err) => format!("{}: {}", status(&err), reason(&err)),
    };
    answers.answer(&request.tag, &outcome).await;
}

fn status(err: &Error) -> u16 {
    match err.origin() {
        Some("request") => 504,
        Some("connection") => 499,
        _ => 503,
    }
}

fn reason(err: &Error) -> String {
    err.cause().map_or(err.to_string(), |cause| format!("{err}: {cause}"))
}

async fn background(shutdown: Context, log: Log) {
    let err = loop {
        if let Err(err) = shutdown.run(sweep()).await {
            break err;
        }
    };
    log.say(&format!("background stopped: {}", reason(&err)));
}
