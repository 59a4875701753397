//! A client of a server that is sometimes slow: after its timeout it gives up and frees the connection.
//!
//! The server sees the client go, through a context that the end of the connection cancels, and stops working for it.

use std::error::Error as StdError;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use context_merge::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const TIMEOUT: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (sender, mut connections) = watch::channel(Connections::default());
    tokio::spawn(serve(listener, delays(7), sender));
    for n in 1..=8 {
        let ctx = Context::background().with_timeout(TIMEOUT);
        match ask(&ctx, address).await {
            Ok(answer) => println!("{n}: {answer}"),
            Err(err) => println!("{n}: gave up: {err}"),
        }
    }
    println!("the server saw {:?}", *connections.wait_for(|seen| seen.open == 0).await?);
    Ok(())
}

/// The server's answer, unless the context finishes first; the connection is closed either way.
pub(crate) async fn ask(ctx: &Context, server: SocketAddr) -> io::Result<String> {
    ctx.run(async {
        let mut answer = String::new();
        TcpStream::connect(server).await?.read_to_string(&mut answer).await?;
        Ok(answer)
    })
    .await?
}

/// What the server has seen of its clients.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Connections {
    pub(crate) open: usize,
    pub(crate) answered: usize,
    pub(crate) abandoned: usize,
}

/// Accepts a connection for each delay, and answers it after that.
pub(crate) async fn serve(
    listener: TcpListener,
    delays: impl Iterator<Item = Duration>,
    connections: watch::Sender<Connections>,
) -> io::Result<()> {
    for delay in delays {
        let (stream, _) = listener.accept().await?;
        connections.send_modify(|seen| seen.open += 1);
        let connections = connections.clone();
        tokio::spawn(async move {
            let answered = answer(stream, delay).await.is_ok();
            connections.send_modify(|seen| {
                seen.open -= 1;
                *if answered { &mut seen.answered } else { &mut seen.abandoned } += 1;
            });
        });
    }
    Ok(())
}

async fn answer(stream: TcpStream, delay: Duration) -> io::Result<()> {
    let (mut client, mut answer) = stream.into_split();
    // A client says nothing: all there is to read is its end.
    let ctx = Context::until(async move { client.read_u8().await });
    ctx.sleep(delay).await?;
    answer.write_all(b"hello").await
}

/// Up to twice the timeout, the same for the same seed.
pub(crate) fn delays(seed: u64) -> impl Iterator<Item = Duration> {
    // A hash is random enough for this, and needs no dependency.
    let hash = BuildHasherDefault::<DefaultHasher>::default();
    (0_u64..).map(move |n| Duration::from_millis(hash.hash_one((seed, n)) % 200))
}
