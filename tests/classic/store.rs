#[path = "../../examples/store.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{self, Poll};

use context_merge::{Canceller, Context, Error};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep};

use crate::{HOUR, SECOND};
use example::{Store, handle};

/// A store of three pieces, one a second, that records how many it got together.
#[derive(Default)]
struct SpyStore {
    pieces: Cell<usize>,
}

impl Store for SpyStore {
    async fn piece(&self, n: usize) -> Option<&'static str> {
        let piece = ["a", "b", "c"].get(n)?;
        sleep(SECOND).await;
        self.pieces.set(n + 1);
        Some(piece)
    }
}

/// Records each write.
#[derive(Default)]
struct SpyResponse {
    writes: Vec<Vec<u8>>,
}

impl AsyncWrite for SpyResponse {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut task::Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.push(data.to_vec());
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn all_is_written_while_the_request_stays() {
    let (store, mut response) = (SpyStore::default(), SpyResponse::default());
    let request = Context::background().with_timeout(HOUR);
    handle(&request, &store, &mut response).await.unwrap();
    assert_eq!(store.pieces.get(), 3);
    assert_eq!(response.writes.concat(), b"abc");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_once_the_request_is_gone() {
    let (start, store, mut response) = (Instant::now(), SpyStore::default(), SpyResponse::default());
    let (request, hang_up) = Context::background().with_cancel();
    let client = async {
        sleep(SECOND * 3 / 2).await;
        hang_up.cancel()
    };
    let (handled, _) = tokio::join!(handle(&request, &store, &mut response), client);
    assert!(handled.is_err());
    assert_eq!(start.elapsed(), SECOND * 3 / 2, "at once");
    sleep(HOUR).await;
    assert_eq!(store.pieces.get(), 1, "and nothing goes on behind it");
    assert!(response.writes.is_empty());
}

/// A store whose answer is ready when its request has just gone.
struct Late(Canceller);

impl Store for Late {
    async fn piece(&self, _: usize) -> Option<&'static str> {
        None
    }

    async fn fetch(&self, _: &Context) -> Result<String, Error> {
        self.0.cancel();
        Ok("abc".to_owned())
    }
}

#[tokio::test]
async fn a_late_answer_is_not_written() {
    let (request, hang_up) = Context::background().with_cancel();
    let mut response = SpyResponse::default();
    let err = handle(&request, &Late(hang_up), &mut response).await.unwrap_err();
    assert_eq!(err.to_string(), "context cancelled");
    assert!(response.writes.is_empty());
}
