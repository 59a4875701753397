//! The client's side: the time that is left goes along, and the call ends with its context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use http::{HeaderMap, Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::BoxError;
use super::answer::{Answers, is_grpc};
use super::body::{ContextBody, Told};
use crate::http::{TimeoutHeader, inject_as};
use crate::{Context, FutureExt, WithContext, merge};

/// Ends calls with their context: the one in the extensions of the request, the one given with [`of`](Self::of), or both,
/// merged. A request without any is passed on as it is; with feature `tracing` the first one is told by a warning.
///
/// - What remains until the deadline goes along in a header, but where the request sets an earlier one itself.
/// - A request whose context is finished is not sent.
/// - When the context finishes, the call is dropped, and so is the body of the response, also where nobody polls it: the
///   connection or the stream of HTTP/2 is let go of by the finish itself.
///
/// Such a call fails with the context's [`Error`](crate::Error), boxed as all errors of the service are; one of gRPC has a
/// response with that status (see [`grpc_status`](crate::http::grpc_status)), which tonic makes a `Status`. So does a call
/// that the service fails when the context has finished.
///
/// Waiting until the service is ready is not part of a call: a request is not known then.
///
/// ```
/// use context_merge::{Context, Error, tower::PropagateLayer};
/// use http::{Request, Response};
/// use std::convert::Infallible;
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let client = ServiceBuilder::new()
///     .layer(PropagateLayer::new())
///     .service_fn(|_: Request<String>| std::future::pending::<Result<Response<String>, Infallible>>());
/// let mut request = Request::new(String::new());
/// request.extensions_mut().insert(Context::background().with_timeout(std::time::Duration::from_secs(2)));
/// let err = client.oneshot(request).await.unwrap_err();
/// assert!(err.downcast_ref::<Error>().unwrap().is_deadline_exceeded());
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct PropagateLayer {
    ctx: Option<Context>,
    header: Option<TimeoutHeader>,
}

impl PropagateLayer {
    /// Ends each call with the context in the request's extensions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends each call with `ctx` as well, as a shutdown: a call of gRPC that it ends has status 14 (unavailable).
    pub fn of(ctx: impl Into<Context>) -> Self {
        Self { ctx: Some(ctx.into()), header: None }
    }

    /// In which header the other side reads the time that is left; `grpc-timeout` where this is not called.
    pub fn header(self, header: TimeoutHeader) -> Self {
        Self { header: Some(header), ..self }
    }
}

impl<S> Layer<S> for PropagateLayer {
    type Service = Propagate<S>;

    fn layer(&self, inner: S) -> Propagate<S> {
        let answers = Arc::new(Answers { shutdown: self.ctx.clone(), map: None });
        Propagate { inner, layer: self.clone(), answers }
    }
}

/// A client whose calls end with their contexts; made by [`PropagateLayer`].
#[derive(Clone)]
pub struct Propagate<S> {
    inner: S,
    layer: PropagateLayer,
    answers: Arc<Answers>,
}

impl<S, A, B> Service<Request<A>> for Propagate<S>
where
    S: Service<Request<A>, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    type Response = Response<ContextBody<B>>;
    type Error = BoxError;
    type Future = CallFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let ctx = match (request.extensions().get::<Context>(), &self.layer.ctx) {
            (Some(of_request), Some(given)) => Some(merge(of_request, given)),
            (of_request, given) => of_request.or(given.as_ref()).cloned(),
        };
        let answers = Arc::clone(&self.answers);
        if ctx.is_none() {
            without_a_context();
        }
        if let Some(ctx) = &ctx {
            if ctx.is_done() {
                return CallFuture { call: None, told: Some((ctx.clone(), answers)), grpc };
            }
            lower(self.layer.header.unwrap_or(TimeoutHeader::Grpc), ctx, request.headers_mut());
        }
        let call = self.inner.call(request).with_context(ctx.clone().unwrap_or_default());
        CallFuture { call: Some(call), told: ctx.map(|ctx| (ctx, answers)), grpc }
    }
}

/// Says once that calls have no context: more likely it was forgotten.
fn without_a_context() {
    #[cfg(feature = "tracing")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            ::tracing::warn!(
                target: "context_merge",
                "a call through PropagateLayer has no context: put one into the extensions of the request"
            );
        });
    }
}

/// Writes the header, but where it is there with less.
fn lower(header: TimeoutHeader, ctx: &Context, headers: &mut HeaderMap) {
    let asked = headers.get(header.as_str()).and_then(|value| header.decode(value).ok());
    if asked.is_none_or(|asked| ctx.remaining().is_some_and(|left| left < asked)) {
        inject_as(header, ctx, headers);
    }
}

/// The response to a call.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct CallFuture<F> {
    /// None where it is not made.
    #[pin]
    call: Option<WithContext<F>>,
    /// What ends it, and how that is told; None where the request has no context.
    told: Option<Told>,
    grpc: bool,
}

impl<F, B, E> Future for CallFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data: Send, Error: Send> + Send + 'static,
    E: Into<BoxError>,
{
    type Output = Result<Response<ContextBody<B>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let err = || this.told.as_ref().and_then(|(ctx, _)| ctx.err());
        let result = match this.call.as_pin_mut() {
            Some(call) => match task::ready!(call.poll(cx)) {
                // The client may have a timer of its own for the header, as tonic's has, with an error of its own.
                Ok(Err(failed)) => err().map_or(Ok(Err(failed)), Err),
                result => result,
            },
            None => Err(err().expect("finished")),
        };
        let told = this.told.take();
        Poll::Ready(match result {
            Ok(Ok(response)) => Ok(response.map(|body| match told {
                Some(told) => ContextBody::bound(body, &told.0.clone(), this.grpc.then_some(told)),
                None => ContextBody::watched(body),
            })),
            Ok(Err(err)) => Err(err.into()),
            Err(err) => match told {
                Some((ctx, answers)) if *this.grpc => Ok(answers.response(err, &ctx, true)),
                _ => Err(err.into()),
            },
        })
    }
}

impl<F> fmt::Debug for CallFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("ctx", &self.told.as_ref().map(|(ctx, _)| ctx)).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for Propagate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Propagate").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}
