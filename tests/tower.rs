//! The layers, without a socket between them; with one in `tests/sockets/`.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use context_merge::tower::{BoxError, ContextBody, ContextLayer, Ended, PropagateLayer};
use context_merge::{Context, Error};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn request() -> Request<()> {
    Request::new(())
}

fn with_header(name: &'static str, value: &'static str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
}

fn grpc() -> Request<()> {
    with_header("content-type", "application/grpc+proto")
}

fn context_of<B>(request: &Request<B>) -> Context {
    request.extensions().get::<Context>().expect("of the layer").clone()
}

fn ended(ctx: &Context) -> Option<Ended> {
    ctx.err()?.cause()?.downcast_ref().copied()
}

/// Calls a service behind `layer` that is not ready before it is dropped; returns its context and the call.
fn parked(layer: &ContextLayer, request: Request<()>) -> (Context, impl Future<Output = Answer> + use<>) {
    let seen = Arc::new(Mutex::new(None));
    let mut service = layer.layer(service_fn({
        let seen = Arc::clone(&seen);
        move |request: Request<()>| {
            *seen.lock().unwrap() = Some(context_of(&request));
            pending::<Result<Response<Full<Bytes>>, Infallible>>()
        }
    }));
    let call = service.call(request);
    let ctx = seen.lock().unwrap().take().expect("called");
    (ctx, call.map(|answer| answer.unwrap_or_else(|never| match never {})))
}

type Answer = Response<ContextBody<Full<Bytes>>>;

/// The context of a request to which `response` is the response, and what goes out.
async fn responded<B: Body<Data: Send, Error: Send> + Send + 'static>(
    layer: &ContextLayer,
    request: Request<()>,
    response: Response<B>,
) -> (Context, Response<ContextBody<B>>) {
    let (mut seen, mut response) = (None, Some(response));
    let service = service_fn(|request: Request<()>| {
        seen = Some(context_of(&request));
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap()))
    });
    let response = layer.layer(service).oneshot(request).await.unwrap();
    (seen.unwrap(), response)
}

fn server() -> ContextLayer {
    ContextLayer::new(Context::background())
}

/// Frames one by one, and pending where there is a None.
struct Frames(Vec<Option<Result<Frame<Bytes>, BoxError>>>);

