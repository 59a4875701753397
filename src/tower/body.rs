//! The body of a response that is watched, and that a context may end.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::{Buf, Bytes};
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::exchange::Exchange;
use super::{BoxError, trailers};
use crate::http::{grpc_status, reason};
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
pub struct ContextBody<B> {
    /// Before the body, so that what is dropped with that finds the context finished.
    exchange: Option<Exchange>,
    #[pin]
    body: Inner<B>,
    /// The bytes that are left of the length that was told: a server reads no further.
    left: Option<u64>,
}

#[pin_project(project = Projected)]
enum Inner<B> {
    /// Nothing ends it but itself.
    Watched(#[pin] B),
    Bound(Box<Bound<B>>),
    /// One of ours.
    Text(Bytes),
}

struct Bound<B> {
    frames: TakeUntilDone<Frames<B>>,
    rest: Rest,
    /// Whether the end is told in trailers.
    grpc: bool,
    /// Whether the last of it was handed on.
    over: bool,
}

/// What a body says of what is still to come.
struct Rest {
    is_end_stream: bool,
    size_hint: SizeHint,
}

impl Rest {
    fn of(body: &impl Body) -> Self {
        Self { is_end_stream: body.is_end_stream(), size_hint: body.size_hint() }
    }
}

/// A body as a stream, which tells with each frame, and with the end, what is still to come.
#[pin_project]
struct Frames<B>(#[pin] B);

type Next<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

impl<B: Body> Stream for Frames<B> {
    type Item = (Next<B>, Rest);

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.project().0;
        let next = ready!(body.as_mut().poll_frame(cx));
        Poll::Ready(Some((next, Rest::of(&*body))))
    }
}

impl<B> ContextBody<B> {
    /// Passes `body` on.
    pub(super) fn watched(body: B) -> Self {
        Self { exchange: None, body: Inner::Watched(body), left: None }
    }

    /// One of ours.
    pub(super) fn of(text: Bytes) -> Self {
        Self { exchange: None, body: Inner::Text(text), left: None }
    }

    /// Ends `exchange` with it; `length` is how many bytes go out, where that is known.
    pub(super) fn ending(self, exchange: Exchange, length: Option<u64>) -> Self {
        Self { exchange: Some(exchange), left: length, ..self }
    }
}

impl<B: Body + Send + 'static> ContextBody<B> {
    /// Ends with `ctx`, in trailers where it is of `grpc`.
    pub(super) fn bound(body: B, ctx: &Context, grpc: bool) -> Self {
        let rest = Rest::of(&body);
        let bound = Bound { frames: Frames(body).take_until_done(ctx), rest, grpc, over: false };
        Self { exchange: None, body: Inner::Bound(Box::new(bound)), left: None }
    }
}

impl<B: Body + Send + 'static> Bound<B> {
    /// The next frame, or the error of the context that has ended the body.
    fn poll_frame(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Next<B>, Error>> {
        if self.over {
            return Poll::Ready(Ok(None));
        }
        let next = ready!(Pin::new(&mut self.frames).poll_next(cx));
        Poll::Ready(match (next, self.frames.err()) {
            (Some((next, rest)), _) => {
                self.rest = rest;
                Ok(next)
            }
            (None, err) => {
                self.over = true;
                self.rest = Rest { is_end_stream: true, size_hint: SizeHint::with_exact(0) };
                // Without an error only after a panic of the body.
                err.map_or(Ok(None), Err)
            }
        })
    }
}

impl<B> Body for ContextBody<B>
where
    B: Body<Data: From<Bytes>, Error: Into<BoxError>> + Send + 'static,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let this = self.project();
        let exchange = this.exchange;
        let (next, rest_is_empty) = match this.body.project() {
            Projected::Text(text) => {
                let text = std::mem::take(text);
                return Poll::Ready(text.has_remaining().then(|| Ok(Frame::data(text.into()))));
            }
            Projected::Watched(mut body) => {
                let next = ready!(running(exchange, || body.as_mut().poll_frame(cx)));
                (Ok(next), body.is_end_stream())
            }
            Projected::Bound(bound) => {
                let next = ready!(running(exchange, || bound.poll_frame(cx)));
                let next = next.map_err(|err| cut_short(bound.grpc && this.left.is_none_or(|left| left == 0), err));
                (next, bound.rest.is_end_stream)
            }
        };
        Poll::Ready(match next {
            Ok(Some(Ok(frame))) => {
                let sent = frame.data_ref().map_or(0, Buf::remaining) as u64;
                *this.left = this.left.map(|left| left.saturating_sub(sent));
                if rest_is_empty || frame.is_trailers() || *this.left == Some(0) {
                    // A server may ask no further.
                    exchange.as_mut().map(Exchange::is_whole);
                }
                Some(Ok(frame))
            }
            Ok(Some(Err(err))) => {
                exchange.as_mut().map(Exchange::has_failed);
                Some(Err(err.into()))
            }
            Ok(None) => {
                exchange.take().map(Exchange::end);
                None
            }
            Err(last) => {
                exchange.take().map(Exchange::end);
                Some(last)
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Inner::Watched(body) => body.is_end_stream(),
            Inner::Bound(bound) => bound.rest.is_end_stream,
            Inner::Text(text) => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Inner::Watched(body) => body.size_hint(),
            Inner::Bound(bound) => bound.rest.size_hint.clone(),
            Inner::Text(text) => SizeHint::with_exact(text.len() as u64),
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

/// The last of a body that `err` ends.
fn cut_short<D>(in_trailers: bool, err: Error) -> Result<Frame<D>, BoxError> {
    if in_trailers { Ok(Frame::trailers(trailers(grpc_status(&err), &reason(&err)))) } else { Err(err.into()) }
}

impl<B> fmt::Debug for ContextBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBody").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
