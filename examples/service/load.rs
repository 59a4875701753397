//! Clients that keep sending requests until nobody listens any more.
//!
//! What counts as failed: a request that was *sent* and got no answer, or any answer but the right one. A connection that is
//! refused once the service drains is none: whoever is in front of it has other instances. Nor is a request that the client
//! could not send, because HTTP/2 had said GOAWAY.
//!
//! On HTTP/1.1 there is one race that no server can avoid: it closes a connection while a request is on its way there, because
//! nothing has told the client before. A response says `connection: close` if its *head* goes out while the service drains;
//! behind one that had begun before, as a download, and on an idle connection, the request is lost without a byte of an answer.
//! Clients and proxies know that, and send an idempotent request again, on another connection (RFC 9110, 9.2.2; RFC 9112,
//! 9.3.1): Go's `net/http` does for GET, nginx (`proxy_next_upstream`) for all but POST, LOCK and PATCH. So do these, and
//! count it: all that is sent here is GET or PUT. See the page of `context_merge::shutdown` for the rest.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::Bytes;
use axum::http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::rpc;

/// What the clients have seen.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) signalled: AtomicBool,
    pub(crate) answered: AtomicU64,
    pub(crate) after_signal: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) keys: AtomicU64,
    pub(crate) jobs: AtomicU64,
    pub(crate) transfers: AtomicU64,
    last: AtomicU64,
}

impl Tally {
    fn id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    fn answer(&self, count: Option<&AtomicU64>) {
        for count in [Some(&self.answered), count].into_iter().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if self.signalled.load(Ordering::Relaxed) {
            self.after_signal.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A kind of request: its path, the right answer, how long its body is at least, and who counts it.
struct Kind {
    path: &'static str,
    status: u16,
    least: usize,
    count: fn(&Tally) -> Option<&AtomicU64>,
}

const KINDS: [Kind; 5] = [
    Kind { path: "/report", status: 200, least: 11, count: |_| None },
    Kind { path: "/keys/", status: 200, least: 8, count: |tally| Some(&tally.keys) },
    Kind { path: "/jobs/", status: 202, least: 0, count: |tally| Some(&tally.jobs) },
    Kind { path: "/download", status: 200, least: crate::endpoints::CHUNKS * 16 * 1024, count: |_| None },
    Kind { path: "/transfers/", status: 200, least: 12, count: |tally| Some(&tally.transfers) },
];

/// One request after the other, of all kinds in turn, from `first` on: so that some of each are in flight at the signal.
pub(crate) async fn http(
    version: Version,
    address: SocketAddr,
    tally: &Tally,
    first: usize,
    database: bool,
) -> Result<(), String> {
    let kinds = if database { &KINDS[..] } else { &KINDS[..4] };
    let mut client = None;
    let mut fresh = true;
    for kind in kinds.iter().cycle().skip(first) {
        let id = tally.id();
        let what = format!("{version:?} {}", kind.path);
        loop {
            let connection = match &mut client {
                Some(client) => client,
                None => match Client::connect(version, address).await {
                    Ok(connection) => client.insert(connection),
                    Err(err) => return over(tally, &*err).map_err(|err| format!("{what}, connecting: {err}")),
                },
            };
            match connection.send(kind.path, id).await {
                Ok((status, length)) if status == kind.status && length >= kind.least => {
                    tally.answer((kind.count)(tally));
                    fresh = false;
                    break;
                }
                Ok((status, length)) => return Err(format!("{what}: {status} and {length} bytes")),
                Err(Lost::Unsent) if !fresh => {}
                Err(Lost::Unanswered(_)) if tally.signalled.load(Ordering::Relaxed) => {
                    tally.retried.fetch_add(1, Ordering::Relaxed);
                }
                Err(lost) => return Err(format!("{what}: {lost:?}")),
            }
            client = None;
            fresh = true;
        }
    }
    unreachable!("the kinds never end")
}

pub(crate) async fn grpc(mut client: rpc::Client, tally: &Tally) -> Result<(), String> {
    loop {
        let id = tally.id();
        match client.double(id).await {
            Ok(answer) if answer == 2 * id => tally.answer(None),
            Ok(answer) => return Err(format!("gRPC: twice {id} is {answer}")),
            // tonic's channel connects again by itself.
            Err(status) => return over(tally, &status).map_err(|err| format!("gRPC: {err}")),
        }
    }
}

/// Whether nobody listens any more, as it should be after the signal.
fn over(tally: &Tally, err: &(dyn StdError + 'static)) -> Result<(), String> {
    let chain: Vec<_> = std::iter::successors(Some(err), |&err| err.source()).collect();
    let refused = chain.iter().any(|err| {
        err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::ConnectionRefused)
            || err.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    });
    let told = chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if refused && tally.signalled.load(Ordering::Relaxed) { Ok(()) } else { Err(told) }
}

#[derive(Debug)]
enum Lost {
    /// The connection was on its way out, and the request has not left.
    Unsent,
    /// HTTP/1.1: sent, and the connection closed without a byte of an answer.
    Unanswered(#[expect(dead_code, reason = "shown")] hyper::Error),
    /// Anything else; there is no excuse for it.
    Failed(#[expect(dead_code, reason = "shown")] hyper::Error),
}

pub(crate) enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    pub(crate) async fn connect(
        version: Version,
        address: SocketAddr,
    ) -> Result<Client, Box<dyn StdError + Send + Sync>> {
        let io = TokioIo::new(TcpStream::connect(address).await?);
        Ok(if version == Version::HTTP_2 {
            let (client, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Client::Http2(client)
        } else {
            let (client, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Client::Http1(client)
        })
    }

    pub(crate) async fn request(&mut self, method: &str, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder().method(method).header("host", "localhost");
        let request = request.uri(format!("http://localhost{path}")).body(Empty::new()).expect("a valid one");
        match self {
            Client::Http1(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
            Client::Http2(client) => {
                client.ready().await?;
                client.send_request(request).await
            }
        }
    }

    /// The status, and the length of the whole body.
    async fn send(&mut self, path: &str, id: u64) -> Result<(u16, usize), Lost> {
        let (method, path) =
            if path.ends_with('/') { ("PUT", format!("{path}{id}")) } else { ("GET", path.to_owned()) };
        let response = self.request(method, &path).await.map_err(|err| self.lost(err))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Lost::Failed)?.to_bytes();
        Ok((status.as_u16(), body.len()))
    }

    fn lost(&self, err: hyper::Error) -> Lost {
        // Of HTTP/1.1 hyper says so where not all of a head has come; these servers send one in one piece.
        let io = || err.source().is_some_and(|source| source.is::<io::Error>());
        match self {
            _ if err.is_canceled() || err.is_closed() => Lost::Unsent,
            Client::Http1(_) if err.is_incomplete_message() || io() => Lost::Unanswered(err),
            _ => Lost::Failed(err),
        }
    }
}
