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
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
pub(crate) use threads::thread_local;
/// Without a weak count. loom has to see the count: whoever lets go last has seen what the others did.
#[cfg(not(context_merge_loom))]
pub(crate) use triomphe::Arc;

#[cfg(any(context_merge_loom, context_merge_shuttle))]
mod modelled;
#[cfg(any(context_merge_loom, context_merge_shuttle))]
pub(crate) use modelled::OnceLock;
#[cfg(context_merge_loom)]
pub(crate) use modelled::{Arc, filled, is_unique, now};

/// A handle of what is filled in its place: what is built elsewhere first is copied in wide pieces of what was stored in
/// narrow ones, which costs as much as all the rest.
#[cfg(not(context_merge_loom))]
#[inline(always)]
pub(crate) fn filled<T>(empty: T, fill: impl FnOnce(&mut T)) -> Arc<T> {
    let mut handle = triomphe::UniqueArc::new(empty);
    fill(&mut handle);
    handle.shareable()
}

/// Whether no other handle has it.
#[cfg(not(context_merge_loom))]
pub(crate) fn is_unique<T>(handle: &Arc<T>) -> bool {
    Arc::is_unique(handle)
}

/// Takes what a lock guards whether or not somebody panicked with it: no foreign code runs under our locks, so what
/// they guard is whole at every moment.
pub(crate) fn unpoisoned<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// Where every event that is not a cancel stands in sequence.
pub(crate) const BEFORE_ALL_CANCELS: u64 = 1;

/// Counters of one order: events of different instants need none, so that each instant draws from one of many, and cores
/// that cancel at once stay off each other's lines.
#[repr(align(64))]
struct Counter(AtomicU64);

impl Counter {
    const COUNT: usize = if cfg!(any(context_merge_loom, context_merge_shuttle)) { 1 } else { 64 };
}

#[cfg(not(any(context_merge_loom, context_merge_shuttle)))]
static SEQUENCE: [Counter; Counter::COUNT] =
    [const { Counter(AtomicU64::new(BEFORE_ALL_CANCELS + 1)) }; Counter::COUNT];
#[cfg(any(context_merge_loom, context_merge_shuttle))]
threads::lazy_static! {
    static ref SEQUENCE: [Counter; Counter::COUNT] = [Counter(AtomicU64::new(BEFORE_ALL_CANCELS + 1))];
}

/// The next number in the one order of all events at an instant, given in ticks.
pub(crate) fn next_in_sequence(ticks: u64) -> u64 {
    // Multiplied, so that a clock with coarse steps reaches all of them.
    let counter = ticks.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
    // AcqRel: pairs with itself. Who draws the larger number has seen all that came before the smaller was drawn.
    SEQUENCE[counter as usize % Counter::COUNT].0.fetch_add(1, Ordering::AcqRel)
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
