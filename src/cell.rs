//! The event of one source: marked, then timed (N1 in `node.rs`).
//!
//! | the cell has | meaning | next |
//! |---|---|---|
//! | no error | not marked | marked, by a cancel, a look at a signal, a task, or a gather that is settled |
//! | an error | marked; whoever needs the time completes it | timed |
//! | error, number and instant | timed | none |

use crate::error::Error;
use crate::sync::{AtomicU64, OnceLock, Ordering, fence, next_in_sequence, now, ticks};

/// When an event happened: its ticks, then its number in sequence. Neither is zero, which stands for unknown; a
/// deadline has the number that comes before all cancels.
pub(crate) type Moment = (u64, u64);

/// The event of a source.
pub(crate) struct Cell {
    err: OnceLock<Error>,
    seq: AtomicU64,
    ticks: AtomicU64,
}

impl Cell {
    pub(crate) fn new() -> Self {
        Self { err: OnceLock::new(), seq: AtomicU64::new(0), ticks: AtomicU64::new(0) }
    }

    /// With an event that has happened somewhere else.
    pub(crate) fn preset(moment: Moment, err: Error) -> Self {
        let cell = Self::new();
        cell.settle(moment, err);
        cell
    }

    #[inline]
    pub(crate) fn is_fired(&self) -> bool {
        self.err.get().is_some()
    }

    /// The error, once marked.
    pub(crate) fn err(&self) -> Option<&Error> {
        self.err.get()
    }

    /// Marks and times the source (N1). False if it was marked before; even then its event is complete on return.
    pub(crate) fn mark(&self, err: Error) -> bool {
        let first = self.err.set(err).is_ok();
        self.complete();
        first
    }

    /// Takes over an event that has happened somewhere else, with its time.
    pub(crate) fn settle(&self, moment: Moment, err: Error) {
        // Relaxed: the mark publishes them.
        self.seq.store(moment.1, Ordering::Relaxed);
        self.ticks.store(moment.0, Ordering::Relaxed);
        let _ = self.err.set(err);
    }

    /// The time of a marked source, which this sets where the one that marked it has not come to it.
    pub(crate) fn complete(&self) -> Moment {
        // Acquire: pairs with the exchanges below.
        let known = (self.ticks.load(Ordering::Acquire), self.seq.load(Ordering::Acquire));
        if known.0 != 0 && known.1 != 0 {
            return known;
        }
        // Pairs with the fence in `node::earliest`: a look whose fence comes after this one sees the mark.
        fence(Ordering::SeqCst);
        let seq = set_once(&self.seq, next_in_sequence());
        let ticks = set_once(&self.ticks, ticks(now()));
        (ticks, seq)
    }
}

fn set_once(cell: &AtomicU64, value: u64) -> u64 {
    // AcqRel and Acquire: pair with each other and with the loads in `complete`.
    match cell.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => value,
        Err(known) => known,
    }
}
