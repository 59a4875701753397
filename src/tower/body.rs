//! The body of a response that ends with a context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::exchange::Exchange;
use super::{BoxError, trailers};
use crate::http::{grpc_status, reason};
use crate::{Context, DoneOwned, Error};

/// The body of a response of [`ContextService`](super::ContextService) or [`Propagate`](super::Propagate).
///
/// Where the context ends it, a body of gRPC ends with its status in trailers, any other one with the context's
/// [`Error`], so that the other side sees that it is cut short.
#[pin_project]
pub struct ContextBody<B> {
    /// Before the body, so that what is dropped with that finds the context finished.
    exchange: Option<Exchange>,
    /// None from the end on, or where there was none.
    #[pin]
    body: Option<B>,
    /// What comes in the place of a body.
    text: Bytes,
    /// What ends it; the background where nothing does.
    ctx: Context,
    /// Once it has had to wait; boxed, so that a body that can be moved still can be.
    done: Option<Pin<Box<DoneOwned>>>,
    grpc: bool,
    /// The bytes that `Content-Length` leaves: a server reads no further.
    left: Option<u64>,
}

impl<B> ContextBody<B> {
    /// Ends with `ctx`, in trailers where it is of `grpc`.
    pub(super) fn new(body: B, ctx: &Context, grpc: bool) -> Self {
        Self { body: Some(body), ctx: ctx.clone(), grpc, ..Self::of(Bytes::new()) }
    }

    /// One of ours.
    pub(super) fn of(text: Bytes) -> Self {
        let ctx = Context::background();
        Self { exchange: None, body: None, text, ctx, done: None, grpc: false, left: None }
    }

    /// Ends `exchange` with it; `length` is how many bytes go out, where that is known.
    pub(super) fn ending(self, exchange: Exchange, length: Option<u64>) -> Self {
        Self { exchange: Some(exchange), left: length, ..self }
    }
}

impl<B> Body for ContextBody<B>
where
    B: Body<Data: From<Bytes>, Error: Into<BoxError>>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut this = self.project();
        if this.text.has_remaining() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.text).into()))));
        }
        let Some(mut body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let next = match this.ctx.err() {
            Some(err) => Err(err),
            None => match running(this.exchange, || body.as_mut().poll_frame(cx)) {
                Poll::Ready(next) => Ok(next),
                Poll::Pending => {
                    let done = this.done.get_or_insert_with(|| Box::pin(this.ctx.done_owned()));
                    Err(task::ready!(done.as_mut().poll(cx)))
                }
            },
        };
        let (next, last) = match next {
            Ok(Some(Ok(frame))) => {
                let sent = frame.data_ref().map_or(0, Buf::remaining) as u64;
                *this.left = this.left.map(|left| left.saturating_sub(sent));
                let last = frame.is_trailers() || *this.left == Some(0) || body.is_end_stream();
                (Some(Ok(frame)), last)
            }
            Ok(Some(Err(err))) => (Some(Err(err.into())), true),
            Ok(None) => (None, true),
            Err(err) => (Some(cut_short(*this.grpc, err)), true),
        };
        if last {
            this.body.set(None);
            *this.done = None;
            if let Some(exchange) = this.exchange.take() {
                exchange.complete();
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        !self.text.has_remaining() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            None => SizeHint::with_exact(self.text.len() as u64),
            // It may be cut short.
            Some(_) if self.grpc => SizeHint::default(),
            Some(body) => body.size_hint(),
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
fn cut_short<D>(grpc: bool, err: Error) -> Result<Frame<D>, BoxError> {
    if grpc { Ok(Frame::trailers(trailers(grpc_status(&err), &reason(&err)))) } else { Err(err.into()) }
}

impl<B> fmt::Debug for ContextBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBody").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}
