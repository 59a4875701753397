//! A client with one connection in its hand.

use std::future::Future;
use std::net::{Shutdown, SocketAddr};
use std::process::Output;

use axum::body::Body;
use futures::future::Either;
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::process::Command;

pub(crate) const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// How it goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum HangUp {
    Http1,
    Http2,
    /// The stream is reset, and the connection lives on.
    Http2Stream,
}

impl HangUp {
    pub(crate) const WAYS: [HangUp; 3] = [HangUp::Http1, HangUp::Http2, HangUp::Http2Stream];

    pub(crate) fn version(self) -> Version {
        if self == HangUp::Http1 { Version::HTTP_11 } else { Version::HTTP_2 }
    }
}

pub(crate) struct Client {
    requests: Requests,
    socket: std::net::TcpStream,
}

enum Requests {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

pub(crate) type Answer = hyper::Result<Response<Incoming>>;

impl Client {
    pub(crate) async fn connect(version: Version, address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap().into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
        let requests = if version == Version::HTTP_2 {
            let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Requests::Http2(requests)
        } else {
            let (requests, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Requests::Http1(requests)
        };
        Client { requests, socket }
    }

    /// Waits until it can send: HTTP/1.1 has one exchange at a time.
    pub(crate) async fn ready(&mut self) {
        match &mut self.requests {
            Requests::Http1(requests) => requests.ready().await,
            Requests::Http2(requests) => requests.ready().await,
        }
        .unwrap();
    }

    /// Sends it at once, also where nobody polls the answer.
    pub(crate) fn send(&mut self, mut request: Request<Body>) -> impl Future<Output = Answer> + Send + use<> {
        match &mut self.requests {
            Requests::Http1(requests) => {
                request.headers_mut().insert("host", "localhost".parse().unwrap());
                Either::Left(requests.send_request(request))
            }
            Requests::Http2(requests) => Either::Right(requests.send_request(request)),
        }
    }

    /// Goes away, and drops what it has of the answer.
    pub(crate) fn hang_up<T>(&self, way: HangUp, answer: T) {
        if way != HangUp::Http2Stream {
            self.socket.shutdown(Shutdown::Both).unwrap();
        }
        drop(answer);
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    // HTTP/2 takes the scheme and the authority from it.
    Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap()
}

/// The status and the body, up to its end.
pub(crate) async fn read(answer: impl Future<Output = Answer>) -> (u16, Bytes) {
    let response = answer.await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

/// What curl says; None where there is no curl.
pub(crate) async fn curl<const N: usize>(arguments: [&str; N]) -> Option<Output> {
    let mut curl = Command::new("curl");
    let output = curl.args(["--silent", "--noproxy", "*", "--max-time", "20"]).args(arguments).output().await;
    output.inspect_err(|err| eprintln!("without curl: {err}")).ok()
}
