//! tonic's server and channel, with a service written by hand.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use context_merge::tonic::{RequestExt, StatusStreamExt};
use context_merge::tower::{BoxError, ContextLayer, Ended, Propagate, PropagateLayer, ReadAheadBody, ReadAheadLayer};
use context_merge::{Canceller, Context};
use futures::future::{BoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use http::Version;
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Layer, Service, service_fn};

use crate::client::Client;
use crate::run;
use crate::server::{end, layer, listen, watched};

const SOON: Duration = Duration::from_millis(30);
const MINUTE: Duration = Duration::from_secs(60);

/// Messages of text.
#[derive(Clone, Copy)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Text;
    type Decoder = Text;

    fn encoder(&mut self) -> Text {
        Text
    }

    fn decoder(&mut self) -> Text {
        Text
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Methods that heed their context, and methods that never end.
#[derive(Clone, Copy)]
struct Api;

impl Service<http::Request<Body>> for Api {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(Text);
        async move {
            Ok(match request.uri().path() {
                "/left" => grpc.unary(service_fn(left), request).await,
                "/heeding" => grpc.unary(service_fn(heeding), request).await,
                "/heeding/more" => grpc.unary(service_fn(heeding_with_more), request).await,
                "/parked" => grpc.unary(service_fn(parked), request).await,
                "/heeding/ticks" => grpc.server_streaming(service_fn(heeding_ticks), request).await,
                "/parked/ticks" => grpc.server_streaming(service_fn(parked_ticks), request).await,
                "/collect" => grpc.client_streaming(service_fn(collect), request).await,
                "/echo" => grpc.streaming(service_fn(echo), request).await,
                "/exact" => exact(),
                path => panic!("no method {path}"),
            })
        }
        .boxed()
    }
}

type Ticks = BoxStream<'static, Result<String, Status>>;

async fn left(request: Request<String>) -> Result<Response<String>, Status> {
    let left = request.context()?.remaining().unwrap_or_default();
    Ok(Response::new(left.as_nanos().to_string()))
}

async fn heeding(request: Request<String>) -> Result<Response<String>, Status> {
    Ok(request.context()?.run(pending()).await?)
}

/// Says more than the error of its context: metadata, and details where it is asked for them.
async fn heeding_with_more(request: Request<String>) -> Result<Response<String>, Status> {
    let status = Status::from(request.context()?.done().await);
    let details = request.into_inner();
    let metadata = tonic::metadata::MetadataMap::from_headers(http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-host-ip"),
        http::HeaderValue::from_static("127.0.0.1"),
    )]));
    Err(Status::with_details_and_metadata(status.code(), status.message(), details.into(), metadata))
}

async fn parked(_: Request<String>) -> Result<Response<String>, Status> {
    pending().await
}

async fn heeding_ticks(request: Request<String>) -> Result<Response<Ticks>, Status> {
    let ctx = request.context()?;
    Ok(parked_ticks(request).await?.map(|ticks| ticks.until_done(&ctx).boxed()))
}

async fn parked_ticks(_: Request<String>) -> Result<Response<Ticks>, Status> {
    Ok(Response::new(stream::iter([Ok("tick".to_owned())]).chain(stream::pending()).boxed()))
}

/// All that the client sends, in one.
async fn collect(request: Request<Streaming<String>>) -> Result<Response<String>, Status> {
    Ok(Response::new(request.into_inner().try_collect::<Vec<_>>().await?.concat()))
}

/// Each as it comes, and in the end a status of its own.
async fn echo(request: Request<Streaming<String>>) -> Result<Response<Ticks>, Status> {
    let exhausted = stream::iter([Err(Status::resource_exhausted("enough"))]);
    Ok(Response::new(request.into_inner().chain(exhausted).boxed()))
}

/// A message whose size is told, and the status behind it.
fn exact() -> http::Response<Body> {
    let message = http_body_util::Full::new(Bytes::from_static(b"\0\0\0\0\x02ab"));
    let status = http::HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), 8.into()),
        (http::HeaderName::from_static("grpc-message"), http::HeaderValue::from_static("enough")),
    ]);
    let mut response = http::Response::new(Body::new(message.with_trailers(std::future::ready(Some(Ok(status))))));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

