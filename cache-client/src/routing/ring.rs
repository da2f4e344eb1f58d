//! A ring of points, each of a server: a key belongs to the first point at or after its hash.
//!
//! The algorithm is ketama (Richard Jones, last.fm, 2007), a form of consistent hashing (Karger and others,
//! "Consistent Hashing and Random Trees", STOC 1997), in every detail as in libmemcached's `update_continuum`:
//!
//! - A point is the hash of `host-N` or, where the port is not 11211, `host:port-N`.
//! - Unweighted, a server has 100 points, N from 0 to 99, hashed as keys are.
//! - Weighted, a server has 160 points if all weights are equal: N from 0 to 39, and the four words of MD5 are four
//!   points. Otherwise it has that in proportion, computed in single precision and rounded down to a multiple of
//!   four, for the rounding decides whether clients agree.
//! - Of points of one value the first is that of the server named first.

use super::hash::md5_words;
use super::{Hash, Server};

const UNWEIGHTED_POINTS: u32 = 100;
const WEIGHTED_POINTS: f32 = 160.0;
const POINTS_PER_DIGEST: f32 = 4.0;

#[derive(Clone, Debug)]
pub(super) struct Ring {
    key_hash: Hash,
    /// Ascending.
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    value: u32,
    server: usize,
}

impl Ring {
    pub(super) fn unweighted(servers: &[Server], hash: Hash) -> Self {
        let points_of = |(server, of): (usize, &Server)| {
            let name = of.name();
            (0..UNWEIGHTED_POINTS).map(move |n| {
                let value = hash.of(format!("{name}-{n}").as_bytes());
                Point { value, server }
            })
        };
        Self::new(servers.iter().enumerate().flat_map(points_of).collect(), hash)
    }

    /// `key_hash` is of keys alone; points are MD5's.
    pub(super) fn weighted(servers: &[Server], key_hash: Hash) -> Self {
        let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
        let points_of = |(server, of): (usize, &Server)| {
            let name = of.name();
            (0..digest_count(of.weight, total, servers.len())).flat_map(move |n| {
                let values = md5_words(format!("{name}-{n}").as_bytes());
                values.map(|value| Point { value, server })
            })
        };
        Self::new(servers.iter().enumerate().flat_map(points_of).collect(), key_hash)
    }

    fn new(mut points: Vec<Point>, key_hash: Hash) -> Self {
        points.sort_unstable();
        Self { key_hash, points }
    }

    pub(super) fn server_of(
        &self,
        key: &[u8],
        takes_keys: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let hash = self.key_hash.of(key);
        let start = self.points.partition_point(|point| point.value < hash);
        let (before, after) = self.points.split_at(start);
        let mut around = after.iter().chain(before).map(|point| point.server);
        around.find(|&server| takes_keys(server))
    }
}

/// How many digests, of four points each, a server of `weight` has.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "libmemcached computes it in single precision, and clients have to agree"
)]
fn digest_count(weight: u32, total: u64, servers: usize) -> u32 {
    let share = weight as f32 / total as f32;
    let digests = share * WEIGHTED_POINTS / POINTS_PER_DIGEST * servers as f32;
    (digests + 0.000_000_000_1).floor() as u32
}
