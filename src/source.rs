//! What a context is made of: sources, in sets. As data, and how to walk over it; what a set makes of it is in `set.rs`.
//!
//! A source is what can finish contexts, once. It points at the set that it was made below, so that a child copies nothing:
//! a *row* of up to `MAX_SOURCES` sources. Only unions are flat.

use std::future::Future;
use std::pin::Pin;

use crate::error::{Error, Name};
use crate::event::{Deadline, Event, Timestamp};
use crate::sync::{Arc, AtomicU32, OnceLock, Ordering};
use crate::waiters::{INDIRECT, Key, MARKED, Waiters};

mod sets;

pub(crate) use sets::{Set, Sources, View};

/// How many sources a set has before the older ones are gathered; foreign signals do not count. Under a model checker so few
/// that small programs reach the edge.
pub(crate) const MAX_SOURCES: usize = if cfg!(any(context_merge_loom, context_merge_shuttle)) { 2 } else { 8 };

/// In this order, so that what a look reads stands with the count of handles.
#[repr(C)]
pub(crate) struct Source {
    /// For a source of its own the mark, who waits, and the count of its cancellers.
    pub(crate) waiters: Waiters,
    /// That of the context that it was made with; not used where that is this source alone.
    pub(crate) verdict: AtomicU32,
    kind: Kind,
    pub(crate) event: Event,
}

enum Kind {
    /// Its cancellers mark it; the error has this name.
    Own {
        name: Option<Name>,
        up: Set,
    },
    /// It had happened when it was made.
    Earlier {
        up: Set,
    },
    Relay(Relay),
    Other(Box<dyn Upstream>),
}

/// Observes as the set that it stands for, through which every look goes. It has a list once somebody waits on it.
pub(crate) struct Relay {
    pub(crate) of: Set,
    pub(crate) linked: OnceLock<Box<Linked>>,
}

/// A list that stands downstream of the lists of a set.
pub(crate) struct Linked {
    pub(crate) waiters: Arc<Waiters>,
    /// One for each source of the set.
    pub(crate) keys: Box<[Key]>,
}

/// Where an event comes from that is not marked by a canceller: a gather, a foreign signal, the task of an `until`.
pub(crate) trait Upstream: Send + Sync {
    /// Whether something has happened. A foreign signal is asked, and marks its source.
    fn has_event(&self, _: &Source) -> bool {
        !self.is_pending()
    }
    /// Whether it can be seen at a glance that nothing has: never of a foreign signal, which has to be asked.
    fn is_pending(&self) -> bool {
        self.waiters().is_some_and(|list| !list.is_marked())
    }
    /// The event; the earliest where it stands for several sources.
    fn resolve<'a>(&'a self, source: &'a Source) -> Option<Resolved<'a>>;
    /// None where nobody is notified.
    fn waiters(&self) -> Option<&Waiters>;
    /// The set that a gather stands for.
    fn gathered(&self) -> Option<&Set> {
        None
    }
    /// The future of a foreign signal.
    fn listen(&self) -> Option<Listening> {
        None
    }
    fn is_foreign(&self) -> bool {
        false
    }
    /// For people.
    fn name(&self) -> &'static str;
}

pub(crate) type Listening = Pin<Box<dyn Future<Output = Error> + Send>>;

/// An event that has happened at a source, or at one that it stands for.
#[derive(Clone, Copy)]
pub(crate) struct Resolved<'a> {
    pub(crate) timestamp: Timestamp,
    event: &'a Event,
}

impl Resolved<'_> {
    pub(crate) fn event(self) -> (Timestamp, Error) {
        (self.timestamp, self.event.err())
    }
}

impl Source {
    #[inline]
    fn new(waiters: Waiters, kind: Kind) -> Arc<Self> {
        Arc::new(Self { waiters, verdict: AtomicU32::new(0), kind, event: Event::new() })
    }

    /// With one canceller.
    #[inline]
    pub(crate) fn own(name: Option<&Name>, up: Set) -> Arc<Self> {
        Self::new(Waiters::new(), Kind::Own { name: name.cloned(), up })
    }

    /// What has happened already, in a context with that deadline.
    pub(crate) fn marked((timestamp, err): (Timestamp, Error), deadline: Option<Deadline>) -> Arc<Self> {
        let up = if deadline.is_some() { Set::union(std::iter::empty(), deadline) } else { Set::Never };
        let source = Self::new(Waiters::with(MARKED), Kind::Earlier { up });
        source.event.copy(timestamp, err);
        source
    }

    pub(crate) fn relay(of: Set) -> Arc<Self> {
        Self::new(Waiters::with(INDIRECT), Kind::Relay(Relay { of, linked: OnceLock::new() }))
    }

    pub(crate) fn other(upstream: impl Upstream + 'static) -> Arc<Self> {
        Self::new(Waiters::with(INDIRECT), Kind::Other(Box::new(upstream)))
    }

