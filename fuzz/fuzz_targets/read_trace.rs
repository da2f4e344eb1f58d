//! Any bytes as a log, read by every reader: none panics, goes on for ever or takes memory without bound;
//! what is read depends on the bytes and not on the pieces they come in; a malformed record is named by
//! where it stands, in order, and no more often than there are lines.
//!
//! ```text
//! input: | format 1 | bit 0: with the header that some formats must have; the rest: bytes a piece 1 | log |
//! ```

#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use sim::trace::{Access, Format, Notes, Place, Trace, TraceError};

/// A count in a line may call for four billion of an access.
const ITEMS_MAX: usize = 50_000;

/// What packed logs begin with: their lines are not to be counted here.
const PACKED: [&[u8]; 3] =
    [&[0x28, 0xb5, 0x2f, 0xfd], &[0x1f, 0x8b], &[0xfd, b'7', b'z', b'X', b'Z', 0]];

fuzz_target!(|input: &[u8]| {
    let [format, how, bytes @ ..] = input else { return };
    let index = usize::from(*format) % (Format::ALL.len() + 1);
    let format = Format::ALL.get(index).unwrap_or(&Format::Guess);
    let head = if how & 1 == 1 { head_of(format) } else { Vec::new() };
    let log = [head.as_slice(), bytes].concat();
    let whole = read(&log, log.len().max(1), format);
    let pieces = read(&log, usize::from(how >> 1).max(1), format);
    assert_eq!(whole, pieces, "{}: what is read depends on the pieces", format.name());
    let Some((items, _)) = whole else { return };
    let is_packed = PACKED.iter().any(|magic| log.starts_with(magic));
    let lines = log.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
    let mut last = 0;
    for item in items {
        let Err((Some(place), error)) = item else { continue };
        let (number, end) = match place {
            Place::Line(line) => (line, lines),
            Place::Byte(offset) => (offset, log.len() as u64),
            Place::Row(row) => panic!("row {row} of what is no table"),
        };
        assert!(number >= last, "{}: {error} behind {last}", format.name());
        assert!(is_packed || number <= end, "{}: {error}, but it ends at {end}", format.name());
        last = number;
    }
});

/// An access, or an error with its place and its words.
type Item = Result<Access, (Option<Place>, String)>;

/// What a reader makes of a log that comes in pieces, and what it notes; none if it is not read at all.
fn read(log: &[u8], piece_bytes: usize, format: &Format) -> Option<(Vec<Item>, Notes)> {
    let pieces = Pieces { left: log.to_vec().into(), piece_bytes };
    let mut trace = Trace::read(pieces, format).ok()?;
    let mut items = Vec::new();
    for item in trace.by_ref().take(ITEMS_MAX) {
        items.push(item.map_err(|error| (place_of(&error), error.to_string())));
    }
    // A packed log that is damaged near its beginning is found to be so before the first access is asked for, or
    // then: that depends on how much is unpacked at once.
    if let [Err((None, _))] = items.as_slice() {
        return None;
    }
    let notes = trace.notes();
    Some((items, notes))
}

/// Where a malformed record begins.
fn place_of(error: &TraceError) -> Option<Place> {
    match error {
        TraceError::Malformed { place, .. } => Some(*place),
        TraceError::Io(_) => None,
    }
}

/// A log that comes so many bytes at a time.
struct Pieces {
    left: std::collections::VecDeque<u8>,
    piece_bytes: usize,
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = to.len().min(self.piece_bytes);
        self.left.read(&mut to[..count])
    }
}

/// What lets a reader that needs a header get at the bytes behind.
fn head_of(format: &Format) -> Vec<u8> {
    let text = match format {
        Format::MetaKv2022 => "key,op,size,op_count,key_size\n",
        Format::MetaKv2024 => "op_time,key,key_size,op,op_count,size,cache_hits,ttl\n",
        Format::MetaCdn => "timestamp,cacheKey,OpType,objectSize,TTL\n",
        Format::MetaBlock => "op_time,block_id,io_size,io_offset,op_count\n",
        Format::Csv(_) => "time,id,size,op,ttl\n",
        Format::Lcs => {
            // The magic number of libCacheSim's lcs, and a version.
            let mut header = vec![0; 8192];
            header[..8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
            header[8] = 3;
            return header;
        }
        _ => "",
    };
    text.into()
}
