//! What it costs to follow any number of inputs at once.

use std::hint::black_box;
use std::pin::pin;

use context_merge::{Context, any_of};
use futures_util::future::select_all;
use harness::{Peer, Turns, poll_once};
use tokio_util::sync::CancellationToken;

const SIZES: [usize; 7] = [1, 2, 4, 8, 16, 1_000, 10_000];

fn main() {
    Turns::run(|turns| {
        let node = Peer::node();
        let inputs: Vec<_> = (0..10_000).map(|_| Context::background().with_cancel()).collect();
        let tokens: Vec<_> = (0..10_000).map(|_| CancellationToken::new()).collect();
        // Clones are what a collection of tokens to follow is made of today.
        let mut make = turns.measure("any_of: make");
        for size in SIZES {
            let (inputs, tokens) = (&inputs[..size], &tokens[..size]);
            make = make
                .sized("ours", size, move |b| b.iter(|| any_of(black_box(inputs).iter().map(|(ctx, _)| ctx))))
                .sized("cloned tokens", size, move |b| b.iter(|| black_box(tokens).to_vec()))
                .peer("AbortSignal.any", node.as_ref(), "make", size);
        }
        make.run();
        let sets = SIZES.map(|size| any_of(inputs[..size].iter().map(|(ctx, _)| ctx)));
        let mut check = turns.measure("any_of: check");
        for (ctx, size) in sets.iter().zip(SIZES) {
            let tokens = &tokens[..size];
            check = check
                .sized("ours", size, move |b| b.iter(|| black_box(ctx).is_done()))
                .sized("is_cancelled of each", size, move |b| {
                    b.iter(|| black_box(tokens).iter().any(CancellationToken::is_cancelled));
                })
                .peer("AbortSignal.any", node.as_ref(), "check", size);
        }
        check.run();
        // A wait on what lives, polled once, dropped.
        let mut wait = turns.measure("any_of: await");
        for (ctx, size) in sets.iter().zip(SIZES) {
            let tokens = &tokens[..size];
            wait = wait.sized("ours", size, move |b| b.iter(|| poll_once(pin!(black_box(ctx).done())))).sized(
                "select_all",
                size,
                move |b| {
                    b.iter(|| {
                        let all = select_all(black_box(tokens).iter().map(|token| Box::pin(token.cancelled())));
                        poll_once(pin!(all)).is_ready()
                    });
                },
            );
        }
        wait.run();
    });
}
