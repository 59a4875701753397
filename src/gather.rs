//! Gathers keep sets of more than `MAX_SOURCES` bounded: one stands for the older sources of a set.
//!
//! It puts its list downstream of theirs at once, and is marked when one of them is, so that a glance at it is one load. The
//! look that decides a verdict walks through it to every source that it stands for.

use crate::relay::{expand, walk_through};
use crate::release::drop_iteratively;
use crate::source::{Linked, Resolved, Set, Source, Sources, Upstream, earliest};
use crate::sync::{Arc, Ordering, fence};
use crate::waiters::Waiters;

struct Gather {
    of: Set,
    linked: Linked,
}

/// Leaves `sources` as they are, or, where they are more than `most`, gathers all of them behind one. Signals stay, and do
/// not count.
pub(crate) fn bound(sources: &mut Sources, most: usize) {
    let fit = |sources: &Sources| {
        sources.len() <= most || sources.iter().filter(|source| !source.is_foreign()).count() <= most
    };
    if fit(sources) {
        return;
    }
    if sources.iter().any(|source| source.as_relay().is_some()) {
        // Relays of the same sources count once.
        expand(sources);
    }
    if !fit(sources) {
        let (signals, rest): (Sources, Sources) = sources.drain(..).partition(|source| source.is_foreign());
        sources.push(gather(Set::union(rest.into_iter(), None)));
        sources.extend(signals);
    }
}

/// One source that stands for a set without relays and signals.
fn gather(of: Set) -> Arc<Source> {
    let linked = Linked::to(&of);
    Source::other(Gather { of, linked })
}

impl Gather {
    /// The earliest event behind it, through further gathers that keep none.
    fn walk(&self) -> Option<Resolved<'_>> {
        let mut first = None;
        walk_through(&self.of, |source| {
            let found = if source.stands_for().is_some() { source.resolve_marked() } else { source.resolve() };
            first = earliest(first.into_iter().chain(found));
            found.is_none()
        });
        first
    }
}

impl Upstream for Gather {
    /// The earliest of all, kept by the source for later looks where an event had been seen before this one began.
    fn resolve<'a>(&'a self, source: &'a Source) -> Option<Resolved<'a>> {
        if let Some(kept) = source.resolve_marked() {
            return Some(kept);
        }
        let marked = self.linked.waiters.is_marked();
        let found = self.walk()?;
        if !marked {
            return Some(found);
        }
        // What the first walk has found is complete: as in `set::earliest`, the second finds what stays the first.
        fence(Ordering::SeqCst);
        let first = self.walk()?;
        source.store_resolved(first);
        Some(first)
    }

    fn waiters(&self) -> Option<&Waiters> {
        Some(&self.linked.waiters)
    }

    fn gathered(&self) -> Option<&Set> {
        Some(&self.of)
    }

    fn name(&self) -> &'static str {
        "gather"
    }
}

/// What a gather held is let go one after the other: the sources below a gather hold it, and so on up, as deep as contexts
/// were derived.
impl Drop for Gather {
    fn drop(&mut self) {
        self.linked.unlink(&self.of);
        drop_iteratively([std::mem::take(&mut self.of)]);
    }
}
