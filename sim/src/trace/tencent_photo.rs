//! Tencent's photo store in 2016.
//!
//! ```text
//! YYYYMMDDHHMMSS photo format size_class bytes hit terminal ms
//! 20160201164604 085abb02a06850729bb01479466420d9e102d325 5 m 12903 1 PHONE 1
//! ```
//!
//! An object is a photo in one format (0 jpg, 5 webp) and size class; other formats mark errors and are
//! passed over. The layout is that of the README of SNIA's IOTTA set 27476 (Zhou et al., ICS 2018).

use super::fields::{bad, compound_id, digits, size, unix_seconds, word, words};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// The lines.
pub(crate) struct TencentPhoto;

impl LineFormat for TencentPhoto {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut words = words(line);
        let time = word(&mut words, "time")?;
        let photo = word(&mut words, "photo")?;
        let format = word(&mut words, "format")?;
        let class = word(&mut words, "size class")?;
        let bytes = word(&mut words, "size")?;
        if format != b"0" && format != b"5" {
            return Ok(Parsed::PassedOver);
        }
        let time_s = timestamp(time).ok_or_else(|| bad("time", time, "YYYYMMDDHHMMSS"))?;
        let id = compound_id(&[photo, format, class]);
        Ok(Parsed::One(Access::get(time_s, id, size(bytes)?)))
    }
}

/// Seconds since 1970 of a time as it is written, taken as UTC.
pub(crate) fn timestamp(text: &[u8]) -> Option<u32> {
    if text.len() != 14 {
        return None;
    }
    let two = |from| digits(text, from, 2);
    unix_seconds([digits(text, 0, 4)?, two(4)?, two(6)?], [two(8)?, two(10)?, two(12)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{complaint, read};

    #[test]
    fn a_photo_in_another_format_or_class_is_another_object() {
        let text = "20160201164604 085a 5 m 12903 1 PHONE 1\n20160201164604 085a 0 m 129 1 PC 1\n\
                    20160201164604 085a 5 b 12903 1 PHONE 1\n20160201164604 085a 9 m 1 1 PC 1\n";
        let (items, notes) = read(TencentPhoto, text);
        let ids: std::collections::HashSet<u64> =
            items.iter().map(|item| item.as_ref().unwrap().id).collect();
        assert_eq!((ids.len(), notes.passed_over), (3, 1));
        assert_eq!(items[0].as_ref().unwrap().time_s, 1_454_345_164);
    }

    #[test]
    fn a_time_that_is_none_is_malformed() {
        let want = "line 1: the time is `2016`, not YYYYMMDDHHMMSS";
        assert_eq!(complaint(TencentPhoto, "2016 085a 5 m 12903 1 PHONE 1\n"), want);
    }
}
