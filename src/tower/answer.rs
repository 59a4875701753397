//! What a caller is told where a context has ended its exchange.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRAILER, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::body::ContextBody;
use crate::http::{grpc_status, message, status};
use crate::{Context, Error};

const GRPC: &str = "application/grpc";
/// INVALID_ARGUMENT.
const INVALID: i32 = 3;
/// UNAVAILABLE.
const UNAVAILABLE: i32 = 14;

/// Whether a request is one of gRPC; gRPC-Web, which has no trailers, is not.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.strip_prefix(GRPC));
    kind.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// What a caller is told where a context has ended its exchange; changed by
/// [`ContextLayer::answers`](super::ContextLayer::answers).
///
/// By default 504 or status 4 of gRPC at a deadline; 503 where a cancel was first, and status 14 where that is the
/// server's shutdown, 1 where it is not. The message is the kind of the error alone: a cause, or the name of an input, may
/// say more than a caller should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: StatusCode,
    grpc_status: i32,
    message: Cow<'static, str>,
}

impl Answer {
    pub(super) fn to(err: &Error, is_shutdown: bool) -> Self {
        let grpc_status = if is_shutdown && err.is_cancelled() { UNAVAILABLE } else { grpc_status(err) };
        Self { status: status(err), grpc_status, message: message(err).into() }
    }

    pub(super) fn invalid(what: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, grpc_status: INVALID, message: what.into() }
    }

    /// With this status of HTTP; of no account for gRPC.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With this [status of gRPC](https://grpc.io/docs/guides/status-codes/); of no account for others.
    #[must_use]
    pub fn grpc_status(self, grpc_status: i32) -> Self {
        Self { grpc_status, ..self }
    }

    /// With this text, as the body or as `grpc-message`.
    #[must_use]
    pub fn message(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// The trailers that end a response of gRPC.
    pub(super) fn trailers(&self) -> HeaderMap {
        let message = HeaderValue::from_str(&percent_encoded(&self.message)).expect("visible ASCII and blanks");
        HeaderMap::from_iter([
            (HeaderName::from_static("grpc-status"), HeaderValue::from(self.grpc_status)),
            (HeaderName::from_static("grpc-message"), message),
        ])
    }

    pub(super) fn response<B: Body>(self, grpc: bool) -> Response<ContextBody<B>> {
        let (status, kind, headers, text) = if grpc {
            (StatusCode::OK, GRPC, self.trailers(), Bytes::new())
        } else {
            let text = match self.message {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => Bytes::from(text),
            };
            (self.status, "text/plain; charset=utf-8", HeaderMap::new(), text)
        };
        let mut response = Response::new(ContextBody::of(text));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// How a service answers for a context.
#[derive(Clone, Default)]
pub(super) struct Answers {
    /// The server's.
    pub(super) shutdown: Option<Context>,
    pub(super) map: Option<Arc<Map>>,
}

pub(super) type Map = dyn Fn(&Error, Answer) -> Answer + Send + Sync;

impl Answers {
    /// The answer where `err` has ended an exchange under `ctx`.
    pub(super) fn to(&self, err: &Error, ctx: &Context) -> Answer {
        let is_shutdown = self.shutdown.as_ref().is_some_and(|shutdown| ctx.finished_by(shutdown));
        let answer = Answer::to(err, is_shutdown);
        match &self.map {
            Some(map) => map(err, answer),
            None => answer,
        }
    }

    /// The same as a response, with the error in its extensions.
    pub(super) fn response<B: Body>(&self, err: Error, ctx: &Context, grpc: bool) -> Response<ContextBody<B>> {
        let mut response = self.to(&err, ctx).response(grpc);
        response.extensions_mut().insert(err);
        response
    }

    /// In place of a handler's answer that [is told](Self::is_told_by_handler) by us: what else stands in its head stays.
    pub(super) fn response_for<B: Body>(
        &self,
        mut head: Parts,
        err: Error,
        ctx: &Context,
        grpc: bool,
    ) -> Response<ContextBody<B>> {
        let (told, body) = self.response(err, ctx, grpc).into_parts();
        // Of the handler's body.
        for of_body in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, TRAILER, ETAG] {
            head.headers.remove(of_body);
        }
        head.status = told.status;
        head.headers.extend(told.headers);
        head.extensions.extend(told.extensions);
        Response::from_parts(head, body)
    }

    /// The error of its context, where that is all that a handler answers with, as `?` does: to be told by us, who know
    /// whether it is the server's shutdown, and what the user wants said.
    pub(super) fn is_told_by_handler<B>(&self, response: &Response<B>, ctx: &Context, grpc: bool) -> Option<Error> {
        if !grpc {
            let err = response.extensions().get::<Error>()?;
            return (self.map.is_some() && response.status() == status(err)).then(|| err.clone());
        }
        if response.headers().contains_key("grpc-status-details-bin") {
            // It has that status inside.
            return None;
        }
        let told = |name| Some(response.headers().get(name)?.to_str().ok()?.replace("%20", " "));
        let (code, text) = (told("grpc-status")?, told("grpc-message")?);
        ctx.err().filter(|err| code == grpc_status(err).to_string() && text == message(err))
    }
}

/// As `grpc-message` wants it: all but visible ASCII and the blank, and the percent sign itself.
fn percent_encoded(text: &str) -> String {
    let encode = |byte| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
