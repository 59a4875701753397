//! tokio-util's side of each comparison: what is written today with its `CancellationToken`.

use std::future::{pending, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::Poll;

use tokio::select;
use tokio_util::sync::CancellationToken;

use crate::{TIMEOUT, poll_once};

/// What there is before an operation begins.
#[derive(Default)]
pub struct Tokens {
    request: CancellationToken,
    shutdown: CancellationToken,
}

impl Tokens {
    /// A child of one token, a look at it, and its drop.
    #[inline]
    pub fn child(&self) -> bool {
        let child = black_box(&self.shutdown).child_token();
        black_box(&child).is_cancelled()
    }

    /// A new token, and a child of the server's; a look at the child; both dropped.
    #[inline]
    pub fn new_request(&self) -> bool {
        let (request, child) = (CancellationToken::new(), black_box(&self.shutdown).child_token());
        black_box(&request);
        black_box(&child).is_cancelled()
    }

    /// The same, with a timer that is made and looked at, but not waited on. Needs a runtime.
    #[inline]
    pub fn new_request_with_timeout(&self) -> bool {
        let (request, child) = (CancellationToken::new(), black_box(&self.shutdown).child_token());
        black_box(&request);
        let timer = tokio::time::sleep(black_box(TIMEOUT));
        black_box(&child).is_cancelled() || black_box(&timer).is_elapsed()
    }

    /// A child of one token, looked at, ended by its guard.
    #[inline]
    pub fn child_ended(&self) -> bool {
        let child = black_box(&self.shutdown).child_token();
        let done = black_box(&child).is_cancelled();
        drop(child.drop_guard());
        done
    }

    /// A new token, and a child of the server's with a timer; a look; the child ended by its guard. Needs a runtime.
    #[inline]
    pub fn new_request_with_timeout_ended(&self) -> bool {
        let (request, child) = (CancellationToken::new(), black_box(&self.shutdown).child_token());
        black_box(&request);
        let timer = tokio::time::sleep(black_box(TIMEOUT));
        let done = black_box(&child).is_cancelled() || black_box(&timer).is_elapsed();
        drop(child.drop_guard());
        done
    }

    /// A new token, and a child of the server's, waited on once; both dropped.
    #[inline]
    pub fn new_request_awaited(&self) -> Poll<()> {
        let (request, child) = (CancellationToken::new(), black_box(&self.shutdown).child_token());
        black_box(&request);
        poll_once(pin!(child.cancelled()))
    }

    /// A token with a task that waits on it and on two others, and cancels it with those. The task is polled once, so that
    /// it stands; then the token is cancelled, and the task has ended. Needs a runtime.
    #[inline]
    pub async fn own_cancel(&self) -> bool {
        let own = CancellationToken::new();
        let [request, shutdown, forward] = [self.request.clone(), self.shutdown.clone(), own.clone()];
        let task = tokio::spawn(async move {
            select! {
                () = request.cancelled() => forward.cancel(),
                () = shutdown.cancelled() => forward.cancel(),
                () = forward.cancelled() => {}
            }
        });
        tokio::task::yield_now().await;
        own.cancel();
        let done = black_box(&own).is_cancelled();
        task.await.expect("the task to end");
        done
    }

    /// A child of one token, waited on once, dropped.
    #[inline]
    pub fn first_await(&self) -> Poll<()> {
        let child = black_box(&self.shutdown).child_token();
        poll_once(pin!(child.cancelled()))
    }

    /// A wait on two tokens, polled once, dropped.
    #[inline]
    pub fn await_again(&self) -> Poll<()> {
        let either = async {
            select! {
                () = black_box(&self.request).cancelled() => {}
                () = black_box(&self.shutdown).cancelled() => {}
            }
        };
        poll_once(pin!(either))
    }

    /// A look at one token.
    #[inline]
    pub fn check(&self) -> bool {
        black_box(&self.shutdown).is_cancelled()
    }

    /// Work that is ready, run under one token.
    #[inline]
    pub fn run_ready(&self) -> Poll<Option<u32>> {
        poll_once(pin!(black_box(&self.shutdown).run_until_cancelled(ready(black_box(7)))))
    }

    /// Work that is not, polled once, dropped.
    #[inline]
    pub fn run_pending(&self) -> Poll<Option<u32>> {
        poll_once(pin!(black_box(&self.shutdown).run_until_cancelled(pending())))
    }

    /// A task that waits and then would call back, polled once, so that it stands; aborted, and ended. Needs a runtime.
    #[inline]
    pub async fn callback(&self) -> bool {
        let token = self.shutdown.clone();
        let task = tokio::spawn(async move { token.cancelled().await });
        tokio::task::yield_now().await;
        task.abort();
        task.await.is_err()
    }
}
