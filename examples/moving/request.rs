//! Step 2: the bounds of a request become one context, and its `select!` becomes `run`.

use std::io;

use context_merge::{Context, merge, tokio_util::token};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::{Answers, Log, Request, report, split, sweep};

/// Returns when nothing of it runs any more.
pub(crate) async fn serve(listener: TcpListener, shutdown: Context, log: Log) -> io::Result<()> {
    let (ctx, stop) = shutdown.with_cancel();
    // Kept to the end: the token follows no longer than that.
    let (shutdown, _follows) = token(&ctx);
    let tasks = TaskTracker::new();
    tasks.spawn(background(shutdown.clone(), log.clone()));
    let accepted = select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        accepted = accept(listener, &tasks, &ctx, &shutdown, &log) => accepted,
    };
    // For where nobody did, but accepting has failed.
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    accepted
}

async fn accept(
    listener: TcpListener,
    tasks: &TaskTracker,
    ctx: &Context,
    shutdown: &CancellationToken,
    log: &Log,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tasks.spawn(connection(stream, ctx.clone(), shutdown.clone(), log.clone()));
    }
}

async fn connection(stream: TcpStream, ctx: Context, shutdown: CancellationToken, log: Log) {
    let (mut incoming, answers) = split(stream, log.clone());
    let connection = shutdown.child_token();
    let hung_up = connection.clone().drop_guard();
    // Once for all requests: each conversion of a token makes a source of its own.
    let lost = Context::from(&connection);
    let ctx = merge(ctx, &lost);
    let requests = TaskTracker::new();
    let why = loop {
        select! {
            biased;
            () = shutdown.cancelled() => break "shutdown".to_owned(),
            next = incoming.next() => match next {
                Ok(request) => requests.spawn(answer(request, ctx.clone(), lost.clone(), answers.clone())),
                Err(err) => break err.to_string(),
            },
        };
    };
    drop(hung_up);
    requests.close();
    requests.wait().await;
    log.say(&format!("connection closed: {why}"));
}

async fn answer(request: Request, ctx: Context, lost: Context, answers: Answers) {
    let ctx = ctx.with_timeout(request.within);
    let outcome = match ctx.run(report(&request, &answers)).await {
        Ok(done) => done,
        Err(err) if err.is_deadline_exceeded() => "504: timed out",
        Err(_) if ctx.finished_by(&lost) => "499: connection lost",
        Err(_) => "503: shutting down",
    };
    answers.answer(&request.tag, outcome).await;
}

async fn background(shutdown: CancellationToken, log: Log) {
    loop {
        select! {
            biased;
            () = shutdown.cancelled() => break,
            () = sweep() => {}
        }
    }
    log.say("background stopped");
}
