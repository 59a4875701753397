//! The server: requests that start tasks, and the shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use context_merge::{Context, DropGuard, merge};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::options::{Options, seconds};
use crate::signals::Signals;
use crate::tasks::{Outcome, Peer, RequestId, Tasks, Url, chain};

/// How long a connection with half a request may hold up the shutdown. Idle ones are closed at once.
const HALF_A_REQUEST: Duration = Duration::from_millis(500);

/// Serves until a signal, and returns when every task has ended. Every outcome has been sent by then.
pub(crate) async fn run(
    listener: TcpListener,
    Signals { first, second }: Signals,
    Options { grace, task_limit }: Options,
    outcomes: UnboundedSender<Outcome>,
) {
    let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
    let tasks = Tasks::new(shutdown, task_limit, outcomes);
    let app = App { tasks: tasks.clone(), draining: first.clone(), last_id: Arc::default() };
    let router = Router::new().route("/", get(start)).with_state(app);
    let draining = first.done_owned();
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move { drop(draining.await) });
    let server = tokio::spawn(server.into_future());

    let signal = chain(&first.done().await);
    info!(tasks = tasks.running(), ?grace, "DRAINING: {signal}");
    let cause = format!("tasks had {grace:?} to finish");
    let grace = Context::background().named("grace").with_timeout_cause(grace, cause);
    let patience = merge(grace, second);
    let closing = patience.named("closing connections").with_timeout_cause(HALF_A_REQUEST, "a request is incomplete");
    if let Err(err) = closing.run(server).await {
        warn!("NOT WAITING for connections: {}", chain(&err));
    }
    if let Err(err) = patience.run(tasks.ended()).await {
        warn!(tasks = tasks.running(), "STOPPING: {}", chain(&err));
        stop.cancel_with(err);
        tasks.ended().await;
    }
    info!("STOPPED: every task has ended");
}

#[derive(Clone)]
struct App {
    tasks: Tasks,
    /// Done from the first signal on.
    draining: Context,
    last_id: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Params {
    /// As text: serde's own complaint about a number would not be a sentence.
    time: Option<String>,
}

type Answer = (StatusCode, String);

async fn start(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    url: Uri,
    params: Result<Query<Params>, QueryRejection>,
) -> Answer {
    // Cancelled when this future ends, also where that is because the client has gone.
    let (request, _guard) = app.request(&url, peer);
    let length = match length(params) {
        Ok(length) => length,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}.\n")),
    };
    // Taken before the look: the shutdown waits for it, so that it cannot slip in between the look and the start.
    let _token = app.tasks.token();
    if app.draining.is_done() {
        return (StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down.\n".to_owned());
    }
    app.tasks.start(&request, length);
    (StatusCode::ACCEPTED, format!("A task of {length:?} has started.\n"))
}

impl App {
    fn request(&self, url: &Uri, peer: SocketAddr) -> (Context, DropGuard) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (request, canceller) = Context::background().named("request").with_cancel();
        let request = request.with_value(RequestId(id)).with_value(Url(url.to_string())).with_value(Peer(peer));
        (request, canceller.drop_guard())
    }
}

fn length(params: Result<Query<Params>, QueryRejection>) -> Result<Duration, String> {
    let Query(params) = params.map_err(|err| err.body_text())?;
    let time = params.time.ok_or("The time is missing: ask for /?time=SECONDS")?;
    seconds(&time).map_err(|why| format!("The time {why}"))
}
