//! The example `moving`, which checks itself: one service in four steps, and the same clients.
#![cfg(feature = "tokio-util")]

use std::process::Command;

#[test]
fn every_step_is_the_same_service() {
    // It is not built where `cargo test` is told to run this test alone.
    let run = ["run", "--quiet", "--all-features", "--example", "moving"];
    let output = Command::new(env!("CARGO")).args(run).output().unwrap();
    let (shown, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{complaint}");
    for line in [
        "ok      0 tokens",
        "ok      1 edge, ended by a token",
        "ok      1 edge",
        "ok      2 request",
        "ok      3 contexts",
        "        slow 504: context deadline exceeded (request): a report may take 50ms",
        "        left 499: context cancelled (connection): the client hung up",
        "        late 503: context cancelled (shutdown): SIGTERM",
        "        background stopped: context cancelled (shutdown): SIGTERM",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}{complaint}");
    }
}
