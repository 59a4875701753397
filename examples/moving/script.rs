//! What the clients of every step do, and what they and the log get to see.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::service::Log;

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) answers: Vec<String>,
    /// Sorted: of what ends together, any may be the first to say so.
    pub(crate) log: Vec<String>,
}

/// Drives a service that `stop` shuts down. Only what has been seen to happen is followed by the next thing.
pub(crate) async fn run<S>(serve: impl FnOnce(TcpListener, Log) -> S, stop: impl FnOnce()) -> io::Result<Seen>
where
    S: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (sender, mut lines) = mpsc::unbounded_channel();
    let service = tokio::spawn(serve(listener, Log(sender)));
    let mut answers = Vec::new();
    let mut log = Vec::new();

    let mut patient = Client::connect(address).await?;
    patient.send("slow 60000 50").await?;
    answers.extend([patient.line().await?, patient.line().await?]);
    patient.send("quick 1 60000").await?;
    answers.extend([patient.line().await?, patient.line().await?]);

    let mut fleeting = Client::connect(address).await?;
    fleeting.send("left 60000 60000").await?;
    answers.push(fleeting.line().await?);
    drop(fleeting);
    while let Some(line) = lines.recv().await {
        log.push(line);
        if log.iter().any(|line| line.starts_with("connection closed")) {
            break;
        }
    }

    let mut confused = Client::connect(address).await?;
    confused.send("hello").await?;
    answers.push(confused.line().await?);

    let mut idle = Client::connect(address).await?;
    idle.send("first 1 60000").await?;
    answers.extend([idle.line().await?, idle.line().await?]);
    patient.send("late 60000 60000").await?;
    answers.push(patient.line().await?);
    stop();
    answers.extend([patient.line().await?, patient.line().await?, idle.line().await?]);
    service.await??;
    answers.extend(TcpStream::connect(address).await.is_err().then(|| "refused".to_owned()));

    // The log ends when nothing is left that could write to it.
    while let Some(line) = lines.recv().await {
        log.push(line);
    }
    log.sort();
    Ok(Seen { answers, log })
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Client> {
        Ok(Client(BufReader::new(TcpStream::connect(address).await?)))
    }

    async fn send(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\n").as_bytes()).await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let closed = self.0.read_line(&mut line).await? == 0;
        Ok(if closed { "closed".to_owned() } else { line.trim_end().to_owned() })
    }
}
