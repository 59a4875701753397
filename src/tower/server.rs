//! The server's side: a context for each request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::thread;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ContextBody;
use super::exchange::Exchange;
use super::{INVALID, answer, ended, is_grpc};
use crate::http::{InvalidTimeout, SHUTDOWN, extract};
use crate::{Context, FutureExt, WithContext, merge};

/// Gives every request a [`Context`] in its extensions, made of
///
/// - the context that the request has already, from a layer further out, as the primary: its values, and its end,
/// - the request's own: named `request`, with the deadline that its headers set ([`extract`]) and the
///   [limit](Self::limit), cancelled when the exchange [ends](super::Ended), however it does: nothing that was started for
///   the request runs on by accident,
/// - the shutdown of the server: named `shutdown` where it has no name.
///
/// What has to outlive the request takes its values along with [`without_cancel`](Context::without_cancel), and ends with
/// the server by `merge(ctx.without_cancel(), &shutdown)`. So does what comes after an upgrade (101, as for WebSockets): the
/// exchange is complete with the response.
///
/// A request with a timeout that cannot be read is answered with 400, or status 3 of gRPC, and does not reach the service.
///
/// Each worker thread merges with a [relay](Context::relay) of its own.
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
/// let (shutdown, stop) = Context::background().with_cancel();
/// let app: Router = Router::new()
///     .route("/", get(async |Extension(ctx): Extension<Context>| format!("{:?}", ctx.remaining())))
///     .layer(ContextLayer::new(&shutdown).limit(Duration::from_secs(30)).enforce());
/// # drop(stop);
/// ```
#[derive(Clone, Debug)]
pub struct ContextLayer(Settings);

#[derive(Clone)]
struct Settings {
    /// Of the shutdown, one for each worker.
    relays: Arc<[Context]>,
    name: Arc<str>,
    limit: Option<Duration>,
    enforce: bool,
    values: Option<Arc<Values>>,
}

type Values = dyn Fn(&Parts, Context) -> Context + Send + Sync;

impl ContextLayer {
    /// For requests that end with `shutdown`; pass [`Context::background`] where there is none.
    pub fn new(shutdown: impl Into<Context>) -> Self {
        let shutdown = shutdown.into().with_values_of(&Context::background()).named(SHUTDOWN);
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let relays = (0..workers).map(|_| shutdown.relay()).collect();
        Self(Settings { relays, name: "request".into(), limit: None, enforce: false, values: None })
    }

    /// Gives a request so much time and no more, whatever its headers ask for.
    pub fn limit(self, most: Duration) -> Self {
        Self(Settings { limit: Some(most), ..self.0 })
    }

    /// Ends the exchange too when the context finishes, and drops the handler: with 504 at a deadline and 503 on
    /// shutdown and other cancels; a request of gRPC with status 4 (deadline exceeded), 14 (unavailable, on shutdown) or 1
    /// (cancelled). Where the response has begun, its body ends: see [`ContextBody`]. A handler that answers at that
    /// moment has its answer sent if all of it is there, and is too late with a stream.
    ///
    /// Without it the layer only tells, and the handler decides.
    ///
    /// # Cancel safety
    /// The handler is dropped at an await of its own, as it is when a client goes away.
    pub fn enforce(self) -> Self {
        Self(Settings { enforce: true, ..self.0 })
    }

    /// Lays values on the context of each request, taken from its head.
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
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService { inner, settings: Arc::new(self.0.clone()) }
    }
}

/// A service with a context for each request; made by [`ContextLayer`].
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl Settings {
    /// The deadline of a request that has arrived now.
    fn deadline(&self, head: &Parts) -> Result<Option<Instant>, InvalidTimeout> {
        let most = self.limit.and_then(|most| Instant::now().checked_add(most));
        Ok(extract(&head.headers)?.into_iter().chain(most).min())
    }

    /// What ends the exchange from outside, the context of the request below that, and what ends the latter.
    fn contexts(&self, head: &Parts, deadline: Option<Instant>) -> (Context, Context, Exchange) {
        let relay = &self.relays[worker() % self.relays.len()];
        let bound = match deadline {
            Some(at) => relay.with_deadline(at).named(Arc::clone(&self.name)),
            None => relay.clone(),
        };
        let bound = match head.extensions.get::<Context>() {
            Some(outer) => merge(outer, bound),
            None => bound,
        };
        let (ctx, canceller) = bound.with_cancel();
        let ctx = ctx.named(Arc::clone(&self.name));
        let ctx = match &self.values {
            Some(values) => values(head, ctx),
            None => ctx,
        };
        (bound, ctx, Exchange::new(canceller))
    }
}

