//! The example `moving`, which checks itself: one service in four steps, and the same clients.
#![cfg(feature = "tokio-util")]

use std::env::{consts::EXE_SUFFIX, current_exe};
use std::process::Command;

#[test]
fn every_step_is_the_same_service() {
    // Built with the tests by `cargo test`, but not where that is told to run this test alone.
    let tests = current_exe().unwrap();
    let moving = tests.parent().unwrap().with_file_name("examples").join(format!("moving{EXE_SUFFIX}"));
    let output = Command::new(&moving).output().unwrap_or_else(|err| panic!("{}: {err}", moving.display()));
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
