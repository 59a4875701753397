//! The core: when a set of sources and a deadline is finished, and by which event.
//!
//! N1. A source is *marked* once (with its error), then *timed* (a number in sequence, then an instant); both parts
//!     of the time are set once, by whoever comes first, after having seen the mark. Its event is complete with both.
//! N2. A node is finished from the moment that one of its sources is marked or its deadline is reached. `earliest`
//!     gives the first event of all its sources: it completes what it finds marked, and only then looks at every mark
//!     once more. A mark that it misses is timed later than the events it had completed.
//! N3. The verdict is stored once and never changes.
//! N4. Sets are flat: a node names all its sources, but a relay stands for those above it, and a gather, which is in
//!     sets of more than eight, for a list of them. A relay's entries hold no relay; a gather's hold no relay and at
//!     most one gather. So a look walks at most: entry, relay, list of gathers.
//! N5. A signal is never behind a relay or a gather: whoever waits has to poll it.
//! N6. Nothing above holds what is below, but for lists of waiters, which hold wakers and lists.

use std::cmp::Ordering as Order;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::cell::{ASK, Cell, FIRED, Moment, QUIET};
use crate::error::{Error, Name};
use crate::relay::{Gather, Relay, leaves};
use crate::release::let_go;
use crate::signal::{Signal, Until};
use crate::sync::{Arc, AtomicU32, BEFORE_ALL_CANCELS, OnceLock, Ordering, Shared, fence, now, ticks};
use crate::waiters::Waiters;

/// A set of sources on the way into a node.
pub(crate) type Set = SmallVec<[Entry; MAX_SOURCES]>;

/// How many sources a node names before the older ones are gathered; signals do not count (N5). Under a
/// model checker so few that small programs reach the edge.
pub(crate) const MAX_SOURCES: usize = if cfg!(any(context_merge_loom, context_merge_shuttle)) { 2 } else { 8 };

/// What finished a node; what is larger than `FIRST_ENTRY` is the index of an entry.
const LIVE: u32 = 0;
const DEADLINE: u32 = 1;
const OWN: u32 = 2;
const FIRST_ENTRY: u32 = 3;

#[derive(Clone)]
pub(crate) struct Node(Shared<Head, Entry>);

/// A source in a set, under the name that was given closest to it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) node: Node,
    pub(crate) name: Option<Name>,
}

pub(crate) struct Head {
    cell: Cell,
    deadline: Option<Deadline>,
    /// None inside once the source can fire no more or has fired without a list: nobody can register any longer.
    waiters: OnceLock<Option<Arc<Waiters>>>,
    role: Role,
    /// Set once from `LIVE` (N3): Release, loaded with Acquire.
    verdict: AtomicU32,
    pub(crate) cancellers: AtomicU32,
}

impl Drop for Head {
    fn drop(&mut self) {
        if matches!(self.role, Role::Signal(_)) {
            let_go(std::mem::replace(&mut self.role, Role::Plain));
        }
    }
}

/// What a node is besides a set of entries and a deadline.
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// A source that a `Canceller` fires.
    Source,
    /// Was finished when it was made; its cell has the event.
    Finished,
    Signal(Box<dyn Signal>),
    Until(Box<Until>),
    Relay(OnceLock<Box<Relay>>),
    Gather(Box<Gather>),
}

#[derive(Clone)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// What the context reports, cause and origin included. Small, and cloned without an allocation.
    pub(crate) err: Error,
}

impl Deadline {
    fn moment(&self) -> Moment {
        (ticks(self.at), BEFORE_ALL_CANCELS)
    }

    pub(crate) fn is_reached(&self) -> bool {
        now() >= self.at
    }
}

/// An event found at or above a node.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    moment: Moment,
    cell: &'a Cell,
    name: Option<&'a Name>,
    /// Whether it stands behind the gather in a list of gathers, and so behind what is found further up.
    behind: bool,
}

