//! What the benchmarks share: comparisons in turn, peers in other languages, and where the figures are kept.

pub mod figures;
pub mod peer;
mod poll;
mod turns;

pub use poll::poll_once;
pub use turns::{Measure, Turns};
