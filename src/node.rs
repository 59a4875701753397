//! The core: when a set of sources and a deadline is finished, and by which event.
//!
//! N1. A source is *marked* once (with its error), then *timed* (a number in sequence, then an instant); both parts
//!     of the time are set once, by whoever comes first, after having seen the mark. Its event is complete with both.
//! N2. A node is finished from the moment that one of its sources is marked or its deadline is reached. `earliest`
//!     gives the first event of all its sources: it completes what it finds marked, and only then looks at every mark
//!     once more. A mark that it misses is timed later than the events it had completed.
//! N3. The verdict is stored once and never changes.
//! N4. Sets are flat: a node has all its sources as entries, but a relay stands for those above it, and a gather, which is in
//!     sets of more than eight, for a list of them. A relay's entries hold no relay; a gather's hold no relay and at
//!     most one gather. So a look walks at most: entry, relay, list of gathers.
//! N5. A signal is never behind a relay or a gather: whoever waits has to poll it.
//! N6. Nothing above holds what is below, but for lists of waiters, which hold wakers and lists.

use smallvec::SmallVec;

use crate::cell::{Cell, Moment};
use crate::error::Error;
use crate::fate::{DEADLINE, Deadline, FIRST_ENTRY, Fate, LIVE, OWN, Verdict};
use crate::release::drop_foreign;
use crate::source::{Resolved, Role};
use crate::sync::{Ordering, Shared, fence};

/// A set of sources on the way into a node.
pub(crate) type Set = SmallVec<[Node; MAX_SOURCES]>;

/// How many sources a node has as entries before the older ones are gathered; signals do not count (N5). Under a
/// model checker so few that small programs reach the edge.
pub(crate) const MAX_SOURCES: usize = if cfg!(any(context_merge_loom, context_merge_shuttle)) { 2 } else { 8 };

#[derive(Clone)]
pub(crate) struct Node(Shared<Head, Node>);

struct Head {
    fate: Fate,
    role: Role,
}

impl Drop for Head {
    fn drop(&mut self) {
        if let Role::Signal { .. } = self.role {
            drop_foreign(std::mem::replace(&mut self.role, Role::Plain));
        }
    }
}

impl Node {
    pub(crate) fn new(role: Role, entries: impl ExactSizeIterator<Item = Self>, deadline: Option<Deadline>) -> Self {
        Self(Shared::new(Head { fate: Fate::new(deadline), role }, entries))
    }

    /// What is derived from or merged with finished contexts: it keeps the event, and no source.
    pub(crate) fn finished(moment: Moment, err: Error, deadline: Option<Deadline>) -> Self {
        let node = Self::new(Role::Finished { cell: Cell::preset(moment, err) }, std::iter::empty(), deadline);
        let _ = node.fate().decide(OWN);
        node
    }

    #[inline]
    fn fate(&self) -> &Fate {
        &self.0.head().fate
    }

    #[inline]
    pub(crate) fn role(&self) -> &Role {
        &self.0.head().role
    }

    #[inline]
    pub(crate) fn entries(&self) -> &[Self] {
        self.0.items()
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Option<&Deadline> {
        self.fate().deadline()
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        self.address() == other.address()
    }

    pub(crate) fn address(&self) -> usize {
        self.0.address()
    }

    /// Whether no other handle, entry or registration has this node.
    pub(crate) fn is_unique(&self) -> bool {
        self.0.is_unique()
    }

    /// Whether it is the one source that it has.
    pub(crate) fn is_root(&self) -> bool {
        match self.role() {
            Role::Plain => false,
            Role::Relay(_) => !self.entries().iter().any(Self::is_signal),
            _ => self.entries().is_empty(),
        }
    }

    /// Whether it is one of our own sources, with nothing above it, and live.
    #[inline]
    pub(crate) fn is_live_root(&self) -> bool {
        self.entries().is_empty()
            && self.fate().verdict() == LIVE
            && matches!(self.role(), Role::Source { cell, .. } if !cell.is_fired())
    }

    pub(crate) fn has_sources(&self) -> bool {
        !self.entries().is_empty() || !matches!(self.role(), Role::Plain)
    }

    /// Whether it can be seen at a glance that none of its sources stirs. Never with a foreign signal, which has to be asked.
    #[inline]
    pub(crate) fn is_quiet_set(&self) -> bool {
        self.fate().verdict() == LIVE && self.all_quiet()
    }

    /// The sources as a derived node has them (N4, N5): all entries, and the node itself where it is a source, but a
    /// relay for what it relays.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &Self> {
        let relays = self.is_relay();
        let own = !matches!(self.role(), Role::Plain);
        self.entries().iter().filter(move |entry| !relays || entry.is_signal()).chain(own.then_some(self))
    }

