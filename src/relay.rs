//! Many sources behind one: relays, which are asked for, and gathers, which keep sets of more than eight bounded.
//!
//! A relay stays out of the lists above it until somebody waits on it, and is looked through at every check, so that
//! it finishes at the same instant as what it relays. A gather links itself in at once and is told, so that a check
//! of it is one load; the look that decides a verdict walks through it to every source that it stands for.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::cell::Cell;
use crate::fate::Deadline;
use crate::node::{MAX_SOURCES, Node, Set};
use crate::release::in_turn;
use crate::source::{Found, Role, keep_earlier};
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
    fn link(entries: &[Node], list: &Arc<Lower>) -> Self {
        let above = entries.iter().filter(|source| !source.is_signal());
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
    entries: Vec<Node>,
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
    fn of(set: Set) -> Node {
        let entries = one_list(set).into_vec();
        if let [source] = &entries[..] {
            return source.clone();
        }
        let leaves = entries.iter().map(|source| as_gather(source).map_or(1, |gather| gather.leaves)).sum();
        let members = entries.iter().map(Node::address).collect();
        let list = Lower::new();
        let upstream = Upstream::link(&entries, &list);
        let gather = Box::new(Self { entries, list, upstream, members, leaves });
        Node::new(Role::Gather { cell: Cell::new(), gather }, std::iter::empty(), None)
    }

    #[inline]
    pub(crate) fn list(&self) -> &Lower {
        &self.list
    }

    /// The earliest event of all sources, kept for later looks where an event had been seen before this one began.
    pub(crate) fn find<'a>(&'a self, source: &'a Node) -> Option<Found<'a>> {
        if let Some(settled) = source.find_leaf() {
            return Some(settled);
        }
        let told = self.list.is_told();
        let found = self.walk()?;
        if !told {
            return Some(found);
        }
        // Every mark of the first walk is complete: as in `node::earliest`, the second finds what stays first.
        fence(Ordering::SeqCst);
        let first = self.walk()?;
        source.settle(first);
        Some(first)
    }

    fn walk(&self) -> Option<Found<'_>> {
        let mut first = None;
        let mut level = Some(self);
        while let Some(gather) = level.take() {
            for source in &gather.entries {
                let found = source.find_leaf();
                match as_gather(source) {
                    Some(further) if found.is_none() => level = Some(further),
                    _ => keep_earlier(&mut first, found),
                }
            }
        }
        first
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
    let fits = |set: &Set| set.len() <= most || set.iter().filter(|source| !source.is_signal()).count() <= most;
    if fits(set) {
        return;
    }
    // Relays of the same sources count once.
    expand(set);
    if fits(set) {
        return;
    }
    let (signals, rest): (Set, Set) = set.drain(..).partition(Node::is_signal);
    set.push(Gather::of(rest));
    set.extend(signals);
}

/// Puts what they relay in the place of relays.
fn expand(set: &mut Set) {
    for source in std::mem::take(set) {
        if source.is_relay() {
            set.extend(source.entries().iter().filter(|above| !above.is_signal()).cloned());
        } else {
            set.push(source);
        }
    }
    deduplicate(set);
}

/// Keeps one of each; without an allocation for as many as most sets have.
pub(crate) fn deduplicate(set: &mut Set) {
    let mut few = SmallVec::<[usize; 2 * MAX_SOURCES]>::new();
    let mut many = HashSet::new();
    set.retain(|source| {
        let address = source.address();
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

/// Whether `whole` is a relay, or a gather, that has `source` among its own entries.
#[inline]
pub(crate) fn stands_for(whole: &Node, source: &Node) -> bool {
    match whole.role() {
        Role::Relay(_) => whole.entries().iter().any(|entry| entry.same(source)),
        Role::Gather { gather, .. } => gather.members.contains(&source.address()),
        _ => false,
    }
}

/// Keeps the largest gather of a set, takes the others apart as far as they do not share its list, and leaves out what
/// is in it already.
fn one_list(set: Set) -> Set {
    let gathers = set.iter().filter_map(|source| as_gather(source).map(|gather| (source, gather.leaves)));
    let Some((kept, _)) = gathers.max_by_key(|(_, leaves)| *leaves) else { return set };
    let near: Vec<&Node> = list_of(kept).take(NEAR).collect();
    let is_new = |source: &&Node| as_gather(source).is_none() && !near.iter().any(|near| stands_for(near, source));
    let mut out = Set::from_elem(kept.clone(), 1);
    for source in &set {
        let apart = list_of(source).take_while(|level| !near.iter().any(|near| near.same(level)));
        apart.flat_map(entries_or_self).filter(is_new).for_each(|source| out.push(source.clone()));
    }
    deduplicate(&mut out);
    out
}

/// A gather and those above it; any other source by itself.
fn list_of(source: &Node) -> impl Iterator<Item = &Node> {
    std::iter::successors(Some(source), |source| {
        as_gather(source)?.entries.iter().find(|above| as_gather(above).is_some())
    })
}

fn entries_or_self(source: &Node) -> &[Node] {
    as_gather(source).map_or(std::slice::from_ref(source), |gather| &gather.entries)
}

/// The sources that a gather stands for, across its list; any other source itself.
pub(crate) fn leaves(source: &Node) -> impl Iterator<Item = &Node> {
    list_of(source).flat_map(entries_or_self).filter(|source| as_gather(source).is_none())
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
