//! What a context is made of, for people to read.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, ErrorKind, Name};
use crate::event::{Deadline, Timestamp};
use crate::relay::each_leaf;
use crate::source::{Resolved, Source};
use crate::sync::now;
use crate::waiters::Waiters;

/// What a context is made of at one moment; made by [`Context::explain`]. Displayed it is a tree.
#[derive(Clone, Debug)]
pub struct Explanation {
    summary: String,
    /// Each after what it is part of.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    depth: usize,
    text: String,
    over: bool,
    /// Whether it is what finished the context.
    first: bool,
}

/// How many sources of a gather are told one by one.
const SHOWN: usize = 16;

impl Context {
    /// What this context is made of: its sources and its deadline, their names, which of them are finished, which one was
    /// first and why, and how long is left.
    ///
    /// It takes no lock and waits for nobody, and may be called at any time, also in the middle of a cancel: then what it
    /// shows is what a look would have seen at some point of the call. Of more than eight sources the older ones stand
    /// behind a *gather*, of which those past the sixteenth are only counted, but for the first to finish. Where a source's last
    /// [`Canceller`](crate::Canceller) is gone it says so: nothing can cancel it any more. Where that is so of all sources,
    /// and there is no deadline, the first line says that nothing can finish the context: who waits for it waits for ever.
    ///
    /// ```
    /// use context_merge::{Context, merge};
    ///
    /// let (shutdown, stop) = Context::background().named("shutdown").with_cancel();
    /// let (request, _hang_up) = Context::background().with_value("GET /").named("request").with_cancel();
    /// let ctx = merge(&request, &shutdown);
    /// stop.cancel_with("SIGTERM");
    /// assert_eq!(
    ///     ctx.explain().to_string(),
    ///     "context cancelled (shutdown): SIGTERM\n\
    ///      ├─ source \"request\": live\n\
    ///      ├─ source \"shutdown\": cancelled: SIGTERM ← first\n\
    ///      └─ 1 value\n"
    /// );
    /// ```
    pub fn explain(&self) -> Explanation {
        let look = || {
            let event = self.view().event();
            let parts = self.parts(event.as_ref().map(|(at, _)| *at));
            (event, parts)
        };
        let (mut finished, mut parts) = look();
        if finished.is_none() && parts.iter().any(|part| part.over) {
            // Something has happened since that look.
            (finished, parts) = look();
        }
        let can_finish = || self.deadline().is_some() || self.set.view().sources().any(|source| can_happen(source));
        let summary = match finished {
            Some((_, err)) => with_cause(err.to_string(), &err),
            None if self.set.is_never() => "live: never finished".into(),
            None if can_finish() => "live".into(),
            None => "live: nothing can finish it any more".into(),
        };
        Explanation { summary, parts }
    }

    /// `first` is when the event was that finished it.
    fn parts(&self, first: Option<Timestamp>) -> Vec<Part> {
        let mut parts = Vec::new();
        for source in self.set.view().sources() {
            explain_source(source, 0, first, &mut parts);
        }
        if let Some(deadline) = self.view().deadline() {
            parts.push(explain_deadline(deadline, first));
        }
        let values = self.values.len();
        if values > 0 {
            let text = format!("{values} value{}", if values == 1 { "" } else { "s" });
            parts.push(Part { depth: 0, text, over: false, first: false });
        }
        parts
    }
}

/// Whether there is somebody who could still make it happen, or one of those that it stands for.
fn can_happen(source: &Source) -> bool {
    let here = |source: &Source| source.is_foreign() || source.list().is_some_and(Waiters::is_open);
    let Some(set) = source.stands_for() else { return here(source) };
    let mut any = false;
    each_leaf(set, |leaf| any |= here(leaf));
    any
}

/// What has happened to it by itself.
fn resolve(source: &Source) -> Option<Resolved<'_>> {
    if source.stands_for().is_some() { source.resolve_marked() } else { source.resolve() }
}

