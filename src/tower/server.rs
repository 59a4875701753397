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

use super::answer::{Answer, Answers, is_grpc};
use super::body::ContextBody;
use super::exchange::Exchange;
use super::server_context::{Scope, ServerContext, Token};
use crate::http::{InvalidTimeout, extract};
use crate::{Context, Error, FutureExt, WithContext, merge};

/// Gives every request a [`Context`] in its extensions, made of
///
/// - the context that the request has already, from a layer further out, as the primary: its values, and its end,
/// - the shutdown of the server,
/// - the deadline that its headers set ([`extract`]), named `caller`, or the [limit](Self::limit), named `limit`: whichever
///   is earlier,
/// - its own cancel, named `request`, when the exchange [ends](super::Ended), however it does: nothing that was started for
///   the request runs on by accident.
///
/// What has to outlive the request takes its [`ServerContext`], which is there beside it. So does what comes after an upgrade
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
struct Settings {
    scope: Scope,
    limit: Option<Arc<LimitOf>>,
    head_limit: Option<Duration>,
    enforce: bool,
    values: Option<Arc<Values>>,
    map: Option<Arc<super::answer::Map>>,
}

type LimitOf = dyn Fn(&Parts) -> Option<Duration> + Send + Sync;
type Values = dyn Fn(&Parts, Context) -> Context + Send + Sync;

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
    /// (cancelled). Where the response has begun, its body ends: see [`ContextBody`]. A handler that answers at that
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
    /// its context's error, as `?` makes it. Nothing of the error but its kind is told otherwise. What else stands in the
    /// head of a handler's answer stays; one of gRPC with details (`grpc-status-details-bin`) is the handler's own.
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

    /// When the server drains, before it stops: what [`ServerContext::draining`] gives. The shutdown where this is not called.
    pub fn draining(self, draining: impl Into<Context>) -> Self {
        let scope = Scope { draining: draining.into(), ..self.0.scope };
        Self(Settings { scope, ..self.0 })
    }

    /// Has what a [`ServerContext`] spawns counted: it holds what `token` gives for as long as it goes on, as a
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
        ContextService { inner, server: Arc::new(Server::new(self.0.clone())) }
    }
}

/// A service with a context for each request; made by [`ContextLayer`].
#[derive(Clone)]
pub struct ContextService<S> {
    inner: S,
    server: Arc<Server>,
}

/// What all requests of a service share.
struct Server {
    settings: Settings,
    scope: Arc<Scope>,
    answers: Arc<Answers>,
    workers: Vec<Worker>,
    /// What the deadline of a head is born under.
    head_limit: Context,
}

/// A relay of the shutdown, under each name that something is born under. A name is made once, not for each request.
struct Worker {
    request: Context,
    caller: Context,
    limit: Context,
}

/// What ends an exchange from outside; the context of the request, which that ends too; and what else ends that.
struct Contexts {
    bound: Context,
    ctx: Context,
    exchange: Exchange,
}

impl Server {
    fn new(settings: Settings) -> Self {
        let scope = Arc::new(settings.scope.clone());
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let values = Context::background().with_value(Arc::clone(&scope));
        let [request, caller, limit] = ["request", "caller", "limit"].map(|name| values.named(name));
        let worker = || {
            let relay = scope.stopping.relay();
            let [request, caller, limit] = [&request, &caller, &limit].map(|named| relay.with_values_of(named));
            Worker { request, caller, limit }
        };
        let answers = Answers { shutdown: Some(scope.stopping.clone()), map: settings.map.clone() };
        let head_limit = Context::background().named("head limit");
        Self {
            workers: (0..threads).map(|_| worker()).collect(),
            scope,
            answers: Arc::new(answers),
            head_limit,
            settings,
        }
    }

    /// The contexts of a request that has arrived now.
    fn contexts(&self, head: &Parts) -> Result<Contexts, InvalidTimeout> {
        let worker = &self.workers[worker() % self.workers.len()];
        let caller = extract(&head.headers)?;
        let limit = self.settings.limit.as_ref().and_then(|limit| limit(head));
        let limit = limit.and_then(|most| Instant::now().checked_add(most));
        let bound = match (caller, limit) {
            (None, None) => worker.request.clone(),
            (Some(at), limit) if limit.is_none_or(|limit| at <= limit) => worker.caller.with_deadline(at),
            (_, Some(at)) => worker.limit.with_deadline(at),
            (Some(_), None) => unreachable!("it is the earlier one"),
        };
        let bound = match head.extensions.get::<Context>() {
            // Its values, and on them what is ours.
            Some(outer) => merge(outer, bound).with_value(Arc::clone(&self.scope)).named("request"),
            None => bound.with_values_of(&worker.request),
        };
        let (ctx, canceller) = bound.with_cancel();
        let ctx = match &self.settings.values {
            Some(values) => values(head, ctx),
            None => ctx,
        };
        Ok(Contexts { bound, ctx, exchange: Exchange::new(canceller) })
    }

