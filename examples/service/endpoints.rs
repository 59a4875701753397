//! What the service answers over HTTP.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use context_merge::tower::ServerContext;
use context_merge::{Context, Error, StreamExt as _};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;

use crate::database::Accounts;
use crate::queue::Job;
use crate::replicas::Replicas;

const WORK: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(20);
const CHUNK: Bytes = Bytes::from_static(&[7; 16 * 1024]);
/// A download of so many chunks, one each tick.
pub(crate) const CHUNKS: usize = 20;

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) replicas: Replicas,
    pub(crate) jobs: UnboundedSender<Job>,
    pub(crate) accounts: Option<Accounts>,
}

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/report", get(report))
        .route("/forever", get(async || pending::<String>().await))
        .route("/events", get(events))
        .route("/chat", get(chat))
        .route("/download", get(download))
        .route("/endless", get(async || Body::from_stream(stream::repeat(Ok::<_, Infallible>(CHUNK)))))
        .route("/keys/{key}", put(write))
        .route("/jobs/{id}", put(submit))
        .route("/transfers/{id}", put(transfer))
}

async fn report(ctx: Context) -> Result<&'static str, Error> {
    ctx.sleep(WORK).await?;
    Ok("the report\n")
}

/// The page of whoever listens comes back by itself, to another instance.
async fn events(server: ServerContext) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold((), async |()| {
        sleep(TICK).await;
        Some((Ok(Event::default().data("tick")), ()))
    });
    Sse::new(events.take_until_done(server.draining()))
}

/// After the upgrade the exchange is over: what goes on belongs to the server.
async fn chat(server: ServerContext, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |socket| {
        let _counted = server.token();
        // An error is a client that has gone, or the stop.
        let _ = server.context().run(echo(socket, server.draining())).await;
    })
}

async fn echo(mut socket: WebSocket, draining: &Context) -> Result<(), axum::Error> {
    while let Ok(message) = draining.run(socket.recv()).await {
        match message.transpose()? {
            Some(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
            Some(_) => {} // pings are answered by the socket itself
            None => return Ok(()),
        }
    }
    let close = CloseFrame { code: close_code::AWAY, reason: "shutting down".into() };
    socket.send(Message::Close(Some(close))).await?;
    while socket.recv().await.is_some_and(|answer| answer.is_ok()) {}
    Ok(())
}

async fn download() -> Body {
    Body::from_stream(stream::iter(0..CHUNKS).then(async |_| {
        sleep(TICK).await;
        Ok::<_, Infallible>(CHUNK)
    }))
}

async fn write(
    ctx: Context,
    server: ServerContext,
    State(app): State<App>,
    Path(key): Path<u64>,
) -> Result<&'static str, Error> {
    app.replicas.write(&ctx, &server, key).await?;
    Ok("written\n")
}

async fn submit(ctx: Context, State(app): State<App>, Path(id): Path<u64>) -> StatusCode {
    match app.jobs.send(Job::new(&ctx, id)) {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE, // the worker takes no more
    }
}

async fn transfer(ctx: Context, State(app): State<App>, Path(id): Path<i64>) -> Response {
    let Some(accounts) = app.accounts else { return StatusCode::NOT_IMPLEMENTED.into_response() };
    match accounts.pay(ctx, id).await {
        Ok(()) => "transferred\n".into_response(),
        // 504 or 503 where the context has ended it.
        Err(err) => match err.downcast::<Error>() {
            Ok(err) => err.into_response(),
            Err(err) => {
                println!("TRANSFER {err}");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        },
    }
}
