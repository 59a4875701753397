//! Bodies that are read ahead come out as they went in, whoever reads when.
#![cfg(feature = "tower")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll, Wake, Waker};

use bytes::Bytes;
use context_merge::Context;
use context_merge::tower::{BoxError, Ended, ReadAheadBody, ReadAheadLayer};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::collection::vec;
use proptest::prelude::*;
use tower::{Layer, Service, service_fn};

/// More than any test here gives.
const ENOUGH: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// The next comes at once, or when somebody lets it come.
    Pending {
        yields: bool,
    },
    Data(usize),
    Trailers(u8),
    Error(u8),
    Panic,
    End,
}

#[derive(Default)]
struct Source {
    script: VecDeque<Step>,
    waker: Option<Waker>,
    /// How often it was polled.
    polls: usize,
    /// All that it gave.
    given: Vec<Bytes>,
    /// What the next poll that has to wait does.
    hook: Option<Box<dyn FnOnce() + Send>>,
}

/// A body that does what is written for it, and tells what is left of its bytes.
#[derive(Clone)]
struct Scripted(Arc<Mutex<Source>>);

impl Scripted {
    fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let script = script.into_iter().collect();
        Self(Arc::new(Mutex::new(Source { script, ..Source::default() })))
    }

    /// Lets the next step come, as a socket does; whether there was one to wait for.
    fn arrive(&self) -> bool {
        let mut source = self.0.lock().unwrap();
        let waker = source.waker.take();
        if waker.is_some() {
            source.script.pop_front();
        }
        drop(source);
        waker.map(Waker::wake).is_some()
    }

    fn polls(&self) -> usize {
        self.0.lock().unwrap().polls
    }

    /// Whether nobody else holds it any more.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut source = self.0.lock().unwrap();
        source.polls += 1;
        match source.script.front().cloned().unwrap_or(Step::End) {
            Step::Pending { yields: false } => {
                source.waker = Some(cx.waker().clone());
                let hook = source.hook.take();
                drop(source);
                hook.into_iter().for_each(|hook| hook());
                Poll::Pending
            }
            Step::Pending { yields: true } => {
                source.script.pop_front();
                drop(source);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            step => {
                source.script.pop_front();
                let data = if let Step::Data(length) = step { vec![b'x'; length].into() } else { Bytes::new() };
                source.given.push(data.clone());
                drop(source);
                Poll::Ready(match step {
                    Step::Data(_) => Some(Ok(Frame::data(data))),
                    Step::Trailers(status) => {
                        let name = HeaderName::from_static("grpc-status");
                        Some(Ok(Frame::trailers(HeaderMap::from_iter([(name, u16::from(status).into())]))))
                    }
                    Step::Error(number) => Some(Err(number.to_string().into())),
                    Step::Panic => panic!("on purpose"),
                    _ => None,
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap().script.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.0.lock().unwrap();
        let bytes = |step: &Step| if let Step::Data(length) = step { *length as u64 } else { 0 };
        SizeHint::with_exact(source.script.iter().map(bytes).sum())
    }
}

type Next = Option<Result<Frame<Bytes>, BoxError>>;

fn step(next: Next) -> Step {
    match next {
        Some(Ok(frame)) => match frame.into_data() {
            Ok(data) => Step::Data(data.len()),
            Err(frame) => Step::Trailers(frame.trailers_ref().unwrap()["grpc-status"].as_bytes()[0] - b'0'),
        },
        Some(Err(err)) => Step::Error(err.to_string().parse().unwrap()),
        None => Step::End,
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    /// Whether it was woken since this was asked last.
    fn woken(&self) -> bool {
        self.0.swap(0, Ordering::SeqCst) > 0
    }
}

fn poll_frame(body: &mut (impl Body<Data = Bytes, Error = BoxError> + Unpin), waker: &Arc<Count>) -> Poll<Next> {
    Pin::new(body).poll_frame(&mut task::Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// The two sides of an exchange whose handler gives its body away and does not answer.
struct Exchange {
    response: Pin<Box<dyn Future<Output = ()> + Send>>,
    body: Option<ReadAheadBody<Scripted>>,
    ctx: Option<Context>,
}

impl Exchange {
    fn new(limit: usize, request: Request<Scripted>) -> Self {
        let given = Arc::new(Mutex::new(None));
        let give = Arc::clone(&given);
        let mut service =
            ReadAheadLayer::new(limit).layer(service_fn(move |request: Request<ReadAheadBody<Scripted>>| {
                *give.lock().unwrap() = Some(request);
                pending::<Result<Response<Empty<Bytes>>, Infallible>>()
            }));
        let response = service.call(request);
        let (head, body) = given.lock().unwrap().take().unwrap().into_parts();
        let response = Box::pin(async { drop(response.await) });
        Self { response, body: Some(body), ctx: head.extensions.get().cloned() }
    }

    fn of(limit: usize, body: &Scripted) -> Self {
        let mut request = Request::new(body.clone());
        request.extensions_mut().insert(Context::background());
        Self::new(limit, request)
    }

    fn poll_ahead(&mut self, waker: &Arc<Count>) {
        let waker = Waker::from(Arc::clone(waker));
        assert!(self.response.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
    }

    fn poll_handler(&mut self, waker: &Arc<Count>) -> Poll<Step> {
        poll_frame(self.body.as_mut().unwrap(), waker).map(step)
    }

    fn how(&self) -> Option<Ended> {
        self.ctx.as_ref()?.err()?.cause()?.downcast_ref().copied()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => any::<bool>().prop_map(|yields| Step::Pending { yields }),
        4 => (0..2000_usize).prop_map(Step::Data),
        1 => (0..10_u8).prop_map(Step::Trailers),
        1 => (0..10_u8).prop_map(Step::Error),
    ];
    vec(step, 0..12)
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Ahead,
    Handler,
    Arrive,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// Frame for frame, with what the body says of the rest; where nobody's turn is drawn any more, wake-ups alone are
    /// enough to come to the end, also where the response is dropped half-way.
    #[test]
    fn what_went_in_comes_out(
        mut script in steps(),
        limit in prop_oneof![Just(0_usize), 1..4000_usize, Just(ENOUGH)],
        turns in vec(prop_oneof![Just(Turn::Ahead), Just(Turn::Handler), Just(Turn::Arrive)], 0..30),
        dropped in proptest::option::weighted(0.3, 0..30_usize),
    ) {
        script.push(Step::End);
        let left = |script: &[Step]| Scripted::new(script.iter().cloned());
        let expected: Vec<_> = (0..script.len())
            .filter(|at| !matches!(script[*at], Step::Pending { .. }))
            .map(|at| {
                let after = left(&script[at + 1..]);
                (script[at].clone(), after.is_end_stream(), after.size_hint().exact())
            })
            .collect();
        let body = left(&script);
        let (ahead, handler) = (Arc::<Count>::default(), Arc::<Count>::default());
        let mut exchange = Exchange::of(limit, &body);
        prop_assert_eq!(exchange.body.as_ref().unwrap().size_hint().exact(), body.size_hint().exact());
        let mut seen = Vec::new();
        let read = |exchange: &mut Exchange, seen: &mut Vec<_>| {
            let Poll::Ready(step) = exchange.poll_handler(&handler) else { return false };
            let rest = exchange.body.as_ref().unwrap();
            seen.push((step, rest.is_end_stream(), rest.size_hint().exact()));
            true
        };
        let gone: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(pending());
        let mut gone = Some(gone);
        for (at, turn) in turns.into_iter().enumerate() {
            if dropped == Some(at) {
                exchange.response = gone.take().unwrap();
            }
            match turn {
                Turn::Ahead => exchange.poll_ahead(&ahead),
                Turn::Handler if seen.len() < expected.len() => drop(read(&mut exchange, &mut seen)),
                Turn::Handler => {}
                Turn::Arrive => drop(body.arrive()),
            }
        }
        // From here on each is polled only where it would be: after a wake-up, or after it was ready.
        exchange.poll_ahead(&ahead);
        ahead.woken();
        let mut handler_runs = true;
        while seen.len() < expected.len() {
            if handler_runs || handler.woken() {
                handler_runs = read(&mut exchange, &mut seen);
            } else if ahead.woken() {
                exchange.poll_ahead(&ahead);
            } else {
                prop_assert!(body.arrive(), "a wake-up was lost: {:?} of {:?}", seen, expected);
            }
        }
        prop_assert_eq!(&seen, &expected);
        let failed = script.iter().position(|step| matches!(step, Step::Error(_)));
        if let Some(failed) = failed {
            // The end of the body that is told comes first only where it is no end.
            prop_assert!(exchange.how() == Some(Ended::InRequest) || left(&script[failed..]).is_end_stream());
        }
    }

    /// No more is asked for than the limit, and one frame.
    #[test]
    fn the_limit_holds(lengths in vec(0..2000_usize, 1..60), limit in 0..20_000_usize, unread: bool) {
        let script = lengths.iter().map(|length| Step::Data(*length)).chain([Step::Pending { yields: false }]);
        let body = Scripted::new(script);
        let mut exchange = Exchange::of(limit, &body);
        if unread {
            exchange.body = None;
        }
        for _ in 0..3 {
            exchange.poll_ahead(&Arc::default());
        }
        let taken: Vec<_> = lengths.iter().take(body.polls()).collect();
        let bytes: usize = taken.iter().copied().sum();
        prop_assert!(bytes <= limit + taken.last().copied().unwrap_or(&0), "{} bytes of {}", bytes, limit);
        prop_assert!(body.polls() <= limit / 64 + 1, "{} frames", body.polls());
        if limit >= 60 * 2300 {
            prop_assert!(body.polls() > lengths.len());
        }
    }
}

/// Polls until it is dropped or ready, and gives how it panics.
fn panics<T>(f: impl FnOnce() -> T) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err()
}

#[test]
fn an_unread_body_that_fails_cancels_the_request() {
    for unread in [false, true] {
        let body = Scripted::new([Step::Data(1), Step::Pending { yields: false }, Step::Error(7), Step::End]);
        let (ahead, ctx) = (Arc::<Count>::default(), Context::background().with_value("of the outer one"));
        let mut request = Request::new(body.clone());
        request.extensions_mut().insert(ctx.clone());
        let mut exchange = Exchange::new(ENOUGH, request);
        assert_eq!(exchange.ctx.as_ref().unwrap().value::<&str>(), Some(&"of the outer one"));
        if unread {
            exchange.body = None;
        }
        exchange.poll_ahead(&ahead);
        assert_eq!(exchange.how(), None);
        assert!(body.arrive() && ahead.woken());
        exchange.poll_ahead(&ahead);
        assert_eq!(exchange.how(), Some(Ended::InRequest));
        assert!(!ctx.is_done(), "what ends is the request's alone");
        if unread {
            assert!(body.is_free());
        } else {
            let read: Vec<_> = (0..3).map(|_| exchange.poll_handler(&ahead)).collect();
            assert_eq!(read, [Step::Data(1), Step::Error(7), Step::End].map(Poll::Ready));
        }
    }
}

/// What watches the context runs outside of every lock, before the handler has the error; its panic loses nothing.
#[test]
fn a_callback_that_reads_and_panics() {
    for by_handler in [false, true] {
        let body = Scripted::new([Step::Error(7), Step::End]);
        let mut exchange = Exchange::of(ENOUGH, &body);
        let reader = Arc::new(Mutex::new(exchange.body.take()));
        let called = Arc::<Count>::default();
        let (in_callback, seen) = (Arc::clone(&reader), Arc::clone(&called));
        let _on_done = exchange.ctx.as_ref().unwrap().on_done(move |_| {
            if let Ok(mut reader) = in_callback.try_lock() {
                assert!(poll_frame(reader.as_mut().unwrap(), &seen).is_pending());
            }
            panic!("on purpose")
        });
        let count = Arc::<Count>::default();
        assert!(panics(|| match by_handler {
            true => drop(poll_frame(reader.lock().unwrap_or_else(|e| e.into_inner()).as_mut().unwrap(), &count)),
            false => exchange.poll_ahead(&count),
        }));
        assert_eq!(called.woken(), !by_handler, "who came while it was out is woken");
        exchange.body = reader.lock().unwrap_or_else(|e| e.into_inner()).take();
        assert_eq!(exchange.poll_handler(&count), Poll::Ready(Step::Error(7)));
    }
}

#[test]
fn a_body_that_panics_is_there_for_the_other() {
    let body = Scripted::new([Step::Panic, Step::Data(1), Step::End]);
    let (ahead, handler) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut exchange = Exchange::of(ENOUGH, &body);
    assert!(panics(|| exchange.poll_ahead(&ahead)));
    assert_eq!(exchange.poll_handler(&handler), Poll::Ready(Step::Data(1)));
}

#[test]
fn the_newest_waker_of_each_side_is_woken() {
    let script = [Step::Pending { yields: false }, Step::Data(1), Step::Pending { yields: false }, Step::End];
    let body = Scripted::new(script);
    let [ahead, handler, old] = [(); 3].map(|()| Arc::<Count>::default());
    let mut exchange = Exchange::of(ENOUGH, &body);
    exchange.poll_ahead(&old);
    assert!(exchange.poll_handler(&old).is_pending());
    assert!(exchange.poll_handler(&handler).is_pending());
    exchange.poll_ahead(&ahead);
    body.arrive();
    assert!(ahead.woken() && handler.woken() && !old.woken());
    // The body knows the waker of both: the response may be gone.
    assert_eq!(exchange.poll_handler(&handler), Poll::Ready(Step::Data(1)));
    exchange.poll_ahead(&ahead);
    assert!(exchange.poll_handler(&handler).is_pending());
    exchange.response = Box::pin(pending());
    body.arrive();
    assert!(handler.woken());
    assert_eq!(exchange.poll_handler(&handler), Poll::Ready(Step::End));
}

/// The other one may never be polled again, and the body wakes nobody twice.
#[test]
fn who_comes_while_the_body_is_polled_is_woken() {
    for by_handler in [false, true] {
        let body = Scripted::new([Step::Pending { yields: false }, Step::End]);
        let mut exchange = Exchange::of(ENOUGH, &body);
        let (one, other) = (Arc::<Count>::default(), Arc::<Count>::default());
        let waker = Waker::from(Arc::clone(&other));
        let cx_of_other =
            move |poll: &mut dyn FnMut(&mut task::Context<'_>)| poll(&mut task::Context::from_waker(&waker));
        let set = |hook: Box<dyn FnOnce() + Send>| body.0.lock().unwrap().hook = Some(hook);
        if by_handler {
            let mut response = std::mem::replace(&mut exchange.response, Box::pin(pending()));
            set(Box::new(move || cx_of_other(&mut |cx| assert!(response.as_mut().poll(cx).is_pending()))));
            assert!(exchange.poll_handler(&one).is_pending());
        } else {
            let mut reader = exchange.body.take().unwrap();
            set(Box::new(move || {
                cx_of_other(&mut |cx| assert!(Pin::new(&mut reader).poll_frame(cx).is_pending()));
                std::mem::forget(reader);
            }));
            exchange.poll_ahead(&one);
            assert!(other.woken());
        }
        assert!(!one.woken());
    }
}

#[test]
fn reading_ahead_goes_on_where_the_handler_makes_room() {
    let body = Scripted::new([Step::Data(1000), Step::Data(1000), Step::Data(1000), Step::End]);
    let (ahead, handler) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut exchange = Exchange::of(1500, &body);
    for polls in 2..=4 {
        exchange.poll_ahead(&ahead);
        assert_eq!(body.polls(), polls);
        assert_eq!(exchange.poll_handler(&handler), Poll::Ready(Step::Data(1000)));
        assert_eq!(ahead.woken(), polls < 4, "where there is more to read");
    }
}

#[test]
fn what_nobody_will_read_is_let_go_of() {
    let body = Scripted::new([Step::Data(1), Step::Data(2), Step::Pending { yields: false }, Step::End]);
    let mut exchange = Exchange::of(ENOUGH, &body);
    assert_eq!(exchange.poll_handler(&Arc::default()), Poll::Ready(Step::Data(1)));
    exchange.body = None;
    exchange.poll_ahead(&Arc::default());
    let source = body.0.lock().unwrap();
    assert!(source.given.len() == 2 && source.given.iter().all(Bytes::is_unique));
}

#[test]
fn nothing_is_left_behind() {
    let body = Scripted::new([Step::Data(1), Step::Pending { yields: false }, Step::End]);
    let (ahead, handler) = (Arc::<Count>::default(), Arc::<Count>::default());
    for body_first in [false, true] {
        let mut exchange = Exchange::of(ENOUGH, &body);
        exchange.poll_ahead(&ahead);
        let _ = (exchange.poll_handler(&handler), exchange.poll_handler(&handler));
        if body_first {
            exchange.body = None;
            assert!(!body.is_free(), "read on and let go of");
            assert_eq!(Arc::strong_count(&handler), 1);
        } else {
            exchange.response = Box::pin(pending());
            assert_eq!(Arc::strong_count(&ahead), 1);
        }
        drop(exchange);
        assert!(body.is_free());
        assert_eq!((Arc::strong_count(&ahead), Arc::strong_count(&handler)), (1, 1));
    }
}

/// Asking for the body is what a server answers with 100 Continue.
#[test]
fn a_client_that_expects_is_told_when_the_handler_reads() {
    for reads in [false, true] {
        let body = Scripted::new([Step::Data(1), Step::Data(2), Step::End]);
        let request = Request::builder().header("expect", "100-continue").body(body.clone()).unwrap();
        let mut exchange = Exchange::new(ENOUGH, request);
        let ahead = Arc::<Count>::default();
        exchange.poll_ahead(&ahead);
        assert_eq!(body.polls(), 0);
        if reads {
            assert_eq!(exchange.poll_handler(&ahead), Poll::Ready(Step::Data(1)));
            assert!(ahead.woken());
            exchange.poll_ahead(&ahead);
            assert_eq!(body.polls(), 3);
        } else {
            exchange.body = None;
            assert!(body.is_free() && body.polls() == 0);
        }
    }
}

#[test]
fn what_has_no_body_passes() {
    let body = Scripted::new([]);
    let ctx = Context::background();
    let mut request = Request::new(body.clone());
    request.extensions_mut().insert(ctx);
    let mut exchange = Exchange::new(ENOUGH, request);
    exchange.poll_ahead(&Arc::default());
    assert_eq!(body.polls(), 0);
    assert_eq!(exchange.poll_handler(&Arc::default()), Poll::Ready(Step::End));
    assert!(exchange.body.as_ref().unwrap().is_end_stream());
}

#[tokio::test]
async fn a_response_passes_and_reads_on() {
    let body = Scripted::new([Step::Data(1), Step::Pending { yields: false }, Step::Data(2), Step::End]);
    let answer = service_fn(async |_: Request<ReadAheadBody<Scripted>>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("answer"))))
    });
    let response = ReadAheadLayer::new(ENOUGH).layer(answer).call(Request::new(body.clone())).await.unwrap();
    let mut out = response.into_body();
    assert_eq!(out.size_hint().exact(), Some(6));
    assert!(body.arrive());
    assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap(), "answer");
    assert!(out.is_end_stream() && body.is_free());
}

/// Two threads, and a third one that the data comes from.
#[test]
fn no_wake_up_is_lost_between_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    for round in 0..300_usize {
        let frames = 40;
        let script = (0..frames).flat_map(|at| [Step::Pending { yields: at % 3 == 0 }, Step::Data(at)]);
        let body = Scripted::new(script.chain([Step::End]));
        let limit = [0, 500, 3000, ENOUGH][round % 4];
        let mut exchange = Exchange::of(limit, &body);
        let mut reader = exchange.body.take().unwrap();
        runtime.block_on(async {
            let ahead = tokio::spawn(exchange.response);
            let done = Arc::new(Count::default());
            let (arriving, over) = (body.clone(), Arc::clone(&done));
            let arrive = tokio::spawn(async move {
                while over.0.load(Ordering::SeqCst) == 0 {
                    arriving.arrive();
                    tokio::task::yield_now().await;
                }
            });
            let reading = tokio::spawn(async move {
                let mut read = Vec::new();
                while let Some(frame) = reader.frame().await {
                    read.push(step(Some(frame)));
                }
                read
            });
            if round % 5 == 0 {
                tokio::task::yield_now().await;
                ahead.abort();
            }
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), reading).await;
            done.0.store(1, Ordering::SeqCst);
            let read = read.expect("a wake-up was lost").unwrap();
            assert_eq!(read, (0..frames).map(Step::Data).collect::<Vec<_>>());
            arrive.await.unwrap();
            ahead.abort();
        });
    }
}
