//! The figures of a run, by what they are of.

use std::collections::BTreeMap;

use harness::figures::Figure;

/// Of one side at one size, a figure for each round.
pub(crate) type Rounds = BTreeMap<usize, f64>;

/// A side of a measure at a size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Of {
    pub(crate) measure: String,
    pub(crate) side: String,
    pub(crate) size: usize,
}

impl Of {
    pub(crate) fn new(measure: &str, side: &str, size: usize) -> Of {
        Of { measure: measure.into(), side: side.into(), size }
    }
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Figures(pub(crate) BTreeMap<Of, Rounds>);

impl Figures {
    pub(crate) fn read() -> Figures {
        let mut figures = Figures::default();
        for (Figure { measure, side, size, round }, nanoseconds) in harness::figures::read() {
            figures.0.entry(Of { measure, side, size }).or_default().insert(round, nanoseconds);
        }
        figures
    }

    /// Whether a measure was taken at several sizes.
    pub(crate) fn sized(&self, measure: &str) -> bool {
        self.0.keys().any(|of| of.measure == measure && of.size != 1)
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, of: &Of) -> Option<f64> {
        median(self.0.get(of)?.values().copied().collect())
    }

    /// The ratio in each round that has both, from the least to the largest.
    pub(crate) fn ratios(&self, ours: &Of, peer: &Of) -> Vec<f64> {
        let (Some(ours), Some(peer)) = (self.0.get(ours), self.0.get(peer)) else { return Vec::new() };
        let mut ratios: Vec<f64> = ours.iter().filter_map(|(round, ours)| Some(ours / peer.get(round)?)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (last, middle) = (values.len().checked_sub(1)?, values.len() / 2);
    Some((values[last - middle] + values[middle]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_sorted_values() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_ratio_is_taken_within_its_round() {
        let [ours, peer] = ["ours", "peer"].map(|side| Of::new("measure", side, 1));
        let mut figures = Figures::default();
        figures.0.insert(ours.clone(), Rounds::from([(0, 10.0), (1, 2.0), (2, 7.0)]));
        figures.0.insert(peer.clone(), Rounds::from([(1, 1.0), (0, 10.0)]));
        assert_eq!(figures.ratios(&ours, &peer), [1.0, 2.0], "the third round has no peer");
        assert_eq!(figures.ratios(&ours, &Of::new("measure", "peer", 2)), [] as [f64; 0]);
    }
}
