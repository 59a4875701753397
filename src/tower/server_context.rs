//! What outlives a request: the server that it came to.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::{Context, Error, FutureExt};

/// Something that is held for as long as a piece of work goes on, and counted.
pub(super) type Token = Box<dyn Any + Send + Sync>;

/// A server: how it ends, and who counts what it has started.
#[derive(Clone)]
pub(super) struct Scope {
    pub(super) stopping: Context,
    pub(super) draining: Context,
    pub(super) tracker: Option<Arc<dyn Fn() -> Token + Send + Sync>>,
}

/// Whether `ctx`, which is that of a request or derived from it, was finished by the shutdown of its server.
pub(crate) fn is_shutdown(ctx: &Context) -> bool {
    ctx.value::<Arc<Scope>>().is_some_and(|scope| ctx.finished_by(&scope.stopping))
}

/// The server-bound context of a request: it has the request's values, and ends with the server, not with the request. For
/// work that goes on after the response: replication, an audit, a WebSocket.
///
/// [`ContextLayer`](super::ContextLayer) puts one into the extensions of each request, beside the request's own
/// [`Context`]. Handlers of axum take it as an argument, those of tonic from
/// [`RequestExt`](https://docs.rs/context-merge/latest/context_merge/tonic/trait.RequestExt.html).
///
/// ```
/// use axum::{Router, routing::post};
/// use context_merge::tower::{ContextLayer, ServerContext};
/// use context_merge::Context;
///
/// async fn write(ctx: Context, server: ServerContext) -> &'static str {
///     // Two replicas are waited for, by `ctx`; the third goes on behind the response.
///     server.spawn(async { /* write it */ });
///     if ctx.is_done() { "late" } else { "written" }
/// }
///
/// let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
/// let app: Router = Router::new().route("/", post(write)).layer(ContextLayer::new(&shutdown));
/// # drop(stop);
/// ```
#[derive(Clone)]
pub struct ServerContext {
    ctx: Context,
    scope: Arc<Scope>,
}

impl ServerContext {
    pub(super) fn new(request: &Context, scope: &Arc<Scope>) -> Self {
        Self { ctx: scope.stopping.with_values_of(request), scope: Arc::clone(scope) }
    }

    /// Done when the server stops, with the values of the request. It has no deadline.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// Done when the server drains ([`ContextLayer::draining`](super::ContextLayer::draining)), at the latest when it stops:
    /// for streams and connections without an end of their own.
    pub fn draining(&self) -> &Context {
        &self.scope.draining
    }

    /// Spawns work that goes on after the response, until it is ready or the server stops; it is dropped then. It is counted
    /// ([`ContextLayer::tracked`](super::ContextLayer::tracked)), so that the server can wait for it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<Result<F::Output, Error>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let token = self.token();
        let work = work.with_context(&self.ctx);
        tokio::spawn(async move {
            let _counted = token;
            work.await
        })
    }

    /// Is counted for as long as it is held: for work that is no task of its own.
    pub fn token(&self) -> impl Send + Sync + use<> {
        self.scope.tracker.as_ref().map(|token| token())
    }
}

impl fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContext").field("ctx", &self.ctx).finish_non_exhaustive()
    }
}
