//! Work under a context: `Run`, and the adapter for futures.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::FusedFuture;
use pin_project::pin_project;

use crate::context::Context;
use crate::done::Waiting;
use crate::error::Error;

/// Work and the context that can end it. The work is there until one of the two has happened.
#[pin_project]
struct Bounded<C: Borrow<Context>, W> {
    /// Until it has to wait.
    ctx: Option<C>,
    waiting: Option<Waiting<C>>,
    #[pin]
    work: Option<W>,
    /// Whether the context was looked at before the first poll of the work.
    begun: bool,
}

impl<C: Borrow<Context>, F: Future> Bounded<C, F> {
    fn new(ctx: C, work: F) -> Self {
        Self { ctx: Some(ctx), waiting: None, work: Some(work), begun: false }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<F::Output, Error>> {
        let mut this = self.project();
        let work = this.work.as_mut().as_pin_mut().expect("polled after it was ready");
        if !std::mem::replace(this.begun, true) {
            if let Some(err) = this.ctx.as_ref().and_then(|ctx| ctx.borrow().err()) {
                this.work.set(None);
                return Poll::Ready(Err(err));
            }
        }
        let result = match work.poll(cx) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => match wait(this.ctx, this.waiting).poll(cx) {
                Poll::Ready(err) => {
                    #[cfg(all(feature = "tower", feature = "tracing"))]
                    crate::ended::work_was_dropped(&err);
                    Err(err)
                }
                Poll::Pending => return Poll::Pending,
            },
        };
        this.work.set(None);
        if let Some(waiting) = this.waiting {
            waiting.stop();
        }
        Poll::Ready(result)
    }
}

impl<C: Borrow<Context>, W> Bounded<C, W> {
    fn ctx(&self) -> Option<&Context> {
        self.waiting.as_ref().map(Waiting::ctx).or(self.ctx.as_ref().map(C::borrow))
    }
}

/// Work that is ready at its first poll never comes here.
fn wait<'a, C: Borrow<Context>>(ctx: &mut Option<C>, waiting: &'a mut Option<Waiting<C>>) -> &'a mut Waiting<C> {
    if let Some(ctx) = ctx.take() {
        *waiting = Some(Waiting::new(ctx));
    }
    waiting.as_mut().expect("it has one or the other")
}

/// Work until the context finishes; made by [`Context::run`].
///
/// # Cancel safety
/// Dropping it drops the work, and leaves nothing behind in any source.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct Run<'a, F>(#[pin] Bounded<&'a Context, F>);

/// [`Run`] that owns its context; made by [`FutureExt::with_context`].
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct WithContext<F>(#[pin] Bounded<Context, F>);

macro_rules! run_future {
    ($name:literal, $run:ty) => {
        impl<F: Future> Future for $run {
            type Output = Result<F::Output, Error>;

            fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
                self.project().0.poll(cx)
            }
        }

        impl<F: Future> FusedFuture for $run {
            fn is_terminated(&self) -> bool {
                self.0.work.is_none()
            }
        }

        impl<F> fmt::Debug for $run {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name)
                    .field("ctx", self.0.ctx().expect("it has one or the other"))
                    .finish_non_exhaustive()
            }
        }
    };
}

run_future!("Run", Run<'_, F>);
run_future!("WithContext", WithContext<F>);

impl Context {
    /// Runs `work` until it is ready or the context finishes, whichever is first.
    ///
    /// On a context that is finished at the first poll the work is never polled. After that the work is polled
    /// first, so that a result that is ready wins over a finish at the same poll. On a finish the work is dropped
    /// before the error is returned.
    ///
    /// ```
    /// use context_merge::Context;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let ctx = Context::background().with_timeout(Duration::from_secs(1));
    /// assert_eq!(ctx.run(async { 7 }).await.unwrap(), 7);
    /// let err = ctx.run(std::future::pending::<()>()).await.unwrap_err();
    /// assert!(err.is_deadline_exceeded());
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// As that of `work`.
    ///
    /// # Panics
    /// When it has to wait for a deadline for the first time, and that outside a tokio runtime with time enabled; and when
    /// polled again after it was ready. A runtime that ends is none: see [`done`](Self::done).
    pub fn run<F: Future>(&self, work: F) -> Run<'_, F> {
        Run(Bounded::new(self, work))
    }
}

/// [`Context::run`] from the side of the future.
pub trait FutureExt: Future {
    /// This future until the context finishes: [`Context::run`] that owns the context, for `tokio::spawn`.
    ///
    /// ```
    /// use context_merge::{Context, FutureExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (ctx, canceller) = Context::background().with_cancel();
    /// let task = tokio::spawn(std::future::pending::<()>().with_context(&ctx));
    /// canceller.cancel();
    /// assert!(task.await.unwrap().unwrap_err().is_cancelled());
    /// # }
    /// ```
    fn with_context(self, ctx: impl Into<Context>) -> WithContext<Self>
    where
        Self: Sized,
    {
        WithContext(Bounded::new(ctx.into(), self))
    }
}

impl<F: Future> FutureExt for F {}
