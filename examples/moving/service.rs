//! What stays as it is in every step: the protocol, the work, the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc::UnboundedSender};
use tokio::time::{sleep, timeout};

/// A client that does not read its answer keeps a shutdown waiting for no longer than this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A line `TAG TAKES WITHIN`: a report that takes so many milliseconds, and how many it may take. A client may send the
/// next one before the answer, which bears the tag.
pub(crate) struct Request {
    pub(crate) tag: String,
    pub(crate) takes: Duration,
    pub(crate) within: Duration,
}

impl Request {
    fn parse(line: &str) -> Option<Request> {
        let mut words = line.split(' ');
        let tag = words.next()?.to_owned();
        let mut time = || words.next()?.parse().ok().map(Duration::from_millis);
        Some(Request { tag, takes: time()?, within: time()? })
    }
}

/// The requests of one connection.
pub(crate) struct Requests(Lines<BufReader<OwnedReadHalf>>);

impl Requests {
    /// Cancel safe: what has been read of a line is kept.
    pub(crate) async fn next(&mut self) -> io::Result<Request> {
        let line = self.0.next_line().await?.ok_or_else(|| io::Error::other("the client hung up"))?;
        Request::parse(&line).ok_or_else(|| io::Error::other(format!("not a request, {line:?}")))
    }
}

/// The way back to it, and to the log. The connection is closed when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Answers {
    writer: Arc<Mutex<OwnedWriteHalf>>,
    log: Log,
}

impl Answers {
    async fn write(&self, line: String) {
        // There may be nobody left to read it.
        let write = async { self.writer.lock().await.write_all(format!("{line}\n").as_bytes()).await };
        let _ = timeout(WRITE_TIMEOUT, write).await;
    }

    /// What stands before the first colon is the protocol, what comes after it is for people.
    pub(crate) async fn answer(&self, tag: &str, outcome: &str) {
        let line = format!("{tag} {outcome}");
        self.log.say(&line);
        self.write(line).await;
    }
}

pub(crate) fn split(stream: TcpStream, log: Log) -> (Requests, Answers) {
    let (reader, writer) = stream.into_split();
    (Requests(BufReader::new(reader).lines()), Answers { writer: Arc::new(Mutex::new(writer)), log })
}

/// Tells the client that it has started; the sleep stands for the work.
pub(crate) async fn report(request: &Request, answers: &Answers) -> &'static str {
    answers.write(format!("{} 100: started", request.tag)).await;
    sleep(request.takes).await;
    "200: the report"
}

/// A round of what the service does of its own accord; the sleep stands for the work.
pub(crate) async fn sweep() {
    sleep(Duration::from_millis(5)).await;
}

/// The lines go to whoever watches the service, until the last clone is gone.
#[derive(Clone)]
pub(crate) struct Log(pub(crate) UnboundedSender<String>);

impl Log {
    pub(crate) fn say(&self, line: &str) {
        // Nobody has to watch.
        let _ = self.0.send(line.to_owned());
    }
}
