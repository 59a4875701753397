//! The table, as Markdown that can be read as it is.

use crate::rows::Row;

pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![["measure / peer", "ours", "peer", "ratio", "rounds", "at most", "met"].map(String::from)];
    for row in rows {
        let (ratio, range) = (row.ratio(), (row.ratios[0], row.ratios[row.ratios.len() - 1]));
        lines.push([
            row.label.clone(),
            time(row.ours),
            time(row.peer),
            figure(ratio),
            format!("{} to {}", figure(range.0), figure(range.1)),
            row.limit.map(figure).unwrap_or_default(),
            row.limit.map(|limit| if ratio <= limit { "yes" } else { "no" }).unwrap_or_default().into(),
        ]);
    }
    markdown(&lines)
}

/// Lines of cells, the first of them the head; the first column is text, the others stand at the right.
fn markdown<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).max(2);
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
        ..1e3 => (1.0, "ns"),
        ..1e6 => (1e3, "µs"),
        ..1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", figure(nanoseconds / scale))
}

/// Three figures that count, of a number that is not large.
pub(crate) fn figure(number: f64) -> String {
    let decimals = match number.abs() {
        ..0.1 => 4,
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_figures_and_its_unit() {
        let times = [0.4321, 3.14159, 42.0, 999.4, 1_234.0, 56_789_000.0, 2.5e9];
        let shown = ["0.432 ns", "3.14 ns", "42.0 ns", "999 ns", "1.23 µs", "56.8 ms", "2.50 s"];
        assert_eq!(times.map(time), shown);
    }

    #[test]
    fn a_limit_is_met_by_the_median_of_the_rounds() {
        let row = |ratios: &[f64]| Row {
            label: "a / b".into(),
            ours: 1.0,
            peer: 2.0,
            ratios: ratios.to_vec(),
            limit: Some(0.5),
        };
        let table = table(&[row(&[0.1, 0.5, 9.0]), row(&[0.1, 0.51, 0.52])]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].ends_with("| 0.500 | yes |"), "{table}");
        assert!(lines[3].ends_with("| 0.500 |  no |"), "{table}");
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].len()), "{table}");
    }
}
