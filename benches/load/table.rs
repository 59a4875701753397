//! Samples of rounds, and tables of them as Markdown.

/// One for each round.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// The median of the ratios round by round, and the least and the largest.
    pub(crate) fn to(&self, peer: &Samples) -> String {
        let ratios: Vec<f64> = self.0.iter().zip(&peer.0).map(|(ours, peer)| ours / peer).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.2} ({least:.2} to {largest:.2})", median(ratios))
    }
}

/// Of an odd number.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Lines of cells, the first of them the head; the first column is text, the others stand at the right.
pub(crate) fn markdown(lines: &[Vec<String>]) -> String {
    let columns = 0..lines[0].len();
    let widths: Vec<usize> =
        columns.map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            out += &if at == 0 { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") };
        }
        out += "|\n";
        if index == 0 {
            for (at, width) in widths.iter().enumerate() {
                out += &format!("|{}{}", "-".repeat(width + 1), if at == 0 { "-" } else { ":" });
            }
            out += "|\n";
        }
    }
    out
}

/// In the unit that suits them.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.2} µs", seconds * 1e6),
        ..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, peer) = (Samples(vec![1.0, 8.0, 3.0]), Samples(vec![2.0, 4.0, 3.0]));
        assert_eq!(ours.median(), 3.0);
        assert_eq!(ours.to(&peer), "1.00 (0.50 to 2.00)");
    }

    #[test]
    fn a_table_stands_in_columns() {
        let lines = [["", "none"], ["p99", "1.00 ms"]].map(|line| line.map(String::from).to_vec());
        assert_eq!(markdown(&lines), "|     |    none |\n|-----|--------:|\n| p99 | 1.00 ms |\n");
    }

    #[test]
    fn a_time_has_its_unit() {
        assert_eq!([4.321e-7, 0.000_012_34, 0.0567, 2.0].map(seconds), ["432 ns", "12.34 µs", "56.70 ms", "2.00 s"]);
    }
}
