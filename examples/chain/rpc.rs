//! `service Walk { rpc Take(Steps) returns (Steps); }`, by hand, since what makes it of a file needs protoc. Prost's derive
//! and its codec are less code than a codec of our own.

use std::future::Future;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::uri::PathAndQuery;
use axum::routing::post;
use context_merge::tower::Propagate;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, client, server};
use tonic_prost::ProstCodec;
use tower::service_fn;

const TAKE: &str = "/chain.Walk/Take";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Steps {
    #[prost(uint32, tag = "1")]
    pub(crate) count: u32,
}

/// A server that takes steps with `take`.
pub(crate) fn router<F, R>(take: F) -> Router
where
    F: Fn(Request<Steps>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response<Steps>, Status>> + Send + 'static,
{
    let serve = |request: HttpRequest| async {
        server::Grpc::new(ProstCodec::default()).unary(service_fn(take), request).await
    };
    Router::new().route(TAKE, post(serve))
}

#[derive(Clone)]
pub(crate) struct Client(client::Grpc<Propagate<Channel>>);

impl Client {
    pub(crate) fn new(channel: Propagate<Channel>) -> Client {
        Client(client::Grpc::new(channel))
    }

    pub(crate) async fn take(&mut self, request: Request<Steps>) -> Result<Response<Steps>, Status> {
        self.0.ready().await.map_err(|err| Status::unavailable(err.to_string()))?;
        self.0.unary(request, PathAndQuery::from_static(TAKE), ProstCodec::default()).await
    }
}
