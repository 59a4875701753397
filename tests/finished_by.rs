//! Rule 14: which input it was, told without strings.

use std::time::Duration;

use context_merge::{Context, Error, Signal, any_of, merge};
use tokio::sync::watch;
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

fn source() -> (Context, context_merge::Canceller) {
    Context::background().with_cancel()
}

fn live() -> Context {
    source().0
}

#[test]
fn one_of_several_sources() {
    for which in 0..3 {
        let (inputs, cancellers): (Vec<_>, Vec<_>) = (0..3).map(|_| source()).unzip();
        let views = [
            any_of(&inputs),
            merge(merge(&inputs[0], &inputs[1]), &inputs[2]),
            merge(&inputs[2], merge(inputs[1].relay(), &inputs[0])).relay(),
            any_of(&inputs).with_cancel().0.with_timeout(SECOND).with_value(1),
            any_of(&inputs).named("other").with_values_of(&live()),
            any_of(inputs.iter().cloned().chain((0..20).map(|_| live()))),
            any_of(
                (0..20).map(|_| live()).chain([any_of(inputs.iter().cloned().chain((0..20).map(|_| live()))).relay()]),
            ),
        ];
        cancellers[which].cancel();
        cancellers[(which + 1) % 3].cancel();
        for (index, ctx) in views.iter().enumerate() {
            let told: Vec<_> = inputs.iter().map(|input| ctx.finished_by(input)).collect();
            assert_eq!(told, [0, 1, 2].map(|input| input == which), "view {index}");
            assert!(views.iter().all(|other| ctx.finished_by(other)), "view {index}: all by the one event");
            assert!(inputs[which].finished_by(ctx), "view {index}: the other way round too");
        }
    }
}

#[test]
fn false_before_either_is_finished() {
    let (a, cancel) = source();
    let both = merge(&a, live());
    let never = Context::background();
    let all = [&a, &both, &never, &live()];
    let none = || all.iter().all(|ctx| all.iter().all(|input| !ctx.finished_by(input)));
    assert!(none());
    cancel.cancel();
    assert!(both.finished_by(&a) && a.finished_by(&both) && a.finished_by(&a));
    assert!(!both.finished_by(&never) && !never.finished_by(&both) && !live().finished_by(&a));
}

#[test]
fn a_child_is_finished_by_its_parent_or_by_itself() {
    let (parent, cancel_parent) = source();
    let (child, cancel_child) = parent.with_cancel();
    let (other, _keep) = parent.with_cancel();
    cancel_child.cancel();
    cancel_parent.cancel();
    assert!(!child.finished_by(&parent) && other.finished_by(&parent));
    let late = parent.with_cancel().0;
    assert!(late.finished_by(&parent), "at birth");
}

#[tokio::test(start_paused = true)]
async fn by_a_deadline() {
    let (request, hang_up) = source();
    let (short, long) = (request.with_timeout(SECOND), request.with_timeout(SECOND * 2));
    let query = merge(short.with_timeout(SECOND * 5), live().with_timeout(SECOND * 3));
    advance(SECOND).await;
    assert!(query.finished_by(&short) && !query.finished_by(&long) && !query.finished_by(&request));
    hang_up.cancel();
    assert!(query.finished_by(&short) && !query.finished_by(&long) && !query.finished_by(&request));
    assert!(long.finished_by(&request));
}

#[tokio::test(start_paused = true)]
async fn what_is_finished_at_birth() {
    let (a, cancel) = source();
    let late = Context::background().with_timeout(SECOND);
    let start = Instant::now();
    cancel.cancel();
    advance(SECOND).await;
    for (input, other) in [(&a, &late), (&late, &a)] {
        let born = [
            input.with_deadline(start),
            input.with_timeout(Duration::ZERO),
            input.with_cancel().0,
            input.relay(),
            merge(live(), input),
            merge(input.with_deadline(start), live()),
            any_of((0..20).map(|_| live()).chain([input.clone()])),
        ];
        for (index, ctx) in born.iter().enumerate() {
            assert!(ctx.finished_by(input) && !ctx.finished_by(other), "{index}");
        }
    }
    assert!(merge(&late, &a).finished_by(&a) && !merge(&late, &a).finished_by(&late), "the earlier of both");
}

#[test]
fn by_a_foreign_signal() {
    #[derive(Clone)]
    struct Flag(watch::Sender<bool>);
    impl Signal for Flag {
        fn err(&self) -> Option<Error> {
            self.0.borrow().then(Error::cancelled)
        }
        fn done(&self) -> std::pin::Pin<Box<dyn Future<Output = Error> + Send>> {
            let mut raised = self.0.subscribe();
            Box::pin(async move {
                raised.wait_for(|raised| *raised).await.map_or(Error::cancelled(), |_| Error::cancelled())
            })
        }
    }
    let flags = [(); 2].map(|()| Flag(watch::Sender::new(false)));
    let [one, two] = flags.clone().map(Context::from_signal);
    let (ours, cancel) = source();
    let ctx = any_of([&ours, &one, &two]).relay();
    assert!(![&ours, &one, &two].iter().any(|input| ctx.finished_by(input)));
    flags[1].0.send_replace(true);
    assert!(ctx.finished_by(&two), "the look is what sees it");
    flags[0].0.send_replace(true);
    cancel.cancel();
    assert!(!ctx.finished_by(&one) && !ctx.finished_by(&ours) && ctx.finished_by(&two));
}
