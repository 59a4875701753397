//! Situations from the public tests of hyper, axum, tonic and tower-http, with our layers between. Most check that an
//! exchange is the same on the wire as without a layer.

use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::task::{self, Poll};

use axum::body::Body;
use bytes::Bytes;
use context_merge::tower::{BoxError, ContextLayer, Ended, PropagateLayer, ReadAheadLayer, ServerContext};
use context_merge::{Canceller, Context};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client;
use hyper::server::conn::{http1, http2};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::run;
use crate::server::{end, how, listen, watched};

/// What stands between a server and the handler.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    Nothing,
    /// A layer that tells.
    Told,
    Enforced,
    /// A layer that tells, and one that reads ahead.
    ReadAhead,
}

const LAYERS: [Between; 3] = [Between::Told, Between::Enforced, Between::ReadAhead];

type Answer = Result<Response<Body>, BoxError>;
type Service = BoxCloneSyncService<Request<hyper::body::Incoming>, Response<Body>, BoxError>;

/// The handler behind what stands between, the contexts of its requests, and what would stop the server: each request is
/// bound to it.
fn service(between: Between) -> (Service, UnboundedReceiver<Context>, Canceller) {
    let (shutdown, stop) = Context::background().with_cancel();
    let layer = ContextLayer::new(shutdown);
    let (layer, contexts) = watched(if between == Between::Enforced { layer.enforce() } else { layer });
    let outside = ServiceBuilder::new().map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
    let service = match between {
        Between::Nothing => BoxCloneSyncService::new(outside.service(service_fn(handler))),
        Between::Told | Between::Enforced => {
            let outside = outside.map_response(|response: Response<_>| response.map(Body::new)).layer(layer);
            BoxCloneSyncService::new(outside.service(service_fn(handler)))
        }
        Between::ReadAhead => {
            let outside = outside.map_response(|response: Response<_>| response.map(Body::new)).layer(layer);
            let inside =
                outside.layer(ReadAheadLayer::new(1024)).map_request(|request: Request<_>| request.map(Body::new));
            BoxCloneSyncService::new(inside.service(service_fn(handler)))
        }
    };
    (service, contexts, stop)
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 8.into())])
}

type Part = Result<Frame<Bytes>, BoxError>;

fn data(text: &'static str) -> Part {
    Ok(Frame::data(text.into()))
}

/// A body that says nothing of its length.
fn parts<const N: usize>(parts: [Part; N]) -> Body {
    Body::new(StreamBody::new(stream::iter(parts)))
}

fn failed() -> Part {
    Err("the disk is gone".into())
}

/// Says that it has no bytes, and has trailers.
struct OnlyTrailers(Option<HeaderMap>);

impl http_body::Body for OnlyTrailers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(0)
    }
}

