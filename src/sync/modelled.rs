//! What stands in for std, triomphe and the clock where loom or shuttle schedules the threads.

#[cfg(context_merge_loom)]
use tokio::time::Instant;

use super::threads::sync::atomic::AtomicBool;
use super::{Mutex, Ordering, unpoisoned};

/// As std's, with what it orders told to loom, and a place for shuttle to switch.
pub(crate) struct OnceLock<T> {
    setting: Mutex<()>,
    ready: AtomicBool,
    cell: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { setting: Mutex::new(()), ready: AtomicBool::new(false), cell: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire: pairs with the swap in `set`. loom tries more interleavings of a read-modify-write than of a load, if
        // all writes are such too.
        let ready = match cfg!(context_merge_loom) {
            true => self.ready.fetch_or(false, Ordering::AcqRel),
            false => self.ready.load(Ordering::Acquire),
        };
        if ready { self.cell.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _setting = unpoisoned(self.setting.lock());
        self.cell.set(value)?;
        self.ready.swap(true, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(context_merge_loom)]
pub(crate) use loom::sync::Arc;

#[cfg(context_merge_loom)]
pub(crate) fn filled<T>(mut empty: T, fill: impl FnOnce(&mut T)) -> Arc<T> {
    fill(&mut empty);
    Arc::new(empty)
}

#[cfg(context_merge_loom)]
pub(crate) fn is_unique<T>(handle: &Arc<T>) -> bool {
    Arc::strong_count(handle) == 1
}

/// loom has no clock: every event has the same instant, so that the sequence alone decides.
#[cfg(context_merge_loom)]
pub(crate) fn now() -> Instant {
    super::epoch()
}
