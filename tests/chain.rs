//! The example `chain`, which checks itself: three processes over real sockets.
#![cfg(all(feature = "axum", feature = "tonic"))]

use std::process::Command;

#[test]
fn the_example_shows_what_it_has_to() {
    // It is not built where `cargo test` is told to run this test alone.
    let run = ["run", "--quiet", "--all-features", "--example", "chain"];
    let output = Command::new(env!("CARGO")).args(run).output().unwrap();
    let (shown, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{log}");
    for case in [
        "a deadline shrinks at each hop: of 1.5s, ",
        "a client that goes away stops the loop: two hops away, after ",
        "the client's deadline ends all three: 504 after ",
        "a deadline at the backend reaches the edge: 504, context deadline exceeded (request)",
        "a shutdown of the middle reaches the edge: 503, context cancelled (shutdown): SIGTERM",
        "all three end by themselves: in ",
    ] {
        assert!(shown.lines().any(|line| line.starts_with(&format!("ok  {case}"))), "{case}\n{shown}{log}");
    }
}
