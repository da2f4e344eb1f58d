//! oracleGeneralOpNS: oracleGeneral with an op and a tenant, 27 bytes, packed, little-endian.
//!
//! ```text
//! | 0 time, s: u32 | 4 id: u64 | 12 size, bytes: u32 | 16 op: u8 | 17 namespace: u16 | 19 next: i64 |
//! ```
//!
//! The layout is that of libCacheSim's `traceReader/customizedReader/oracle`. Two namespaces have
//! objects of their own only if their ids differ, as in libCacheSim.

use super::records::{RecordFormat, op_of_number, u32_at, u64_at};
use super::{Access, Fault};

/// The records.
pub(crate) struct OracleGeneralOpNs;

impl RecordFormat for OracleGeneralOpNs {
    fn record_bytes(&self) -> usize {
        27
    }

    fn decode(&mut self, record: &[u8]) -> Result<Option<Access>, Fault> {
        // Traces without ops have 0 there.
        let op = match record[16] {
            0 => Some(super::Op::Get),
            number => op_of_number(number.into()),
        };
        let access = Access::get(u32_at(record, 0), u64_at(record, 4), u32_at(record, 12));
        Ok(op.map(|op| Access { op, ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Op;

    #[test]
    fn record_has_the_documented_layout() {
        let mut record: Vec<u8> = (1..=27).collect();
        record[16] = 3;
        let access = OracleGeneralOpNs.decode(&record).unwrap().unwrap();
        let want = Access::get(0x0403_0201, 0x0c0b_0a09_0807_0605, 0x100f_0e0d);
        assert_eq!(access, Access { op: Op::Set, ..want });
        record[16] = 200;
        assert_eq!(OracleGeneralOpNs.decode(&record), Ok(None));
    }
}
