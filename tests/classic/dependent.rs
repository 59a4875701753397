#[path = "../../examples/dependent.rs"]
#[expect(dead_code, reason = "its main")]
mod example;

use context_merge::{Context, Error};
use tokio::time::{Instant, sleep, timeout};

use crate::{HOUR, SECOND};
use example::{Failure, STEP, both, pack};

async fn is_declined(_: &Context) -> Result<(), Failure> {
    sleep(STEP * 3 / 2).await;
    Err("declined".into())
}

fn says_declined(err: &Error) -> bool {
    err.is_cancelled() && err.cause().is_some_and(|cause| cause.to_string() == "declined")
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_other_and_is_its_cause() {
    let start = Instant::now();
    let ctx = Context::background().with_timeout(HOUR);
    for fails_first in [true, false] {
        let mut seen = None;
        let ends = async |ctx: &Context| {
            let err = ctx.done().await;
            seen = Some(err.clone());
            Err::<(), _>(err.into())
        };
        let both = if fails_first { both(&ctx, is_declined, ends).await } else { both(&ctx, ends, is_declined).await };
        assert!(says_declined(&both.unwrap_err()) && says_declined(&seen.unwrap()));
    }
    assert_eq!(start.elapsed(), STEP * 3, "at once, each time");
    assert!(!ctx.is_done(), "a failure stays with the two");
}

#[tokio::test(start_paused = true)]
async fn what_is_ended_undoes_its_work() {
    let mut shelf = vec!["kettle", "cups", "tea"];
    let ctx = Context::background().with_timeout(HOUR);
    let err = both(&ctx, is_declined, async |ctx| pack(ctx, &mut shelf).await).await.unwrap_err();
    assert!(says_declined(&err));
    assert_eq!(shelf, ["kettle", "cups", "tea"]);

    let order = both(&ctx, async |_| Ok(7), async |ctx| pack(ctx, &mut shelf).await).await;
    assert_eq!(order.unwrap(), (7, vec!["tea", "cups", "kettle"]));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_whole_ends_both() {
    let ctx = Context::background().with_timeout(SECOND);
    let ends = async |ctx: &Context| Err::<(), _>(ctx.done().await.into());
    let err = timeout(HOUR, both(&ctx, ends, ends)).await.unwrap().unwrap_err();
    assert!(err.is_deadline_exceeded());
}
