//! The tables, as Markdown that can be read as it is.

use crate::figures::Of;
use crate::memory::Memory;
use crate::rows::Row;

/// Ours against the peers.
pub(crate) fn times(rows: &[Row]) -> String {
    let mut lines = vec![["measure / peer", "ours", "peer", "ratio", "rounds", "at most", "met"].map(String::from)];
    for row in rows {
        let (least, largest) = (row.ratios[0], row.ratios[row.ratios.len() - 1]);
        lines.push([
            row.label.clone(),
            row.ours.clone(),
            row.peer.clone(),
            figure(row.ratio()),
            format!("{} to {}", figure(least), figure(largest)),
            row.limit.map(figure).unwrap_or_default(),
            row.limit.map(|limit| met(row.ratio() <= limit)).unwrap_or_default(),
        ]);
    }
    markdown(&lines)
}

/// What an operation may allocate at most, by measure.
const ALLOCATIONS: [(&str, u64); 6] = [
    ("merge + check + drop", 1),
    ("new context", 1),
    ("check, live merge of two", 0),
    ("check with a deadline", 0),
    ("await again", 0),
    ("run of ready work", 0),
];

/// What an operation allocates, ours with the limit, then the peers.
pub(crate) fn allocations(memory: &Memory) -> String {
    let mut lines = vec![["operation", "side", "allocations", "bytes", "at most", "met"].map(String::from)];
    let ranked = |of: &Of| ALLOCATIONS.iter().position(|(measure, _)| of.measure == *measure);
    let mut sorted: Vec<_> = memory.iter().collect();
    sorted.sort_by_key(|(of, _)| {
        (ranked(of).unwrap_or(ALLOCATIONS.len()), &of.measure, of.size, of.side != "ours", &of.side)
    });
    for (of, &(bytes, allocations)) in sorted {
        let limit = ranked(of).filter(|_| of.side == "ours").map(|rank| ALLOCATIONS[rank].1);
        let size = if of.size > 1 { format!(" ({})", count(of.size as u64)) } else { String::new() };
        lines.push([
            format!("{}{size}", of.measure),
            of.side.clone(),
            count(allocations),
            count(bytes),
            limit.map(count).unwrap_or_default(),
            limit.map(|limit| met(allocations <= limit)).unwrap_or_default(),
        ]);
    }
    markdown(&lines)
}

fn met(yes: bool) -> String {
    if yes { "yes" } else { "no" }.into()
}

/// Lines of cells, the first of them the head; the first column is text, the others stand at the right.
fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = width(column);
            out += &if column == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
        }
        out += "|\n";
        if index == 0 {
            for column in 0..N {
                out += &format!("|{}{}", "-".repeat(width(column) + 1), if column == 0 { "-" } else { ":" });
            }
            out += "|\n";
        }
    }
    out
}

/// Nanoseconds in the unit that suits them.
pub(crate) fn time(nanoseconds: f64) -> String {
    let (scale, unit) = match nanoseconds {
        ..999.5 => (1.0, "ns"),
        ..999.5e3 => (1e3, "µs"),
        ..999.5e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", figure(nanoseconds / scale))
}

/// Three figures that count; of what is smaller than a thousandth, two, and of what is hardly there, one.
pub(crate) fn figure(number: f64) -> String {
    let decimals = match number {
        f64::MIN_POSITIVE..0.000_009_5 => return format!("{number:.0e}"),
        ..0.000_995 => 5,
        ..0.099_95 => 4,
        ..0.9995 => 3,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// A whole number, in thousands.
pub(crate) fn count(number: u64) -> String {
    match number {
        ..1_000 => number.to_string(),
        _ => format!("{},{:03}", count(number / 1_000), number % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_figures_and_its_unit() {
        let times = [0.4321, 2.3456, 42.0, 999.4, 999.6, 1_234.0, 56_789_000.0, 2.5e9];
        let shown = ["0.432 ns", "2.35 ns", "42.0 ns", "999 ns", "1.00 µs", "1.23 µs", "56.8 ms", "2.50 s"];
        assert_eq!(times.map(time), shown);
        assert_eq!([0.000_002, 0.000_123, 0.0123, 0.12].map(figure), ["2e-6", "0.00012", "0.0123", "0.120"]);
    }

    #[test]
    fn a_count_has_its_thousands() {
        assert_eq!([0, 999, 1_000, 10_056, 1_000_000].map(count), ["0", "999", "1,000", "10,056", "1,000,000"]);
    }

    #[test]
    fn a_limit_is_met_by_the_median_of_the_rounds() {
        let row = |ratios: &[f64]| Row {
            label: "a / b".into(),
            ours: "1.00 ns".into(),
            peer: "2.00 µs".into(),
            ratios: ratios.to_vec(),
            limit: Some(0.5),
        };
        let table = times(&[row(&[0.1, 0.5, 9.0]), row(&[0.1, 0.51, 0.52])]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].ends_with("|   0.500 | yes |"), "{table}");
        assert!(lines[3].ends_with("|   0.500 |  no |"), "{table}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{table}");
    }

    #[test]
    fn an_allocation_limit_is_ours_alone() {
        let [ours, peer] = ["ours", "child_token"].map(|side| Of::new("merge + check + drop", side, 1));
        let table = allocations(&Memory::from([(ours, (128, 2)), (peer, (144, 2))]));
        assert_eq!((table.matches("no |").count(), table.matches("yes |").count()), (1, 0), "{table}");
    }
}
