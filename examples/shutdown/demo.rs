//! The example driving itself: each case is a server of its own, real requests, and a real signal to end it.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use context_merge::Context;
use context_merge::shutdown::{Shutdown, Unfinished};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::tasks::{Outcome, chain};
use crate::{client, server};

const ALL_CASES: Duration = Duration::from_secs(9);
const LONG: Duration = Duration::from_secs(60);

type Verdict = Result<String, Box<dyn StdError + Send + Sync>>;

/// Whether every case happened.
pub(crate) async fn run() -> bool {
    let most = format!("all cases take {ALL_CASES:?} at most");
    let demo = Context::background().named("demo").with_timeout_cause(ALL_CASES, most);
    let mut happened = true;
    happened &= verdict(&demo, "requests in flight end well or know why", requests_end()).await;
    happened &= verdict(&demo, "a client that stalls holds nothing up", stalls()).await;
    happened &= verdict(&demo, "a task finishes", finishes()).await;
    happened &= verdict(&demo, "a task meets its limit", meets_its_limit()).await;
    happened &= verdict(&demo, "shutdown lets a task finish in the grace", finishes_in_the_grace()).await;
    happened &= verdict(&demo, "shutdown cancels five tasks at once", five_are_cancelled()).await;
    happened &= verdict(&demo, "a second signal skips the grace", second_signal()).await;
    happened &= verdict(&demo, "a bad time is refused", bad_times()).await;
    happened
}

async fn verdict(demo: &Context, name: &str, case: impl Future<Output = Verdict>) -> bool {
    let verdict = demo.run(case).await.unwrap_or_else(|err| Err(chain(&err).into()));
    match &verdict {
        Ok(how) => println!("ok      {name}: {how}"),
        Err(why) => println!("FAILED  {name}: {why}"),
    }
    verdict.is_ok()
}

async fn requests_end() -> Verdict {
    let grace = Duration::from_millis(500);
    let trial = Trial::start(grace, LONG).await?;
    let get = |path| client::get(trial.address, path);
    let signal = async {
        sleep(Duration::from_millis(100)).await; // until all are under way
        client::signal_myself("TERM").await
    };
    let (quick, slow, ticks, signal) = tokio::join!(get("/work?time=0.3"), get("/work?time=30"), get("/ticks"), signal);
    signal?;
    let ((quick, _), (slow, why), (ticks, lines)) = (quick?, slow?, ticks?);
    expect(quick == 200, quick)?;
    let reason = "context cancelled (shutdown): the grace of 500ms is over: SIGTERM\n";
    expect((slow, why.as_str()) == (503, reason), (slow, &why))?;
    // A body in chunks that is cut off has no last one, of length 0.
    expect(
        ticks == 200 && lines.contains("tick") && lines.contains("bye") && lines.ends_with("\r\n0\r\n\r\n"),
        &lines,
    )?;
    expect(trial.ended().await?.is_empty(), "no tasks")?;
    Ok(format!("of three, 200 while draining, {slow} after the grace, and a last tick"))
}

async fn stalls() -> Verdict {
    let trial = Trial::start(Duration::from_millis(100), LONG).await?;
    let mut stalled = TcpStream::connect(trial.address).await?;
    stalled.write_all(b"GET / HTT").await?;
    sleep(Duration::from_millis(50)).await; // until the server has read it
    let signalled = Instant::now();
    client::signal_myself("TERM").await?;
    let unfinished = trial.server.await?.err();
    expect(unfinished.is_some_and(|unfinished| unfinished.left() == 1), unfinished)?;
    Ok(format!("ended after {:?}", signalled.elapsed()))
}

async fn finishes() -> Verdict {
    let mut trial = Trial::start(LONG, LONG).await?;
    trial.task(0.3).await?;
    let task = trial.outcome().await?;
    expect(task.result.is_ok() && task.after >= Duration::from_millis(300), &task)?;
    expect(task.outlived && task.id == Some(1), &task)?;
    expect(trial.end("TERM").await?.is_empty(), "nothing else ran")?;
    Ok(format!("after {:?}, its request long gone", task.after))
}

async fn meets_its_limit() -> Verdict {
    let limit = Duration::from_millis(500);
    let mut trial = Trial::start(LONG, limit).await?;
    trial.task(5.0).await?;
    let task = trial.outcome().await?;
    let err = task.result.as_ref().err();
    expect(err.is_some_and(|err| err.is_deadline_exceeded() && err.origin() == Some("task limit")), &task)?;
    expect(task.after >= limit && task.outlived, &task)?;
    expect(trial.end("TERM").await?.is_empty(), "nothing else ran")?;
    Ok(format!("cancelled after {:?}", task.after))
}

