//! Which grants this node holds and is bound by, for every thread to look at.
//!
//! The control thread, which hears from the other nodes, writes; whoever answers a read or is asked to seal
//! reads.
//!
//! Granting and sealing must not pass each other: a node that has sealed a shard must not renew its grant to
//! that shard's primary. Whoever is about to seal says so first and looks at the grant then; whoever grants
//! writes the grant first and looks then whether anybody has said so. One of the two sees the other.
//!
//! Times are nanoseconds of the clock that runs through suspend ([`crate::clock::boot_ns`]).

use std::sync::atomic::{AtomicU64, Ordering};

use cluster::shard::Grants;
use cluster::{Incarnation, Member, NodeId};
use crossbeam_utils::CachePadded;

/// Node ids that have a place. More nodes never were in one cluster.
pub(crate) const NODES_MAX: usize = 4096;

#[derive(Default)]
struct Place {
    incarnation: AtomicU64,
    held_until: AtomicU64,
    bound_until: AtomicU64,
    /// How often somebody was about to seal a shard that this node leads.
    seals_tried: AtomicU64,
}

/// Grants by node.
pub(crate) struct Leases {
    places: Box<[CachePadded<Place>]>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { places: (0..NODES_MAX).map(|_| CachePadded::default()).collect() }
    }
}

impl Leases {
    fn place(&self, node: NodeId) -> Option<&Place> {
        self.places.get(node.0 as usize).map(|place| &**place)
    }

    /// `member` grants this node its term until then.
    pub(crate) fn set_held(&self, member: Member, until_ns: u64) {
        let Some(place) = self.place(member.node) else { return };
        if place.incarnation.load(Ordering::Acquire) != member.incarnation.0 {
            // Never another life's grant under this one's name, not for an instant.
            place.held_until.store(0, Ordering::Release);
            place.incarnation.store(member.incarnation.0, Ordering::Release);
        }
        place.held_until.store(until_ns, Ordering::Release);
    }

    /// This node has granted `node` its term until then. To be called before the grant is sent, and the
    /// grant kept back if [`Leases::seals_tried`] is not what it was when no shard of `node` was sealed.
    pub(crate) fn set_bound(&self, node: NodeId, until_ns: u64) {
        if let Some(place) = self.place(node) {
            place.bound_until.fetch_max(until_ns, Ordering::SeqCst);
        }
    }

    /// How often somebody was about to seal a shard that `node` leads.
    pub(crate) fn seals_tried(&self, node: NodeId) -> u64 {
        self.place(node).map_or(0, |place| place.seals_tried.load(Ordering::SeqCst))
    }

    /// The grants as they stand at `now_ns`.
    pub(crate) fn at(&self, now_ns: u64) -> LeasesAt<'_> {
        LeasesAt { leases: self, now_ns }
    }
}

/// The grants at one moment.
#[derive(Clone, Copy)]
pub(crate) struct LeasesAt<'a> {
    leases: &'a Leases,
    now_ns: u64,
}

impl Grants for LeasesAt<'_> {
    fn binds_towards(&self, node: NodeId) -> bool {
        // A node without a place was never granted anything, and is never thought to have run out.
        let Some(place) = self.leases.place(node) else { return true };
        place.seals_tried.fetch_add(1, Ordering::SeqCst);
        place.bound_until.load(Ordering::SeqCst) > self.now_ns
    }

    #[inline]
    fn holds_from(&self, member: Member) -> bool {
        let Some(place) = self.leases.place(member.node) else { return false };
        let until = place.held_until.load(Ordering::Acquire);
        until > self.now_ns
            && Incarnation(place.incarnation.load(Ordering::Acquire)) == member.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Member = Member { node: NodeId(3), incarnation: Incarnation(7) };

    #[test]
    fn grant_holds_until_its_time_and_for_its_life_alone() {
        let leases = Leases::default();
        leases.set_held(MEMBER, 100);
        assert!(leases.at(99).holds_from(MEMBER));
        assert!(!leases.at(100).holds_from(MEMBER));
        let other = Member { incarnation: Incarnation(8), ..MEMBER };
        assert!(!leases.at(99).holds_from(other));
        leases.set_held(other, 50);
        assert!(!leases.at(40).holds_from(MEMBER));
        assert!(leases.at(40).holds_from(other));
    }

    #[test]
    fn what_was_granted_is_not_taken_back() {
        let leases = Leases::default();
        leases.set_bound(NodeId(3), 100);
        leases.set_bound(NodeId(3), 50);
        assert!(leases.at(99).binds_towards(NodeId(3)));
        assert!(!leases.at(100).binds_towards(NodeId(3)));
    }
}
