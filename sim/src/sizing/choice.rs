//! Which of the caches that were played is the best, which are worth playing next, and where the knee is.
//!
//! ```text
//! hit ratio
//!   │              ____o     a size between two that were played hits no less than the smaller and no more
//!   │          _o-'          than the larger one. So what it costs is at least the memory of the smaller
//!   │       .-'  ^           and the misses of the larger: where that is no cheaper than the best by now,
//!   │     o'     |           nothing between the two needs to be played (branch and bound: A. H. Land,
//!   └────────────┴─── size   A. G. Doig, Econometrica 28(3), 1960)
//! ```
//!
//! **The knee** is that of V. Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'Kneedle' in a
//! haystack: detecting knee points in system behavior", ICDCS workshops, 2011: size and hit ratio are each
//! scaled to run from 0 to 1, from no cache to the largest size played, and the knee is the size at which
//! the hit ratio is farthest ahead of the size. From there on a MiB more brings less than a MiB does in the
//! mean. Their smoothing is left out, as the curve is no noisy measurement, and so is their threshold: of
//! several knees the highest is taken.

use eviction::Kind;

/// Memory is given to a server in steps of this (`-m`), in bytes.
pub const STEP_BYTES: u64 = 1 << 20;

/// What is played between two sizes at a time.
const BETWEEN: u64 = 4;

/// Pairs of sizes that are looked between in a round, the most promising first.
const PAIRS_MAX: usize = 12;

/// What could be saved at most is worth no further round, as a share.
const WORTH: f64 = 0.003;

/// A cache that was played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its policy.
    pub policy: Kind,
    /// Its memory: the server's `-m`, in bytes.
    pub memory_bytes: u64,
    /// Hits in reads.
    pub hit_ratio: f64,
    /// Half the width of the band around it; 0 where the whole log was played.
    pub margin: f64,
}

impl Candidate {
    /// The hit ratio at the lower edge of the band: what it has for certain.
    pub fn sure(&self) -> f64 {
        (self.hit_ratio - self.margin).max(0.0)
    }

    /// The band.
    pub fn band(&self) -> (f64, f64) {
        (self.sure(), (self.hit_ratio + self.margin).min(1.0))
    }
}

/// What a cache must do, and what it costs.
pub struct Aim<'a> {
    /// The least hit ratio.
    pub target: Option<f64>,
    /// What so much memory costs with this hit ratio: more with more memory, less with more hits.
    pub cost: &'a dyn Fn(u64, f64) -> f64,
}

impl Aim<'_> {
    fn is_met(&self, hit_ratio: f64) -> bool {
        self.target.is_none_or(|target| hit_ratio >= target)
    }

    /// What a candidate costs.
    pub fn cost_of(&self, it: &Candidate) -> f64 {
        (self.cost)(it.memory_bytes, it.hit_ratio)
    }

    /// The cheapest of the candidates that do what they must; of equally cheap ones that which hits most,
    /// and of those the first.
    pub fn best<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        let met = candidates.iter().filter(|it| self.is_met(it.sure()));
        met.min_by(|a, b| {
            let costs = self.cost_of(a).total_cmp(&self.cost_of(b));
            costs.then_with(|| b.hit_ratio.total_cmp(&a.hit_ratio))
        })
    }

    /// Sizes between those played that may be better than all of them; none when what is to be gained is
    /// not worth it.
    pub fn next(&self, candidates: &[Candidate]) -> Vec<(Kind, u64)> {
        let best = self.best(candidates).map_or(f64::INFINITY, |best| self.cost_of(best));
        let mut pairs: Vec<(f64, Candidate, Candidate)> = Vec::new();
        for (below, above) in neighbours(candidates) {
            let least = below.memory_bytes + STEP_BYTES;
            let cost = (self.cost)(least, above.hit_ratio);
            let is_open = least < above.memory_bytes && self.is_met(above.sure());
            // A pair that both meet the target and cost as good as the same has nothing to say.
            if is_open && cost < best * (1.0 - WORTH) {
                pairs.push((cost, below, above));
            }
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        pairs.truncate(PAIRS_MAX);
        let between = |(_, below, above): &(f64, Candidate, Candidate)| {
            let policy = above.policy;
            sizes_between(below.memory_bytes, above.memory_bytes).map(move |size| (policy, size))
        };
        pairs.iter().flat_map(between).collect()
    }
}

