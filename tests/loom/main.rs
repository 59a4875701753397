//! The same bodies as loom models and as plain tests.
//!
//! `just loom` explores each through every interleaving up to its bound on preemptions, and prints a line for it; under
//! loom a set is gathered from three sources on. Without the flag each runs many times on real threads.

mod callbacks;
mod exploring;
mod order;
mod reentrant;
mod relays;
mod sets;
mod waiting;
