//! The backup file: items in blocks, each with its checksum, between a header and an end marker.
//!
//! ```text
//! | header | block | block | ... | end |                 the whole inside one zstd frame
//!
//! header  | magic 8 | format 2 | cache id 16 | taken at 8 | v 1 | server version v | p 1 | prefix p | check 4 |
//! block   | 'B' | items 4 | bytes 4 | check of the bytes 4 | check 4 | bytes: items, see `backup.rs` |
//! end     | 'E' | items 8 | bytes 8 | check 4 |                    numbers are little-endian
//! ```
//!
//! - A check is CRC-32C of everything before it in its line. The zstd frame has a checksum of its
//!   own, but that is known to hold only at the end: by the check of each block nothing that is
//!   damaged is handed out, however early it is needed.
//! - A length is believed only when the check behind it holds, so damage cannot ask for memory.
//! - A file without its end marker is cut short.
//!
//! Packing and checksums are the caller's: this reads and writes bytes.

use std::fmt;

use crate::backup::{CacheId, ITEM_OVERHEAD_BYTES_MAX, ItemError, Items};
use crate::key::KEY_BYTES_MAX;

/// The format of a backup file that this build writes and reads.
pub const FILE_FORMAT: u16 = 1;

/// CRC-32C (Castagnoli) of bytes.
pub type Checksum = fn(&[u8]) -> u32;

const MAGIC: &[u8; 8] = b"CACHEBAK";
const BLOCK: u8 = b'B';
const END: u8 = b'E';

/// Bytes of a header before its two texts.
const HEADER_FIXED_BYTES: usize = 8 + 2 + 16 + 8;
/// Bytes of a block before its items.
const BLOCK_HEAD_BYTES: usize = 1 + 4 + 4 + 4 + 4;
const END_BYTES: usize = 1 + 8 + 8 + 4;
const CHECK_BYTES: usize = 4;

/// The largest item there can be, a gibibyte, fits a block.
const BLOCK_BYTES_MAX: usize = (1 << 30) + ITEM_OVERHEAD_BYTES_MAX;

/// What a backup says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader<'a> {
    /// The cache that the items are of: cas numbers can be compared within it alone.
    pub cache_id: CacheId,
    /// When the backup was begun, in milliseconds since the start of 1970.
    pub taken_unix_ms: u64,
    /// The version of the server; at most 255 bytes.
    pub server_version: &'a [u8],
    /// What all keys begin with; empty for every key.
    pub prefix: &'a [u8],
}

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items. One that changed meanwhile may be there twice; the later one counts.
    pub items: u64,
    /// Bytes of the items, encoded and not packed.
    pub bytes: u64,
}

/// Writes a backup file into a buffer, piece by piece.
#[derive(Clone, Debug)]
pub struct FileEncoder {
    checksum: Checksum,
    totals: Totals,
}

impl FileEncoder {
    /// Begins a file: appends its header.
    pub fn begin(header: &FileHeader<'_>, checksum: Checksum, out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FILE_FORMAT.to_le_bytes());
        out.extend_from_slice(&header.cache_id.number().to_le_bytes());
        out.extend_from_slice(&header.taken_unix_ms.to_le_bytes());
        for text in [header.server_version, header.prefix] {
            let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
            out.push(len);
            out.extend_from_slice(&text[..usize::from(len)]);
        }
        push_check(checksum, start, out);
        Self { checksum, totals: Totals::default() }
    }

