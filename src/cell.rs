//! The event of one source: marked, then timed (N1 in `node.rs`).
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `QUIET` | a source of our own, not marked | `FIRED` by cancel |
//! | `ASK` | look further: a signal, an `until`, a relay, a gather | `FIRED` when a signal was seen, a gather settled |
//! | `FIRED` | marked: `err` is set | none |

use crate::error::Error;
use crate::sync::{AtomicU8, AtomicU64, OnceLock, Ordering, fence, next_in_sequence, now, ticks};

pub(crate) const QUIET: u8 = 0;
pub(crate) const FIRED: u8 = 1;
pub(crate) const ASK: u8 = 2;

/// When an event happened: its ticks, then its number in sequence. Neither is zero, which stands for unknown; a
/// deadline has the number that comes before all cancels.
pub(crate) type Moment = (u64, u64);

/// The event of a source.
pub(crate) struct Cell {
    err: OnceLock<Error>,
    seq: AtomicU64,
    ticks: AtomicU64,
    state: AtomicU8,
}

impl Cell {
    pub(crate) fn new(state: u8) -> Self {
        Self { err: OnceLock::new(), seq: AtomicU64::new(0), ticks: AtomicU64::new(0), state: AtomicU8::new(state) }
    }

    pub(crate) fn quiet() -> Self {
        Self::new(QUIET)
    }

    pub(crate) fn state(&self) -> u8 {
        // Acquire: pairs with the swaps in `mark` and `preset`, so that the error is there. loom tries more
        // interleavings of a read-modify-write than of a load, if all writes are such too.
        if cfg!(context_merge_loom) {
            self.state.fetch_or(QUIET, Ordering::AcqRel)
        } else {
            self.state.load(Ordering::Acquire)
        }
    }

    pub(crate) fn is_fired(&self) -> bool {
        self.state() == FIRED
    }

    /// The error, once marked.
    pub(crate) fn err(&self) -> Option<&Error> {
        self.err.get()
    }

    /// Marks and times the source (N1). False if it was marked before; even then its event is complete on return.
    pub(crate) fn mark(&self, err: Error) -> bool {
        let first = self.err.set(err).is_ok();
        self.state.swap(FIRED, Ordering::AcqRel);
        self.complete();
        first
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

    /// Takes over an event that has happened somewhere else.
    pub(crate) fn preset(&self, moment: Moment, err: Error) {
        let _ = self.err.set(err);
        self.seq.store(moment.1, Ordering::Relaxed);
        self.ticks.store(moment.0, Ordering::Relaxed);
        // Release: pairs with `state`, and publishes the three above.
        self.state.swap(FIRED, Ordering::AcqRel);
    }
}

fn set_once(cell: &AtomicU64, value: u64) -> u64 {
    // AcqRel and Acquire: pair with each other and with the loads in `complete`.
    match cell.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => value,
        Err(known) => known,
    }
}
