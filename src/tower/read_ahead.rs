//! Reading the body of a request ahead of its handler, so that the server reads on and sees the client go.
//!
//! Two read one body: the handler, and whoever polls the response. The body stands in a slot; it is taken out while it is
//! polled, so that nothing foreign runs under the lock. What comes is queued in the same lock in which the body is put
//! back, and only the handler takes from the queue: frames keep their order.
//!
//! No wake-up is lost: each of the two registers before it looks; the body knows one waker, which wakes both; and who puts
//! the body back wakes the other where there is something for it, or where it has found the slot empty.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Wake, Waker, ready};

use bytes::Buf;
use http::header::EXPECT;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::Ended;
use super::body::{Next, Rest};
use crate::{Canceller, Context};

/// Reads the body of each request ahead of its handler, up to a number of bytes, so that a server of HTTP/1.1 sees the
/// client go while the handler does something else. It stands inside [`ContextLayer`](super::ContextLayer).
///
/// A server of HTTP/1.1 that waits for a handler to read does not read itself, and what it does not read hides the end of
/// the connection. With this layer the server comes to the end of the body, and then sees the client go: the exchange ends as
/// [`BeforeResponse`](Ended::BeforeResponse) or [`InBody`](Ended::InBody). A client that goes away *in* the body makes it
/// fail, and the context of the request is cancelled at once, with [`Ended::InRequest`], whether or not the handler reads;
/// the handler is not dropped.
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
            (ReadAheadBody(Inner::Passed(body)), None)
        } else {
            let derived = head.extensions.get().map(Context::with_cancel);
            let canceller = derived.map(|(ctx, canceller)| {
                head.extensions.insert(ctx);
                canceller
            });
            let begun = !head.headers.contains_key(EXPECT);
            let rest = Rest::of(&body);
            let shared = Arc::new(Shared::new(body, self.limit, begun, canceller));
            (ReadAheadBody(Inner::Shared(Reader { shared: Arc::clone(&shared), rest })), Some(shared))
        };
        let work = self.inner.call(Request::from_parts(head, body));
        ReadAheadFuture { work, ahead: Ahead(shared) }
    }
}

/// What a poll of the body gave, and what the body said after it.
struct Came<A: Body> {
    next: Next<A>,
    rest: Rest,
}

impl<A: Body> Came<A> {
    /// What it counts towards the limit.
    fn weight(&self) -> usize {
        let data = self.next.as_ref().and_then(|next| next.as_ref().ok()?.data_ref()).map_or(0, Buf::remaining);
        data.saturating_add(size_of::<Self>())
    }
}

/// Nothing foreign runs under our locks, so what they guard is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first panic of several calls of foreign code, none of which keeps the next from being made.
#[derive(Default)]
struct Panics(Option<Box<dyn Any + Send>>);

impl Panics {
    fn catch<T>(&mut self, f: impl FnOnce() -> T) {
        match catch_unwind(AssertUnwindSafe(|| drop(f()))) {
            Err(panic) if self.0.is_none() => self.0 = Some(panic),
            // Its drop is foreign too.
            Err(panic) => mem::forget(panic),
            Ok(()) => {}
        }
    }

    /// Lets it go on, unless the thread is panicking already: two at once would abort.
    fn resume(self) {
        match self.0 {
            Some(panic) if std::thread::panicking() => mem::forget(panic),
            Some(panic) => resume_unwind(panic),
            None => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Handler,
    Ahead,
}

/// The tasks of the two that read, and the waker of the body.
#[derive(Default)]
struct Tasks {
    handler: Mutex<Option<Waker>>,
    ahead: Mutex<Option<Waker>>,
}

impl Tasks {
    fn lock(&self, side: Side) -> MutexGuard<'_, Option<Waker>> {
        lock(match side {
            Side::Handler => &self.handler,
            Side::Ahead => &self.ahead,
        })
    }

    /// Without a moment in which neither the old nor the new waker is there.
    fn register(&self, side: Side, waker: &Waker) {
        if !self.lock(side).as_ref().is_some_and(|task| task.will_wake(waker)) {
            let new = waker.clone();
            let old = self.lock(side).replace(new);
            drop(old);
        }
    }

    fn take(&self, side: Side) -> Option<Waker> {
        self.lock(side).take()
    }

    fn wake_each(&self, sides: &[Side]) {
        let mut panics = Panics::default();
        for side in sides {
            let task = self.take(*side);
            panics.catch(|| task.map(Waker::wake));
        }
        panics.resume();
    }
}

impl Wake for Tasks {
    fn wake(self: Arc<Self>) {
        self.wake_each(&[Side::Handler, Side::Ahead]);
    }
}

struct Shared<A: Body> {
    limit: usize,
    state: Mutex<State<A>>,
    tasks: Arc<Tasks>,
    /// The tasks as a waker.
    waker: Waker,
}

struct State<A: Body> {
    /// None while it is polled, and once nobody needs it.
    body: Option<Pin<Box<A>>>,
    /// Whether one of the two has found no body to poll.
    missed: bool,
    queue: VecDeque<Came<A>>,
    /// What is kept, or was let go of for a handler that does not read.
    weight: usize,
    /// Whether the body may be asked for: a server may answer that with 100 Continue.
    begun: bool,
    /// The body has ended or failed: there is nothing to read ahead.
    over: bool,
    /// The handler has dropped its side.
    dropped: bool,
    canceller: Option<Canceller>,
}

impl<A: Body> State<A> {
    fn reads_ahead(&self, limit: usize) -> bool {
        self.begun && !self.over && self.weight < limit
    }

