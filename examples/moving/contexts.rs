//! Step 3: no tokens any more, and whatever ends says who ended it and why.

use std::io;

use context_merge::{Context, Error};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::service::{Answers, Log, Request, report, split, sweep};

/// Returns when nothing of it runs any more.
pub(crate) async fn serve(listener: TcpListener, shutdown: Context, log: Log) -> io::Result<()> {
    let (shutdown, stop) = shutdown.with_cancel();
    let tasks = TaskTracker::new();
    tasks.spawn(background(shutdown.clone(), log.clone()));
    let accepted = shutdown.run(accept(listener, &tasks, &shutdown, &log)).await;
    // Changes nothing where the shutdown was first.
    stop.cancel_with("accepting has failed");
    tasks.close();
    tasks.wait().await;
    accepted.unwrap_or(Ok(()))
}

async fn accept(listener: TcpListener, tasks: &TaskTracker, shutdown: &Context, log: &Log) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tasks.spawn(connection(stream, shutdown.clone(), log.clone()));
    }
}

async fn connection(stream: TcpStream, shutdown: Context, log: Log) {
    let (mut incoming, answers) = split(stream, log.clone());
    let (connection, hang_up) = shutdown.named("connection").with_cancel();
    // For a panic; dropping the canceller alone would end nothing.
    let _guard = hang_up.clone().drop_guard();
    let requests = TaskTracker::new();
    let err = loop {
        match connection.run(incoming.next()).await {
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
