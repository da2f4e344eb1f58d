//! A backup: where one stands in a server's items, and how an item is written down.
//!
//! ```text
//! item:  | format 1 | marks 1 | key bytes 1 | client flags 4 | cas 8 | deadline 8 | value bytes 4 |
//!        | key | value |                                              numbers are little-endian
//! ```
//!
//! The same bytes travel between server and client (`backup`, `restore`) and stand in a backup file
//! ([`mod@file`]). An item is all that a client can know of it: whatever a server keeps beside it (when
//! it was read last, how often, where it lies) stays behind.
//!
//! A backup is pulled in slices. The server keeps nothing between two of them: the request carries
//! the [`Cursor`] at which it stopped, the answer the next one.

pub mod file;

use std::fmt;

use crate::key::{KEY_BYTES_MAX, Key};
use crate::token::{Tokens, parse_length, parse_u32, parse_u64, push_number, push_token};

/// The format of an item that this build writes and reads.
pub const ITEM_FORMAT: u8 = 1;

/// Bytes of an item before its key.
pub const ITEM_HEAD_BYTES: usize = 27;

/// Bytes of the items in one slice, or in one `restore`, unless a single item takes more.
pub const SLICE_BYTES_MAX: usize = 64 << 10;

/// What an item takes up beside its value, at most.
pub const ITEM_OVERHEAD_BYTES_MAX: usize = ITEM_HEAD_BYTES + KEY_BYTES_MAX;

/// A client marked the item stale.
const STALE: u8 = 1;

/// The deadline of an item that does not expire.
const NEVER: u64 = u64::MAX;

/// An item as a backup knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Everything but the value.
    pub head: ItemHead<'a>,
    /// The value.
    pub value: &'a [u8],
}

/// What a backup knows of an item besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemHead<'a> {
    /// The item's name: any bytes.
    pub key: Key<'a>,
    /// What the client stored with it.
    pub client_flags: u32,
    /// The cas that clients saw.
    pub cas: u64,
    /// When the item expires, in milliseconds since the start of 1970; `None` is never.
    pub deadline_unix_ms: Option<u64>,
    /// Whether a client marked it stale.
    pub stale: bool,
}

impl Item<'_> {
    /// Bytes that the item takes up, encoded.
    pub fn encoded_bytes(&self) -> usize {
        ITEM_HEAD_BYTES + self.head.key.as_bytes().len() + self.value.len()
    }

    /// Appends the item. Its value is shorter than 4 GiB.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.head.encode(self.value.len(), out);
        out.extend_from_slice(self.value);
    }
}

impl ItemHead<'_> {
    /// Appends everything before the value; `value_bytes` of it, fewer than 4 GiB, are the caller's
    /// to append.
    pub fn encode(&self, value_bytes: usize, out: &mut Vec<u8>) {
        let key = self.key.as_bytes();
        debug_assert!(u32::try_from(value_bytes).is_ok(), "no server takes a value of 4 GiB");
        let value_bytes = u32::try_from(value_bytes).unwrap_or(u32::MAX);
        let key_bytes = u8::try_from(key.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[ITEM_FORMAT, u8::from(self.stale) * STALE, key_bytes]);
        out.extend_from_slice(&self.client_flags.to_le_bytes());
        out.extend_from_slice(&self.cas.to_le_bytes());
        out.extend_from_slice(&self.deadline_unix_ms.unwrap_or(NEVER).to_le_bytes());
        out.extend_from_slice(&value_bytes.to_le_bytes());
        out.extend_from_slice(key);
    }
}

/// Why bytes are no items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemError {
    /// An item ends before its time.
    Truncated,
    /// An item is written in a format that this build does not know.
    Format {
        /// The format it names.
        found: u8,
    },
    /// An item carries marks that this build does not know.
    Marks {
        /// All its marks.
        found: u8,
    },
    /// An item has no key, or one that is too long.
    Key,
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("an item ends before its time"),
            Self::Format { found } => {
                write!(f, "an item has format {found}, this build reads format {ITEM_FORMAT}")
            }
            Self::Marks { found } => write!(f, "an item has marks {found:#x} that nobody set"),
            Self::Key => f.write_str("an item has no key that an item can have"),
        }
    }
}

impl std::error::Error for ItemError {}

/// Items one after the other, each of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Items<'a> {
    /// None at all.
    pub const NONE: Self = Self { bytes: &[], count: 0 };

    /// Reads `bytes` to their end.
    ///
    /// # Errors
    ///
    /// When they are not items from the first byte to the last.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ItemError> {
        let (mut rest, mut count) = (bytes, 0);
        while !rest.is_empty() {
            (_, rest) = decode(rest)?;
            count += 1;
        }
        Ok(Self { bytes, count })
    }

    /// The items that are left, encoded.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = decode(self.bytes).ok()?;
        self.bytes = rest;
        self.count -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// The first item of `bytes`, and what follows it.