    /// Appends what comes before the bytes of `items`, which are the caller's to append. Items of
    /// more than a gibibyte together are no block.
    pub fn block(&mut self, items: &Items<'_>, out: &mut Vec<u8>) {
        let (start, bytes) = (out.len(), items.as_bytes());
        assert!(bytes.len() <= BLOCK_BYTES_MAX, "a block is a slice or one item");
        self.totals.items += items.len() as u64;
        self.totals.bytes += bytes.len() as u64;
        out.push(BLOCK);
        for number in [items.len(), bytes.len()] {
            out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(&(self.checksum)(bytes).to_le_bytes());
        push_check(self.checksum, start, out);
    }

    /// Ends the file: appends the end marker.
    pub fn end(self, out: &mut Vec<u8>) -> Totals {
        let start = out.len();
        out.push(END);
        out.extend_from_slice(&self.totals.items.to_le_bytes());
        out.extend_from_slice(&self.totals.bytes.to_le_bytes());
        push_check(self.checksum, start, out);
        self.totals
    }

    /// What was written so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }
}

fn push_check(checksum: Checksum, start: usize, out: &mut Vec<u8>) {
    let check = checksum(&out[start..]);
    out.extend_from_slice(&check.to_le_bytes());
}

/// Why bytes are no backup file, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It does not begin as a backup does.
    NotABackup,
    /// It is written in a format that this build does not know.
    Format {
        /// The format it names.
        found: u16,
    },
    /// Something is not as it was written.
    Damaged {
        /// The part in which that shows.
        part: Part,
    },
    /// The items of a block that is as it was written cannot be read.
    Item(ItemError),
    /// The end marker counts other items than there were.
    Totals {
        /// What was read.
        read: Totals,
        /// What the marker says was written.
        written: Totals,
    },
}

/// A part of a backup file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The header.
    Header,
    /// What comes before a block's items.
    BlockHead,
    /// A block's items.
    Block,
    /// The end marker.
    End,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotABackup => f.write_str("this is no backup of a cache"),
            Self::Format { found } => {
                write!(f, "the backup has format {found}, this build reads format {FILE_FORMAT}")
            }
            Self::Damaged { part } => f.write_str(match part {
                Part::Header => "the header is damaged",
                Part::BlockHead => "the head of a block is damaged",
                Part::Block => "a block of items is damaged",
                Part::End => "the end marker is damaged",
            }),
            Self::Item(_) => f.write_str("a block holds what is no item"),
            Self::Totals { read, written } => {
                write!(f, "{} items were read where {} were written", read.items, written.items)
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Item(error) => Some(error),
            _ => None,
        }
    }
}

/// What one call of [`FileDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileStep<'a> {
    /// The part at the front of the input is not whole.
    More {
        /// How long the input must become before another call can get further.
        wanted: usize,
    },
    /// The header: the first step.
    Header {
        /// Bytes of the input it took up: the next call gets what follows them.
        consumed: usize,
        /// The header.
        header: FileHeader<'a>,
    },
    /// A block.
    Block {
        /// Bytes of the input it took up.
        consumed: usize,
        /// Its items, as they were written.
        items: Items<'a>,
    },
    /// The end marker: the last step. Nothing may follow it.
    End {
        /// Bytes of the input it took up.
        consumed: usize,
        /// How much the backup holds.
        totals: Totals,
    },
}

/// Reads a backup file, and hands out nothing that is not as it was written. It owns no input; see
/// [`Decoder`](crate::request::decoder::Decoder).
#[derive(Clone, Debug)]
pub struct FileDecoder {
    checksum: Checksum,
    has_header: bool,
    totals: Totals,
}

impl FileDecoder {
    /// A decoder at the start of a file.
    pub fn new(checksum: Checksum) -> Self {
        Self { checksum, has_header: false, totals: Totals::default() }
    }

