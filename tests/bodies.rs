//! What passes through the layers, and what a finish lets go of. Rules 15a and 15b.
#![cfg(feature = "tower")]

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use context_merge::tower::{BoxError, ContextLayer, PropagateLayer};
use context_merge::{Context, StreamExt as _};
use futures::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use proptest::collection::vec;
use proptest::prelude::*;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

mod what_passes {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Step {
        Pending,
        Data(usize),
        Trailers(u8),
        Error(u8),
        End,
    }

    /// What a body says of itself, true or not.
    #[derive(Clone, Debug, PartialEq)]
    struct Told {
        is_end_stream: bool,
        lower: u64,
        upper: Option<u64>,
    }

    /// A body that does and tells what is written for it.
    struct Scripted {
        script: Vec<(Told, Step)>,
        at: usize,
    }

    impl Scripted {
        fn told(&self) -> &Told {
            &self.script[self.at.min(self.script.len() - 1)].0
        }
    }

    impl Body for Scripted {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let step = self.script.get(self.at).map_or(Step::End, |(_, step)| step.clone());
            self.at += 1;
            match step {
                Step::Pending => Poll::Pending,
                Step::Data(length) => Poll::Ready(Some(Ok(Frame::data(vec![b'x'; length].into())))),
                Step::Trailers(status) => {
                    let name = HeaderName::from_static("grpc-status");
                    Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::from_iter([(name, u16::from(status).into())])))))
                }
                Step::Error(number) => Poll::Ready(Some(Err(number.to_string().into()))),
                Step::End => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.told().is_end_stream
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(self.told().lower);
            if let Some(upper) = self.told().upper {
                hint.set_upper(upper);
            }
            hint
        }
    }

    /// All that can be seen of a body: before each frame what it tells, and the frame.
    fn observe(mut body: impl Body<Data = Bytes, Error: Into<BoxError>> + Unpin, polls: usize) -> Vec<(Told, Step)> {
        let mut seen = Vec::new();
        for _ in 0..polls {
            let hint = body.size_hint();
            let told = Told { is_end_stream: body.is_end_stream(), lower: hint.lower(), upper: hint.upper() };
            let step = match Pin::new(&mut body).poll_frame(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Pending => Step::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Step::Data(data.len()),
                    Err(frame) => Step::Trailers(frame.trailers_ref().unwrap()["grpc-status"].as_bytes()[0] - b'0'),
                },
                Poll::Ready(Some(Err(err))) => {
                    let err: BoxError = err.into();
                    let text = err.to_string();
                    Step::Error(text.parse().unwrap_or_else(|_| panic!("{text}")))
                }
                Poll::Ready(None) => Step::End,
            };
            let over = step == Step::End;
            // A layer may have polled ahead.
            if step != Step::Pending {
                seen.push((told, step));
            }
            if over {
                break;
            }
        }
        seen
    }

    fn told() -> impl Strategy<Value = Told> {
        (proptest::bool::weighted(0.2), 0..10_u64, proptest::option::of(0..10_u64)).prop_map(|(is_end_stream, a, b)| {
            let upper = b.map(|b| a.max(b));
            Told { is_end_stream, lower: upper.map_or(a, |upper| a.min(upper)), upper }
        })
    }

    fn script() -> impl Strategy<Value = Vec<(Told, Step)>> {
        let step = prop_oneof![
            1 => Just(Step::Pending),
            4 => (0..5_usize).prop_map(Step::Data),
            1 => (0..10_u8).prop_map(Step::Trailers),
            1 => (0..10_u8).prop_map(Step::Error),
        ];
        (vec((told(), step), 0..8), told()).prop_map(|(mut script, last)| {
            script.push((last, Step::End));
            // What a body tells changes with what it gives.
            for at in 1..script.len() {
                if script[at - 1].1 == Step::Pending {
                    script[at].0 = script[at - 1].0.clone();
                }
            }
            script
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a layer does not end comes out as it went in, frame for frame, with what is told of it.
        #[test]
        fn is_what_went_in(
            script in script(),
            method in prop_oneof![4 => Just(Method::GET), 1 => Just(Method::HEAD)],
            status in prop_oneof![4 => Just(200_u16), 1 => Just(204), 1 => Just(304)],
            length in proptest::option::of(0..10_u64),
            grpc: bool,
        ) {
            let polls = script.len() + 1;
            let expected = observe(Scripted { script: script.clone(), at: 0 }, polls);
            let (shutdown, _stop) = Context::background().with_cancel();
            let handler = service_fn(|_: Request<()>| {
                let mut response = Response::builder().status(status);
                if let Some(length) = length {
                    response = response.header("content-length", length);
                }
                ready(Ok::<_, Infallible>(response.body(Scripted { script: script.clone(), at: 0 }).unwrap()))
            });
            let request = || {
                let mut request = Request::builder().method(method.clone());
                if grpc {
                    request = request.header("content-type", "application/grpc");
                }
                request.body(()).unwrap()
            };
            let told = ContextLayer::new(&shutdown);
            let enforced = told.clone().enforce();
            let called = PropagateLayer::of(&shutdown);
            let bodies = [
                observe(told.layer(handler).oneshot(request()).now_or_never().unwrap().unwrap().into_body(), polls),
                observe(enforced.layer(handler).oneshot(request()).now_or_never().unwrap().unwrap().into_body(), polls),
                observe(called.layer(handler).oneshot(request()).now_or_never().unwrap().unwrap().into_body(), polls),
                observe(
                    called.layer(told.layer(enforced.layer(handler))).oneshot(request()).now_or_never().unwrap().unwrap().into_body(),
                    polls,
                ),
            ];
            for body in bodies {
                prop_assert_eq!(&body, &expected);
            }
        }
    }

    #[tokio::test]
    async fn trailers_after_the_last_counted_byte() {
        async fn handler(_: Request<()>) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), 8.into())]);
            Ok(Response::new(Full::new(Bytes::from("hello")).with_trailers(ready(Some(Ok(trailers))))))
        }
        for layer in [ContextLayer::new(Context::background()), ContextLayer::new(Context::background()).enforce()] {
            let service = ServiceBuilder::new().layer(layer).service_fn(handler);
            let body = service.oneshot(Request::new(())).await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "8");
            assert_eq!(body.to_bytes(), "hello");
        }
    }
}

