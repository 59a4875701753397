//! Step 1, the edge first: the shutdown comes in as a context, and the rest still takes the token that follows it.

use std::io;

use context_merge::{Context, tokio_util::token};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::{Answers, Log, Request, report, split, sweep};

/// Returns when nothing of it runs any more.
pub(crate) async fn serve(listener: TcpListener, shutdown: Context, log: Log) -> io::Result<()> {
    // Kept to the end: the token follows no longer than that.
    let (shutdown, _follows) = token(&shutdown);
    let tasks = TaskTracker::new();
    tasks.spawn(background(shutdown.clone(), log.clone()));
    let accepted = select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        accepted = accept(listener, &tasks, &shutdown, &log) => accepted,
    };
    // For where nobody did, but accepting has failed.
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    accepted
}

async fn accept(listener: TcpListener, tasks: &TaskTracker, shutdown: &CancellationToken, log: &Log) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tasks.spawn(connection(stream, shutdown.clone(), log.clone()));
    }
}

async fn connection(stream: TcpStream, shutdown: CancellationToken, log: Log) {
    let (mut incoming, answers) = split(stream, log.clone());
    let connection = shutdown.child_token();
    let hung_up = connection.clone().drop_guard();
    let requests = TaskTracker::new();
    let why = loop {
        select! {
            biased;
            () = shutdown.cancelled() => break "shutdown".to_owned(),
            next = incoming.next() => match next {
                Ok(request) => requests.spawn(answer(request, shutdown.clone(), connection.clone(), answers.clone())),
                Err(err) => break err.to_string(),
            },
        };
    };
    drop(hung_up);
    requests.close();
    requests.wait().await;
    log.say(&format!("connection closed: {why}"));
}

async fn answer(request: Request, shutdown: CancellationToken, connection: CancellationToken, answers: Answers) {
    let outcome = select! {
        // A shutdown cancels the connection too, so it has to be asked first.
        biased;
        () = shutdown.cancelled() => "503: shutting down",
        () = connection.cancelled() => "499: connection lost",
        done = timeout(request.within, report(&request, &answers)) => done.unwrap_or("504: timed out"),
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
