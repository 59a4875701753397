//! What the benchmarks share: the operations of both sides, comparisons in turn, peers in other languages, and where the
//! figures are kept.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub mod figures;
mod ours;
mod peer;
mod tokens;
mod turns;

pub use ours::Ours;
pub use peer::Peer;
pub use tokens::Tokens;
pub use turns::{Measure, Turns, on};

/// A request's, which no benchmark reaches.
pub const TIMEOUT: Duration = Duration::from_secs(3_600);

/// One poll by hand, with a waker that does nothing.
#[inline]
pub fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
