//! A node as a source: what can finish a context, whether its event has happened, and who waits for that.

use std::task::Waker;

use crate::cell::{Cell, Moment};
use crate::error::{Error, Name};
use crate::node::Node;
use crate::relay::{Gather, Relay, leaves};
use crate::signal::{Signal, Until};
use crate::sync::{Arc, AtomicU32, OnceLock, Ordering};
use crate::waiters::{Key, Lower, Waiters};

/// What a node is besides a set of entries and a deadline.
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// A source that a `Canceller` fires.
    Source {
        cell: Cell,
        waiters: Waiters,
        cancellers: AtomicU32,
        /// What it was born under: the origin of its error.
        name: Option<Name>,
    },
    /// Was finished when it was made; its cell has the event.
    Finished {
        cell: Cell,
    },
    Signal {
        cell: Cell,
        signal: Box<dyn Signal>,
    },
    /// Shares its cell and its list with its task.
    Until(Box<Until>),
    /// Its list is made, and linked, when somebody waits on it.
    Relay(OnceLock<Box<Relay>>),
    /// Its cell has the event that decided it.
    Gather {
        cell: Cell,
        gather: Box<Gather>,
    },
}

/// An event found at or above a source.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) moment: Moment,
    cell: &'a Cell,
}

impl Found<'_> {
    pub(crate) fn event(self) -> (Moment, Error) {
        (self.moment, self.cell.err().expect("a marked source has its error").clone())
    }
}

impl Role {
    /// With one `Canceller`.
    pub(crate) fn source(name: Option<&Name>) -> Self {
        let (cell, waiters) = (Cell::new(), Waiters::new());
        Self::Source { cell, waiters, cancellers: AtomicU32::new(1), name: name.cloned() }
    }
}

impl Node {
    pub(crate) fn is_signal(&self) -> bool {
        matches!(self.role(), Role::Signal { .. })
    }

    pub(crate) fn is_relay(&self) -> bool {
        matches!(self.role(), Role::Relay(_))
    }

    /// Its own event; a set and a relay have none.
    pub(crate) fn cell(&self) -> Option<&Cell> {
        match self.role() {
            Role::Source { cell, .. }
            | Role::Finished { cell }
            | Role::Signal { cell, .. }
            | Role::Gather { cell, .. } => Some(cell),
            Role::Until(until) => Some(until.cell()),
            Role::Plain | Role::Relay(_) => None,
        }
    }

    fn is_fired(&self) -> bool {
        self.cell().is_some_and(Cell::is_fired)
    }

