//! Situations from the public tests of hyper, axum, tonic and tower-http, with our layers between. Most check that an
//! exchange is the same on the wire as without a layer.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::task::{self, Poll};

use axum::body::Body;
use bytes::Bytes;
use context_merge::{Canceller, Context};
use context_merge::tower::{BoxError, ContextLayer, Ended, ReadAheadLayer};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::UnboundedReceiver;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};

use crate::run;
use crate::server::{how, watched};

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
            let inside = outside.layer(ReadAheadLayer::new(1024)).map_request(|request: Request<_>| request.map(Body::new));
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

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
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
                *response.body_mut() = Body::new(Full::new(Bytes::from("abc")).with_trailers(ready(Some(Ok(trailers())))));
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
                *response.body_mut() = Body::new(StreamBody::new(calm.chain(stream::poll_fn(|_| panic!("in the body")))));
            }
            "/unread" => *response.body_mut() = Body::from("not read"),
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
    let (service, mut contexts, _stop) = service(between);
    let (mut client, server) = duplex(1 << 20);
    client.write_all(sent.as_bytes()).await.unwrap();
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false);
    let connection = builder.serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
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
