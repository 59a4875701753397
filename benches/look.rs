//! What a look costs: whether a context is done, and the value it carries.

use std::hint::black_box;
use std::time::Duration;

use context_merge::{Context, merge};
use harness::Turns;
use harness::peer::Peer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How far down the deep contexts stand.
const DEPTH: usize = 10;

fn main() {
    Turns::run(|turns| {
        live(turns);
        finished(turns);
        deadline(turns);
        deep(turns);
        values(turns, Peer::go().as_ref());
    });
}

/// Ours: a look at a merge of two that live. Peer: a look at one token.
fn live(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let ctx = merge(&request, &shutdown);
    let token = CancellationToken::new();
    turns
        .measure("check, live merge of two")
        .side("ours", |b| b.iter(|| black_box(&ctx).is_done()))
        .side("is_cancelled", |b| b.iter(|| black_box(&token).is_cancelled()))
        .run();
}

/// Ours: a look at a merge of two, of which one is cancelled, and which was seen so before. Peer: at a cancelled token.
fn finished(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, stop) = Context::background().with_cancel();
    let ctx = merge(&request, &shutdown);
    let token = CancellationToken::new();
    stop.cancel();
    token.cancel();
    assert!(ctx.is_done());
    turns
        .measure("check, finished")
        .side("ours", |b| b.iter(|| black_box(&ctx).is_done()))
        .side("is_cancelled", |b| b.iter(|| black_box(&token).is_cancelled()))
        .run();
}

/// Ours: a look at a merge of two that live, one with a deadline. Peers: reading the clock; a look at one token.
fn deadline(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_timeout(Duration::from_secs(3_600)).with_cancel();
    let (shutdown, _stop) = Context::background().with_cancel();
    let ctx = merge(&request, &shutdown);
    let token = CancellationToken::new();
    turns
        .measure("check with a deadline")
        .side("ours", |b| b.iter(|| black_box(&ctx).is_done()))
        .side("reading the clock", |b| b.iter(Instant::now))
        .side("is_cancelled", |b| b.iter(|| black_box(&token).is_cancelled()))
        .run();
}

/// Ours: a look at the last of a chain, each with a cancel of its own. Peer: at the last of a chain of child tokens.
fn deep(turns: &mut Turns) {
    let mut chain = vec![Context::background().with_cancel()];
    let mut tokens = vec![CancellationToken::new()];
    for level in 1..DEPTH {
        chain.push(chain[level - 1].0.with_cancel());
        tokens.push(tokens[level - 1].child_token());
    }
    let (ctx, token) = (&chain[DEPTH - 1].0, &tokens[DEPTH - 1]);
    turns
        .measure("check, ten deep")
        .side("ours", |b| b.iter(|| black_box(ctx).is_done()))
        .side("is_cancelled", |b| b.iter(|| black_box(token).is_cancelled()))
        .run();
}

/// Both: the value that was added first, so many deep. Ours is keyed by its type, Go's by a key.
fn values(turns: &mut Turns, go: Option<&Peer>) {
    for depth in [1, 5, 20] {
        let mut ctx = Context::background().with_value(0_u32);
        for level in 1..depth {
            ctx = over(&ctx, level);
        }
        let mut measure = turns
            .measure("value lookup")
            .sized("ours", depth, move |b| b.iter(|| black_box(&ctx).value::<u32>().copied()));
        if let Some(go) = go {
            measure = measure.sized("Go", depth, go.bench("value", depth));
        }
        measure.run();
    }
}

/// Another type in the way, of several, as in a service.
fn over(ctx: &Context, level: usize) -> Context {
    match level % 4 {
        0 => ctx.with_value(level),
        1 => ctx.with_value("text"),
        2 => ctx.with_value('c'),
        _ => ctx.with_value(Duration::ZERO),
    }
}
