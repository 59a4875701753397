//! The example driving itself: three processes, a client, and what the three have to log.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use context_merge::Context;
use context_merge::http::reason;
use tokio::time::Instant;

use crate::BoxError;
use crate::client::{Call, ask};
use crate::process::{Log, Process};

const ALL_CASES: Duration = Duration::from_secs(20);
/// How long a loop may go on for a client that is gone; it takes a step each millisecond, and the rest is for machines that
/// have other things to do.
const PROMPT: Duration = Duration::from_secs(1);

type Verdict = Result<String, BoxError>;

struct Chain {
    gateway: Process,
    middle: Process,
    backend: Process,
}

/// Whatever fails, no process is left: they are killed when dropped.
pub(crate) async fn run() -> Result<(), BoxError> {
    let most = format!("all cases take {ALL_CASES:?} at most");
    let demo = Context::background().named("demo").with_timeout_cause(ALL_CASES, most);
    let mut chain = demo.run(Chain::start()).await??;
    verdict(&demo, "a deadline shrinks at each hop", shrinks(&mut chain)).await?;
    verdict(&demo, "a client that goes away stops the loop", goes_away(&mut chain)).await?;
    verdict(&demo, "the client's deadline ends all three", passes_at_the_edge(&mut chain)).await?;
    verdict(&demo, "a deadline at the backend reaches the edge", passes_at_the_backend(&mut chain)).await?;
    verdict(&demo, "a shutdown of the middle reaches the edge", shuts_down(&mut chain)).await?;
    verdict(&demo, "all three end by themselves", chain.end()).await
}

async fn verdict(demo: &Context, case: &str, how: impl Future<Output = Verdict>) -> Result<(), BoxError> {
    let how = demo.run(how).await.unwrap_or_else(|err| Err(reason(&err).into()));
    let how = how.map_err(|why| format!("{case}: {why}"))?;
    println!("ok  {case}: {how}");
    Ok(())
}

async fn shrinks(chain: &mut Chain) -> Verdict {
    let timeout = Duration::from_millis(1500);
    let (status, body) = ask(chain.gateway.address, 3, Some(timeout)).await?.answer().await?;
    expect(status == 200 && body == "3 steps", (status, body))?;
    chain.backend.log.line("LOOPING").await?;
    let [edge, middle, backend] =
        [left(&mut chain.gateway.log).await?, left(&mut chain.middle.log).await?, left(&mut chain.backend.log).await?];
    let shrinks = timeout > edge && edge > middle && middle > backend && !backend.is_zero();
    expect(shrinks, [edge, middle, backend])?;
    for log in chain.logs() {
        finished(log, "request", "the exchange is complete").await?;
    }
    Ok(format!("of {timeout:?}, {edge:?} at the gateway, {middle:?} at the middle, {backend:?} at the backend"))
}

async fn goes_away(chain: &mut Chain) -> Verdict {
    let call = chain.ask_for_ever(None).await?;
    let gone = Instant::now();
    drop(call);
    let after = chain.backend.log.line("STOPPED").await?.at - gone;
    for log in chain.logs() {
        finished(log, "request", "gone before the response").await?;
    }
    expect(after < PROMPT, after)?;
    Ok(format!("two hops away, after {after:?}"))
}

async fn passes_at_the_edge(chain: &mut Chain) -> Verdict {
    let timeout = Duration::from_millis(500);
    let asked = Instant::now();
    let (status, body) = chain.ask_for_ever(Some(timeout)).await?.answer().await?;
    let answered = asked.elapsed();
    expect(status == 504 && body == "context deadline exceeded", (status, body))?;
    expect(answered >= timeout, answered)?;
    let after = chain.backend.log.line("STOPPED").await?.at - asked;
    finished(&mut chain.gateway.log, "caller", "DeadlineExceeded").await?;
    // By its own deadline, or because the hop before it was faster.
    for log in [&mut chain.middle.log, &mut chain.backend.log] {
        finished(log, "", "").await?;
    }
    Ok(format!("504 after {answered:?}, and no loop after {after:?}"))
}

async fn passes_at_the_backend(chain: &mut Chain) -> Verdict {
    let (status, body) = chain.ask_for_ever(None).await?.answer().await?;
    expect(status == 504 && body == "context deadline exceeded", (status, &body))?;
    chain.backend.log.line("STOPPED").await?;
    finished(&mut chain.backend.log, "limit", "DeadlineExceeded").await?;
    for log in [&mut chain.middle.log, &mut chain.gateway.log] {
        finished(log, "request", "the exchange is complete").await?;
    }
    Ok(format!("{status}, {body}"))
}

async fn shuts_down(chain: &mut Chain) -> Verdict {
    let call = chain.ask_for_ever(None).await?;
    chain.middle.terminate().await?;
    let (status, body) = call.answer().await?;
    expect(status == 503 && body == "context cancelled", (status, &body))?;
    finished(&mut chain.middle.log, "shutdown", "SIGTERM").await?;
    chain.backend.log.line("STOPPED").await?;
    finished(&mut chain.backend.log, "request", "gone before the response").await?;
    finished(&mut chain.gateway.log, "request", "the exchange is complete").await?;
    Ok(format!("{status}, {body}"))
}

/// How much was left on arrival.
async fn left(log: &mut Log) -> Result<Duration, BoxError> {
    let text = log.line("ARRIVED").await?.text;
    let (_, left) = text.rsplit_once("left_us=").ok_or_else(|| format!("no left_us in {text:?}"))?;
    Ok(Duration::from_micros(left.parse()?))
}

/// A request's context has finished, by `origin`, and the line says so and why.
async fn finished(log: &mut Log, origin: &str, why: &str) -> Result<(), BoxError> {
    let text = log.line("context finished").await?.text;
    Ok(expect(text.contains(&format!("origin=\"{origin}")) && text.contains(why), text)?)
}

fn expect(held: bool, what: impl Debug) -> Result<(), String> {
    if held { Ok(()) } else { Err(format!("not as it should be: {what:?}")) }
}

impl Chain {
    async fn start() -> Result<Chain, BoxError> {
        let backend = Process::start("backend", None).await?;
        let middle = Process::start("middle", Some(&backend)).await?;
        let gateway = Process::start("gateway", Some(&middle)).await?;
        Ok(Chain { gateway, middle, backend })
    }

    /// Asks for a loop without an end, which goes on when this returns.
    async fn ask_for_ever(&mut self, timeout: Option<Duration>) -> Result<Call, BoxError> {
        let call = ask(self.gateway.address, u32::MAX, timeout).await?;
        self.backend.log.line("LOOPING").await?;
        Ok(call)
    }

    fn logs(&mut self) -> [&mut Log; 3] {
        [&mut self.gateway.log, &mut self.middle.log, &mut self.backend.log]
    }

    async fn end(self) -> Verdict {
        let ended = Instant::now();
        for process in [self.middle, self.gateway, self.backend] {
            process.end().await?;
        }
        Ok(format!("in {:?}", ended.elapsed()))
    }
}