    /// The body, where nobody will poll it any more.
    fn left_over(&mut self, limit: usize) -> Option<Pin<Box<A>>> {
        if self.dropped && !self.reads_ahead(limit) { self.body.take() } else { None }
    }
}

impl<A: Body> Shared<A> {
    fn new(body: A, limit: usize, begun: bool, canceller: Option<Canceller>) -> Self {
        let state = State {
            body: Some(Box::pin(body)),
            missed: false,
            queue: VecDeque::new(),
            weight: 0,
            begun,
            over: false,
            dropped: false,
            canceller,
        };
        let tasks = Arc::<Tasks>::default();
        Self { limit, state: Mutex::new(state), waker: Waker::from(Arc::clone(&tasks)), tasks }
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        lock(&self.state)
    }

    /// Polls the body once for `side`, where it may, and queues what comes; false where nothing came.
    fn advance(&self, side: Side) -> bool {
        let mut state = self.lock();
        if matches!(side, Side::Ahead) && !state.reads_ahead(self.limit) {
            return false;
        }
        let Some(body) = state.body.take() else {
            state.missed = true;
            return false;
        };
        drop(state);
        let mut taken = Taken { shared: self, side, body: Some(body), came: None };
        let body = taken.body.as_mut().expect("put back by the drop");
        let Poll::Ready(next) = body.as_mut().poll_frame(&mut task::Context::from_waker(&self.waker)) else {
            return false;
        };
        let failed = matches!(next, Some(Err(_)));
        taken.came = Some(Came { next, rest: Rest::of(&**body) });
        if failed {
            let canceller = self.lock().canceller.take();
            // Before the error is there for the handler, which so finds the context finished.
            canceller.map(|canceller| canceller.cancel_with(Ended::InRequest));
        }
        true
    }
}

/// The body, out of its slot; it is put back with what came, also where a poll or a callback panics.
struct Taken<'a, A: Body> {
    shared: &'a Shared<A>,
    side: Side,
    body: Option<Pin<Box<A>>>,
    came: Option<Came<A>>,
}

impl<A: Body> Drop for Taken<'_, A> {
    fn drop(&mut self) {
        let (limit, tasks) = (self.shared.limit, &self.shared.tasks);
        let mut state = self.shared.lock();
        state.body = self.body.take();
        let mut wake = mem::take(&mut state.missed);
        let (mut canceller, mut unread) = (None, None);
        if let Some(came) = self.came.take() {
            state.weight = state.weight.saturating_add(came.weight());
            if came.rest.is_end_stream || !matches!(came.next, Some(Ok(_))) {
                state.over = true;
                canceller = state.canceller.take();
            }
            if state.dropped {
                unread = Some(came)
            } else {
                state.queue.push_back(came)
            }
            wake |= matches!(self.side, Side::Ahead) || state.reads_ahead(limit);
        }
        let body = state.left_over(limit);
        drop(state);
        let mut panics = Panics::default();
        panics.catch(|| drop(canceller));
        panics.catch(|| drop(unread));
        panics.catch(|| drop(body));
        if wake {
            let other = if matches!(self.side, Side::Ahead) { Side::Handler } else { Side::Ahead };
            panics.catch(|| tasks.wake_each(&[other]));
        }
        panics.resume();
    }
}

/// The body of a request that is read ahead; made by [`ReadAheadLayer`].
///
/// Its frames, trailers, errors, size hint and end are those of the body inside, in that order, as if nobody had read ahead.
/// It may be moved to another task.
#[pin_project]
pub struct ReadAheadBody<A: Body>(#[pin] Inner<A>);

#[pin_project(project = Projected)]
enum Inner<A: Body> {
    /// There is nothing to read.
    Passed(#[pin] A),
    Shared(Reader<A>),
}

/// The handler's side.
struct Reader<A: Body> {
    shared: Arc<Shared<A>>,
    /// As of what was handed on.
    rest: Rest,
}

impl<A: Body> Reader<A> {
    fn poll_frame(&mut self, cx: &mut task::Context<'_>) -> Poll<Next<A>> {
        let Shared { limit, tasks, .. } = &*self.shared;
        tasks.register(Side::Handler, cx.waker());
        loop {
            let mut state = self.shared.lock();
            state.begun = true;
            let stopped = !state.reads_ahead(*limit);
            if let Some(came) = state.queue.pop_front() {
                state.weight = state.weight.saturating_sub(came.weight());
                let goes_on = stopped && state.reads_ahead(*limit);
                drop(state);
                self.rest = came.rest;
                if goes_on {
                    tasks.wake_each(&[Side::Ahead]);
                }
                return Poll::Ready(came.next);
            }
            drop(state);
            if !self.shared.advance(Side::Handler) {
                return Poll::Pending;
            }
        }
    }
}

impl<A: Body> Drop for Reader<A> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dropped = true;
        let (queue, body) = (mem::take(&mut state.queue), state.left_over(self.shared.limit));
        drop(state);
        let mut panics = Panics::default();
        panics.catch(|| drop(queue));
        panics.catch(|| drop(body));
        panics.catch(|| drop(self.shared.tasks.take(Side::Handler)));
        panics.resume();
    }
}

impl<A: Body> Body for ReadAheadBody<A> {
    type Data = A::Data;
    type Error = A::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Next<A>> {
        match self.project().0.project() {
            Projected::Passed(body) => body.poll_frame(cx),
            Projected::Shared(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Passed(body) => body.is_end_stream(),
            Inner::Shared(reader) => reader.rest.is_end_stream,
        }
    }

    #[allow(clippy::clone_on_copy, reason = "Copy only since http-body 1.1")]
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Passed(body) => body.size_hint(),
            Inner::Shared(reader) => reader.rest.size_hint.clone(),
        }
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

impl<A: Body> fmt::Debug for ReadAheadBody<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAheadBody").finish_non_exhaustive()
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
