//! Many sources behind one: relays, which are asked for, and gathers, which keep sets of more than eight bounded.
//!
//! A relay stays out of the lists above it until somebody waits on it, and is looked through at every check, so that
//! it finishes at the same instant as what it relays. A gather links itself in at once and is told, so that a check
//! of it is one load; the look that decides a verdict walks through it to every source that it stands for.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::cell::Cell;
use crate::error::Name;
use crate::fate::Deadline;
use crate::node::{Entry, MAX_SOURCES, Named, Node, Set};
use crate::release::in_turn;
use crate::source::{Found, Role, earlier};
use crate::sync::{Arc, OnceLock, Ordering, fence};
use crate::waiters::{Key, Lower};

/// What a relay has once somebody has waited on it.
pub(crate) struct Relay {
    list: Arc<Lower>,
    upstream: OnceLock<Upstream>,
}

impl Relay {
    /// A relay of all `sources`; those that are relays themselves are seen through, so that none stands on another.
    pub(crate) fn of(mut sources: Set, deadline: Option<Deadline>) -> Node {
        expand(&mut sources);
        bound(&mut sources, MAX_SOURCES);
        Node::new(Role::Relay(OnceLock::new()), sources.into_iter(), deadline)
    }

    /// What `source` has in `slot`: whoever comes first puts it there, where others may find it, and links it then.
    pub(crate) fn linked<'a>(slot: &'a OnceLock<Box<Self>>, source: &Node) -> &'a Self {
        let known = slot.get();
        known.unwrap_or_else(|| {
            let relay = Self { list: Lower::new(), upstream: OnceLock::new() };
            let first = slot.set(Box::new(relay)).is_ok();
            let relay = slot.get().expect("set here or by somebody else");
            if first {
                let _ = relay.upstream.set(Upstream::link(source.entries(), &relay.list));
            }
            relay
        })
    }

    pub(crate) fn list(&self) -> &Lower {
        &self.list
    }
}

/// The links of a list into those above it, undone on drop.
#[derive(Default)]
struct Upstream {
    links: Vec<(Node, Key)>,
}

impl Upstream {
    /// Links first and looks then: what fired in between is told here, by whoever made the links.
    fn link(entries: &[Entry], list: &Arc<Lower>) -> Self {
        let above = entries.iter().map(|entry| &entry.node).filter(|source| !source.is_signal());
        let link = |source: &Node| source.link(list).map(|key| (source.clone(), key));
        let upstream = Self { links: above.clone().filter_map(link).collect() };
        if above.clone().any(Node::stirs) {
            // Who fired it may not have told all yet, and the wakers of others come after that (W3).
            above.for_each(Node::tell);
            list.fire();
        }
        list.connected();
        upstream
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for (above, key) in self.links.drain(..) {
            above.unlink(key);
        }
    }
}

/// A list of sources, of which one may be a gather again: so gathers form lists, which are walked without a stack.
pub(crate) struct Gather {
    entries: Vec<Entry>,
    list: Arc<Lower>,
    upstream: Upstream,
    /// The addresses of its entries.
    members: HashSet<usize>,
    /// How many sources it stands for.
    leaves: usize,
}

/// How far up a list of gathers is searched for what a new one shares with it. Further up a source may stand twice,
/// which costs memory, but never shows.
const NEAR: usize = 16;

impl Gather {
    fn entry(set: Set) -> Entry {
        let entries = one_list(set.into_vec());
        if let [entry] = &entries[..] {
            return entry.clone();
        }
        let leaves = entries.iter().map(|entry| as_gather(&entry.node).map_or(1, |gather| gather.leaves)).sum();
        let members = entries.iter().map(|entry| entry.node.address()).collect();
        let list = Lower::new();
        let upstream = Upstream::link(&entries, &list);
        let gather = Box::new(Self { entries, list, upstream, members, leaves });
        Entry::unnamed(Node::new(Role::Gather { cell: Cell::new(), gather }, std::iter::empty(), None))
    }

    #[inline]
    pub(crate) fn list(&self) -> &Lower {
        &self.list
    }

    /// The earliest event of all sources, kept for later looks where an event had been seen before this one began.
    pub(crate) fn find<'a>(&'a self, source: &'a Node, name: Option<&'a Name>) -> Option<Found<'a>> {
        if let Some(settled) = source.find_leaf(name) {
            return Some(settled);
        }
        if self.list.is_told() && self.walk(None).is_some() {
            // Every mark of the first walk is complete: as in `node::earliest`, the second finds what stays first.
            fence(Ordering::SeqCst);
            source.settle(self.walk(None)?);
        }
        self.walk(name)
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

fn as_gather(source: &Node) -> Option<&Gather> {
    match source.role() {
        Role::Gather { gather, .. } => Some(gather),
        _ => None,
    }
}

/// Leaves a set as it is, or, where it has more than `most` sources, gathers all of them behind one. Signals stay.
pub(crate) fn bound(set: &mut Set, most: usize) {
    let fits = |set: &Set| set.len() <= most || set.iter().filter(|entry| !entry.node.is_signal()).count() <= most;
    if fits(set) {
        return;
    }
    // Relays of the same sources count once.
    expand(set);
    if fits(set) {
        return;
    }
    let (signals, rest): (Set, Set) = set.drain(..).partition(|entry| entry.node.is_signal());
    set.push(Gather::entry(rest));
    set.extend(signals);
}

