//! SIGINT and SIGTERM as contexts.

use std::io;

use context_merge::Context;
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
    let (first, canceller) = Context::background().with_cancel();
    let second = Context::until(async move {
        canceller.cancel_with(incoming.next().await);
        incoming.next().await
    });
    Ok(Signals { first: first.named("signal"), second: second.named("second signal") })
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
