#[path = "../../examples/tick.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

use std::process::Stdio;
use std::time::Duration;

use context_merge::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::SECOND;
use example::tick;

#[tokio::test(start_paused = true)]
async fn stops_at_the_deadline() {
    let start = Instant::now();
    let mut ticks = Vec::new();
    let ctx = Context::background().named("deadline").with_timeout(5 * SECOND);
    let Err(err) = tick(&ctx, 2 * SECOND, |n| {
        assert!(n < 10, "without an end");
        ticks.push((n, start.elapsed()));
    })
    .await;
    assert_eq!(err.to_string(), "context deadline exceeded (deadline)");
    assert_eq!(ticks, [(1, Duration::ZERO), (2, 2 * SECOND), (3, 4 * SECOND)]);
    assert_eq!(start.elapsed(), 5 * SECOND, "between two ticks");
}

#[tokio::test(start_paused = true)]
async fn stops_where_it_is_cancelled() {
    let (ctx, canceller) = Context::background().with_cancel();
    let mut ticks = 0;
    let Err(err) = tick(&ctx, SECOND, |n| {
        assert!(n < 10, "without an end");
        ticks = n;
        if n == 3 {
            canceller.cancel();
        }
    })
    .await;
    assert!(err.is_cancelled());
    assert_eq!(ticks, 3);
}

/// The example as a process, that ticks every ten milliseconds and has done so once.
async fn ticking(timeout: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    // `cargo test --test classic` builds no examples; `cargo run` does, and becomes the example, process id and all.
    let mut child = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", "tick"])
        // As the tests were built, so that nothing is built twice.
        .args(cfg!(all(feature = "axum", feature = "tonic")).then_some("--all-features"))
        .args(["--", "10", timeout])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("tick 1"));
    (child, lines)
}

/// What it says at last.
async fn last_line((mut child, mut lines): (Child, Lines<BufReader<ChildStdout>>)) -> String {
    let mut last = String::new();
    let ended = timeout(10 * SECOND, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            last = line;
        }
        child.wait().await.unwrap()
    });
    assert!(ended.await.expect("it should have stopped").success());
    last
}

#[tokio::test]
async fn a_process_stops_at_the_deadline_and_says_so() {
    assert_eq!(last_line(ticking("500").await).await, "stopped: context deadline exceeded (deadline)");
}

#[tokio::test]
async fn a_process_stops_at_ctrl_c_and_says_so() {
    let process = ticking("60000").await;
    let kill = format!("kill -INT {}", process.0.id().unwrap());
    assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    assert_eq!(last_line(process).await, "stopped: context cancelled (Ctrl-C)");
}
