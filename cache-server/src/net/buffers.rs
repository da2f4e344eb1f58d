//! The memory that all connections hold in buffers of their own, counted and bounded.
//!
//! Connections work in buffers that their worker lends them for a turn. One that must keep bytes
//! beyond its turn, half a request or an answer that the client has not taken, gets a buffer of its
//! own and a [`Lease`] on its size. The sum of all leases never exceeds the gauge's bound: a lease that does not fit
//! is refused, and the connection says so to its client, or closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// How many bytes are leased, of how many.
#[derive(Debug)]
pub struct Gauge {
    bytes: CachePadded<AtomicUsize>,
    bytes_max: usize,
}

impl Gauge {
    /// A gauge of which nothing is leased yet.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: CachePadded::new(AtomicUsize::new(0)), bytes_max }
    }

    /// Bytes leased now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be leased.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether more than half is leased: time to hurry those who hold memory without using it.
    pub fn is_scarce(&self) -> bool {
        self.bytes() > self.bytes_max / 2
    }
}

/// One connection's share of a [`Gauge`], given back when dropped.
#[derive(Debug)]
pub struct Lease {
    gauge: Arc<Gauge>,
    bytes: usize,
}

impl Lease {
    /// A lease on nothing yet.
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self { gauge, bytes: 0 }
    }

    /// Makes this a lease on `bytes`. False, and unchanged, when the gauge has not that much left.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.gauge.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let grown = self.gauge.bytes.try_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(more).filter(|&sum| sum <= self.gauge.bytes_max)
            });
            if grown.is_err() {
                return false;
            }
        }
        self.bytes = bytes;
        true
    }

    /// Bytes leased.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gauge.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_together_stay_within_the_bound() {
        let gauge = Arc::new(Gauge::new(100));
        let mut first = Lease::new(Arc::clone(&gauge));
        let mut second = Lease::new(Arc::clone(&gauge));
        assert!(first.resize(70));
        assert!(!second.resize(31), "only 30 are left");
        assert_eq!((second.bytes(), gauge.bytes()), (0, 70));
        assert!(second.resize(30));
        assert!(gauge.is_scarce());
        drop(first);
        assert_eq!(gauge.bytes(), 30);
        assert!(second.resize(100));
    }
}