struct Served {
    address: SocketAddr,
    contexts: UnboundedReceiver<Context>,
}

impl Served {
    async fn start(layer: ContextLayer) -> Served {
        let (layer, contexts) = watched(layer);
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        tokio::spawn(Server::builder().layer(layer).serve_with_incoming(Api, TcpIncoming::from(listener)));
        Served { address, contexts }
    }

    async fn context(&mut self) -> Context {
        self.contexts.recv().await.expect("a server that lives")
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    async fn propagating(&self) -> Propagate<Channel> {
        PropagateLayer::new().layer(self.channel().await)
    }
}

fn request() -> Request<String> {
    Request::new(String::new())
}

fn under(ctx: &Context) -> Request<String> {
    request().with_context(ctx)
}

/// Calls a method; one that has one answer is for HTTP a stream of one.
async fn open<C>(client: C, path: &'static str, request: Request<String>) -> Result<Streaming<String>, Status>
where
    C: GrpcService<Body, ResponseBody: http_body::Body<Error: Into<BoxError>> + Send + 'static>,
{
    let mut grpc = tonic::client::Grpc::new(client);
    grpc.ready().await.map_err(|err| Status::from_error(err.into()))?;
    let answers = grpc.server_streaming(request, PathAndQuery::from_static(path), Text).await?;
    Ok(answers.into_inner())
}

/// The status with which a call ends, before its answers or after them.
async fn end_of<C>(client: C, path: &'static str, request: Request<String>) -> Status
where
    C: GrpcService<Body, ResponseBody: http_body::Body<Error: Into<BoxError>> + Send + 'static>,
{
    let answers = async { open(client, path, request).await?.try_collect::<Vec<_>>().await };
    answers.await.map_or_else(|status| status, |_| Status::ok(""))
}

mod the_server {
    use super::*;

    #[test]
    fn knows_the_deadline_that_tonic_does_not_show() {
        run(async {
            let mut server = Served::start(layer()).await;
            let mut request = request();
            request.set_timeout(MINUTE);
            let mut answers = open(server.channel().await, "/left", request).await.unwrap();
            let left: u128 = answers.message().await.unwrap().unwrap().parse().unwrap();
            assert!((MINUTE / 2).as_nanos() < left && left < MINUTE.as_nanos());
            assert!(server.context().await.deadline().is_some());
        });
    }

    /// Methods that heed their context, and others that are ended.
    fn layers(shutdown: &Context) -> [(ContextLayer, &'static str, &'static str); 2] {
        let layer = ContextLayer::new(shutdown);
        [(layer.clone(), "/heeding", "/heeding/ticks"), (layer.enforce(), "/parked", "/parked/ticks")]
    }

    #[test]
    fn is_unavailable_on_shutdown() {
        let told = "context cancelled";
        for (at, name) in [(0, "shutdown"), (0, "SIGTERM"), (1, "server")] {
            run(async {
                let (shutdown, stop) = Context::background().named(name).with_cancel();
                let (layer, one, many) = layers(&shutdown)[at].clone();
                let mut server = Served::start(layer).await;
                let channel = server.channel().await;
                let mut ticks = open(channel.clone(), many, request()).await.unwrap();
                assert_eq!(ticks.message().await.unwrap().unwrap(), "tick");
                let call = tokio::spawn(end_of(channel, one, request()));
                for _ in 0..2 {
                    server.context().await;
                }
                stop.cancel_with("SIGTERM");
                for status in [call.await.unwrap(), ticks.message().await.unwrap_err()] {
                    assert_eq!((status.code(), status.message()), (Code::Unavailable, told));
                }
            });
        }
    }

    /// As tonic's `status_with_metadata` and `status_with_details`. Details hold a status of their own, and are not changed.
    #[test]
    fn leaves_what_a_method_says_beside_its_status() {
        for (details, code) in [("", Code::Unavailable), ("details", Code::Cancelled)] {
            run(async {
                let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
                let mut server = Served::start(ContextLayer::new(&shutdown)).await;
                let channel = server.channel().await;
                let call = tokio::spawn(end_of(channel, "/heeding/more", Request::new(details.to_owned())));
                server.context().await;
                stop.cancel();
                let status = call.await.unwrap();
                assert_eq!((status.code(), status.message()), (code, "context cancelled"));
                assert_eq!(status.metadata().get("x-host-ip").expect("it was said"), "127.0.0.1");
                assert_eq!(status.details(), details.as_bytes());
            });
        }
    }

    /// As tonic's `cancelation_on_timeout`, with a client that has not sent all of its messages.
    #[test]
    fn ends_methods_whose_client_still_sends() {
        for path in ["/collect", "/echo"] {
            run(async {
                let server = Served::start(layer().limit(SOON).enforce()).await;
                let mut grpc = tonic::client::Grpc::new(server.channel().await);
                grpc.ready().await.unwrap();
                let sent = Request::new(stream::iter(["a".to_owned()]).chain(stream::pending()));
                let path = PathAndQuery::from_static(path);
                let answers =
                    async { grpc.streaming(sent, path, Text).await?.into_inner().try_collect::<Vec<_>>().await };
                let status = answers.await.unwrap_err();
                assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
            });
        }
    }

    /// As tonic's `interceptor` and `connect_info`: who stands inside the layer finds the context, and what was there before.
    #[test]
    fn has_interceptors_inside() {
        run(async {
            let (layer, mut contexts) = watched(layer().enforce());
            let intercept = |request: Request<()>| {
                let there = request.context().is_ok() && request.remote_addr().is_some();
                assert!(there, "{request:?}");
                if request.metadata().contains_key("refuse") { Err(Status::unauthenticated("no")) } else { Ok(request) }
            };
            let layers =
                tower::ServiceBuilder::new().layer(layer).layer(tonic::service::InterceptorLayer::new(intercept));
            let listener = listen().await;
            let address = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(Server::builder().layer(layers).serve_with_incoming(Api, TcpIncoming::from(listener)));
            let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            assert_eq!(end_of(channel.clone(), "/left", request()).await.code(), Code::Ok);
            let mut refused = request();
            refused.metadata_mut().insert("refuse", "yes".parse().unwrap());
            let status = end_of(channel, "/left", refused).await;
            assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "no"));
            for _ in 0..2 {
                assert_eq!(end(&contexts.recv().await.unwrap()).await, Some(Ended::Complete));
            }
        });
    }

    #[test]
    fn says_when_its_limit_is_reached() {
        for (layer, one, many) in layers(&Context::background()) {
            run(async {
                let server = Served::start(layer.limit(SOON)).await;
                for path in [one, many] {
                    let status = end_of(server.channel().await, path, request()).await;
                    assert_eq!(status.code(), Code::DeadlineExceeded, "{path}: {status}");
                    assert_eq!(status.message(), "context deadline exceeded");
                }
            });
        }
    }

    /// What the layer does not end reaches the client as the method has it, the status behind the last byte included.
    #[test]
    fn passes_every_kind_of_method_on() {
        let (shutdown, _stop) = Context::background().with_cancel();
        for layer in [layer(), ContextLayer::new(&shutdown), ContextLayer::new(&shutdown).enforce()] {
            run(async {
                let mut server = Served::start(layer).await;
                let mut answers = open(server.channel().await, "/exact", request()).await.unwrap();
                assert_eq!(answers.message().await.unwrap().unwrap(), "ab");
                let status = answers.message().await.unwrap_err();
                assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "enough"));
                assert_eq!(end_of(server.channel().await, "/left", request()).await.code(), Code::Ok);

                let mut grpc = tonic::client::Grpc::new(server.channel().await);
                let sent = || Request::new(stream::iter(["a", "b", "c"].map(str::to_owned)));
                grpc.ready().await.unwrap();
                let path = PathAndQuery::from_static("/collect");
                assert_eq!(grpc.client_streaming(sent(), path, Text).await.unwrap().into_inner(), "abc");
                grpc.ready().await.unwrap();
                let path = PathAndQuery::from_static("/echo");
                let mut echoes = grpc.streaming(sent(), path, Text).await.unwrap().into_inner();
                for letter in ["a", "b", "c"] {
                    assert_eq!(echoes.message().await.unwrap().unwrap(), letter);
                }
                assert_eq!(echoes.message().await.unwrap_err().code(), Code::ResourceExhausted);
                for _ in 0..4 {
                    assert_eq!(end(&server.context().await).await, Some(Ended::Complete));
                }
            });
        }
    }

    /// The layer that reads ahead inside the other one, as tonic's server takes it.
    #[test]
    fn reads_ahead() {
        run(async {
            let (layer, mut contexts) = watched(layer());
            let layers = tower::ServiceBuilder::new().layer(layer).layer(ReadAheadLayer::new(1024));
            let listener = listen().await;
            let address = format!("http://{}", listener.local_addr().unwrap());
            // As tonic's routes take whatever body there is.
            let api = tower::ServiceBuilder::new()
                .map_request(|request: http::Request<ReadAheadBody<Body>>| request.map(Body::new))
                .service(Api);
            tokio::spawn(Server::builder().layer(layers).serve_with_incoming(api, TcpIncoming::from(listener)));
            let mut grpc = tonic::client::Grpc::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
            let texts: Vec<_> = (0..100).map(|at| at.to_string().repeat(at)).collect();
            for (path, many) in [("/collect", false), ("/echo", true)] {
                let sent = Request::new(stream::iter(texts.clone()));
                grpc.ready().await.unwrap();
                let path = PathAndQuery::from_static(path);
                if many {
                    let mut echoes = grpc.streaming(sent, path, Text).await.unwrap().into_inner();
                    for text in &texts {
                        assert_eq!(echoes.message().await.unwrap().unwrap(), *text);
                    }
                    assert_eq!(echoes.message().await.unwrap_err().code(), Code::ResourceExhausted);
                } else {
                    assert_eq!(grpc.client_streaming(sent, path, Text).await.unwrap().into_inner(), texts.concat());
                }
                assert_eq!(end(&contexts.recv().await.unwrap()).await, Some(Ended::Complete));
            }
        });
    }

    #[test]
    fn refuses_a_timeout_that_it_cannot_read() {
        run(async {
            let server = Served::start(layer()).await;
            let mut request = request();
            request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
            assert_eq!(end_of(server.channel().await, "/left", request).await.code(), Code::InvalidArgument);
        });
    }

    /// tonic's own timeout says that it was cancelled, and does not reach into a stream.
    #[test]
    fn tells_the_deadline_before_tonic_does() {
        run(async {
            for (layer, path, status) in [
                (layer(), "/parked", "1"),
                (layer().enforce(), "/parked", "4"),
                (layer().enforce(), "/parked/ticks", "4"),
            ] {
                let mut server = Served::start(layer).await;
                let mut client = Client::connect(Version::HTTP_2, server.address).await;
                let request = http::Request::post(format!("http://localhost{path}"))
                    .header("content-type", "application/grpc")
                    .header("grpc-timeout", "30m")
                    // Not compressed, and of length zero.
                    .body(axum::body::Body::from(&[0; 5][..]))
                    .unwrap();
                let response = client.send(request).await.unwrap();
                let (head, body) = response.into_parts();
                let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or(head.headers);
                assert_eq!(trailers["grpc-status"], status, "{path} {trailers:?}");
                assert!(server.context().await.err().unwrap().is_deadline_exceeded(), "{path}");
            }
        });
    }

    #[test]
    fn sees_a_client_that_hangs_up() {
        run(async {
            let mut server = Served::start(layer()).await;
            let channel = server.channel().await;
            let call = tokio::spawn(end_of(channel.clone(), "/parked", request()));
            let ctx = server.context().await;
            call.abort();
            assert_eq!(end(&ctx).await, Some(Ended::BeforeResponse));
            let mut ticks = open(channel, "/parked/ticks", request()).await.unwrap();
            ticks.message().await.unwrap();
            let ctx = server.context().await;
            drop(ticks);
            assert_eq!(end(&ctx).await, Some(Ended::InBody));
        });
    }
}

