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
    assert_eq!(ask(app).await, (StatusCode::SERVICE_UNAVAILABLE, "context cancelled (shutdown): SIGTERM".into()));
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
    let text = "context deadline exceeded: the report took too long";
    assert_eq!(told(late).await, (StatusCode::GATEWAY_TIMEOUT, text.into()));
    assert_eq!(told(Error::cancelled()).await, (StatusCode::SERVICE_UNAVAILABLE, "context cancelled".into()));
    let invalid = context_merge::http::TimeoutHeader::Connect.decode(&"soon".parse().unwrap()).unwrap_err();
    let text = "invalid connect-timeout-ms \"soon\": not one to ten digits";
    assert_eq!(told(invalid).await, (StatusCode::BAD_REQUEST, text.into()));
}
