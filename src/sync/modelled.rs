//! What stands in for std, triomphe and the clock where loom or shuttle schedules the threads.

#[cfg(context_merge_loom)]
use tokio::time::Instant;

#[cfg(context_merge_loom)]
use super::Arc;
use super::{AtomicBool, Mutex, Ordering, unpoisoned};

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

/// loom has to see the count: whoever drops the node last has seen what the others did with it.
#[cfg(context_merge_loom)]
pub(crate) struct Shared<H, T>(Arc<(H, Vec<T>)>);

#[cfg(context_merge_loom)]
impl<H, T> Shared<H, T> {
    pub(crate) fn new(head: H, items: impl ExactSizeIterator<Item = T>) -> Self {
        Self(Arc::new((head, items.collect())))
    }

    pub(crate) fn head(&self) -> &H {
        &self.0.0
    }

    pub(crate) fn items(&self) -> &[T] {
        &self.0.1
    }

    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self.head()) as usize
    }

    pub(crate) fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

#[cfg(context_merge_loom)]
impl<H, T> Clone for Shared<H, T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// loom has no clock: every event has the same instant, so that the sequence alone decides.
#[cfg(context_merge_loom)]
pub(crate) fn now() -> Instant {
    super::epoch()
}
