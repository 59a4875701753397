//! What a server wants of its layer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tower_layer::Layer;

use super::answer::{Answer, Map};
use super::server::ContextService;
use super::server_context::{Scope, Token};
use crate::{Context, Error};

/// Gives every request a [`Context`] in its extensions, made of
///
/// - the context that the request has already, from a layer further out, as the primary: its values, and its end,
/// - the shutdown of the server,
/// - the deadline that its headers set ([`extract`](crate::http::extract)), named `caller`, or the [limit](Self::limit), named `limit`: whichever
///   is earlier,
/// - its own cancel, named `request`, when the exchange [ends](super::Ended), however it does: nothing that was started for
///   the request runs on by accident.
///
/// What has to outlive the request takes its [`ServerContext`](super::ServerContext), which is there beside it. So does what comes after an upgrade
/// (101, as for WebSockets): the exchange is complete with the response.
///
/// A request with a timeout that cannot be read is answered with 400, or status 3 of gRPC, and does not reach the service.
///
/// Bodies pass as they are, but for one that [`enforce`](Self::enforce) ends. Each worker thread derives from a
/// [relay](Context::relay) of its own.
///
/// # When the client is seen to go
/// A server knows that a client has gone when it reads the end of the connection or of the stream. hyper, and so axum and
/// tonic, reads on beyond a request while the handler runs and while the response is sent. On HTTP/2 it always does. On
/// HTTP/1.1 it does *not*, and the context does not finish until the response is written, while
///
/// - the body of the request is not read to its end. Where the handler holds it unread, hyper comes to its end only where its
///   length was sent and all of it arrived with the head, in about 8 KiB; never where it is chunked;
/// - the body was dropped with more of it to come than hyper has at hand, one read of it, as by a handler of axum that takes
///   no body: hyper then reads no more from that connection;
/// - the body has failed, because the client went away while it sent it: that is an error in the reader's hand alone;
/// - a pipelined request, or any other bytes behind this one, has arrived;
/// - `half_close` is switched on in hyper, which is not so by default.
///
/// Ways out: read the body to its end before slow work (`Json`, `Bytes` and the like do); HTTP/2; or a
/// [`ReadAheadLayer`](super::ReadAheadLayer), which helps with the first three where the body is not too large. A deadline,
/// as by [`limit`](Self::limit), ends the rest. See hyper [#1716](https://github.com/hyperium/hyper/issues/1716),
/// [#1723](https://github.com/hyperium/hyper/pull/1723) and [#1981](https://github.com/hyperium/hyper/pull/1981).
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use context_merge::{Context, tower::ContextLayer};
/// use std::time::Duration;
///
/// let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
/// let app: Router = Router::new()
///     .route("/", get(async |Extension(ctx): Extension<Context>| format!("{:?}", ctx.remaining())))
///     .layer(ContextLayer::new(&shutdown).limit(Duration::from_secs(30)).enforce());
/// # drop(stop);
/// ```
#[derive(Clone, Debug)]
pub struct ContextLayer(Settings);

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) scope: Scope,
    pub(super) limit: Option<Arc<LimitOf>>,
    pub(super) head_limit: Option<Duration>,
    pub(super) enforce: bool,
    pub(super) values: Option<Arc<Values>>,
    pub(super) map: Option<Arc<Map>>,
}

pub(super) type LimitOf = dyn Fn(&Parts) -> Option<Duration> + Send + Sync;
pub(super) type Values = dyn Fn(&Parts, Context) -> Context + Send + Sync;

impl ContextLayer {
    /// For requests that end with `shutdown`; pass [`Context::background`] where there is none.
    pub fn new(shutdown: impl Into<Context>) -> Self {
        let stopping = shutdown.into().with_values_of(&Context::background());
        let scope = Scope { draining: stopping.clone(), stopping, tracker: None };
        Self(Settings { scope, limit: None, head_limit: None, enforce: false, values: None, map: None })
    }

    /// Gives a request so much time and no more, whatever its headers ask for: until the last of its response.
    pub fn limit(self, most: Duration) -> Self {
        self.limit_by(move |_| Some(most))
    }

    /// [`limit`](Self::limit) for each request by its head; None leaves it without, as for a route that streams.
    ///
    /// ```
    /// use context_merge::{Context, tower::ContextLayer};
    /// use std::time::Duration;
    ///
    /// let layer = ContextLayer::new(Context::background())
    ///     .limit_by(|head| (!head.uri.path().starts_with("/events")).then_some(Duration::from_secs(30)));
    /// ```
    pub fn limit_by(self, most: impl Fn(&Parts) -> Option<Duration> + Send + Sync + 'static) -> Self {
        Self(Settings { limit: Some(Arc::new(most)), ..self.0 })
    }

