//! What each operation allocates: prints `measure/side/size: bytes allocations`.
//!
//! A program of its own, since counting takes time.

use std::alloc::System;
use std::hint::black_box;

use context_merge::{Context, any_of, merge};
use harness::{Ours, Tokens, poll_once};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// So many that what grows by doubling counts for little.
const CROWD: usize = 100_000;

fn main() {
    let (ours, tokens) = (Ours::default(), Tokens::default());
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();

    allocates("merge + check + drop", "ours", 1, || ours.merge());
    allocates("merge + check + drop", "child_token", 1, || tokens.child());
    allocates("new context", "ours", 1, || Context::background().with_cancel());
    allocates("new context", "new token", 1, CancellationToken::new);
    let request = "new request + merge + check + drop";
    allocates(request, "ours", 1, || ours.new_request());
    allocates(request, "new token + child token", 1, || tokens.new_request());
    let timeout = "new request with timeout + merge + check + drop";
    allocates(timeout, "ours", 1, || ours.new_request_with_timeout());
    allocates(timeout, "new token + child token + sleep", 1, || tokens.new_request_with_timeout());
    let own_cancel = "merge with its own cancel, cancelled";
    allocates(own_cancel, "ours", 1, || ours.own_cancel());
    allocates(own_cancel, "forwarding task", 1, || runtime.block_on(tokens.own_cancel()));
    allocates("merge + first await + drop", "ours", 1, || ours.first_await());
    allocates("merge + first await + drop", "child_token", 1, || tokens.first_await());
    let awaited = "new request + merge + first await + drop";
    allocates(awaited, "ours", 1, || ours.new_request_awaited());
    allocates(awaited, "new token + child token", 1, || tokens.new_request_awaited());
    allocates("await again", "ours", 1, || ours.await_again());
    allocates("await again", "select!", 1, || tokens.await_again());
    allocates("check, live merge of two", "ours", 1, || ours.check());
    allocates("check, live merge of two", "is_cancelled", 1, || tokens.check());
    allocates("check with a deadline", "ours", 1, || ours.check_deadline());
    allocates("run of ready work", "ours", 1, || ours.run_ready());
    allocates("run of ready work", "run_until_cancelled", 1, || tokens.run_ready());
    allocates("run of pending work, polled once", "ours", 1, || ours.run_pending());
    allocates("run of pending work, polled once", "run_until_cancelled", 1, || tokens.run_pending());
    allocates("on_done + stop", "ours", 1, || ours.on_done());
    allocates("on_done + stop", "task, aborted", 1, || runtime.block_on(tokens.callback()));

    let inputs: Vec<_> = (0..10_000).map(|_| Context::background().with_cancel()).collect();
    for size in [1, 2, 4, 8, 16, 1_000, 10_000] {
        allocates("any_of: make", "ours", size, || any_of(inputs[..size].iter().map(|(ctx, _)| ctx)));
    }
    parked();
    chain();
}

/// What `operation` allocates when it is done again.
fn allocates<T>(measure: &str, side: &str, size: usize, operation: impl Fn() -> T) {
    drop(black_box(operation()));
    let region = Region::new(ALLOCATOR);
    drop(black_box(operation()));
    let change = region.change();
    println!("{measure}/{side}/{size}: {} {}", change.bytes_allocated, change.allocations + change.reallocations);
}

/// What each of a crowd keeps: on the heap, its handles, and its future in a box.
fn keeps<T>(measure: &str, side: &str, each: impl FnMut(usize) -> T) {
    let region = Region::new(ALLOCATOR);
    let mut crowd = Vec::with_capacity(CROWD);
    crowd.extend((0..CROWD).map(each));
    let change = region.change();
    let bytes = change.bytes_allocated - change.bytes_deallocated;
    let allocations = change.allocations - change.deallocations;
    println!("{measure}/{side}/1: {} {}", bytes / CROWD, allocations / CROWD);
    drop(black_box(crowd));
}

/// A request's context, its merge and one that waits on it; a token, a child of the server's and one that waits on that.
fn parked() {
    let measure = "request context, its merge and a parked waiter, kept";
    let (shutdown, _stop) = Context::background().with_cancel();
    keeps(measure, "ours", |_| {
        let (request, hang_up) = Context::background().with_cancel();
        let mut done = Box::pin(merge(&request, &shutdown).done_owned());
        assert!(poll_once(done.as_mut()).is_pending());
        (request, hang_up, done)
    });
    let shutdown = CancellationToken::new();
    keeps(measure, "token + child token", |_| {
        let request = CancellationToken::new();
        let mut cancelled = Box::pin(shutdown.child_token().cancelled_owned());
        assert!(poll_once(cancelled.as_mut()).is_pending());
        (request, cancelled)
    });
}

/// One level of a chain in which each can be cancelled.
fn chain() {
    let measure = "level of a chain, kept";
    let (mut last, _stop) = Context::background().with_cancel();
    keeps(measure, "ours", |_| {
        let (ctx, cancel) = last.with_cancel();
        last = ctx.clone();
        (ctx, cancel)
    });
    let mut last = CancellationToken::new();
    keeps(measure, "child token", |_| {
        last = last.child_token();
        last.clone()
    });
}
