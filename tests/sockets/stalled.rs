//! Readers that stall: what is held for them is let go of by the finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use context_merge::tower::{ContextLayer, Ended, PropagateLayer};
use context_merge::{Context, StreamExt as _};
use futures::stream;
use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower::{Layer, ServiceExt};

use crate::client::{self, Client, VERSIONS};
use crate::run;
use crate::server::{Server, end, layer, listen, tick};

/// So that a busy machine has filled all windows by then.
const LATER: Duration = Duration::from_millis(300);

/// Tells when it is dropped.
struct Held(UnboundedSender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A body that always has more.
fn endless(held: Held) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    stream::repeat_with(move || {
        let _held = &held;
        Ok(Bytes::from_static(&[0; 16 * 1024]))
    })
}

/// `/endless`, and what tells when its bodies are dropped.
fn routes() -> (Router, UnboundedReceiver<()>) {
    let (sender, dropped) = mpsc::unbounded_channel();
    let body = async move || Body::from_stream(endless(Held(sender)));
    (Router::new().route("/endless", get(body)).route("/ticks", get(async || tick())), dropped)
}

/// A client that has sent a request, and reads no more than the head of the response.
enum Stalled {
    Http1 {
        _stream: TcpStream,
    },
    /// The second has not a byte, since the first takes the whole window of the connection.
    Http2 {
        _client: Client,
        _bodies: [Incoming; 2],
    },
}

impl Stalled {
    async fn connect(version: Version, address: SocketAddr) -> Self {
        if version == Version::HTTP_11 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            return Stalled::Http1 { _stream: stream };
        }
        let mut client = Client::connect(version, address).await;
        let first = client.send(client::get("/endless")).await.unwrap().into_body();
        let second = client.send(client::get("/endless")).await.unwrap().into_body();
        Stalled::Http2 { _client: client, _bodies: [first, second] }
    }

    fn bodies(&self) -> usize {
        match self {
            Stalled::Http1 { .. } => 1,
            Stalled::Http2 { .. } => 2,
        }
    }
}

#[test]
fn a_deadline_lets_go_of_the_body() {
    for version in VERSIONS {
        run(async {
            let (routes, mut dropped) = routes();
            let server = Server::start(layer().limit(LATER).enforce(), routes).await;
            let stalled = Stalled::connect(version, server.address).await;
            for _ in 0..stalled.bodies() {
                dropped.recv().await.unwrap();
            }
        });
    }
}

#[test]
fn a_shutdown_lets_go_of_the_body() {
    for version in VERSIONS {
        run(async {
            let (shutdown, stop) = Context::background().with_cancel();
            let (routes, mut dropped) = routes();
            let mut server = Server::start(ContextLayer::new(shutdown).enforce(), routes).await;
            let stalled = Stalled::connect(version, server.address).await;
            for _ in 0..stalled.bodies() {
                server.context().await;
            }
            tokio::time::sleep(LATER).await;
            stop.cancel();
            for _ in 0..stalled.bodies() {
                dropped.try_recv().expect("dropped by the cancel itself");
            }
        });
    }
}

/// Its layer only tells; the stream of the handler heeds the context.
#[test]
fn a_stream_of_the_handler_lets_go() {
    for version in VERSIONS {
        run(async {
            let (sender, mut dropped) = mpsc::unbounded_channel();
            let body = async move |ctx: Context| Body::from_stream(endless(Held(sender)).take_until_done(ctx));
            let server = Server::start(layer().limit(LATER), Router::new().route("/endless", get(body))).await;
            let stalled = Stalled::connect(version, server.address).await;
            for _ in 0..stalled.bodies() {
                dropped.recv().await.unwrap();
            }
        });
    }
}

/// Such a connection ends with the runtime: the server does not wait for it past the grace.
#[test]
fn a_graceful_shutdown_ends_within_the_grace() {
    for version in VERSIONS {
        let (address, stopped) = std::sync::mpsc::channel();
        let (draining, drain) = Context::background().with_cancel();
        let (stopping, stop) = Context::background().with_cancel();
        let (routes, mut dropped) = routes();
        // A process of its own, as it were: its `main` returns, and its runtime is gone.
        let process = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = listen().await;
                address.send(listener.local_addr().unwrap()).unwrap();
                let app = routes.layer(ContextLayer::new(&stopping).enforce());
                let signal = async move { drop(draining.done().await) };
                let server = axum::serve(listener, app).with_graceful_shutdown(signal);
                stopping.run(server.into_future()).await.expect_err("a reader that stalls keeps it open");
            });
        });
        run(async {
            let stalled = Stalled::connect(version, stopped.recv().unwrap()).await;
            tokio::time::sleep(LATER).await;
            drain.cancel();
            tokio::time::sleep(LATER).await;
            assert!(!process.is_finished() && dropped.is_empty(), "the grace");
            stop.cancel();
            for _ in 0..stalled.bodies() {
                dropped.recv().await.unwrap();
            }
            tokio::task::spawn_blocking(|| process.join()).await.unwrap().unwrap();
        });
    }
}

/// A client that holds a response, and does not read it: the server sees it go.
#[test]
fn a_response_that_is_not_polled_lets_go_of_its_connection() {
    for version in VERSIONS {
        for path in ["/ticks", "/endless"] {
            run(async {
                let mut server = Server::start(layer(), routes().0).await;
                let pool = Pool::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http();
                let (ctx, canceller) = Context::background().with_cancel();
                let request = Request::get(server.url(path)).extension(ctx).body(Body::empty()).unwrap();
                let mut response = PropagateLayer::new().layer(pool).oneshot(request).await.unwrap();
                response.frame().await.unwrap().unwrap();
                let seen = server.context().await;
                canceller.cancel();
                assert_eq!(end(&seen).await, Some(Ended::InBody), "{version:?} {path}, with the response in the hand");
                drop(response);
            });
        }
    }
}
