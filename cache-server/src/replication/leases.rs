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
//! Whether a shard's reads are covered is asked with every request and changes seldom. So the answer is kept as a
//! [`Lease`], which lasts as long as the shortest of the grants that it was found by, and ends at once when any
//! grant is taken back: that is counted, after it is done, and a lease says which count it was found at.
//!
//! Times are nanoseconds of the clock that runs through suspend ([`crate::clock::boot_ns`]).

use std::cell::Cell;

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
    /// How often a grant that this node held was taken back, or came to be another life's.
    revocations: CachePadded<AtomicU64>,
}

/// That something which depends on grants was found to hold, and how long that can be relied on. The default
/// was never found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lease {
    until_ns: u64,
    revocations: u64,
}

impl Default for Leases {
    fn default() -> Self {
        Self::with_places(NODES_MAX)
    }
}

impl Leases {
    /// For nodes with ids below `count`.
    pub(crate) fn with_places(count: usize) -> Self {
        let places = (0..count).map(|_| CachePadded::default()).collect();
        Self { places, revocations: CachePadded::new(AtomicU64::new(0)) }
    }

    fn place(&self, node: NodeId) -> Option<&Place> {
        self.places.get(node.0 as usize).map(|place| &**place)
    }

    /// `member` grants this node its term until then.
    pub(crate) fn set_held(&self, member: Member, until_ns: u64) {
        let Some(place) = self.place(member.node) else { return };
        let is_of_another_life = place.incarnation.load(Ordering::Acquire) != member.incarnation.0;
        let is_taken_back = place.held_until.load(Ordering::Acquire) > until_ns;
        if is_of_another_life {
            // Never another life's grant under this one's name, not for an instant.
            place.held_until.store(0, Ordering::Release);
            place.incarnation.store(member.incarnation.0, Ordering::Release);
        }
        place.held_until.store(until_ns, Ordering::Release);
        if is_of_another_life || is_taken_back {
            // Last: whoever finds a lease after this finds it by what stands there now.
            self.revocations.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Asks something of the grants as they stand at `now_ns`, and returns a lease if the answer is yes. What is
    /// asked may depend on grants in one way alone: with more of them, yes stays yes.
    #[inline]
    pub(crate) fn find(
        &self,
        now_ns: u64,
        ask: impl FnOnce(&NotingLeases<'_>) -> bool,
    ) -> Option<Lease> {
        // First: a grant that is taken back meanwhile is counted after this.
        let revocations = self.revocations.load(Ordering::Acquire);
        let grants = NotingLeases { at: self.at(now_ns), until_ns: Cell::new(u64::MAX) };
        ask(&grants).then(|| Lease { until_ns: grants.until_ns.get(), revocations })
    }

    /// Whether a lease still lasts at `now_ns`.
    #[inline]
    pub(crate) fn covers(&self, lease: Lease, now_ns: u64) -> bool {
        now_ns < lease.until_ns && self.revocations.load(Ordering::Acquire) == lease.revocations
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

    /// Until when `member` grants this node its term; 0 for not at all.
    #[inline]
    fn held_until(&self, member: Member) -> u64 {
        let Some(place) = self.place(member.node) else { return 0 };
        let is_of_this_life =
            || Incarnation(place.incarnation.load(Ordering::Acquire)) == member.incarnation;
        // Before, so that the time is not of an earlier life; after, so that it is not of a later one.
        if !is_of_this_life() {
            return 0;
        }
        let until_ns = place.held_until.load(Ordering::Acquire);
        if is_of_this_life() { until_ns } else { 0 }
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
        self.leases.held_until(member) > self.now_ns
    }
}

/// The grants at one moment, which notes of those that it was asked for, and that hold, when the first ends.
pub(crate) struct NotingLeases<'a> {
    at: LeasesAt<'a>,
    until_ns: Cell<u64>,
}

impl Grants for NotingLeases<'_> {
    fn binds_towards(&self, node: NodeId) -> bool {
        self.at.binds_towards(node)
    }

    #[inline]
    fn holds_from(&self, member: Member) -> bool {
        let until_ns = self.at.leases.held_until(member);
        let holds = until_ns > self.at.now_ns;
        if holds {
            self.until_ns.set(self.until_ns.get().min(until_ns));
        }
        holds
    }
}