    /// Gives the handler so much time for the *head* of its response; a body may take as long as it likes. The handler is
    /// dropped then, also without [`enforce`](Self::enforce), and the caller told as at a deadline. The request's context,
    /// which the body may need longer, is cancelled with [`Ended::HeadLimit`](super::Ended::HeadLimit).
    pub fn head_limit(self, most: Duration) -> Self {
        Self(Settings { head_limit: Some(most), ..self.0 })
    }

    /// Ends the exchange too when the context finishes, and drops the handler: with 504 at a deadline and 503 on
    /// shutdown and other cancels; a request of gRPC with status 4 (deadline exceeded), 14 (unavailable, on shutdown) or 1
    /// (cancelled). Where the response has begun, its body ends: see [`ContextBody`](super::ContextBody). A handler that answers at that
    /// moment has its answer sent if all of it is there, and is too late with a stream.
    ///
    /// So that an answer that is whole need not be bound to the context, up to two frames of the body are read ahead, where
    /// they are there. Any other body is dropped by the finish itself, also where the client does not read. (A stream of
    /// HTTP/2 then stays open until the client gives it a window or the connection ends; end the connections, or the
    /// process, some time after the shutdown.)
    ///
    /// Without it the layer only tells, and the handler decides.
    ///
    /// # Cancel safety
    /// The handler is dropped at an await of its own, as it is when a client goes away.
    ///
    /// # Panics
    /// A request with a deadline, outside a tokio runtime with time enabled, where it has to wait.
    pub fn enforce(self) -> Self {
        Self(Settings { enforce: true, ..self.0 })
    }

    /// Changes what callers are told where a context has ended the exchange: by the layer, or by a handler whose answer is
    /// its context's error, as `?` makes it. Nothing of the error but its kind is told otherwise.
    ///
    /// ```
    /// use context_merge::{Context, tower::ContextLayer};
    /// use http::StatusCode;
    ///
    /// let layer = ContextLayer::new(Context::background()).answers(|err, answer| match err.origin() {
    ///     // Not the caller's fault, and not worth a retry.
    ///     Some("sibling") => answer.status(StatusCode::INTERNAL_SERVER_ERROR).grpc_status(13),
    ///     _ => answer.message("try again later"),
    /// });
    /// ```
    pub fn answers(self, map: impl Fn(&Error, Answer) -> Answer + Send + Sync + 'static) -> Self {
        Self(Settings { map: Some(Arc::new(map)), ..self.0 })
    }

    /// Lays values on the context of each request, taken from its head. For values alone: a source or a deadline that it adds
    /// is not enforced.
    ///
    /// ```
    /// use context_merge::{Context, tower::ContextLayer};
    ///
    /// struct RequestId(String);
    ///
    /// let layer = ContextLayer::new(Context::background()).values(|head, ctx| match head.headers.get("x-request-id") {
    ///     Some(id) => ctx.with_value(RequestId(String::from_utf8_lossy(id.as_bytes()).into_owned())),
    ///     None => ctx,
    /// });
    /// ```
    pub fn values(self, of: impl Fn(&Parts, Context) -> Context + Send + Sync + 'static) -> Self {
        Self(Settings { values: Some(Arc::new(of)), ..self.0 })
    }

    /// When the server drains, before it stops: what [`ServerContext::draining`](super::ServerContext::draining) gives. The shutdown where this is not called.
    pub fn draining(self, draining: impl Into<Context>) -> Self {
        let scope = Scope { draining: draining.into(), ..self.0.scope };
        Self(Settings { scope, ..self.0 })
    }

    /// Has what a [`ServerContext`](super::ServerContext) spawns counted: it holds what `token` gives for as long as it goes on, as a
    /// `TaskTrackerToken` of tokio-util.
    pub fn tracked<T: Send + Sync + 'static>(self, token: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let token = move || -> Token { Box::new(token()) };
        let scope = Scope { tracker: Some(Arc::new(token)), ..self.0.scope };
        Self(Settings { scope, ..self.0 })
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService::new(inner, self.0.clone())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("shutdown", &self.scope.stopping)
            .field("limit", &self.limit.is_some())
            .field("head_limit", &self.head_limit)
            .field("enforce", &self.enforce)
            .field("values", &self.values.is_some())
            .finish()
    }
}
