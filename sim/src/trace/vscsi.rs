//! vscsi: block I/O of virtual machines (`CloudPhysics`), two versions, packed, little-endian.
//!
//! ```text
//! version 1, 32 B:  | 0 sn: u32 | 4 bytes: u32 | 8 nSG: u32 | 12 cmd: u16 | 14 version: u16 | 16 block: u64 | 24 time, us: u64 |
//! version 2, 40 B:  | 0 cmd: u16 | 2 version: u16 | 4 sn: u32 | 8 bytes: u32 | 12 nSG: u32 | 16 block: u64 | 24 time, us: u64 | 32 rt: u64 |
//! ```
//!
//! The version is the high byte of its field. The layout is that of libCacheSim's
//! `traceReader/customizedReader/vscsi.h`. As there, an object is what begins at a block, and reads and
//! writes are gets alike.

use super::records::{RecordFormat, u16_at, u32_at, u64_at};
use super::{Access, Fault};

/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;

/// The records of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vscsi {
    V1,
    V2,
}

impl Vscsi {
    /// The version that the first records say.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        [Self::V2, Self::V1].into_iter().find(|version| {
            let mut records = head.chunks_exact(version.record_bytes()).take(8).peekable();
            records.peek().is_some() && records.all(|record| version.is_said_by(record))
        })
    }

    fn is_said_by(self, record: &[u8]) -> bool {
        match self {
            Self::V1 => u16_at(record, 14) >> 8 == 1,
            Self::V2 => u16_at(record, 2) >> 8 == 2,
        }
    }
}

impl RecordFormat for Vscsi {
    fn record_bytes(&self) -> usize {
        match self {
            Self::V1 => 32,
            Self::V2 => 40,
        }
    }

    fn decode(&mut self, record: &[u8]) -> Result<Option<Access>, Fault> {
        let bytes_at = match self {
            Self::V1 => 4,
            Self::V2 => 8,
        };
        let time_s = u32::try_from(u64_at(record, 24) / SECOND_US).unwrap_or(u32::MAX);
        Ok(Some(Access::get(time_s, u64_at(record, 16), u32_at(record, bytes_at))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart_and_have_the_documented_layouts() {
        let mut v1 = vec![0; 32];
        (v1[4], v1[15], v1[16], v1[26]) = (5, 1, 9, 0x2d);
        let mut v2 = vec![0; 40];
        (v2[8], v2[3], v2[16], v2[26]) = (5, 2, 9, 0x2d);
        for (record, version) in [(v1, Vscsi::V1), (v2, Vscsi::V2)] {
            assert_eq!(Vscsi::of(&record.repeat(3)), Some(version));
            let mut version = version;
            assert_eq!(version.decode(&record), Ok(Some(Access::get(2, 9, 5))));
        }
        assert_eq!(Vscsi::of(&[0; 80]), None);
        assert_eq!(Vscsi::of(b""), None);
    }
}
