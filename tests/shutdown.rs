//! The stages of a shutdown, and what is waited for. On a paused clock, but for the signals.
#![cfg(all(feature = "shutdown", not(any(context_merge_loom, context_merge_shuttle))))]

use std::error::Error as StdError;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Barrier, Weak};
use std::thread;
use std::time::Duration;

use context_merge::shutdown::Shutdown;
use context_merge::{Context, Error, FutureExt as _, merge};
use futures::channel::mpsc;
use futures::future::{FusedFuture as _, FutureExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

const DELAY: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(20);
const SLACK: Duration = Duration::from_secs(1);

/// What finished it: origin and causes.
fn story(ctx: &Context) -> String {
    let err = ctx.err().expect("not finished");
    let causes = std::iter::successors(err.source(), |&err| err.source());
    causes.fold(err.to_string(), |story, cause| format!("{story}: {cause}"))
}

/// Which of terminating, draining and stopping are done.
fn stages(shutdown: &Shutdown) -> [bool; 3] {
    [shutdown.terminating(), shutdown.draining(), shutdown.stopping()].map(Context::is_done)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Moves the clock, and lets everybody see it.
async fn pass(time: Duration) {
    advance(time).await;
    settle().await;
}

async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn draining_comes_first_and_stopping_after_the_grace() {
    let shutdown = Shutdown::new(GRACE);
    settle().await;
    assert_eq!(stages(&shutdown), [false; 3], "making one begins nothing");
    assert!(shutdown.begin("SIGTERM"));
    assert_eq!(stages(&shutdown), [true, true, false]);
    pass(GRACE - Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true, true, false]);
    pass(Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true; 3]);
    assert_eq!(story(shutdown.terminating()), "context cancelled (draining): SIGTERM");
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): SIGTERM");
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): the grace of 20s is over: SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn a_delay_lies_between_the_signal_and_draining() {
    let shutdown = Shutdown::new(GRACE).delay(DELAY);
    assert!(shutdown.begin("SIGTERM"));
    assert_eq!(stages(&shutdown), [true, false, false]);
    pass(DELAY - Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true, false, false]);
    pass(Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true, true, false]);
    pass(GRACE - Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true, true, false], "the delay is not taken from the grace");
    pass(Duration::from_millis(1)).await;
    assert_eq!(story(shutdown.terminating()), "context cancelled (terminating): SIGTERM");
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): the delay of 5s is over: SIGTERM");
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): the grace of 20s is over: SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_set_once_and_before_the_beginning() {
    let shutdown = Shutdown::new(GRACE).delay(DELAY).delay(Duration::ZERO);
    shutdown.begin("SIGTERM");
    assert_eq!(stages(&shutdown), [true, false, false], "of two, the first");
    let shutdown = Shutdown::new(GRACE);
    shutdown.begin("SIGTERM");
    assert!(!shutdown.clone().delay(DELAY).begin("again"));
    assert_eq!(stages(&shutdown), [true, true, false], "too late");
}

#[tokio::test(start_paused = true)]
async fn one_call_begins() {
    let shutdown = Shutdown::new(GRACE);
    assert!(shutdown.begin("first"));
    pass(GRACE / 2).await;
    assert!(!shutdown.clone().begin("second"));
    pass(GRACE / 2).await;
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): the grace of 20s is over: first");
    assert!(!shutdown.begin("third") && !shutdown.stop("fourth"));
}

#[test]
fn of_many_threads_one_begins() {
    let shutdown = Shutdown::new(Duration::MAX);
    let together = Arc::new(Barrier::new(8));
    let begin = || {
        let (shutdown, together) = (shutdown.clone(), Arc::clone(&together));
        thread::spawn(move || {
            together.wait();
            shutdown.begin("a thread")
        })
    };
    let threads: Vec<_> = (0..8).map(|_| begin()).collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).filter(|began| *began).count(), 1);
    shutdown.stop("over");
}

