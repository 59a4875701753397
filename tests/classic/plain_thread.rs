#[path = "../../examples/plain_thread.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

use std::time::Duration;

use context_merge::Context;

use crate::HOUR;
use crate::support::within;
use example::{primes, search};

#[test]
fn primes_stop_at_the_next_number() {
    let (ctx, canceller) = Context::background().with_cancel();
    let mut found = Vec::new();
    let (found, err) = within(move || {
        let Err(err) = primes(&ctx, |prime| {
            found.push(prime);
            if prime == 13 {
                canceller.cancel_with("enough");
            }
        });
        (found, err)
    });
    assert_eq!(found, [2, 3, 5, 7, 11, 13]);
    assert_eq!(err.cause().unwrap().to_string(), "enough");
}

#[test]
fn threads_end_with_their_context() {
    let (ctx, canceller) = Context::background().with_cancel();
    let (reports, err) = within(move || {
        let mut reports = Vec::new();
        let (_, err) = search(&ctx, Duration::from_millis(1), |count| {
            reports.push(count);
            if reports.len() == 3 {
                canceller.cancel_with("enough");
            }
        });
        (reports, err)
    });
    assert_eq!(err.cause().unwrap().to_string(), "enough");
    assert_eq!(reports.len(), 3, "and none after the end");
    assert!(reports.is_sorted());
}

/// Between two reports it waits for the context, not for its period.
#[test]
fn a_long_period_holds_nothing_up() {
    let ctx = Context::background().with_timeout(Duration::from_millis(1));
    let (_, err) = within(move || search(&ctx, HOUR, |_| panic!("no report in a millisecond")));
    assert!(err.is_deadline_exceeded());
}
