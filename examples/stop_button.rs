//! The browser's stop button: what a handler has started ends when the client goes away.
//!
//! A server drops the handler of a client that has gone, which stops neither a task nor a thread. The report below is
//! written on a thread, which looks at its context after each page.
//!
//! The example drives itself, with a client that hangs up by closing the connection of HTTP/1.1, and one that hangs up by
//! resetting the stream of HTTP/2:
//!
//! ```sh
//! cargo run --features axum,tower --example stop_button
//! ```

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Version};
use axum::routing::get;
use context_merge::http::reason;
use context_merge::tower::{BoxError, ContextLayer};
use context_merge::{Context, Error};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};

const PAGES: u32 = 300;
const PAGE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> ExitCode {
    let mut happened = true;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        match press_stop(version).await {
            Ok((pages, err)) => {
                println!("ok      {version:?}: stopped after {pages} of {PAGES} pages: {}", reason(&err))
            }
            Err(why) => {
                println!("FAILED  {version:?}: {why}");
                happened = false;
            }
        }
    }
    if happened { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the handler says while the report is written.
enum Said {
    Page(u32),
    Ended(Result<(), Error>),
}

/// Asks for a report and presses stop after its first page; returns how many pages were written, and what ended that.
pub(crate) async fn press_stop(version: Version) -> Result<(u32, Error), BoxError> {
    let (said, mut hear) = mpsc::unbounded_channel();
    let app =
        Router::new().route("/report", get(report)).with_state(said).layer(ContextLayer::new(Context::background()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/report", listener.local_addr()?);
    let server = tokio::spawn(axum::serve(listener, app).into_future());

    let browser = Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http();
    // Dropping the request is the button.
    tokio::select! {
        _ = hear.recv() => {}
        answer = browser.request(Request::get(url).body(Body::empty())?) => {
            return Err(format!("answered before the button was pressed: {answer:?}").into());
        }
    }

    let mut pages = 1;
    let err = loop {
        match hear.recv().await.ok_or("the server is gone")? {
            Said::Page(page) => pages = page,
            Said::Ended(result) => break result.err().ok_or("written to the end, for nobody")?,
        }
    };
    server.abort();
    Ok((pages, err))
}

async fn report(ctx: Context, State(said): State<UnboundedSender<Said>>) -> Result<&'static str, Error> {
    let writing = tokio::task::spawn_blocking(move || {
        let result = write(&ctx, &said);
        let _ = said.send(Said::Ended(result.clone()));
        result
    });
    writing.await.expect("no panic").map(|()| "the report")
}

fn write(ctx: &Context, said: &UnboundedSender<Said>) -> Result<(), Error> {
    for page in 1..=PAGES {
        ctx.check()?;
        // Stands for work that awaits nothing.
        thread::sleep(PAGE);
        let _ = said.send(Said::Page(page));
    }
    Ok(())
}
