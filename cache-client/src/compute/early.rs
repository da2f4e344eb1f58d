//! Whether a value that is still good is computed anew already.
//!
//! `XFetch` of Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB 8(8),
//! 2015: each reader draws how much before its end the value ends for him, in proportion to how long the computation
//! takes (delta is `took`), times beta. So a value that is read often is renewed by one reader shortly before its end,
//! however many there are, and one that is read rarely ends.

use std::time::Duration;

/// `draw` is uniform in [0, 1).
pub(super) fn is_due(left: Duration, took: Duration, beta: f64, draw: f64) -> bool {
    // 1 - draw is in (0, 1], of which there is a logarithm.
    let ahead_s = took.as_secs_f64() * beta.max(0.0) * -(1.0 - draw).ln();
    ahead_s > 0.0 && ahead_s >= left.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn values_that_took_longer_are_renewed_earlier() {
        // The chance that -ln(1 - draw) reaches left / took is exp(-left / took).
        for (left, took, expected) in [(3, 1, 0.0498), (1, 1, 0.3679), (3, 3, 0.3679)] {
            let mut random = Random::new(1);
            let is_due = |_: &u32| is_due(left * SECOND, took * SECOND, 1.0, random.unit());
            let share = (0..20_000).filter(is_due).count() as f64 / 20_000.0;
            assert!((share - expected).abs() < 0.01, "{share} of {expected}");
        }
    }

    #[test]
    fn without_eagerness_no_value_is() {
        assert!(!is_due(Duration::ZERO, SECOND, 0.0, 0.999));
    }
}