fn decode(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), ItemError> {
    let mut reader = Reader(bytes);
    let [format, marks, key_bytes] = reader.take()?;
    if format != ITEM_FORMAT {
        return Err(ItemError::Format { found: format });
    }
    if marks & !STALE != 0 {
        return Err(ItemError::Marks { found: marks });
    }
    let client_flags = u32::from_le_bytes(reader.take()?);
    let cas = u64::from_le_bytes(reader.take()?);
    let deadline = u64::from_le_bytes(reader.take()?);
    let value_bytes = u32::from_le_bytes(reader.take()?);
    let key = Key::new(reader.slice(usize::from(key_bytes))?).ok_or(ItemError::Key)?;
    let value = reader.slice(usize::try_from(value_bytes).map_err(|_| ItemError::Truncated)?)?;
    let deadline_unix_ms = (deadline != NEVER).then_some(deadline);
    let head = ItemHead { key, client_flags, cas, deadline_unix_ms, stale: marks & STALE != 0 };
    Ok((Item { head, value }, reader.0))
}

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ItemError> {
        let (front, rest) = self.0.split_first_chunk().ok_or(ItemError::Truncated)?;
        self.0 = rest;
        Ok(*front)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], ItemError> {
        let (front, rest) = self.0.split_at_checked(len).ok_or(ItemError::Truncated)?;
        self.0 = rest;
        Ok(front)
    }
}

/// Which cache an item's cas is of. It stays the same over restarts that keep the items, and is
/// another one whenever a cache begins empty: cas numbers can be compared only within one cache.
///
/// Written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheId([u8; 16]);

impl CacheId {
    const DIGITS: usize = 32;

    /// The id of this number.
    pub const fn new(number: u128) -> Self {
        // As bytes, so that no request is aligned to 16 for its sake.
        Self(number.to_le_bytes())
    }

    /// The number.
    pub const fn number(self) -> u128 {
        u128::from_le_bytes(self.0)
    }

    /// Reads the digits.
    pub fn parse(token: &[u8]) -> Option<Self> {
        let digits = token.iter().all(u8::is_ascii_hexdigit) && token.len() == Self::DIGITS;
        let text = std::str::from_utf8(token).ok().filter(|_| digits)?;
        u128::from_str_radix(text, 16).ok().map(Self::new)
    }
}

impl fmt::Display for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.number())
    }
}

/// Where a backup stands. It begins at the default and ends where the server says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The shard that is walked.
    pub shard: u32,
    /// Which numbering of the shard's entries `entry` belongs to. When the server has numbered them
    /// anew since, it walks that shard from its beginning again.
    pub generation: u64,
    /// The entry that is next.
    pub entry: u32,
}

impl Cursor {
    /// Reads the numbers of a cursor off the front of `tokens`.
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Option<Self> {
        Some(Self {
            shard: parse_u32(tokens.next()?)?,
            generation: parse_u64(tokens.next()?)?,
            entry: parse_u32(tokens.next()?)?,
        })
    }

    fn push(self, out: &mut Vec<u8>) {
        for number in [u64::from(self.shard), self.generation, u64::from(self.entry)] {
            out.push(b' ');
            push_number(out, number);
        }
    }
}

/// Asks for the next slice of a backup: answered with [`Records`], or with `END` when `cursor` is
/// behind the last shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup<'a> {
    /// Where the slice begins.
    pub cursor: Cursor,
    /// Only items whose keys begin with these bytes; empty for all.
    pub prefix: &'a [u8],
}

impl Backup<'_> {
    /// Appends the request. The prefix must be a token, as a key is ([`Key::is_token`]).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"backup");
        self.cursor.push(out);
        if !self.prefix.is_empty() {
            push_token(out, self.prefix);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Puts items of a backup into the cache: answered with [`Restored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore<'a> {
    /// An item that is there is replaced only by a newer one, one of a greater cas. Named is the
    /// cache that the backup is of; where the server is another one, whatever is there stays.
    pub keep_newer: Option<CacheId>,
    /// The items.
    pub items: Items<'a>,
}

/// The word before the cache's id.
pub(crate) const KEEP_NEWER: &[u8] = b"keep-newer";

impl Restore<'_> {
    /// Appends the request, its items included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let items = self.items.as_bytes();
        out.extend_from_slice(b"restore ");
        push_number(out, items.len() as u64);
        if let Some(cache_id) = self.keep_newer {
            push_token(out, KEEP_NEWER);
            push_token(out, cache_id.to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(items);
        out.extend_from_slice(b"\r\n");
    }
}

/// A slice of a backup: `RECORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    /// Where the next slice begins.
    pub next: Cursor,
    /// The items of this one, as [`Items`] reads them. There may be none, and more to come.
    pub data: &'a [u8],
}

impl Records<'_> {
    /// Appends the slice.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_records_line(out, self.next, self.data.len());
        out.extend_from_slice(self.data);
        out.extend_from_slice(b"\r\n");
    }

    /// Reads the line, after its first word: the slice without its data, and how much that is.
    pub(crate) fn parse(mut tokens: Tokens<'_>) -> Option<(Self, usize)> {
        let next = Cursor::parse(&mut tokens)?;
        let data_bytes = parse_length(tokens.next()?)?;
        tokens.next().is_none().then_some((Self { next, data: b"" }, data_bytes))
    }
}

