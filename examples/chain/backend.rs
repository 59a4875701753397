//! The end of the chain: a loop on a thread of its own.

use std::thread;
use std::time::Duration;

use context_merge::tonic::RequestExt;
use context_merge::{Context, Error};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing::info;

use crate::BoxError;
use crate::hop;
use crate::rpc::{Steps, router};

/// However much time the caller leaves.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(1);

pub(crate) async fn serve(listener: TcpListener, shutdown: Context) -> Result<(), BoxError> {
    Server::builder()
        .layer(hop::layer(&shutdown).limit(LIMIT))
        .serve_with_incoming_shutdown(router(walk), TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            drop(shutdown.done().await)
        })
        .await?;
    Ok(())
}

async fn walk(request: Request<Steps>) -> Result<Response<Steps>, Status> {
    let ctx = request.context()?;
    let Steps { count } = request.into_inner();
    // Dropping this future does not end the loop; the context does.
    spawn_blocking(move || steps(&ctx, count)).await.map_err(|err| Status::internal(err.to_string()))??;
    Ok(Response::new(Steps { count }))
}

fn steps(ctx: &Context, count: u32) -> Result<(), Error> {
    info!(count, "LOOPING");
    for step in 0..count {
        ctx.check().inspect_err(|err| info!(step, "STOPPED: {err}"))?;
        thread::sleep(STEP);
    }
    Ok(())
}
