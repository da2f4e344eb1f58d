//! Who leaves next: one policy over all entries of a shard, or one over those that are protected and one over the others.
//!
//! ```text
//!                        evict: from here while there are any
//! every entry ──┬─ key begins otherwise ──────> policy of the others
//!               └─ with a protected prefix ───> policy of the protected ones
//!                                               evict: when the others are gone, and what has expired
//! ```
//!
//! - Which policy ranks an entry its key says at any time, so nothing is kept of it.
//! - Where nothing is protected there is one policy and nothing else, in memory and in a snapshot.
//! - Both policies are built for the whole shard: neither knows what the other has room for.

use eviction::{EntryId, KeyHash, Policy};

use crate::config::Config;
use crate::prefetch::prefetch_address;
use crate::snapshot::{Reader, SnapshotError, Writer};

/// In a snapshot in front of two policies, where the name of one stands otherwise.
const SPLIT: u64 = u64::from_le_bytes(*b"\0protect");

/// Which keys are protected: their items are evicted last, and only for each other.
///
/// A part of a configuration, it lasts as long as the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected(Option<&'static [Box<[u8]>]>);

impl Protected {
    /// None is.
    pub const NONE: Self = Self(None);

    /// Those that begin with one of `prefixes`. What is named is kept for ever: it is named once, when a process starts.
    pub fn prefixes<'a>(prefixes: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let prefixes: Vec<Box<[u8]>> = prefixes.into_iter().map(Box::from).collect();
        if prefixes.is_empty() { Self::NONE } else { Self(Some(Vec::leak(prefixes))) }
    }

    /// Whether no key is.
    #[inline]
    pub fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// Whether this one is.
    #[inline]
    pub fn covers(self, key: &[u8]) -> bool {
        self.0.is_some_and(|prefixes| prefixes.iter().any(|prefix| key.starts_with(prefix)))
    }

    fn save(self, to: &mut Writer<'_>) {
        let prefixes = self.0.unwrap_or_default();
        to.u64(prefixes.len() as u64);
        for prefix in prefixes {
            to.column(prefix, |&byte| [byte]);
        }
    }

    /// Whether these were saved.
    fn is_saved(self, from: &mut Reader<'_>) -> bool {
        let prefixes = self.0.unwrap_or_default();
        from.u64() == Some(prefixes.len() as u64)
            && prefixes.iter().all(|prefix| {
                from.column::<1>().is_some_and(|saved| saved.as_flattened() == &**prefix)
            })
    }
}

/// The policies of a shard.
pub(crate) struct Ranking {
    others: Box<dyn Policy>,
    protected: Option<Box<dyn Policy>>,
    which: Protected,
    /// What ranking an entry costs.
    entry_bytes: u32,
}

impl Ranking {
    /// Of no entry yet.
    pub(crate) fn new(config: &Config, capacity: u64, entries_max: usize) -> Self {
        let build = || config.policy.build(capacity, entries_max);
        let (which, entry_bytes) = (config.protected, config.policy_bytes());
        Self { others: build(), protected: (!which.is_none()).then(build), which, entry_bytes }
    }

    /// As [`Config::policy_bytes`].
    #[inline]
    pub(crate) fn entry_bytes(&self) -> u32 {
        self.entry_bytes
    }

    /// Whether some entries are protected.
    #[inline]
    pub(crate) fn is_split(&self) -> bool {
        self.protected.is_some()
    }

    /// The policy that ranks the entry of a key.
    #[inline]
    pub(crate) fn of<'k>(&mut self, key: impl FnOnce() -> &'k [u8]) -> &mut dyn Policy {
        match &mut self.protected {
            Some(protected) if self.which.covers(key()) => &mut **protected,
            _ => &mut *self.others,
        }
    }

    /// The policy of the protected entries, or of the others.
    pub(crate) fn of_kind(&mut self, is_protected: bool) -> &mut dyn Policy {
        match &mut self.protected {
            Some(protected) if is_protected => &mut **protected,
            _ => &mut *self.others,
        }
    }

    /// Forgets the least valuable of the entries that are not protected.
    #[inline]
    pub(crate) fn evict_other(&mut self) -> Option<EntryId> {
        self.others.evict()
    }

    /// Forgets the least valuable entry.
    pub(crate) fn evict_any(&mut self) -> Option<EntryId> {
        self.others.evict().or_else(|| self.protected.as_mut()?.evict())
    }

    /// Asks the processor to fetch what a hit of the entry will touch, of whichever policy ranks it.
    #[inline]
    pub(crate) fn prefetch_hit(&self, id: EntryId) {
        for address in self.others.hit_addresses(id) {
            prefetch_address(address);
        }
        if let Some(protected) = &self.protected {
            protected.hit_addresses(id).into_iter().for_each(prefetch_address);
        }
    }

    /// As [`Policy::insert_address`], of an entry that is not protected.
    pub(crate) fn insert_address(&self, key: KeyHash) -> *const u8 {
        self.others.insert_address(key)
    }

    /// Appends what the policies remember, and which entries each of them ranks.
    pub(crate) fn save(&self, to: &mut Writer<'_>) {
        let Some(protected) = &self.protected else { return self.others.save(to.0) };
        to.u64(SPLIT);
        self.which.save(to);
        let mut others = Vec::new();
        self.others.save(&mut others);
        to.column(&others, |&byte| [byte]);
        protected.save(to.0);
    }

    /// Replaces what newly built policies remember.
    pub(crate) fn load(&mut self, from: &[u8]) -> Result<(), SnapshotError> {
        let mut saved = Reader::new(from);
        let was_split = saved.u64() == Some(SPLIT);
        let Some(protected) = &mut self.protected else {
            return match was_split {
                true => Err(SnapshotError::Protected),
                false => Ok(self.others.load(from)?),
            };
        };
        if !was_split || !self.which.is_saved(&mut saved) {
            return Err(SnapshotError::Protected);
        }
        let others = saved.column::<1>().ok_or(SnapshotError::Protected)?;
        self.others.load(others.as_flattened())?;
        Ok(protected.load(saved.rest())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_protected_by_how_it_begins() {
        let protected = Protected::prefixes([&b"session:"[..], b"cart:"]);
        assert!(protected.covers(b"session:1") && protected.covers(b"cart:"));
        assert!(!protected.covers(b"session") && !protected.covers(b"page:session:1"));
        assert!(!Protected::NONE.covers(b"session:1"));
        assert_eq!(Protected::prefixes([]), Protected::NONE);
    }
}
