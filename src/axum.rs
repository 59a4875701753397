//! Contexts in handlers of axum (feature `axum`): [`Context`] is an extractor, and [`Error`] a response.
//!
//! ```
//! use axum::{Router, routing::get};
//! use context_merge::{Context, Error, tower::ContextLayer};
//! use std::time::Duration;
//!
//! async fn report(ctx: Context) -> Result<String, Error> {
//!     ctx.sleep(Duration::from_millis(10)).await?;
//!     Ok(format!("{:?} left", ctx.remaining()))
//! }
//!
//! let app: Router = Router::new().route("/report", get(report)).layer(ContextLayer::new(Context::background()));
//! ```

use std::convert::Infallible;
use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::http::{InvalidTimeout, message, status};
#[cfg(feature = "tower")]
use crate::tower::ServerContext;
use crate::{Context, Error};

/// The context that a layer has put in the request's extensions, as
/// [`ContextLayer`](https://docs.rs/context-merge/latest/context_merge/tower/struct.ContextLayer.html) does.
///
/// `Option<Context>` is None where there is none; `Context` refuses such a request with [`MissingContext`].
impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = MissingContext;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Context, MissingContext> {
        head.extensions.get().cloned().ok_or(MissingContext)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Option<Context>, Infallible> {
        Ok(head.extensions.get().cloned())
    }
}

/// What goes on after the response takes its context from here. A request that no
/// [`ContextLayer`](crate::tower::ContextLayer) has seen is refused with [`MissingContext`].
#[cfg(feature = "tower")]
impl<S: Sync> FromRequestParts<S> for ServerContext {
    type Rejection = MissingContext;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<ServerContext, MissingContext> {
        head.extensions.get().cloned().ok_or(MissingContext)
    }
}

/// A request without a context: the layer that makes one is missing. As a response it is 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingContext;

impl fmt::Display for MissingContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no context in the extensions of the request: a ContextLayer is missing")
    }
}

impl std::error::Error for MissingContext {}

impl IntoResponse for MissingContext {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

/// 504 where the deadline was first, 503 where a cancel was; the text is the kind of the error, and the error itself is in
/// the extensions of the response, for layers that log. A `ContextLayer` may tell it
/// [otherwise](https://docs.rs/context-merge/latest/context_merge/tower/struct.ContextLayer.html#method.answers).
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (status(&self), message(&self)).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// 400, with the header and what stood there.
impl IntoResponse for InvalidTimeout {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.to_string()).into_response()
    }
}
