//! Read-modify-write of a value: append, prepend, incr, decr, touch; delete and the marks of the meta
//! commands.
//!
//! A counter whose number of digits stays the same and a deadline that has a field are rewritten in
//! place; everything else becomes a new record.

use eviction::EntryId;

use crate::entries::state;
use crate::put::PutOutcome;
use crate::record;
use crate::shard::{Fields, Key, NoRoom, Shard, shape_of};
use crate::time::{Deadline, Timestamp};

/// Digits of the greatest 64-bit number.
const DIGITS_MAX: usize = 20;

/// At which end new bytes join a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After the value: `append`.
    Back,
    /// Before the value: `prepend`.
    Front,
}

/// Up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Adds, wrapping at 2^64.
    Increment(u64),
    /// Subtracts, stopping at 0.
    Decrement(u64),
}

/// How a change of a counter ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaOutcome {
    /// The counter's value and cas now.
    Changed {
        /// The new value.
        value: u64,
        /// The item's cas now.
        cas: u64,
    },
    /// There is no such item.
    NotFound,
    /// The value is not a decimal number below 2^64.
    NotANumber,
    /// The item's cas is another one.
    Exists,
    /// No room could be made.
    OutOfMemory,
}

/// How a delete or an invalidation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Done.
    Deleted,
    /// There is no such item.
    NotFound,
    /// The item's cas is another one.
    Exists,
}

/// What else to change of an item that is marked stale instead of deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Mark it stale, so that the next reader is told to compute it again.
    pub mark_stale: bool,
    /// Forget its value and client flags.
    pub drop_value: bool,
    /// Give it another deadline.
    pub deadline: Option<Deadline>,
    /// Give it this cas instead of the shard's next.
    pub own_cas: Option<u64>,
}

impl Shard {
    /// Joins `bytes` to a value at one end; flags and deadline stay. `expected_cas`, where given,
    /// must be the item's.
    pub fn concat(
        &mut self,
        key: &Key<'_>,
        end: End,
        bytes: &[u8],
        expected_cas: Option<u64>,
        own_cas: Option<u64>,
        now: Timestamp,
    ) -> PutOutcome {
        let Some(id) = self.find(key, now) else { return PutOutcome::NotStored };
        if expected_cas.is_some_and(|cas| cas != self.record(id).cas()) {
            return PutOutcome::Exists;
        }
        let mut fields = self.fields(id);
        fields.sequence = self.next_sequence();
        fields.own_cas = own_cas;
        fields.stale = false;
        let old = self.take_value(id);
        let pieces: [&[u8]; 2] = match end {
            End::Back => [&old, bytes],
            End::Front => [bytes, &old],
        };
        let outcome = match self.store(key, Some(id), fields, &pieces, now) {
            Ok(_) => {
                self.counters_mut().items_stored += 1;
                PutOutcome::Stored { cas: own_cas.unwrap_or(fields.sequence) }
            }
            Err(NoRoom::TooLarge) => PutOutcome::TooLarge,
            Err(NoRoom::OutOfMemory) => PutOutcome::OutOfMemory,
        };
        self.give_scratch(old);
        outcome
    }