impl Found<'_> {
    pub(crate) fn behind(self, behind: bool) -> Self {
        Self { behind, ..self }
    }

    fn event(self) -> (Moment, Error) {
        (self.moment, self.err())
    }

    pub(crate) fn err(&self) -> Error {
        let err = self.cell.err().expect("a marked source has its error").clone();
        err.or_named(self.name)
    }
}

impl Node {
    pub(crate) fn new(role: Role, entries: Set, deadline: Option<Deadline>) -> Self {
        let state = match role {
            Role::Plain | Role::Source | Role::Finished => QUIET,
            Role::Signal(_) | Role::Until(_) | Role::Relay(_) | Role::Gather(_) => ASK,
        };
        let head = Head {
            cell: Cell::new(state),
            deadline,
            waiters: OnceLock::new(),
            role,
            verdict: AtomicU32::new(LIVE),
            cancellers: AtomicU32::new(0),
        };
        Self(Shared::new(head, entries.into_iter()))
    }

    /// What is derived from or merged with finished contexts: it keeps the event, and no source.
    pub(crate) fn finished(moment: Moment, err: Error, deadline: Option<Deadline>) -> Self {
        let node = Self::new(Role::Finished, Set::new(), deadline);
        node.head().cell.preset(moment, err);
        node.head().verdict.store(OWN, Ordering::Release);
        node
    }

    pub(crate) fn head(&self) -> &Head {
        self.0.head()
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        self.0.items()
    }

    pub(crate) fn role(&self) -> &Role {
        &self.head().role
    }

    pub(crate) fn deadline(&self) -> Option<&Deadline> {
        self.head().deadline.as_ref()
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

    pub(crate) fn stands_for_others(&self) -> bool {
        matches!(self.role(), Role::Relay(_) | Role::Gather(_))
    }

    pub(crate) fn is_signal(&self) -> bool {
        matches!(self.role(), Role::Signal(_))
    }

    /// The source's event; an `until` shares it with its task.
    pub(crate) fn cell(&self) -> &Cell {
        match self.role() {
            Role::Until(until) => until.cell(),
            _ => &self.head().cell,
        }
    }

    /// What is above as a derived node names it (N4, N5): all entries and the node itself where it is a source, but
    /// a relay for what it relays.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&Node, Option<&Name>)> {
        let relays = matches!(self.role(), Role::Relay(_));
        let own = !matches!(self.role(), Role::Plain);
        self.entries()
            .iter()
            .filter(move |entry| !relays || entry.node.is_signal())
            .map(|entry| (&entry.node, entry.name.as_ref()))
            .chain(own.then_some((self, None)))
    }

    /// Why it is finished, if it is.
    pub(crate) fn err(&self) -> Option<Error> {
        self.event().map(|(_, err)| err)
    }

    /// By which event it is finished, if it is.
    pub(crate) fn event(&self) -> Option<(Moment, Error)> {
        match self.verdict() {
            LIVE => None,
            verdict => self.event_of(verdict),
        }
    }

    /// As the function of that name: also an event that a gather is still to be told of, or a deadline to come.
    pub(crate) fn first_event(&self) -> Option<(Moment, Error)> {
        let (_, verdict) = earliest(self.entries(), || self.find_own(), self.deadline())?;
        self.event_of(verdict)
    }

