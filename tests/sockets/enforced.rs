//! What clients are told where the layer ends exchanges.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use context_merge::Context;
use context_merge::tower::ContextLayer;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, Client, VERSIONS};
use crate::run;
use crate::server::{Server, layer, listen, tick};

const SOON: Duration = Duration::from_millis(30);
/// So that a busy machine has begun with the body by then.
const LATER: Duration = Duration::from_millis(400);

fn routes() -> Router {
    Router::new()
        .route("/parked", get(pending::<()>))
        .route("/ticks", get(async || tick()))
        .route("/file", get(async || ([(CONTENT_LENGTH, "8")], tick())))
}

#[test]
fn a_deadline_is_504() {
    for version in VERSIONS {
        run(async {
            for (layer, header) in [
                (layer(), Some(("grpc-timeout", "30m"))),
                (layer(), Some(("connect-timeout-ms", "30"))),
                (layer().limit(SOON), None),
                (layer().limit(SOON), Some(("grpc-timeout", "1H"))),
            ] {
                let server = Server::start(layer.enforce(), routes()).await;
                let mut client = Client::connect(version, server.address).await;
                let mut request = client::get("/parked");
                if let Some((name, value)) = header {
                    request.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                let told = client::read(client.send(request)).await;
                assert_eq!(told, (504, "context deadline exceeded".into()), "{version:?} {header:?}");
            }
        });
    }
}

#[test]
fn a_shutdown_is_503() {
    for version in VERSIONS {
        run(async {
            let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
            let mut server = Server::start(ContextLayer::new(shutdown).enforce(), routes()).await;
            let mut client = Client::connect(version, server.address).await;
            let answer = client.send(client::get("/parked"));
            server.context().await;
            stop.cancel_with("SIGTERM");
            assert_eq!(client::read(answer).await, (503, "context cancelled".into()));
        });
    }
}

/// It waits for every exchange, which without the layer would be for ever.
#[test]
fn a_graceful_shutdown_ends() {
    for version in VERSIONS {
        run(async {
            let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
            let listener = listen().await;
            let address = listener.local_addr().unwrap();
            let app = routes().layer(ContextLayer::new(&shutdown).enforce());
            let signal = shutdown.done_owned();
            let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(signal.await) });
            let server = tokio::spawn(server.into_future());
            let mut client = Client::connect(version, address).await;
            let mut response = client.send(client::get("/ticks")).await.unwrap();
            response.frame().await.unwrap().unwrap();
            stop.cancel();
            server.await.unwrap().unwrap();
        });
    }
}

#[test]
fn a_body_is_visibly_cut_short() {
    for version in VERSIONS {
        run(async {
            for path in ["/ticks", "/file"] {
                let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
                let server = Server::start(ContextLayer::new(shutdown).enforce(), routes()).await;
                let mut client = Client::connect(version, server.address).await;
                let mut response = client.send(client::get(path)).await.unwrap();
                assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "tick");
                stop.cancel();
                response.frame().await.unwrap().expect_err("no clean end");
            }
        });
    }
}

#[test]
fn the_last_chunk_is_never_written() {
    run(async {
        let server = Server::start(layer().limit(LATER).enforce(), routes()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /ticks HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        assert!(read.ends_with("\r\n4\r\ntick\r\n"), "{read}");
    });
}

#[test]
fn a_timeout_that_cannot_be_read_is_400() {
    for version in VERSIONS {
        run(async {
            let server = Server::start(layer(), routes()).await;
            let mut client = Client::connect(version, server.address).await;
            let mut request = client::get("/parked");
            request.headers_mut().insert("connect-timeout-ms", HeaderValue::from_static("soon"));
            let (status, text) = client::read(client.send(request)).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert_eq!(text, "invalid connect-timeout-ms \"soon\": not one to ten digits");
            assert!(server.contexts.is_empty(), "it has no context");
        });
    }
}

#[test]
fn as_curl_sees_it() {
    run(async {
        let server = Server::start(layer().limit(SOON).enforce(), routes()).await;
        let status = "%{http_code}";
        let Some(late) = client::curl(["--write-out", status, &server.url("/parked")]).await else { return };
        assert_eq!(late.stdout, b"context deadline exceeded504");
        let header = "grpc-timeout: +1S";
        let invalid = client::curl(["--write-out", status, "--header", header, &server.url("/parked")]).await.unwrap();
        assert!(invalid.stdout.starts_with(b"invalid grpc-timeout \"+1S\"") && invalid.stdout.ends_with(b"400"));
        let server = Server::start(layer().limit(LATER).enforce(), routes()).await;
        for path in ["/ticks", "/file"] {
            let cut = client::curl(["--no-buffer", &server.url(path)]).await.unwrap();
            assert_eq!((cut.status.code(), &cut.stdout[..]), (Some(18), &b"tick"[..]), "a partial file");
        }
    });
}