/// Each candidate with the next larger one of its policy.
fn neighbours(candidates: &[Candidate]) -> impl Iterator<Item = (Candidate, Candidate)> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by_key(|it| (it.policy.name(), it.memory_bytes));
    let pairs: Vec<_> = sorted.windows(2).map(|pair| (pair[0], pair[1])).collect();
    pairs.into_iter().filter(|(below, above)| below.policy == above.policy)
}

/// Up to [`BETWEEN`] sizes that cut the way from one size to another into equal factors.
fn sizes_between(from: u64, to: u64) -> impl Iterator<Item = u64> {
    let ratio = to as f64 / from as f64;
    let mut sizes: Vec<u64> = (1..=BETWEEN)
        .map(|n| from as f64 * ratio.powf(n as f64 / (BETWEEN + 1) as f64))
        .map(in_steps)
        .filter(|&size| size > from && size < to)
        .collect();
    sizes.dedup();
    sizes.into_iter()
}

/// A size as `-m` can say it: the nearest whole number of steps, one at least.
pub(crate) fn in_steps(bytes: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are no less than 0, and the conversion stops at the ends"
    )]
    let steps = (bytes / STEP_BYTES as f64).round() as u64;
    steps.max(1) * STEP_BYTES
}

/// The best candidate at each size: the upper edge of all curves.
pub fn envelope(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut sorted = candidates.to_vec();
    sorted.sort_by(|a, b| {
        let sizes = a.memory_bytes.cmp(&b.memory_bytes);
        sizes.then_with(|| b.hit_ratio.total_cmp(&a.hit_ratio))
    });
    sorted.dedup_by_key(|it| it.memory_bytes);
    sorted
}

