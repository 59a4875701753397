//! Clients that go away behind a request that nobody has read: what a server sees of that, without and with a layer that
//! reads ahead.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::{get, post};
use context_merge::Context;
use context_merge::tower::{Ended, ReadAheadLayer};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tower::{ServiceBuilder, service_fn};

use crate::client::{Client, HangUp, VERSIONS};
use crate::run;
use crate::server::{Server, end, layer, listen, tick};

const LIMIT: usize = 64 * 1024;

type Parked = (Context, Option<Body>);

/// Handlers that say when they have begun, and do not end: `/holds` gives its body out, `/drops` lets go of it, `/ticks` too,
/// and answers.
fn routes() -> (Router, UnboundedReceiver<Parked>) {
    let (sender, parked) = mpsc::unbounded_channel();
    let holds = |sender: UnboundedSender<Parked>| {
        async move |ctx: Context, request: Request| {
            sender.send((ctx, Some(request.into_body()))).unwrap();
            pending::<()>().await
        }
    };
    let drops = |sender: UnboundedSender<Parked>| {
        async move |ctx: Context| {
            sender.send((ctx, None)).unwrap();
            pending::<()>().await
        }
    };
    let (holds, drops) = (holds(sender.clone()), drops(sender.clone()));
    let ticks = async move |ctx: Context| {
        sender.send((ctx, None)).unwrap();
        tick()
    };
    let routes = Router::new()
        .route("/holds", post(holds))
        .route("/drops", post(drops))
        .route("/ticks", post(ticks))
        .route("/live", get(async || {}))
        .route("/echo", post(async |body: Body| body));
    (routes, parked)
}

struct Setup {
    server: Server,
    parked: UnboundedReceiver<Parked>,
}

impl Setup {
    async fn new(limit: Option<usize>) -> Setup {
        let (routes, parked) = routes();
        let routes = match limit {
            Some(limit) => routes.layer(ReadAheadLayer::new(limit)),
            None => routes,
        };
        Setup { server: Server::start(layer(), routes).await, parked }
    }

    /// A connection on which `bytes` are sent, and the handler that has begun.
    async fn send(&mut self, bytes: &[u8]) -> (TcpStream, Context, Option<Body>) {
        let mut socket = TcpStream::connect(self.server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let (ctx, body) = self.parked.recv().await.unwrap();
        (socket, ctx, body)
    }

    /// Whether the context sees that the client has gone: how, where it `is_seen`, and else that it is not.
    async fn after(&self, ctx: &Context, is_seen: bool) -> Option<Ended> {
        if is_seen {
            return end(ctx).await;
        }
        meanwhile(self.server.address).await;
        assert!(!ctx.is_done(), "it is seen: {:?}", ctx.err());
        None
    }
}

/// A request with a body of so many bytes, of which `sent` are there.
fn with_length(path: &str, length: usize, sent: usize) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; sent]].concat()
}

/// One in chunks, with or without its end.
fn chunked(path: &str, chunks: usize, whole: bool) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let end = if whole { "0\r\n\r\n" } else { "" };
    [head.as_str(), &"4\r\nabcd\r\n".repeat(chunks), end].concat().into_bytes()
}

/// Time enough for a server to see what it can see: other exchanges, from their beginning to their end.
async fn meanwhile(address: SocketAddr) {
    for _ in 0..20 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

const GONE: Option<Ended> = Some(Ended::BeforeResponse);

/// What is seen of a client that goes away when it has sent all of a request, whose body nobody reads.
#[test]
fn behind_a_whole_body() {
    let limit = Some(LIMIT);
    for (request, without, with) in [
        (with_length("/holds", 100, 100), GONE, GONE),
        (with_length("/holds", 20_000, 20_000), None, GONE),
        (with_length("/holds", LIMIT, LIMIT), None, GONE),
        (with_length("/holds", 4 * LIMIT, 4 * LIMIT), None, None),
        (chunked("/holds", 1, true), None, GONE),
        (chunked("/holds", 100, true), None, GONE),
        (chunked("/holds", 10_000, true), None, None),
        (with_length("/drops", 100, 100), GONE, GONE),
        (with_length("/drops", LIMIT, LIMIT), None, GONE),
        (with_length("/drops", 4 * LIMIT, 4 * LIMIT), None, None),
        (chunked("/drops", 100, true), None, GONE),
    ] {
        for (limit, expected) in [(None, without), (limit, with)] {
            let head = String::from_utf8_lossy(&request[..80]).into_owned();
            println!("{limit:?} {} bytes: {head}", request.len());
            run(async {
                let mut setup = Setup::new(limit).await;
                let (socket, ctx, body) = setup.send(&request).await;
                drop(socket);
                assert_eq!(setup.after(&ctx, expected.is_some()).await, expected);
                drop(body);
            });
        }
    }
}

/// Once the handler has read so much that the rest is within the limit, it is seen.
#[test]
fn a_slow_reader() {
    run(async {
        let mut setup = Setup::new(Some(LIMIT)).await;
        let (socket, ctx, body) = setup.send(&with_length("/holds", 4 * LIMIT, 4 * LIMIT)).await;
        drop(socket);
        let (mut body, mut read) = (body.unwrap(), 0);
        while !ctx.is_done() {
            read += body.frame().await.expect("it is seen before the end").unwrap().into_data().unwrap().len();
            meanwhile(setup.server.address).await;
        }
        assert_eq!(end(&ctx).await, GONE);
        assert!(read > LIMIT, "{read}");
        // What is kept is the handler's.
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.iter().all(|byte| *byte == b'x'));
            read += data.len();
        }
        assert_eq!(read, 4 * LIMIT);
    });
}

