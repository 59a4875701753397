//! What the three processes have in common.

use std::net::Ipv4Addr;
use std::{io, thread};

use context_merge::tower::{ContextLayer, PropagateLayer};
use context_merge::{Context, merge};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Endpoint;
use tower::Layer;
use tracing::info;

use crate::rpc::Client;

/// Where it listens, and its shutdown.
pub(crate) async fn start() -> io::Result<(TcpListener, Context)> {
    tracing_subscriber::fmt().with_target(false).init();
    let shutdown = shutdown()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    info!("LISTENING on http://{}", listener.local_addr()?);
    Ok((listener, shutdown))
}

/// Done on SIGTERM; and on the end of stdin, which comes when whoever started this process is gone.
fn shutdown() -> io::Result<Context> {
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = Context::background().named("shutdown");
    let (signalled, stop) = shutdown.with_cancel();
    tokio::spawn(async move {
        terminate.recv().await;
        stop.cancel_with("SIGTERM");
    });
    let (attended, leave) = shutdown.with_cancel();
    thread::spawn(move || {
        // An error ends it too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        leave.cancel_with("end of stdin");
    });
    Ok(merge(signalled, attended))
}

/// The next hop.
pub(crate) fn connect(url: &str) -> Result<Client, tonic::transport::Error> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect_lazy();
    Ok(Client::new(PropagateLayer::new().layer(channel)))
}

/// Ends requests with their contexts, and logs how much time is left when they arrive, and how they end.
pub(crate) fn layer(shutdown: &Context) -> ContextLayer {
    ContextLayer::new(shutdown).enforce().values(|_, ctx| {
        info!(left_us = ctx.remaining().map(|left| left.as_micros()), "ARRIVED");
        log_finish(&ctx);
        ctx
    })
}

fn log_finish(ctx: &Context) {
    ctx.on_done(|err| {
        let cause = err.cause().map(tracing::field::display);
        info!(kind = ?err.kind(), origin = err.origin(), cause, "context finished");
    })
    .detach();
}
