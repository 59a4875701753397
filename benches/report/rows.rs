//! Which ratios the table has: those with a limit first, in the order of the limits, then all others.

use crate::figures::{Figures, Of, median};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) ours: f64,
    pub(crate) peer: f64,
    /// Of all rounds, from the least to the largest.
    pub(crate) ratios: Vec<f64>,
    pub(crate) limit: Option<f64>,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        median(self.ratios.clone()).unwrap_or(f64::NAN)
    }
}

const REQUEST: &str = "new request context, merged + checked + dropped";
const TIMEOUT: &str = "new request context with a timeout, merged + checked + dropped";

/// Measure, peer, and what the ratio may be at most.
const LIMITS: [(&str, &str, usize, f64); 11] = [
    ("merge + check + drop", "child_token", 1, 0.5),
    ("merge + check + drop", "bare allocation", 1, 2.5),
    (REQUEST, "new token + child token", 1, 0.6),
    (REQUEST, "Go", 1, 1.0 / 15.0),
    (TIMEOUT, "Go", 1, 1.0 / 18.0),
    ("merge with its own cancel, cancelled", "forwarding task", 1, 0.12),
    ("merge + first await + drop", "child_token", 1, 0.75),
    ("await again", "select!", 1, 0.55),
    ("check, live merge of two", "is_cancelled", 1, 0.2),
    ("check with a deadline", "reading the clock", 1, 1.2),
    ("run of ready work", "run_until_cancelled", 1, 0.4),
];

/// All rows that the figures are there for.
pub(crate) fn rows(figures: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut seen = Vec::new();
    for (measure, peer, size, limit) in LIMITS {
        let (ours, peer) = (Of::new(measure, "ours", size), Of::new(measure, peer, size));
        rows.extend(row(figures, &ours, &peer, Some(limit)));
        seen.push(peer);
    }
    for peer in figures.0.keys().filter(|of| of.side != "ours" && !seen.contains(of)) {
        let ours = Of { side: "ours".into(), ..peer.clone() };
        rows.extend(row(figures, &ours, peer, None));
    }
    rows
}

fn row(figures: &Figures, ours: &Of, peer: &Of, limit: Option<f64>) -> Option<Row> {
    let ratios = figures.ratios(ours, peer);
    let label = match ours.size {
        1 => format!("{} / {}", ours.measure, peer.side),
        size => format!("{}, {size} / {}", ours.measure, peer.side),
    };
    (!ratios.is_empty()).then_some(())?;
    Some(Row { label, ours: figures.median(ours)?, peer: figures.median(peer)?, ratios, limit })
}
