//! The body of a response that is watched, and that a context may end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::BoxError;
use super::answer::Answers;
use super::exchange::Exchange;
use crate::{Context, Error, StreamExt, TakeUntilDone};

/// The body of a response of [`ContextService`](super::ContextService) or [`Propagate`](super::Propagate).
///
/// What the context does not end passes as it is: data, trailers, errors, size hint, and the end.
///
/// Where the context ends it, a body of gRPC ends with its status in trailers, any other one with the context's
/// [`Error`], so that the other side sees that it is cut short. So does a body of gRPC that was announced with a length and
/// has not reached it: trailers would contradict that. The body inside is dropped by the finish itself, also where nobody
/// polls this one, as for a client that does not read; whoever polled last is woken.
#[pin_project]
pub struct ContextBody<B: Body> {
    /// Before the body, so that what is dropped with that finds the context finished.
    exchange: Option<Exchange>,
    #[pin]
    body: Inner<B>,
    /// What a body that is not watched has told of what is still to come.
    rest: Rest,
    /// Of gRPC: what ends it, and how that is told in trailers.
    told: Option<Told>,
    /// The bytes that are left of the length that was told: a server reads no further.
    left: Option<u64>,
}

#[pin_project(project = Projected)]
enum Inner<B: Body> {
    /// Nothing ends it but itself.
    Watched(#[pin] B),
    /// All of it is there.
    Whole(Pin<Box<Frames<B>>>),
    Bound(TakeUntilDone<Pin<Box<Frames<B>>>>),
    /// One of ours.
    Text(Bytes),
}

/// How the end of a body of gRPC by a context is told.
pub(super) type Told = (Context, Arc<Answers>);

/// What a body says of what is still to come.
pub(super) struct Rest {
    pub(super) is_end_stream: bool,
    pub(super) size_hint: SizeHint,
}

impl Rest {
    pub(super) fn of(body: &impl Body) -> Self {
        Self { is_end_stream: body.is_end_stream(), size_hint: body.size_hint() }
    }

    fn none() -> Self {
        Self { is_end_stream: true, size_hint: SizeHint::with_exact(0) }
    }
}

pub(super) type Next<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

/// A body as a stream, which tells with each frame, and with the end, what is still to come.
#[pin_project]
struct Frames<B: Body> {
    #[pin]
    body: B,
    /// The first, where they were read ahead.
    ahead: [Option<(Next<B>, Rest)>; AHEAD],
}

/// How many frames are read ahead: all of most answers, one of data, and trailers or the end.
const AHEAD: usize = 2;

impl<B: Body> Frames<B> {
    fn new(body: B) -> Pin<Box<Self>> {
        Box::pin(Self { body, ahead: [None, None] })
    }

    /// Reads what is there, and whether that is all.
    fn read_ahead(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> bool {
        let mut this = self.project();
        for slot in this.ahead {
            let Poll::Ready(next) = this.body.as_mut().poll_frame(cx) else { return false };
            let (rest, goes_on) = (Rest::of(&*this.body), matches!(&next, Some(Ok(frame)) if frame.is_data()));
            let is_last = !goes_on || rest.is_end_stream;
            *slot = Some((next, rest));
            if is_last {
                return true;
            }
        }
        false
    }
}

impl<B: Body> Stream for Frames<B> {
    type Item = (Next<B>, Rest);

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        if let Some(read) = this.ahead.iter_mut().find_map(Option::take) {
            return Poll::Ready(Some(read));
        }
        let next = ready!(this.body.as_mut().poll_frame(cx));
        Poll::Ready(Some((next, Rest::of(&*this.body))))
    }
}

impl<B: Body> ContextBody<B> {
    fn of_inner(body: Inner<B>, rest: Rest) -> Self {
        Self { exchange: None, body, rest, told: None, left: None }
    }

    /// Passes `body` on.
    pub(super) fn watched(body: B) -> Self {
        Self::of_inner(Inner::Watched(body), Rest::none())
    }

    /// One of ours.
    pub(super) fn of(text: Bytes) -> Self {
        Self::of_inner(Inner::Text(text), Rest::none())
    }

