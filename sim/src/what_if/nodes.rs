//! Which node of a cluster a key belongs to, and what each is asked for.
//!
//! ```text
//! XXH3-64 of the key:  | cluster shard, top 10 bits | ...
//! node of a shard:     shard mod nodes
//! its heir:            the next of the other nodes in turn, so that a lost node's shards go to all of them
//! ```
//!
//! A cluster's balancer gives each node as many shards as the next; which ones makes no difference, as the
//! hash has mixed the keys. See `docs/replication.md`.

use eviction::KeyHash;

use super::Cell;
use crate::replay::Request;

/// Bits of a hash that pick a cluster shard, where a cluster has as many shards as it gets by default.
const CLUSTER_SHARD_BITS: u32 = 10;

/// Cluster shards.
pub(super) const CLUSTER_SHARDS: usize = 1 << CLUSTER_SHARD_BITS;

/// The cluster shard of a key.
#[inline]
pub(super) fn cluster_shard(KeyHash(hash): KeyHash) -> usize {
    usize::try_from(hash >> (u64::BITS - CLUSTER_SHARD_BITS)).unwrap_or_default()
}

/// The node that a shard belongs to.
#[inline]
pub(super) fn node_of(shard: usize, nodes: u32) -> usize {
    shard % nodes as usize
}

/// The node that has a shard when its own is lost. There are at least two.
#[inline]
pub(super) fn heir_of(shard: usize, nodes: u32) -> usize {
    let nodes = nodes as usize;
    (shard + 1 + (shard / nodes) % (nodes - 1)) % nodes
}

/// What nodes are asked for.
#[derive(Clone, Debug)]
pub(super) struct Load {
    requests: Vec<u64>,
    /// Of the values read.
    bytes: Vec<u64>,
}

impl Load {
    pub(super) fn new(nodes: u32) -> Self {
        Self { requests: vec![0; nodes as usize], bytes: vec![0; nodes as usize] }
    }

    #[inline]
    pub(super) fn count(&mut self, node: usize, request: &Request) {
        self.requests[node] += 1;
        if request.op.is_read() {
            self.bytes[node] += u64::from(request.size_bytes);
        }
    }

    /// The share of all requests that the node asked most has.
    pub(super) fn hottest_requests(&self) -> Cell {
        hottest(&self.requests)
    }

    /// The share of all bytes that the node asked for most of them has.
    pub(super) fn hottest_bytes(&self) -> Cell {
        hottest(&self.bytes)
    }

    /// The share of all requests that a node has.
    pub(super) fn requests_of(&self, node: usize) -> Cell {
        Cell::share(self.requests[node], self.requests.iter().sum())
    }
}

fn hottest(loads: &[u64]) -> Cell {
    Cell::share(loads.iter().copied().max().unwrap_or(0), loads.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_dealt_evenly_and_inherited_evenly() {
        for nodes in [2, 3, 4, 7, 16] {
            let mut owned = vec![0_u32; nodes as usize];
            let mut inherited = vec![0_u32; nodes as usize];
            for shard in 0..CLUSTER_SHARDS {
                let node = node_of(shard, nodes);
                owned[node] += 1;
                assert_ne!(heir_of(shard, nodes), node);
                if node == 1 {
                    inherited[heir_of(shard, nodes)] += 1;
                }
            }
            assert!(owned.iter().max().unwrap() - owned.iter().min().unwrap() <= 1);
            inherited.remove(1);
            let spread = inherited.iter().max().unwrap() - inherited.iter().min().unwrap();
            assert!(spread <= 1, "{nodes} nodes: {inherited:?}");
        }
    }

    #[test]
    fn cluster_shards_are_the_top_bits() {
        assert_eq!(cluster_shard(KeyHash(0)), 0);
        assert_eq!(cluster_shard(KeyHash(u64::MAX)), CLUSTER_SHARDS - 1);
        assert_eq!(cluster_shard(KeyHash(1 << 54)), 1);
    }
}
