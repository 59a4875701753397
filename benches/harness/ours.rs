//! Our side of each comparison, over a request's context and a server's that both live.

use std::future::{pending, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::Poll;

use context_merge::{Canceller, Context, Error, merge};

use crate::{TIMEOUT, poll_once};

/// What there is before an operation begins.
#[derive(Clone)]
pub struct Ours {
    request: Context,
    shutdown: Context,
    /// Of the two.
    merged: Context,
    /// Of the two, where the request has a deadline.
    limited: Context,
    relayed: Context,
    /// Nothing can be waiting for a source that nobody can cancel.
    _cancellers: [Canceller; 2],
}

impl Default for Ours {
    fn default() -> Self {
        let (request, hang_up) = Context::background().with_cancel();
        let (shutdown, stop) = Context::background().with_cancel();
        let merged = merge(&request, &shutdown);
        let limited = merge(request.with_timeout(TIMEOUT), &shutdown);
        let relayed = shutdown.relay().named("request");
        Self { request, shutdown, merged, limited, relayed, _cancellers: [hang_up, stop] }
    }
}

impl Ours {
    /// For another thread: the same with a relay of the server's context.
    pub fn relay(&self) -> Ours {
        Ours { shutdown: self.shutdown.relay(), ..self.clone() }
    }

    /// A merge of two, a look at it, and its drop.
    #[inline]
    pub fn merge(&self) -> bool {
        let ctx = merge(black_box(&self.request), black_box(&self.shutdown));
        black_box(&ctx).is_done()
    }

    /// A new context that can be cancelled, merged, looked at; all dropped.
    #[inline]
    pub fn new_request(&self) -> bool {
        let (request, _hang_up) = Context::background().with_cancel();
        let ctx = merge(black_box(&request), black_box(&self.shutdown));
        black_box(&ctx).is_done()
    }

    /// The same with a timeout.
    #[inline]
    pub fn new_request_with_timeout(&self) -> bool {
        let (request, _hang_up) = Context::background().with_cancel();
        let request = request.with_timeout(black_box(TIMEOUT));
        let ctx = merge(black_box(&request), black_box(&self.shutdown));
        black_box(&ctx).is_done()
    }

    /// A new context that can be cancelled, merged, looked at; ended by its guard, while both are still held.
    #[inline]
    pub fn new_request_ended(&self) -> bool {
        let (request, hang_up) = Context::background().with_cancel();
        self.ended(&request, hang_up)
    }

    /// The same with a timeout.
    #[inline]
    pub fn new_request_with_timeout_ended(&self) -> bool {
        let (request, hang_up) = Context::background().with_cancel();
        self.ended(&request.with_timeout(black_box(TIMEOUT)), hang_up)
    }

    #[inline]
    fn ended(&self, request: &Context, hang_up: Canceller) -> bool {
        let ctx = merge(black_box(request), black_box(&self.shutdown));
        let done = black_box(&ctx).is_done();
        drop(hang_up.drop_guard());
        done
    }

    /// A child of the server's context, looked at, ended by its guard while it is still held.
    #[inline]
    pub fn child_ended(&self) -> bool {
        let (child, canceller) = black_box(&self.shutdown).with_cancel();
        let done = black_box(&child).is_done();
        drop(canceller.drop_guard());
        done
    }

    /// What a layer makes of a relay of the server's context: a limit, a cancel, a look; the handler lets go of its context, and
    /// then the exchange ends.
    #[inline]
    pub fn exchange(&self) -> bool {
        let bound = black_box(&self.relayed).with_timeout(black_box(TIMEOUT));
        let (ctx, canceller) = bound.with_cancel();
        let guard = canceller.drop_guard();
        let done = black_box(ctx).is_done();
        guard.cancel_with("complete");
        done
    }

    /// A new context that can be cancelled, merged, waited on once; all dropped.
    #[inline]
    pub fn new_request_awaited(&self) -> Poll<Error> {
        let (request, _hang_up) = Context::background().with_cancel();
        let ctx = merge(black_box(&request), black_box(&self.shutdown));
        poll_once(pin!(ctx.done()))
    }

    /// A merge with a cancel of its own, which is called.
    #[inline]
    pub fn own_cancel(&self) -> bool {
        let (ctx, cancel) = merge(black_box(&self.request), black_box(&self.shutdown)).with_cancel();
        cancel.cancel();
        black_box(&ctx).is_done()
    }

    /// A merge of two, waited on once, dropped.
    #[inline]
    pub fn first_await(&self) -> Poll<Error> {
        let ctx = merge(black_box(&self.request), black_box(&self.shutdown));
        poll_once(pin!(ctx.done()))
    }

    /// A wait on a merge that lives, polled once, dropped.
    #[inline]
    pub fn await_again(&self) -> Poll<Error> {
        poll_once(pin!(black_box(&self.merged).done()))
    }

    /// A look at a merge that lives.
    #[inline]
    pub fn check(&self) -> bool {
        black_box(&self.merged).is_done()
    }

    /// A look at a merge that lives, and has a deadline.
    #[inline]
    pub fn check_deadline(&self) -> bool {
        black_box(&self.limited).is_done()
    }

    /// Work that is ready, run under a merge that lives.
    #[inline]
    pub fn run_ready(&self) -> Poll<Result<u32, Error>> {
        poll_once(pin!(black_box(&self.merged).run(ready(black_box(7)))))
    }

    /// Work that is not, polled once, dropped.
    #[inline]
    pub fn run_pending(&self) -> Poll<Result<u32, Error>> {
        poll_once(pin!(black_box(&self.merged).run(pending())))
    }

    /// A callback on the server's context, registered and stopped.
    #[inline]
    pub fn on_done(&self) -> bool {
        black_box(&self.shutdown).on_done(|_| {}).stop()
    }
}
