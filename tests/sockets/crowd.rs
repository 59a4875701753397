//! A thousand clients that hang up at once.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Extension, Router};
use context_merge::tower::{ContextLayer, Ended};
use context_merge::{Context, FutureExt, merge};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};
use tower::service_fn;

use crate::client::{self, Client, HangUp};
use crate::run;
use crate::server::{end, listen, tick, watched};

/// How so many connections hang up, on how many requests that have no response yet, and on how many bodies.
const CROWD: [(usize, HangUp, usize, usize); 4] = [
    (100, HangUp::Http1, 1, 0),
    (100, HangUp::Http1, 0, 1),
    (4, HangUp::Http2, 50, 50),
    (4, HangUp::Http2Stream, 50, 50),
];

#[test]
fn leaves_nothing_behind() {
    run(thousand_clients(|layer| layer));
    run(thousand_clients(ContextLayer::enforce));
}

async fn thousand_clients(layer: fn(ContextLayer) -> ContextLayer) {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (shutdown, stop) = Context::background().with_cancel();
    // Held by what is registered with a context, and by the connections.
    let (callbacks, connections) = (Arc::new(()), Arc::new(()));
    let held = || (Arc::strong_count(&callbacks), Arc::strong_count(&connections));
    let (layer, mut contexts) = watched(layer(ContextLayer::new(&shutdown)));
    let watch = {
        let (shutdown, callbacks) = (shutdown.clone(), Arc::clone(&callbacks));
        from_fn(move |request: Request, next: Next| {
            let ctx = request.extensions().get::<Context>().unwrap();
            let held = Arc::clone(&callbacks);
            ctx.on_done(move |_| drop(held)).detach();
            tokio::spawn(pending::<()>().with_context(merge(ctx, &shutdown)));
            next.run(request)
        })
    };
    let app = Router::new()
        .route("/parked", get(pending::<()>))
        .route("/ticks", get(async || tick()))
        .layer(watch)
        .layer(layer);
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let each = Arc::clone(&connections);
    let connection = service_fn(move |_: IncomingStream<'_, TcpListener>| {
        ready(Ok::<_, Infallible>(app.clone().layer(Extension(Arc::clone(&each)))))
    });
    let server = tokio::spawn(axum::serve(listener, connection).into_future());
    let at_rest = (tasks(), held());

    let at_once = Arc::new(Barrier::new(1 + CROWD.iter().map(|(connections, ..)| connections).sum::<usize>()));
    let mut clients = JoinSet::new();
    for (connections, way, parked, ticks) in CROWD {
        for _ in 0..connections {
            let at_once = Arc::clone(&at_once);
            clients.spawn(async move {
                let mut client = Client::connect(way.version(), address).await;
                let parked: Vec<_> = (0..parked).map(|_| client.send(client::get("/parked"))).collect();
                let mut bodies = Vec::new();
                for _ in 0..ticks {
                    let mut response = client.send(client::get("/ticks")).await.unwrap();
                    response.frame().await.unwrap().unwrap();
                    bodies.push(response);
                }
                at_once.wait().await;
                client.hang_up(way, (parked, bodies));
            });
        }
    }
    let mut seen = Vec::new();
    while seen.len() < 1000 {
        seen.push(contexts.recv().await.unwrap());
    }
    assert!(held().0 > 1000 && held().1 > 200);
    at_once.wait().await;

    clients.join_all().await;
    let mut in_body = 0;
    for ctx in &seen {
        match end(ctx).await {
            Some(Ended::BeforeResponse) => {}
            Some(Ended::InBody) => in_body += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(in_body, 500);
    while tasks() > at_rest.0 {
        yield_now().await;
    }
    assert_eq!(held(), at_rest.1);
    assert!(!server.is_finished() && !shutdown.is_done());
    drop(stop);
}
