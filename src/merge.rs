//! `merge` and `any_of`: the union of sets.

use std::collections::HashSet;

use crate::context::Context;
use crate::event::Deadline;
use crate::gather::bound;
use crate::set::first_event;
use crate::source::{MAX_SOURCES, Set, Source, Sources};
use crate::sync::Arc;

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
    let Context { set, values } = primary.into();
    Context { set: both(set, other.into().set), values }
}

/// [`merge`] of any number of contexts: the first is the primary. Without inputs it is the
/// [`background`](Context::background).
///
/// Of more than eight sources the older ones stand behind one, so that checking and awaiting stay as cheap as with a few;
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
    let Context { set, values } = primary;
    let others = [second, third].into_iter().chain(inputs).map(|input| input.into().set);
    Context { set: union([set].into_iter().chain(others)), values }
}

#[inline]
fn both(a: Set, b: Set) -> Set {
    match (a, b) {
        (Set::Never, set) | (set, Set::Never) => set,
        // Most merges are of this kind. Both handles move.
        (Set::Source(a), Set::Source(b)) if a.is_pending_root() && b.is_pending_root() && !Arc::ptr_eq(&a, &b) => {
            Set::pair(a, b, None)
        }
        (a, b) => two(a, b),
    }
}

/// Where a glance shows that both are live, that they have nothing in common, and that they are few, the union is the one
/// after the other.
#[inline(never)]
fn two(a: Set, b: Set) -> Set {
    if let (Some((x, at)), Some((y, other))) = (a.only(), b.only()) {
        if !Arc::ptr_eq(x, y) {
            let deadline = Deadline::earlier(at, other).cloned();
            return Set::pair(a.into_only(), b.into_only(), deadline);
        }
    }
    let apart = |source: &Source| b.view().all(|other| !std::ptr::eq(source, other));
    let counts = [&a, &b].map(|set| set.view().sources().count());
    let few = !counts.contains(&0) && counts[0] + counts[1] <= MAX_SOURCES;
    if few && a.view().is_pending() && b.view().is_pending() && a.view().all(apart) {
        let deadline = Deadline::earlier(a.view().deadline(), b.view().deadline()).cloned();
        return Set::union(a.view().sources().chain(b.view().sources()).cloned(), deadline);
    }
    union([a, b].into_iter())
}

/// From this size on a set of what is known is kept.
const MANY: usize = 32;

/// The general way. Inputs that have finished need no care of their own: their events are among those of the union.
fn union(inputs: impl Iterator<Item = Set>) -> Set {
    let mut sources = Sources::new();
    let mut known = HashSet::new();
    // The earliest deadline, and the number of sources before it.
    let (mut deadline, mut place) = (None::<Deadline>, 0);
    // A deadline that was laid on what had finished is reported, and is no event.
    let mut reported: Option<Deadline> = None;
    let mut largest: Option<(usize, Set)> = None;
    for set in inputs {
        let earlier = set.is_earlier_finish();
        let moved = keep_earlier(if earlier { &mut reported } else { &mut deadline }, set.view().deadline());
        if moved && !earlier {
            place = sources.len();
        }
        let mut count = 0;
        for source in set.view().sources() {
            count += 1;
            if sources.len() == MANY && known.is_empty() {
                known.extend(sources.iter().map(Arc::as_ptr));
            }
            let new = match sources.len() {
                ..MANY => !sources.iter().any(|known| Arc::ptr_eq(known, source)),
                _ => known.insert(Arc::as_ptr(source)),
            };
            if new {
                sources.push(Arc::clone(source));
            }
        }
        let larger = largest.as_ref().is_none_or(|(most, _)| *most < count || (*most == count && moved));
        if larger && !set.is_never() {
            largest = Some((count, set));
        }
    }
    // One that has all of it is the result.
    match largest {
        None => return Set::Never,
        Some((count, set)) if count == sources.len() && set.is_whole(deadline.as_ref(), reported.as_ref()) => {
            return set;
        }
        Some(_) => {}
    }
    if sources.iter().any(|source| source.has_event()) {
        if let Some(event) = first_event(&sources, deadline.as_ref(), place) {
            keep_earlier(&mut deadline, reported.as_ref());
            return Set::finished(event, deadline);
        }
    }
    bound(&mut sources, MAX_SOURCES);
    Set::union(sources.into_iter(), deadline)
}

impl Set {
    fn is_earlier_finish(&self) -> bool {
        matches!(self, Self::Source(source) if source.is_earlier_finish())
    }

    /// Whether it has that deadline, and no other was reported.
    fn is_whole(&self, deadline: Option<&Deadline>, reported: Option<&Deadline>) -> bool {
        let (own, other) = if self.is_earlier_finish() { (reported, deadline) } else { (deadline, reported) };
        other.is_none() && Deadline::same(self.view().deadline(), own)
    }
}

/// Whether `other` is earlier than what is known, and so has taken its place.
fn keep_earlier(known: &mut Option<Deadline>, other: Option<&Deadline>) -> bool {
    let earlier = Deadline::earlier(known.as_ref(), other);
    let moved = !Deadline::same(known.as_ref(), earlier);
    if moved {
        *known = earlier.cloned();
    }
    moved
}
