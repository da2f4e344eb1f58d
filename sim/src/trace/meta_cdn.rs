//! Meta's CDN; columns are found by the header's names.
//!
//! ```text
//! timestamp,cacheKey,OpType,objectSize,responseSize,responseHeaderSize,rangeStart,rangeEnd,TTL,SamplingRate
//! 1582703986,k1f0a314b94976951,1,75666,76210,544,-1,-1,1209600,0.00100000
//! ```
//!
//! - `OpType` 1 is a read; others are passed over.
//! - A range is a read of its whole object: a cache that keeps parts would do better.
//! - The TTL is that of the object as it would be fetched.
//! - The log is a sample of so many objects as `SamplingRate` says: a cache of its size stands for one
//!   of `1 / SamplingRate` times that.
//!
//! The layout is that of `CacheLib`'s documentation, "Cachebench", and its `CDNReplayGenerator`.

use super::fields::{number, number_u32, object_id, seconds, size};
use super::header::Columns;
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, OpenError};

/// The lines.
pub(crate) struct MetaCdn(Columns<5>);

impl MetaCdn {
    /// Finds the columns.
    ///
    /// # Errors
    ///
    /// One is not in the header.
    pub(crate) fn open(head: &[u8]) -> Result<Self, OpenError> {
        Columns::find(head, ["timestamp", "cacheKey", "OpType", "objectSize", "TTL"]).map(Self)
    }
}

impl LineFormat for MetaCdn {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if line.starts_with(b"timestamp,") {
            return Ok(Parsed::Silent);
        }
        let [time, key, op, object_size, ttl] = self.0.of(line)?;
        if key.is_empty() {
            return Err(Fault::EmptyId);
        }
        if number(op) != Some(1) {
            return Ok(Parsed::PassedOver);
        }
        let access = Access::get(seconds(time)?, object_id(key), size(object_size)?);
        // -1 and 0 are no TTL.
        let ttl_s = if ttl.starts_with(b"-") { 0 } else { number_u32("TTL", ttl)? };
        Ok(Parsed::One(Access { ttl_s, ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::read;

    /// The beginning of `CacheLib`'s `bigcache.csv` (Apache-2.0) with other keys, and a line of our own.
    const TEXT: &str = "\
timestamp,cacheKey,OpType,objectSize,responseSize,responseHeaderSize,rangeStart,rangeEnd,TTL,SamplingRate
1582703986,k1f0a314b94976951,1,75666,76210,544,-1,-1,1209600,0.00100000
1582703987,ke7f34d60d04b97ed,1,39121,1419,531,38233,39120,1209600,0.00100000
1582703987,ke7f34d60d04b97ed,2,39121,1419,531,38233,39120,1209600,0.00100000
";

    #[test]
    fn a_range_is_a_read_of_its_whole_object() {
        let (items, notes) = read(MetaCdn::open(TEXT.as_bytes()).unwrap(), TEXT);
        let second = *items[1].as_ref().unwrap();
        let want = Access::get(1_582_703_987, object_id(b"ke7f34d60d04b97ed"), 39_121);
        assert_eq!(second, Access { ttl_s: 1_209_600, ..want });
        assert_eq!((items.len(), notes.passed_over), (2, 1));
    }
}