/// The knee of an envelope; none where nothing hits.
pub fn knee(envelope: &[Candidate]) -> Option<&Candidate> {
    let largest = envelope.last()?.memory_bytes as f64;
    let highest = envelope.iter().map(|it| it.hit_ratio).fold(0.0, f64::max);
    if highest == 0.0 {
        return None;
    }
    let ahead = |it: &Candidate| it.hit_ratio / highest - it.memory_bytes as f64 / largest;
    // Of equals the smallest.
    envelope.iter().rev().max_by(|a, b| ahead(a).total_cmp(&ahead(b)))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = STEP_BYTES;

    fn candidate(policy: Kind, mib: u64, hit_ratio: f64) -> Candidate {
        Candidate { policy, memory_bytes: mib * MIB, hit_ratio, margin: 0.0 }
    }

    /// Only memory costs.
    fn memory(bytes: u64, _: f64) -> f64 {
        bytes as f64
    }

    #[test]
    fn the_best_is_the_smallest_that_meets_the_target() {
        let played = [
            candidate(Kind::Lru, 10, 0.5),
            candidate(Kind::Lru, 20, 0.8),
            candidate(Kind::Arc, 10, 0.7),
            candidate(Kind::Arc, 15, 0.8),
        ];
        let best = |target| Aim { target: Some(target), cost: &memory }.best(&played).copied();
        assert_eq!(best(0.8), Some(played[3]));
        assert_eq!(best(0.5), Some(played[2]), "of equal sizes the one that hits more");
        assert_eq!(best(0.81), None);
    }

    #[test]
    fn a_band_must_lie_above_the_target() {
        let unsure = Candidate { margin: 0.02, ..candidate(Kind::Lru, 10, 0.81) };
        let sure = candidate(Kind::Lru, 11, 0.81);
        let aim = Aim { target: Some(0.8), cost: &memory };
        assert_eq!(aim.best(&[unsure, sure]), Some(&sure));
    }

    #[test]
    fn nothing_is_played_where_nothing_is_to_be_gained() {
        let aim = Aim { target: Some(0.8), cost: &memory };
        // Arc has it at 11 MiB, so between 10 and 11 there is nothing, and lru needs more than 12.
        let played = [
            candidate(Kind::Arc, 10, 0.7),
            candidate(Kind::Arc, 11, 0.8),
            candidate(Kind::Lru, 12, 0.7),
            candidate(Kind::Lru, 40, 0.9),
        ];
        assert_eq!(aim.next(&played), []);
    }

    #[test]
    fn knee_of_a_bent_line_is_at_its_bend() {
        let line = [(1, 0.2), (2, 0.4), (4, 0.8), (6, 0.85), (8, 0.9)];
        let played: Vec<Candidate> =
            line.iter().map(|&(mib, hits)| candidate(Kind::Lru, mib, hits)).collect();
        assert_eq!(knee(&played).unwrap().memory_bytes, 4 * MIB);
        assert_eq!(knee(&[]), None);
        assert_eq!(knee(&[candidate(Kind::Lru, 1, 0.0)]), None);
    }

    #[test]
    fn envelope_has_the_best_policy_of_each_size() {
        let played = [
            candidate(Kind::Lru, 2, 0.2),
            candidate(Kind::Arc, 1, 0.1),
            candidate(Kind::Arc, 2, 0.3),
            candidate(Kind::Lru, 1, 0.2),
        ];
        assert_eq!(envelope(&played), [played[3], played[2]]);
    }

    /// Hit ratios of a policy at 1 MiB, 2 MiB, ...: they never fall.
    fn curve() -> impl Strategy<Value = Vec<f64>> {
        vec(0.0..1.0_f64, 300).prop_map(|steps| {
            let sum: f64 = steps.iter().map(|step| step.powi(8)).sum::<f64>().max(1e-9);
            let running = steps.iter().scan(0.0, |hits, step| {
                *hits += step.powi(8) / sum;
                Some((*hits * 0.95_f64).min(0.95))
            });
            running.collect()
        })
    }

    /// Plays what is asked for until nothing more is, from a few sizes to begin with.
    fn searched(curves: &[(Kind, Vec<f64>)], aim: &Aim<'_>) -> (Vec<Candidate>, usize) {
        let played = |&(policy, bytes): &(Kind, u64)| {
            let hits = &curves.iter().find(|(of, _)| *of == policy).unwrap().1;
            let at = usize::try_from(bytes / MIB - 1).unwrap();
            Candidate { policy, memory_bytes: bytes, hit_ratio: hits[at], margin: 0.0 }
        };
        let policies = curves.iter().map(|(policy, _)| *policy);
        let mut next: Vec<(Kind, u64)> =
            policies.flat_map(|policy| [1, 7, 50, 300].map(|mib| (policy, mib * MIB))).collect();
        let (mut candidates, mut rounds) = (Vec::new(), 0);
        while !next.is_empty() {
            candidates.extend(next.iter().map(played));
            next = aim.next(&candidates);
            rounds += 1;
            assert!(rounds < 1_000, "the search ends");
        }
        (candidates, rounds)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_search_finds_what_trying_every_size_finds(
            lru in curve(), arc in curve(), target in proptest::option::of(0.1..0.9), miss in 0.0..2_000.0,
        ) {
            // A miss is worth `miss` MiB; 0 where only the target counts.
            let miss = if target.is_some() && miss < 1_000.0 { 0.0 } else { miss };
            let cost = |bytes: u64, hits: f64| (bytes / MIB) as f64 + 80.0 + miss * (1.0 - hits);
            let aim = Aim { target, cost: &cost };
            let curves = [(Kind::Lru, lru), (Kind::Arc, arc)];
            let every = curves.iter().flat_map(|(policy, hits)| {
                (1..).zip(hits).map(|(mib, &hits)| candidate(*policy, mib, hits))
            });
            let every: Vec<Candidate> = every.collect();
            let wanted = aim.best(&every).map(|it| aim.cost_of(it));
            let (candidates, _) = searched(&curves, &aim);
            let found = aim.best(&candidates).map(|it| aim.cost_of(it));
            match (wanted, found) {
                (Some(wanted), Some(found)) => {
                    prop_assert!(found <= wanted / (1.0 - WORTH) + 1e-9, "{} for {}", found, wanted);
                }
                (wanted, found) => prop_assert_eq!(wanted, found),
            }
        }
    }
}