    /// What ends the handler.
    fn bound_of_head(&self, bound: &Context) -> Context {
        let bound = if self.settings.enforce { bound.clone() } else { Context::background() };
        match self.settings.head_limit {
            Some(most) => bound.with_values_of(&self.head_limit).with_timeout(most),
            None => bound,
        }
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
    B: Body<Data: Send, Error: Send> + Send + 'static,
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
        let Contexts { bound, ctx, mut exchange } = match self.server.contexts(&head) {
            Ok(contexts) => contexts,
            Err(invalid) => return ResponseFuture { state: State::Refused(invalid), grpc, method },
        };
        head.extensions.insert(ServerContext::new(&ctx, &self.server.scope));
        head.extensions.insert(ctx);
        let work = exchange.run(|| self.inner.call(Request::from_parts(head, body)));
        let work = work.with_context(self.server.bound_of_head(&bound));
        let server = Arc::clone(&self.server);
        ResponseFuture { state: State::Running { exchange: Some(exchange), work, bound, server }, grpc, method }
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
        /// What ends the exchange from outside.
        bound: Context,
        server: Arc<Server>,
    },
    Refused(InvalidTimeout),
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    type Output = Result<Response<ContextBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (exchange, work, bound, server) = match this.state.project() {
            Projected::Running { exchange, work, bound, server } => (exchange, work, &*bound, &*server),
            Projected::Refused(invalid) => {
                return Poll::Ready(Ok(Answer::invalid(invalid.to_string()).response(*this.grpc)));
            }
        };
        let running = exchange.as_mut().expect("polled after it was ready");
        let result = task::ready!(running.run(|| work.poll(cx)));
        let mut exchange = exchange.take().expect("taken once");
        Poll::Ready(match result {
            Ok(Ok(response)) => {
                exchange.responded();
                Ok(server.respond(response, exchange, this.method, bound, *this.grpc, cx))
            }
            Ok(Err(err)) => {
                exchange.has_failed();
                Err(err)
            }
            Err(err) => {
                if !bound.is_done() {
                    exchange.head_was_late();
                }
                exchange.end();
                Ok(server.answers.response(err, bound, *this.grpc))
            }
        })
    }
}

impl Server {
    /// A response whose body ends `exchange`, and ends with `bound` where that is enforced.
    fn respond<B: Body<Data: Send, Error: Send> + Send + 'static>(
        &self,
        response: Response<B>,
        mut exchange: Exchange,
        method: &Method,
        bound: &Context,
        grpc: bool,
        cx: &mut task::Context<'_>,
    ) -> Response<ContextBody<B>> {
        let no_body = has_no_body(method, response.status()) || response.body().is_end_stream();
        if let Some(err) = self.answers.is_told_by_handler(&response, bound, grpc) {
            exchange.end();
            return self.answers.response_for(response.into_parts().0, err, bound, grpc);
        }
        let length = match response.headers().get(CONTENT_LENGTH) {
            Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
            None => response.body().size_hint().exact(),
        };
        if no_body || length == Some(0) {
            // A server may drop the body unread.
            exchange.is_whole();
        }
        let (head, body) = response.into_parts();
        let body = if self.settings.enforce && !no_body {
            let told = grpc.then(|| (bound.clone(), Arc::clone(&self.answers)));
            exchange.run(|| ContextBody::bound_unless_whole(body, bound, told, cx))
        } else {
            Ok(ContextBody::watched(body))
        };
        match body {
            Ok(body) => Response::from_parts(head, body.ending(exchange, length)),
            Err(err) => {
                exchange.end();
                self.answers.response(err, bound, grpc)
            }
        }
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
            .field("shutdown", &self.scope.stopping)
            .field("limit", &self.limit.is_some())
            .field("head_limit", &self.head_limit)
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

impl<S: fmt::Debug> fmt::Debug for ContextService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ContextService");
        out.field("inner", &self.inner).field("settings", &self.server.settings).finish()
    }
}