mod a_client {
    use super::*;

    #[test]
    fn sends_what_is_left() {
        run(async {
            let mut server = Served::start(layer()).await;
            let channel = server.propagating().await;
            let ctx = Context::background().with_timeout(MINUTE);
            let mut shorter = under(&ctx);
            shorter.set_timeout(MINUTE / 3);
            for (request, most) in [(under(&ctx), MINUTE), (shorter, MINUTE / 3)] {
                assert_eq!(end_of(channel.clone(), "/left", request).await.code(), Code::Ok);
                let left = server.context().await.remaining().unwrap();
                assert!(most / 2 < left && left < most, "{left:?}");
            }
        });
    }

    /// Contexts that are cancelled, for each reason, and what a client is told.
    fn cancelled() -> [(Context, Canceller, Code); 2] {
        let (ctx, canceller) = Context::background().with_cancel();
        let (late, at_once) = Context::background().named("shutdown").with_cancel();
        // A name is a name; only `PropagateLayer::of` says that it is the shutdown.
        [(ctx, canceller, Code::Cancelled), (late, at_once, Code::Cancelled)]
    }

    #[test]
    fn sends_nothing_under_a_finished_context() {
        run(async {
            let mut server = Served::start(layer()).await;
            let channel = server.propagating().await;
            let late = Context::background().with_timeout(Duration::ZERO);
            assert_eq!(end_of(channel.clone(), "/left", under(&late)).await.code(), Code::DeadlineExceeded);
            for (ctx, canceller, code) in cancelled() {
                canceller.cancel();
                assert_eq!(end_of(channel.clone(), "/left", under(&ctx)).await.code(), code);
            }
            assert_eq!(end_of(channel, "/left", request()).await.code(), Code::Ok);
            server.context().await;
            assert!(server.contexts.is_empty(), "only the last has arrived");
        });
    }

