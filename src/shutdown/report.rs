//! What a shutdown tells of itself.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use super::{Shutdown, Stages};

/// What [`Shutdown::ended`](super::Shutdown::ended) did not wait for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub(super) left: usize,
    pub(super) slack: Duration,
}

impl Unfinished {
    /// How many tasks and tokens are left.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} still running {:?} after the stop", self.left, self.slack)
    }
}

impl StdError for Unfinished {}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages =
            [("stopping", self.stopping()), ("draining", self.draining()), ("terminating", self.terminating())];
        let stage = stages.into_iter().find(|(_, ctx)| ctx.is_done()).map_or("running", |(name, _)| name);
        let Stages { grace, delay, tracker, .. } = &*self.0;
        let mut out = f.debug_struct("Shutdown");
        out.field("stage", &stage).field("delay", &delay.get()).field("grace", grace);
        out.field("tracked", &tracker.len()).finish()
    }
}