#[tokio::test(start_paused = true)]
async fn stop_skips_what_is_left_of_the_grace() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.begin("SIGTERM");
    pass(GRACE / 2).await;
    assert!(shutdown.stop("SIGINT"));
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): SIGINT");
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): SIGTERM", "it was first");
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_is_draining_and_terminating_at_once() {
    let shutdown = Shutdown::new(GRACE).delay(DELAY);
    assert!(shutdown.stop("out of memory"));
    assert!(!shutdown.begin("SIGTERM"));
    for ctx in [shutdown.terminating(), shutdown.draining(), shutdown.stopping()] {
        assert_eq!(story(ctx), "context cancelled (shutdown): out of memory");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_delay_ends_it() {
    let shutdown = Shutdown::new(GRACE).delay(DELAY);
    shutdown.begin("SIGTERM");
    shutdown.stop("SIGINT");
    assert_eq!(story(shutdown.draining()), "context cancelled (shutdown): SIGINT");
    assert_eq!(story(shutdown.terminating()), "context cancelled (terminating): SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn no_grace_stops_within_the_call_and_drains_before() {
    let shutdown = Shutdown::new(Duration::ZERO);
    let (told, stopping) = (mpsc::unbounded(), shutdown.stopping().clone());
    let (send, mut stopped_then) = told;
    let _drained = shutdown.draining().on_done(move |_| send.unbounded_send(stopping.is_done()).unwrap());
    assert!(shutdown.begin("SIGTERM"));
    assert_eq!(stages(&shutdown), [true; 3]);
    assert!(!stopped_then.try_recv().unwrap());
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): the grace of 0ns is over: SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn no_grace_after_a_delay() {
    let shutdown = Shutdown::new(Duration::ZERO).delay(DELAY);
    shutdown.begin("SIGTERM");
    assert_eq!(stages(&shutdown), [true, false, false]);
    pass(DELAY).await;
    assert_eq!(stages(&shutdown), [true; 3]);
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): the delay of 5s is over: SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn a_grace_without_end_is_ended_by_a_stop() {
    for shutdown in [Shutdown::new(Duration::MAX), Shutdown::new(GRACE).delay(Duration::MAX)] {
        shutdown.begin("SIGTERM");
        pass(Duration::from_secs(100 * 365 * 24 * 3600)).await;
        assert!(!shutdown.stopping().is_done());
        assert!(shutdown.stop("SIGINT"));
    }
}

#[tokio::test(start_paused = true)]
async fn contexts_below_a_stage_have_names_of_their_own() {
    let shutdown = Shutdown::new(GRACE);
    let (request, _hang_up) = Context::background().with_value(7_u8).with_cancel();
    let ctx = merge(&request, shutdown.stopping());
    let late = shutdown.stopping().with_timeout(Duration::ZERO);
    assert_eq!(late.err().unwrap().origin(), None, "nobody is blamed for a deadline below");
    shutdown.stop("SIGTERM");
    assert_eq!((story(&ctx), ctx.value()), ("context cancelled (shutdown): SIGTERM".into(), Some(&7_u8)));
}

#[tokio::test(start_paused = true)]
async fn causes_stay_what_they_are() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.begin(std::io::Error::other("the listener failed"));
    pass(GRACE).await;
    assert!(shutdown.draining().err().unwrap().cause().unwrap().is::<std::io::Error>());
    let err = shutdown.stopping().err().unwrap();
    assert!(err.source().unwrap().source().unwrap().is::<std::io::Error>(), "behind that of the grace");
}

// Sources of triggers.

#[tokio::test(start_paused = true)]
async fn the_first_trigger_begins_and_the_second_one_stops() {
    let (trigger, triggers) = mpsc::unbounded();
    let shutdown = Shutdown::new(GRACE).on(triggers);
    settle().await;
    assert_eq!(stages(&shutdown), [false; 3]);
    trigger.unbounded_send("SIGTERM").unwrap();
    settle().await;
    assert_eq!(stages(&shutdown), [true, true, false]);
    trigger.unbounded_send("SIGINT").unwrap();
    settle().await;
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): SIGTERM");
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): SIGINT");
    assert!(trigger.is_closed(), "and the triggers are dropped");
}

