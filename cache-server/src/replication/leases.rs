//! Which grants this node holds and is bound by, for every thread to look at.
//!
//! The control thread, which hears from the other nodes, writes; whoever answers a read or is asked to seal
//! reads.
//!
//! Granting and sealing must not pass each other: a node that has sealed a shard must not renew its grant to
//! that shard's primary. Whoever is about to seal says so first and looks at the grant then; whoever grants
//! writes the grant first and looks then whether anybody has said so. One of the two sees the other:
//!
//! ```text
//! seal   announce_seal   seals_tried += 1   fence       grant   set_bound     bound_until = t   fence
//!        is_bound        bound_until?                           seals_tried   seals_tried?
//! ```
//!
//! Whichever fence comes first in the one order that all such fences have, what was written before it is seen
//! by what is read after the other. `tests/leases_model.rs` tries it in every interleaving, and either order
//! swapped.
//!
//! Times are nanoseconds of the clock that runs through suspend ([`crate::clock::boot_ns`]).

use cluster::shard::Grants;
use cluster::{Incarnation, Member, NodeId};
use crossbeam_utils::CachePadded;

use super::sync::{AtomicU64, Ordering, fence};

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
        Self::with_places(NODES_MAX)
    }
}

impl Leases {
    /// For nodes with ids below `count`.
    pub(crate) fn with_places(count: usize) -> Self {
        Self { places: (0..count).map(|_| CachePadded::default()).collect() }
    }

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
            place.bound_until.fetch_max(until_ns, Ordering::AcqRel);
        }
        fence(Ordering::SeqCst);
    }

    /// Somebody is about to seal a shard that `node` leads. To be called before [`Leases::is_bound`].
    pub(crate) fn announce_seal(&self, node: NodeId) {
        if let Some(place) = self.place(node) {
            place.seals_tried.fetch_add(1, Ordering::AcqRel);
        }
        fence(Ordering::SeqCst);
    }

    /// Whether a grant of this node to `node` runs at `now_ns`. A node without a place was never granted
    /// anything, and is never thought to have run out.
    pub(crate) fn is_bound(&self, node: NodeId, now_ns: u64) -> bool {
        let Some(place) = self.place(node) else { return true };
        place.bound_until.load(Ordering::Acquire) > now_ns
    }

    /// How often somebody was about to seal a shard that `node` leads.
    pub(crate) fn seals_tried(&self, node: NodeId) -> u64 {
        self.place(node).map_or(0, |place| place.seals_tried.load(Ordering::Acquire))
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
        self.leases.announce_seal(node);
        self.leases.is_bound(node, self.now_ns)
    }

    #[inline]
    fn holds_from(&self, member: Member) -> bool {
        let Some(place) = self.leases.place(member.node) else { return false };
        let is_of_this_life =
            || Incarnation(place.incarnation.load(Ordering::Acquire)) == member.incarnation;
        // Before, so that the time is not of an earlier life; after, so that it is not of a later one.
        is_of_this_life()
            && place.held_until.load(Ordering::Acquire) > self.now_ns
            && is_of_this_life()
    }
}
