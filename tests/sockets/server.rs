//! A server on loopback whose contexts can be looked at.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use context_merge::tower::{ContextLayer, Ended};
use context_merge::{Context, Error};
use futures::{StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedReceiver};

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) contexts: UnboundedReceiver<Context>,
}

impl Server {
    pub(crate) async fn start(layer: ContextLayer, routes: Router) -> Server {
        let (layer, contexts) = watched(layer);
        Server { address: serve(routes.layer(layer)).await, contexts }
    }

    /// The context of the next request, in the order in which they arrived.
    pub(crate) async fn context(&mut self) -> Context {
        self.contexts.recv().await.expect("a server that lives")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// `layer`, and the contexts that it gives.
pub(crate) fn watched(layer: ContextLayer) -> (ContextLayer, UnboundedReceiver<Context>) {
    let (sender, contexts) = mpsc::unbounded_channel();
    let layer = layer.values(move |_, ctx| {
        let _ = sender.send(ctx.clone());
        ctx
    });
    (layer, contexts)
}

pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    address
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// A body that has begun, and does not end.
pub(crate) fn tick() -> Body {
    Body::from_stream(stream::iter([Ok::<_, Infallible>("tick")]).chain(stream::pending()))
}

/// A layer with a shutdown that never comes.
pub(crate) fn layer() -> ContextLayer {
    ContextLayer::new(Context::background())
}

/// How the exchange ended that `err` comes from.
pub(crate) fn how(err: &Error) -> Option<Ended> {
    err.cause()?.downcast_ref().copied()
}

/// How the exchange ends, once it has.
pub(crate) async fn end(ctx: &Context) -> Option<Ended> {
    how(&ctx.done().await)
}
