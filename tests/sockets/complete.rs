//! Exchanges that are complete, however their bodies end on the wire.

use std::convert::Infallible;
use std::future::pending;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use context_merge::Context;
use context_merge::tower::Ended;
use futures::stream;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{self, Client, VERSIONS};
use crate::run;
use crate::server::{Server, end, layer};

/// Whatever ends a body, by its path; and what a client reads of it.
const PATHS: [(&str, u16, &str); 7] = [
    ("/length", 200, "abcdef"),
    ("/chunked", 200, "abcdef"),
    ("/file", 200, "abcdef"),
    ("/empty", 200, ""),
    ("/none", 200, ""),
    ("/204", 204, ""),
    ("/304", 304, ""),
];

fn routes() -> Router {
    let chunks = || Body::from_stream(stream::iter(["ab", "cd", "ef"].map(Ok::<_, Infallible>)));
    Router::new()
        .route("/length", get(async || "abcdef"))
        .route("/chunked", get(async move || chunks()))
        .route("/file", get(async move || ([(CONTENT_LENGTH, "6")], chunks())))
        .route("/empty", get(async || ""))
        .route("/none", get(async || Body::from_stream(stream::empty::<Result<String, Infallible>>())))
        .route("/204", get(async || StatusCode::NO_CONTENT))
        .route("/304", get(async || StatusCode::NOT_MODIFIED))
        .route("/parked", get(pending::<()>))
}

#[test]
fn one_after_the_other_on_one_connection() {
    for version in VERSIONS {
        run(async {
            let mut server = Server::start(layer(), routes()).await;
            let mut client = Client::connect(version, server.address).await;
            for method in [Method::GET, Method::HEAD] {
                for (path, status, body) in PATHS {
                    let mut request = client::get(path);
                    *request.method_mut() = method.clone();
                    client.ready().await;
                    let read = client::read(client.send(request)).await;
                    let body = if method == Method::HEAD { "" } else { body };
                    assert_eq!(read, (status, body.into()), "{version:?} {method} {path}");
                    let ctx = server.context().await;
                    assert_eq!(end(&ctx).await, Some(Ended::Complete), "{version:?} {method} {path}");
                }
            }
        });
    }
}

/// Sends `bytes` on a connection of its own.
async fn send(server: &Server, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    read
}

#[test]
fn pipelined() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        let requests: String = PATHS.map(|(path, ..)| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).concat();
        let stream = send(&server, &format!("{requests}GET /parked HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        for (path, ..) in PATHS {
            assert_eq!(end(&server.context().await).await, Some(Ended::Complete), "{path}");
        }
        let last = server.context().await;
        assert!(!last.is_done(), "each has a context of its own");
        drop(stream);
        assert_eq!(end(&last).await, Some(Ended::BeforeResponse));
    });
}

#[test]
fn pipelined_up_to_the_close() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        let requests =
            "HEAD /file HTTP/1.1\r\nhost: a\r\n\r\nGET /file HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let read = read_to_end(send(&server, requests).await).await;
        assert_eq!(read.matches("HTTP/1.1 200 OK").count(), 2, "{read}");
        for _ in 0..2 {
            assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
        }
    });
}

#[test]
fn http_1_0_whose_bodies_end_with_the_connection() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        for (path, _, body) in PATHS {
            let read = read_to_end(send(&server, &format!("GET {path} HTTP/1.0\r\n\r\n")).await).await;
            assert!(read.ends_with(&format!("\r\n\r\n{body}")), "{read}");
            assert_eq!(end(&server.context().await).await, Some(Ended::Complete), "{path}");
        }
    });
}

/// It asks for each on one connection, which it keeps.
#[test]
fn curl() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        let [length, chunked, file] = ["/length", "/chunked", "/file"].map(|path| server.url(path));
        let Some(output) = client::curl([&length[..], &chunked, &file]).await else { return };
        assert_eq!(output.stdout, b"abcdefabcdefabcdef");
        for _ in 0..3 {
            assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
        }
    });
}

/// The client closes as soon as it has what it waits for, which may be before the server looks again.
#[test]
fn a_client_that_closes_at_the_last_byte() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        for (path, ..) in PATHS {
            for _ in 0..50 {
                let mut stream = send(&server, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
                let ctx = server.context().await;
                let mut read = Vec::new();
                let last = match path {
                    "/length" | "/file" => "\r\n\r\nabcdef",
                    "/chunked" | "/none" => "0\r\n\r\n",
                    _ => "\r\n\r\n",
                };
                while !read.ends_with(last.as_bytes()) {
                    stream.read_buf(&mut read).await.unwrap();
                }
                drop(stream);
                assert_eq!(end(&ctx).await, Some(Ended::Complete), "{path}");
            }
        }
    });
}

#[test]
fn with_a_body_both_ways() {
    run(async {
        let echo = axum::routing::post(async |ctx: Context, body: String| ctx.check().map(|()| body));
        let mut server = Server::start(layer(), routes().route("/echo", echo)).await;
        for version in VERSIONS {
            let mut client = Client::connect(version, server.address).await;
            let mut request = client::get("/echo").map(|_| Body::from("there and back"));
            *request.method_mut() = Method::POST;
            assert_eq!(client::read(client.send(request)).await, (200, "there and back".into()));
            assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
        }
    });
}
