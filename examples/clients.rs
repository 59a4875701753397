//! Calls that end with a context, with a client of hyper and one of reqwest: the time that is left goes along, the server
//! sees when the client gives up, and nothing is sent under a context that is finished.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use context_merge::tower::{BoxError, ContextBody, ContextLayer, PropagateLayer};
use context_merge::{Context, Error};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError + Send + Sync>> {
    let (gone, mut told) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/", get(async |ctx: Context| format!("{} ms left", ctx.remaining().unwrap_or_default().as_millis())))
        .route("/slow", get(async move |ctx: Context| wait(ctx, gone).await))
        .layer(ContextLayer::new(Context::background()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, app).into_future());

    // hyper's client is a service as it is.
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut hyper = ServiceBuilder::new().layer(PropagateLayer::new()).service(hyper);
    println!("hyper:");
    converse(&mut hyper, &url, Empty::new, &mut told).await?;

    // reqwest's takes requests of its own.
    let client = reqwest::Client::new();
    let mut reqwest =
        ServiceBuilder::new().layer(PropagateLayer::new()).service(service_fn(move |request| {
            let client = client.clone();
            async move {
                Ok::<_, BoxError>(Response::<reqwest::Body>::from(client.execute(reqwest_request(request)?).await?))
            }
        }));
    println!("reqwest:");
    converse(&mut reqwest, &url, || reqwest::Body::from(""), &mut told).await
}

fn reqwest_request(request: Request<reqwest::Body>) -> reqwest::Result<reqwest::Request> {
    request.try_into()
}

/// A handler that takes too long, and tells why it ended.
async fn wait(ctx: Context, gone: mpsc::UnboundedSender<Error>) -> Result<Infallible, Error> {
    // In a task of its own: the handler is dropped when the client goes away.
    tokio::spawn(async move { gone.send(ctx.done().await) });
    std::future::pending().await
}

async fn converse<S, A, B>(
    client: &mut S,
    url: &str,
    body: impl Fn() -> A,
    gone: &mut mpsc::UnboundedReceiver<Error>,
) -> Result<(), BoxError>
where
    S: Service<Request<A>, Response = Response<ContextBody<B>>, Error = BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    let (ctx, canceller) = Context::background().with_timeout(Duration::from_secs(5)).with_cancel();
    let request = |path: &str| {
        let request = Request::get(format!("{url}{path}")).extension(ctx.clone());
        request.body(body())
    };

    let response = client.ready().await?.call(request("/")?).await?;
    let answer = response.into_body().collect().await?.to_bytes();
    println!("  the server says: {}", String::from_utf8_lossy(&answer));

    let call = client.ready().await?.call(request("/slow")?);
    let hang_up = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        canceller.cancel_with("the user has closed the window");
    };
    let (call, ()) = futures::join!(call, hang_up);
    let err = call.err().ok_or("the call should have ended")?;
    println!("  the call has ended: {}", because(err.downcast_ref().ok_or("not by its context")?));
    println!("  the server saw: {}", because(&gone.recv().await.ok_or("no server")?));

    let refused = client.ready().await?.call(request("/")?).await;
    refused.err().ok_or("the call should not have been made")?;
    println!("  nothing is sent after that");
    Ok(())
}

fn because(err: &Error) -> String {
    context_merge::http::reason(err)
}
