//! The only place that chooses between std, loom and shuttle, and the crate's clock.

use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[cfg(context_merge_loom)]
use loom as threads;
#[cfg(context_merge_shuttle)]
use shuttle as threads;
#[cfg(not(any(context_merge_loom, context_merge_shuttle)))]
use std as threads;

#[cfg(not(any(context_merge_loom, context_merge_shuttle)))]
pub(crate) use std::sync::OnceLock;
pub(crate) use threads::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
pub(crate) use threads::thread_local;

#[cfg(any(context_merge_loom, context_merge_shuttle))]
mod modelled;
#[cfg(any(context_merge_loom, context_merge_shuttle))]
pub(crate) use modelled::OnceLock;
#[cfg(context_merge_loom)]
pub(crate) use modelled::{Shared, now};

/// A counted pointer of one word to a head and a slice, in one allocation.
#[cfg(not(context_merge_loom))]
pub(crate) struct Shared<H, T>(triomphe::ThinArc<H, T>);

#[cfg(not(context_merge_loom))]
impl<H, T> Shared<H, T> {
    pub(crate) fn new(head: H, items: impl ExactSizeIterator<Item = T>) -> Self {
        Self(triomphe::ThinArc::from_header_and_iter(head, items))
    }

    #[inline]
    pub(crate) fn head(&self) -> &H {
        &self.0.header.header
    }

    #[inline]
    pub(crate) fn items(&self) -> &[T] {
        &self.0.slice
    }

    pub(crate) fn address(&self) -> usize {
        self.0.heap_ptr() as usize
    }

    pub(crate) fn is_unique(&self) -> bool {
        triomphe::ThinArc::strong_count(&self.0) == 1
    }
}

#[cfg(not(context_merge_loom))]
impl<H, T> Clone for Shared<H, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Takes what a lock guards whether or not somebody panicked with it: no foreign code runs under our locks, so what
/// they guard is whole at every moment.
pub(crate) fn unpoisoned<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// Where every event that is not a cancel stands in sequence.
pub(crate) const BEFORE_ALL_CANCELS: u64 = 1;

#[cfg(not(any(context_merge_loom, context_merge_shuttle)))]
static SEQUENCE: AtomicU64 = AtomicU64::new(BEFORE_ALL_CANCELS + 1);
#[cfg(any(context_merge_loom, context_merge_shuttle))]
threads::lazy_static! {
    static ref SEQUENCE: AtomicU64 = AtomicU64::new(BEFORE_ALL_CANCELS + 1);
}

/// The next number in the one order of all cancels.
pub(crate) fn next_in_sequence() -> u64 {
    // AcqRel: pairs with itself. Who draws the larger number has seen all that came before the smaller was drawn.
    SEQUENCE.fetch_add(1, Ordering::AcqRel)
}

/// tokio's clock, which tests can pause.
#[cfg(not(context_merge_loom))]
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn epoch() -> Instant {
    static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *EPOCH.get_or_init(|| Instant::from_std(std::time::Instant::now()))
}

/// An instant as nanoseconds on a line that has 146 years on either side of the process's start, so that it fits an
/// atomic. Never zero; what lies outside is at the ends.
pub(crate) fn ticks(at: Instant) -> u64 {
    const EPOCH_TICKS: u64 = 1 << 62;
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let epoch = epoch();
    match at.checked_duration_since(epoch) {
        Some(after) => EPOCH_TICKS.saturating_add(nanos(after)),
        None => EPOCH_TICKS.saturating_sub(nanos(epoch.duration_since(at))).max(1),
    }
}