#[test]
fn behind_a_pipelined_request() {
    for limit in [None, Some(LIMIT)] {
        run(async {
            let mut setup = Setup::new(limit).await;
            let request =
                [with_length("/holds", 4, 4), b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()].concat();
            let (socket, ctx, _body) = setup.send(&request).await;
            drop(socket);
            setup.after(&ctx, false).await;
        });
    }
}

/// The server leaves the handler alone: what ends is the body, and with the layer the context.
#[test]
fn in_the_middle_of_the_body() {
    for (path, limit) in [("/holds", None), ("/holds", Some(LIMIT)), ("/drops", Some(LIMIT))] {
        for request in [with_length(path, 1000, 500), with_length(path, 60_000, 30_000), chunked(path, 100, false)] {
            run(async {
                let mut setup = Setup::new(limit).await;
                let (socket, ctx, body) = setup.send(&request).await;
                meanwhile(setup.server.address).await;
                assert!(!ctx.is_done());
                drop(socket);
                let expected = limit.map(|_| Ended::InRequest);
                assert_eq!(setup.after(&ctx, expected.is_some()).await, expected);
                if let Some(body) = body {
                    assert!(body.collect().await.is_err());
                }
                assert!(!setup.server.context().await.is_done(), "the handler is there");
            });
        }
    }
}

#[test]
fn in_the_body_of_a_response_to_an_unread_request() {
    for (limit, expected) in [(None, None), (Some(LIMIT), Some(Ended::InBody))] {
        run(async {
            let mut setup = Setup::new(limit).await;
            let (mut socket, ctx, _) = setup.send(&with_length("/ticks", 30_000, 10)).await;
            let mut answer = Vec::new();
            while !answer.ends_with(b"tick\r\n") {
                assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0);
            }
            socket.write_all(&[b'x'; 29_990]).await.unwrap();
            if limit.is_some() {
                // An answer to a request that is not read is followed by a reset, where the rest of that arrives.
                meanwhile(setup.server.address).await;
            }
            drop(socket);
            assert_eq!(setup.after(&ctx, expected.is_some()).await, expected);
        });
    }
}

#[test]
fn uploads_pass_in_both_directions() {
    for version in VERSIONS {
        run(async {
            let setup = Setup::new(Some(LIMIT)).await;
            let mut client = Client::connect(version, setup.server.address).await;
            for length in [0, 1, 1000, 1_000_000] {
                let parts = stream::iter(vec![b'y'; length]).chunks(50_000).map(Ok::<_, Infallible>);
                let body = Body::from_stream(parts);
                let request = http::Request::post("http://localhost/echo").body(body).unwrap();
                client.ready().await;
                let answer = client.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
                assert!(answer.len() == length && answer.iter().all(|byte| *byte == b'y'), "{version:?} {length}");
            }
        });
    }
}

/// 100 Continue goes out when the handler reads, and not before.
#[test]
fn expect_continue() {
    for limit in [None, Some(LIMIT)] {
        run(async {
            let mut setup = Setup::new(limit).await;
            let head = "POST /holds HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
            let (mut socket, _ctx, body) = setup.send(head.as_bytes()).await;
            meanwhile(setup.server.address).await;
            let mut answer = [0; 100];
            assert_eq!(socket.try_read(&mut answer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            let reading = tokio::spawn(body.unwrap().collect());
            let read = socket.read(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer[..read]), "HTTP/1.1 100 Continue\r\n\r\n");
            socket.write_all(b"body").await.unwrap();
            assert_eq!(reading.await.unwrap().unwrap().to_bytes(), "body");
        });
    }
}

/// On HTTP/2 it is seen without the layer; with it the body may be seen to fail first.
#[test]
fn http2() {
    for way in [HangUp::Http2, HangUp::Http2Stream] {
        for limit in [None, Some(LIMIT)] {
            for sent in [10, 30_000] {
                run(async {
                    let mut setup = Setup::new(limit).await;
                    let mut client = Client::connect(way.version(), setup.server.address).await;
                    let half = stream::iter([Ok::<_, Infallible>(vec![b'x'; sent])]).chain(stream::pending());
                    let request = http::Request::post("http://localhost/holds").body(Body::from_stream(half)).unwrap();
                    let answer = client.send(request);
                    let (ctx, _body) = setup.parked.recv().await.unwrap();
                    client.hang_up(way, answer);
                    let ended = end(&ctx).await;
                    assert!(ended == GONE || limit.is_some() && ended == Some(Ended::InRequest), "{ended:?}");
                    assert_eq!(end(&setup.server.context().await).await, GONE);
                });
            }
        }
    }
}

/// The same layers around a service of hyper's.
#[test]
fn without_axum() {
    run(async {
        let (sender, mut parked) = mpsc::unbounded_channel();
        let handler = move |request: http::Request<_>| {
            sender.send(request.extensions().get::<Context>().unwrap().clone()).unwrap();
            async move {
                let _request = request;
                pending::<Result<http::Response<Body>, Infallible>>().await
            }
        };
        let layers = ServiceBuilder::new().layer(layer()).layer(ReadAheadLayer::new(LIMIT));
        let service = hyper_util::service::TowerToHyperService::new(layers.service(service_fn(handler)));
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let io = hyper_util::rt::TokioIo::new(socket);
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            drop(builder.serve_connection(io, service).await);
        });
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&chunked("/", 10, true)).await.unwrap();
        let ctx = parked.recv().await.unwrap();
        drop(socket);
        assert_eq!(end(&ctx).await, GONE);
    });
}
