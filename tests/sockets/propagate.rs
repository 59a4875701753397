//! hyper's pooled client under contexts.

use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use context_merge::http::TimeoutHeader;
use context_merge::tower::{BoxError, ContextLayer, Ended, Propagate, PropagateLayer};
use context_merge::{Context, Error};
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};

use crate::client::VERSIONS;
use crate::run;
use crate::server::{Server, end, layer, tick};

const MINUTE: Duration = Duration::from_secs(60);

type Pool = Propagate<Client<HttpConnector, Body>>;

fn pool(layer: PropagateLayer, version: Version) -> Pool {
    layer.layer(Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http())
}

fn routes() -> Router {
    let timeout = async |headers: HeaderMap| headers["grpc-timeout"].to_str().unwrap().to_owned();
    Router::new()
        .route("/live", get(async || "live"))
        .route("/timeout", get(timeout))
        .route("/parked", get(pending::<()>))
        .route("/ticks", get(async || tick()))
}

fn request(url: String, ctx: &Context) -> Request<Body> {
    Request::get(url).extension(ctx.clone()).body(Body::empty()).unwrap()
}

async fn ask(pool: &Pool, url: String, ctx: &Context) -> Result<String, BoxError> {
    let body = pool.clone().oneshot(request(url, ctx)).await?.into_body().collect().await?;
    Ok(String::from_utf8(body.to_bytes().into())?)
}

fn cause(err: &BoxError) -> String {
    err.downcast_ref::<Error>().expect("the context's").cause().expect("given").to_string()
}

#[test]
fn the_server_has_less_time_than_was_given() {
    for version in VERSIONS {
        run(async {
            let mut server = Server::start(layer(), routes()).await;
            let ctx = Context::background().with_timeout(MINUTE);
            let pool = pool(PropagateLayer::new(), version);
            let sent = ask(&pool, server.url("/timeout"), &ctx).await.unwrap();
            let sent = TimeoutHeader::Grpc.decode(&sent.parse().unwrap()).unwrap();
            let seen = server.context().await.remaining().unwrap();
            assert!(MINUTE / 2 < seen && seen < sent && sent < MINUTE, "{seen:?} {sent:?}");
        });
    }
}

#[test]
fn nothing_is_sent_under_a_finished_context() {
    run(async {
        let mut server = Server::start(layer(), routes()).await;
        let (ctx, canceller) = Context::background().with_cancel();
        canceller.cancel_with("too late");
        let of_all = pool(PropagateLayer::of(&ctx), Version::HTTP_11);
        let pool = pool(PropagateLayer::new(), Version::HTTP_11);
        assert_eq!(cause(&ask(&pool, server.url("/live"), &ctx).await.unwrap_err()), "too late");
        let background = Context::background();
        assert_eq!(cause(&ask(&of_all, server.url("/live"), &background).await.unwrap_err()), "too late");
        assert_eq!(ask(&pool, server.url("/live"), &background).await.unwrap(), "live");
        server.context().await;
        assert!(server.contexts.is_empty(), "only the last has arrived");
    });
}

#[test]
fn a_call_that_is_cancelled_ends_at_the_server() {
    for version in VERSIONS {
        run(async {
            let mut server = Server::start(layer(), routes()).await;
            let (ctx, canceller) = Context::background().with_cancel();
            let pool = pool(PropagateLayer::new(), version);
            let call = tokio::spawn(pool.clone().oneshot(request(server.url("/parked"), &ctx)));
            let seen = server.context().await;
            canceller.cancel_with("never mind");
            assert_eq!(cause(&call.await.unwrap().unwrap_err()), "never mind");
            assert_eq!(end(&seen).await, Some(Ended::BeforeResponse), "{version:?}");
            assert_eq!(ask(&pool, server.url("/live"), &Context::background()).await.unwrap(), "live");
        });
    }
}

#[test]
fn a_body_that_is_cancelled_ends_at_the_server() {
    for version in VERSIONS {
        run(async {
            let mut server = Server::start(layer(), routes()).await;
            let (ctx, canceller) = Context::background().with_cancel();
            let pool = pool(PropagateLayer::new(), version);
            let mut response = pool.clone().oneshot(request(server.url("/ticks"), &ctx)).await.unwrap();
            assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "tick");
            let seen = server.context().await;
            canceller.cancel_with("never mind");
            assert_eq!(cause(&response.frame().await.unwrap().unwrap_err()), "never mind");
            assert_eq!(end(&seen).await, Some(Ended::InBody), "{version:?}, with the response still in the hand");
            assert!(response.frame().await.is_none());
        });
    }
}

/// A client of the front, which asks the back: what ends one ends all.
#[test]
fn a_chain_of_servers() {
    for version in VERSIONS {
        run(async {
            let mut back = Server::start(layer(), routes()).await;
            let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
            let (url, inner) = (back.url("/parked"), pool(PropagateLayer::new(), version));
            let relay = async move |ctx: Context| ask(&inner, url, &ctx).await.unwrap_or_else(|err| cause(&err));
            let routes = Router::new().route("/", get(relay));
            let mut front = Server::start(ContextLayer::new(shutdown).limit(MINUTE), routes).await;

            let outer = pool(PropagateLayer::new(), version);
            let (ctx, hang_up) = Context::background().with_cancel();
            let call = tokio::spawn(outer.clone().oneshot(request(front.url("/"), &ctx)));
            let (at_front, at_back) = (front.context().await, back.context().await);
            assert!(at_front.deadline().is_some() && at_back.deadline().is_some());
            hang_up.cancel_with("stop button");
            assert_eq!(cause(&call.await.unwrap().unwrap_err()), "stop button");
            assert_eq!(end(&at_back).await, Some(Ended::BeforeResponse));

            let (front_url, background) = (front.url("/"), Context::background());
            let call = tokio::spawn(async move { ask(&outer, front_url, &background).await });
            let at_back = back.context().await;
            stop.cancel_with("SIGTERM");
            assert_eq!(call.await.unwrap().unwrap(), "SIGTERM");
            assert_eq!(end(&at_back).await, Some(Ended::BeforeResponse));
        });
    }
}