/// A source, and what it stands for: a relay for gathers at most, and those for no more (N4 in `set.rs`).
fn explain_source(source: &Source, depth: usize, first: Option<Timestamp>, parts: &mut Vec<Part>) {
    let event = resolve(source).map(|found| found.event());
    let over = event.as_ref().map(|(at, _)| *at);
    let kind = match source.as_other() {
        Some(other) => other.name(),
        None if source.as_relay().is_some() => "relay",
        None if source.is_earlier_finish() => "earlier finish",
        None => "source",
    };
    let origin = event.as_ref().and_then(|(_, err)| err.origin()).or(source.name().map(Name::as_str));
    let mut text = origin.map_or_else(|| kind.to_owned(), |name| format!("{kind} {name:?}"));
    match event {
        Some((_, err)) => text = with_cause(format!("{text}: {}", kind_of(&err)), &err),
        None if source.stands_for().is_some() => {}
        None if can_happen(source) => text += ": live",
        None => text += ": live, and nothing can cancel it any more",
    }
    parts.push(Part { depth, text, over: over.is_some(), first: over.is_some() && over == first });

    let Some(set) = source.stands_for() else { return };
    if source.as_relay().is_some() {
        set.view().sources().for_each(|above| explain_source(above, depth + 1, first, parts));
        return;
    }
    let (mut shown, mut more, mut finished) = (0, 0, 0);
    each_leaf(set, |leaf| {
        let event = resolve(leaf).map(|found| found.timestamp);
        if shown < SHOWN || (event.is_some() && event == first) {
            shown += 1;
            explain_source(leaf, depth + 1, first, parts);
        } else {
            more += 1;
            finished += usize::from(event.is_some());
        }
    });
    if more > 0 {
        let text = format!("{more} more, {} live, {finished} finished", more - finished);
        parts.push(Part { depth: depth + 1, text, over: finished > 0, first: false });
    }
}

fn explain_deadline(deadline: &Deadline, first: Option<Timestamp>) -> Part {
    let left = deadline.at.saturating_duration_since(now());
    let err = deadline.err();
    let name = err.origin().map_or_else(String::new, |name| format!(" {name:?}"));
    let text = if left.is_zero() {
        with_cause(format!("deadline{name}: exceeded"), &err)
    } else {
        format!("deadline{name}: in {:?}", rounded(left))
    };
    Part { depth: 0, text, over: left.is_zero(), first: first == Some(deadline.timestamp()) }
}

/// To what people read.
fn rounded(left: Duration) -> Duration {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { left } else { Duration::from_millis(millis) }
}

fn kind_of(err: &Error) -> &'static str {
    match err.kind() {
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::DeadlineExceeded => "deadline exceeded",
    }
}

/// On one line, whatever the cause says.
fn with_cause(mut text: String, err: &Error) -> String {
    if let Some(cause) = err.cause() {
        let _ = write!(text, ": {cause}");
    }
    text.replace(['\n', '\r'], " ")
}

impl Explanation {
    /// The same as a flowchart of [Mermaid](https://mermaid.js.org/syntax/flowchart.html).
    pub fn to_mermaid(&self) -> String {
        let label = |text: &str| text.replace('"', "#quot;");
        let mut out = format!("flowchart BT\n    ctx[\"{}\"]\n", label(&self.summary));
        for (at, part) in self.parts.iter().enumerate() {
            let arrow = if part.first { "==>" } else { "-->" };
            let _ = writeln!(out, "    p{at}[\"{}\"] {arrow} {}", label(&part.text), self.parent(at));
        }
        out
    }

    /// The same as a graph of [DOT](https://graphviz.org/doc/info/lang.html).
    pub fn to_dot(&self) -> String {
        let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut out = format!("digraph {{\n    rankdir=BT\n    ctx [label=\"{}\"]\n", label(&self.summary));
        for (at, part) in self.parts.iter().enumerate() {
            let style = if part.first { " [style=bold]" } else { "" };
            let _ =
                writeln!(out, "    p{at} [label=\"{}\"]\n    p{at} -> {}{style}", label(&part.text), self.parent(at));
        }
        out + "}\n"
    }

    /// What the part stands under.
    fn parent(&self, at: usize) -> String {
        let above = self.parts[..at].iter().rposition(|part| part.depth < self.parts[at].depth);
        above.map_or_else(|| "ctx".into(), |above| format!("p{above}"))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary)?;
        for (at, part) in self.parts.iter().enumerate() {
            for depth in 0..=part.depth {
                let below = self.parts[at + 1..].iter().take_while(|next| next.depth >= depth);
                let last = !below.into_iter().any(|next| next.depth == depth);
                f.write_str(match (depth == part.depth, last) {
                    (true, false) => "├─ ",
                    (true, true) => "└─ ",
                    (false, false) => "│  ",
                    (false, true) => "   ",
                })?;
            }
            writeln!(f, "{}{}", part.text, if part.first { " ← first" } else { "" })?;
        }
        Ok(())
    }
}
