//! A record: an item's bytes in the log, and `footprint`, which says what an item costs.
//!
//! ```text
//! 0        4         8       16
//! | crc32c | lengths | cas   | [expiry] | [client flags] | [own cas] | [chain] | key | value | pad |
//!   4 B      4 B       8 B      8 B         4 B              8 B         8 B
//!
//! lengths: value 18 bits | key 8 bits | field bits 6     (little-endian, as every number here)
//! expiry:  deadline 42 bits (ms since 1970) | check 22 bits
//! chain:   in the head of a large item: its whole value's length, and zero
//!          in a part: the `EntryId` of the part, and its number in the chain; the key is the head's cas
//! ```
//!
//! - Records start at multiples of 4 bytes. A field in brackets is there when its bit is set.
//! - The checksum covers everything after itself except the expiry and a part's `EntryId`: these two
//!   are rewritten in place (touch; a rebuilding of the columns). The expiry carries a check of its own.
//! - The checksum is stored under the `Seal` of its segment: a record left over from the segment's
//!   life before does not pass for one of this life.
//! - A record that is not pointed at any more is marked dead, in its checksum, by as many bits as
//!   keep a few flipped ones from bringing it back.
//! - `cas` is the number of the write, which grow (`sequence.rs`), so of two records of one key the
//!   greater is the newer. A cas that a client chose is kept apart, as `own cas`.

use crate::time::{Deadline, Timestamp};

/// Bytes that every record has before its optional fields.
pub const HEADER_BYTES: u32 = 16;
/// A value's share of one record: 18 bits of length.
pub(crate) const VALUE_BYTES_MAX: u32 = (1 << 18) - 1;
/// Memory of a shard that does not depend on its items: superblock, open buffers, small tables.
pub const SHARD_OVERHEAD_BYTES: u64 = 32 * 1024;

/// An entry's share of the index, at most, in bytes.
const INDEX_BYTES: u32 = 8;
/// An entry's columns without its policy's, in bytes.
pub(crate) const COLUMN_BYTES: u32 = 16;
/// A further part of a large item: header, chain field, key, and its entry's columns.
const PART_BYTES: u32 = HEADER_BYTES + 8 + PART_KEY_BYTES + COLUMN_BYTES;
/// A part's key: the cas of its head.
pub(crate) const PART_KEY_BYTES: u32 = 8;
/// Of each byte written, the share set aside so that cleaning stays cheap: one tenth.
const CLEANING_SHARE: u32 = 10;

/// Bytes of all optional fields together.
pub(crate) const OPTIONAL_BYTES_MAX: usize = 8 + 4 + 8 + 8;
/// Where a record's deadline stands, if it has one.
pub(crate) const EXPIRY_AT: usize = HEADER_BYTES as usize;
/// Bytes at most of the record of a counter: every field, the longest key, twenty digits, padding.
pub(crate) const COUNTER_BYTES_MAX: usize =
    HEADER_BYTES as usize + OPTIONAL_BYTES_MAX + 250 + 20 + 2;

const EXPIRY: u8 = 1;
const CLIENT_FLAGS: u8 = 1 << 1;
const OWN_CAS: u8 = 1 << 2;
const CHAIN_HEAD: u8 = 1 << 3;
const PART: u8 = 1 << 4;
const STALE: u8 = 1 << 5;

/// What the checksum of a dead record is changed by: sixteen bits of thirty-two.
const DEAD: u32 = 0x5a3c_c3a5;
/// No record credibly carries a greater number of a write: what is no record seldom passes. A shard of
/// 256 that takes a million writes a second comes here in nine years.
const SEQUENCE_MAX: u64 = 1 << 56;

/// Ties a record to one life of its segment: what its checksum is stored under.
///
/// Two lives of one segment have different seals, unless 2^32 lives lie between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal(u32);