mod what_is_let_go {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// A stream without an end, always ready, that holds `held`.
    fn endless(held: &Arc<()>) -> impl futures::Stream<Item = u8> + Send + Unpin + use<> {
        let held = Arc::clone(held);
        stream::repeat_with(move || Arc::strong_count(&held) as u8)
    }

    fn body(held: &Arc<()>) -> impl Body<Data = Bytes, Error = Infallible> + Send + Unpin + use<> {
        http_body_util::StreamBody::new(endless(held).map(|byte| Ok(Frame::data(vec![byte].into()))))
    }

    fn is_free(held: &Arc<()>) -> bool {
        Arc::strong_count(held) == 1
    }

    /// Polls once with `count`'s waker; whether it is ready.
    fn poll_next<S: futures::Stream + Unpin>(stream: &mut S, count: &Arc<Count>) -> Poll<Option<S::Item>> {
        stream.poll_next_unpin(&mut task::Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    #[test]
    fn a_stream_that_was_ready_wakes_who_polled_last() {
        let (ctx, canceller) = Context::background().with_cancel();
        let held = Arc::new(());
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut stream = endless(&held).with_context(&ctx).boxed();
        assert!(matches!(poll_next(&mut stream, &first), Poll::Ready(Some(Ok(_)))));
        assert!(matches!(poll_next(&mut stream, &last), Poll::Ready(Some(Ok(_)))));
        canceller.cancel();
        assert_eq!((first.get(), last.get()), (0, 1));
        assert!(matches!(poll_next(&mut stream, &last), Poll::Ready(Some(Err(_)))));
        assert!(is_free(&held));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_was_ready_is_woken_by_a_deadline() {
        let ctx = Context::background().with_timeout(SECOND);
        let count = Arc::new(Count::default());
        let mut stream = endless(&Arc::new(())).with_context(&ctx).boxed();
        assert!(poll_next(&mut stream, &count).is_ready());
        ctx.done().await;
        tokio::task::yield_now().await;
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn a_ready_stream_under_a_deadline_needs_no_runtime() {
        let ctx = Context::background().with_timeout(Duration::from_secs(3600));
        let mut stream = stream::iter(0..2).with_context(&ctx).boxed();
        let mut next = || stream.next().now_or_never().unwrap().map(Result::unwrap);
        assert_eq!([next(), next(), next()], [Some(0), Some(1), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_by_the_finish_itself() {
        for polls in 0..3 {
            for by_deadline in [false, true] {
                let (ctx, canceller) = Context::background().with_timeout(SECOND).with_cancel();
                let (held, count) = (Arc::new(()), Arc::new(Count::default()));
                let mut stream = endless(&held).take_until_done(&ctx);
                for _ in 0..polls {
                    assert!(poll_next(&mut stream, &count).is_ready());
                }
                if by_deadline {
                    tokio::time::sleep(2 * SECOND).await;
                } else {
                    canceller.cancel_with("enough");
                }
                assert!(is_free(&held), "{polls} {by_deadline}");
                assert_eq!(count.get(), polls.min(1), "once");
                assert_eq!(poll_next(&mut stream, &count), Poll::Ready(None));
                assert_eq!(stream.err().unwrap().is_deadline_exceeded(), by_deadline);
            }
        }
    }

    #[test]
    fn a_stream_that_ends_by_itself_tells_no_error() {
        let (ctx, canceller) = Context::background().with_cancel();
        let mut stream = stream::iter([1]).take_until_done(&ctx);
        assert_eq!(futures::Stream::size_hint(&stream), (0, Some(1)));
        let items = stream.by_ref().collect::<Vec<_>>().now_or_never().unwrap();
        canceller.cancel();
        assert_eq!((items, stream.err().is_none(), futures::Stream::size_hint(&stream)), (vec![1], true, (0, Some(0))));
    }

    #[test]
    fn a_stream_whose_context_is_finished_already() {
        let (ctx, canceller) = Context::background().with_cancel();
        canceller.cancel();
        let held = Arc::new(());
        let mut stream = endless(&held).take_until_done(&ctx);
        assert!(is_free(&held) && stream.err().is_some());
        assert_eq!(poll_next(&mut stream, &Arc::default()), Poll::Ready(None));
    }

    /// The finish comes from inside the poll, which gives an item all the same; the end follows, and somebody calls for it.
    #[test]
    fn a_stream_that_finishes_its_own_context() {
        for ready in [true, false] {
            let (ctx, canceller) = Context::background().with_cancel();
            let (held, count) = (Arc::new(()), Arc::new(Count::default()));
            let kept = Arc::clone(&held);
            let mut stream = stream::poll_fn(move |_| {
                let _kept = &kept;
                canceller.cancel();
                if ready { Poll::Ready(Some(1)) } else { Poll::Pending }
            })
            .take_until_done(&ctx);
            assert_eq!(poll_next(&mut stream, &count), Poll::Ready(ready.then_some(1)));
            assert!(is_free(&held));
            assert!(!ready || count.get() == 1);
            assert_eq!(poll_next(&mut stream, &count), Poll::Ready(None));
            assert!(stream.err().is_some());
        }
    }

    #[test]
    fn a_stream_that_panics_when_it_is_dropped() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("on purpose")
            }
        }
        let (ctx, canceller) = Context::background().with_cancel();
        let panics = Panics;
        let held = Arc::new(());
        let one = stream::repeat_with(move || std::mem::size_of_val(&panics)).take_until_done(&ctx);
        let other = endless(&held).take_until_done(&ctx);
        assert!(canceller.cancel(), "the panic stays with the hook");
        assert!(is_free(&held));
        drop((one, other));
    }

    #[test]
    fn nothing_stays_registered() {
        let (ctx, _canceller) = Context::background().with_cancel();
        let held = Arc::new(());
        for _ in 0..100 {
            let mut stream = endless(&held).take_until_done(&ctx);
            assert!(poll_next(&mut stream, &Arc::default()).is_ready());
        }
        assert!(is_free(&held));
    }

    /// A body in the hand of a server that does not ask for more, or has not asked at all.
    #[tokio::test(start_paused = true)]
    async fn the_body_of_a_response() {
        for polls in 0..3 {
            for limit in [SECOND, Duration::MAX] {
                let (shutdown, stop) = Context::background().with_cancel();
                let (held, count) = (Arc::new(()), Arc::new(Count::default()));
                let layer = ContextLayer::new(&shutdown).limit(limit).enforce();
                let handler = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(body(&held)))));
                let mut out = layer.layer(handler).oneshot(Request::new(())).await.unwrap().into_body();
                let waker = Waker::from(Arc::clone(&count));
                for _ in 0..polls {
                    assert!(Pin::new(&mut out).poll_frame(&mut task::Context::from_waker(&waker)).is_ready());
                }
                if limit == SECOND {
                    tokio::time::sleep(2 * SECOND).await;
                } else {
                    stop.cancel();
                }
                assert!(is_free(&held), "{polls} {limit:?}");
                assert_eq!(count.get(), polls.min(1));
                assert!(out.frame().await.unwrap().is_err());
                assert!(out.frame().await.is_none());
            }
        }
    }

    /// A response that a client holds and does not read.
    #[tokio::test]
    async fn the_response_of_a_call() {
        let (ctx, canceller) = Context::background().with_cancel();
        let held = Arc::new(());
        let server = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(body(&held)))));
        let response = PropagateLayer::of(&ctx).layer(server).oneshot(Request::new(())).await.unwrap();
        canceller.cancel();
        assert!(is_free(&held));
        assert!(response.into_body().frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn not_the_body_of_a_layer_that_only_tells() {
        let (shutdown, stop) = Context::background().with_cancel();
        let held = Arc::new(());
        let handler = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(body(&held)))));
        let mut out = ContextLayer::new(&shutdown).layer(handler).oneshot(Request::new(())).await.unwrap().into_body();
        stop.cancel();
        assert!(!is_free(&held) && out.frame().await.unwrap().is_ok());
    }

    /// Trailers would contradict the length that was told, so the stream is reset instead.
    #[tokio::test]
    async fn a_body_of_grpc_that_is_short_of_its_length_ends_in_an_error() {
        for (length, in_trailers) in [(None, true), (Some("1"), true), (Some("2"), false)] {
            let (shutdown, stop) = Context::background().with_cancel();
            let held = Arc::new(());
            let handler = service_fn(|_: Request<()>| {
                let mut response = Response::new(body(&held));
                if let Some(length) = length {
                    response.headers_mut().insert("content-length", length.parse().unwrap());
                }
                ready(Ok::<_, Infallible>(response))
            });
            let mut request = Request::new(());
            request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            let layer = ContextLayer::new(&shutdown).enforce();
            let mut out = layer.layer(handler).oneshot(request).await.unwrap().into_body();
            assert!(out.frame().await.unwrap().unwrap().is_data());
            stop.cancel();
            assert_eq!(out.frame().await.unwrap().is_ok(), in_trailers, "{length:?}");
        }
    }
}
