//! When a context is finished, and by which event.
//!
//! N1. An event is *marked* once (with its error), then *timed* (an instant, then a number in sequence); both parts of the
//!     time are set once, by whoever comes first, after having seen the mark.
//! N2. A context is finished from the moment that one of its sources is marked or its deadline is reached. `earliest` gives
//!     the first of all events: it completes one that it has seen, and only then looks at every mark. A mark that it misses
//!     is timed later than the one it had completed.
//! N3. The verdict is stored once and never changes. A source with nothing above it needs none: it is the one that happened.
//! N4. A set has at most `MAX_SOURCES` sources: past that the older ones stand behind a gather. A relay holds no relay, a
//!     gather holds no relay. So a glance walks at most: row or union, relay, mark.
//! N5. A foreign signal is never behind a relay or a gather: whoever waits has to poll it.
//! N6. Nothing above holds what is below, but for lists of waiters, which hold wakers and lists.

use crate::error::Error;
use crate::event::{Deadline, Timestamp};
use crate::source::{Set, Source, View};
use crate::sync::{Arc, AtomicU32, Ordering, fence};

/// What finished a context; what is not less than `FIRST` names a source, by its place in the walk.
pub(crate) type Verdict = u32;

pub(crate) const LIVE: Verdict = 0;
const DEADLINE: Verdict = 1;
/// The lowest source of a row: for a canceller, its own.
pub(crate) const FIRST: Verdict = 2;

impl Set {
    /// What is derived from or merged with what has finished: it keeps the event, and no other source.
    pub(crate) fn finished(event: (Timestamp, Error), deadline: Option<Deadline>) -> Self {
        let source = Source::marked(event, deadline);
        source.verdict.store(FIRST, Ordering::Relaxed);
        Self::Source(source)
    }

    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

impl<'a> View<'a> {
    /// The number of sources, foreign signals aside (N4).
    pub(crate) fn count(self) -> usize {
        self.sources().filter(|source| !source.is_foreign()).count()
    }

    /// Where the verdict is kept.
    #[inline]
    fn kept(self) -> Option<&'a AtomicU32> {
        match self {
            Self::Never => None,
            Self::Source(source) => Some(&source.verdict),
            Self::Union(union) => Some(&union.verdict),
        }
    }

    /// Whether it can be seen at a glance that it is live, but for a deadline that has passed: for what derives from it or
    /// merges it, which will see that by itself. Never with a foreign signal, which has to be asked.
    #[inline]
    pub(crate) fn is_pending(self) -> bool {
        // Acquire: pairs with the exchange in `decide`.
        self.kept().is_none_or(|kept| kept.load(Ordering::Acquire) == LIVE) && self.all(Source::is_pending)
    }

    /// Most looks need no more than the marks of a root, or of two.
    #[inline]
    pub(crate) fn verdict(self) -> Verdict {
        let live = match self {
            Self::Never => true,
            Self::Source(source) => source.is_pending_root(),
            Self::Union(union) => union.is_live_pair(),
        };
        if live { LIVE } else { self.look() }
    }

    #[inline(never)]
    fn look(self) -> Verdict {
        let pending = self.is_pending() && !self.deadline().is_some_and(Deadline::is_reached);
        if pending { LIVE } else { self.look_closer() }
    }

    /// Foreign signals are asked last, and not where something has happened already: that is earlier than what they would
    /// be seen to say now, and must not wait for one that blocks or panics.
    fn look_closer(self) -> Verdict {
        let kept = self.kept().map_or(LIVE, |kept| kept.load(Ordering::Acquire));
        if kept != LIVE {
            return kept;
        }
        let has_event = |foreign| self.sources().any(|source| source.is_foreign() == foreign && source.has_event());
        let reached = || self.deadline().is_some_and(Deadline::is_reached);
        if has_event(false) || reached() || has_event(true) { self.decide() } else { LIVE }
    }

    /// An event has been seen: takes the earliest of all (N2), and keeps it (N3).
    #[cold]
    pub(crate) fn decide(self) -> Verdict {
        if let Self::Source(source) = self {
            if source.is_root() {
                return source.resolve_marked().map_or(LIVE, |_| FIRST);
            }
        }
        let Some((_, verdict)) = earliest(self.sources(), self.deadline()) else { return LIVE };
        let Some(kept) = self.kept() else { return verdict };
        kept.compare_exchange(LIVE, verdict, Ordering::AcqRel, Ordering::Acquire).map_or_else(|kept| kept, |_| verdict)
    }

