//! Any bytes, in any pieces, as a backup file: the decoder says the same in one piece and in many,
//! gets ahead, and never asks for more than a block can have before its length is known to be sound.
//!
//! The checksum is one that a fuzzer can meet: the sum of the bytes. The first byte of the input says
//! how long the pieces are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::backup::file::{FileDecoder, FileStep};

fuzz_target!(|bytes: &[u8]| {
    let Some((&piece_bytes, file)) = bytes.split_first() else { return };
    let whole = read(file, file.len().max(1));
    let pieces = read(file, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces, "what is read depends on the pieces");
});

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, &byte| sum.wrapping_add(byte.into()))
}

/// What the parts of the file say, in order, and the error that ended them, if one did.
fn read(file: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut decoder = FileDecoder::new(checksum);
    let (mut read, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        let input = &file[start..end];
        let consumed = match decoder.decode(input) {
            Ok(FileStep::More { wanted }) => {
                assert!(wanted > input.len(), "enough is there already");
                if end == file.len() {
                    return read;
                }
                end = (end + piece_bytes).min(file.len());
                continue;
            }
            Ok(FileStep::Header { consumed, header }) => {
                read.push(format!("{header:?}"));
                consumed
            }
            Ok(FileStep::Block { consumed, items }) => {
                read.push(format!("{items:?}"));
                consumed
            }
            Ok(FileStep::End { totals, .. }) => {
                read.push(format!("{totals:?}"));
                return read;
            }
            Err(error) => {
                read.push(error.to_string());
                return read;
            }
        };
        assert!(0 < consumed && consumed <= input.len(), "a step takes up what is there");
        start += consumed;
    }
}