/// Appends the line of a slice whose data, `data_bytes` and a `\r\n`, is the caller's to append.
pub fn encode_records_line(out: &mut Vec<u8>, next: Cursor, data_bytes: usize) {
    out.extend_from_slice(b"RECORDS");
    next.push(out);
    out.push(b' ');
    push_number(out, data_bytes as u64);
    out.extend_from_slice(b"\r\n");
}

/// What became of the items of a `restore`: `RESTORED`. Every item is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// In the cache now.
    pub stored: u64,
    /// Not taken, because what is there is newer.
    pub kept: u64,
    /// Not taken, because their time is over.
    pub expired: u64,
    /// Not taken, because they are larger than an item may be, or no room could be made.
    pub refused: u64,
}

impl Restored {
    /// Appends the answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"RESTORED");
        for number in [self.stored, self.kept, self.expired, self.refused] {
            out.push(b' ');
            push_number(out, number);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Reads the line, after its first word.
    pub(crate) fn parse(mut tokens: Tokens<'_>) -> Option<Self> {
        let mut number = || parse_u64(tokens.next()?);
        let (stored, kept, expired, refused) = (number()?, number()?, number()?, number()?);
        tokens.next().is_none().then_some(Self { stored, kept, expired, refused })
    }
}

impl std::ops::AddAssign for Restored {
    fn add_assign(&mut self, more: Self) {
        self.stored += more.stored;
        self.kept += more.kept;
        self.expired += more.expired;
        self.refused += more.refused;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    fn encoded(item: &Item<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        item.encode(&mut out);
        out
    }

    fn plain() -> Item<'static> {
        let key = Key::new(b"some key").expect("8 bytes");
        let head = ItemHead { key, client_flags: 7, cas: 9, deadline_unix_ms: None, stale: false };
        Item { head, value: b"some value" }
    }

    #[test]
    fn what_a_later_format_says_is_not_guessed_at() {
        let mut bytes = encoded(&plain());
        bytes[0] = 2;
        assert_eq!(Items::new(&bytes), Err(ItemError::Format { found: 2 }));
        bytes[0] = ITEM_FORMAT;
        bytes[1] = 0x82;
        assert_eq!(Items::new(&bytes), Err(ItemError::Marks { found: 0x82 }));
    }

    #[test]
    fn an_item_without_a_key_or_with_too_long_a_one_is_none() {
        for key_bytes in [0, 251] {
            let mut bytes = encoded(&plain());
            bytes[2] = key_bytes;
            bytes.resize(400, 0);
            assert_eq!(Items::new(&bytes), Err(ItemError::Key), "{key_bytes}");
        }
    }

    #[test]
    fn items_cut_anywhere_but_between_two_are_none() {
        let one = encoded(&plain());
        let two = one.repeat(2);
        for len in 0..=two.len() {
            let whole = len % one.len() == 0;
            assert_eq!(Items::new(&two[..len]).is_ok(), whole, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn an_item_encoded_decodes_to_itself(items in arbitrary::backup_items(0..8)) {
            let bytes: Vec<u8> = items.iter().flat_map(|item| encoded(&item.borrowed())).collect();
            let read = Items::new(&bytes).expect("items");
            prop_assert_eq!(read.len(), items.len());
            prop_assert_eq!(read.as_bytes(), &bytes[..]);
            let written: usize = items.iter().map(|item| item.borrowed().encoded_bytes()).sum();
            prop_assert_eq!(written, bytes.len());
            prop_assert!(read.eq(items.iter().map(|item| item.borrowed())));
        }

        #[test]
        fn noise_is_items_or_an_error(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(items) = Items::new(&noise) {
                let again: Vec<u8> = items.flat_map(|item| encoded(&item)).collect();
                prop_assert_eq!(again, noise);
            }
        }
    }
}