impl Frames {
    fn of<const N: usize>(frames: [Option<&'static str>; N]) -> Self {
        Self(frames.map(|text| text.map(|text| Ok(Frame::data(text.into())))).into())
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.first() {
            Some(None) => Poll::Pending,
            Some(Some(_)) => Poll::Ready(self.0.remove(0)),
            None => Poll::Ready(None),
        }
    }
}

type Next<D, E> = Poll<Option<Result<Frame<D>, E>>>;

fn next<B: Body + Unpin>(body: &mut B) -> Next<B::Data, B::Error> {
    Pin::new(body).poll_frame(&mut task::Context::from_waker(Waker::noop()))
}

mod what_a_request_gets {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_its_header_but_no_more_than_the_limit() {
        let start = Instant::now();
        for (layer, header, left) in [
            (server(), None, None),
            (server(), Some("2S"), Some(2 * SECOND)),
            (server().limit(SECOND), None, Some(SECOND)),
            (server().limit(SECOND), Some("2S"), Some(SECOND)),
            (server().limit(3 * SECOND), Some("2S"), Some(2 * SECOND)),
            (server().limit(Duration::MAX), Some("2S"), Some(2 * SECOND)),
            (server(), Some("0S"), Some(Duration::ZERO)),
        ] {
            let request = header.map_or_else(request, |value| with_header("grpc-timeout", value));
            let (ctx, _call) = parked(&layer, request);
            assert_eq!(ctx.deadline(), left.map(|left| start + left), "{header:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_told_as_the_requests() {
        let (ctx, _call) = parked(&server().limit(SECOND), request());
        assert_eq!(ctx.done().await.origin(), Some("limit"));
    }

    #[test]
    fn the_shutdown_by_its_own_name() {
        for told in ["shutdown", "drain"] {
            let (shutdown, stop) = Context::background().named(told).with_cancel();
            let layer = ContextLayer::new(&shutdown);
            let (ctx, _call) = parked(&layer, request());
            assert!(!ctx.is_done());
            stop.cancel();
            assert_eq!(ctx.err().unwrap().origin(), Some(told));
            let (late, _call) = parked(&layer, request());
            assert!(late.is_done());
        }
    }

    #[test]
    fn what_a_layer_further_out_has_given_it() {
        let (outer, hang_up) = Context::background().with_value("alice").named("user").with_cancel();
        let mut request = request();
        request.extensions_mut().insert(outer);
        let (ctx, _call) = parked(&server(), request);
        assert_eq!(ctx.value::<&str>(), Some(&"alice"));
        hang_up.cancel();
        assert_eq!(ctx.err().unwrap().origin(), Some("user"));
    }

    #[test]
    fn values_of_its_head() {
        let layer = server().values(|head, ctx| ctx.with_value(head.method.clone()));
        let (ctx, _call) = parked(&layer, request());
        assert_eq!(ctx.value::<Method>(), Some(&Method::GET));
    }

    #[tokio::test]
    async fn a_clear_answer_where_its_timeout_cannot_be_read() {
        let never =
            service_fn(async |_: Request<()>| -> Result<Response<Full<Bytes>>, Infallible> { panic!("called") });
        for (name, text) in [
            ("grpc-timeout", "invalid grpc-timeout \"+1S\": not one to eight digits and a unit of H, M, S, m, u or n"),
            ("connect-timeout-ms", "invalid connect-timeout-ms \"+1S\": not one to ten digits"),
        ] {
            let response = server().layer(never).oneshot(with_header(name, "+1S")).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        }
        let mut request = grpc();
        request.headers_mut().insert("grpc-timeout", "1%".parse().unwrap());
        let response = server().layer(never).oneshot(request).await.unwrap();
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &"3".parse().unwrap()));
        assert!(response.headers()["grpc-message"].to_str().unwrap().starts_with("invalid grpc-timeout \"1%25\""));
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn nothing_that_stays_when_it_is_over() {
        let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
        let layer = ContextLayer::new(&shutdown).enforce();
        let held = Arc::new(());
        for _ in 0..100 {
            let (ctx, call) = parked(&layer, request());
            ctx.on_done({
                let held = Arc::clone(&held);
                move |_| drop(held)
            })
            .detach();
            assert!(call.now_or_never().is_none());
        }
        assert_eq!(Arc::strong_count(&held), 1, "each context has ended with its call");
        drop(stop);
    }
}

mod how_an_exchange_ends {
    use super::*;

    #[test]
    fn gone_before_the_response() {
        for layer in [server(), server().enforce()] {
            let (ctx, call) = parked(&layer, request());
            assert!(!ctx.is_done());
            drop(call);
            assert_eq!(ended(&ctx), Some(Ended::BeforeResponse));
            assert_eq!(ctx.err().unwrap().to_string(), "context cancelled (request)");
        }
    }

    #[tokio::test]
    async fn gone_in_the_body() {
        for read in 0..2 {
            let (ctx, response) = responded(&server(), request(), Response::new(Frames::of([Some("a"), None]))).await;
            let mut body = response.into_body();
            for _ in 0..read {
                assert!(next(&mut body).is_ready());
            }
            assert!(!ctx.is_done());
            drop(body);
            assert_eq!(ended(&ctx), Some(Ended::InBody));
        }
    }

    #[test]
    fn what_is_dropped_with_it_finds_the_context_finished() {
        struct Looks(Context, Arc<Mutex<Vec<Option<Ended>>>>);
        impl Drop for Looks {
            fn drop(&mut self) {
                self.1.lock().unwrap().push(ended(&self.0));
            }
        }
        let found = Arc::new(Mutex::new(Vec::new()));
        let mut service = server().layer(service_fn(|request: Request<()>| {
            let looks = Looks(context_of(&request), Arc::clone(&found));
            async move {
                pending::<()>().await;
                drop(looks);
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
            }
        }));
        let mut call = Box::pin(service.call(request()));
        assert!(call.as_mut().now_or_never().is_none());
        drop(call);
        assert_eq!(*found.lock().unwrap(), [Some(Ended::BeforeResponse)]);
    }

