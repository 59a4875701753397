//! Reading the body of a request ahead of its handler, so that the server reads on and sees the client go.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use http::header::EXPECT;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{Next, Rest};
use crate::Context;
use shared::{Shared, Side};

mod body;
mod shared;

pub use body::ReadAheadBody;

/// Reads the body of each request ahead of its handler, up to a number of bytes, so that a server of HTTP/1.1 sees the
/// client go while the handler does something else. It stands inside [`ContextLayer`](super::ContextLayer).
///
/// A server of HTTP/1.1 that waits for a handler to read does not read itself, and what it does not read hides the end of
/// the connection. With this layer the server comes to the end of the body, and then sees the client go: the exchange ends as
/// [`BeforeResponse`](super::Ended::BeforeResponse) or [`InBody`](super::Ended::InBody). A client that goes away *in* the
/// body makes it fail, and the context of the request is cancelled at once, with
/// [`Ended::InRequest`](super::Ended::InRequest), whether or not the handler reads; the handler is not dropped.
///
/// - The handler gets a [`ReadAheadBody`]: the same frames, trailers, errors and size hints.
/// - Reading ahead goes on while the handler runs and while its response is sent, and stops where `limit` bytes are kept, so
///   that no more than that and one frame is held for a request. It goes on when the handler reads. A frame counts with its
///   bytes and those of its record, about 150, so that many small ones are bounded too.
/// - Of a body that the handler drops unread, `limit` bytes are read and let go of; then it is dropped, and the server
///   reads no more from that connection.
/// - Where the request has `expect: 100-continue`, reading ahead begins when the handler reads: until then the client is
///   not told to send the body, and a handler may still refuse it.
///
/// What it cannot show: a client that goes away behind a body that is larger than `limit` and not read, or behind a pipelined
/// request.
///
/// Any error of the body counts as the client's end. Layers that make a body fail for other reasons, such as a limit of its
/// length, stand inside this one. A request without a context is read ahead as well; nothing is cancelled then.
///
/// ```
/// use axum::{Extension, Router, routing::post};
/// use context_merge::{Context, tower::{ContextLayer, ReadAheadLayer}};
///
/// let app: Router = Router::new()
///     .route("/", post(async |Extension(ctx): Extension<Context>| format!("{:?}", ctx.remaining())))
///     .layer(ReadAheadLayer::new(64 * 1024))
///     .layer(ContextLayer::new(Context::background()));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReadAheadLayer {
    limit: usize,
}

impl ReadAheadLayer {
    /// Keeps up to `limit` bytes for a request. Zero reads nothing ahead.
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for ReadAheadLayer {
    type Service = ReadAhead<S>;

    fn layer(&self, inner: S) -> ReadAhead<S> {
        ReadAhead { inner, limit: self.limit }
    }
}

/// A service whose requests are read ahead; made by [`ReadAheadLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ReadAhead<S> {
    inner: S,
    limit: usize,
}

impl<S, A, B> Service<Request<A>> for ReadAhead<S>
where
    S: Service<Request<ReadAheadBody<A>>, Response = Response<B>>,
    A: Body,
{
    type Response = Response<ReadAheadResponseBody<B, A>>;
    type Error = S::Error;
    type Future = ReadAheadFuture<S::Future, A>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let (body, shared) = if body.is_end_stream() {
            (ReadAheadBody::passed(body), None)
        } else {
            let derived = head.extensions.get().map(Context::with_cancel);
            let canceller = derived.map(|(ctx, canceller)| {
                head.extensions.insert(ctx);
                canceller
            });
            let begun = !head.headers.contains_key(EXPECT);
            let rest = Rest::of(&body);
            let shared = Arc::new(Shared::new(body, self.limit, begun, canceller));
            (ReadAheadBody::shared(Arc::clone(&shared), rest), Some(shared))
        };
        let work = self.inner.call(Request::from_parts(head, body));
        ReadAheadFuture { work, ahead: Ahead(shared) }
    }
}

/// The side that reads ahead; None where there is nothing to read.
struct Ahead<A: Body>(Option<Arc<Shared<A>>>);

impl<A: Body> Ahead<A> {
    fn poll(&self, cx: &mut task::Context<'_>) {
        if let Some(shared) = &self.0 {
            shared.tasks.register(Side::Ahead, cx.waker());
            // Comes to an end: each frame counts.
            while shared.advance(Side::Ahead) {}
        }
    }
}

impl<A: Body> Drop for Ahead<A> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            drop(shared.tasks.take(Side::Ahead));
        }
    }
}

/// The response to a request that is read ahead.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct ReadAheadFuture<F, A: Body> {
    #[pin]
    work: F,
    ahead: Ahead<A>,
}

impl<F, A, B, E> Future for ReadAheadFuture<F, A>
where
    F: Future<Output = Result<Response<B>, E>>,
    A: Body,
{
    type Output = Result<Response<ReadAheadResponseBody<B, A>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.ahead.poll(cx);
        let response = ready!(this.work.poll(cx))?;
        let ahead = Ahead(this.ahead.0.take());
        Poll::Ready(Ok(response.map(|body| ReadAheadResponseBody { body, ahead })))
    }
}

/// The body of the response to a request that is read ahead, which reads on while it is sent.
#[pin_project]
pub struct ReadAheadResponseBody<B, A: Body> {
    #[pin]
    body: B,
    ahead: Ahead<A>,
}

impl<B: Body, A: Body> Body for ReadAheadResponseBody<B, A> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Next<B>> {
        let this = self.project();
        this.ahead.poll(cx);
        this.body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<A: Body> fmt::Debug for Ahead<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(shared) = &self.0 else { return f.write_str("None") };
        let state = shared.lock();
        f.debug_struct("Ahead").field("kept", &state.weight).field("over", &state.over).finish_non_exhaustive()
    }
}

impl<F, A: Body> fmt::Debug for ReadAheadFuture<F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAheadFuture").field("ahead", &self.ahead).finish_non_exhaustive()
    }
}

impl<B, A: Body> fmt::Debug for ReadAheadResponseBody<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAheadResponseBody").field("ahead", &self.ahead).finish_non_exhaustive()
    }
}