    #[test]
    fn ends_its_call_with_the_context() {
        run(async {
            let mut server = Served::start(layer()).await;
            let channel = server.propagating().await;
            for (ctx, canceller, code) in cancelled() {
                let call = tokio::spawn(end_of(channel.clone(), "/parked", under(&ctx)));
                let seen = server.context().await;
                canceller.cancel();
                assert_eq!(call.await.unwrap().code(), code);
                assert_eq!(end(&seen).await, Some(Ended::BeforeResponse));
            }
        });
    }

    #[test]
    fn ends_its_stream_with_the_context() {
        run(async {
            let mut server = Served::start(layer()).await;
            let channel = server.propagating().await;
            for (ctx, canceller, code) in cancelled() {
                let mut ticks = open(channel.clone(), "/parked/ticks", under(&ctx)).await.unwrap();
                assert_eq!(ticks.message().await.unwrap().unwrap(), "tick");
                let seen = server.context().await;
                canceller.cancel();
                assert_eq!(ticks.message().await.unwrap_err().code(), code);
                assert_eq!(end(&seen).await, Some(Ended::InBody));
            }
        });
    }

    /// The channel has a timer of its own for the header, which says that it was cancelled.
    #[test]
    fn is_told_of_its_deadline() {
        run(async {
            let server = Served::start(layer().enforce()).await;
            let channel = server.propagating().await;
            let calls = (0..50).map(|more| {
                let ctx = Context::background().with_timeout(SOON + more * Duration::from_micros(700));
                let path = if more % 2 == 0 { "/parked" } else { "/parked/ticks" };
                end_of(channel.clone(), path, under(&ctx))
            });
            for status in join_all(calls).await {
                assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            }
        });
    }
}
