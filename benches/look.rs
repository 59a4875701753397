//! What a look costs: whether a context is done, and the value it carries.

use std::hint::black_box;
use std::time::Duration;

use context_merge::{Context, merge};
use harness::{Ours, Peer, Tokens, Turns};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

fn main() {
    Turns::run(|turns| {
        let (ours, tokens) = (Ours::default(), Tokens::default());
        turns
            .measure("check, live merge of two")
            .side("ours", |b| b.iter(|| ours.check()))
            .side("is_cancelled", |b| b.iter(|| tokens.check()))
            .run();
        turns
            .measure("check with a deadline")
            .side("ours", |b| b.iter(|| ours.check_deadline()))
            .side("reading the clock", |b| b.iter(Instant::now))
            .side("is_cancelled", |b| b.iter(|| tokens.check()))
            .run();
        finished(turns);
        deep(turns);
        values(turns);
    });
}

/// Ours: a merge of two, of which one is cancelled, as the first look has seen. Peer: a cancelled token.
fn finished(turns: &mut Turns) {
    let (request, _hang_up) = Context::background().with_cancel();
    let (shutdown, stop) = Context::background().with_cancel();
    let (ctx, token) = (merge(&request, &shutdown), CancellationToken::new());
    stop.cancel();
    token.cancel();
    assert!(ctx.is_done());
    turns
        .measure("check, finished")
        .side("ours", |b| b.iter(|| black_box(&ctx).is_done()))
        .side("is_cancelled", |b| b.iter(|| black_box(&token).is_cancelled()))
        .run();
}

/// Both: the last of a chain of ten, each with a cancel of its own.
fn deep(turns: &mut Turns) {
    let mut chain = vec![Context::background().with_cancel()];
    let mut tokens = vec![CancellationToken::new()];
    for level in 1..10 {
        chain.push(chain[level - 1].0.with_cancel());
        tokens.push(tokens[level - 1].child_token());
    }
    let (ctx, token) = (&chain[9].0, &tokens[9]);
    turns
        .measure("check, ten deep")
        .side("ours", |b| b.iter(|| black_box(ctx).is_done()))
        .side("is_cancelled", |b| b.iter(|| black_box(token).is_cancelled()))
        .run();
}

/// Both: the value that was added first, so many deep. Ours is known by its type, Go's by a key.
fn values(turns: &mut Turns) {
    let go = Peer::go();
    for depth in [1, 5, 20] {
        let ctx = (1..depth).fold(Context::background().with_value(0_u32), above);
        turns
            .measure("value lookup")
            .sized("ours", depth, |b| b.iter(|| black_box(&ctx).value::<u32>().copied()))
            .peer("Go", go.as_ref(), "value", depth)
            .run();
    }
}

/// One value more, of another type.
fn above(ctx: Context, level: usize) -> Context {
    match level % 4 {
        0 => ctx.with_value(level),
        1 => ctx.with_value("text"),
        2 => ctx.with_value('c'),
        _ => ctx.with_value(Duration::ZERO),
    }
}
