//! What happens to a source, once, and the deadline of a context: errors, and the times that put them into one order.
//!
//! An event is *marked*, then *timed* (N1 in `set.rs`). Who owns it keeps the mark, in a word that says more.
//!
//! | the event has | meaning | next |
//! |---|---|---|
//! | no error | has not happened | an error, by a cancel, a look at a signal, or a gather that is resolved |
//! | an error, no mark | counts from now on; the mark follows | marked, by whoever has tried to set an error |
//! | the mark | happened; whoever needs the time completes it | timed |
//! | instant and number | happened then | none |

use tokio::time::Instant;

use crate::error::{DeadlineError, Error};
use crate::sync::{AtomicU64, BEFORE_ALL_CANCELS, OnceLock, Ordering, fence, next_in_sequence, now, ticks};

/// When an event happened: its ticks, then its number among the events of that instant. Neither is zero, which stands for
/// unknown; a deadline has the number that comes before all cancels.
pub(crate) type Timestamp = (u64, u64);

/// The event of a source.
pub(crate) struct Event {
    err: OnceLock<Error>,
    ticks: AtomicU64,
    seq: AtomicU64,
}

impl Event {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { err: OnceLock::new(), ticks: AtomicU64::new(0), seq: AtomicU64::new(0) }
    }

    /// Sets the error. False if there was one, which is then the one that counts.
    pub(crate) fn set(&self, err: Error) -> bool {
        self.err.set(err).is_ok()
    }

    /// Takes over an event that has happened elsewhere.
    pub(crate) fn copy(&self, timestamp: Timestamp, err: Error) {
        // Relaxed: the mark publishes them.
        self.ticks.store(timestamp.0, Ordering::Relaxed);
        self.seq.store(timestamp.1, Ordering::Relaxed);
        let _ = self.err.set(err);
    }

    /// The error of one that is marked.
    pub(crate) fn err(&self) -> Error {
        self.err.get().expect("set before the mark").clone()
    }

    /// The time of one that is marked, which this sets where whoever marked it has not come to it.
    pub(crate) fn complete(&self) -> Timestamp {
        // Acquire: pairs with the exchanges below.
        let known = (self.ticks.load(Ordering::Acquire), self.seq.load(Ordering::Acquire));
        if known.0 != 0 && known.1 != 0 {
            return known;
        }
        // Pairs with the fence in `set::earliest`: a look whose fence comes after this one sees the mark.
        fence(Ordering::SeqCst);
        // The instant first: the number is one among those of that instant.
        let ticks = set_once(&self.ticks, ticks(now()));
        (ticks, set_once(&self.seq, next_in_sequence(ticks)))
    }
}

fn set_once(word: &AtomicU64, value: u64) -> u64 {
    // AcqRel and Acquire: pair with each other and with the loads in `complete`.
    match word.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => value,
        Err(known) => known,
    }
}

#[derive(Clone)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    err: DeadlineError,
}

impl Deadline {
    pub(crate) fn new(at: Instant, err: DeadlineError) -> Self {
        Self { at, err }
    }

    /// What the context reports, cause and origin included.
    pub(crate) fn err(&self) -> Error {
        self.err.to_error()
    }

    pub(crate) fn timestamp(&self) -> Timestamp {
        (ticks(self.at), BEFORE_ALL_CANCELS)
    }

    #[inline]
    pub(crate) fn is_reached(&self) -> bool {
        now() >= self.at
    }

    /// The earlier of two; the first where they are equal.
    #[inline]
    pub(crate) fn earlier<'a>(a: Option<&'a Self>, b: Option<&'a Self>) -> Option<&'a Self> {
        match (a, b) {
            (Some(a), Some(b)) if b.at < a.at => Some(b),
            _ => a.or(b),
        }
    }

    /// Whether both are the same instant with the same error.
    pub(crate) fn same(a: Option<&Self>, b: Option<&Self>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => a.at == b.at && a.err.same(&b.err),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}
