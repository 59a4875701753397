//! Clients that go away: before the handler, in it, and in the body.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use context_merge::tower::Ended;
use context_merge::{Context, Error};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::client::{self, Client, HangUp};
use crate::run;
use crate::server::{Server, end, how, layer, serve, tick, watched};

fn each_way<F: Future>(test: impl Fn(HangUp) -> F) {
    for way in HangUp::WAYS {
        println!("{way:?}");
        run(test(way));
    }
}

/// Handlers, and how the work ends that they have started under their contexts.
fn routes() -> (Router, UnboundedReceiver<Error>) {
    let (sender, ended) = mpsc::unbounded_channel();
    let work = move |ctx: Context| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(ctx.run(pending::<()>()).await.unwrap_err()) });
    };
    let in_body = work.clone();
    let routes = Router::new()
        .route("/live", get(async || {}))
        .route(
            "/parked",
            get(async move |ctx: Context| {
                work(ctx);
                pending::<()>().await
            }),
        )
        .route(
            "/ticks",
            get(async move |ctx: Context| {
                in_body(ctx);
                tick()
            }),
        );
    (routes, ended)
}

/// After a reset the other streams of the connection go on.
async fn lives_on(way: HangUp, mut client: Client) {
    if way == HangUp::Http2Stream {
        assert_eq!(client::read(client.send(client::get("/live"))).await.0, 200);
    }
}

#[test]
fn in_the_handler() {
    each_way(async |way| {
        let (routes, mut work) = routes();
        let mut server = Server::start(layer(), routes).await;
        let mut client = Client::connect(way.version(), server.address).await;
        let answer = client.send(client::get("/parked"));
        let ctx = server.context().await;
        client.hang_up(way, answer);
        assert_eq!(end(&ctx).await, Some(Ended::BeforeResponse));
        assert_eq!(how(&work.recv().await.unwrap()), Some(Ended::BeforeResponse));
        lives_on(way, client).await;
    });
}

#[test]
fn in_the_body() {
    each_way(async |way| {
        let (routes, mut work) = routes();
        let mut server = Server::start(layer(), routes).await;
        let mut client = Client::connect(way.version(), server.address).await;
        let mut response = client.send(client::get("/ticks")).await.unwrap();
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "tick");
        let ctx = server.context().await;
        assert!(!ctx.is_done());
        client.hang_up(way, response);
        assert_eq!(end(&ctx).await, Some(Ended::InBody));
        assert_eq!(how(&work.recv().await.unwrap()), Some(Ended::InBody));
        lives_on(way, client).await;
    });
}

/// A middleware that lets nothing pass but `/live`.
#[derive(Clone, Default)]
struct Gate {
    arrived: Arc<Notify>,
    gone: Arc<Notify>,
}

impl Gate {
    async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
        if request.uri().path() != "/live" {
            gate.arrived.notify_one();
            let _gone = Gone(gate.gone);
            pending::<()>().await;
        }
        next.run(request).await
    }
}

struct Gone(Arc<Notify>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[test]
fn before_the_layer_there_is_no_context() {
    each_way(async |way| {
        let gate = Gate::default();
        let (layer, contexts) = watched(layer());
        let app = routes().0.layer(layer).layer(from_fn_with_state(gate.clone(), Gate::pass));
        let address = serve(app).await;
        let mut client = Client::connect(way.version(), address).await;
        let answer = client.send(client::get("/parked"));
        gate.arrived.notified().await;
        client.hang_up(way, answer);
        gate.gone.notified().await;
        assert!(contexts.is_empty());
        lives_on(way, client).await;
    });
}

#[test]
fn between_the_layer_and_the_handler() {
    each_way(async |way| {
        let gate = Gate::default();
        let never = get(async || -> () { panic!("called") });
        let routes = routes().0.route("/never", never).layer(from_fn_with_state(gate.clone(), Gate::pass));
        let mut server = Server::start(layer(), routes).await;
        let mut client = Client::connect(way.version(), server.address).await;
        let answer = client.send(client::get("/never"));
        let ctx = server.context().await;
        gate.arrived.notified().await;
        assert!(!ctx.is_done());
        client.hang_up(way, answer);
        assert_eq!(end(&ctx).await, Some(Ended::BeforeResponse));
        gate.gone.notified().await;
        lives_on(way, client).await;
    });
}

/// hyper leaves the handler alone and ends the body that it reads; how the exchange ends is up to what it makes of that.
#[test]
fn while_the_body_of_the_request_is_read() {
    each_way(async |way| {
        let (reading, mut read) = mpsc::unbounded_channel();
        let upload = async move |body: Body| {
            let mut body = body.into_data_stream();
            while let Some(data) = body.next().await {
                reading.send(data.is_ok()).unwrap();
                if data.is_err() {
                    break;
                }
            }
        };
        let mut server = Server::start(layer(), routes().0.route("/upload", post(upload))).await;
        let mut client = Client::connect(way.version(), server.address).await;
        let half = Body::from_stream(stream::iter([Ok::<_, Infallible>("half")]).chain(stream::pending()));
        let answer = client.send(Request::post("http://localhost/upload").body(half).unwrap());
        assert!(read.recv().await.unwrap());
        let ctx = server.context().await;
        assert!(!ctx.is_done());
        client.hang_up(way, answer);
        assert!(!read.recv().await.unwrap());
        assert!(end(&ctx).await.is_some());
        lives_on(way, client).await;
    });
}

#[test]
fn curl_whose_time_is_up() {
    run(async {
        let (routes, _work) = routes();
        let mut server = Server::start(layer(), routes).await;
        for (path, ended) in [("/parked", Ended::BeforeResponse), ("/ticks", Ended::InBody)] {
            for version in ["--http1.1", "--http2-prior-knowledge"] {
                let url = server.url(path);
                let Some(output) = client::curl(["--max-time", "0.5", version, &url]).await else { return };
                // Some are built without HTTP/2.
                if output.status.code() != Some(2) {
                    assert_eq!(output.status.code(), Some(28), "its time is up: {output:?}");
                    assert_eq!(end(&server.context().await).await, Some(ended), "{version} {path}");
                }
            }
        }
    });
}