    /// The first part of `input`, or how much is missing.
    ///
    /// # Errors
    ///
    /// When the part is not as it was written. Nothing behind it can be trusted.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<FileStep<'a>, FileError> {
        if !self.has_header {
            return self.decode_header(input);
        }
        match input.first() {
            None => Ok(FileStep::More { wanted: 1 }),
            Some(&BLOCK) => self.decode_block(input),
            Some(&END) => self.decode_end(input),
            Some(_) => Err(FileError::Damaged { part: Part::BlockHead }),
        }
    }

    fn decode_header<'a>(&mut self, input: &'a [u8]) -> Result<FileStep<'a>, FileError> {
        let seen = input.len().min(MAGIC.len());
        if input[..seen] != MAGIC[..seen] {
            return Err(FileError::NotABackup);
        }
        let mut fields = Fields { bytes: input, at: MAGIC.len() };
        let Some(format) = fields.take().map(u16::from_le_bytes) else {
            return Ok(FileStep::More { wanted: HEADER_FIXED_BYTES });
        };
        if format != FILE_FORMAT {
            return Err(FileError::Format { found: format });
        }
        let mut read = || {
            let header = FileHeader {
                cache_id: CacheId::new(fields.take().map(u128::from_le_bytes)?),
                taken_unix_ms: fields.take().map(u64::from_le_bytes)?,
                server_version: fields.text()?,
                prefix: fields.text()?,
            };
            let checked = fields.at;
            Some((header, checked, fields.take().map(u32::from_le_bytes)?))
        };
        let Some((header, checked, check)) = read() else {
            // Short enough to be waited for field by field.
            return Ok(FileStep::More { wanted: input.len() + 1 });
        };
        if check != (self.checksum)(&input[..checked]) || header.prefix.len() > KEY_BYTES_MAX {
            return Err(FileError::Damaged { part: Part::Header });
        }
        self.has_header = true;
        Ok(FileStep::Header { consumed: fields.at, header })
    }

    fn decode_block<'a>(&mut self, input: &'a [u8]) -> Result<FileStep<'a>, FileError> {
        let Some(head) = input.first_chunk::<BLOCK_HEAD_BYTES>() else {
            return Ok(FileStep::More { wanted: BLOCK_HEAD_BYTES });
        };
        let [_, head @ ..] = head;
        let number = |index: usize| {
            let bytes = head.as_chunks::<4>().0[index];
            u32::from_le_bytes(bytes)
        };
        let [count, len, items_check, head_check] = [0, 1, 2, 3].map(number);
        let checked = &input[..BLOCK_HEAD_BYTES - CHECK_BYTES];
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if head_check != (self.checksum)(checked) || len > BLOCK_BYTES_MAX {
            return Err(FileError::Damaged { part: Part::BlockHead });
        }
        let consumed = BLOCK_HEAD_BYTES + len;
        let Some(bytes) = input.get(BLOCK_HEAD_BYTES..consumed) else {
            return Ok(FileStep::More { wanted: consumed });
        };
        if items_check != (self.checksum)(bytes) {
            return Err(FileError::Damaged { part: Part::Block });
        }
        let items = Items::new(bytes).map_err(FileError::Item)?;
        if u32::try_from(items.len()) != Ok(count) {
            return Err(FileError::Damaged { part: Part::BlockHead });
        }
        self.totals.items += items.len() as u64;
        self.totals.bytes += bytes.len() as u64;
        Ok(FileStep::Block { consumed, items })
    }

    fn decode_end<'a>(&mut self, input: &'a [u8]) -> Result<FileStep<'a>, FileError> {
        let mut fields = Fields { bytes: input, at: 1 };
        let mut read = || {
            let items = fields.take().map(u64::from_le_bytes)?;
            let bytes = fields.take().map(u64::from_le_bytes)?;
            Some((Totals { items, bytes }, fields.take().map(u32::from_le_bytes)?))
        };
        let Some((written, check)) = read() else {
            return Ok(FileStep::More { wanted: END_BYTES });
        };
        if check != (self.checksum)(&input[..END_BYTES - CHECK_BYTES]) {
            return Err(FileError::Damaged { part: Part::End });
        }
        if written != self.totals {
            return Err(FileError::Totals { read: self.totals, written });
        }
        Ok(FileStep::End { consumed: END_BYTES, totals: written })
    }
}

