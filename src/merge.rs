//! `merge` and `any_of`: the union of sets.

use crate::cell::Moment;
use crate::context::Context;
use crate::error::Error;
use crate::fate::Deadline;
use crate::node::{MAX_SOURCES, Node, Set, first_event};
use crate::relay::{bound, deduplicate, stands_for};
use crate::source::Role;

/// A context that finishes when either input does, with the earlier deadline, and the error of the input that was
/// first. Its values and its name are those of `primary`.
///
/// No task, no timer, no registration: what is not awaited costs one allocation, and dropping it leaves nothing
/// behind. It is associative, commutative and idempotent but for the values, and
/// [`background`](Context::background) is its identity.
///
/// ```
/// use context_merge::{Context, merge};
/// use std::time::Duration;
///
/// let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
/// let request = Context::background().with_timeout(Duration::from_secs(5)).with_value("request 7");
/// let ctx = merge(&request, &shutdown);
///
/// assert_eq!(ctx.deadline(), request.deadline());
/// assert_eq!(ctx.value::<&str>(), Some(&"request 7"));
/// stop.cancel_with("SIGTERM");
/// assert_eq!(ctx.err().unwrap().origin(), Some("shutdown"));
/// assert!(!request.is_done());
/// ```
#[must_use]
pub fn merge(primary: impl Into<Context>, other: impl Into<Context>) -> Context {
    let Context { node, values } = primary.into();
    let node = match (node, other.into().node) {
        (Some(a), Some(b)) => both(a, b),
        (a, b) => a.or(b),
    };
    Context { node, values }
}

/// [`merge`] of any number of contexts: the first is the primary. Without inputs it is the
/// [`background`](Context::background).
///
/// Sets of more than eight sources stand behind a relay, so that checking and awaiting stay as cheap as with a few;
/// such a context can finish a moment after its source, but always with the error of the input that was first.
///
/// ```
/// use context_merge::{Context, any_of};
///
/// let workers: Vec<_> = (0..100).map(|_| Context::background().with_cancel()).collect();
/// let any = any_of(workers.iter().map(|(ctx, _)| ctx));
/// workers[42].1.cancel_with("crashed");
/// assert_eq!(any.err().unwrap().cause().unwrap().to_string(), "crashed");
/// ```
#[must_use]
pub fn any_of<I>(inputs: I) -> Context
where
    I: IntoIterator,
    I::Item: Into<Context>,
{
    let mut inputs = inputs.into_iter();
    let Some(primary) = inputs.next().map(Into::into) else { return Context::background() };
    let Some(second) = inputs.next() else { return primary };
    let Some(third) = inputs.next() else { return merge(primary, second) };
    let Context { node, values } = primary;
    let others = [second, third].into_iter().chain(inputs).filter_map(|input| input.into().node);
    let mut union = Union::default();
    node.into_iter().chain(others).for_each(|node| union.add(node));
    Context { node: union.into_node(), values }
}

fn both(a: Node, b: Node) -> Option<Node> {
    if a.is_live_root() && b.is_live_root() && !a.same(&b) {
        // Most merges are of this kind. Both handles move into the new node.
        let deadline = earlier(a.deadline(), b.deadline()).cloned();
        return Some(Node::new(Role::Plain, [a, b].into_iter(), deadline));
    }
    if a.is_quiet_set() && b.is_quiet_set() && share_nothing(&a, &b) {
        let deadline = earlier(a.deadline(), b.deadline()).cloned();
        let mut set = Set::new();
        a.sources_into(&mut set);
        b.sources_into(&mut set);
        bound(&mut set, MAX_SOURCES);
        return Some(Node::new(Role::Plain, set.drain(..), deadline));
    }
    let mut union = Union::default();
    union.add(a);
    union.add(b);
    union.into_node()
}

/// Whether both have sources, and each of one is apart from each of the other: so neither covers the other, and the union
/// is the one after the other. What a relay stands for is asked with it, which may say no where there is no need.
fn share_nothing(a: &Node, b: &Node) -> bool {
    a.has_sources() && b.has_sources() && a.all(|source| b.all(|other| are_apart(source, other)))
}

/// Whether the two sources are not the same, and neither stands for the other as far as that is searched.
fn are_apart(a: &Node, b: &Node) -> bool {
    !a.same(b) && !stands_for(a, b) && !stands_for(b, a)
}

/// From this size on, duplicates are left for the end.
const MANY: usize = 32;

