//! What a handful of rounds says: the middle, the ends, and where the true middle lies.
//!
//! The interval is of order statistics: the true median lies between the `k`-th smallest and the `k`-th
//! largest of `n` values, unless fewer than `k` of them fell to one side of it, each with an even chance.
//! Nothing is assumed of how values are distributed, and nothing is drawn at random. (W. J. Conover,
//! "Practical Nonparametric Statistics", 3rd edition, section 3.2.)

use serde::Serialize;

use crate::compare::median;

/// How sure an interval is at least.
const CONFIDENCE: f64 = 0.95;

/// Values of several rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Where the true median lies; none of fewer than six rounds.
    pub interval: Option<Interval>,
}

/// Where a median lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Not below.
    pub low: f64,
    /// Not above.
    pub high: f64,
    /// How sure that is: at least 0.95.
    pub confidence: f64,
}

impl Spread {
    /// The spread of `values`, of which there is at least one.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
            return Self { median: f64::NAN, min: f64::NAN, max: f64::NAN, interval: None };
        };
        let interval = rank_of_interval(sorted.len()).map(|(rank, confidence)| Interval {
            low: sorted[rank - 1],
            high: sorted[sorted.len() - rank],
            confidence,
        });
        Self { median: median(values), min, max, interval }
    }
}

/// The largest `k` that is sure enough for `count` values, and how sure it is.
fn rank_of_interval(count: usize) -> Option<(usize, f64)> {
    let mut best = None;
    // The chance that exactly `below` of the values fall below the true median, and of fewer.
    let mut chance = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut fewer = 0.0;
    for below in 0..count / 2 {
        fewer += chance;
        let confidence = 1.0 - 2.0 * fewer;
        if confidence < CONFIDENCE {
            break;
        }
        best = Some((below + 1, confidence));
        chance *= (count - below) as f64 / (below + 1) as f64;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_widens_with_doubt_and_is_none_of_few_rounds() {
        assert_eq!(rank_of_interval(5), None);
        // Tables of the sign test have these.
        for (count, rank, confidence) in
            [(6, 1, 0.969), (7, 1, 0.984), (9, 2, 0.961), (15, 4, 0.965)]
        {
            let (found, sure) = rank_of_interval(count).unwrap();
            assert_eq!(found, rank, "of {count}");
            assert!((sure - confidence).abs() < 0.001, "{sure} of {count}");
        }
    }

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(spread.interval, None);
        let nine: Vec<f64> = (1..=9).map(f64::from).collect();
        let interval = Spread::of(&nine).interval.unwrap();
        assert_eq!((interval.low, interval.high), (2.0, 8.0));
    }
}
