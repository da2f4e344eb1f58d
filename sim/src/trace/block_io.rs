//! Block storage: the public traces of MSR Cambridge, Tencent and Systor '17.
//!
//! ```text
//! MSR      Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime     filetime; bytes; no header
//! Tencent  time,offset,size,io type,volume                                 s; sectors of 512 B; no header
//! Systor   Timestamp,Response,IOType,LUN,Offset,Size                       s with fraction; bytes
//! ```
//!
//! An object is what begins at an offset of a disk, as large as this request; reads and writes are gets
//! alike, as in libCacheSim. A filetime counts 100 ns since 1601. The layouts are those of SNIA's IOTTA
//! repository (MSR: set 388; Systor: set 4964; Tencent: set 27917).

use super::fields::{Fields, bad, compound_id, number_u64, seconds, size};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// Filetime's steps in a second.
const FILETIME_STEPS_PER_S: u64 = 10_000_000;

/// Seconds from 1601 to 1970.
const FILETIME_EPOCH_S: u64 = 11_644_473_600;

/// Bytes of a sector.
const SECTOR_BYTES: u32 = 512;

/// The lines of one of the traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockIo {
    Msr,
    Tencent,
    Systor,
}

impl LineFormat for BlockIo {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut fields = Fields::new(line, b',');
        let access = match self {
            Self::Msr => {
                let time_s = filetime(fields.next("time")?)?;
                let (host, disk) = (fields.next("host")?, fields.next("disk")?);
                fields.skip(1, "type")?;
                let offset = fields.next("offset")?;
                let size_bytes = size(fields.next("size")?)?;
                Access::get(time_s, compound_id(&[host, disk, offset]), size_bytes)
            }
            Self::Tencent => {
                let time_s = seconds(fields.next("time")?)?;
                let offset = fields.next("offset")?;
                let sectors = size(fields.next("size")?)?;
                fields.skip(1, "io type")?;
                let id = compound_id(&[fields.next("volume")?, offset]);
                Access::get(time_s, id, sectors.saturating_mul(SECTOR_BYTES))
            }
            Self::Systor if line.starts_with(b"Timestamp") => return Ok(Parsed::Silent),
            Self::Systor => {
                let time_s = seconds(fields.next("time")?)?;
                fields.skip(2, "type")?;
                let (unit, offset) = (fields.next("LUN")?, fields.next("offset")?);
                Access::get(time_s, compound_id(&[unit, offset]), size(fields.next("size")?)?)
            }
        };
        Ok(Parsed::One(access))
    }
}

/// A filetime in seconds since 1970.
fn filetime(text: &[u8]) -> Result<u32, Fault> {
    let steps = number_u64("time", text)?;
    (steps / FILETIME_STEPS_PER_S)
        .checked_sub(FILETIME_EPOCH_S)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .ok_or_else(|| bad("time", text, "a filetime from 1970 to 2106"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint};

    #[test]
    fn each_trace_has_its_layout() {
        let msr = "128166372003061629,hm,1,Read,383496192,32768,413\n\
                   128166372013061629,hm,0,Write,383496192,4096,413\n";
        let read = accesses(BlockIo::Msr, msr);
        assert_eq!((read[0].time_s, read[0].size_bytes), (1_172_163_600, 32_768));
        assert_ne!(read[0].id, read[1].id, "the same offset of another disk");

        let tencent = "1538323200,12910952,128,0,1063\n1538323201,12910952,8,1,1063\n";
        let read = accesses(BlockIo::Tencent, tencent);
        assert_eq!((read[0].time_s, read[0].size_bytes), (1_538_323_200, 65_536));
        assert_eq!(read[0].id, read[1].id);

        let systor = "Timestamp,Response,IOType,LUN,Offset,Size\n\
                      1455592441.001453000,0.000256,W,0,1035632640,4096\n";
        let read = accesses(BlockIo::Systor, systor);
        assert_eq!((read[0].time_s, read[0].size_bytes), (1_455_592_441, 4096));
    }

    #[test]
    fn a_time_that_is_none_is_malformed() {
        let want = "line 1: the time is `7`, not a filetime from 1970 to 2106";
        assert_eq!(complaint(BlockIo::Msr, "7,hm,1,Read,383496192,32768,413\n"), want);
    }
}