    fn event_of(&self, verdict: u32) -> Option<(Moment, Error)> {
        match verdict {
            OWN => self.find_own().map(Found::event),
            verdict => event_of(verdict, self.entries(), self.deadline()),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.verdict() != LIVE
    }

    /// Whether the source of this node itself is what finished it.
    pub(crate) fn finished_itself(&self) -> bool {
        self.verdict() == OWN
    }

    /// Whether its deadline or a foreign signal finished it: nothing that fires a list of waiters.
    pub(crate) fn finished_by_alarm(&self) -> bool {
        match self.verdict() {
            LIVE => false,
            DEADLINE => true,
            OWN => self.is_signal(),
            entry => self.entries()[(entry - FIRST_ENTRY) as usize].node.is_signal(),
        }
    }

    fn verdict(&self) -> u32 {
        let verdict = self.head().verdict.load(Ordering::Acquire);
        if verdict != LIVE {
            return verdict;
        }
        let stir = |signals| self.sources().any(|(source, _)| source.is_signal() == signals && source.stirs());
        // Foreign signals are asked last, and not where something has happened already: that is earlier than what they
        // would be seen to say now, and must not wait for one that blocks or panics.
        let stirs = stir(false) || self.deadline().is_some_and(Deadline::is_reached) || stir(true);
        if stirs { self.decide() } else { LIVE }
    }

    /// Takes the earliest of all events (N2), the earlier entry where a source comes twice, and stores it (N3).
    #[cold]
    fn decide(&self) -> u32 {
        let verdict =
            earliest(self.entries(), || self.find_own(), self.deadline()).map_or(LIVE, |(_, verdict)| verdict);
        match self.head().verdict.compare_exchange(LIVE, verdict, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => verdict,
            Err(known) => known,
        }
    }

    /// Whether an event has happened at this source, or at one that it stands for. A gather may be told late. The
    /// signals of a relay are asked by themselves (N5).
    pub(crate) fn stirs(&self) -> bool {
        match self.head().cell.state() {
            QUIET => return false,
            FIRED => return true,
            _ => {}
        }
        match self.role() {
            Role::Signal(signal) => signal.err().map(|err| self.signalled(err)).is_some(),
            Role::Until(until) => until.cell().is_fired(),
            Role::Relay(_) => self.entries().iter().any(|entry| !entry.node.is_signal() && entry.node.stirs()),
            Role::Gather(gather) => gather.is_told(),
            Role::Plain | Role::Source | Role::Finished => false,
        }
    }

    fn find_own(&self) -> Option<Found<'_>> {
        match self.role() {
            Role::Plain | Role::Relay(_) => None,
            _ => self.find(None),
        }
    }

    /// The earliest event at this source, or at those that it stands for; `name` is for what has none itself.
    fn find<'a>(&'a self, name: Option<&'a Name>) -> Option<Found<'a>> {
        match self.role() {
            Role::Relay(_) => {
                let mut first = None;
                for entry in self.entries() {
                    earlier(&mut first, entry.node.find_in_relay(entry.name.as_ref().or(name)));
                }
                first
            }
            _ => self.find_in_relay(name),
        }
    }

    /// As `find`, for what a relay can hold (N4), so that nothing recurses.
    fn find_in_relay<'a>(&'a self, name: Option<&'a Name>) -> Option<Found<'a>> {
        match self.role() {
            Role::Gather(gather) => gather.find(self, name),
            _ => self.find_leaf(name),
        }
    }

    /// The event of this very source.
    pub(crate) fn find_leaf<'a>(&'a self, name: Option<&'a Name>) -> Option<Found<'a>> {
        let cell = self.cell();
        cell.is_fired().then(|| Found { moment: cell.complete(), cell, name, behind: false })
    }

    /// Keeps the event that decides a gather, in its own cell, under the name that it has inside the gather.
    pub(crate) fn settle(&self, found: Found<'_>) {
        // The verdict of a gather is of no other use: it says who stores. Nobody waits for the one who does.
        let claim = self.head().verdict.compare_exchange(LIVE, OWN, Ordering::AcqRel, Ordering::Relaxed);
        if claim.is_ok() {
            self.head().cell.preset(found.moment, found.err());
        }
    }

    /// The signal was seen to have happened: by a look, or by its own future.
    pub(crate) fn signalled(&self, err: Error) {
        self.head().cell.mark(err);
    }