impl Seal {
    /// The seal of a segment's life, by its sequence number.
    ///
    /// The steps are invertible, so different numbers give different seals; the multiplication makes
    /// neighbours differ in many bits (the finalizer of Appleby's `MurmurHash3`).
    pub(crate) const fn of_life(sequence: u64) -> Self {
        let mut seal = (sequence & 0xffff_ffff) as u32;
        seal ^= seal >> 16;
        seal = seal.wrapping_mul(0x85eb_ca6b);
        seal ^= seal >> 13;
        seal = seal.wrapping_mul(0xc2b2_ae35);
        Self(seal ^ seal >> 16)
    }
}

/// What the checksum says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Written in this life of its segment, and not marked.
    Alive,
    /// Written in this life of its segment, and marked dead since.
    Dead,
    /// Damaged, of another life, or no record.
    Broken,
}

/// What an item costs of a shard's memory, everything included, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Footprint(u32);

impl Footprint {
    /// A footprint of so many bytes.
    pub fn from_bytes(bytes: u32) -> Self {
        Self(bytes)
    }

    /// The footprint in bytes.
    #[inline]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The footprint as a policy's weight.
    #[inline]
    pub fn weight(self) -> u32 {
        self.0
    }
}

/// The lengths and fields of an item that decide what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Length of the key in bytes, 1 to 250.
    pub key_bytes: u32,
    /// Length of the value in bytes.
    pub value_bytes: u32,
    /// Whether the item has a deadline.
    pub expires: bool,
    /// Whether its client flags are other than 0.
    pub has_client_flags: bool,
    /// Whether a client chose its cas.
    pub has_own_cas: bool,
}

impl Shape {
    /// An item without deadline, client flags or own cas.
    pub fn plain(key_bytes: u32, value_bytes: u32) -> Self {
        Self { key_bytes, value_bytes, expires: false, has_client_flags: false, has_own_cas: false }
    }

    /// Bytes of the item as its limit counts them: key, value, and the record's header, but not the
    /// deadline, which an item may be given later, nor a cas kept apart, which may come with it.
    pub fn item_bytes(self) -> u64 {
        Self { expires: false, has_own_cas: false, ..self }.record_bytes()
    }

    /// Bytes of the item in one piece, before padding.
    fn record_bytes(self) -> u64 {
        let optional = u64::from(self.expires) * 8
            + u64::from(self.has_client_flags) * 4
            + u64::from(self.has_own_cas) * 8;
        u64::from(HEADER_BYTES) + optional + u64::from(self.key_bytes) + u64::from(self.value_bytes)
    }
}

/// What an item of this shape costs: its records with the share that cleaning needs, its index slot,
/// its columns, and `policy_bytes` of its policy's ([`eviction::Kind::entry_bytes`]).
///
/// `part_bytes_max` is the geometry's: larger items are stored in parts. Saturates at 4 GiB.
#[inline]
pub fn footprint(shape: Shape, policy_bytes: u32, part_bytes_max: u32) -> Footprint {
    let record = shape.record_bytes().next_multiple_of(4);
    let parts = record / u64::from(part_bytes_max.max(1));
    let bytes = record + parts * u64::from(PART_BYTES);
    let with_share = bytes + bytes / u64::from(CLEANING_SHARE);
    let total = with_share + u64::from(entry_bytes(policy_bytes));
    Footprint(u32::try_from(total).unwrap_or(u32::MAX))
}

/// What one entry costs beyond its record, in bytes: index slot, columns and policy.
pub fn entry_bytes(policy_bytes: u32) -> u32 {
    INDEX_BYTES + COLUMN_BYTES + policy_bytes
}

/// Everything a record says of its item besides key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cas: u64,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) client_flags: u32,
    pub(crate) own_cas: Option<u64>,
    /// Whether a client marked the item stale.
    pub(crate) stale: bool,
    pub(crate) chain: Chain,
}

/// A record's place in a large item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The whole item in one record.
    Whole,
    /// The first record of a large item whose value has this many bytes in all.
    Head { value_bytes: u32 },
    /// A further part: its own entry, and its number, from 1.
    Part { entry: u32, number: u32 },
}

