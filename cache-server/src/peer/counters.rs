//! What connections between nodes came to, counted: read by any thread.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::peer::handshake::Reason;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one node's connections to all others.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Connections that shook hands, made by other nodes.
    pub accepted: Counter,
    /// Connections that shook hands, made by this node.
    pub connected: Counter,
    /// Connections that this node tried and failed to make, refusals among them.
    pub connect_failures: Counter,
    /// Connections that the other side refused.
    pub refused_by_peers: Counter,
    /// Connections that ended before a handshake: no node, no certificate, too slow.
    pub handshake_failures: Counter,
    /// Handed-on connections that nobody took in time.
    pub not_taken: Counter,
    /// Control connections that ended because of what the peer sent.
    pub malformed: Counter,
    /// Frames sent on control connections.
    pub frames_sent: Counter,
    /// Frames received on control connections.
    pub frames_received: Counter,
    /// Bytes sent on control connections, headers included.
    pub bytes_sent: Counter,
    /// Bytes received on control connections, headers included.
    pub bytes_received: Counter,
    /// Messages dropped: the link was down or its queue full.
    pub messages_dropped: Counter,
    /// Calls made.
    pub calls: Counter,
    /// Calls that got no answer.
    pub calls_failed: Counter,
    refused: [Counter; Reason::ALL.len()],
}

impl PeerCounters {
    /// Handshakes that this node refused, for this reason.
    pub fn refused(&self, reason: Reason) -> &Counter {
        let index = Reason::ALL.iter().position(|&known| known == reason);
        &self.refused[index.unwrap_or(Reason::ALL.len() - 1)]
    }

    /// All counters with their names.
    pub fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let plain = [
            ("accepted", &self.accepted),
            ("connected", &self.connected),
            ("connect_failures", &self.connect_failures),
            ("refused_by_peers", &self.refused_by_peers),
            ("handshake_failures", &self.handshake_failures),
            ("not_taken", &self.not_taken),
            ("malformed", &self.malformed),
            ("frames_sent", &self.frames_sent),
            ("frames_received", &self.frames_received),
            ("bytes_sent", &self.bytes_sent),
            ("bytes_received", &self.bytes_received),
            ("messages_dropped", &self.messages_dropped),
            ("calls", &self.calls),
            ("calls_failed", &self.calls_failed),
        ];
        let refused = Reason::ALL.into_iter().zip(&self.refused);
        let refused = refused
            .map(|(reason, count)| (format!("peer_refusals_{}", reason.name()), count.get()));
        plain.into_iter().map(|(name, count)| (format!("peer_{name}"), count.get())).chain(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_by_itself() {
        let counters = PeerCounters::default();
        for (times, reason) in (1..).zip(Reason::ALL) {
            counters.refused(reason).add(times);
        }
        let refused: Vec<_> =
            counters.named().filter(|(name, _)| name.starts_with("peer_refusals_")).collect();
        let expected = (1..).zip(Reason::ALL);
        let expected: Vec<_> = expected
            .map(|(times, reason)| (format!("peer_refusals_{}", reason.name()), times))
            .collect();
        assert_eq!(refused, expected);
    }
}
