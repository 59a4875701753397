//! Contexts in handlers of axum, without a socket.
#![cfg(all(feature = "axum", feature = "tower"))]

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use context_merge::axum::MissingContext;
use context_merge::tower::ContextLayer;
use context_merge::{Context, Error};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn ask(app: Router) -> (StatusCode, String) {
    told(app.oneshot(Request::new(Body::empty())).await.unwrap()).await
}

async fn told(response: impl IntoResponse) -> (StatusCode, String) {
    let response = response.into_response();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

#[tokio::test]
async fn a_handler_takes_the_context_of_its_request() {
    let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
    let app = Router::new()
        .route("/", get(async |ctx: Context| ctx.check().map(|()| "live")))
        .layer(ContextLayer::new(&shutdown));
    assert_eq!(ask(app.clone()).await, (StatusCode::OK, "live".into()));
    stop.cancel_with("SIGTERM");
    assert_eq!(ask(app).await, (StatusCode::SERVICE_UNAVAILABLE, "context cancelled".into()));
}

#[tokio::test]
async fn without_a_layer_it_is_refused_or_none() {
    let app = Router::new().route("/", get(async |_: Context| "called"));
    assert_eq!(ask(app).await, (StatusCode::INTERNAL_SERVER_ERROR, MissingContext.to_string()));
    let app = Router::new().route("/", get(async |ctx: Option<Context>| format!("{}", ctx.is_some())));
    assert_eq!(ask(app.clone()).await, (StatusCode::OK, "false".into()));
    assert_eq!(ask(app.layer(ContextLayer::new(Context::background()))).await, (StatusCode::OK, "true".into()));
}

#[tokio::test]
async fn errors_are_responses() {
    let late = Error::deadline_exceeded().with_cause("the report took too long");
    let kept = late.clone().into_response().extensions().get::<Error>().cloned().expect("for layers that log");
    assert_eq!(kept.cause().unwrap().to_string(), "the report took too long");
    assert_eq!(told(late).await, (StatusCode::GATEWAY_TIMEOUT, "context deadline exceeded".into()), "not the cause");
    assert_eq!(told(Error::cancelled()).await, (StatusCode::SERVICE_UNAVAILABLE, "context cancelled".into()));
    let invalid = context_merge::http::TimeoutHeader::Connect.decode(&"soon".parse().unwrap()).unwrap_err();
    let text = "invalid connect-timeout-ms \"soon\": not one to ten digits";
    assert_eq!(told(invalid).await, (StatusCode::BAD_REQUEST, text.into()));
}

/// Each is there, and neither hides the other; a context that a handler's own layer puts in hides only the request's.
#[tokio::test]
async fn a_handler_takes_the_context_of_its_server() {
    use context_merge::tower::ServerContext;

    let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
    let handler = async |ctx: Context, server: ServerContext| {
        let value = *server.context().value::<&str>().unwrap_or(&"none");
        format!("{} {} {value}", ctx.deadline().is_some(), server.context().deadline().is_some())
    };
    let layer = ContextLayer::new(&shutdown).limit(std::time::Duration::from_secs(60));
    let layer = layer.values(|_, ctx| ctx.with_value("alice"));
    let app = Router::new().route("/", get(handler));
    assert_eq!(ask(app.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask(app.clone().layer(layer.clone())).await, (StatusCode::OK, "true false alice".into()));
    let hidden = app.layer(axum::Extension(Context::background())).layer(layer);
    assert_eq!(ask(hidden).await, (StatusCode::OK, "false false alice".into()));
    drop(stop);
}
