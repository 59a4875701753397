//! Just enough of an HTTP client, and of `kill`.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// The status and the body.
pub(crate) async fn get(server: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {response:?}")))
}

/// Sends this process a signal, by its name without SIG. Through the shell, which always has a `kill`.
pub(crate) async fn signal_myself(name: &str) -> io::Result<()> {
    let kill = format!("kill -s {name} {}", std::process::id());
    let status = Command::new("sh").arg("-c").arg(&kill).status().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{kill}: {status}"))) }
}