    #[test]
    fn panicked() {
        let mut seen = None;
        let mut service = server().layer(service_fn(|request: Request<()>| {
            seen = Some(context_of(&request));
            async {
                if true { panic!("on purpose") } else { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
            }
        }));
        let mut call = Box::pin(service.call(request()));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.as_mut().now_or_never())).unwrap_err();
        drop(call);
        assert_eq!(ended(&seen.unwrap()), Some(Ended::Panicked));
    }

    #[test]
    fn panicked_before_it_was_polled() {
        let mut seen = None;
        let mut service = server().layer(service_fn(|request: Request<()>| {
            seen = Some(context_of(&request));
            if true {
                panic!("on purpose")
            }
            pending::<Result<Response<Full<Bytes>>, Infallible>>()
        }));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(service.call(request())))).unwrap_err();
        drop(service);
        assert_eq!(ended(&seen.unwrap()), Some(Ended::Panicked));
    }

    #[tokio::test]
    async fn panicked_in_the_body() {
        struct Panics;
        impl Body for Panics {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Next<Bytes, BoxError> {
                panic!("on purpose")
            }
        }
        let (ctx, response) = responded(&server(), request(), Response::new(Panics)).await;
        let mut body = response.into_body();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(next(&mut body)))).unwrap_err();
        drop(body);
        assert_eq!(ended(&ctx), Some(Ended::Panicked));
    }

    #[tokio::test]
    async fn complete_with_the_last_of_the_body() {
        let (ctx, response) = responded(&server(), request(), Response::new(Frames::of([Some("a"), Some("b")]))).await;
        let mut body = response.into_body();
        for _ in 0..2 {
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
            assert!(!ctx.is_done(), "there may be more");
        }
        assert!(matches!(next(&mut body), Poll::Ready(None)));
        assert_eq!(ended(&ctx), Some(Ended::Complete));
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }

    /// A server may ask no further, and drop the body.
    #[tokio::test]
    async fn complete_when_it_is_dropped_after_all_that_has_to_come() {
        let trailers = || Frames(vec![Some(Ok(Frame::trailers(HeaderMap::new()))), None]);
        let of_length = Response::builder().header("content-length", 2);
        let all = [
            (Response::new(Full::from("whole").map_err(Into::into).boxed()), Ended::Complete),
            (Response::new(trailers().boxed()), Ended::Complete),
            (of_length.body(Frames::of([Some("ab"), None]).boxed()).unwrap(), Ended::Complete),
            (Response::new(Frames::of([Some("ab"), None]).boxed()), Ended::InBody),
        ];
        for (at, (response, how)) in all.into_iter().enumerate() {
            let (ctx, response) = responded(&server(), request(), response).await;
            let mut body = response.into_body();
            assert!(matches!(next(&mut body), Poll::Ready(Some(_))), "{at}");
            assert!(!ctx.is_done(), "{at}: more may follow");
            drop(body);
            assert_eq!(ended(&ctx), Some(how), "{at}");
        }
    }

    #[tokio::test]
    async fn complete_where_a_body_is_never_read() {
        let parked = || Frames::of([None]).boxed();
        let of = |method| Request::builder().method(method).body(()).unwrap();
        let with = |status| Response::builder().status(status).body(parked()).unwrap();
        for (request, response, complete) in [
            (request(), Response::new(Empty::new().map_err(Into::into).boxed()), true),
            (of(Method::HEAD), Response::new(parked()), true),
            (of(Method::CONNECT), Response::new(parked()), true),
            (of(Method::CONNECT), with(502), false),
            (request(), with(204), true),
            (request(), with(304), true),
            (request(), with(101), true),
            (request(), with(200), false),
        ] {
            let told = format!("{} {}", request.method(), response.status());
            let (ctx, response) = responded(&server(), request, response).await;
            drop(response);
            let how = if complete { Ended::Complete } else { Ended::InBody };
            assert_eq!(ended(&ctx), Some(how), "{told}");
        }
    }

    #[tokio::test]
    async fn failed_where_the_body_fails_also_after_its_last_byte() {
        for (frames, length) in [(vec![], None), (vec!["ab"], None), (vec!["ab"], Some("2"))] {
            let fails = std::iter::once(Some(Err("a checksum that does not fit".into())));
            let frames = frames.into_iter().map(|text| Some(Ok(Frame::data(text.into())))).chain(fails);
            let mut response = Response::new(Frames(frames.collect()));
            if let Some(length) = length {
                response.headers_mut().insert("content-length", length.parse().unwrap());
            }
            for layer in [server(), server().enforce()] {
                let (parts, Frames(frames)) =
                    std::mem::replace(&mut response, Response::new(Frames(vec![]))).into_parts();
                let again = frames.iter().map(|frame| match frame {
                    Some(Ok(frame)) => Some(Ok(Frame::data(frame.data_ref().unwrap().clone()))),
                    _ => Some(Err("a checksum that does not fit".into())),
                });
                response = Response::from_parts(parts.clone(), Frames(again.collect()));
                let (ctx, given) = responded(&layer, request(), Response::from_parts(parts, Frames(frames))).await;
                let err = given.into_body().collect().await.unwrap_err();
                assert_eq!(err.to_string(), "a checksum that does not fit");
                assert_eq!(ended(&ctx), Some(Ended::Failed));
            }
        }
    }

    #[tokio::test]
    async fn failed_where_the_handler_fails() {
        let mut seen = None;
        let service = server().layer(service_fn(|request: Request<()>| {
            seen = Some(context_of(&request));
            async { Err::<Response<Full<Bytes>>, _>("on purpose") }
        }));
        assert_eq!(service.oneshot(request()).await.unwrap_err(), "on purpose");
        assert_eq!(ended(&seen.unwrap()), Some(Ended::Failed));
    }
}