    /// Changes a counter. `deadline`, where given, replaces the item's; `expected_cas` must be the
    /// item's.
    pub fn add_delta(
        &mut self,
        key: &Key<'_>,
        delta: Delta,
        deadline: Option<Deadline>,
        expected_cas: Option<u64>,
        own_cas: Option<u64>,
        now: Timestamp,
    ) -> DeltaOutcome {
        let Some(id) = self.find(key, now) else { return DeltaOutcome::NotFound };
        let record = self.record(id);
        if expected_cas.is_some_and(|cas| cas != record.cas()) {
            return DeltaOutcome::Exists;
        }
        let number = if record.is_chain_head() { None } else { parse_number(record.value()) };
        let Some(before) = number else { return DeltaOutcome::NotANumber };
        let value = match delta {
            Delta::Increment(by) => before.wrapping_add(by),
            Delta::Decrement(by) => before.saturating_sub(by),
        };
        let mut digits = [0; DIGITS_MAX];
        let digits = write_number(value, &mut digits);
        let same_fields = own_cas.is_some() == record.has_own_cas();
        let in_place = digits.len() == record.value().len() && same_fields;
        let mut fields = self.fields(id);
        fields.sequence = self.next_sequence();
        fields.own_cas = own_cas;
        let cas = own_cas.unwrap_or(fields.sequence);
        let keeps_place = in_place && deadline.is_none_or(|to| self.can_touch_in_place(id, to));
        if keeps_place {
            self.rewrite_number(id, fields, digits, deadline);
            self.mark_used(id, now);
            self.sample_write(key, id);
            return DeltaOutcome::Changed { value, cas };
        }
        fields.deadline = deadline.unwrap_or(fields.deadline);
        // What is computed from a stale number is as stale.
        let marks = self.entries().state(id);
        match self.store(key, Some(id), fields, &[digits], now) {
            Ok(id) => {
                self.entries().set_state(id, marks);
                DeltaOutcome::Changed { value, cas }
            }
            Err(NoRoom::TooLarge | NoRoom::OutOfMemory) => DeltaOutcome::OutOfMemory,
        }
    }

    /// Gives an item another deadline; a use of it. `false` when there is none, or no room for it.
    pub fn touch(&mut self, key: &Key<'_>, deadline: Deadline, now: Timestamp) -> bool {
        let Some(id) = self.find(key, now) else { return false };
        if deadline.is_due(now) {
            self.delete_entry(id, now);
            self.sample_delete(key.hash());
            return true;
        }
        let marks = self.mark_used(id, now).state;
        self.entries().set_state(id, marks | state::FETCHED);
        if self.can_touch_in_place(id, deadline) {
            self.touch_in_place(id, deadline);
            self.sample_touch(key, deadline);
            return true;
        }
        let fields = Fields { deadline, ..self.fields(id) };
        self.store_again(key, id, fields, now).is_some()
    }

    /// Removes an item. `expected_cas`, where given, must be the item's.
    pub fn delete(
        &mut self,
        key: &Key<'_>,
        expected_cas: Option<u64>,
        now: Timestamp,
    ) -> DeleteOutcome {
        let found = self.find(key, now);
        let is_another = |cas: u64| found.is_some_and(|id| cas != self.record(id).cas());
        if expected_cas.is_some_and(is_another) {
            return DeleteOutcome::Exists;
        }
        // A larger cache may hold what this one does not.
        self.sample_delete(key.hash());
        let Some(id) = found else { return DeleteOutcome::NotFound };
        self.delete_entry(id, now);
        DeleteOutcome::Deleted
    }

    /// Marks an item stale, or drops its value, instead of deleting it: `md` with the flags I, x, T
    /// and E. The item gets a new cas.
    pub fn invalidate(
        &mut self,
        key: &Key<'_>,
        expected_cas: Option<u64>,
        change: Invalidation,
        now: Timestamp,
    ) -> DeleteOutcome {
        let Some(id) = self.find(key, now) else { return DeleteOutcome::NotFound };
        if expected_cas.is_some_and(|cas| cas != self.record(id).cas()) {
            return DeleteOutcome::Exists;
        }
        let mut fields = self.fields(id);
        fields.sequence = self.next_sequence();
        fields.own_cas = change.own_cas;
        fields.deadline = change.deadline.unwrap_or(fields.deadline);
        let mut marks = self.entries().state(id);
        if change.mark_stale {
            marks = marks & !state::WIN_SENT | state::STALE;
            fields.stale = true;
        }
        let mut value = self.take_value(id);
        if change.drop_value {
            fields.client_flags = 0;
            value.clear();
        }
        let stored = self.store(key, Some(id), fields, &[&value], now);
        self.give_scratch(value);
        match stored {
            Ok(id) => self.entries().set_state(id, marks),
            Err(_) => {
                // Without room for the mark the item must not stay as if it were fresh.
                self.remove_unwritten(key, now);
            }
        }
        DeleteOutcome::Deleted
    }

    /// Whether the caller is the one to compute an item again: true for the first who asks since the
    /// item was written or marked stale.
    pub fn win(&mut self, key: &Key<'_>, now: Timestamp) -> bool {
        let Some(id) = self.find(key, now) else { return false };
        let marks = self.entries().state(id);
        self.entries().set_state(id, marks | state::WIN_SENT);
        let is_first = marks & state::WIN_SENT == 0;
        if is_first {
            self.note_changed();
        }
        is_first
    }