impl Header {
    fn bits(&self) -> u8 {
        let mut bits = 0;
        if self.deadline.is_some() {
            bits |= EXPIRY;
        }
        if self.client_flags != 0 {
            bits |= CLIENT_FLAGS;
        }
        if self.own_cas.is_some() {
            bits |= OWN_CAS;
        }
        if self.stale {
            bits |= STALE;
        }
        match self.chain {
            Chain::Whole => {}
            Chain::Head { .. } => bits |= CHAIN_HEAD,
            Chain::Part { .. } => bits |= PART,
        }
        bits
    }

    /// Bytes before the key.
    pub(crate) fn bytes(&self) -> u32 {
        fields_bytes(self.bits())
    }
}

/// Bytes before the key of a record with these field bits.
#[inline]
fn fields_bytes(bits: u8) -> u32 {
    let mut bytes = HEADER_BYTES;
    if bits & EXPIRY != 0 {
        bytes += 8;
    }
    if bits & CLIENT_FLAGS != 0 {
        bytes += 4;
    }
    if bits & OWN_CAS != 0 {
        bytes += 8;
    }
    if bits & (CHAIN_HEAD | PART) != 0 {
        bytes += 8;
    }
    bytes
}

/// Length of a record in the log, padding included.
#[inline]
pub(crate) fn padded(bytes: u32) -> u32 {
    bytes.next_multiple_of(4)
}

