//! Ports of the loopback for one cluster, that no other test on this machine takes meanwhile.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

/// Each range begins so far after the one before: 100 ports for clients, for administration, for peers.
pub(super) const STRIDE: u16 = 300;
/// Below the ports that systems give out by themselves (`net.ipv4.ip_local_port_range`).
const RANGES: std::ops::Range<u16> = 0..40;
const FIRST: u16 = 20_000;

/// A range of ports, ours until dropped.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) base: u16,
    /// Locked for as long as the range is ours.
    _claim: File,
}

impl Ports {
    /// A range of which the ports of the first `nodes` nodes are free.
    ///
    /// # Panics
    /// When there is none.
    pub(super) fn claim(nodes: u16) -> Self {
        RANGES
            .map(|range| FIRST + range * STRIDE)
            .find_map(|base| {
                let path = std::env::temp_dir().join(format!("cache-test-ports-{base}.lock"));
                let claim = File::options().create(true).append(true).open(path).ok()?;
                claim.try_lock().ok()?;
                let mut all = (0..nodes).flat_map(|node| [node, 100 + node, 200 + node]);
                let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, base + port)).is_ok();
                all.all(is_free).then_some(Self { base, _claim: claim })
            })
            .expect("there are free ports")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_have_ports_of_their_own() {
        let (one, other) = (Ports::claim(3), Ports::claim(3));
        assert!(one.base.abs_diff(other.base) >= STRIDE);
    }
}