    pub(crate) fn fields(&self, id: EntryId) -> Fields {
        let header = self.record(id).header();
        Fields {
            client_flags: header.client_flags,
            deadline: header.deadline.unwrap_or(Deadline::NEVER),
            own_cas: header.own_cas,
            stale: header.stale,
            sequence: header.cas,
        }
    }

    pub(crate) fn can_touch_in_place(&self, id: EntryId, deadline: Deadline) -> bool {
        deadline == Deadline::NEVER && !self.record(id).has_expiry_field()
            || self.record(id).has_expiry_field()
    }

    pub(crate) fn touch_in_place(&mut self, id: EntryId, deadline: Deadline) {
        self.note_changed();
        self.note_deadline(id, deadline);
        if self.record(id).has_expiry_field() {
            self.patch_record(id, record::EXPIRY_AT, &record::pack_expiry(deadline).to_le_bytes());
        }
        self.entries().set_deadline(id, deadline);
    }

    /// Rewrites a counter, and perhaps its deadline, in one step.
    fn rewrite_number(
        &mut self,
        id: EntryId,
        fields: Fields,
        digits: &[u8],
        deadline: Option<Deadline>,
    ) {
        self.note_changed();
        self.note_changed_entry(id);
        let mut image = [0; record::COUNTER_BYTES_MAX];
        let bytes = self.record(id).bytes();
        let image = &mut image[..bytes.len()];
        image.copy_from_slice(bytes);
        if let Some(deadline) = deadline {
            if self.record(id).has_expiry_field() {
                record::set_deadline(image, deadline);
            }
            self.entries().set_deadline(id, deadline);
        }
        record::rewrite(image, self.seal_of(id), fields.sequence, fields.own_cas, digits);
        self.patch_record(id, 0, image);
    }

    /// Writes an item's record again with other fields; value, cas and marks stay.
    ///
    /// No two records of a shard have the same sequence number, so the cas that clients know is kept
    /// apart.
    pub(crate) fn store_again(
        &mut self,
        key: &Key<'_>,
        id: EntryId,
        fields: Fields,
        now: Timestamp,
    ) -> Option<EntryId> {
        let marks = self.entries().state(id);
        let own_cas = Some(fields.own_cas.unwrap_or(fields.sequence));
        let fields = Fields { own_cas, sequence: self.next_sequence(), ..fields };
        let value = self.take_value(id);
        // It was accepted once, whatever the largest item is now.
        let stored = shape_of(key, fields, &[&value])
            .and_then(|shape| self.store_shaped(key, Some(id), fields, &[&value], shape, now));
        self.give_scratch(value);
        let id = stored.ok()?;
        self.entries().set_state(id, marks);
        Some(id)
    }
}

/// A decimal number below 2^64, as memcached's `strtoull` reads it: blanks and a plus may stand before
/// it, any number of zeros at its front, and after a blank anything.
fn parse_number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let word = value.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let digits = word.strip_prefix(b"+").unwrap_or(word);
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn write_number(mut number: u64, to: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        to[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            return &to[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_memcached_reads_them() {
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_number(b"18446744073709551616"), None);
        assert_eq!(parse_number(b"9 "), Some(9));
        assert_eq!(parse_number(b" 12"), Some(12));
        assert_eq!(parse_number(b"1 ab"), Some(1));
        assert_eq!(parse_number(b"+5"), Some(5));
        assert_eq!(parse_number(b"0000000000000000000000000000007"), Some(7));
        assert_eq!(parse_number(b"99999999999999999999999999"), None);
        assert_eq!(parse_number(b"++5"), None);
        assert_eq!(parse_number(b"+"), None);
        assert_eq!(parse_number(b""), None);
        assert_eq!(parse_number(b"-1"), None);
        assert_eq!(parse_number(b"1x"), None);
    }

    #[test]
    fn numbers_are_written_without_padding() {
        for number in [0, 9, 10, u64::MAX] {
            assert_eq!(write_number(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
