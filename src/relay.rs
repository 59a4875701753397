//! Many sources behind one: relays, which are asked for, and gathers, which keep sets of more than eight bounded.
//!
//! A relay stays out of the lists above it until somebody waits on it, and is looked through at every check, so that
//! it finishes at the same instant as what it relays. A gather links itself in at once and is told, so that a check
//! of it is one load; the look that decides a verdict walks through it to every source that it stands for.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::error::Name;
use crate::node::{Deadline, Entry, Found, MAX_SOURCES, Node, Role, Set, earlier};
use crate::sync::{Arc, OnceLock, Ordering, fence};
use crate::waiters::{Upstream, Waiters};

/// What a relay has once somebody has waited on it.
pub(crate) struct Relay {
    _upstream: Upstream,
}

impl Relay {
    /// A relay of all `sources`; those that are relays themselves are seen through, so that none stands on another.
    pub(crate) fn node(sources: Set, deadline: Option<Deadline>) -> Node {
        Node::new(Role::Relay(OnceLock::new()), bounded(expanded(sources), MAX_SOURCES), deadline)
    }

    /// Links `list`, which others may have found already, into the lists above.
    pub(crate) fn connect(node: &Node, list: &Arc<Waiters>) -> Self {
        Self { _upstream: link(node.entries(), list) }
    }
}

/// Links first and looks then: what fired in between is told here, by whoever made the links.
fn link(entries: &[Entry], list: &Arc<Waiters>) -> Upstream {
    let above = entries.iter().filter(|entry| !entry.node.is_signal());
    let upstream = Upstream::connect(list, above.filter_map(|entry| entry.node.waiters().cloned()));
    if entries.iter().any(|entry| entry.node.has_fired()) {
        list.fire();
    }
    Upstream::connected(list);
    upstream
}

/// A list of sources, of which one may be a gather again: so gathers form lists, which are walked without a stack.
pub(crate) struct Gather {
    entries: Vec<Entry>,
    list: Arc<Waiters>,
    _upstream: Upstream,
    /// How many sources it stands for.
    leaves: usize,
}

impl Gather {
    fn node(set: impl IntoIterator<Item = Entry>) -> Node {
        let entries = one_list(set.into_iter().collect());
        let leaves = entries.iter().map(|entry| as_gather(&entry.node).map_or(1, |gather| gather.leaves)).sum();
        let list = Waiters::new();
        let upstream = link(&entries, &list);
        Node::new(Role::Gather(Box::new(Self { entries, list, _upstream: upstream, leaves })), Set::new(), None)
    }

    pub(crate) fn waiters(&self) -> &Arc<Waiters> {
        &self.list
    }

    pub(crate) fn is_told(&self) -> bool {
        self.list.is_told()
    }

    /// The earliest event of all sources, kept for later looks where an event had been seen before this one began.
    pub(crate) fn find<'a>(&'a self, node: &'a Node, name: Option<&'a Name>) -> Option<Found<'a>> {
        if let Some(settled) = node.find_leaf(name) {
            return Some(settled);
        }
        let told = self.is_told();
        // Pairs with the fence in `Cell::complete`, as in `Node::decide`.
        fence(Ordering::SeqCst);
        let found = self.walk(name)?;
        if told {
            node.settle(found);
        }
        Some(found)
    }

    fn walk<'a>(&'a self, name: Option<&'a Name>) -> Option<Found<'a>> {
        let mut first = None;
        let mut level = Some((self, name));
        while let Some((gather, name)) = level.take() {
            for entry in &gather.entries {
                let name = entry.name.as_ref().or(name);
                let found = entry.node.find_leaf(name);
                match as_gather(&entry.node) {
                    Some(further) if found.is_none() => level = Some((further, name)),
                    _ => earlier(&mut first, found.map(|found| found.behind(level.is_some()))),
                }
            }
        }
        first.map(|found: Found<'_>| found.behind(false))
    }
}

fn as_gather(node: &Node) -> Option<&Gather> {
    match node.role() {
        Role::Gather(gather) => Some(gather),
        _ => None,
    }
}