    /// What its context has besides.
    #[inline]
    pub(crate) fn up(&self) -> Option<&Set> {
        match &self.kind {
            Kind::Own { up, .. } | Kind::Earlier { up } => Some(up),
            _ => None,
        }
    }

    /// Whether it had happened when it was made.
    pub(crate) fn is_earlier_finish(&self) -> bool {
        matches!(self.kind, Kind::Earlier { .. })
    }

    /// What one of our own was born under.
    pub(crate) fn name(&self) -> Option<&Name> {
        match &self.kind {
            Kind::Own { name, .. } => name.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn as_relay(&self) -> Option<&Relay> {
        match &self.kind {
            Kind::Relay(relay) => Some(relay),
            _ => None,
        }
    }

    pub(crate) fn as_other(&self) -> Option<&dyn Upstream> {
        match &self.kind {
            Kind::Other(other) => Some(&**other),
            _ => None,
        }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.as_other().is_some_and(Upstream::is_foreign)
    }

    /// What a relay or a gather stands for.
    pub(crate) fn stands_for(&self) -> Option<&Set> {
        match &self.kind {
            Kind::Own { .. } | Kind::Earlier { .. } => None,
            Kind::Relay(relay) => Some(&relay.of),
            Kind::Other(other) => other.gathered(),
        }
    }

    /// Whether it is one of our own, with nothing above it.
    #[inline]
    pub(crate) fn is_root(&self) -> bool {
        matches!(self.up(), Some(Set::Never))
    }

    #[inline]
    pub(crate) fn is_pending_root(&self) -> bool {
        self.waiters.is_pending() && self.is_root()
    }

    /// Whether it can be seen at a glance that it has not happened.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.waiters.is_pending() || self.is_pending_upstream()
    }

    fn is_pending_upstream(&self) -> bool {
        match &self.kind {
            Kind::Own { .. } | Kind::Earlier { .. } => false,
            Kind::Other(other) => other.is_pending(),
            // It holds no relay (N4).
            Kind::Relay(relay) => {
                let is_pending = |source: &Source| source.as_other().is_some_and(Upstream::is_pending);
                relay.of.view().all(|source| source.waiters.is_pending() || is_pending(source))
            }
        }
    }

    /// Whether an event has happened here, or at one that it stands for. A gather may be marked late.
    pub(crate) fn has_event(&self) -> bool {
        let here = |source: &Self| match source.as_other() {
            Some(other) => other.has_event(source),
            None => source.waiters.is_marked(),
        };
        match self.as_relay() {
            Some(relay) => !relay.of.view().all(|source| !here(source)),
            None => here(self),
        }
    }

    /// The earliest event here, or at those that it stands for.
    pub(crate) fn resolve(&self) -> Option<Resolved<'_>> {
        match self.as_relay() {
            Some(relay) => earliest(relay.of.view().sources().filter_map(|source| source.resolve_behind_relay())),
            None => self.resolve_behind_relay(),
        }
    }

    fn resolve_behind_relay(&self) -> Option<Resolved<'_>> {
        match self.as_other() {
            Some(other) => other.resolve(self),
            None => self.resolve_marked(),
        }
    }

    /// The event of this very source.
    #[inline]
    pub(crate) fn resolve_marked(&self) -> Option<Resolved<'_>> {
        let found = || Resolved { timestamp: self.event.complete(), event: &self.event };
        self.waiters.is_marked().then(found)
    }

    /// Marks and times it. Whether this call is the one that set its error, and whether somebody may wait, whom the caller
    /// then notifies.
    pub(crate) fn mark(&self, err: Error) -> (bool, bool) {
        let first = self.event.set(err);
        let waited = self.waiters.mark();
        self.event.complete();
        (first, waited)
    }

    /// Keeps the event that a gather was decided by: whoever is first.
    pub(crate) fn store_resolved(&self, found: Resolved<'_>) {
        // AcqRel: nobody reads the event before the mark.
        if self.verdict.swap(1, Ordering::AcqRel) == 0 {
            let (timestamp, err) = found.event();
            self.event.copy(timestamp, err);
            self.waiters.mark();
        }
    }

    /// Its list; None where nobody is notified, and of a relay on which nobody has waited.
    #[inline]
    pub(crate) fn list(&self) -> Option<&Waiters> {
        match &self.kind {
            Kind::Own { .. } => Some(&self.waiters),
            Kind::Earlier { .. } => None,
            Kind::Relay(relay) => relay.linked.get().map(|linked| &*linked.waiters),
            Kind::Other(other) => other.waiters(),
        }
    }
}

pub(crate) fn earliest<'a>(found: impl Iterator<Item = Resolved<'a>>) -> Option<Resolved<'a>> {
    found.min_by_key(|found| found.timestamp)
}
