//! Work on plain threads, without a runtime: `check` in a loop, `wait_timeout` between reports, `wait` for the end.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use context_merge::{Context, Error};

fn main() {
    let ctx = Context::background().named("deadline").with_timeout(Duration::from_secs(1));
    let (count, err) = search(&ctx, Duration::from_millis(300), |count| println!("{count} primes so far"));
    println!("{count} primes: {err}");
}

/// Searches on one thread and reports from another every `period`, until the context is done; how many, and why.
pub(crate) fn search(ctx: &Context, period: Duration, mut report: impl FnMut(u64) + Send) -> (u64, Error) {
    let count = AtomicU64::new(0);
    let err = thread::scope(|scope| {
        scope.spawn(|| {
            primes(ctx, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
        });
        scope.spawn(|| {
            while ctx.wait_timeout(period).is_none() {
                report(count.load(Ordering::Relaxed));
            }
        });
        ctx.wait()
    });
    (count.into_inner(), err)
}

/// Finds one prime after the other, until the context says why not.
pub(crate) fn primes(ctx: &Context, mut found: impl FnMut(u64)) -> Result<Infallible, Error> {
    let mut n = 2;
    loop {
        ctx.check()?;
        if (2..n).take_while(|divisor| divisor * divisor <= n).all(|divisor| n % divisor != 0) {
            found(n);
        }
        n += 1;
    }
}
