//! Relays, and how a list is put downstream of others.
//!
//! A relay stays out of the lists above it until somebody waits on it, and is looked through at every look, so that it
//! finishes at the same instant as what it relays.

use std::collections::HashSet;

use crate::source::{Linked, Relay, Set, Source, Sources};
use crate::sync::Arc;
use crate::waiters::{Key, Waiters};

impl Linked {
    /// Puts a list downstream of those of `set`, and looks then: what has happened in between is notified here.
    pub(crate) fn to(set: &Set) -> Self {
        // Counted once for this call, so that it is not closed half-linked.
        let waiters = Arc::new(Waiters::new());
        let link = |source: &Arc<Source>| source.list().map_or(Key::default(), |list| list.link(&waiters));
        let keys = set.view().sources().map(link).collect();
        if !set.view().all(|source| !source.has_event()) {
            // Who marked it may not have come to all lists yet, and the wakers of others come after that (W4).
            set.view().sources().for_each(|source| source.mark_downstream());
            waiters.mark();
        }
        waiters.lose();
        Self { waiters, keys }
    }

    /// Takes it out again.
    pub(crate) fn unlink(&self, set: &Set) {
        for (source, key) in set.view().sources().zip(&self.keys) {
            if let Some(list) = source.list() {
                list.unlink(*key);
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(linked) = self.linked.get() {
            linked.unlink(&self.of);
        }
    }
}

impl Source {
    /// Its list, which is made and linked where it is a relay; None where nobody is notified.
    #[inline]
    pub(crate) fn list_to_wait_in(&self) -> Option<&Waiters> {
        match self.as_relay() {
            Some(relay) => Some(relay.list()),
            None => self.list(),
        }
    }

    /// What stands below it, if it has happened, or below those that it stands for, is marked when this returns. Whoever
    /// marked them may still be at that.
    pub(crate) fn mark_downstream(&self) {
        let mark = |leaf: &Source| {
            if let Some(list) = leaf.list().filter(|list| list.is_marked()) {
                list.mark_downstream();
            }
        };
        mark(self);
        if let Some(set) = self.stands_for() {
            each_leaf(set, |leaf| mark(leaf));
        }
    }
}

impl Relay {
    /// Linked before others may find it: of two who come at once, one lets go of its own.
    fn list(&self) -> &Waiters {
        if self.linked.get().is_none() {
            if let Err(late) = self.linked.set(Box::new(Linked::to(&self.of))) {
                late.unlink(&self.of);
            }
        }
        &self.linked.get().expect("set here or by somebody else").waiters
    }
}

/// Puts what they relay in the place of relays, and keeps one of each.
pub(crate) fn expand(sources: &mut Sources) {
    let mut seen = HashSet::new();
    for source in std::mem::take(sources) {
        let mut keep = |source: &Arc<Source>| {
            if seen.insert(Arc::as_ptr(source)) {
                sources.push(Arc::clone(source));
            }
        };
        match source.as_relay() {
            Some(relay) => relay.of.view().sources().for_each(keep),
            None => keep(&source),
        }
    }
}

/// Each source behind `set` that stands for no others.
pub(crate) fn each_leaf<'a>(set: &'a Set, mut each: impl FnMut(&'a Arc<Source>)) {
    walk_through(set, |source| {
        if source.stands_for().is_none() {
            each(source);
        }
        true
    });
}

/// Visits the sources of `set`, and those that they stand for where `visit` says so. Allocates only where there are such.
pub(crate) fn walk_through<'a>(set: &'a Set, mut visit: impl FnMut(&'a Arc<Source>) -> bool) {
    let (mut sets, mut seen) = (vec![], HashSet::new());
    let mut next = Some(set);
    while let Some(set) = next {
        for source in set.view().sources() {
            let further = if visit(source) { source.stands_for() } else { None };
            sets.extend(further.filter(|_| seen.insert(Arc::as_ptr(source))));
        }
        next = sets.pop();
    }
}
