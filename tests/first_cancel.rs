//! Rule 2 for the first cancel of a process, which is why it is alone here.

use std::time::Duration;

use context_merge::Context;
use tokio::time::advance;

/// At one instant a deadline comes before every cancel, the first of all included.
#[tokio::test(start_paused = true)]
async fn a_deadline_comes_before_the_first_cancel_of_all() {
    let (ctx, canceller) = Context::background().with_cancel();
    let limited = ctx.with_timeout(Duration::from_secs(1));
    advance(Duration::from_secs(1)).await;
    assert!(canceller.cancel());
    assert!(limited.err().unwrap().is_deadline_exceeded());
}
