//! Contexts for servers and clients of HTTP and gRPC (feature `tower`), as layers for axum, hyper, tonic and whatever else
//! is a `tower` service.
//!
//! On the server's side [`ContextLayer`] gives each request a context in its extensions: it ends with the deadline that the
//! caller has sent, with the shutdown of the server, when the client goes away, and when the exchange is over. On the
//! client's side [`PropagateLayer`] sends what remains of a context's time along, and ends the call with the context.
//!
//! ```
//! use context_merge::tower::{ContextLayer, Ended, PropagateLayer};
//! use context_merge::Context;
//! use http::{Request, Response};
//! use http_body_util::BodyExt;
//! use std::{convert::Infallible, time::Duration};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
//! let server = ServiceBuilder::new().layer(ContextLayer::new(&shutdown).limit(Duration::from_secs(30))).service_fn(
//!     async |request: Request<String>| {
//!         let ctx: &Context = request.extensions().get().unwrap();
//!         let left = ctx.remaining().unwrap();
//!         let audit = ctx.clone();
//!         tokio::spawn(async move { assert!(audit.done().await.cause().unwrap().is::<Ended>()) });
//!         Ok::<_, Infallible>(Response::new(format!("{left:?} left")))
//!     },
//! );
//!
//! // The same service on the other side of a wire: the layer of the client is the outer one.
//! let client = ServiceBuilder::new().layer(PropagateLayer::new()).service(server);
//! let mut request = Request::new(String::new());
//! request.extensions_mut().insert(Context::background().with_timeout(Duration::from_secs(2)));
//! let response = client.oneshot(request).await.unwrap();
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "2s left");
//! # drop(stop);
//! # }
//! ```

mod body;
mod client;
mod exchange;
mod server;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::Error;
use crate::http::{grpc_status, reason, status};

pub use body::ContextBody;
pub use client::{CallFuture, Propagate, PropagateLayer};
pub use exchange::Ended;
pub use server::{ContextLayer, ContextService, ResponseFuture};

/// What services of `tower` fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

const GRPC: &str = "application/grpc";
/// INVALID_ARGUMENT.
const INVALID: i32 = 3;

/// Whether a request is one of gRPC; gRPC-Web, which has no trailers, is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()?.strip_prefix(GRPC));
    kind.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// An answer in the place of the one that a finished context has ended.
fn ended<B>(grpc: bool, err: &Error) -> Response<ContextBody<B>> {
    answer(grpc, status(err), grpc_status(err), reason(err))
}

fn answer<B>(grpc: bool, status: StatusCode, grpc_status: i32, reason: String) -> Response<ContextBody<B>> {
    let (status, kind, headers, text) = if grpc {
        (StatusCode::OK, GRPC, trailers(grpc_status, &reason), Bytes::new())
    } else {
        (status, "text/plain; charset=utf-8", HeaderMap::new(), Bytes::from(reason))
    };
    let mut response = Response::new(ContextBody::of(text));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What ends an answer of gRPC.
fn trailers(status: i32, reason: &str) -> HeaderMap {
    let message = HeaderValue::from_str(&percent_encoded(reason)).expect("visible ASCII and blanks");
    HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), HeaderValue::from(status)),
        (http::HeaderName::from_static("grpc-message"), message),
    ])
}

/// As `grpc-message` wants it: all but visible ASCII and the blank, and the percent sign itself.
fn percent_encoded(text: &str) -> String {
    let encode = |byte| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