    /// The list to wait in; None where nothing can come any more, or has come already.
    pub(crate) fn waiters(&self) -> Option<&Arc<Waiters>> {
        if self.head().waiters.get().is_none() {
            // Set before a loom switch can happen, so that nobody waits inside the cell.
            let list = match self.role() {
                Role::Until(until) => Arc::clone(until.waiters()),
                Role::Gather(gather) => Arc::clone(gather.waiters()),
                _ => Waiters::new(),
            };
            let first = self.head().waiters.set(Some(Arc::clone(&list))).is_ok();
            if let (true, Role::Relay(upstream)) = (first, self.role()) {
                let _ = upstream.set(Box::new(Relay::connect(self, &list)));
            }
        }
        self.existing_waiters()
    }

    /// What stands below those sources of this node that have fired is told when this returns. Whoever fired them may
    /// still be at that.
    pub(crate) fn tell_below(&self) {
        self.sources().for_each(|(source, _)| source.tell());
    }

    /// The same for a source, or for those that it stands for.
    pub(crate) fn tell(&self) {
        let relayed = if matches!(self.role(), Role::Relay(_)) { self.entries() } else { &[] };
        for leaf in relayed.iter().map(|entry| &entry.node).chain([self]).flat_map(leaves) {
            if let Some(list) = leaf.existing_waiters().filter(|_| leaf.cell().is_fired()) {
                list.tell();
            }
        }
    }

    /// Nothing can register from now on; gives what has.
    pub(crate) fn close(&self) -> Option<&Arc<Waiters>> {
        let _ = self.head().waiters.set(None);
        self.existing_waiters()
    }

    /// The list, if there is one, without making it.
    pub(crate) fn existing_waiters(&self) -> Option<&Arc<Waiters>> {
        self.head().waiters.get()?.as_ref()
    }
}

/// The first event of a set that is not a node yet, or the deadline, if that will be before any.
pub(crate) fn first_event(entries: &[Entry], deadline: Option<&Deadline>) -> Option<(Moment, Error)> {
    let (_, verdict) = earliest(entries, || None, deadline)?;
    event_of(verdict, entries, deadline)
}

fn event_of(verdict: u32, entries: &[Entry], deadline: Option<&Deadline>) -> Option<(Moment, Error)> {
    if verdict == DEADLINE {
        return deadline.map(|deadline| (deadline.moment(), deadline.err.clone()));
    }
    let entry = &entries[(verdict - FIRST_ENTRY) as usize];
    entry.node.find(entry.name.as_ref()).map(Found::event)
}

/// The earliest event of a set, and the verdict that names it, once one has been seen (N2).
///
/// The first walk completes every mark it finds. The fence pairs with the one in `Cell::complete`: a mark that the
/// second walk misses is timed after it, and so after each event that the first walk completed, or after the deadline
/// that was seen to be reached.
fn earliest<'a>(
    entries: &'a [Entry],
    own: impl Fn() -> Option<Found<'a>>,
    deadline: Option<&Deadline>,
) -> Option<(Moment, u32)> {
    let mut first = None;
    for _ in 0..2 {
        first = None;
        let mut consider = |moment: Moment, verdict| {
            if first.is_none_or(|(earliest, _)| moment < earliest) {
                first = Some((moment, verdict));
            }
        };
        for (index, entry) in (FIRST_ENTRY..).zip(entries) {
            if let Some(found) = entry.node.find(entry.name.as_ref()) {
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
        fence(Ordering::SeqCst);
    }
    first
}

/// Keeps in `first` the earlier of two events; of the same one, what was found first, unless it stands behind.
pub(crate) fn earlier<'a>(first: &mut Option<Found<'a>>, other: Option<Found<'a>>) {
    let Some(other) = other else { return };
    let replaces = first.is_none_or(|first| match other.moment.cmp(&first.moment) {
        Order::Less => true,
        Order::Equal => first.behind,
        Order::Greater => false,
    });
    if replaces {
        *first = Some(other);
    }
}
