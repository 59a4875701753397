//! What is open when the signal comes: streams without an end, calls without an answer, readers that stall.

use std::net::SocketAddr;

use axum::http::Version;
use futures::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};
use tonic::Code;

use crate::BoxError;
use crate::load::Client;
use crate::rpc;

pub(crate) type Verdict = Result<String, BoxError>;

pub(crate) fn expect(held: bool, what: impl FnOnce() -> String) -> Result<(), BoxError> {
    if held { Ok(()) } else { Err(what().into()) }
}

/// Reads SSE to its end, which has to be a clean one.
pub(crate) async fn events(version: Version, address: SocketAddr) -> Verdict {
    let mut client = Client::connect(version, address).await?;
    let body = client.request("GET", "/events").await?.into_body();
    let text = String::from_utf8(body.collect().await?.to_bytes().into())?;
    let ticks = text.matches("data: tick\n\n").count();
    expect(ticks > 0 && text.len() == ticks * "data: tick\n\n".len(), || format!("{text:?}"))?;
    Ok(format!("{ticks} events, and a clean end"))
}

pub(crate) async fn numbers(mut client: rpc::Client) -> Verdict {
    let mut stream = client.count().await?;
    let mut count = 0;
    while let Some(number) = stream.message().await? {
        expect(number.value == count, || format!("{} after {count}", number.value))?;
        count += 1;
    }
    expect(count > 0, || "no number".to_owned())?;
    Ok(format!("{count} numbers, and status 0"))
}

pub(crate) async fn chat(address: SocketAddr) -> Verdict {
    let stream = TcpStream::connect(address).await?;
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/chat", stream).await?;
    socket.send(Message::text("hello")).await?;
    let echo = socket.next().await.ok_or("no echo")??;
    expect(echo == Message::text("hello"), || format!("{echo:?}"))?;
    let close = socket.next().await.ok_or("no close frame")??;
    let Message::Close(Some(frame)) = &close else { return Err(format!("no close frame: {close:?}").into()) };
    expect(frame.code == CloseCode::Away, || format!("{frame:?}"))?;
    // The answer to the close goes out here.
    while socket.next().await.is_some_and(|message| message.is_ok()) {}
    Ok(format!("{} {}", u16::from(frame.code), frame.reason))
}

/// A request that cannot end within the grace.
pub(crate) async fn forever(version: Version, address: SocketAddr) -> Verdict {
    let mut client = Client::connect(version, address).await?;
    let response = client.request("GET", "/forever").await?;
    let status = response.status().as_u16();
    let body = String::from_utf8(response.into_body().collect().await?.to_bytes().into())?;
    expect(status == 503, || format!("{status} {body}"))?;
    Ok(format!("{status} {body}"))
}

pub(crate) async fn call_forever(mut client: rpc::Client) -> Verdict {
    let status = client.forever().await.err().ok_or("an answer")?;
    expect(status.code() == Code::Unavailable, || format!("{status:?}"))?;
    Ok(format!("{:?} {}", status.code(), status.message()))
}

/// Clients that ask for an endless download, and read nothing of it.
#[expect(dead_code, reason = "held, and never read")]
pub(crate) struct Stalled(TcpStream, Client, Incoming);

impl Stalled {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Stalled, BoxError> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut client = Client::connect(Version::HTTP_2, address).await?;
        let body = client.request("GET", "/endless").await?.into_body();
        Ok(Stalled(stream, client, body))
    }
}