/// Writes a record into `to`, whose length is the record's padded length; the value comes in pieces.
pub(crate) fn write<'v>(
    to: &mut [u8],
    seal: Seal,
    header: &Header,
    key: &[u8],
    value: impl Iterator<Item = &'v [u8]>,
) {
    let bits = header.bits();
    to[8..16].copy_from_slice(&header.cas.to_le_bytes());
    let mut at = HEADER_BYTES as usize;
    let mut put = |bytes: &[u8]| {
        to[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    if let Some(deadline) = header.deadline {
        put(&pack_expiry(deadline).to_le_bytes());
    }
    if header.client_flags != 0 {
        put(&header.client_flags.to_le_bytes());
    }
    if let Some(cas) = header.own_cas {
        put(&cas.to_le_bytes());
    }
    match header.chain {
        Chain::Whole => {}
        Chain::Head { value_bytes } => put(&u64::from(value_bytes).to_le_bytes()),
        Chain::Part { entry, number } => {
            put(&entry.to_le_bytes());
            put(&number.to_le_bytes());
        }
    }
    put(key);
    let mut value_bytes = 0;
    for piece in value {
        put(piece);
        value_bytes += piece.len();
    }
    to[at..].fill(0);
    assert!(value_bytes <= VALUE_BYTES_MAX as usize, "a part's value fits its length field");
    debug_assert!(to.len() - at < 4, "the room given is the record's padded length");
    let lengths = pack_lengths(value_bytes, key.len(), bits);
    to[4..8].copy_from_slice(&lengths.to_le_bytes());
    write_checksum(to, seal);
}

/// Bytes that a record of nothing takes at least, and at most, to fill a gap with.
pub(crate) const FILLER_BYTES: std::ops::RangeInclusive<u32> = 20..=(1 << 15);

/// Writes a dead record of no item into `to`, whose length is among [`FILLER_BYTES`] and a multiple
/// of 4.
pub(crate) fn write_filler(to: &mut [u8], seal: Seal) {
    let header = Header {
        cas: 0,
        deadline: None,
        client_flags: 0,
        own_cas: None,
        stale: false,
        chain: Chain::Whole,
    };
    let value_bytes = to.len() - HEADER_BYTES as usize - 1;
    to.fill(0);
    let lengths = pack_lengths(value_bytes, 1, header.bits());
    to[4..8].copy_from_slice(&lengths.to_le_bytes());
    write_checksum(to, seal);
    mark_dead(to);
}

/// Marks a record dead. It must be alive.
#[inline]
pub(crate) fn mark_dead(record: &mut [u8]) {
    let stored = u32::from_le_bytes(array(&record[0..4])) ^ DEAD;
    record[0..4].copy_from_slice(&stored.to_le_bytes());
}

/// Gives a record that was copied into another segment that segment's seal. What was damaged stays
/// damaged.
pub(crate) fn change_seal(record: &mut [u8], from: Seal, to: Seal) {
    let stored = u32::from_le_bytes(array(&record[0..4])) ^ from.0 ^ to.0;
    record[0..4].copy_from_slice(&stored.to_le_bytes());
}

fn pack_lengths(value_bytes: usize, key_bytes: usize, bits: u8) -> u32 {
    debug_assert!(key_bytes < 256);
    let value = u32::try_from(value_bytes).unwrap_or(VALUE_BYTES_MAX);
    let key = u32::try_from(key_bytes).unwrap_or(0xff);
    value | key << 18 | u32::from(bits) << 26
}

/// Computes the checksum of a record whose other bytes stand, and writes it.
fn write_checksum(record: &mut [u8], seal: Seal) {
    let crc = View::of(record).checksum() ^ seal.0;
    record[0..4].copy_from_slice(&crc.to_le_bytes());
}

/// A deadline with a check of its own, since it is rewritten in place.
pub(crate) fn pack_expiry(deadline: Deadline) -> u64 {
    let millis = deadline.timestamp().map_or(Deadline::MILLIS_MAX, |at| at.0);
    millis | expiry_check(millis) << 42
}

fn unpack_expiry(packed: u64) -> Option<Deadline> {
    let millis = packed & Deadline::MILLIS_MAX;
    if packed >> 42 != expiry_check(millis) {
        return None;
    }
    let never = millis == Deadline::MILLIS_MAX;
    Some(if never { Deadline::NEVER } else { Deadline::at(Timestamp(millis)) })
}

fn expiry_check(millis: u64) -> u64 {
    u64::from(crc32c::crc32c(&millis.to_le_bytes())) & ((1 << 22) - 1)
}

/// A record in the log, read in place.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    bytes: &'a [u8],
    lengths: u32,
}

impl<'a> View<'a> {
    /// The record that `from` begins with.
    #[inline]
    pub(crate) fn of(from: &'a [u8]) -> Self {
        let lengths = u32::from_le_bytes(array(&from[4..8]));
        let mut view = Self { bytes: from, lengths };
        view.bytes = &from[..view.len() as usize];
        view
    }

    /// What `from` begins with, if that can be a record: lengths, fields and number of the write are such
    /// as a record has, and it ends within `from`.
    pub(crate) fn plausible(from: &'a [u8]) -> Option<Self> {
        if from.len() < *FILLER_BYTES.start() as usize {
            return None;
        }
        let lengths = u32::from_le_bytes(array(&from[4..8]));
        let view = Self { bytes: from, lengths };
        let key_fits = match view.is_part() {
            true => view.key_bytes() == PART_KEY_BYTES && view.bits() & !PART == 0,
            false => (1..=250).contains(&view.key_bytes()),
        };
        let fits = key_fits && view.len() as usize <= from.len() && view.sequence() < SEQUENCE_MAX;
        fits.then(|| Self::of(from))
    }

    /// The record's bytes, padding included.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length in the log, padding included.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        padded(self.key_offset() + self.key_bytes() + self.value_bytes())
    }

    #[inline]
    fn bits(&self) -> u8 {
        (self.lengths >> 26) as u8
    }

    #[inline]
    pub(crate) fn value_bytes(&self) -> u32 {
        self.lengths & VALUE_BYTES_MAX
    }

    #[inline]
    fn key_bytes(&self) -> u32 {
        self.lengths >> 18 & 0xff
    }

    #[inline]
    fn key_offset(&self) -> u32 {
        fields_bytes(self.bits())
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        let at = self.key_offset() as usize;
        &self.bytes[at..at + self.key_bytes() as usize]
    }

    /// The value bytes that this record holds: all of a whole item, the first part of a large one.
    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        let at = (self.key_offset() + self.key_bytes()) as usize;
        &self.bytes[at..at + self.value_bytes() as usize]
    }

    /// Where the value stands in the record.
    pub(crate) fn value_offset(&self) -> usize {
        (self.key_offset() + self.key_bytes()) as usize
    }

    #[inline]
    pub(crate) fn is_part(&self) -> bool {
        self.bits() & PART != 0
    }

    #[inline]
    pub(crate) fn is_chain_head(&self) -> bool {
        self.bits() & CHAIN_HEAD != 0
    }

    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        self.bits() & STALE != 0
    }

    /// The item's deadline; never, when the record has no such field or it is damaged.
    pub(crate) fn deadline(&self) -> Deadline {
        if self.bits() & EXPIRY == 0 {
            return Deadline::NEVER;
        }
        unpack_expiry(u64::from_le_bytes(array(&self.bytes[16..24]))).unwrap_or(Deadline::NEVER)
    }

    /// The cas that clients see.
    #[inline]
    pub(crate) fn cas(&self) -> u64 {
        if self.bits() & OWN_CAS != 0 {
            let at = self.own_cas_offset();
            return u64::from_le_bytes(array(&self.bytes[at..at + 8]));
        }
        self.sequence()
    }

    /// Where a cas that was chosen stands, if there is one.
    #[inline]
    fn own_cas_offset(&self) -> usize {
        HEADER_BYTES as usize
            + 8 * usize::from(self.bits() & EXPIRY != 0)
            + 4 * usize::from(self.bits() & CLIENT_FLAGS != 0)
    }

    /// The number that the shard gave the write, whatever cas the client chose.
    #[inline]
    pub(crate) fn sequence(&self) -> u64 {
        u64::from_le_bytes(array(&self.bytes[8..16]))
    }

    #[inline]
    pub(crate) fn client_flags(&self) -> u32 {
        if self.bits() & CLIENT_FLAGS == 0 {
            return 0;
        }
        let at = 16 + 8 * usize::from(self.bits() & EXPIRY != 0);
        u32::from_le_bytes(array(&self.bytes[at..at + 4]))
    }

    /// The item's place in a large item.
    pub(crate) fn chain(&self) -> Chain {
        let at = self.key_offset() as usize - 8;
        if self.is_chain_head() {
            let value_bytes = u32::from_le_bytes(array(&self.bytes[at..at + 4]));
            return Chain::Head { value_bytes };
        }
        if self.is_part() {
            let entry = u32::from_le_bytes(array(&self.bytes[at..at + 4]));
            let number = u32::from_le_bytes(array(&self.bytes[at + 4..at + 8]));
            return Chain::Part { entry, number };
        }
        Chain::Whole
    }

    /// Length of the whole item's value, over all its parts.
    #[inline]
    pub(crate) fn item_value_bytes(&self) -> u32 {
        match self.is_chain_head() {
            false => self.value_bytes(),
            true => match self.chain() {
                Chain::Head { value_bytes } => value_bytes,
                _ => self.value_bytes(),
            },
        }
    }

    /// What decides the item's footprint.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            key_bytes: self.key_bytes(),
            value_bytes: self.item_value_bytes(),
            expires: self.bits() & EXPIRY != 0,
            has_client_flags: self.bits() & CLIENT_FLAGS != 0,
            has_own_cas: self.bits() & OWN_CAS != 0,
        }
    }

    /// The header's fields, all read.
    pub(crate) fn header(&self) -> Header {
        Header {
            cas: self.sequence(),
            deadline: (self.bits() & EXPIRY != 0).then(|| self.deadline()),
            client_flags: self.client_flags(),
            own_cas: (self.bits() & OWN_CAS != 0).then(|| self.cas()),
            stale: self.is_stale(),
            chain: self.chain(),
        }
    }

    /// Whether the record has room for a deadline, so that touch can rewrite it in place.
    pub(crate) fn has_expiry_field(&self) -> bool {
        self.bits() & EXPIRY != 0
    }

    pub(crate) fn has_own_cas(&self) -> bool {
        self.bits() & OWN_CAS != 0
    }

    fn checksum(&self) -> u32 {
        let mut crc = crc32c::crc32c(&self.bytes[4..16]);
        let mut at = 16;
        if self.bits() & EXPIRY != 0 {
            at += 8;
        }
        if self.is_part() {
            let chain = self.key_offset() as usize - 8;
            crc = crc32c::crc32c_append(crc, &self.bytes[at..chain]);
            at = chain + 4;
        }
        crc32c::crc32c_append(crc, &self.bytes[at..])
    }

    /// What the checksum says of the record, in a segment of this seal.
    pub(crate) fn standing(&self, seal: Seal) -> Standing {
        let stored = u32::from_le_bytes(array(&self.bytes[0..4]));
        match stored ^ seal.0 ^ self.checksum() {
            0 if self.has_sound_expiry() => Standing::Alive,
            DEAD => Standing::Dead,
            _ => Standing::Broken,
        }
    }

    /// Whether the deadline, which the checksum leaves out, passes the check of its own.
    fn has_sound_expiry(&self) -> bool {
        self.bits() & EXPIRY == 0
            || unpack_expiry(u64::from_le_bytes(array(&self.bytes[16..24]))).is_some()
    }
}

