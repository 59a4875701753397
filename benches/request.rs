//! What a request costs: its context, the merge with the server's, a look, a wait, and letting go.

use std::hint::black_box;
use std::pin::pin;
use std::process::Command;
use std::time::{Duration, Instant};

use context_merge::{Context, merge};
use criterion::Bencher;
use harness::peer::Peer;
use harness::{Turns, poll_once};
use tokio::runtime::{Builder, Runtime};
use tokio::select;
use tokio_util::sync::CancellationToken;

const TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    Turns::run(|turns| {
        let (go, node) = (Peer::go(), Peer::node());
        merged(turns, node.as_ref());
        new_request(turns, go.as_ref());
        new_request_with_timeout(turns, go.as_ref());
        own_cancel(turns);
        first_await(turns);
        await_again(turns);
    });
}

/// Ours: a merge of two that live, checked, dropped. Peers: a child, which follows one; as many bytes as a merge has;
/// a signal that follows two.
fn merged(turns: &mut Turns, node: Option<&Peer>) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let token = CancellationToken::new();
    let bytes = bytes_of_a_merge();
    let mut measure = turns
        .measure("merge + check + drop")
        .side("ours", |b| b.iter(|| merge(black_box(&request), black_box(&shutdown)).is_done()))
        .side("child_token", |b| b.iter(|| black_box(&token).child_token().is_cancelled()))
        .side("bare allocation", |b| b.iter(|| drop(black_box(Vec::<u8>::with_capacity(black_box(bytes))))));
    if let Some(node) = node {
        measure = measure.side("AbortSignal.any", node.bench("merge", 2));
    }
    measure.run();
}

/// Ours: a new context that can be cancelled, merged, checked, both dropped. Peers: a new token and a child of the
/// shutdown, checked, both dropped; Go's the same as ours.
fn new_request(turns: &mut Turns, go: Option<&Peer>) {
    let (shutdown, _stop) = Context::background().with_cancel();
    let token = CancellationToken::new();
    let mut measure = turns
        .measure("new request context, merged + checked + dropped")
        .side("ours", |b| {
            b.iter(|| {
                let (request, hang_up) = Context::background().with_cancel();
                let ctx = merge(&request, black_box(&shutdown));
                let done = ctx.is_done();
                drop(black_box((request, hang_up, ctx)));
                done
            });
        })
        .side("new token + child token", |b| {
            b.iter(|| {
                let (request, child) = (CancellationToken::new(), black_box(&token).child_token());
                let done = child.is_cancelled();
                drop(black_box((request, child)));
                done
            });
        });
    if let Some(go) = go {
        measure = measure.side("Go", go.bench("request", 2));
    }
    measure.run();
}

/// Ours: as above, with a timeout. Peers: with a timer that is made, and never polled; Go's the same as ours.
fn new_request_with_timeout(turns: &mut Turns, go: Option<&Peer>) {
    let (shutdown, _stop) = Context::background().with_cancel();
    let token = CancellationToken::new();
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut measure = turns
        .measure("new request context with a timeout, merged + checked + dropped")
        .side("ours", |b| {
            b.iter(|| {
                let (request, hang_up) = Context::background().with_cancel();
                let request = request.with_timeout(TIMEOUT);
                let ctx = merge(&request, black_box(&shutdown));
                let done = ctx.is_done();
                drop(black_box((request, hang_up, ctx)));
                done
            });
        })
        .side("new token + child token + sleep", |b| {
            b.iter(|| {
                let (request, child) = (CancellationToken::new(), black_box(&token).child_token());
                let timer = tokio::time::sleep(TIMEOUT);
                let done = child.is_cancelled() || timer.is_elapsed();
                drop(black_box((request, child)));
                done
            });
        });
    if let Some(go) = go {
        measure = measure.side("Go", go.bench("timeout", 2));
    }
    measure.run();
}

/// Ours: a merge of two, with a cancel of its own, which is called. Peer: a token, a task that waits on it and on two
/// others, and cancels it; it is polled once before the cancel, so that it stands, and has ended after it.
fn own_cancel(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let tokens = [CancellationToken::new(), CancellationToken::new()];
    let runtime = runtime();
    turns
        .measure("merge with its own cancel, cancelled")
        .side("ours", |b| {
            on(&runtime, b, async || {
                let (ctx, cancel) = merge(black_box(&request), black_box(&shutdown)).with_cancel();
                cancel.cancel();
                black_box(ctx.is_done());
            });
        })
        .side("forwarding task", |b| {
            on(&runtime, b, async || {
                let own = CancellationToken::new();
                let [request, shutdown, forward] = [tokens[0].clone(), tokens[1].clone(), own.clone()];
                let task = tokio::spawn(async move {
                    select! {
                        () = request.cancelled() => forward.cancel(),
                        () = shutdown.cancelled() => forward.cancel(),
                        () = forward.cancelled() => {}
                    }
                });
                tokio::task::yield_now().await;
                own.cancel();
                black_box(own.is_cancelled());
                task.await.expect("the task to end");
            });
        })
        .run();
}

/// Ours: a merge of two that live, waited on once, dropped. Peer: a child, the same.
fn first_await(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let token = CancellationToken::new();
    turns
        .measure("merge + first await + drop")
        .side("ours", |b| {
            b.iter(|| {
                let ctx = merge(black_box(&request), black_box(&shutdown));
                poll_once(pin!(ctx.done())).is_ready()
            });
        })
        .side("child_token", |b| {
            b.iter(|| {
                let child = black_box(&token).child_token();
                poll_once(pin!(child.cancelled())).is_ready()
            });
        })
        .run();
}

/// Ours: a wait on a merge of two that lives, polled once, dropped. Peer: `select!` over two tokens, the same.
fn await_again(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let ctx = merge(&request, &shutdown);
    let [first, second] = [CancellationToken::new(), CancellationToken::new()];
    turns
        .measure("await again")
        .side("ours", |b| b.iter(|| poll_once(pin!(black_box(&ctx).done())).is_ready()))
        .side("select!", |b| {
            b.iter(|| {
                let either = async {
                    select! {
                        () = black_box(&first).cancelled() => {}
                        () = black_box(&second).cancelled() => {}
                    }
                };
                poll_once(pin!(either)).is_ready()
            });
        })
        .run();
}

/// The bytes that a merge of two allocates, as the program that counts them says.
fn bytes_of_a_merge() -> usize {
    let output = Command::new(env!("CARGO_BIN_EXE_memory")).output().expect("the program that counts allocations");
    let figures = String::from_utf8(output.stdout).expect("text");
    let line =
        figures.lines().find_map(|line| line.strip_prefix("merge + check + drop/ours: ")).expect("a merge's line");
    line.split(' ').next().and_then(|bytes| bytes.parse().ok()).expect("bytes")
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

/// Times `operation`, one after the other, as a task of `runtime` would call it.
fn on(runtime: &Runtime, b: &mut Bencher, operation: impl AsyncFn()) {
    b.iter_custom(|iterations| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..iterations {
                operation().await;
            }
            start.elapsed()
        })
    });
}
