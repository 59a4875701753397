//! The event of a finish.
#![cfg(feature = "tracing")]

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use context_merge::tracing::event_on_done;
use context_merge::{Canceller, Context, Error, FutureExt, any_of, merge};
use tokio::time::advance;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Event, Level, Subscriber, info_span};
use tracing_subscriber::layer::{self, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

#[derive(Debug)]
struct Recorded {
    target: &'static str,
    level: Level,
    parent: Option<&'static str>,
    fields: Fields,
}

#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        assert!(self.0.insert(field.name(), format!("{value:?}")).is_none());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Keeps all events, and the names of the spans that were opened and closed.
#[derive(Clone, Default)]
struct Collector {
    events: Arc<Mutex<Vec<Recorded>>>,
    opened: Arc<Mutex<Vec<&'static str>>>,
    closed: Arc<Mutex<Vec<&'static str>>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: layer::Context<'_, S>) {
        self.opened.lock().unwrap().push(span.metadata().name());
    }

    fn on_event(&self, event: &Event<'_>, spans: layer::Context<'_, S>) {
        let (metadata, mut fields) = (event.metadata(), Fields::default());
        event.record(&mut fields);
        let parent = spans.event_span(event).map(|span| span.name());
        let recorded = Recorded { target: metadata.target(), level: *metadata.level(), parent, fields };
        self.events.lock().unwrap().push(recorded);
    }

    fn on_close(&self, id: Id, spans: layer::Context<'_, S>) {
        self.closed.lock().unwrap().push(spans.span(&id).unwrap().name());
    }
}

impl Collector {
    /// Collects what this thread records.
    fn new() -> (Self, DefaultGuard) {
        let collector = Self::default();
        let guard = collector.collect();
        (collector, guard)
    }

    fn collect(&self) -> DefaultGuard {
        set_default(Registry::default().with(self.clone()))
    }

    fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// The only event there is.
    #[track_caller]
    fn only(&self) -> Recorded {
        let mut events = self.events.lock().unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

#[track_caller]
fn assert_fields(event: &Recorded, expected: &[(&'static str, &str)]) {
    let mut fields = event.fields.0.clone();
    fields.retain(|name, _| *name != "observed_secs");
    assert_eq!(fields, expected.iter().map(|(name, value)| (*name, value.to_string())).collect());
}

#[tokio::test(start_paused = true)]
async fn one_event_with_its_fields() {
    let (collector, _collecting) = Collector::new();
    let (ctx, canceller) = Context::background().named("shutdown").with_cancel();
    let ctx = merge(Context::background().with_cancel().0, ctx);
    let _event = event_on_done(&ctx);
    advance(Duration::from_millis(1250)).await;
    assert_eq!(collector.count(), 0);
    canceller.cancel_with("SIGTERM");
    canceller.cancel();
    let event = collector.only();
    assert_eq!((event.target, event.level), ("context_merge", Level::DEBUG));
    assert_eq!(event.fields.0["observed_secs"], "1.25");
    assert!(collector.opened.lock().unwrap().is_empty(), "no span");
    let expected =
        [("message", "context finished"), ("kind", "Cancelled"), ("origin", "shutdown"), ("cause", "SIGTERM")];
    assert_fields(&event, &expected);
}

#[test]
fn one_when_it_is_finished_already_and_no_empty_fields() {
    let (collector, _collecting) = Collector::new();
    let on_done = event_on_done(&Context::background().with_timeout(Duration::ZERO));
    assert!(!on_done.stop());
    assert_fields(&collector.only(), &[("message", "context finished"), ("kind", "DeadlineExceeded")]);
}

#[tokio::test(start_paused = true)]
async fn one_by_a_deadline() {
    let (collector, _collecting) = Collector::new();
    let ctx = Context::background().with_timeout_cause(Duration::from_millis(1500), "no quorum");
    let span = info_span!("serve");
    span.in_scope(|| event_on_done(&ctx).detach());
    advance(Duration::from_millis(1499)).await;
    assert_eq!(collector.count(), 0);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let event = collector.only();
    assert_eq!(event.parent, Some("serve"));
    assert_eq!(event.fields.0["observed_secs"], "1.5");
    let expected = [("message", "context finished"), ("kind", "DeadlineExceeded"), ("cause", "no quorum")];
    assert_fields(&event, &expected);
}

#[test]
fn its_parent_is_the_span_of_the_call() {
    let (collector, _collecting) = Collector::new();
    let (ctx, canceller) = Context::background().with_cancel();
    info_span!("serve").in_scope(|| event_on_done(&ctx).detach());
    info_span!("elsewhere").in_scope(|| canceller.cancel());
    assert_eq!(collector.only().parent, Some("serve"));

    let (ctx, canceller) = Context::background().with_cancel();
    event_on_done(&ctx).detach();
    info_span!("elsewhere").in_scope(|| canceller.cancel());
    assert_eq!(collector.only().parent, None, "outside any");
}

#[test]
fn another_thread_cancels() {
    let collector = Collector::default();
    let dispatch = tracing::Dispatch::new(Registry::default().with(collector.clone()));
    let (ctx, canceller) = Context::background().with_cancel();
    tracing::dispatcher::with_default(&dispatch, || {
        info_span!("serve").in_scope(|| event_on_done(&ctx).detach());
    });
    let cancel = move || tracing::dispatcher::with_default(&dispatch, || canceller.cancel());
    assert!(thread::spawn(cancel).join().unwrap());
    assert_eq!(collector.only().parent, Some("serve"));
}

#[test]
fn none_when_dropped_and_the_span_is_let_go() {
    let (collector, _collecting) = Collector::new();
    let closed = || collector.closed.lock().unwrap().len();
    let (ctx, canceller) = Context::background().with_cancel();
    let [dropped, stopped] = ["dropped", "stopped"].map(|_| info_span!("serve").in_scope(|| event_on_done(&ctx)));
    assert_eq!(closed(), 0);
    drop(dropped);
    assert_eq!(closed(), 1);
    assert!(stopped.stop());
    assert_eq!(closed(), 2);
    canceller.cancel();
    assert_eq!(collector.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn none_from_anything_else() {
    let (collector, _collecting) = Collector::new();
    let (ctx, canceller) = Context::background().named("shutdown").with_cancel();
    let ctx = ctx.with_value(1).with_timeout(Duration::from_secs(5));
    let (crowd, cancellers): (Vec<_>, Vec<_>) = (0..20).map(|_| Context::background().with_cancel()).unzip();
    let both = merge(any_of(&crowd).relay(), &ctx);
    let _on_done = both.on_done(|_| ());
    let until = Context::until(both.done_owned());
    let waiting = tokio::spawn(pending::<()>().with_context(&both));
    assert!(both.sleep(Duration::from_secs(1)).await.is_ok());
    canceller.cancel_with("SIGTERM");
    assert!(cancellers.iter().all(Canceller::cancel));
    assert!(waiting.await.unwrap().is_err() && until.done().await.is_cancelled() && both.wait().is_cancelled());
    let late = Context::background().with_timeout(Duration::from_secs(5));
    assert!(late.run(pending::<()>()).await.is_err_and(|err: Error| err.is_deadline_exceeded()));
    assert_eq!(collector.count(), 0);
    assert!(collector.opened.lock().unwrap().is_empty());
}

/// What a layer of HTTP warns of.
#[cfg(feature = "tower")]
mod warnings {
    use super::*;
    use context_merge::tower::{ContextLayer, Ended, PropagateLayer};
    use http::{Request, Response};
    use std::convert::Infallible;
    use tower::{Layer, ServiceExt, service_fn};

    fn warned(collector: &Collector) -> usize {
        let events = collector.events.lock().unwrap();
        events.iter().filter(|event| (event.level, event.target) == (Level::WARN, "context_merge")).count()
    }

    #[tokio::test]
    async fn work_that_is_dropped_because_the_exchange_was_complete() {
        for (complete, warnings) in [(true, 1), (false, 0)] {
            let (collector, _guard) = Collector::new();
            let mut work = None;
            let service = service_fn(|request: Request<()>| {
                let ctx = request.extensions().get::<Context>().unwrap().clone();
                work = Some(Box::pin(pending::<()>().with_context(ctx)));
                std::future::ready(Ok::<_, Infallible>(Response::new("done".to_owned())))
            });
            let response =
                ContextLayer::new(Context::background()).layer(service).oneshot(Request::new(())).await.unwrap();
            let mut work = work.unwrap();
            assert!(futures::poll!(&mut work).is_pending());
            if complete {
                http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
            } else {
                drop(response);
            }
            let err = work.await.unwrap_err();
            let how: Option<&Ended> = err.cause().unwrap().downcast_ref();
            assert_eq!(how, Some(if complete { &Ended::Complete } else { &Ended::InBody }));
            assert_eq!(warned(&collector), warnings, "{complete}");
        }
    }

    #[tokio::test]
    async fn calls_without_a_context_once() {
        let (collector, _guard) = Collector::new();
        let service =
            service_fn(|_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new()))));
        for _ in 0..3 {
            PropagateLayer::new().layer(service).oneshot(Request::new(())).await.unwrap();
        }
        assert_eq!(warned(&collector), 1);
    }
}