async fn finishes_in_the_grace() -> Verdict {
    let trial = Trial::start(LONG, LONG).await?;
    trial.task(1.0).await?;
    client::signal_myself("TERM").await?;
    let refused = trial.refuses().await;
    let tasks = trial.ended().await?;
    let [task] = &tasks[..] else { return Err(format!("one task, not {tasks:?}").into()) };
    expect(task.result.is_ok() && task.after >= Duration::from_secs(1), task)?;
    expect(refused < task.at, "no new connections while it was draining")?;
    Ok(format!("after {:?}, with no new connections for the last {:?}", task.after, task.at - refused))
}

async fn five_are_cancelled() -> Verdict {
    let grace = Duration::from_millis(500);
    let trial = Trial::start(grace, LONG).await?;
    for _ in 0..5 {
        trial.task(30.0).await?;
    }
    let tasks = trial.end("INT").await?;
    expect(tasks.len() == 5, &tasks)?;
    expect(tasks.iter().all(|task| is_shutdown_by(task, "the grace of 500ms is over") && task.after >= grace), &tasks)?;
    let ends = || tasks.iter().map(|task| task.at);
    let spread = ends().max().zip(ends().min()).map_or(Duration::ZERO, |(last, first)| last - first);
    // One store cancels all; the rest is how long a busy machine takes to run five tasks.
    expect(spread < Duration::from_millis(500), &tasks)?;
    Ok(format!("after a grace of {grace:?}, within {spread:?} of each other"))
}

async fn second_signal() -> Verdict {
    let trial = Trial::start(LONG, LONG).await?;
    trial.task(30.0).await?;
    let signalled = Instant::now();
    client::signal_myself("TERM").await?;
    let tasks = trial.end("INT").await?;
    expect(tasks.len() == 1 && is_shutdown_by(&tasks[0], "SIGINT"), &tasks)?;
    Ok(format!("of {LONG:?}, after {:?}", signalled.elapsed()))
}

async fn bad_times() -> Verdict {
    let trial = Trial::start(LONG, LONG).await?;
    let bad = ["", "?time=", "?time=-1", "?time=NaN", "?time=-inf", "?time=1e300", "?time=soon", "?time=1&time=2"];
    for query in bad {
        let (status, why) = client::get(trial.address, &format!("/{query}")).await?;
        expect(status == 400 && why.ends_with(".\n"), format!("{query}: {status} {why}"))?;
    }
    expect(trial.end("TERM").await?.is_empty(), "no task came of it")?;
    Ok(format!("{} of {}", bad.len(), bad.len()))
}

/// Whether the application's end took it, and what ended that.
fn is_shutdown_by(task: &Outcome, why: &str) -> bool {
    let Err(err) = &task.result else { return false };
    err.origin() == Some("shutdown") && err.cause().is_some_and(|cause| cause.to_string() == why)
}

fn expect(held: bool, what: impl std::fmt::Debug) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("not as it should be: {what:?}")) }
}

/// A server on a port of its own.
struct Trial {
    address: SocketAddr,
    server: JoinHandle<Result<(), Unfinished>>,
    outcomes: UnboundedReceiver<Outcome>,
}

impl Trial {
    async fn start(grace: Duration, task_limit: Duration) -> io::Result<Trial> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        // Before the server is spawned, so that no signal of ours can find the default still in place.
        let shutdown = Shutdown::new(grace).on_signals()?;
        let (sender, outcomes) = mpsc::unbounded_channel();
        let server = tokio::spawn(server::run(listener, shutdown, task_limit, sender));
        Ok(Trial { address, server, outcomes })
    }

    async fn task(&self, seconds: f64) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let (status, body) = client::get(self.address, &format!("/?time={seconds}")).await?;
        Ok(expect(status == 202, format!("{status} {body}"))?)
    }

    async fn outcome(&mut self) -> Result<Outcome, &'static str> {
        self.outcomes.recv().await.ok_or("the server is gone")
    }

    /// When it was that a connection was refused for the first time.
    async fn refuses(&self) -> Instant {
        while TcpStream::connect(self.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        Instant::now()
    }

    async fn end(self, signal: &str) -> io::Result<Vec<Outcome>> {
        client::signal_myself(signal).await?;
        self.ended().await
    }

    /// The outcomes left when the server has ended: one that is missing then was not waited for.
    async fn ended(mut self) -> io::Result<Vec<Outcome>> {
        self.server.await?.map_err(io::Error::other)?;
        Ok(std::iter::from_fn(|| self.outcomes.try_recv().ok()).collect())
    }
}
