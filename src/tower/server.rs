//! The server's side: a context for each request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::thread;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::answer::{Answer, Answers, is_grpc};
use super::body::ContextBody;
use super::exchange::Exchange;
use super::layer::Settings;
use super::server_context::{Scope, ServerContext};
use crate::http::{InvalidTimeout, extract};
use crate::{Context, FutureExt, WithContext, merge};

/// A service with a context for each request; made by [`ContextLayer`](super::ContextLayer).
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

impl<S> ContextService<S> {
    pub(super) fn new(inner: S, settings: Settings) -> Self {
        Self { inner, server: Arc::new(Server::new(settings)) }
    }
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
            return self.answers.response(err, bound, grpc);
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