#[tokio::test(start_paused = true)]
async fn each_source_counts_its_own() {
    let [(term, terms), (other, others)] = [(); 2].map(|()| mpsc::unbounded());
    let shutdown = Shutdown::new(GRACE).on(terms).on(others);
    assert!(shutdown.begin("preStop"));
    term.unbounded_send("SIGTERM").unwrap();
    other.unbounded_send("window closed").unwrap();
    settle().await;
    assert!(!shutdown.stopping().is_done(), "the first of each");
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): preStop");
    term.unbounded_send("SIGTERM").unwrap();
    settle().await;
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): SIGTERM");
}

#[tokio::test(start_paused = true)]
async fn triggers_are_dropped_when_it_has_stopped() {
    for begun in [false, true] {
        let (trigger, triggers) = mpsc::unbounded::<&str>();
        let shutdown = Shutdown::new(GRACE).on(triggers);
        if begun {
            trigger.unbounded_send("SIGTERM").unwrap();
        }
        settle().await;
        assert!(!trigger.is_closed());
        shutdown.stop("by hand");
        settle().await;
        assert!(trigger.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn triggers_that_end_begin_nothing() {
    let shutdown = Shutdown::new(GRACE).on(futures::stream::empty::<&str>());
    settle().await;
    assert_eq!(stages(&shutdown), [false; 3]);
    let shutdown = Shutdown::new(GRACE).on(futures::stream::iter(["SIGTERM"]));
    settle().await;
    assert_eq!(stages(&shutdown), [true, true, false], "and the end is no second one");
}

#[tokio::test(start_paused = true)]
async fn triggers_work_without_a_handle() {
    let (trigger, triggers) = mpsc::unbounded();
    let draining = Shutdown::new(GRACE).on(triggers).draining().clone();
    settle().await;
    trigger.unbounded_send("SIGTERM").unwrap();
    assert_eq!(draining.done().await.origin(), Some("draining"));
}

#[cfg(unix)]
#[test]
fn real_signals_begin_and_stop() {
    for (name, other) in [("TERM", "INT"), ("INT", "TERM")] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let kill = |name| {
            let kill = format!("kill -s {name} {}", std::process::id());
            assert!(std::process::Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
        };
        runtime.block_on(async {
            let shutdown = Shutdown::new(Duration::MAX).on_signals().unwrap();
            kill(name);
            let err = shutdown.draining().done().await;
            assert_eq!(err.cause().unwrap().to_string(), format!("SIG{name}"));
            settle().await;
            assert!(!shutdown.stopping().is_done());
            kill(other);
            let err = shutdown.stopping().done().await;
            assert_eq!((err.origin(), err.cause().unwrap().to_string()), (Some("shutdown"), format!("SIG{other}")));
        });
    }
}

// Waiting for what was started.

#[tokio::test(start_paused = true)]
async fn ended_waits_for_tasks_and_tokens() {
    let shutdown = Shutdown::new(GRACE);
    let token = shutdown.tracker().token();
    let task = shutdown.spawn(sleep(GRACE / 2));
    let mut ended = pin!(shutdown.ended(SLACK));
    assert!(ended.as_mut().now_or_never().is_none());
    task.await.unwrap();
    assert!(ended.as_mut().now_or_never().is_none(), "the token is left");
    drop(token);
    ended.await.unwrap();
    assert_eq!(stages(&shutdown), [false; 3], "it begins nothing");
}

#[tokio::test(start_paused = true)]
async fn ended_has_nothing_to_wait_for() {
    let shutdown = Shutdown::new(GRACE);
    assert_eq!(shutdown.ended(SLACK).now_or_never(), Some(Ok(())));
    shutdown.stop("SIGTERM");
    assert_eq!(shutdown.ended(Duration::ZERO).now_or_never(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_within_the_grace_ends_well() {
    let shutdown = Shutdown::new(GRACE);
    let work = sleep(GRACE - Duration::from_secs(1)).with_context(shutdown.stopping());
    let task = shutdown.spawn(work);
    shutdown.begin("SIGTERM");
    shutdown.ended(SLACK).await.unwrap();
    assert!(task.await.unwrap().is_ok() && !shutdown.stopping().is_done());
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_is_told_why_and_waited_for() {
    let shutdown = Shutdown::new(GRACE);
    let ctx = shutdown.stopping().clone();
    let task = shutdown.spawn(async move {
        let err = ctx.run(pending::<()>()).await.unwrap_err();
        sleep(SLACK / 2).await; // puts things away
        err
    });
    shutdown.begin("SIGTERM");
    let began = Instant::now();
    shutdown.ended(SLACK).await.unwrap();
    assert_eq!(began.elapsed(), GRACE + SLACK / 2);
    let err: Error = task.await.unwrap();
    assert_eq!(err.to_string(), "context cancelled (shutdown)");
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_reported_after_the_slack() {
    let shutdown = Shutdown::new(GRACE);
    let stuck = [shutdown.spawn(pending::<()>()), shutdown.spawn(pending())];
    let ends = shutdown.spawn(shutdown.stopping().done_owned());
    shutdown.begin("SIGTERM");
    let began = Instant::now();
    let unfinished = shutdown.ended(SLACK).await.unwrap_err();
    assert_eq!(began.elapsed(), GRACE + SLACK);
    assert_eq!((unfinished.left(), unfinished.to_string().as_str()), (2, "2 still running 1s after the stop"));
    ends.await.unwrap();
    // Asked again, it waits again.
    stuck.iter().for_each(|task| task.abort());
    shutdown.ended(SLACK).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_after_the_stop_has_the_slack_of_its_own() {
    let shutdown = Shutdown::new(GRACE);
    shutdown.stop("SIGTERM");
    pass(GRACE).await;
    let task = shutdown.spawn(sleep(SLACK / 2));
    shutdown.ended(SLACK).await.unwrap();
    assert!(task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn two_may_wait_and_one_may_give_up() {
    let shutdown = Shutdown::new(GRACE);
    let task = shutdown.spawn(sleep(GRACE));
    assert!(shutdown.ended(SLACK).now_or_never().is_none());
    let (one, other) = tokio::join!(shutdown.ended(SLACK), shutdown.ended(SLACK));
    assert_eq!((one, other, task.is_finished()), (Ok(()), Ok(()), true));
}

// Runtimes, threads, and what is left behind.

#[test]
fn a_plain_thread_begins_on_the_runtime_where_it_was_made() {
    let runtime = runtime();
    let shutdown = runtime.block_on(async {
        pass(Duration::from_secs(3600)).await; // so that the clocks differ
        Shutdown::new(GRACE)
    });
    let begun = shutdown.clone();
    assert!(thread::spawn(move || begun.begin("a thread")).join().unwrap());
    runtime.block_on(async {
        let began = Instant::now();
        let err = shutdown.stopping().done().await;
        assert!(began.elapsed() >= GRACE && err.is_cancelled());
    });
}

#[test]
fn without_a_runtime_a_thread_measures_the_grace() {
    let shutdown = Shutdown::new(Duration::from_millis(20)).delay(Duration::from_millis(20));
    let began = std::time::Instant::now();
    assert!(shutdown.begin("SIGTERM"));
    assert!(!shutdown.draining().is_done());
    let err = shutdown.stopping().wait();
    assert!(began.elapsed() >= Duration::from_millis(40));
    assert_eq!(
        (err.origin(), err.cause().unwrap().to_string().as_str()),
        (Some("shutdown"), "the grace of 20ms is over")
    );
    assert_eq!(story(shutdown.draining()), "context cancelled (draining): the delay of 20ms is over: SIGTERM");
}

#[test]
fn a_runtime_that_ends_ends_the_grace() {
    let runtime = runtime();
    let shutdown = runtime.block_on(async {
        let shutdown = Shutdown::new(GRACE);
        shutdown.begin("SIGTERM");
        settle().await;
        shutdown
    });
    assert!(!shutdown.stopping().is_done());
    drop(runtime);
    let why = "context cancelled (shutdown): the runtime that measured the grace is gone: SIGTERM";
    assert_eq!(story(shutdown.stopping()), why);
}

#[test]
fn a_runtime_that_has_ended_leaves_no_grace() {
    let runtime = runtime();
    let shutdown = runtime.block_on(async { Shutdown::new(GRACE) });
    drop(runtime);
    assert!(shutdown.begin("SIGTERM"));
    assert!(shutdown.stopping().is_done());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_does_not_cost_the_grace() {
    let shutdown = Shutdown::new(GRACE);
    let _one = shutdown.draining().on_done(|_| panic!("a callback"));
    let begun = std::panic::catch_unwind(|| shutdown.begin("SIGTERM"));
    assert!(begun.is_err(), "the panic goes on");
    pass(GRACE - Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true, true, false]);
    pass(Duration::from_millis(1)).await;
    assert_eq!(stages(&shutdown), [true; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_on_the_way_does_not_either() {
    let (trigger, triggers) = mpsc::unbounded();
    let shutdown = Shutdown::new(GRACE).delay(DELAY).on(triggers);
    let _one = shutdown.draining().on_done(|_| panic!("a callback"));
    let _other = shutdown.terminating().on_done(|_| panic!("another one"));
    trigger.unbounded_send("SIGTERM").unwrap();
    settle().await;
    pass(DELAY).await;
    assert_eq!(stages(&shutdown), [true, true, false], "the grace goes on");
    trigger.unbounded_send("SIGINT").unwrap();
    settle().await;
    assert_eq!(story(shutdown.stopping()), "context cancelled (shutdown): SIGINT", "and signals are heard");
}

#[tokio::test(start_paused = true)]
async fn handles_that_are_dropped_leave_nothing_behind() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let value = Arc::new(());
    let held: Weak<()> = Arc::downgrade(&value);
    let draining = {
        let shutdown = Shutdown::new(GRACE).delay(DELAY);
        let draining = shutdown.draining().clone();
        draining.on_done(move |_| drop(value)).detach();
        draining
    };
    assert!(held.upgrade().is_none(), "what nobody can begin lets go of its callbacks");
    assert!(!draining.is_done());
    assert_eq!(alive(), 0);
    let shutdown = Shutdown::new(GRACE);
    shutdown.begin("SIGTERM");
    shutdown.stop("SIGINT");
    settle().await;
    assert_eq!(alive(), 0, "the timer ends with the stop");
}

#[tokio::test(start_paused = true)]
async fn a_beginning_counts_without_a_handle() {
    let stopping = {
        let shutdown = Shutdown::new(GRACE);
        shutdown.begin("SIGTERM");
        shutdown.stopping().clone()
    };
    assert_eq!(stopping.done().await.origin(), Some("shutdown"));
}

#[tokio::test(start_paused = true)]
async fn finished_is_the_end_as_servers_want_it() {
    fn takes(end: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        end
    }
    let shutdown = Shutdown::new(GRACE);
    let mut end = pin!(shutdown.draining().finished());
    let server = tokio::spawn(takes(shutdown.draining().finished()));
    assert!(end.as_mut().now_or_never().is_none() && !end.is_terminated());
    shutdown.begin("SIGTERM");
    server.await.unwrap();
    assert!(end.as_mut().now_or_never().is_some() && end.is_terminated());
}

#[tokio::test(start_paused = true)]
async fn its_debug_says_the_stage() {
    let shutdown = Shutdown::new(GRACE).delay(DELAY);
    let _token = shutdown.tracker().token();
    let says = |stage: &str| format!("{shutdown:?}").contains(&format!("stage: \"{stage}\""));
    assert!(says("running"));
    shutdown.begin("SIGTERM");
    assert!(says("terminating"));
    pass(DELAY).await;
    assert!(says("draining"));
    pass(GRACE).await;
    assert!(says("stopping") && format!("{shutdown:?}").contains("tracked: 1"));
}
