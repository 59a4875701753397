//! `service Numbers { rpc Double(Number) returns (Number); rpc Count(Number) returns (stream Number); rpc Forever(Number)
//! returns (Number); }`, by hand, since what makes it of a file needs protoc.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::http::uri::PathAndQuery;
use axum::routing::post;
use context_merge::StreamExt as _;
use context_merge::tonic::RequestExt;
use futures::{Stream, stream};
use tonic::server::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming, client};
use tonic_prost::ProstCodec;
use tower::service_fn;

const WORK: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(20);
const DOUBLE: &str = "/service.Numbers/Double";
const COUNT: &str = "/service.Numbers/Count";
const FOREVER: &str = "/service.Numbers/Forever";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
}

pub(crate) fn router() -> Router {
    let double = async |request: HttpRequest| codec().unary(service_fn(double), request).await;
    let count = async |request: HttpRequest| codec().server_streaming(service_fn(count), request).await;
    let forever = async |request: HttpRequest| codec().unary(service_fn(forever), request).await;
    Router::new().route(DOUBLE, post(double)).route(COUNT, post(count)).route(FOREVER, post(forever))
}

fn codec() -> Grpc<ProstCodec<Number, Number>> {
    Grpc::new(ProstCodec::default())
}

async fn double(request: Request<Number>) -> Result<Response<Number>, Status> {
    let ctx = request.context()?;
    ctx.sleep(WORK).await?;
    Ok(Response::new(Number { value: 2 * request.into_inner().value }))
}

/// Has no end of its own: it ends cleanly, with status 0, when the server drains.
async fn count(request: Request<Number>) -> Result<Response<impl Stream<Item = Result<Number, Status>>>, Status> {
    let server = request.server_context()?;
    let numbers = stream::unfold(request.into_inner().value, async |value| {
        tokio::time::sleep(TICK).await;
        Some((Ok(Number { value }), value + 1))
    });
    Ok(Response::new(numbers.take_until_done(server.draining())))
}

async fn forever(_: Request<Number>) -> Result<Response<Number>, Status> {
    pending().await
}

#[derive(Clone)]
pub(crate) struct Client(client::Grpc<Channel>);

impl Client {
    pub(crate) fn new(channel: Channel) -> Client {
        Client(client::Grpc::new(channel))
    }

    pub(crate) async fn double(&mut self, value: u64) -> Result<u64, Status> {
        self.unary(DOUBLE, value).await
    }

    pub(crate) async fn forever(&mut self) -> Result<u64, Status> {
        self.unary(FOREVER, 0).await
    }

    pub(crate) async fn count(&mut self) -> Result<Streaming<Number>, Status> {
        self.ready().await?;
        let (request, path) = (Request::new(Number { value: 0 }), PathAndQuery::from_static(COUNT));
        let codec: ProstCodec<Number, Number> = ProstCodec::default();
        Ok(self.0.server_streaming(request, path, codec).await?.into_inner())
    }

    async fn unary(&mut self, path: &'static str, value: u64) -> Result<u64, Status> {
        self.ready().await?;
        let (request, path) = (Request::new(Number { value }), PathAndQuery::from_static(path));
        let codec: ProstCodec<Number, Number> = ProstCodec::default();
        Ok(self.0.unary(request, path, codec).await?.into_inner().value)
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|err| Status::from_error(err.into()))
    }
}
