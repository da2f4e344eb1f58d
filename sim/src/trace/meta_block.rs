//! Meta's block storage; columns are found by the header's names.
//!
//! ```text
//! op_time,block_id,block_id_size,io_size,io_offset,user_name,user_namespace,op_name,op_count,host_name,rs_shard_id
//! ```
//!
//! An object is what begins at an offset of a block; reads and writes are gets alike, as in other
//! traces of blocks. The layout is that of `CacheLib`'s documentation, "Cachebench".

use super::fields::{compound_id, number_u32, seconds, size};
use super::header::Columns;
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, OpenError};

/// The lines.
pub(crate) struct MetaBlock(Columns<5>);

impl MetaBlock {
    /// Finds the columns.
    ///
    /// # Errors
    ///
    /// One is not in the header.
    pub(crate) fn open(head: &[u8]) -> Result<Self, OpenError> {
        let names = ["op_time", "block_id", "io_size", "io_offset", "op_count"];
        Columns::find(head, names).map(Self)
    }
}

impl LineFormat for MetaBlock {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if line.starts_with(b"op_time,") {
            return Ok(Parsed::Silent);
        }
        let [time, block, io_size, offset, count] = self.0.of(line)?;
        if block.is_empty() {
            return Err(Fault::EmptyId);
        }
        let access = Access::get(seconds(time)?, compound_id(&[block, offset]), size(io_size)?);
        Ok(Parsed::Repeated(access, number_u32("op_count", count)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::accesses;

    #[test]
    fn an_object_is_what_begins_at_an_offset_of_a_block() {
        let text = "op_time,block_id,block_id_size,io_size,io_offset,user_name,user_namespace,\
                    op_name,op_count,host_name,rs_shard_id\n\
                    1572074461.578,310,8,4096,262144,1,2,getChunkData.Permanent,2,h,5\n\
                    1572074462,310,8,4096,0,1,2,putChunk.Temporary,1,h,5\n";
        let read = accesses(MetaBlock::open(text.as_bytes()).unwrap(), text);
        assert_eq!(read.len(), 3);
        assert_eq!(read[0], read[1]);
        assert_eq!((read[0].time_s, read[0].size_bytes), (1_572_074_461, 4096));
        assert_ne!(read[0].id, read[2].id);
    }
}
