//! `Finished`: the finish as servers want it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::FusedFuture;

use crate::context::Context;
use crate::done::DoneOwned;

/// [`DoneOwned`] without the error; made by [`Context::finished`].
#[must_use = "futures do nothing unless polled"]
pub struct Finished(DoneOwned);

impl Context {
    /// [`done_owned`](Self::done_owned) without the error, for servers that take a `Future<Output = ()> + 'static` to
    /// shut down by: `with_graceful_shutdown` of axum, `serve_with_shutdown` of tonic.
    ///
    /// ```no_run
    /// # async fn serve(listener: tokio::net::TcpListener, draining: context_merge::Context) -> std::io::Result<()> {
    /// axum::serve(listener, axum::Router::new()).with_graceful_shutdown(draining.finished()).await
    /// # }
    /// ```
    ///
    /// # Panics
    /// As [`done`](Self::done).
    pub fn finished(&self) -> Finished {
        Finished(self.done_owned())
    }
}

impl Future for Finished {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl FusedFuture for Finished {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Finished").field(&self.0).finish()
    }
}
