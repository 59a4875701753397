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
use crate::http::{InvalidTimeout, extract};
use crate::{Context, FutureExt, WithContext, merge};

/// Gives every request a [`Context`] in its extensions, made of
///
/// - the context that the request has already, from a layer further out, as the primary: its values, and its end,
/// - the request's own: named `request`, with the deadline that its headers set ([`extract`]) and the
///   [limit](Self::limit), cancelled when the exchange [ends](super::Ended), however it does: nothing that was started for
///   the request runs on by accident,
/// - the shutdown of the server, made as `Context::background().named("shutdown").with_cancel()`: by
///   [its name](crate::http::SHUTDOWN) callers of gRPC are told that the server is unavailable.
///
/// What has to outlive the request takes its values along with [`without_cancel`](Context::without_cancel), and ends with
/// the server by `merge(ctx.without_cancel(), &shutdown)`. So does what comes after an upgrade (101, as for WebSockets): the
/// exchange is complete with the response.
///
/// A request with a timeout that cannot be read is answered with 400, or status 3 of gRPC, and does not reach the service.
///
/// Each worker thread merges with a [relay](Context::relay) of its own.
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
struct Settings {
    /// Of the shutdown, one for each worker, under the name of its requests.
    relays: Arc<[Context]>,
    limit: Option<Duration>,
    enforce: bool,
    values: Option<Arc<Values>>,
}

type Values = dyn Fn(&Parts, Context) -> Context + Send + Sync;

impl ContextLayer {
    /// For requests that end with `shutdown`; pass [`Context::background`] where there is none.
    pub fn new(shutdown: impl Into<Context>) -> Self {
        let (shutdown, name) = (shutdown.into().with_values_of(&Context::background()), Arc::<str>::from("request"));
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let relays = (0..workers).map(|_| shutdown.named(Arc::clone(&name)).relay()).collect();
        Self(Settings { relays, limit: None, enforce: false, values: None })
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

    /// The context of a request, and what ends it.
    fn context(&self, head: &Parts, deadline: Option<Instant>) -> (Context, Exchange) {
        let shutdown = &self.relays[worker() % self.relays.len()];
        // Under the worker's own name, so that no request allocates one, and no core touches another's.
        let (own, canceller) = shutdown.without_cancel().with_cancel();
        let own = match deadline {
            Some(at) => own.with_deadline(at),
            None => own,
        };
        let own = merge(own, shutdown);
        let ctx = match head.extensions.get::<Context>() {
            Some(outer) => merge(outer, own),
            None => own,
        };
        let ctx = match &self.values {
            Some(values) => values(head, ctx),
            None => ctx,
        };
        (ctx, Exchange::new(canceller))
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
    B: Body,
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
        let (ctx, mut exchange) = self.settings.context(&head, deadline);
        head.extensions.insert(ctx.clone());
        let bound = if self.settings.enforce { ctx } else { Context::background() };
        let work = exchange.run(|| self.inner.call(Request::from_parts(head, body))).with_context(&bound);
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
        /// What ends the work, and then the body.
        bound: Context,
    },
    Refused(InvalidTimeout),
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
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
        let exchange = exchange.take().expect("taken once");
        Poll::Ready(match result {
            Ok(Ok(response)) => Ok(respond(response, exchange, this.method, bound, *this.grpc)),
            Ok(Err(err)) => {
                exchange.complete();
                Err(err)
            }
            Err(err) => {
                exchange.complete();
                Ok(ended(*this.grpc, &err))
            }
        })
    }
}

/// A response whose body ends `exchange`, and ends with `bound`.
fn respond<B: Body>(
    response: Response<B>,
    mut exchange: Exchange,
    method: &Method,
    bound: &Context,
    grpc: bool,
) -> Response<ContextBody<B>> {
    let length = match response.headers().get(CONTENT_LENGTH) {
        Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
        None => response.body().size_hint().exact(),
    };
    if has_no_body(method, response.status()) || response.body().is_end_stream() || length == Some(0) {
        exchange.complete();
        return response.map(|body| ContextBody::new(body, &Context::background(), false));
    }
    // A bound body would be cut short before its first byte: one that is there whole is the handler's own answer to the
    // finish, and any other one is too late.
    let whole = response.body().size_hint().exact().is_some();
    let bound = match bound.err() {
        Some(err) if !whole => {
            exchange.complete();
            return ended(grpc, &err);
        }
        Some(_) => &Context::background(),
        None => bound,
    };
    exchange.responded();
    response.map(|body| ContextBody::new(body, bound, grpc).ending(exchange, length))
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
