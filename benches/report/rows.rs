//! Which ratios the table has: those with a limit first, in the order of the limits, then all others against a peer.

use crate::figures::{Figures, Of, median};
use crate::memory::Memory;
use crate::table::{count, time};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) ours: String,
    pub(crate) peer: String,
    /// Of all rounds, from the least to the largest.
    pub(crate) ratios: Vec<f64>,
    pub(crate) limit: Option<f64>,
}

impl Row {
    /// The median over the rounds.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.ratios.clone()).unwrap_or(f64::NAN)
    }
}

const MERGE: &str = "merge + check + drop";
const REQUEST: &str = "new request + merge + check + drop";
const TIMEOUT: &str = "new request with timeout + merge + check + drop";
const CANCEL: &str = "one cancel, parked waiters";
const LOOK: &str = "longest look at the root during one cancel";
const THREADS: &str = "request, threads on one root";
const TOKENS: &str = "new token + child token";
const GUARDED: &str = "child token with a guard";
const TIMED: &str = "new token + child token with a guard + sleep";
const PARKED: &str = "request context, its merge and a parked waiter, kept";

/// A side, and its size.
type At = (&'static str, usize);

/// What a ratio may be at most.
struct Limit {
    measure: &'static str,
    ours: At,
    peer: At,
    at_most: f64,
}

const fn limit(measure: &'static str, peer: &'static str, at_most: f64) -> Limit {
    Limit { measure, ours: ("ours", 1), peer: (peer, 1), at_most }
}

const LIMITS: [Limit; 22] = [
    limit(MERGE, "child_token", 0.45),
    limit(MERGE, "bare allocation", 2.5),
    limit(REQUEST, TOKENS, 0.55),
    limit(REQUEST, "Go", 1.0 / 15.0),
    limit(TIMEOUT, "Go", 1.0 / 18.0),
    limit("new request + merge + check, ended by its guard", GUARDED, 1.4),
    limit("new request with timeout + merge + check, ended by its guard", TIMED, 1.3),
    limit("derive + check, ended by its guard", GUARDED, 1.2),
    limit("a layer's context, made, looked at, ended", TIMED, 1.0),
    limit("merge with its own cancel, cancelled", "forwarding task", 0.12),
    limit("merge + first await + drop", "child_token", 0.85),
    limit("await again", "select!", 0.7),
    limit("check, live merge of two", "is_cancelled", 0.2),
    limit("check with a deadline", "reading the clock", 1.2),
    limit("run of ready work", "run_until_cancelled", 0.45),
    Limit { ours: ("ours", 1_000_000), peer: ("child tokens", 1_000_000), ..limit(CANCEL, "", 0.1) },
    Limit { ours: ("ours", 1_000_000), peer: ("child tokens", 1_000_000), ..limit(LOOK, "", 0.01) },
    Limit { ours: ("ours", 10_000), peer: ("ours", 2), ..limit("any_of: check", "", 2.0) },
    Limit { ours: ("ours", 10_000), peer: ("ours", 2), ..limit("any_of: await", "", 2.0) },
    Limit { ours: ("ours", 100), peer: ("child tokens", 100), ..limit("chain: made and dropped", "", 2.5) },
    Limit { ours: ("ours", 2), peer: ("ours", 1), ..limit(THREADS, "", 1.0) },
    Limit { ours: ("ours, a relay each", 2), peer: ("ours", 1), ..limit(THREADS, "", 0.6) },
];

/// All rows that there are figures for.
pub(crate) fn rows(figures: &Figures, memory: &Memory) -> Vec<Row> {
    let of = |measure, (side, size): At| Of::new(measure, side, size);
    let limits =
        LIMITS.map(|limit| (of(limit.measure, limit.ours), of(limit.measure, limit.peer), Some(limit.at_most)));
    let peers = figures.0.keys().filter(|of| !of.side.starts_with("ours"));
    let others = peers.map(|peer| (Of { side: "ours".into(), ..peer.clone() }, peer.clone(), None));
    let others = others.filter(|(_, peer, _)| !limits.iter().any(|(_, known, _)| known == peer));
    let threads = (of(THREADS, (TOKENS, 2)), of(THREADS, (TOKENS, 1)), None);
    let rest = [threads].into_iter().chain(others);

    let limited = limits.iter().cloned().filter_map(|pair| row(figures, pair));
    limited.chain(bytes(memory)).chain(rest.filter_map(|pair| row(figures, pair))).collect()
}

fn row(figures: &Figures, (ours, peer, limit): (Of, Of, Option<f64>)) -> Option<Row> {
    let ratios = figures.ratios(&ours, &peer);
    if ratios.is_empty() {
        return None;
    }
    let (ours_time, peer_time) = (time(figures.median(&ours)?), time(figures.median(&peer)?));
    let label = label(&ours, &peer, figures.sized(&ours.measure));
    Some(Row { label, ours: ours_time, peer: peer_time, ratios, limit })
}

/// What is kept for one request, where the limit is no time.
fn bytes(memory: &Memory) -> impl Iterator<Item = Row> {
    let (ours, peer) = (Of::new(PARKED, "ours", 1), Of::new(PARKED, "token + child token", 1));
    let figures = memory.get(&ours).zip(memory.get(&peer));
    figures.into_iter().map(move |(&(ours_bytes, _), &(peer_bytes, _))| Row {
        label: label(&ours, &peer, false),
        ours: format!("{} B", count(ours_bytes)),
        peer: format!("{} B", count(peer_bytes)),
        ratios: vec![ours_bytes as f64 / peer_bytes as f64],
        limit: Some(1.1),
    })
}

/// The measure, with what differs between the two.
fn label(ours: &Of, peer: &Of, sized: bool) -> String {
    let size = |of: &Of| if sized { format!(" ({})", count(of.size as u64)) } else { String::new() };
    let side = match ours.side.strip_prefix("ours") {
        Some(side) => side.into(),
        None => format!(", {}", ours.side),
    };
    let of = format!("{}{}{side}", ours.measure, size(ours));
    if ours.size == peer.size { format!("{of} / {}", peer.side) } else { format!("{of} / ({})", peer.size) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Rounds;

    #[test]
    fn limits_come_first_and_no_row_twice() {
        let mut figures = Figures::default();
        for (measure, side, size, time) in [
            ("a measure", "ours", 8, 1.0),
            ("a measure", "peer", 8, 4.0),
            (MERGE, "ours", 1, 100.0),
            (MERGE, "child_token", 1, 50.0),
            (THREADS, "ours", 1, 10.0),
            (THREADS, "ours, a relay each", 2, 5.0),
        ] {
            figures.0.insert(Of::new(measure, side, size), Rounds::from([(0, time)]));
        }
        let rows = rows(&figures, &Memory::new());
        let shown: Vec<_> = rows.iter().map(|row| (row.label.as_str(), row.ratio(), row.limit)).collect();
        let expected = [
            ("merge + check + drop / child_token", 2.0, Some(0.45)),
            ("request, threads on one root (2), a relay each / (1)", 0.5, Some(0.6)),
            ("a measure (8) / peer", 0.25, None),
        ];
        assert_eq!(shown, expected);
    }
}