/// A number of this thread; those of a runtime come one after the other.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: the number alone matters.
        static WORKER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    WORKER.with(|worker| *worker)
}

impl<S, A, B> Service<Request<A>> for ContextService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    B: Body + Send + 'static,
{
    type Response = Response<ContextBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let (grpc, method) = (is_grpc(&head.headers), head.method.clone());
        let deadline = match self.settings.deadline(&head) {
            Ok(deadline) => deadline,
            Err(invalid) => return ResponseFuture { state: State::Refused(invalid), grpc, method },
        };
        let (bound, ctx, mut exchange) = self.settings.contexts(&head, deadline);
        head.extensions.insert(ctx);
        let bound = self.settings.enforce.then_some(bound);
        let work = exchange.run(|| self.inner.call(Request::from_parts(head, body)));
        let work = work.with_context(bound.clone().unwrap_or_default());
        ResponseFuture { state: State::Running { exchange: Some(exchange), work, bound }, grpc, method }
    }
}

/// The response to a request with a context.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture<F> {
    #[pin]
    state: State<F>,
    grpc: bool,
    method: Method,
}

#[allow(clippy::large_enum_variant, reason = "the large one is the rule")]
#[pin_project(project = Projected)]
enum State<F> {
    Running {
        /// Before the work, so that what is dropped with that finds the context finished.
        exchange: Option<Exchange>,
        #[pin]
        work: WithContext<F>,
        /// What ends the work, and then the body, where the layer enforces.
        bound: Option<Context>,
    },
    Refused(InvalidTimeout),
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Send + 'static,
{
    type Output = Result<Response<ContextBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (exchange, work, bound) = match this.state.project() {
            Projected::Running { exchange, work, bound } => (exchange, work, bound),
            Projected::Refused(invalid) => {
                return Poll::Ready(Ok(answer(*this.grpc, StatusCode::BAD_REQUEST, INVALID, invalid.to_string())));
            }
        };
        let running = exchange.as_mut().expect("polled after it was ready");
        let result = task::ready!(running.run(|| work.poll(cx)));
        let mut exchange = exchange.take().expect("taken once");
        Poll::Ready(match result {
            Ok(Ok(response)) => Ok(respond(response, exchange, this.method, bound.as_ref(), *this.grpc)),
            Ok(Err(err)) => {
                exchange.has_failed();
                Err(err)
            }
            Err(err) => {
                exchange.end();
                Ok(ended(*this.grpc, &err))
            }
        })
    }
}

/// A response whose body ends `exchange`, and ends with `bound`.
fn respond<B: Body + Send + 'static>(
    response: Response<B>,
    mut exchange: Exchange,
    method: &Method,
    bound: Option<&Context>,
    grpc: bool,
) -> Response<ContextBody<B>> {
    let told = response.body().size_hint().exact();
    let length = match response.headers().get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
        None => told,
    };
    exchange.responded();
    let no_body = has_no_body(method, response.status()) || response.body().is_end_stream();
    if no_body || length == Some(0) {
        // A server may drop the body unread.
        exchange.is_whole();
    }
    // A bound body would be cut short before its first byte where the context is finished: one that is there whole is the
    // handler's own answer to that, and any other one is too late.
    match bound.filter(|_| !no_body).map(|bound| (bound, bound.err())) {
        Some((_, Some(err))) if told.is_none() => {
            exchange.end();
            ended(grpc, &err)
        }
        Some((bound, None)) => response.map(|body| ContextBody::bound(body, bound, grpc).ending(exchange, length)),
        _ => response.map(|body| ContextBody::watched(body).ending(exchange, length)),
    }
}

/// Whether such a response ends with its head, whatever body it holds.
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || (method == Method::CONNECT && status.is_success())
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("shutdown", &self.relays[0])
            .field("limit", &self.limit)
            .field("enforce", &self.enforce)
            .field("values", &self.values.is_some())
            .finish()
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ResponseFuture");
        match &self.state {
            State::Running { exchange, bound, .. } => out.field("exchange", exchange).field("bound", bound),
            State::Refused(invalid) => out.field("refused", invalid),
        };
        out.finish_non_exhaustive()
    }
}
