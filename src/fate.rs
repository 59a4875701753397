//! What each node keeps of its own finish: the deadline, and the verdict, which is set once (N3 in `node.rs`).

use tokio::time::Instant;

use crate::cell::Moment;
use crate::error::{Error, Late};
use crate::sync::{AtomicU32, BEFORE_ALL_CANCELS, Ordering, now, ticks};

/// What finished a node; what is not less than `FIRST_ENTRY` names an entry by its index.
pub(crate) type Verdict = u32;

pub(crate) const LIVE: Verdict = 0;
pub(crate) const DEADLINE: Verdict = 1;
pub(crate) const OWN: Verdict = 2;
pub(crate) const FIRST_ENTRY: Verdict = 3;

pub(crate) struct Fate {
    deadline: Option<Deadline>,
    /// Set once from `LIVE`: Release, loaded with Acquire.
    verdict: AtomicU32,
}

#[derive(Clone)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    why: Late,
}

impl Fate {
    pub(crate) fn new(deadline: Option<Deadline>) -> Self {
        Self { deadline, verdict: AtomicU32::new(LIVE) }
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Option<&Deadline> {
        self.deadline.as_ref()
    }

    #[inline]
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.load(Ordering::Acquire)
    }

    /// Sets the verdict, or gives the one that stands.
    pub(crate) fn decide(&self, verdict: Verdict) -> Result<(), Verdict> {
        self.verdict.compare_exchange(LIVE, verdict, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

impl Deadline {
    pub(crate) fn new(at: Instant, why: Late) -> Self {
        Self { at, why }
    }

    /// What the context reports, cause and origin included.
    pub(crate) fn err(&self) -> Error {
        self.why.err()
    }

    /// Whether both are the same instant with the same error.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.at == other.at && self.why.same(&other.why)
    }

    pub(crate) fn moment(&self) -> Moment {
        (ticks(self.at), BEFORE_ALL_CANCELS)
    }

    #[inline]
    pub(crate) fn is_reached(&self) -> bool {
        now() >= self.at
    }
}
