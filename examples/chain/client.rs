//! Just enough of an HTTP client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request under way; dropping it closes its connection.
pub(crate) struct Call(TcpStream);

/// Asks for so many steps in so much time.
pub(crate) async fn ask(server: SocketAddr, steps: u32, timeout: Option<Duration>) -> io::Result<Call> {
    let timeout = timeout.map(|timeout| format!("connect-timeout-ms: {}\r\n", timeout.as_millis())).unwrap_or_default();
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET /{steps} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{timeout}\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(Call(stream))
}

impl Call {
    /// The status and the body.
    pub(crate) async fn answer(mut self) -> io::Result<(u16, String)> {
        let mut response = String::new();
        self.0.read_to_string(&mut response).await?;
        let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no answer: {response:?}")))
    }
}
