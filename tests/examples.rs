//! The examples that check themselves, as processes.
#![cfg(all(feature = "axum", feature = "tonic", feature = "tokio-util"))]

use std::process::Command;

/// What an example prints that ends well.
fn run(example: &str) -> String {
    // It is not built where `cargo test` is told to run this test alone.
    let run = ["run", "--quiet", "--all-features", "--example", example];
    let output = Command::new(env!("CARGO")).args(run).output().unwrap();
    let (shown, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{log}");
    shown.into()
}

/// Each of the cases is shown as one that went well.
fn assert_shown(shown: &str, ok: &str, cases: &[&str]) {
    for case in cases {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{ok}{case}"))), "{case}\n{shown}");
    }
}

#[test]
fn a_shutdown_loses_no_request() {
    let shown = run("shutdown");
    let cases = [
        "requests in flight end well or know why: of three, 200 while draining, 503 after the grace, and a last tick",
        "a client that stalls holds nothing up: ended after ",
        "a task finishes: after ",
        "a task meets its limit: cancelled after ",
        "shutdown lets a task finish in the grace: after ",
        "shutdown cancels five tasks at once: after a grace of 500ms, ",
        "a second signal skips the grace: of 60s, after ",
        "a bad time is refused: 8 of 8",
    ];
    assert_shown(&shown, "ok      ", &cases);
}

#[test]
fn a_service_loses_no_request_under_load() {
    let shown = run("service");
    let cases = [
        "no request fails: ",
        "SSE ends cleanly, HTTP/1.1: ",
        "SSE ends cleanly, HTTP/2: ",
        "a stream of gRPC ends cleanly: ",
        "a WebSocket gets a close frame: 1001 shutting down",
        "what cannot end is told, HTTP/1.1: 503 context cancelled",
        "what cannot end is told, HTTP/2: 503 context cancelled",
        "what cannot end is told, gRPC: Unavailable context cancelled",
        "the job in hand is finished: ",
        "all replicas are written: ",
        "readers that stall hold nothing up: ",
    ];
    assert_shown(&shown, "ok  ", &cases);
}

#[test]
fn three_processes_and_what_crosses_them() {
    let shown = run("chain");
    let cases = [
        "a deadline shrinks at each hop: of 1.5s, ",
        "a client that goes away stops the loop: two hops away, after ",
        "the client's deadline ends all three: 504 after ",
        "a deadline at the backend reaches the edge: 504, context deadline exceeded",
        "a shutdown of the middle reaches the edge: 503, context cancelled",
        "all three end by themselves: in ",
    ];
    assert_shown(&shown, "ok  ", &cases);
}

#[test]
fn every_step_of_a_move_is_the_same_service() {
    let shown = run("moving");
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
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
}