mod enforced {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_504_and_drops_the_handler() {
        let (ctx, call) = parked(&server().limit(SECOND).enforce(), request());
        let held = ctx.with_value(Arc::new(()));
        let response = call.await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "context deadline exceeded");
        assert!(held.err().unwrap().is_deadline_exceeded());
    }

    #[tokio::test]
    async fn a_shutdown_is_503() {
        let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
        let layer = ContextLayer::new(&shutdown).enforce();
        let (_, call) = parked(&layer, request());
        let mut call = pin!(call);
        assert!(call.as_mut().now_or_never().is_none());
        stop.cancel_with("SIGTERM");
        let response = call.await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "context cancelled", "not the cause");
    }

    #[tokio::test(start_paused = true)]
    async fn grpc_has_its_own_statuses() {
        let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
        let (user, log_out) = Context::background().named("user").with_cancel();
        let layer = ContextLayer::new(&shutdown).limit(SECOND).enforce();
        let mut of_user = grpc();
        of_user.extensions_mut().insert(user);
        let (cancelled, deadline) = (parked(&layer, of_user).1, parked(&layer, grpc()).1);
        log_out.cancel_with("100% logged out");
        assert_status(&cancelled.await, "1", "context cancelled");
        assert_status(&deadline.await, "4", "context deadline exceeded");
        let unavailable = parked(&layer, grpc()).1;
        stop.cancel_with("größer");
        assert_status(&unavailable.await, "14", "context cancelled");
    }

    fn assert_status(response: &Answer, status: &str, message: &str) {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(
            (&response.headers()["grpc-status"], &response.headers()["grpc-message"]),
            (&status.parse().unwrap(), &message.parse().unwrap())
        );
        assert!(response.body().is_end_stream());
    }

    #[tokio::test]
    async fn what_is_finished_already_does_not_run() {
        let never = service_fn(|_: Request<()>| async {
            if true { panic!("polled") } else { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let response = server().enforce().layer(never).oneshot(with_header("grpc-timeout", "0S")).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    }

    /// A body that is bound to a finished context would be cut short before its first byte.
    #[tokio::test(start_paused = true)]
    async fn a_handler_that_answers_at_the_end_is_heard_but_for_a_stream() {
        let late = |request: Request<()>| async move {
            context_of(&request).done().await;
            let whole = request.uri() == "/";
            let body = if whole { Full::from("late").map_err(Into::into).boxed() } else { Frames::of([None]).boxed() };
            Ok::<_, Infallible>(Response::new(body))
        };
        let service = server().limit(SECOND).enforce().layer(service_fn(late));
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "late");
        let stream = || Request::get("/stream").body(()).unwrap();
        let response = service.clone().oneshot(stream()).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "context deadline exceeded");
        let mut of_grpc = stream();
        of_grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let response = service.oneshot(of_grpc).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_cut_short_with_the_error() {
        let frames = Frames::of([Some("a"), None]);
        let (_, response) = responded(&server().limit(SECOND).enforce(), request(), Response::new(frames)).await;
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let err = body.frame().await.unwrap().unwrap_err();
        assert!(err.downcast_ref::<Error>().unwrap().is_deadline_exceeded());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_grpc_ends_in_trailers_also_where_it_is_always_ready() {
        let many = Frames(Vec::from_iter((0..1000).map(|_| Some(Ok(Frame::data("a".into()))))));
        let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
        let (ctx, response) = responded(&ContextLayer::new(&shutdown).enforce(), grpc(), Response::new(many)).await;
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), None);
        assert!(body.frame().await.unwrap().unwrap().is_data());
        stop.cancel();
        assert_eq!(body.frame().await.unwrap().unwrap().trailers_ref().unwrap()["grpc-status"], "14");
        assert!(body.frame().await.is_none() && body.is_end_stream());
        assert_eq!(ctx.err().unwrap().origin(), Some("shutdown"), "and not that it is complete");
    }

    #[tokio::test(start_paused = true)]
    async fn only_by_choice() {
        let (ctx, call) = parked(&server().limit(SECOND), request());
        let mut call = pin!(call);
        ctx.done().await;
        assert!(call.as_mut().now_or_never().is_none());
        let (ctx, response) = responded(&server().limit(SECOND), request(), Response::new(Frames::of([None]))).await;
        ctx.done().await;
        assert!(next(&mut response.into_body()).is_pending());
    }
}

