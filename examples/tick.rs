//! A loop with a tick, until a deadline or Ctrl-C, whichever is first; it says which.
//!
//! `cargo run --example tick` ticks every two seconds for five seconds. Both can be given, in milliseconds:
//! `cargo run --example tick -- 500 60000`.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::num::{NonZeroU64, ParseIntError};
use std::time::Duration;

use context_merge::{Context, Error, merge};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut args = std::env::args().skip(1);
    let period = millis(args.next(), Duration::from_secs(2))?;
    let timeout = millis(args.next(), Duration::from_secs(5))?;
    let ctx = merge(Context::background().named("deadline").with_timeout(timeout), ctrl_c()?);
    let Err(err) = tick(&ctx, period, |n| println!("tick {n}")).await;
    println!("stopped: {err}");
    Ok(())
}

/// Ticks at once and then every `period`, until the context says why not.
pub(crate) async fn tick(ctx: &Context, period: Duration, mut on_tick: impl FnMut(u64)) -> Result<Infallible, Error> {
    let mut interval = tokio::time::interval(period);
    let mut n = 0;
    loop {
        ctx.run(interval.tick()).await?;
        n += 1;
        on_tick(n);
    }
}

/// Cancelled by Ctrl-C, which does not end the process any more.
fn ctrl_c() -> io::Result<Context> {
    // `tokio::signal::ctrl_c` would listen from its first poll on, and a Ctrl-C before that would end the process.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let (ctx, canceller) = Context::background().named("Ctrl-C").with_cancel();
    tokio::spawn(async move {
        interrupts.recv().await;
        canceller.cancel();
    });
    Ok(ctx)
}

fn millis(arg: Option<String>, default: Duration) -> Result<Duration, ParseIntError> {
    arg.map_or(Ok(default), |arg| Ok(Duration::from_millis(arg.parse::<NonZeroU64>()?.get())))
}
