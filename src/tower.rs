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
//!
//! # What happened, and what is told
//! The first column is what the context of a request says in the end: its error, or the [`Ended`] that is the cause of its
//! cancel.
//!
//! | in the end | what happened | told on HTTP/1.1 | on HTTP/2 | by gRPC |
//! |---|---|---|---|---|
//! | `Complete` | the last of the response was handed on | the response | the response | its status |
//! | `InRequest` | the client went away while it sent the request, seen by a [`ReadAheadLayer`] | | | |
//! | `BeforeResponse` | the client closed the connection or reset the stream, or a layer further out dropped the call (a timeout's 408: the two cannot be told apart) | | | |
//! | `InBody` | the same, in the middle of the response | | | |
//! | `Failed` | the service has failed | the connection is closed | the stream is reset | the stream is reset |
//! | `Failed` | the body has failed | no last chunk, and a close | the stream is reset | what tonic makes of it |
//! | `Panicked` | the handler or the body has panicked | the connection is closed | the stream is reset | the stream is reset |
//! | `HeadLimit` | no head in time ([`head_limit`](ContextLayer::head_limit)) | 504 | 504 | 4 |
//! | deadline, origin `caller` | the time in the request's headers is up | 504 ° | 504 ° | 4 ° |
//! | deadline, origin `limit` | the server's [limit](ContextLayer::limit) | 504 ° | 504 ° | 4 ° |
//! | the shutdown's error | the server stops | 503 ° | 503 ° | 14 ° |
//! | another cancel | a context of a layer further out | 503 ° | 503 ° | 1 ° |
//!
//! ° By a layer that [enforces](ContextLayer::enforce), or a handler that answers with the error. Where the response has
//! begun: no last chunk and a close, a reset stream, or trailers with that status.
//!
//! What cannot be seen from a layer: a client with a timer of its own, as every client of gRPC with a deadline, resets the
//! stream when its time is up, and what arrives first wins: mostly `BeforeResponse`. Without a
//! [`ReadAheadLayer`] a client that hangs up while it sends its request is an error of that body, in the handler's hand, and
//! the exchange ends as what the handler makes of that. `Complete` says that the server has taken the last of the
//! response, not that the client has. A layer that logs finds the [`Error`](crate::Error) that has ended an exchange in the
//! extensions of the response.

mod answer;
mod body;
mod client;
mod exchange;
mod layer;
mod read_ahead;
mod server;
mod server_context;

#[doc(inline)]
pub use crate::Ended;
pub use answer::Answer;
pub use body::ContextBody;
pub use client::{CallFuture, Propagate, PropagateLayer};
pub use layer::ContextLayer;
pub use read_ahead::{ReadAhead, ReadAheadBody, ReadAheadFuture, ReadAheadLayer, ReadAheadResponseBody};
pub use server::{ContextService, ResponseFuture};
pub use server_context::ServerContext;
#[cfg(feature = "tonic")]
pub(crate) use server_context::is_shutdown;

/// What services of `tower` fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