mod what_is_told {
    use super::*;
    use context_merge::tower::{Answer, ServerContext};

    async fn told(layer: ContextLayer, request: Request<()>) -> (Response<ContextBody<Full<Bytes>>>, Context) {
        let (ctx, call) = parked(&layer, request);
        (call.await, ctx)
    }

    #[tokio::test]
    async fn whose_shutdown_it_was_not_its_name() {
        for name in ["SIGTERM", "server", "shutdown"] {
            let (shutdown, stop) = Context::background().named(name).with_cancel();
            let (outer, log_out) = Context::background().named(name).with_cancel();
            let layer = ContextLayer::new(&shutdown).enforce();
            let mut of_user = grpc();
            of_user.extensions_mut().insert(outer);
            let of_user = parked(&layer, of_user).1;
            log_out.cancel();
            assert_eq!(of_user.await.headers()["grpc-status"], "1", "{name}");
            let call = parked(&layer, grpc()).1;
            stop.cancel_with("postgres://app:secret@db");
            let response = call.await;
            assert_eq!(response.headers()["grpc-status"], "14", "{name}");
            assert_eq!(response.headers()["grpc-message"], "context cancelled", "not the cause");
            let err = response.extensions().get::<Error>().expect("for layers that log");
            assert_eq!(err.cause().unwrap().to_string(), "postgres://app:secret@db");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_user_wants_told() {
        let map = |err: &Error, answer: Answer| match err.origin() {
            Some("sibling") => answer.status(StatusCode::INTERNAL_SERVER_ERROR).grpc_status(13).message("100% größer"),
            _ => answer.message("too late"),
        };
        let layer = ContextLayer::new(Context::background()).limit(SECOND).enforce().answers(map);
        let (sibling, fail) = Context::background().named("sibling").with_cancel();
        fail.cancel();
        let under = |mut request: Request<()>| {
            request.extensions_mut().insert(sibling.clone());
            request
        };
        let response = told(layer.clone(), under(request())).await.0;
        assert_eq!(response.status(), 500);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "100% größer");
        let response = told(layer.clone(), under(grpc())).await.0;
        assert_eq!((&response.headers()["grpc-status"], response.status()), (&"13".parse().unwrap(), StatusCode::OK));
        assert_eq!(response.headers()["grpc-message"], "100%25 gr%C3%B6%C3%9Fer");
        let response = told(layer.clone(), request()).await.0;
        assert_eq!(
            (response.status(), response.into_body().collect().await.unwrap().to_bytes()),
            (StatusCode::GATEWAY_TIMEOUT, "too late".into())
        );
        // The same in the trailers of a body that has begun.
        let response = responded(&layer, grpc(), Response::new(Frames::of([Some("a"), None]))).await.1;
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert_eq!(body.frame().await.unwrap().unwrap().trailers_ref().unwrap()["grpc-message"], "too late");
    }

    /// What stands in a response that is the handler's own is left alone.
    #[tokio::test]
    async fn only_a_handlers_answer_that_is_its_error_is_told_anew() {
        let layer =
            ContextLayer::new(Context::background()).answers(|_, answer| answer.status(StatusCode::IM_A_TEAPOT));
        for (status, with_error, told) in [(503, true, 418), (503, false, 503), (500, true, 500)] {
            let mut response = Response::builder().status(status).body(Full::<Bytes>::from("mine")).unwrap();
            if with_error {
                response.extensions_mut().insert(Error::cancelled());
            }
            assert_eq!(responded(&layer, request(), response).await.1.status(), told);
        }
    }

    /// But for what belongs to the body that goes.
    #[tokio::test]
    async fn what_else_stands_in_its_head_stays() {
        let layer = ContextLayer::new(Context::background()).answers(|_, answer| answer.message("too late"));
        let mut response = Response::builder().status(503).body(Full::<Bytes>::from("mine")).unwrap();
        response.extensions_mut().insert(Error::cancelled());
        response.extensions_mut().insert("of a layer inside");
        let [own, length] = [("set-cookie", "a=b"), ("content-length", "4")];
        for (name, value) in [own, length, ("content-encoding", "identity"), ("content-type", "text/mine")] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let response = responded(&layer, request(), response).await.1;
        assert_eq!(response.headers()["set-cookie"], "a=b");
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(!response.headers().contains_key("content-length"));
        assert!(!response.headers().contains_key("content-encoding"));
        assert!(response.extensions().get::<Error>().is_some());
        assert_eq!(response.extensions().get(), Some(&"of a layer inside"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too late");
    }

    #[tokio::test(start_paused = true)]
    async fn whose_deadline_it_was() {
        let layer = server().limit(2 * SECOND).enforce();
        for (header, origin) in [("1S", "caller"), ("3S", "limit"), ("2S", "caller")] {
            let (response, ctx) = told(layer.clone(), with_header("grpc-timeout", header)).await;
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(ctx.err().unwrap().origin(), Some(origin), "{header}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_by_the_head() {
        let layer = server().limit_by(|head| (head.uri.path() != "/events").then_some(SECOND));
        let (ctx, _call) = parked(&layer, request());
        assert_eq!(ctx.remaining(), Some(SECOND));
        let (ctx, _call) = parked(&layer, Request::get("/events").body(()).unwrap());
        assert_eq!(ctx.deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_to_the_head_of_the_response() {
        for layer in [server().head_limit(SECOND), server().enforce().head_limit(SECOND)] {
            let (response, ctx) = told(layer.clone(), request()).await;
            assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
            assert_eq!(ended(&ctx), Some(Ended::HeadLimit));
            let err = response.extensions().get::<Error>().unwrap();
            assert!(err.is_deadline_exceeded() && err.origin() == Some("head limit"));
            // The body may take as long as it likes.
            let frames = Frames::of([Some("a"), None]);
            let (ctx, response) = responded(&layer, request(), Response::new(frames)).await;
            tokio::time::sleep(10 * SECOND).await;
            let mut body = response.into_body();
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))) && next(&mut body).is_pending());
            assert!(!ctx.is_done());
            // What ends the exchange earlier has its own say.
            let (_, call) = parked(&layer.clone().limit(SECOND / 2).enforce(), request());
            assert_eq!(call.await.extensions().get::<Error>().unwrap().origin(), Some("limit"));
        }
    }

    #[tokio::test]
    async fn what_goes_on_after_the_response() {
        let (stopping, stop) = Context::background().named("shutdown").with_cancel();
        let (draining, drain) = stopping.with_cancel();
        let tracker = Arc::new(());
        let counted = Arc::clone(&tracker);
        let layer = ContextLayer::new(&stopping).draining(&draining).tracked(move || Arc::clone(&counted));
        let layer = layer.values(|_, ctx| ctx.with_value("alice"));
        let mut seen = None;
        let handler = service_fn(|request: Request<()>| {
            seen = Some((context_of(&request), request.extensions().get::<ServerContext>().unwrap().clone()));
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
        });
        drop(layer.layer(handler).oneshot(request()).await.unwrap());
        let (ctx, server) = seen.unwrap();
        assert_eq!(ended(&ctx), Some(Ended::Complete));
        assert!(!server.context().is_done() && server.context().value::<&str>() == Some(&"alice"));
        let idle = Arc::strong_count(&tracker);
        let (ready, parked) = (server.spawn(async { 7 }), server.spawn(pending::<()>()));
        assert_eq!(Arc::strong_count(&tracker), idle + 2, "from the call on");
        assert_eq!(ready.await.unwrap().unwrap(), 7);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&tracker), idle + 1, "for as long as it goes on");
        let token = server.token();
        drain.cancel();
        assert!(server.draining().is_done() && !server.context().is_done());
        stop.cancel_with("SIGTERM");
        let err = parked.await.unwrap().unwrap_err();
        assert_eq!((err.origin(), err.cause().unwrap().to_string().as_str()), (Some("shutdown"), "SIGTERM"));
        drop(token);
        assert_eq!(Arc::strong_count(&tracker), idle);
    }
}

mod a_client {
    use super::*;

