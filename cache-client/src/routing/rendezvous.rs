//! Rendezvous: every server draws a number for the key, and the highest has it.
//!
//! Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking
//! 6(1), 1998. With weights, the logarithmic method of Schindelhauer and Schomaker, "Weighted Distributed Hash
//! Tables", SPAA 2005: with `u` uniform in (0, 1), `-weight / ln u` is highest for a server with a probability in
//! proportion to its weight, whatever the others are. So a server that comes takes keys and moves no other, and so
//! does one whose weight grows.
//!
//! A key costs one hash and one logarithm a server, which is less than a ring for a few dozen of them.

use std::cmp::Reverse;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Server;

#[derive(Clone, Debug)]
pub(super) struct Seats(Vec<Seat>);

#[derive(Clone, Debug)]
struct Seat {
    /// XXH3-64 of the server's name.
    seed: u64,
    weight: f64,
}

impl Seats {
    pub(super) fn new(servers: &[Server]) -> Self {
        let seat = |server: &Server| Seat {
            seed: xxh3_64(server.name().as_bytes()),
            weight: f64::from(server.weight),
        };
        Self(servers.iter().map(seat).collect())
    }

    pub(super) fn server_of(
        &self,
        key: &[u8],
        takes_keys: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let draws = self.0.iter().enumerate().filter(|&(server, _)| takes_keys(server));
        let scores = draws.map(|(server, seat)| (seat.score(key), Reverse(server)));
        let highest = scores.max_by(|(a, a_server), (b, b_server)| {
            // Of equals the first, which matters to nothing but two servers of one name.
            a.total_cmp(b).then(a_server.cmp(b_server))
        });
        highest.map(|(_, Reverse(server))| server)
    }
}

impl Seat {
    fn score(&self, key: &[u8]) -> f64 {
        -self.weight / uniform(xxh3_64_with_seed(key, self.seed)).ln()
    }
}

/// The top 52 bits as a number in (0, 1), neither end included: the 53rd that a double holds is the half.
#[expect(clippy::cast_precision_loss, reason = "52 bits and a half are what a double holds")]
fn uniform(hash: u64) -> f64 {
    const STEPS: f64 = (1u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_reach_neither_end() {
        assert!(uniform(0) > 0.0);
        assert!(uniform(u64::MAX) < 1.0);
    }
}
