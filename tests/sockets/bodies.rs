//! What layers let pass: trailers, errors and lengths, on both versions, through a proxy and under compression.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use context_merge::tower::{ContextLayer, Ended, Propagate, PropagateLayer};
use context_merge::{Context, tower::BoxError};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::DecompressionLayer;

use crate::client::{self, Client, VERSIONS};
use crate::run;
use crate::server::{Server, end, layer, serve};

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 8.into())])
}

/// Five bytes, told or counted or neither, and trailers.
fn with_trailers() -> Body {
    Body::new(Full::new(Bytes::from("hello")).with_trailers(ready(Some(Ok(trailers())))))
}

/// Two bytes of two, and then an error.
fn fails_at_the_end() -> Body {
    let checksum = Err::<Frame<Bytes>, BoxError>("a checksum that does not fit".into());
    Body::new(StreamBody::new(stream::iter([Ok(Frame::data("ab".into())), checksum])))
}

fn routes() -> Router {
    let chunked = || Body::new(StreamBody::new(stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("hello")))])));
    Router::new()
        .route("/exact", get(async || with_trailers()))
        .route("/length", get(async || ([("content-length", "5")], with_trailers())))
        .route(
            "/chunked",
            get(async move || {
                let with = chunked().with_trailers(ready(Some(Ok(trailers()))));
                ([("trailer", "grpc-status")], Body::new(with))
            }),
        )
        .route("/fails", get(async || ([("content-length", "2")], fails_at_the_end())))
        .route("/long", get(async || "0123456789".repeat(1000)))
}

fn layers() -> [ContextLayer; 2] {
    [layer(), ContextLayer::new(Context::background().with_cancel().0).enforce()]
}

fn asking_for_trailers(path: &str) -> http::Request<Body> {
    let mut request = client::get(path);
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

/// Whether an answer ends without an error, which may come before its head.
async fn is_whole(answer: impl Future<Output = client::Answer>) -> bool {
    match answer.await {
        Ok(response) => response.into_body().collect().await.is_ok(),
        Err(_) => false,
    }
}

#[test]
fn trailers_pass() {
    // HTTP/1.1 has none behind a length.
    let ways = [
        (Version::HTTP_2, "/exact"),
        (Version::HTTP_2, "/length"),
        (Version::HTTP_2, "/chunked"),
        (Version::HTTP_11, "/chunked"),
    ];
    for (version, path) in ways {
        for layer in layers() {
            run(async {
                let mut server = Server::start(layer, routes()).await;
                let mut client = Client::connect(version, server.address).await;
                let body = client.send(asking_for_trailers(path)).await.unwrap().into_body().collect().await.unwrap();
                assert_eq!(body.trailers().expect("trailers")["grpc-status"], "8", "{version:?} {path}");
                assert_eq!(body.to_bytes(), "hello");
                assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
            });
        }
    }
}

/// On HTTP/1.1 the server does not ask for more than the length, with or without a layer.
#[test]
fn an_error_after_the_last_byte_passes() {
    for layer in layers() {
        run(async {
            let mut server = Server::start(layer, routes()).await;
            let mut client = Client::connect(Version::HTTP_2, server.address).await;
            assert!(!is_whole(client.send(client::get("/fails"))).await);
            assert_eq!(end(&server.context().await).await, Some(Ended::Failed));
        });
    }
}

type Backend = Propagate<Pool<HttpConnector, Body>>;

async fn forward(State((address, pool)): State<(SocketAddr, Backend)>, request: Request) -> Response<Body> {
    let ctx: Context = request.extensions().get::<Context>().unwrap().clone();
    let mut forwarded = http::Request::get(format!("http://{address}{}", request.uri().path()));
    forwarded = forwarded.header("te", "trailers").extension(ctx);
    match pool.oneshot(forwarded.body(Body::empty()).unwrap()).await {
        Ok(response) => response.map(Body::new),
        // The backend has failed before its head arrived.
        Err(err) => Response::new(Body::new(StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(err)])))),
    }
}

#[test]
fn trailers_and_errors_pass_a_reverse_proxy() {
    for layer in layers() {
        run(async {
            let backend = serve(routes()).await;
            let pool = PropagateLayer::new().layer(Pool::builder(TokioExecutor::new()).http2_only(true).build_http());
            let front = Router::new().fallback(forward).with_state((backend, pool));
            let server = Server::start(layer, front).await;
            let mut client = Client::connect(Version::HTTP_2, server.address).await;
            for path in ["/exact", "/length", "/chunked"] {
                let response = client.send(asking_for_trailers(path)).await.unwrap();
                assert_eq!(response.headers().contains_key("content-length"), path != "/chunked", "{path}");
                let body = response.into_body().collect().await.unwrap();
                assert_eq!(body.trailers().expect("trailers")["grpc-status"], "8", "{path}");
            }
            assert!(!is_whole(client.send(client::get("/fails"))).await);
        });
    }
}

/// Compression changes lengths, on either side of the layer.
#[test]
fn compression_inside_and_outside() {
    for version in VERSIONS {
        for layer in layers() {
            for inside in [true, false] {
                run(async {
                    let (layer, mut contexts) = crate::server::watched(layer.clone());
                    let routes = routes();
                    let app = if inside {
                        routes.layer(CompressionLayer::new()).layer(layer)
                    } else {
                        routes.layer(layer).layer(CompressionLayer::new())
                    };
                    let address = serve(app).await;
                    let pool = Pool::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http();
                    let client = DecompressionLayer::new().layer(pool);
                    let request = http::Request::get(format!("http://{address}/long")).body(Body::empty()).unwrap();
                    let response = client.oneshot(request).await.unwrap();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, "0123456789".repeat(1000));
                    let ctx = contexts.recv().await.unwrap();
                    assert_eq!(end(&ctx).await, Some(Ended::Complete), "{version:?} {inside}");
                });
            }
        }
    }
}

/// A stream that the handler ends at the finish ends cleanly: the last chunk, END_STREAM.
#[test]
fn a_stream_that_is_taken_until_done_ends_cleanly() {
    for version in VERSIONS {
        for layer in layers() {
            run(async {
                let (draining, drain) = Context::background().with_cancel();
                let ticks = move || {
                    let ticks = stream::iter([Ok::<_, Infallible>("tick")]).chain(stream::pending());
                    Body::from_stream(context_merge::StreamExt::take_until_done(ticks, &draining))
                };
                let mut server = Server::start(layer, Router::new().route("/ticks", get(async move || ticks()))).await;
                let mut client = Client::connect(version, server.address).await;
                let mut response = client.send(client::get("/ticks")).await.unwrap();
                response.frame().await.unwrap().unwrap();
                drain.cancel();
                assert_eq!(response.collect().await.expect("a clean end").to_bytes(), "", "{version:?}");
                assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
            });
        }
    }
}