/// Rewrites the deadline of a record that has the field.
pub(crate) fn set_deadline(record: &mut [u8], deadline: Deadline) {
    debug_assert!(View::of(record).has_expiry_field());
    record[16..24].copy_from_slice(&pack_expiry(deadline).to_le_bytes());
}

/// Rewrites which entry a part belongs to.
pub(crate) fn set_part_entry(record: &mut [u8], entry: u32) {
    let view = View::of(record);
    debug_assert!(view.is_part());
    let at = view.key_offset() as usize - 8;
    record[at..at + 4].copy_from_slice(&entry.to_le_bytes());
}

/// Rewrites a value of unchanged length, the number of the write, and the cas of a record that has one of
/// its own.
pub(crate) fn rewrite(
    record: &mut [u8],
    seal: Seal,
    sequence: u64,
    own_cas: Option<u64>,
    value: &[u8],
) {
    let view = View::of(record);
    let (at, len) = (view.value_offset(), view.len() as usize);
    let cas_at = view.own_cas_offset();
    debug_assert_eq!(view.value().len(), value.len());
    debug_assert_eq!(view.has_own_cas(), own_cas.is_some(), "fields are not made in place");
    let record = &mut record[..len];
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    if let Some(cas) = own_cas {
        record[cas_at..cas_at + 8].copy_from_slice(&cas.to_le_bytes());
    }
    record[at..at + value.len()].copy_from_slice(value);
    write_checksum(record, seal);
}

