//! The signals that ask a process to end, as a stream of their names.

use std::io;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::Stream;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC as Signal, ctrl_c};

pub(super) struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    #[cfg(unix)]
    pub(super) fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self(vec![("SIGTERM", terminate), ("SIGINT", interrupt)]))
    }

    #[cfg(windows)]
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self(vec![("Ctrl-C", ctrl_c()?)]))
    }
}

impl Stream for Signals {
    type Item = &'static str;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<&'static str>> {
        for (name, signal) in &mut self.0 {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(Some(*name));
            }
        }
        Poll::Pending
    }
}