/// Puts what they relay in the place of relays.
fn expand(set: &mut Set) {
    for entry in std::mem::take(set) {
        if entry.node.is_relay() {
            let above = entry.node.entries().iter().filter(|above| !above.node.is_signal());
            set.extend(above.map(|above| above.named(entry.name.as_ref())));
        } else {
            set.push(entry);
        }
    }
    deduplicate(set);
}

/// Keeps the first of each; without an allocation for as many as most sets have.
fn deduplicate(entries: &mut Set) {
    let mut few = SmallVec::<[usize; 2 * MAX_SOURCES]>::new();
    let mut many = HashSet::new();
    entries.retain(|entry| {
        let address = entry.node.address();
        if few.len() < few.inline_size() {
            let new = !few.contains(&address);
            if new {
                few.push(address);
            }
            return new;
        }
        !few.contains(&address) && many.insert(address)
    });
}

/// The name under which a relay, or a gather as far as it is searched, has `source` among those it stands for. With
/// `exactly`, only where no gather comes before it there, which may have it under another name.
#[inline]
pub(crate) fn stands_for<'a>(whole: &'a Node, source: &Node, exactly: bool) -> Option<Option<&'a Name>> {
    let entries = match whole.role() {
        Role::Relay(_) => whole.entries(),
        Role::Gather { gather, .. } if gather.members.contains(&source.address()) => &gather.entries,
        _ => return None,
    };
    let mut searched = entries.iter().take_while(|entry| !exactly || as_gather(&entry.node).is_none());
    searched.find(|entry| entry.node.same(source)).map(|entry| entry.name.as_ref())
}

/// Keeps the largest gather among the entries, takes apart what the others do not share with it, and leaves out what
/// stands after it and is in it already.
fn one_list(entries: Vec<Entry>) -> Vec<Entry> {
    let gathers = entries.iter().filter_map(|entry| as_gather(&entry.node).map(|gather| (entry, gather)));
    let Some((kept, _)) = gathers.max_by_key(|(_, gather)| gather.leaves) else { return entries };
    let (kept, named) = (kept.node.clone(), kept.name.is_some());
    let near: Vec<&Node> = list_of(&kept).take(NEAR).collect();
    let alike = if named { 0 } else { 1 + near.windows(2).take_while(|pair| begins_with(pair[0], pair[1])).count() };
    let mut out = Set::new();
    let mut passed = false;
    for entry in &entries {
        if entry.node.same(&kept) {
            out.push(entry.clone());
            passed = true;
        } else if as_gather(&entry.node).is_some() {
            take_apart(entry, &near, if passed { near.len() } else { alike }, passed, &mut out);
        } else if !(passed && is_in(&near, &entry.node)) {
            out.push(entry.clone());
        }
    }
    deduplicate(&mut out);
    out.into_vec()
}

/// A gather and those above it.
fn list_of(source: &Node) -> impl Iterator<Item = &Node> {
    std::iter::successors(Some(source), |source| {
        as_gather(source)?.entries.iter().map(|entry| &entry.node).find(|above| as_gather(above).is_some())
    })
}

/// The sources that a gather stands for, across its list; any other source itself.
pub(crate) fn leaves(source: &Node) -> impl Iterator<Item = &Node> {
    named_leaves((source, None)).map(|(leaf, _)| leaf)
}

/// The same, each under the name that it has there.
pub(crate) fn named_leaves<'a>(source: Named<'a>) -> impl Iterator<Item = Named<'a>> {
    let above = |(source, name): Named<'a>| {
        let entries = as_gather(source).map_or(&[][..], |gather| &gather.entries);
        entries.iter().map(move |entry| (&entry.node, entry.name.as_ref().or(name)))
    };
    let further = move |source: &Named<'a>| above(*source).find(|(node, _)| as_gather(node).is_some());
    let list = std::iter::successors(Some(source), further);
    list.flat_map(above).chain([source]).filter(|(source, _)| as_gather(source).is_none())
}

fn is_in(gathers: &[&Node], source: &Node) -> bool {
    let address = source.address();
    gathers.iter().filter_map(|source| as_gather(source)).any(|gather| gather.members.contains(&address))
}

/// Whether `above` is what a gather tells first, and as it tells itself.
fn begins_with(gather: &Node, above: &Node) -> bool {
    let first = as_gather(gather).and_then(|gather| gather.entries.first());
    first.is_some_and(|first| first.name.is_none() && first.node.same(above))
}

/// Appends the sources of a gather in their order, but what is in those that are kept. Before the kept one has been
/// `passed` only the first few are good for that, which tell what they have as it would be told here: so as not to
/// take a later argument's name for a source, or its name for one that has none.
fn take_apart(entry: &Entry, kept: &[&Node], alike: usize, passed: bool, out: &mut Set) {
    let mut behind = Vec::new();
    let mut level = Some(entry.clone());
    while let Some(entry) = level.take() {
        let shared = (passed || entry.name.is_none()) && kept.iter().take(alike).any(|kept| kept.same(&entry.node));
        let Some(gather) = as_gather(&entry.node).filter(|_| !shared) else { break };
        let mut after = Vec::new();
        for above in gather.entries.iter().map(|above| above.named(entry.name.as_ref())) {
            if as_gather(&above.node).is_some() {
                level = Some(above);
            } else if !(passed && is_in(kept, &above.node)) {
                if level.is_none() { out.push(above) } else { after.push(above) }
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
        // Its handles go first, so that the last ones are those that go in turn.
        drop(std::mem::take(&mut self.upstream));
        in_turn(std::mem::take(&mut self.entries));
    }
}