/// Fields read one after the other, as far as they are there.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(field)
    }

    /// A length of one byte, and as many bytes.
    fn text(&mut self) -> Option<&'a [u8]> {
        let [len] = self.take()?;
        let text = self.bytes.get(self.at..self.at + usize::from(len))?;
        self.at += text.len();
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{self, BackupItem};

    const HEADER: FileHeader<'_> = FileHeader {
        cache_id: CacheId::new(7),
        taken_unix_ms: 1_800_000_000_000,
        server_version: b"0.1.0",
        prefix: b"user:",
    };

    fn file(blocks: &[Vec<BackupItem>]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = FileEncoder::begin(&HEADER, crc32c::crc32c, &mut out);
        for block in blocks {
            let mut bytes = Vec::new();
            block.iter().for_each(|item| item.borrowed().encode(&mut bytes));
            encoder.block(&Items::new(&bytes).expect("items"), &mut out);
            out.extend_from_slice(&bytes);
        }
        encoder.end(&mut out);
        out
    }

    /// The items of a file that arrives in pieces, as far as they can be read, and how it ends.
    fn read(bytes: &[u8], piece_bytes: usize) -> (Vec<BackupItem>, Result<Totals, FileError>) {
        let mut decoder = FileDecoder::new(crc32c::crc32c);
        let (mut items, mut start, mut end) = (Vec::new(), 0, 0);
        loop {
            match decoder.decode(&bytes[start..end]) {
                Ok(FileStep::More { wanted }) => {
                    assert!(wanted > end - start, "enough is there already");
                    if end == bytes.len() {
                        return (items, Err(FileError::NotABackup));
                    }
                    end = (end + piece_bytes).min(bytes.len());
                }
                Ok(FileStep::Header { consumed, header }) => {
                    assert_eq!(header, HEADER);
                    start += consumed;
                }
                Ok(FileStep::Block { consumed, items: block }) => {
                    items.extend(block.map(BackupItem::from));
                    start += consumed;
                }
                Ok(FileStep::End { totals, .. }) => return (items, Ok(totals)),
                Err(error) => return (items, Err(error)),
            }
        }
    }

    fn blocks() -> impl Strategy<Value = Vec<Vec<BackupItem>>> {
        proptest::collection::vec(arbitrary::backup_items(0..4), 0..4)
    }

    #[test]
    fn what_is_no_backup_is_told_from_a_damaged_one() {
        assert_eq!(read(b"{\"key\":1}", 1).1, Err(FileError::NotABackup));
        let mut other = file(&[]);
        other[8] = 2;
        assert_eq!(read(&other, 1).1, Err(FileError::Format { found: 2 }));
    }

    #[test]
    fn a_length_that_was_damaged_is_not_waited_for() {
        let mut bytes = file(&[vec![]]);
        let block = bytes.iter().position(|&byte| byte == BLOCK).expect("a block");
        // The magic has the same letter.
        let block = bytes[MAGIC.len()..]
            .iter()
            .position(|&byte| byte == BLOCK)
            .map_or(block, |at| at + MAGIC.len());
        bytes[block + 8] ^= 0x40;
        assert_eq!(read(&bytes, 1000).1, Err(FileError::Damaged { part: Part::BlockHead }));
    }

    #[test]
    fn a_missing_block_shows_at_the_end() {
        let key = BackupItem::named(b"k");
        let (one, two) = (file(&[vec![key.clone()]]), file(&[vec![key.clone()], vec![key]]));
        let block_bytes = two.len() - one.len();
        let header_bytes = file(&[]).len() - END_BYTES;
        let mut cut = two;
        cut.drain(header_bytes..header_bytes + block_bytes);
        assert!(matches!(read(&cut, 1000).1, Err(FileError::Totals { .. })));
    }

    proptest! {
        #[test]
        fn a_file_written_is_read_back_in_any_pieces(blocks in blocks(), piece_bytes in 1usize..99) {
            let (items, end) = read(&file(&blocks), piece_bytes);
            let written: Vec<BackupItem> = blocks.concat();
            prop_assert_eq!(end.expect("a whole file").items, written.len() as u64);
            prop_assert_eq!(items, written);
        }

        #[test]
        fn a_flipped_bit_is_noticed_before_anything_wrong_is_handed_out(
            blocks in blocks(), bit in any::<prop::sample::Index>(),
        ) {
            let mut bytes = file(&blocks);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = FileDecoder::new(crc32c::crc32c);
            // A damaged header is not compared with what was written.
            if decoder.decode(&bytes).is_ok_and(|step| matches!(step, FileStep::Header { .. })) {
                let (items, end) = read(&bytes, 1000);
                prop_assert!(end.is_err());
                prop_assert!(blocks.concat().starts_with(&items));
            }
        }

        #[test]
        fn a_file_cut_anywhere_does_not_end(blocks in blocks(), len in any::<prop::sample::Index>()) {
            let bytes = file(&blocks);
            let (items, end) = read(&bytes[..len.index(bytes.len())], 1000);
            prop_assert!(end.is_err());
            prop_assert!(blocks.concat().starts_with(&items));
        }
    }
}
