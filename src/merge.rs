//! `merge` and `any_of`: the union of sets.

use std::collections::HashSet;

use crate::cell::Moment;
use crate::context::Context;
use crate::error::{Error, Name};
use crate::node::{Deadline, Entry, MAX_SOURCES, Node, Role, Set, first_event};
use crate::relay::{bounded, stands_for};

/// A context that finishes when either input does, with the earlier deadline, and the error of the input that was
/// first. Its values are those of `primary`.
///
/// No task, no timer, no registration: what is not awaited costs one allocation, and dropping it leaves nothing
/// behind. It is associative, commutative and idempotent but for the values, and
/// [`background`](Context::background) is its identity.
///
/// ```
/// use context_merge::{Context, merge};
/// use std::time::Duration;
///
/// let (shutdown, stop) = Context::background().with_cancel();
/// let request = Context::background().with_timeout(Duration::from_secs(5)).with_value("request 7");
/// let ctx = merge(&request, &shutdown.named("shutdown"));
///
/// assert_eq!(ctx.deadline(), request.deadline());
/// assert_eq!(ctx.value::<&str>(), Some(&"request 7"));
/// stop.cancel_with("SIGTERM");
/// assert_eq!(ctx.err().unwrap().origin(), Some("shutdown"));
/// assert!(!request.is_done());
/// ```
pub fn merge(primary: impl Into<Context>, other: impl Into<Context>) -> Context {
    any_of([primary.into(), other.into()])
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
pub fn any_of<I>(inputs: I) -> Context
where
    I: IntoIterator,
    I::Item: Into<Context>,
{
    let mut inputs = inputs.into_iter();
    let Some(primary) = inputs.next().map(Into::into) else { return Context::background() };
    let mut union = Union::default();
    union.add(primary.node.as_ref());
    for input in inputs {
        union.add(input.into().node.as_ref());
    }
    Context { node: union.into_node(), values: primary.values }
}

/// From this size on, duplicates are looked up by hash.
const MANY: usize = 32;

/// The inputs so far.
#[derive(Default)]
struct Union {
    live: Live,
    /// The earliest deadline of the live inputs, of the earlier argument where two are equal.
    deadline: Option<Deadline>,
    /// The input that was seen to have finished first.
    finished: Option<(Moment, Error, Node)>,
    /// The earliest deadline of the finished inputs.
    past: Option<Deadline>,
}

#[derive(Default)]
enum Live {
    #[default]
    Nothing,
    /// The union is exactly this input.
    One(Node),
    Many(Sources),
}

impl Union {
    fn add(&mut self, input: Option<&Node>) {
        let Some(node) = input else { return };
        if matches!(&self.live, Live::One(one) if one.same(node)) {
            return;
        }
        match node.event() {
            Some((moment, err)) => {
                keep_earlier(&mut self.past, node.deadline());
                let earlier = self.finished.as_ref().is_none_or(|(earliest, ..)| moment < *earliest);
                if earlier {
                    self.finished = Some((moment, err, node.clone()));
                }
            }
            None => {
                keep_earlier(&mut self.deadline, node.deadline());
                self.add_live(node);
            }
        }
    }

    fn add_live(&mut self, node: &Node) {
        let deadline = self.deadline.as_ref();
        let live = std::mem::replace(&mut self.live, Live::Nothing);
        self.live = match live {
            Live::Nothing => Live::One(node.clone()),
            Live::One(one) if covers(&one, node, deadline, false) => Live::One(one),
            Live::One(one) if covers(node, &one, deadline, true) => Live::One(node.clone()),
            Live::One(one) => {
                let mut sources = Sources::default();
                sources.extend(&one);
                sources.extend(node);
                Live::Many(sources)
            }
            Live::Many(mut sources) => {
                sources.extend(node);
                if sources.are_those_of(node) && same_deadline(node.deadline(), deadline) {
                    Live::One(node.clone())
                } else {
                    Live::Many(sources)
                }
            }
        };
    }

    fn into_node(self) -> Option<Node> {
        if let Some((moment, err, node)) = self.finished {
            // What was live when it was added may have finished since, and before what was seen to have finished; and a
            // gather may not have been told.
            let before = match &self.live {
                Live::Nothing => None,
                Live::One(node) => node.first_event(),
                Live::Many(sources) => first_event(&sources.set, self.deadline.as_ref()),
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
        match self.live {
            Live::Nothing => None,
            Live::One(node) => Some(node),
            Live::Many(sources) => Some(Node::new(Role::Plain, bounded(sources.set, MAX_SOURCES), self.deadline)),
        }
    }
}

fn keep_earlier(known: &mut Option<Deadline>, other: Option<&Deadline>) {
    if let Some(other) = other {
        if known.as_ref().is_none_or(|known| other.at < known.at) {
            *known = Some(other.clone());
        }
    }
}

/// Whether a union of the two observes as `whole`, given the deadline of the union. Where `part` came first, `whole`
/// has to tell the names that it has, because the earlier argument's are kept: what stands for others and comes before
/// a source there, and not here, may have that source too, under another name.
fn covers(whole: &Node, part: &Node, deadline: Option<&Deadline>, part_is_first: bool) -> bool {
    let is_alone = |(node, _): &(&Node, Option<&Name>)| !node.stands_for_others();
    let alone = || whole.sources().take_while(is_alone).count();
    let begin_alike = || {
        let both = whole.sources().zip(part.sources());
        both.take_while(|((a, a_name), (b, b_name))| a.same(b) && Name::same(*a_name, *b_name)).count()
    };
    same_deadline(whole.deadline(), deadline)
        && part.sources().enumerate().all(|(index, (source, name))| {
            let mut found = whole.sources().enumerate().filter_map(|(at, (other, other_name))| {
                let inner = if source.same(other) { None } else { stands_for(other, source, part_is_first)? };
                Some((at, inner.or(other_name)))
            });
            let Some((at, other_name)) = found.next() else { return false };
            let first = |at| (is_alone(&(source, name)) && at <= alone()) || (at == index && at <= begin_alike());
            !part_is_first || (Name::same(name, other_name) && first(at))
        })
}

fn same_deadline(a: Option<&Deadline>, b: Option<&Deadline>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.at == b.at && a.err.same(&b.err),
        _ => false,
    }
}

/// Sources in the order of the arguments, each once, under the name it came with first.
#[derive(Default)]
struct Sources {
    set: Set,
    /// Their addresses, once there are `MANY`.
    seen: HashSet<usize>,
}

impl Sources {
    fn extend(&mut self, node: &Node) {
        for (source, name) in node.sources() {
            if !self.has(source) {
                self.set.push(Entry { node: source.clone(), name: name.cloned() });
                self.index();
            }
        }
    }

    fn has(&self, source: &Node) -> bool {
        if self.seen.is_empty() {
            self.set.iter().any(|entry| entry.node.same(source))
        } else {
            self.seen.contains(&source.address())
        }
    }

    fn index(&mut self) {
        if self.set.len() == MANY {
            self.seen = self.set.iter().map(|entry| entry.node.address()).collect();
        } else if self.set.len() > MANY {
            self.seen.extend(self.set.last().map(|entry| entry.node.address()));
        }
    }

    /// Only called after `node` was added: so as many sources are the same sources. Where one stands for others their
    /// order counts too, which decides under which name it has those.
    fn are_those_of(&self, node: &Node) -> bool {
        let ordered = self.set.iter().any(|entry| entry.node.stands_for_others());
        self.set.len() <= MAX_SOURCES
            && node.sources().count() == self.set.len()
            && node.sources().enumerate().all(|(index, (source, name))| {
                let mut here = self.set.iter().enumerate().filter(|(at, _)| !ordered || *at == index);
                here.any(|(_, entry)| entry.node.same(source) && Name::same(entry.name.as_ref(), name))
            })
    }
}
