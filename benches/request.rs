//! What a request costs: its context, the merge with the server's, a look, a wait, and letting go.

use std::hint::black_box;
use std::process::Command;

use harness::{Ours, Peer, Tokens, Turns, on};
use tokio::runtime::Builder;

fn main() {
    Turns::run(|turns| {
        let (ours, tokens, go, node) = (Ours::default(), Tokens::default(), Peer::go(), Peer::node());
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _entered = runtime.enter();
        let bytes = bytes_of_a_merge();
        turns
            .measure("merge + check + drop")
            .side("ours", |b| b.iter(|| ours.merge()))
            .side("child_token", |b| b.iter(|| tokens.child()))
            .side("bare allocation", |b| b.iter(|| drop(black_box(Vec::<u8>::with_capacity(black_box(bytes))))))
            .peer("AbortSignal.any", node.as_ref(), "merge", 1)
            .run();
        turns
            .measure("new request + merge + check + drop")
            .side("ours", |b| b.iter(|| ours.new_request()))
            .side("new token + child token", |b| b.iter(|| tokens.new_request()))
            .peer("Go", go.as_ref(), "request", 1)
            .run();
        turns
            .measure("new request with timeout + merge + check + drop")
            .side("ours", |b| b.iter(|| ours.new_request_with_timeout()))
            .side("new token + child token + sleep", |b| b.iter(|| tokens.new_request_with_timeout()))
            .peer("Go", go.as_ref(), "timeout", 1)
            .run();
        turns
            .measure("new request + merge + check, ended by its guard")
            .side("ours", |b| b.iter(|| ours.new_request_ended()))
            .side("child token with a guard", |b| b.iter(|| tokens.child_ended()))
            .run();
        turns
            .measure("new request with timeout + merge + check, ended by its guard")
            .side("ours", |b| b.iter(|| ours.new_request_with_timeout_ended()))
            .side("new token + child token with a guard + sleep", |b| {
                b.iter(|| tokens.new_request_with_timeout_ended());
            })
            .run();
        turns
            .measure("derive + check, ended by its guard")
            .side("ours", |b| b.iter(|| ours.child_ended()))
            .side("child token with a guard", |b| b.iter(|| tokens.child_ended()))
            .run();
        turns
            .measure("a layer's context, made, looked at, ended")
            .side("ours", |b| b.iter(|| ours.exchange()))
            .side("new token + child token with a guard + sleep", |b| {
                b.iter(|| tokens.new_request_with_timeout_ended());
            })
            .run();
        turns
            .measure("merge with its own cancel, cancelled")
            .side("ours", |b| on(&runtime, b, async || ours.own_cancel()))
            .side("forwarding task", |b| on(&runtime, b, async || tokens.own_cancel().await))
            .run();
        turns
            .measure("merge + first await + drop")
            .side("ours", |b| b.iter(|| ours.first_await()))
            .side("child_token", |b| b.iter(|| tokens.first_await()))
            .run();
        turns
            .measure("new request + merge + first await + drop")
            .side("ours", |b| b.iter(|| ours.new_request_awaited()))
            .side("new token + child token", |b| b.iter(|| tokens.new_request_awaited()))
            .run();
        turns
            .measure("await again")
            .side("ours", |b| b.iter(|| ours.await_again()))
            .side("select!", |b| b.iter(|| tokens.await_again()))
            .run();
    });
}

/// What a merge of two allocates, as the program that counts says.
fn bytes_of_a_merge() -> usize {
    let output = Command::new(env!("CARGO_BIN_EXE_memory")).output().expect("the program that counts");
    let lines = String::from_utf8(output.stdout).expect("text");
    let bytes = lines.lines().find_map(|line| line.strip_prefix("merge + check + drop/ours/1: ")?.split_once(' '));
    bytes.and_then(|(bytes, _)| bytes.parse().ok()).expect("the bytes of a merge")
}