    /// The same in a list.
    pub(crate) fn all_sources(&self) -> Set {
        let mut all = Set::new();
        self.sources().for_each(|source| all.push(source.clone()));
        all
    }

    /// Appends its sources to `set`; a handle of what is its own only source moves.
    pub(crate) fn sources_into(self, set: &mut Set) {
        if self.is_root() {
            set.push(self);
        } else {
            self.sources().for_each(|source| set.push(source.clone()));
        }
    }

    /// The sources that have a list of waiters: no more than `MAX_SOURCES`, for signals have none.
    pub(crate) fn each_listed(&self, mut each: impl FnMut(&Node)) {
        let entries = if self.is_relay() { &[] } else { self.entries() };
        entries.iter().filter(|entry| !entry.is_signal()).for_each(&mut each);
        if !matches!(self.role(), Role::Plain | Role::Signal { .. }) {
            each(self);
        }
    }

    /// Why it is finished, if it is.
    #[inline]
    pub(crate) fn err(&self) -> Option<Error> {
        match self.verdict() {
            LIVE => None,
            verdict => self.event_of(verdict).map(|(_, err)| err),
        }
    }

    /// By which event it is finished, if it is.
    pub(crate) fn event(&self) -> Option<(Moment, Error)> {
        match self.verdict() {
            LIVE => None,
            verdict => self.event_of(verdict),
        }
    }

    /// As `event`, but a deadline that has passed counts only where something else has shown that it is finished: for
    /// what derives from it or merges it, which will see that deadline by itself.
    #[inline]
    pub(crate) fn event_but_for_time(&self) -> Option<(Moment, Error)> {
        if self.is_quiet_set() { None } else { self.event() }
    }

    /// As `event`: also an event that a gather is still to be told of, or a deadline to come.
    pub(crate) fn first_event(&self) -> Option<(Moment, Error)> {
        let (_, verdict) = self.earliest()?;
        self.event_of(verdict)
    }

    fn event_of(&self, verdict: Verdict) -> Option<(Moment, Error)> {
        match verdict {
            OWN => self.find_own().map(Resolved::event),
            verdict => event_of(verdict, self.entries(), self.deadline()),
        }
    }

    #[inline]
    pub(crate) fn is_finished(&self) -> bool {
        self.verdict() != LIVE
    }

    /// Whether the source of this node itself is what finished it.
    pub(crate) fn finished_itself(&self) -> bool {
        self.verdict() == OWN
    }

    /// Whether its deadline or a foreign signal finished it: nothing that fires a list of waiters.
    pub(crate) fn finished_without_notify(&self) -> bool {
        match self.verdict() {
            LIVE => false,
            DEADLINE => true,
            OWN => self.is_signal(),
            entry => self.entries()[(entry - FIRST_ENTRY) as usize].is_signal(),
        }
    }

    #[inline]
    fn verdict(&self) -> Verdict {
        let verdict = self.fate().verdict();
        if verdict != LIVE {
            return verdict;
        }
        let quiet = self.all_quiet() && !self.deadline().is_some_and(Deadline::is_reached);
        if quiet { LIVE } else { self.look_closer() }
    }

    /// Whether each source can be seen at a glance to be live.
    #[inline]
    fn all_quiet(&self) -> bool {
        self.all(Self::is_quiet)
    }

