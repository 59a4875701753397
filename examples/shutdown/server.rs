//! The server: requests that start tasks, take a while or never end, and what they do at a shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use context_merge::shutdown::{Shutdown, Unfinished};
use context_merge::{Context, DropGuard, merge};
use futures::stream;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::options::seconds;
use crate::tasks::{Outcome, Peer, RequestId, Tasks, Url, chain};

/// How long after the grace what was cancelled may take to put things away.
const SLACK: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(50);

/// Serves until a shutdown, and returns when all has ended, or is not worth waiting for. Every outcome has been sent by then.
pub(crate) async fn run(
    listener: TcpListener,
    shutdown: Shutdown,
    limit: Duration,
    outcomes: UnboundedSender<Outcome>,
) -> Result<(), Unfinished> {
    let _draining = shutdown.draining().on_done(|err| info!("DRAINING: {}", chain(err)));
    let _stopping = shutdown.stopping().on_done(|err| warn!("STOPPING: {}", chain(err)));
    let tasks = Tasks { shutdown: shutdown.clone(), limit, outcomes };
    let app = App { tasks, shutdown: shutdown.clone(), last_id: Arc::default() };
    let router = Router::new().route("/", get(start)).route("/work", get(work)).route("/ticks", get(ticks));
    let service = router.with_state(app).into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.draining().finished());
    // Tracked as all the rest: it ends when its connections have.
    shutdown.spawn(server.into_future());
    let ended = shutdown.ended(SLACK).await;
    ended.inspect(|()| info!("STOPPED: all has ended")).inspect_err(|left| warn!("STOPPED: {left}"))
}

#[derive(Clone)]
struct App {
    tasks: Tasks,
    shutdown: Shutdown,
    last_id: Arc<AtomicU64>,
}

#[derive(Deserialize)]
struct Params {
    /// As text: serde's own complaint about a number would not be a sentence.
    time: Option<String>,
}

type Answer = (StatusCode, String);
type Time = Result<Query<Params>, QueryRejection>;

/// Starts a task that goes on after the answer.
async fn start(State(app): State<App>, ConnectInfo(peer): ConnectInfo<SocketAddr>, url: Uri, time: Time) -> Answer {
    // Cancelled when this future ends, also where that is because the client has gone.
    let (request, _guard) = app.request(&url, peer);
    match length(time) {
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}.\n")),
        Ok(_) if app.shutdown.draining().is_done() => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned()),
        Ok(length) => {
            app.tasks.start(request, length);
            (StatusCode::ACCEPTED, format!("A task of {length:?} has started.\n"))
        }
    }
}

/// Answers when the work is done: also while draining, but not after the stop.
async fn work(State(app): State<App>, ConnectInfo(peer): ConnectInfo<SocketAddr>, url: Uri, time: Time) -> Answer {
    let (request, _guard) = app.request(&url, peer);
    match length(time) {
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}.\n")),
        Ok(length) => match request.run(sleep(length)).await {
            Ok(()) => (StatusCode::OK, "done\n".to_owned()),
            Err(err) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", chain(&err))),
        },
    }
}

/// Has no end of its own: says goodbye when draining.
async fn ticks(State(app): State<App>) -> Body {
    let draining = app.shutdown.draining().clone();
    Body::from_stream(stream::unfold(Some(draining), async |draining| {
        let draining = draining?;
        let (line, next) =
            if draining.sleep(TICK).await.is_ok() { ("tick\n", Some(draining)) } else { ("bye\n", None) };
        Some((Ok::<_, std::convert::Infallible>(line), next))
    }))
}

impl App {
    fn request(&self, url: &Uri, peer: SocketAddr) -> (Context, DropGuard) {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (request, canceller) = Context::background().named("request").with_cancel();
        let request = request.with_value(RequestId(id)).with_value(Url(url.to_string())).with_value(Peer(peer));
        (merge(request, self.shutdown.stopping()), canceller.drop_guard())
    }
}

fn length(time: Time) -> Result<Duration, String> {
    let Query(params) = time.map_err(|err| err.body_text())?;
    let time = params.time.ok_or("The time is missing: ask for /?time=SECONDS")?;
    seconds(&time).map_err(|why| format!("The time {why}"))
}
