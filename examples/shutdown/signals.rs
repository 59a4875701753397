//! SIGINT and SIGTERM as contexts.

use std::io;

use context_merge::{Context, merge};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    /// Cancelled by the first of either signal, with its name as the cause.
    pub(crate) first: Context,
    /// Cancelled by the next one.
    pub(crate) second: Context,
}

/// From here on the signals are ours: they do not end the process any more.
pub(crate) fn listen() -> io::Result<Signals> {
    let mut incoming =
        Incoming { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let (first, canceller) = Context::background().named("signal").with_cancel();
    let (second, again) = Context::background().named("second signal").with_cancel();
    // Merged, so that it ends when nobody can see the second.
    let listening = Context::until(async move {
        canceller.cancel_with(incoming.next().await);
        again.cancel_with(incoming.next().await);
    });
    Ok(Signals { first, second: merge(second, listening) })
}

struct Incoming {
    interrupt: Signal,
    terminate: Signal,
}

impl Incoming {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