#[inline]
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal = Seal(0x1234_5678);

    fn record(header: &Header, key: &[u8], value: &[u8]) -> Vec<u8> {
        let bytes = header.bytes() as usize + key.len() + value.len();
        let mut to = vec![0xee; bytes.next_multiple_of(4)];
        write(&mut to, SEAL, header, key, std::iter::once(value));
        to
    }

    fn chain() -> impl Strategy<Value = Chain> {
        prop_oneof![
            Just(Chain::Whole),
            any::<u32>().prop_map(|value_bytes| Chain::Head { value_bytes }),
            (any::<u32>(), any::<u32>()).prop_map(|(entry, number)| Chain::Part { entry, number }),
        ]
    }

    prop_compose! {
        fn header()(
            cas in any::<u64>(),
            deadline in prop::option::of(0..Deadline::MILLIS_MAX),
            client_flags in any::<u32>(),
            own_cas in any::<Option<u64>>(),
            stale in any::<bool>(),
            chain in chain(),
        ) -> Header {
            let deadline = deadline.map(|at| Deadline::at(Timestamp(at)));
            Header { cas, deadline, client_flags, own_cas, stale, chain }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            header in header(),
            key in prop::collection::vec(any::<u8>(), 1..=250),
            value in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let bytes = record(&header, &key, &value);
            let view = View::of(&bytes);
            prop_assert_eq!(view.standing(SEAL), Standing::Alive);
            prop_assert_eq!(view.standing(Seal::of_life(7)), Standing::Broken);
            prop_assert_eq!(view.header(), header);
            prop_assert_eq!(view.key(), &key[..]);
            prop_assert_eq!(view.value(), &value[..]);
            prop_assert_eq!(view.len() as usize, bytes.len());
        }

        #[test]
        fn every_flipped_bit_outside_the_rewritable_fields_is_noticed(
            header in header(), bit in any::<prop::sample::Index>(),
        ) {
            let bytes = record(&header, b"some key", b"some value");
            let bit = bit.index(bytes.len() * 8);
            let byte = bit / 8;
            // A damaged length may point outside; the walk of a segment checks that first.
            prop_assume!(!(4..8).contains(&byte));
            let chain_at = View::of(&bytes).key_offset() as usize - 8;
            let is_part_entry = matches!(header.chain, Chain::Part { .. })
                && (chain_at..chain_at + 4).contains(&byte);
            for dead in [false, true] {
                let mut bytes = bytes.clone();
                if dead {
                    mark_dead(&mut bytes);
                }
                let sound = View::of(&bytes).standing(SEAL);
                bytes[byte] ^= 1 << (bit % 8);
                let view = View::of(&bytes);
                let rewritable = dead && header.deadline.is_some() && (16..24).contains(&byte)
                    || is_part_entry;
                let expected = if rewritable { sound } else { Standing::Broken };
                prop_assert_eq!(view.standing(SEAL), expected);
            }
        }

        #[test]
        fn a_record_is_alive_until_it_is_marked_and_moves_under_another_seal(header in header()) {
            let mut bytes = record(&header, b"some key", b"some value");
            let there = Seal::of_life(9);
            change_seal(&mut bytes, SEAL, there);
            prop_assert_eq!(View::of(&bytes).standing(SEAL), Standing::Broken);
            prop_assert_eq!(View::of(&bytes).standing(there), Standing::Alive);
            mark_dead(&mut bytes);
            prop_assert_eq!(View::of(&bytes).standing(there), Standing::Dead);
        }

        #[test]
        fn what_is_no_record_never_reads_beyond_its_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some(view) = View::plausible(&bytes) {
                prop_assert!(view.len() as usize <= bytes.len());
                view.standing(SEAL);
            }
        }
    }

    #[test]
    fn a_gap_is_filled_with_a_dead_record_of_just_its_length() {
        for len in [20, 24, 400, *FILLER_BYTES.end() as usize] {
            let mut bytes = vec![0xee; len];
            write_filler(&mut bytes, SEAL);
            let view = View::plausible(&bytes).unwrap();
            assert_eq!((view.len() as usize, view.standing(SEAL)), (len, Standing::Dead));
        }
    }

    #[test]
    fn a_damaged_expiry_is_noticed_by_its_own_check() {
        let packed = pack_expiry(Deadline::at(Timestamp(1_700_000_000_123)));
        for bit in 0..64 {
            assert_eq!(unpack_expiry(packed ^ (1 << bit)), None);
        }
    }

    #[test]
    fn a_small_item_costs_its_record_and_its_columns() {
        // 16 B header + 24 B key + 100 B value = 140 B, and a tenth; 24 B columns; 8 B of policy.
        let cost = footprint(Shape::plain(24, 100), 8, 8192);
        assert_eq!(cost.bytes(), 140 + 14 + 24 + 8);
    }
}
