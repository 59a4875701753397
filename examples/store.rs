//! A handler that asks a slow store, and writes the answer only while somebody wants it.
//!
//! The idea is that of the chapter on context in Chris James's "Learn Go with tests"
//! (<https://quii.gitbook.io/learn-go-with-tests/go-fundamentals/context>).

use std::io;
use std::time::Duration;

use context_merge::{Context, Error};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

const SLOW: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (request, hang_up) = Context::background().with_cancel();
    let mut response = Vec::new();
    handle(&request, &Words, &mut response).await?;
    println!("the client stays: {:?}", String::from_utf8_lossy(&response));

    response.clear();
    let client = async {
        sleep(SLOW * 5 / 2).await;
        hang_up.cancel_with("the client has gone")
    };
    let (handled, _) = tokio::join!(handle(&request, &Words, &mut response), client);
    let handled = handled.map_err(|err| err.to_string());
    println!("the client goes: {:?}, {handled:?}", String::from_utf8_lossy(&response));
    Ok(())
}

pub(crate) trait Store {
    /// A part of the answer, which may take its time; none after the last.
    async fn piece(&self, n: usize) -> Option<&'static str>;

    /// The whole answer, unless the context finishes before it is complete.
    async fn fetch(&self, ctx: &Context) -> Result<String, Error> {
        let mut answer = String::new();
        for n in 0.. {
            let Some(piece) = ctx.run(self.piece(n)).await? else { break };
            answer.push_str(piece);
        }
        Ok(answer)
    }
}

/// Answers the request. Once it is gone nothing is written, not even what a store fetched regardless.
pub(crate) async fn handle(
    request: &Context,
    store: &impl Store,
    response: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let answer = store.fetch(request).await?;
    request.run(response.write_all(answer.as_bytes())).await?
}

struct Words;

impl Store for Words {
    async fn piece(&self, n: usize) -> Option<&'static str> {
        let piece = ["to ", "be ", "or ", "not ", "to ", "be"].get(n)?;
        sleep(SLOW).await;
        Some(piece)
    }
}
