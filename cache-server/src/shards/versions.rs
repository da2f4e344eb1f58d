//! How often the items of a shard have changed, group by group: read without the shard's lock.
//!
//! ```text
//! who changes an item:  locks the shard ─▶ changes it ─▶ version + 1 ─▶ unlocks ─▶ answers
//! who keeps a copy:     locks the shard ─▶ copies it, and its version ─▶ unlocks
//! who reads the copy:   version still the same? ─▶ it is what the shard holds, or held a moment ago
//! ```
//!
//! A reader that finds the version unchanged has looked before the change was answered, if there is one under
//! way: its answer is of the moment before. A reader that comes after a change was answered finds the new version.
//! The model test in `tests/versions_model.rs` tries every interleaving.

use super::sync::{AtomicU64, Ordering};

/// The versions of one shard's groups.
#[derive(Debug)]
pub struct Versions(Box<[AtomicU64]>);

/// What a group's version was at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64);

impl Versions {
    /// For so many groups.
    pub fn new(groups: usize) -> Self {
        Self((0..groups).map(|_| AtomicU64::new(0)).collect())
    }

    /// The version of a group now. What is copied under the shard's lock is of the version read there.
    #[inline]
    pub fn of(&self, group: usize) -> Version {
        // What follows is not looked at before this.
        Version(self.0[group].load(Ordering::Acquire))
    }

    /// An item of this group has changed. Only ever called under the shard's lock.
    #[inline]
    pub fn advance(&self, group: usize) {
        let version = &self.0[group];
        // Nobody else writes it: no step that is atomic as a whole is needed. Whoever sees it sees the change, by
        // the lock; it must be seen by whoever sees the answer, which leaves after this.
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}