/// The set as it is, or, where it has more than `most` sources, all of them gathered behind one. Signals stay.
pub(crate) fn bounded(set: Set, most: usize) -> Set {
    if set.len() <= most || set.iter().filter(|entry| !entry.node.is_signal()).count() <= most {
        return set;
    }
    let (signals, rest): (Set, Vec<Entry>) = {
        let (signals, rest): (Vec<_>, Vec<_>) = set.into_iter().partition(|entry| entry.node.is_signal());
        (signals.into(), rest)
    };
    let gather = Gather::node(expanded(rest.into()));
    std::iter::once(Entry { node: gather, name: None }).chain(signals).collect()
}

/// The set with what they relay in the place of relays.
fn expanded(set: Set) -> Set {
    if !set.iter().any(|entry| matches!(entry.node.role(), Role::Relay(_))) {
        return set;
    }
    let mut out = Vec::with_capacity(set.len());
    for entry in set {
        if matches!(entry.node.role(), Role::Relay(_)) {
            let above = entry.node.entries().iter().filter(|above| !above.node.is_signal());
            out.extend(above.map(|above| above.named(entry.name.as_ref())));
        } else {
            out.push(entry);
        }
    }
    deduplicated(out).into()
}

pub(crate) fn deduplicated(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut seen = HashSet::with_capacity(entries.len());
    entries.retain(|entry| seen.insert(entry.node.address()));
    entries
}

impl Entry {
    /// The same source, under `name` if it has none.
    pub(crate) fn named(&self, name: Option<&Name>) -> Self {
        Self { node: self.node.clone(), name: self.name.as_ref().or(name).cloned() }
    }
}

/// Keeps the largest gather among the entries, and takes apart what the others do not share with it.
fn one_list(entries: Vec<Entry>) -> Vec<Entry> {
    let gathers = || entries.iter().filter_map(|entry| as_gather(&entry.node).map(|gather| (entry, gather)));
    if gathers().count() < 2 {
        return deduplicated(entries);
    }
    let Some((kept, _)) = gathers().max_by_key(|(_, gather)| gather.leaves) else { return entries };
    let kept = kept.node.clone();
    let shared: HashSet<usize> = list_of(&kept).map(Node::address).collect();
    let mut out = Vec::new();
    for entry in &entries {
        if as_gather(&entry.node).is_none() || entry.node.same(&kept) {
            out.push(entry.clone());
        } else {
            take_apart(entry, &shared, &mut out);
        }
    }
    deduplicated(out)
}

/// A gather and those above it.
fn list_of(node: &Node) -> impl Iterator<Item = &Node> {
    std::iter::successors(Some(node), |node| {
        as_gather(node)?.entries.iter().map(|entry| &entry.node).find(|above| as_gather(above).is_some())
    })
}

/// Appends the sources of a gather in their order, up to the first gather that is `shared`.
fn take_apart(entry: &Entry, shared: &HashSet<usize>, out: &mut Vec<Entry>) {
    let mut behind = Vec::new();
    let mut level = Some(entry.clone());
    while let Some(entry) = level.take() {
        let Some(gather) = as_gather(&entry.node).filter(|_| !shared.contains(&entry.node.address())) else { break };
        let mut after = Vec::new();
        for above in gather.entries.iter().map(|above| above.named(entry.name.as_ref())) {
            if as_gather(&above.node).is_some() {
                level = Some(above);
            } else if level.is_none() {
                out.push(above);
            } else {
                after.push(above);
            }
        }
        behind.push(after);
    }
    out.extend(behind.into_iter().rev().flatten());
}

/// What a gather held is let go one after the other: the sources below a gather hold the gather, and so on up, as
/// deep as contexts were derived.
impl Drop for Gather {
    fn drop(&mut self) {
        thread_local! {
            static LATER: RefCell<Option<Vec<Vec<Entry>>>> = const { RefCell::new(None) };
        }
        /// Ends the round also when a foreign drop panics.
        struct Round;
        impl Drop for Round {
            fn drop(&mut self) {
                let rest = LATER.with(RefCell::take);
                drop(rest);
            }
        }

        let entries = std::mem::take(&mut self.entries);
        let mut mine = Some(entries);
        let begun = LATER.try_with(|later| {
            let mut later = later.borrow_mut();
            match &mut *later {
                Some(round) => {
                    round.extend(mine.take());
                    false
                }
                None => {
                    *later = Some(Vec::new());
                    true
                }
            }
        });
        if begun == Ok(true) {
            let _round = Round;
            while let Some(entries) = mine.take() {
                drop(entries);
                mine = LATER.with_borrow_mut(|later| later.as_mut().and_then(Vec::pop));
            }
        }
    }
}
