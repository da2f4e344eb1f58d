//! twr: Twitter's traces in libCacheSim's binary records, 20 bytes each, packed, little-endian.
//!
//! ```text
//! | 0 time, s: u32 | 4 id: u64 | 12 key size: 10 high bits, value size: 22 | 16 op: 8 high bits, TTL, s: 24 |
//! ```
//!
//! The layout is that of libCacheSim's `traceReader/customizedReader/twrBin.h`.

use super::records::{RecordFormat, op_of_number, u32_at, u64_at};
use super::{Access, Fault};

/// The records.
pub(crate) struct Twr;

impl RecordFormat for Twr {
    fn record_bytes(&self) -> usize {
        20
    }

    fn decode(&mut self, record: &[u8]) -> Result<Option<Access>, Fault> {
        let (sizes, op_ttl) = (u32_at(record, 12), u32_at(record, 16));
        Ok(op_of_number((op_ttl >> 24).into()).map(|op| Access {
            id: u64_at(record, 4),
            time_s: u32_at(record, 0),
            size_bytes: sizes & 0x003f_ffff,
            ttl_s: op_ttl & 0x00ff_ffff,
            key_bytes: u16::try_from(sizes >> 22).unwrap_or(u16::MAX),
            op,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Op;

    #[test]
    fn record_has_the_documented_layout() {
        let mut record = vec![7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        record.extend((17u32 << 22 | 249).to_le_bytes());
        record.extend((6u32 << 24 | 3600).to_le_bytes());
        let want = Access {
            id: 9,
            time_s: 7,
            size_bytes: 249,
            ttl_s: 3600,
            key_bytes: 17,
            op: Op::Replace,
        };
        assert_eq!(Twr.decode(&record), Ok(Some(want)));
    }
}
