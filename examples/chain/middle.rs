//! The hop in between: gRPC in, gRPC out.

use context_merge::Context;
use context_merge::tonic::RequestExt;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::BoxError;
use crate::hop;
use crate::rpc::{Client, Steps, router};

pub(crate) async fn serve(listener: TcpListener, shutdown: Context, backend: Client) -> Result<(), BoxError> {
    Server::builder()
        .layer(hop::layer(&shutdown))
        .serve_with_incoming_shutdown(
            router(move |request| walk(backend.clone(), request)),
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async { drop(shutdown.done().await) },
        )
        .await?;
    Ok(())
}

async fn walk(mut backend: Client, request: Request<Steps>) -> Result<Response<Steps>, Status> {
    let ctx = request.context()?;
    backend.take(Request::new(request.into_inner()).with_context(ctx)).await
}
