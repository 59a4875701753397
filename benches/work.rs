//! What it costs to run work under a context, and to be called back.

use harness::{Ours, Peer, Tokens, Turns, on};
use tokio::runtime::Builder;

fn main() {
    Turns::run(|turns| {
        let (ours, tokens, go) = (Ours::default(), Tokens::default(), Peer::go());
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        turns
            .measure("run of ready work")
            .side("ours", |b| b.iter(|| ours.run_ready()))
            .side("run_until_cancelled", |b| b.iter(|| tokens.run_ready()))
            .run();
        turns
            .measure("run of pending work, polled once")
            .side("ours", |b| b.iter(|| ours.run_pending()))
            .side("run_until_cancelled", |b| b.iter(|| tokens.run_pending()))
            .run();
        turns
            .measure("on_done + stop")
            .side("ours", |b| on(&runtime, b, async || ours.on_done()))
            .side("task, aborted", |b| on(&runtime, b, async || tokens.callback().await))
            .peer("Go", go.as_ref(), "callback", 1)
            .run();
    });
}