    /// A call of gRPC that the client's own shutdown ends is to be tried elsewhere.
    #[tokio::test]
    async fn is_unavailable_where_its_own_shutdown_ends_the_call() {
        let (shutdown, stop) = Context::background().named("SIGTERM").with_cancel();
        let waits = service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, Infallible>>());
        let call = PropagateLayer::of(&shutdown).layer(waits).oneshot(grpc());
        let mut call = pin!(call);
        assert!(call.as_mut().now_or_never().is_none());
        stop.cancel();
        assert_eq!(call.await.unwrap().headers()["grpc-status"], "14");
    }

    /// What a client sends through `layer`; None where it sends nothing.
    async fn sent(layer: PropagateLayer, request: Request<()>) -> Option<HeaderMap> {
        let mut sent = None;
        let service = service_fn(|request: Request<()>| {
            sent = Some(request.headers().clone());
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let _answer = layer.layer(service).oneshot(request).await;
        sent
    }

    fn under(ctx: &Context, mut request: Request<()>) -> Request<()> {
        request.extensions_mut().insert(ctx.clone());
        request
    }

    #[tokio::test(start_paused = true)]
    async fn sends_the_time_that_is_left() {
        let ctx = Context::background().with_timeout(2 * SECOND);
        tokio::time::advance(SECOND).await;
        let (one, two) = ("1000000u", "500m");
        for (layer, request, timeout) in [
            (PropagateLayer::new(), request(), None),
            (PropagateLayer::new(), under(&Context::background(), request()), None),
            (PropagateLayer::new(), under(&ctx, request()), Some(one)),
            (PropagateLayer::of(&ctx), request(), Some(one)),
            (
                PropagateLayer::of(Context::background().with_timeout(SECOND / 2)),
                under(&ctx, request()),
                Some("500000u"),
            ),
            (PropagateLayer::of(&ctx), with_header("grpc-timeout", two), Some(two)),
            (PropagateLayer::of(&ctx), with_header("grpc-timeout", "5S"), Some(one)),
            (PropagateLayer::of(&ctx), with_header("grpc-timeout", "soon"), Some(one)),
        ] {
            let headers = sent(layer, request).await.unwrap();
            assert_eq!(headers.get("grpc-timeout").map(|value| value.to_str().unwrap()), timeout);
        }
        let connect = PropagateLayer::of(&ctx).header(context_merge::http::TimeoutHeader::Connect);
        assert_eq!(sent(connect, request()).await.unwrap()["connect-timeout-ms"], "1000");
    }

    #[tokio::test]
    async fn sends_nothing_under_a_finished_context() {
        let (ctx, canceller) = Context::background().with_cancel();
        canceller.cancel();
        assert!(sent(PropagateLayer::new(), under(&ctx, request())).await.is_none());
        assert!(sent(PropagateLayer::of(&ctx), request()).await.is_none());
        assert!(sent(PropagateLayer::of(&ctx), under(&Context::background(), request())).await.is_none());
    }

    /// A call through `service` under a context with a timeout fails with that deadline.
    async fn ends_at_the_deadline<S>(service: S)
    where
        S: Service<Request<()>, Response = Response<Full<Bytes>>, Error: Into<BoxError>> + Clone,
    {
        let call = |request| {
            let ctx = Context::background().with_timeout(SECOND);
            PropagateLayer::new().layer(service.clone()).oneshot(under(&ctx, request))
        };
        let err = call(request()).await.unwrap_err();
        assert!(err.downcast_ref::<Error>().unwrap().is_deadline_exceeded());
        let response = call(grpc()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_the_call_with_the_context() {
        let waits = |_: Request<()>| pending::<Result<Response<Full<Bytes>>, Infallible>>();
        ends_at_the_deadline(service_fn(waits)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn ends_a_call_that_fails_with_the_context() {
        let fails = |request: Request<()>| async move {
            context_of(&request).done().await;
            Err::<Response<Full<Bytes>>, BoxError>("timeout expired".into())
        };
        ends_at_the_deadline(service_fn(fails)).await;
    }

    /// As tonic's channel does, which has a timer of its own for the header.
    #[tokio::test(start_paused = true)]
    async fn fails_with_the_context_where_the_service_fails_at_the_same_time() {
        let late = |_: Request<()>| async {
            tokio::time::sleep(SECOND).await;
            Err::<Response<Full<Bytes>>, BoxError>("time is up".into())
        };
        ends_at_the_deadline(service_fn(late)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn ends_the_body_with_the_context() {
        let streams =
            || service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Frames::of([Some("a"), None]))));
        let call = |request: Request<()>| PropagateLayer::new().layer(streams()).oneshot(request);
        let timeout = || Context::background().with_timeout(SECOND);

        let mut body = call(under(&timeout(), request())).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.unwrap().unwrap_err().is::<Error>());
        let mut body = call(under(&timeout(), grpc())).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert_eq!(body.frame().await.unwrap().unwrap().trailers_ref().unwrap()["grpc-status"], "4");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn passes_the_errors_of_the_service_on() {
        let fails = service_fn(async |_: Request<()>| Err::<Response<Full<Bytes>>, BoxError>("on purpose".into()));
        let err = PropagateLayer::new().layer(fails).oneshot(request()).await.unwrap_err();
        assert_eq!(err.to_string(), "on purpose");
    }
}
