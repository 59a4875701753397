//! The edge: HTTP in, gRPC out.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use context_merge::Context;
use context_merge::tonic::RequestExt;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status};

use crate::BoxError;
use crate::hop;
use crate::rpc::{Client, Steps};

/// For clients that set no deadline.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn serve(listener: TcpListener, shutdown: Context, middle: Client) -> Result<(), BoxError> {
    let layer = hop::layer(&shutdown).limit(LIMIT);
    let app = Router::new().route("/{steps}", get(walk)).with_state(middle).layer(layer);
    axum::serve(listener, app).with_graceful_shutdown(async move { drop(shutdown.done().await) }).await?;
    Ok(())
}

async fn walk(
    ctx: Context,
    State(mut middle): State<Client>,
    Path(count): Path<u32>,
) -> Result<String, (StatusCode, String)> {
    let request = Request::new(Steps { count }).with_context(ctx);
    let taken = middle.take(request).await.map_err(told)?.into_inner();
    Ok(format!("{} steps", taken.count))
}

/// What the client is told when a call has failed.
fn told(status: Status) -> (StatusCode, String) {
    let code = match status.code() {
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    (code, status.message().to_owned())
}
