//! The example driving itself: the service under load, a real SIGTERM, and what has to come of it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Version;
use context_merge::Context;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::transport::Endpoint;

use crate::load::{self, Tally};
use crate::open::{self, Stalled, Verdict, expect};
use crate::process::Process;
use crate::{BoxError, GRACE, rpc};

/// The load before the signal.
const BEFORE: Duration = Duration::from_millis(800);
const MOST: Duration = Duration::from_secs(20);
/// So many clients on each of HTTP/1.1, HTTP/2 and gRPC.
const CLIENTS: usize = 8;

const VERSIONS: [(Version, &str); 2] = [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2")];

pub(crate) async fn run() -> Result<(), BoxError> {
    let most = format!("all of it takes {MOST:?} at most");
    let demo = Context::background().named("demo").with_timeout_cause(MOST, most);
    demo.run(drive()).await.map_err(|err| context_merge::http::reason(&err))?
}

async fn drive() -> Result<(), BoxError> {
    let database = std::env::var_os("DATABASE_URL").is_some();
    let process = Process::start().await?;
    let numbers = rpc::Client::new(Endpoint::from_shared(format!("http://{}", process.grpc))?.connect_lazy());

    let stalled = Stalled::connect(process.http).await?;
    let mut open: Vec<(String, JoinHandle<Verdict>)> = Vec::new();
    let mut case = |name: String, work: JoinHandle<Verdict>| open.push((name, work));
    for (version, name) in VERSIONS {
        case(format!("SSE ends cleanly, {name}"), tokio::spawn(open::events(version, process.http)));
        case(format!("what cannot end is told, {name}"), tokio::spawn(open::forever(version, process.http)));
    }
    case("a stream of gRPC ends cleanly".into(), tokio::spawn(open::numbers(numbers.clone())));
    case("what cannot end is told, gRPC".into(), tokio::spawn(open::call_forever(numbers.clone())));
    case("a WebSocket gets a close frame".into(), tokio::spawn(open::chat(process.http)));
    let tally = Arc::new(Tally::default());
    let mut load: Vec<(&str, JoinHandle<Result<(), String>>)> = Vec::new();
    for first in 0..CLIENTS {
        for (version, name) in VERSIONS {
            let (tally, address) = (tally.clone(), process.http);
            load.push((name, tokio::spawn(async move { load::http(version, address, &tally, first, database).await })));
        }
        let (tally, numbers) = (tally.clone(), numbers.clone());
        load.push(("gRPC", tokio::spawn(async move { load::grpc(numbers, &tally).await })));
    }

    sleep(BEFORE).await;
    let early = open.iter().filter(|(_, work)| work.is_finished()).count();
    tally.signalled.store(true, Ordering::Relaxed);
    let signalled = Instant::now();
    process.terminate().await?;
    let (shown, after) = process.end(signalled).await?;
    drop(stalled);

    let mut failed = Vec::new();
    verdict(&mut failed, "no request fails", requests(&tally, load)).await;
    for (name, work) in open {
        verdict(&mut failed, &name, async { work.await? }).await;
    }
    let seen = |count: &AtomicU64| count.load(Ordering::Relaxed);
    verdict(&mut failed, "the streams and calls were open at the signal", async {
        expect(early == 0, || format!("{early} had ended before")).map(|()| "all of them".into())
    })
    .await;
    verdict(&mut failed, "the job in hand is finished", jobs(&shown, seen(&tally.jobs))).await;
    verdict(&mut failed, "all replicas are written", replicas(&shown, seen(&tally.keys))).await;
    if database {
        verdict(&mut failed, "the database is whole", transfers(&shown, seen(&tally.transfers))).await;
    } else {
        println!("--  left out: the database, since DATABASE_URL is not set");
    }
    verdict(&mut failed, "readers that stall hold nothing up", async {
        let most = GRACE + Duration::from_secs(1);
        expect(after <= most, || format!("ended {after:?} after the signal, not within {most:?}"))?;
        let ended = shown.lines().find(|line| line.starts_with("ENDED")).ok_or("no line of the end")?;
        Ok(format!("{after:?} after the signal, with a grace of {GRACE:?}: {ended}"))
    })
    .await;
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}\n{shown}", failed.join("; ")).into()) }
}

async fn verdict(failed: &mut Vec<String>, name: &str, how: impl Future<Output = Verdict>) {
    match how.await {
        Ok(how) => println!("ok  {name}: {how}"),
        Err(why) => {
            println!("FAILED  {name}: {why}");
            failed.push(name.to_owned());
        }
    }
}

async fn requests(tally: &Tally, load: Vec<(&str, JoinHandle<Result<(), String>>)>) -> Verdict {
    let mut failed = Vec::new();
    for (_, client) in load {
        failed.extend(client.await?.err());
    }
    let [all, late, retried] =
        [&tally.answered, &tally.after_signal, &tally.retried].map(|n| n.load(Ordering::Relaxed));
    expect(failed.is_empty(), || format!("{} of {all} and more: {}", failed.len(), failed.join("; ")))?;
    expect(late > 0, || "none was in flight at the signal".to_owned())?;
    Ok(format!("{all} answered, {late} of them after the signal; {retried} sent again elsewhere"))
}

async fn jobs(shown: &str, accepted: u64) -> Verdict {
    let [finished, cut, left] = numbers(shown, "QUEUE", ["finished=", "cut=", "left="])?;
    let in_hand = shown.lines().filter(|line| line.starts_with("JOB ")).count();
    let whole = in_hand == 1 && cut == 0 && finished + left >= accepted;
    expect(whole, || format!("{in_hand} in hand, {finished} finished, {cut} cut off, {left} left, of {accepted}"))?;
    Ok(format!("{finished} finished, {left} left to others, of {accepted} accepted"))
}

async fn replicas(shown: &str, acknowledged: u64) -> Verdict {
    let [keys, missing] = numbers(shown, "REPLICAS", ["keys=", "missing="])?;
    expect(missing == 0 && keys >= acknowledged, || {
        format!("of {keys} keys, {acknowledged} answered, {missing} missing")
    })?;
    Ok(format!("{keys} keys in each of three, {acknowledged} of them answered"))
}

async fn transfers(shown: &str, answered: u64) -> Verdict {
    let [paid, sum] = numbers(shown, "DATABASE", ["paid=", "sum="])?;
    expect(paid >= answered && answered > 0 && sum == 0, || {
        format!("{answered} answered, {paid} paid, a sum of {sum}")
    })?;
    Ok(format!("{paid} paid, {answered} of them answered, a sum of {sum}"))
}

/// The numbers behind `names` in the line that begins with `first`.
fn numbers<const N: usize>(shown: &str, first: &str, names: [&str; N]) -> Result<[u64; N], BoxError> {
    let line = shown.lines().find(|line| line.starts_with(first)).ok_or_else(|| format!("no line {first}"))?;
    let number = |name| line.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
    let numbers: Vec<u64> = names.into_iter().filter_map(number).collect();
    numbers.try_into().map_err(|_| format!("not {names:?} in {line:?}").into())
}