    /// Ends `exchange` with it; `length` is how many bytes go out, where that is known.
    pub(super) fn ending(self, exchange: Exchange, length: Option<u64>) -> Self {
        Self { exchange: Some(exchange), left: length, ..self }
    }
}

impl<B: Body<Data: Send, Error: Send> + Send + 'static> ContextBody<B> {
    /// Ends with `ctx`, in trailers where it is of gRPC.
    pub(super) fn bound(body: B, ctx: &Context, told: Option<Told>) -> Self {
        let rest = Rest::of(&body);
        Self { told, ..Self::of_inner(Inner::Bound(Frames::new(body).take_until_done(ctx)), rest) }
    }

    /// The same, where not all of it is there already. An error where the context is finished, and it is not.
    pub(super) fn bound_unless_whole(
        body: B,
        ctx: &Context,
        told: Option<Told>,
        cx: &mut task::Context<'_>,
    ) -> Result<Self, Error> {
        let (rest, mut frames) = (Rest::of(&body), Frames::new(body));
        let inner = if frames.as_mut().read_ahead(cx) {
            Inner::Whole(frames)
        } else {
            ctx.check()?;
            Inner::Bound(frames.take_until_done(ctx))
        };
        Ok(Self { told, ..Self::of_inner(inner, rest) })
    }
}

impl<B> Body for ContextBody<B>
where
    B: Body<Data: From<Bytes> + Send, Error: Into<BoxError> + Send> + Send + 'static,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut this = self.project();
        let exchange = this.exchange;
        let mut is_bound = false;
        let read = match this.body.as_mut().project() {
            Projected::Text(text) => {
                let text = std::mem::take(text);
                return Poll::Ready(text.has_remaining().then(|| Ok(Frame::data(text.into()))));
            }
            Projected::Watched(mut body) => {
                let next = ready!(running(exchange, || body.as_mut().poll_frame(cx)));
                let rest = Rest { is_end_stream: body.is_end_stream(), ..Rest::none() };
                Ok(Some((next, rest)))
            }
            Projected::Whole(frames) => Ok(ready!(running(exchange, || frames.as_mut().poll_next(cx)))),
            Projected::Bound(frames) => {
                is_bound = true;
                match ready!(running(exchange, || Pin::new(&mut *frames).poll_next(cx))) {
                    // Neither is there after a panic of the body.
                    None => frames.err().map_or(Ok(None), Err),
                    read => Ok(read),
                }
            }
        };
        let next = match read {
            Ok(Some((next, rest))) => {
                *this.rest = rest;
                next
            }
            Ok(None) => None,
            Err(err) => {
                this.body.set(Inner::Text(Bytes::new()));
                if let Some(exchange) = exchange.take() {
                    exchange.end();
                }
                let told = this.told.take().filter(|_| this.left.is_none_or(|left| left == 0));
                return Poll::Ready(Some(match told {
                    Some((ctx, answers)) => Ok(Frame::trailers(answers.to(&err, &ctx).trailers())),
                    None => Err(err.into()),
                }));
            }
        };
        Poll::Ready(match next {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, Buf::remaining) as u64;
                *this.left = this.left.map(|left| left.saturating_sub(sent));
                if this.rest.is_end_stream || frame.is_trailers() || *this.left == Some(0) {
                    // A server may ask no further.
                    if let Some(exchange) = exchange {
                        exchange.is_whole();
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(err)) => {
                if let Some(exchange) = exchange {
                    exchange.has_failed();
                }
                Some(Err(err.into()))
            }
            None => {
                if is_bound {
                    // A finish that comes now has nothing to end.
                    this.body.set(Inner::Text(Bytes::new()));
                }
                if let Some(exchange) = exchange.take() {
                    exchange.end();
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Inner::Watched(body) => body.is_end_stream(),
            Inner::Text(text) => text.is_empty(),
            Inner::Whole(_) | Inner::Bound(_) => self.rest.is_end_stream,
        }
    }

    #[allow(clippy::clone_on_copy, reason = "it is Copy from http-body 1.1 on")]
    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Inner::Watched(body) => body.size_hint(),
            Inner::Text(text) => SizeHint::with_exact(text.len() as u64),
            Inner::Whole(_) | Inner::Bound(_) => self.rest.size_hint.clone(),
        }
    }
}

/// Polls a body, which may panic.
fn running<T>(exchange: &mut Option<Exchange>, poll: impl FnOnce() -> T) -> T {
    match exchange {
        Some(exchange) => exchange.run(poll),
        None => poll(),
    }
}

impl<B: Body> fmt::Debug for ContextBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBody").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
