//! The server that `just load` puts under load: `server none`, `server tokens` or `server contexts`. The work is the same
//! in each; what ends it early is nothing, a child token and a timer, or a merged context.
//!
//! `GET /` answers after one yield, `GET /park` only when the server is stopped. It prints where it listens, and obeys the
//! lines of its standard input: `requests` and `parked` tell how many there were and are, `alone` how many nanoseconds a
//! handler takes without a connection, `stop` how many the cancel took, and `last` how many after it the last parked
//! request had its answer. It ends with that input.

use std::future::{Future, pending};
use std::hint::black_box;
use std::io::{self, BufRead};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use context_merge::{Canceller, Context, merge};
use harness::TIMEOUT;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const WORKERS: usize = 2;

/// So many handlers are timed one after the other.
const ALONE: u32 = 100_000;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("none") => obey(&App::new(Unbounded)),
        Some("tokens") => obey(&App::new(Tokens(CancellationToken::new()))),
        Some("contexts") => obey(&App::new(Contexts::new())),
        _ => panic!("server none|tokens|contexts"),
    }
}

type Answer = (StatusCode, &'static str);

const DONE: Answer = (StatusCode::OK, "done\n");
const STOPPED: Answer = (StatusCode::SERVICE_UNAVAILABLE, "stopped\n");
const TOO_LATE: Answer = (StatusCode::GATEWAY_TIMEOUT, "too late\n");

/// What can end a request's work before it is done.
trait Bounds: Send + Sync + 'static {
    /// Runs the work of one request.
    fn answer(&self, work: impl Future<Output = ()> + Send) -> impl Future<Output = Answer> + Send;

    /// Ends all of it.
    fn stop(&self);
}

struct Unbounded;

impl Bounds for Unbounded {
    async fn answer(&self, work: impl Future<Output = ()> + Send) -> Answer {
        work.await;
        DONE
    }

    fn stop(&self) {}
}

struct Tokens(CancellationToken);

impl Bounds for Tokens {
    async fn answer(&self, work: impl Future<Output = ()> + Send) -> Answer {
        let request = self.0.child_token();
        // Cancelled when this future ends, also where that is because the client has gone.
        let _guard = request.clone().drop_guard();
        select! {
            () = work => DONE,
            () = request.cancelled() => STOPPED,
            () = sleep(TIMEOUT) => TOO_LATE,
        }
    }

    fn stop(&self) {
        self.0.cancel();
    }
}

struct Contexts {
    shutdown: Context,
    stop: Canceller,
}

impl Contexts {
    fn new() -> Self {
        let (shutdown, stop) = Context::background().with_cancel();
        Self { shutdown, stop }
    }
}

impl Bounds for Contexts {
    async fn answer(&self, work: impl Future<Output = ()> + Send) -> Answer {
        let (request, hang_up) = Context::background().with_cancel();
        let _guard = hang_up.drop_guard();
        let ctx = merge(request.with_timeout(TIMEOUT), &self.shutdown);
        match ctx.run(work).await {
            Ok(()) => DONE,
            Err(err) if err.is_cancelled() => STOPPED,
            Err(_) => TOO_LATE,
        }
    }

    fn stop(&self) {
        self.stop.cancel();
    }
}

struct App<B> {
    bounds: B,
    // Relaxed, all of them: they only count.
    requests: AtomicU64,
    parked: AtomicU64,
    stopped: OnceLock<Instant>,
    /// How long after that the last parked request had its answer.
    last: OnceLock<Duration>,
}

impl<B: Bounds> App<B> {
    fn new(bounds: B) -> Arc<Self> {
        let (stopped, last) = (OnceLock::new(), OnceLock::new());
        Arc::new(Self { bounds, requests: AtomicU64::new(0), parked: AtomicU64::new(0), stopped, last })
    }

    /// What a line of standard input asks for.
    fn obey(&self, line: &str) -> u64 {
        match line {
            "requests" => self.requests.load(Ordering::Relaxed),
            "parked" => self.parked.load(Ordering::Relaxed),
            "last" => self.last.get().map_or(0, nanoseconds),
            "stop" => {
                let begun = *self.stopped.get_or_init(Instant::now);
                self.bounds.stop();
                nanoseconds(&begun.elapsed())
            }
            _ => panic!("no such line: {line:?}"),
        }
    }
}

fn nanoseconds(time: &Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("less than a lifetime")
}

async fn short<B: Bounds>(State(app): State<Arc<App<B>>>) -> Answer {
    app.requests.fetch_add(1, Ordering::Relaxed);
    app.bounds.answer(yield_now()).await
}

async fn park<B: Bounds>(State(app): State<Arc<App<B>>>) -> Answer {
    let work = async {
        app.parked.fetch_add(1, Ordering::Relaxed);
        pending().await
    };
    let answer = app.bounds.answer(work).await;
    if app.parked.fetch_sub(1, Ordering::Relaxed) == 1 {
        app.last.get_or_init(|| app.stopped.get().map_or(Duration::ZERO, Instant::elapsed));
    }
    answer
}

fn obey<B: Bounds>(app: &Arc<App<B>>) {
    let (_runtime, port) = serve(app);
    println!("{port}");
    for line in io::stdin().lock().lines() {
        let line = line.expect("a line");
        println!("{}", if line == "alone" { alone(app) } else { app.obey(&line) });
    }
}

/// On one thread, so that no worker takes it from another.
fn alone<B: Bounds>(app: &Arc<App<B>>) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handlers = async {
        let begun = Instant::now();
        for _ in 0..ALONE {
            black_box(short(State(Arc::clone(app))).await);
        }
        begun.elapsed() / ALONE
    };
    nanoseconds(&runtime.block_on(handlers))
}

/// Serves as long as the runtime lives, on the port that is told.
fn serve<B: Bounds>(app: &Arc<App<B>>) -> (Runtime, u16) {
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let router = Router::new().route("/", get(short::<B>)).route("/park", get(park::<B>)).with_state(Arc::clone(app));
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a connection"));
    runtime.spawn(async { axum::serve(listener, router).await });
    (runtime, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::thread;

    fn get(port: u16, path: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn answers_at_once(bounds: impl Bounds) {
        let app = App::new(bounds);
        let (_runtime, port) = serve(&app);
        assert!(get(port, "/").ends_with("done\n"));
        assert_eq!(app.obey("requests"), 1);
    }

    fn answers_when_stopped(bounds: impl Bounds) {
        let app = App::new(bounds);
        let (_runtime, port) = serve(&app);
        let parked = thread::spawn(move || get(port, "/park"));
        while app.obey("parked") == 0 {
            thread::yield_now();
        }
        assert_eq!(app.obey("last"), 0);
        app.obey("stop");
        assert!(parked.join().unwrap().ends_with("stopped\n"));
        assert_ne!(app.obey("last"), 0);
    }

    #[test]
    fn short_work_is_answered_at_once() {
        answers_at_once(Unbounded);
        answers_at_once(Tokens(CancellationToken::new()));
        answers_at_once(Contexts::new());
    }

    #[test]
    fn a_parked_request_is_answered_when_the_server_is_stopped() {
        answers_when_stopped(Tokens(CancellationToken::new()));
        answers_when_stopped(Contexts::new());
    }
}