/// The inputs so far.
#[derive(Default)]
struct Union {
    /// The live input of which the union is, where it is no more than that.
    whole: Option<Node>,
    /// What it is else.
    sources: Set,
    /// The earliest deadline of the live inputs, of the earlier argument where two are equal.
    deadline: Option<Deadline>,
    /// The input that was seen to have finished first.
    finished: Option<(Moment, Error, Node)>,
    /// The earliest deadline of the finished inputs.
    past: Option<Deadline>,
}

impl Union {
    fn add(&mut self, node: Node) {
        if self.whole.as_ref().is_some_and(|whole| whole.same(&node)) {
            return;
        }
        // Once one has finished the clock counts, so that of equal deadlines the earlier argument's does.
        let event = if self.finished.is_some() { node.event() } else { node.event_but_for_time() };
        match event {
            Some((moment, err)) => {
                keep_earlier(&mut self.past, node.deadline());
                let earlier = self.finished.as_ref().is_none_or(|(earliest, ..)| moment < *earliest);
                if earlier {
                    self.finished = Some((moment, err, node));
                }
            }
            None => {
                keep_earlier(&mut self.deadline, node.deadline());
                self.add_live(node);
            }
        }
    }

    fn add_live(&mut self, node: Node) {
        let deadline = self.deadline.as_ref();
        match self.whole.take() {
            Some(whole) if covers(&whole, node.sources(), deadline) => self.whole = Some(whole),
            Some(whole) if covers(&node, whole.sources(), deadline) => self.whole = Some(node),
            Some(whole) => {
                self.extend(whole);
                self.extend(node);
            }
            None if self.sources.len() < MANY && covers(&node, self.sources.iter(), deadline) => {
                self.sources.clear();
                self.whole = Some(node);
            }
            None => self.extend(node),
        }
    }

    /// Adds the sources of `node`; a handle of what is its own only source moves.
    fn extend(&mut self, node: Node) {
        let is_new = |set: &Set, source: &Node| set.len() >= MANY || !set.iter().any(|known| known.same(source));
        if node.is_root() {
            if is_new(&self.sources, &node) {
                self.sources.push(node);
            }
            return;
        }
        for source in node.sources() {
            if is_new(&self.sources, source) {
                self.sources.push(source.clone());
            }
        }
    }

    fn into_node(mut self) -> Option<Node> {
        if let Some((moment, err, node)) = self.finished {
            // What was live when it was added may have finished since, and before what was seen to have finished; and a
            // gather may not have been told.
            let before = match &self.whole {
                Some(whole) => whole.first_event(),
                None => first_event(&self.sources, self.deadline.as_ref()),
            };
            // At the same moment too: it was live then, so it was taken before what had finished.
            let before = before.filter(|(other, _)| *other <= moment);
            let mut deadline = self.deadline;
            keep_earlier(&mut deadline, self.past.as_ref());
            let at = |deadline: Option<&Deadline>| deadline.map(|deadline| deadline.at);
            if before.is_none() && at(node.deadline()) == at(deadline.as_ref()) {
                return Some(node);
            }
            let (moment, err) = before.unwrap_or((moment, err));
            return Some(Node::finished(moment, err, deadline));
        }
        if self.whole.is_some() || self.sources.is_empty() {
            return self.whole;
        }
        if self.sources.len() > MANY {
            deduplicate(&mut self.sources);
        }
        bound(&mut self.sources, MAX_SOURCES);
        Some(Node::new(Role::Plain, self.sources.drain(..), self.deadline))
    }
}

fn keep_earlier(known: &mut Option<Deadline>, other: Option<&Deadline>) {
    let earlier = earlier(known.as_ref(), other);
    if earlier.is_some_and(|earlier| !known.as_ref().is_some_and(|known| std::ptr::eq(known, earlier))) {
        *known = earlier.cloned();
    }
}

/// The earlier of two deadlines; the first where they are equal.
fn earlier<'a>(a: Option<&'a Deadline>, b: Option<&'a Deadline>) -> Option<&'a Deadline> {
    match (a, b) {
        (Some(a), Some(b)) if b.at < a.at => Some(b),
        _ => a.or(b),
    }
}

/// Whether a union with the sources of `part` observes as `whole`, given the deadline of the union.
fn covers<'a>(whole: &Node, mut part: impl Iterator<Item = &'a Node>, deadline: Option<&Deadline>) -> bool {
    let has = |source: &Node| whole.sources().any(|other| other.same(source) || stands_for(other, source));
    same_deadline(whole.deadline(), deadline) && part.all(has)
}

fn same_deadline(a: Option<&Deadline>, b: Option<&Deadline>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same(b),
        _ => false,
    }
}