/// Answers whose bodies do what is special about them, by their paths. The names of the tests that they are from are in
/// [`ANSWERS`].
fn handler(request: Request<Body>) -> BoxFuture<'static, Answer> {
    async move {
        let mut response = Response::new(Body::empty());
        let length = |response: &mut Response<Body>, length: &'static str| {
            response.headers_mut().insert("content-length", HeaderValue::from_static(length));
        };
        match request.uri().path() {
            "/last" => {}
            "/known" => *response.body_mut() = Body::from("abcdef"),
            "/told" => {
                length(&mut response, "6");
                *response.body_mut() = parts([data("abc"), data("def")]);
            }
            "/unknown" => *response.body_mut() = parts([data("abc"), data("def")]),
            "/short" => {
                length(&mut response, "10");
                *response.body_mut() = parts([data("abc"), data("def")]);
            }
            "/short-at-once" => {
                length(&mut response, "10");
                *response.body_mut() = parts([]);
            }
            "/long" => {
                length(&mut response, "4");
                *response.body_mut() = parts([data("abc"), data("def"), data("ghi")]);
            }
            "/none-told" => {
                length(&mut response, "0");
                *response.body_mut() = parts([data("abc")]);
            }
            "/no-number" => {
                length(&mut response, "many");
                *response.body_mut() = parts([data("abc")]);
            }
            "/both" => {
                length(&mut response, "11");
                response.headers_mut().insert("transfer-encoding", HeaderValue::from_static("chunked"));
                *response.body_mut() = parts([data("foo bar baz")]);
            }
            "/empty-frames" => {
                *response.body_mut() = parts([data(""), data("ab"), data(""), data(""), data("cd"), data("")]);
            }
            "/empty-frames-told" => {
                length(&mut response, "4");
                *response.body_mut() = parts([data(""), data("ab"), data(""), data("cd"), data(""), data("")]);
            }
            "/204" => {
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.body_mut() = parts([data("foo")]);
            }
            "/304" => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::from("foo");
            }
            "/304-told" => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                length(&mut response, "3");
                *response.body_mut() = parts([data("foo")]);
            }
            "/205" => {
                *response.status_mut() = StatusCode::RESET_CONTENT;
                *response.body_mut() = parts([data("foo")]);
            }
            "/100" => *response.status_mut() = StatusCode::CONTINUE,
            "/reason" => {
                response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"Cool"));
            }
            "/http2" => *response.version_mut() = http::Version::HTTP_2,
            "/close" => {
                response.headers_mut().insert("connection", HeaderValue::from_static("close"));
                *response.body_mut() = parts([data("abc")]);
            }
            "/large-head" => {
                response.headers_mut().insert("x-large", "a".repeat(12_000).parse().unwrap());
            }
            "/trailers" => {
                response.headers_mut().insert("trailer", HeaderValue::from_static("grpc-status"));
                *response.body_mut() = parts([data("abc"), Ok(Frame::trailers(trailers()))]);
            }
            "/trailers-of-known" => {
                *response.body_mut() =
                    Body::new(Full::new(Bytes::from("abc")).with_trailers(ready(Some(Ok(trailers())))));
            }
            "/trailers-alone" => *response.body_mut() = Body::new(OnlyTrailers(Some(trailers()))),
            "/fails-first" => *response.body_mut() = parts([failed()]),
            "/fails" => *response.body_mut() = parts([data("abc"), data("def"), data("ghi"), failed()]),
            "/fails-told" => {
                length(&mut response, "9");
                *response.body_mut() = parts([data("abc"), failed(), data("def")]);
            }
            "/reset" => {
                *response.body_mut() = parts([data("abc"), Err(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM).into())]);
            }
            "/service-resets" => return Err(h2::Error::from(h2::Reason::INADEQUATE_SECURITY).into()),
            "/service-fails" => return Err("no".into()),
            "/panics" => panic!("in the handler"),
            "/body-panics" => {
                let calm = stream::iter([data("abc"), data("def"), data("ghi")]);
                *response.body_mut() =
                    Body::new(StreamBody::new(calm.chain(stream::poll_fn(|_| panic!("in the body")))));
            }
            "/unread" => *response.body_mut() = Body::from("not read"),
            // The client has closed its side by then.
            "/yields" => {
                let ctx = request.extensions().get::<Context>().cloned().unwrap_or_default();
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                *response.body_mut() = Body::from(format!("{}", ctx.is_done()));
            }
            "/parked" => pending().await,
            // CONNECT has no path.
            "/upgrade" | "" => {
                if request.method() != Method::CONNECT {
                    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                }
                let server: ServerContext = request.extensions().get().cloned().unwrap();
                let upgrade = hyper::upgrade::on(request);
                server.spawn(async move {
                    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
            "/refused" => {
                *response.status_mut() = StatusCode::EXPECTATION_FAILED;
                *response.body_mut() = Body::from("no");
            }
            "/echo" => {
                *response.body_mut() = match request.into_body().collect().await {
                    Ok(read) => {
                        let trailers = read.trailers().map(|trailers| format!("{trailers:?}"));
                        Body::from(format!("{:?} {trailers:?}", read.to_bytes()))
                    }
                    Err(err) => {
                        *response.status_mut() = StatusCode::BAD_REQUEST;
                        Body::from(innermost(&err))
                    }
                };
            }
            path => panic!("no route {path}"),
        }
        Ok(response)
    }
    .boxed()
}