    #[inline]
    pub(crate) fn is_finished(self) -> bool {
        self.verdict() != LIVE
    }

    /// Why it is finished, if it is.
    #[inline]
    pub(crate) fn err(self) -> Option<Error> {
        self.event().map(|(_, err)| err)
    }

    /// By which event it is finished, if it is.
    #[inline]
    pub(crate) fn event(self) -> Option<(Timestamp, Error)> {
        match self.verdict() {
            LIVE => None,
            verdict => Some(event_of(verdict, self.sources(), self.deadline())),
        }
    }

    /// What stands below those of its sources that have happened is marked when this returns.
    pub(crate) fn mark_downstream(self) {
        self.sources().for_each(|source| source.mark_downstream());
    }

    /// Whether its deadline or a foreign signal finished it: nothing that notifies a list of waiters.
    pub(crate) fn finished_without_notify(self) -> bool {
        match self.verdict() {
            LIVE => false,
            DEADLINE => true,
            verdict => source_of(verdict, self.sources()).is_foreign(),
        }
    }
}

impl Source {
    /// Finishes its context where its canceller alone holds it: nobody can look at the error, or compare its time. False where
    /// another call was first.
    pub(crate) fn finish_unseen(&self) -> bool {
        let first = self.event.set(Error::cancelled());
        self.waiters.mark();
        let _ = self.verdict.compare_exchange(LIVE, FIRST, Ordering::AcqRel, Ordering::Acquire);
        first
    }
}

/// The first event of sources that are no context yet, where one has happened. At one instant the deadline comes before what
/// stands at `place` or behind, which may have happened by a deadline of its own.
pub(crate) fn first_event(
    sources: &[Arc<Source>],
    deadline: Option<&Deadline>,
    place: usize,
) -> Option<(Timestamp, Error)> {
    let (first, mut verdict) = earliest(sources.iter(), deadline)?;
    if verdict as usize >= place + FIRST as usize && deadline.is_some_and(|deadline| deadline.timestamp() == first) {
        verdict = DEADLINE;
    }
    Some(event_of(verdict, sources.iter(), deadline))
}

fn source_of<'a>(verdict: Verdict, mut sources: impl Iterator<Item = &'a Arc<Source>>) -> &'a Arc<Source> {
    sources.nth((verdict - FIRST) as usize).expect("a verdict names one of them")
}

#[cold]
fn event_of<'a>(
    verdict: Verdict,
    sources: impl Iterator<Item = &'a Arc<Source>>,
    deadline: Option<&Deadline>,
) -> (Timestamp, Error) {
    let event = match verdict {
        DEADLINE => deadline.map(|deadline| (deadline.timestamp(), deadline.err())),
        _ => source_of(verdict, sources).resolve().map(|found| found.event()),
    };
    event.expect("what was decided has happened")
}

/// The earliest event, and the verdict that names it, once one has been seen (N2).
///
/// One that is seen is completed; then comes a fence, then a walk over all of them. The fence pairs with the one in
/// `Event::complete`: a mark that the walk misses is timed after it, and so after what was seen, or after the deadline that
/// was seen to be reached.
fn earliest<'a>(
    sources: impl Iterator<Item = &'a Arc<Source>> + Clone,
    deadline: Option<&Deadline>,
) -> Option<(Timestamp, Verdict)> {
    let seen = sources.clone().any(|source| source.resolve().is_some());
    if !seen && !deadline.is_some_and(Deadline::is_reached) {
        return None;
    }
    fence(Ordering::SeqCst);
    let found = sources.zip(FIRST..).filter_map(|(source, verdict)| Some((source.resolve()?.timestamp, verdict)));
    let first = found.min_by_key(|(timestamp, _)| *timestamp);
    match deadline.map(Deadline::timestamp) {
        Some(at) if first.is_none_or(|(timestamp, _)| at < timestamp) => Some((at, DEADLINE)),
        _ => first,
    }
}