    /// Whether all entries, and the node itself where it is a source, are so.
    #[inline]
    pub(crate) fn all(&self, are: impl Fn(&Self) -> bool) -> bool {
        self.entries().iter().all(&are) && (matches!(self.role(), Role::Plain) || are(self))
    }

    /// Foreign signals are asked last, and not where something has happened already: that is earlier than what they
    /// would be seen to say now, and must not wait for one that blocks or panics.
    fn look_closer(&self) -> Verdict {
        let stir = |signals| self.sources().any(|source| source.is_signal() == signals && source.stirs());
        let stirs = stir(false) || self.deadline().is_some_and(Deadline::is_reached) || stir(true);
        if stirs { self.decide() } else { LIVE }
    }

    /// An event has been seen: takes the earliest of all (N2), and stores it (N3).
    #[cold]
    pub(crate) fn decide(&self) -> Verdict {
        let verdict = self.earliest().map_or(LIVE, |(_, verdict)| verdict);
        self.fate().decide(verdict).map_or_else(|known| known, |()| verdict)
    }

    fn earliest(&self) -> Option<(Moment, Verdict)> {
        earliest(self.entries(), || self.find_own(), self.deadline())
    }

    /// The event of its own source; what a relay stands for are entries.
    fn find_own(&self) -> Option<Resolved<'_>> {
        if self.is_relay() { None } else { self.find() }
    }

    /// Keeps the event that decides a gather.
    pub(crate) fn settle(&self, found: Resolved<'_>) {
        // The verdict of a gather is of no other use: it says who stores. Nobody waits for the one who does.
        if let (Some(cell), Ok(())) = (self.cell(), self.fate().decide(OWN)) {
            let (moment, err) = found.event();
            cell.settle(moment, err);
        }
    }

    /// What stands below those of its sources that have fired is told when this returns. Whoever fired them may still
    /// be at that.
    pub(crate) fn tell_below(&self) {
        self.sources().for_each(Self::tell);
    }
}

/// The first event of a set that is not a node yet, or the deadline, if that will be before any.
pub(crate) fn first_event(entries: &[Node], deadline: Option<&Deadline>) -> Option<(Moment, Error)> {
    let (_, verdict) = earliest(entries, || None, deadline)?;
    event_of(verdict, entries, deadline)
}

fn event_of(verdict: Verdict, entries: &[Node], deadline: Option<&Deadline>) -> Option<(Moment, Error)> {
    if verdict == DEADLINE {
        return deadline.map(|deadline| (deadline.moment(), deadline.err()));
    }
    entries[(verdict - FIRST_ENTRY) as usize].find().map(Resolved::event)
}

/// The earliest event of a set, and the verdict that names it, once one has been seen (N2).
///
/// The first walk completes every mark it finds. The fence pairs with the one in `Cell::complete`: a mark that the
/// second walk misses is timed after it, and so after each event that the first walk completed, or after the deadline
/// that was seen to be reached.
fn earliest<'a>(
    entries: &'a [Node],
    own: impl Fn() -> Option<Resolved<'a>>,
    deadline: Option<&Deadline>,
) -> Option<(Moment, Verdict)> {
    if entries.is_empty() && deadline.is_none() {
        // There is nothing that it could be later than.
        return own().map(|own| (own.moment, OWN));
    }
    let mut first = None;
    for walk in 0..2 {
        if walk == 1 {
            fence(Ordering::SeqCst);
        }
        first = None;
        let mut consider = |moment: Moment, verdict| {
            if first.is_none_or(|(earliest, _)| moment < earliest) {
                first = Some((moment, verdict));
            }
        };
        for (index, entry) in (FIRST_ENTRY..).zip(entries) {
            if let Some(found) = entry.find() {
                consider(found.moment, index);
            }
        }
        if let Some(own) = own() {
            consider(own.moment, OWN);
        }
        // An event was seen, or the deadline was: where it is earlier than that event, it is reached.
        if let Some(deadline) = deadline {
            consider(deadline.moment(), DEADLINE);
        }
    }
    first
}