    /// Whether it can be seen at a glance that it does not stir.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        match self.role() {
            Role::Source { cell, .. } => !cell.is_fired(),
            _ => self.stands_for_what_is_quiet(),
        }
    }

    fn stands_for_what_is_quiet(&self) -> bool {
        let is_quiet = |source: &Self| match source.role() {
            Role::Source { cell, .. } => !cell.is_fired(),
            // Only what was told is settled.
            Role::Gather { gather, .. } => !gather.list().is_told(),
            _ => false,
        };
        match self.role() {
            // It holds no relay (N4).
            Role::Relay(_) => self.entries().iter().all(is_quiet),
            _ => is_quiet(self),
        }
    }

    /// Whether an event has happened at this source, or at one that it stands for. A gather may be told late. The
    /// signals of a relay are asked by themselves (N5).
    pub(crate) fn stirs(&self) -> bool {
        match self.role() {
            Role::Relay(_) => self.entries().iter().any(|entry| !entry.is_signal() && entry.stirs()),
            Role::Gather { gather, .. } => gather.list().is_told(),
            Role::Signal { cell, signal } => cell.is_fired() || signal.err().map(|err| cell.mark(err)).is_some(),
            _ => self.is_fired(),
        }
    }

    /// The earliest event here, or at those that it stands for.
    pub(crate) fn find(&self) -> Option<Found<'_>> {
        match self.role() {
            Role::Relay(_) => {
                let mut first = None;
                self.entries().iter().for_each(|entry| keep_earlier(&mut first, entry.find_in_relay()));
                first
            }
            _ => self.find_in_relay(),
        }
    }

    /// As `find`, for what a relay can hold (N4), so that nothing recurses.
    fn find_in_relay(&self) -> Option<Found<'_>> {
        match self.role() {
            Role::Gather { gather, .. } => gather.find(self),
            _ => self.find_leaf(),
        }
    }

    /// The event of this very source.
    pub(crate) fn find_leaf(&self) -> Option<Found<'_>> {
        let cell = self.cell().filter(|cell| cell.is_fired())?;
        Some(Found { moment: cell.complete(), cell })
    }

    /// What one of our own sources was born under.
    pub(crate) fn name(&self) -> Option<&Name> {
        match self.role() {
            Role::Source { name, .. } => name.as_ref(),
            _ => None,
        }
    }

    /// Its list, made and linked where it is a relay; None where nothing is ever told.
    #[inline]
    fn waiters(&self) -> Option<&Waiters> {
        match self.role() {
            Role::Source { waiters, .. } => Some(waiters),
            Role::Until(until) => Some(until.waiters()),
            Role::Relay(relay) => Some(Relay::linked(relay, self).list().waiters()),
            Role::Gather { gather, .. } => Some(gather.list().waiters()),
            Role::Plain | Role::Finished { .. } | Role::Signal { .. } => None,
        }
    }

    /// The same, but not that of a relay on which nobody has waited.
    fn existing_waiters(&self) -> Option<&Waiters> {
        match self.role() {
            Role::Relay(relay) => relay.get().map(|relay| relay.list().waiters()),
            _ => self.waiters(),
        }
    }

    /// Whether its list may still take somebody in (W1).
    #[inline]
    fn is_open(&self) -> bool {
        match self.role() {
            // Acquire: as in `Lower::is_open`.
            Role::Source { cell, cancellers, .. } => !cell.is_fired() && cancellers.load(Ordering::Acquire) != 0,
            Role::Until(until) => until.is_open(),
            Role::Relay(relay) => relay.get().is_some_and(|relay| relay.list().is_open()),
            Role::Gather { gather, .. } => gather.list().is_open(),
            Role::Plain | Role::Finished { .. } | Role::Signal { .. } => false,
        }
    }

    /// Whether there is somebody who could still make it happen, or one of those that it stands for.
    pub(crate) fn can_fire(&self) -> bool {
        let relayed = if self.is_relay() { self.entries() } else { &[] };
        let stands_for = relayed.iter().chain([self]).flat_map(leaves);
        stands_for.into_iter().any(|leaf| match leaf.role() {
            // Relaxed: for people to read.
            Role::Source { cancellers, .. } => cancellers.load(Ordering::Relaxed) != 0,
            Role::Until(until) => until.is_open(),
            Role::Relay(_) | Role::Gather { .. } | Role::Plain => false,
            Role::Signal { .. } | Role::Finished { .. } => true,
        })
    }

    /// Puts `waker` in its list, or in the place of the one before; None where nothing can come any more, or has come
    /// already.
    pub(crate) fn register(&self, key: Option<Key>, waker: &Waker) -> Option<Key> {
        let waiters = self.waiters()?;
        // Asked before as well, so that no waker is cloned for nothing.
        if self.is_open() { waiters.register(key, waker, || self.is_open()) } else { None }
    }

    pub(crate) fn deregister(&self, key: Key) {
        if let Some(waiters) = self.existing_waiters() {
            waiters.deregister(key);
        }
    }

    /// As `register`, for a list below.
    pub(crate) fn link(&self, below: &Arc<Lower>) -> Option<Key> {
        self.waiters()?.link(below, || self.is_open())
    }

    pub(crate) fn unlink(&self, key: Key) {
        if let Some(waiters) = self.existing_waiters() {
            waiters.unlink(key);
        }
    }

    /// What stands below it, if it has fired, or below those that it stands for, is told when this returns. Whoever
    /// fired them may still be at that.
    pub(crate) fn tell(&self) {
        let relayed = if self.is_relay() { self.entries() } else { &[] };
        for leaf in relayed.iter().chain([self]).flat_map(leaves) {
            if let Some(list) = leaf.existing_waiters().filter(|_| leaf.is_fired()) {
                list.tell();
            }
        }
    }
}

/// Keeps in `first` the earlier of two events.
pub(crate) fn keep_earlier<'a>(first: &mut Option<Found<'a>>, other: Option<Found<'a>>) {
    if let Some(other) = other.filter(|other| first.is_none_or(|first| other.moment < first.moment)) {
        *first = Some(other);
    }
}
