//! One shard of a cache: a log of segments, an index, a policy.
//!
//! A [`Shard`] is single-threaded and reads no clock: the server puts it behind a lock and says what
//! time it is. Values live in a log of segments, so there are no size classes; what an item costs,
//! overhead included, is [`record::footprint`], and the sum of it is held to a [`Budget`].
//!
//! ```
//! use store::{Config, Deadline, Geometry, Key, NewItem, Precondition, Shard, Timestamp};
//!
//! let mib = 1 << 20;
//! let geometry = Geometry::new(8 * mib, mib, 1);
//! let policy = eviction::Kind::Lru;
//! let protected = store::Protected::NONE;
//! let config = Config { geometry, item_bytes_max: mib, policy, evicts: true, protected, shard: 0 };
//! let mut shard = Shard::new(config);
//!
//! let now = Timestamp::from_secs(1_800_000_000);
//! let key = Key::new(b"greeting");
//! let deadline = Deadline::at(now.plus_millis(10_000));
//! let new = NewItem { client_flags: 0, deadline, value: &[b"hello"], own_cas: None };
//! shard.put(&key, &new, Precondition::Absent, now);
//!
//! let item = shard.get(&key, now).expect("it was just stored");
//! assert_eq!(item.value.to_vec(), b"hello");
//! assert!(shard.get(&key, now.plus_millis(10_000)).is_none(), "its time is over");
//! ```

mod apply;
pub mod arena;
mod backup;
pub mod budget;
mod changed_keys;
mod changes;
mod chunks;
mod cleaner;
pub mod config;
mod counters;
mod departures;
mod entries;
mod expiry;
pub mod hash;
mod huge_pages;
pub mod index;
mod log;
mod page;
mod pins;
pub mod positions;
mod prefetch;
mod put;
mod range;
mod ranking;
mod recency;
pub mod record;
mod restore;
mod samples;
mod segment;
mod sequence;
mod shard;
mod size_counts;
pub mod snapshot;
pub mod superblock;
mod time;
mod transfer;
mod update;
mod victims;

pub use apply::{Applied, Replicated};
pub use backup::{BackedUpItem, CAS_COUNTED_MAX, Resident, RestoreOutcome, WalkPlace};
pub use budget::Budget;
pub use changed_keys::ChangedKeys;
pub use changes::{ChangedGroups, GROUPS};
pub use chunks::Value;
pub use config::{Config, Geometry};
pub use counters::Counters;
pub use departures::{Departure, DepartureReason, Departures};
pub use expiry::Swept;
pub use pins::{PINNED_BYTES_MIN, PinnedValue};
pub use prefetch::prefetch_address;
pub use put::{NewItem, Precondition, PutOutcome};
pub use range::{HashRange, RangeItem, RangePlace, SliceLimit};
pub use ranking::Protected;
pub use restore::{RestoreError, Restored};
pub use samples::Samples;
pub use shard::{Item, Key, Look, PrefetchDepth, Segments, Shard};
pub use size_counts::SizeCounts;
pub use time::{Deadline, Timestamp};
pub use transfer::Transfer;
pub use update::{DeleteOutcome, Delta, DeltaOutcome, End, Invalidation};
pub use victims::{Victim, Victims};