/// What the error is in the end, behind what it is wrapped in.
fn innermost(err: &(dyn std::error::Error + 'static)) -> String {
    let mut err = err;
    while let Some(source) = err.source() {
        err = source;
    }
    err.to_string()
}

/// What a server makes of a connection.
#[derive(Debug, PartialEq)]
enum Served {
    Well,
    Failed(String, String),
    Panicked,
}

/// All that can be seen of the exchanges of a connection.
#[derive(Debug, PartialEq)]
struct Seen {
    /// What the client reads.
    read: String,
    served: Served,
}

/// Bytes on a connection of HTTP/1.1, up to its end.
async fn http1(between: Between, sent: &str) -> (Seen, Vec<Option<Ended>>) {
    http1_with(between, sent, |_| {}, None).await
}

/// The same with a server of one's own; `after` is sent when its graceful shutdown has begun, and then no more.
async fn http1_with(
    between: Between,
    sent: &str,
    build: fn(&mut http1::Builder),
    after: Option<&str>,
) -> (Seen, Vec<Option<Ended>>) {
    let (service, mut contexts, _stop) = service(between);
    let (mut client, server) = duplex(1 << 20);
    client.write_all(sent.as_bytes()).await.unwrap();
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false);
    build(&mut builder);
    let mut connection = builder.serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    if let Some(after) = after {
        let mut connection = Pin::new(&mut connection);
        assert!(connection.as_mut().now_or_never().is_none(), "it waits for more");
        connection.graceful_shutdown();
        client.write_all(after.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
    }
    let served = match tokio::spawn(connection).await {
        Ok(Ok(())) => Served::Well,
        Ok(Err(err)) => Served::Failed(err.to_string(), innermost(&err)),
        Err(err) => {
            assert!(err.is_panic());
            Served::Panicked
        }
    };
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    let mut ended = Vec::new();
    while let Some(ctx) = contexts.recv().await {
        ended.push(how(&ctx.err().expect("the connection is gone")));
    }
    (Seen { read, served }, ended)
}

/// Where they are from: hyper's `fixed_response_known` and those after it, `http2_auto_response_with_conflicting_lengths`,
/// `skips_content_length_and_body_for_304_responses`, `response_does_not_set_chunked_if_body_not_allowed`,
/// `returning_1xx_response_is_error`, `get_response_custom_reason_phrase`, `http1_response_with_http2_version`,
/// `header_connection_close`, `http1_trailer_send_fields`, `http2_body_user_error_sends_reset_reason`,
/// `http2_service_error_sends_reset_reason`, `http2_responds_before_consuming_request_body_with_trailers`; tonic's
/// `test_http_max_header_list_size_and_long_errors`; tower-http's `body_error_frame_does_not_fire`.
const ANSWERS: [&str; 31] = [
    "/known",
    "/told",
    "/unknown",
    "/short",
    "/short-at-once",
    "/long",
    "/none-told",
    "/no-number",
    "/both",
    "/empty-frames",
    "/empty-frames-told",
    "/204",
    "/304",
    "/304-told",
    "/205",
    "/100",
    "/reason",
    "/http2",
    "/close",
    "/large-head",
    "/trailers",
    "/trailers-of-known",
    "/trailers-alone",
    "/fails-first",
    "/fails",
    "/fails-told",
    "/reset",
    "/service-resets",
    "/service-fails",
    "/panics",
    "/body-panics",
];

/// With a request behind it that closes: it is answered where the connection lives on.
fn get(method: &str, path: &str, version: &str, headers: &str) -> String {
    let last = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    format!("{method} {path} HTTP/{version}\r\nhost: a\r\n{headers}\r\n{last}")
}

#[test]
fn answers_on_http1_are_the_same_on_the_wire() {
    for path in ANSWERS {
        for (method, version, headers) in [
            ("GET", "1.1", ""),
            ("GET", "1.1", "te: trailers\r\n"),
            ("GET", "1.1", "content-type: application/grpc\r\nte: trailers\r\n"),
            ("HEAD", "1.1", ""),
            ("GET", "1.1", "connection: close\r\n"),
            ("GET", "1.0", ""),
            ("GET", "1.0", "connection: keep-alive\r\n"),
        ] {
            let sent = get(method, path, version, headers);
            same_on_http1(&sent, &LAYERS);
        }
    }
}

/// The exchange is the same with each of the layers as without one, and ends in one way.
fn same_on_http1(sent: &str, layers: &[Between]) {
    let (without, _) = run(http1(Between::Nothing, sent));
    let mut ended = None;
    for layer in layers {
        let (with, how) = run(http1(*layer, sent));
        assert_eq!(with, without, "{layer:?}: {sent}");
        assert_eq!(&how, ended.get_or_insert_with(|| how.clone()), "{layer:?}: {sent}");
    }
}

/// hyper's `post_with_content_length_body` and those after it, `http1_trailer_recv_keep_alive`, those of `expect_continue`,
/// `illegal_request_length_returns_400_response`, `parse_errors_send_4xx_response`.
#[test]
fn requests_on_http1_are_the_same_on_the_wire() {
    let chunks = "transfer-encoding: chunked\r\n";
    for (path, version, headers, body) in [
        ("/echo", "1.1", "content-length: 5\r\n", "hello"),
        ("/echo", "1.1", chunks, "5\r\nhello\r\n0\r\n\r\n"),
        ("/echo", "1.1", chunks, "5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"),
        ("/echo", "1.1", chunks, "5\r\nhello\r\nfffffffffffffffff\r\nabc"),
        ("/echo", "1.1", chunks, "5\r\nhello\r\nwhat?\r\n"),
        ("/echo", "1.1", "transfer-encoding: chunked\r\ncontent-length: 3\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("/echo", "1.1", "expect: 100-continue\r\ncontent-length: 5\r\n", "hello"),
        ("/echo", "1.0", "expect: 100-continue\r\ncontent-length: 5\r\n", "hello"),
        ("/echo", "1.1", "expect: 100-continue\r\n", ""),
        ("/refused", "1.1", "expect: 100-continue\r\ncontent-length: 5\r\n", ""),
        ("/unread", "1.1", "content-length: 5\r\n", "hello"),
        ("/echo", "1.1", "content-length: foo\r\n", ""),
        ("/ec ho", "1.1", "", ""),
    ] {
        let sent = format!("POST {path} HTTP/{version}\r\nhost: a\r\n{headers}\r\n{body}");
        let sent = format!("{sent}GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        same_on_http1(&sent, &LAYERS);
    }
}

/// axum's `test_with_graceful_shutdown_request_header_timeout`, hyper's `disable_keep_alive_mid_request` and
/// `graceful_shutdown_before_first_request_no_block`.
#[test]
fn a_graceful_shutdown_on_http1_is_the_same_on_the_wire() {
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n";
    for (before, after) in [
        (String::new(), ""),
        ("GET /known HT".into(), "TP/1.1\r\nhost: a\r\n\r\n"),
        ("GET /known HTTP/1.1\r\nhost: a\r\n\r\n".into(), ""),
        (format!("{head}\r\nab"), "cd"),
        (format!("{head}\r\nab"), ""),
        (format!("{head}expect: 100-continue\r\n\r\n"), "abcd"),
    ] {
        let (without, _) = run(http1_with(Between::Nothing, &before, |_| {}, Some(after)));
        for layer in LAYERS {
            let (with, _) = run(http1_with(layer, &before, |_| {}, Some(after)));
            assert_eq!(with, without, "{layer:?}: {before} - {after}");
        }
    }
}

/// hyper's `http1_allow_half_close` and `disconnect_after_reading_request_before_responding`.
#[test]
fn a_client_that_closes_its_side() {
    let sent = |path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n");
    for layer in LAYERS {
        let half = |builder: &mut http1::Builder| {
            builder.half_close(true);
        };
        let (seen, ended) = run(http1_with(layer, &sent("/yields"), half, Some("\r\n")));
        assert!(seen.read.ends_with("\r\n\r\nfalse"), "it is there: {seen:?}");
        assert_eq!((seen.served, ended), (Served::Well, vec![Some(Ended::Complete)]), "{layer:?}");
        run(async {
            let (service, mut contexts, _stop) = service(layer);
            let (mut client, server) = duplex(1 << 20);
            tokio::spawn(
                http1::Builder::new().serve_connection(TokioIo::new(server), TowerToHyperService::new(service)),
            );
            client.write_all(format!("{}\r\n", sent("/parked")).as_bytes()).await.unwrap();
            let ctx = contexts.recv().await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(end(&ctx).await, Some(Ended::BeforeResponse), "{layer:?}");
            assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0);
        });
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The head of a request, in plain HPACK.
fn head(method: &str, path: &str, grpc: bool) -> Vec<u8> {
    // Method and path are the names 2 and 4 of the static table, the authority is 1, the scheme `http` is 6, content-type
    // is 31.
    let text = |index: &[u8], text: &str| [index, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let kind = if grpc { text(&[0x0f, 0x10], "application/grpc") } else { Vec::new() };
    [text(&[0x02], method), vec![0x86], text(&[0x04], path), text(&[0x01], "a"), kind].concat()
}

/// What a raw client of HTTP/2 reads as the answer to a request on a connection of its own, as frames: kind, flags and
/// payload. `upload` is what it sends of its body; then it waits.
async fn http2(
    between: Between,
    method: &str,
    path: &str,
    grpc: bool,
    upload: Option<&str>,
) -> (Vec<String>, Option<Ended>) {
    let (service, mut contexts, _stop) = service(between);
    let (mut client, server) = duplex(1 << 20);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.auto_date_header(false);
    tokio::spawn(builder.serve_connection(TokioIo::new(server), TowerToHyperService::new(service)));
    let flags = if upload.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    client.write_all(&frame(HEADERS, flags, 1, &head(method, path, grpc))).await.unwrap();
    if let Some(upload) = upload {
        client.write_all(&frame(DATA, 0, 1, upload.as_bytes())).await.unwrap();
    }
    let mut frames = Vec::new();
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).await.unwrap();
        let [a, b, c, kind, flags, rest @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        client.read_exact(&mut payload).await.unwrap();
        assert_ne!(kind, GOAWAY, "{payload:?}");
        if u32::from_be_bytes(rest) != 1 || !matches!(kind, DATA | HEADERS | RESET) {
            continue;
        }
        frames.push(format!("{kind} {flags} {}", payload.escape_ascii()));
        // Behind an answer to a request that is still sent there is a reset.
        if kind == RESET || flags & END_STREAM != 0 && upload.is_none() {
            break;
        }
    }
    let ended = if between == Between::Nothing { None } else { end(&contexts.recv().await.unwrap()).await };
    (frames, ended)
}

/// hyper's `http2_responds_before_consuming_request_body_no_trailers` and `_with_trailers`, with those of [`ANSWERS`].
#[test]
fn answers_on_http2_are_the_same_frames() {
    for path in ANSWERS {
        // A server resets a stream that panics as soon as that is seen, which may be before what was sent.
        let panics = path.contains("panics");
        for (method, grpc, upload) in
            [("GET", false, None), ("GET", true, None), ("HEAD", false, None), ("POST", false, Some("up"))]
        {
            let (without, _) = run(http2(Between::Nothing, method, path, grpc, upload));
            let mut ended = None;
            for layer in LAYERS {
                let (with, how) = run(http2(layer, method, path, grpc, upload));
                assert!(panics || with == without, "{layer:?} {method} {path} {grpc}: {with:?}, not {without:?}");
                assert_eq!(with.last(), without.last(), "{layer:?} {method} {path} {grpc}");
                assert_eq!(how, *ended.get_or_insert(how), "{layer:?} {method} {path} {grpc}");
            }
        }
    }
}

type Sent = UnboundedSender<Part>;

/// A body that is sent as the test wants.
fn upload() -> (Sent, Body) {
    let (sender, mut parts) = unbounded_channel::<Part>();
    (sender, Body::new(StreamBody::new(stream::poll_fn(move |cx| parts.poll_recv(cx)))))
}

struct OnHttp2 {
    client: client::conn::http2::SendRequest<Body>,
    contexts: UnboundedReceiver<Context>,
    stop: Canceller,
    /// Begins a graceful shutdown.
    drain: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), hyper::Error>>,
}

impl OnHttp2 {
    async fn start(between: Between) -> Self {
        let (service, contexts, stop) = service(between);
        let (client, server) = duplex(1 << 20);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.enable_connect_protocol();
        let mut connection = builder.serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
        let (drain, draining) = oneshot::channel();
        let mut draining = draining.fuse();
        // An async block is too narrow for the errors of the service.
        let served = tokio::spawn(poll_fn(move |cx| {
            if draining.poll_unpin(cx).is_ready() {
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_unpin(cx)
        }));
        let (client, connection) =
            client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        Self { client, contexts, stop, drain: Some(drain), served }
    }

    fn send(&mut self, method: Method, path: &str, body: Body) -> JoinHandle<hyper::Result<(StatusCode, Bytes)>> {
        let uri = format!("http://localhost{path}");
        let answer = self.client.send_request(Request::builder().method(method).uri(uri).body(body).unwrap());
        tokio::spawn(async {
            let response = answer.await?;
            Ok((response.status(), response.into_body().collect().await?.to_bytes()))
        })
    }
}

/// hyper's `http2_responds_before_consuming_request_body_no_trailers`: what the client still sends is not in the way.
#[test]
fn an_answer_on_http2_before_the_request_is_whole() {
    for layer in LAYERS {
        run(async {
            let mut http2 = OnHttp2::start(layer).await;
            let (sent, body) = upload();
            sent.send(data("some")).unwrap();
            let answer = http2.send(Method::POST, "/unread", body).await.unwrap().unwrap();
            assert_eq!(answer, (StatusCode::OK, "not read".into()), "{layer:?}");
            assert_eq!(end(&http2.contexts.recv().await.unwrap()).await, Some(Ended::Complete));
            sent.closed().await;
        });
    }
}

/// GOAWAY leaves the streams that are under way alone, and so do the layers.
#[test]
fn a_graceful_shutdown_on_http2() {
    for layer in LAYERS {
        run(async {
            let mut http2 = OnHttp2::start(layer).await;
            let (sent, body) = upload();
            sent.send(data("before, ")).unwrap();
            let answer = http2.send(Method::POST, "/echo", body);
            let ctx = http2.contexts.recv().await.unwrap();
            http2.drain.take().unwrap().send(()).unwrap();
            // GOAWAY has arrived where there is no further stream.
            while http2.send(Method::GET, "/known", Body::empty()).await.unwrap().is_ok() {}
            assert!(!ctx.is_done(), "{layer:?}");
            sent.send(data("after")).unwrap();
            drop(sent);
            let (status, text) = answer.await.unwrap().unwrap();
            assert_eq!((status, &text[..]), (StatusCode::OK, &b"b\"before, after\" None"[..]), "{layer:?}");
            assert_eq!(end(&ctx).await, Some(Ended::Complete));
            http2.served.await.unwrap().unwrap();
        });
    }
}

/// hyper's `test_body_panics`, at the server: only its own stream ends.
#[test]
fn a_body_that_panics_on_http2_leaves_the_others_alive() {
    for layer in LAYERS {
        run(async {
            let mut http2 = OnHttp2::start(layer).await;
            let (sent, body) = upload();
            sent.send(data("alive")).unwrap();
            let echo = http2.send(Method::POST, "/echo", body);
            let alive = http2.contexts.recv().await.unwrap();
            for (path, how) in
                [("/body-panics", Ended::Panicked), ("/panics", Ended::Panicked), ("/fails", Ended::Failed)]
            {
                http2.send(Method::GET, path, Body::empty()).await.unwrap().expect_err("not whole");
                assert_eq!(end(&http2.contexts.recv().await.unwrap()).await, Some(how), "{layer:?} {path}");
            }
            assert!(!alive.is_done(), "{layer:?}");
            drop(sent);
            assert_eq!(echo.await.unwrap().unwrap().1, "b\"alive\" None", "{layer:?}");
            assert_eq!(end(&alive).await, Some(Ended::Complete));
        });
    }
}

/// hyper's `upgrades_new`, `http_connect_new`, `http1_graceful_shutdown_after_upgrade`: the exchange is over, and what it has
/// become ends with the server.
#[test]
fn an_upgrade_outlives_its_exchange() {
    for layer in LAYERS {
        for (request, answer) in [
            (
                "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foobar\r\n\r\neager ",
                "HTTP/1.1 101 Switching Protocols\r\n",
            ),
            ("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\neager ", "HTTP/1.1 200 OK\r\n"),
        ] {
            run(async {
                let (service, mut contexts, stop) = service(layer);
                let (mut client, server) = duplex(1 << 20);
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
                tokio::spawn(connection.with_upgrades());
                client.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(end(&contexts.recv().await.unwrap()).await, Some(Ended::Complete), "{layer:?}");
                client.write_all(b"and late").await.unwrap();
                let mut read = Vec::new();
                while !read.ends_with(b"\r\n\r\neager and late") {
                    assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "{}", read.escape_ascii());
                }
                assert!(read.starts_with(answer.as_bytes()), "{}", read.escape_ascii());
                stop.cancel();
                assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0, "it ends with the server");
            });
        }
    }
}

/// hyper's `h2_connect`.
#[test]
fn connect_on_http2_outlives_its_exchange() {
    for layer in LAYERS {
        run(async {
            let mut http2 = OnHttp2::start(layer).await;
            let request = Request::connect("a:80").body(Body::empty()).unwrap();
            let response = http2.client.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(end(&http2.contexts.recv().await.unwrap()).await, Some(Ended::Complete), "{layer:?}");
            let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            io.write_all(b"to and fro").await.unwrap();
            let mut read = [0; 10];
            io.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"to and fro");
            http2.stop.cancel();
            assert!(!matches!(io.read(&mut read).await, Ok(1..)), "it ends with the server");
        });
    }
}

/// hyper's `dropped_conn_sends_incomplete_body_error`, and `upgrade` of its clients: a client's layer leaves errors and
/// upgrades as they are, under a context or none.
#[test]
fn what_a_client_gets_through_its_layer() {
    run(async {
        let listener = listen().await;
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        socket.read_buf(&mut head).await.unwrap();
                    }
                    if head.starts_with(b"GET /upgrade") {
                        let answer =
                            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foobar\r\n\r\n";
                        socket.write_all(answer).await.unwrap();
                        let (mut from, mut to) = socket.split();
                        tokio::io::copy(&mut from, &mut to).await.unwrap();
                    } else {
                        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
                    }
                });
            }
        });
        for with_context in [true, false] {
            let (ctx, canceller) = Context::background().with_cancel();
            let without = Pool::builder(TokioExecutor::new()).build_http::<Body>();
            let pool = PropagateLayer::new().layer(without.clone());
            let request = |path: &str| {
                let mut request = Request::get(format!("{url}{path}")).body(Body::empty()).unwrap();
                if with_context {
                    request.extensions_mut().insert(ctx.clone());
                }
                request
            };
            let mut body = pool.clone().oneshot(request("")).await.unwrap().into_body();
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(5));
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
            let err = body.frame().await.unwrap().unwrap_err();
            let same = without.oneshot(request("")).await.unwrap().into_body().collect().await.unwrap_err();
            assert_eq!(format!("{:?}", err.downcast_ref::<hyper::Error>()), format!("{:?}", Some(same)));

            let mut upgrade = request("upgrade");
            upgrade.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
            upgrade.headers_mut().insert("upgrade", HeaderValue::from_static("foobar"));
            let response = pool.clone().oneshot(upgrade).await.unwrap();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
            canceller.cancel();
            io.write_all(b"still there").await.unwrap();
            let mut read = [0; 11];
            io.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"still there");
        }
    });
}
