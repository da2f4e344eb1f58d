//! ARC's `.lis`: runs of blocks, a line a run.
//!
//! ```text
//! first_block number_of_blocks ignored request_number
//! 1834        4                0       1
//! ```
//!
//! A run is one access for each of its blocks, which have 512 bytes. There are no times. The traces are
//! those of Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003.

use super::fields::{bad, number_u64, word, words};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// Bytes of a block.
const BLOCK_BYTES: u32 = 512;

/// The longest run taken: half a GiB.
const RUN_BLOCKS_MAX: u64 = 1 << 20;

/// The lines.
#[derive(Debug, Default)]
pub(crate) struct ArcLis {
    /// Blocks still to be handed out.
    run: std::ops::Range<u64>,
}

impl LineFormat for ArcLis {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut words = words(line);
        let first = number_u64("first block", word(&mut words, "first block")?)?;
        let count_text = word(&mut words, "number of blocks")?;
        let count = number_u64("number of blocks", count_text)?;
        let end = first
            .checked_add(count)
            .filter(|_| count <= RUN_BLOCKS_MAX)
            .ok_or_else(|| bad("number of blocks", count_text, "a run of at most 2^20 blocks"))?;
        self.run = first..end;
        Ok(Parsed::Queued)
    }

    fn pop(&mut self) -> Option<Access> {
        self.run.next().map(|block| Access::get(0, block, BLOCK_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint};

    #[test]
    fn a_run_is_an_access_for_each_block() {
        let text = "1834 3 0 1\n7 1 0 2\n9 0 0 3\n";
        let ids: Vec<u64> = accesses(ArcLis::default(), text).iter().map(|it| it.id).collect();
        assert_eq!(ids, [1834, 1835, 1836, 7]);
    }

    #[test]
    fn a_run_that_cannot_be_meant_is_malformed() {
        let want = "line 1: the number of blocks is `9999999999`, not a run of at most 2^20 blocks";
        assert_eq!(complaint(ArcLis::default(), "1 9999999999 0 1\n"), want);
        assert_eq!(complaint(ArcLis::default(), "1\n"), "line 1: there is no number of blocks");
    }
}
