//! Wikimedia's CDN: the public traces of 2019 (upload and text) and 2016, separated by tabs.
//!
//! ```text
//! 2019 upload  relative_unix  hashed_path_query  image_type  response_size  time_firstbyte
//! 2019 text    relative_unix  hashed_host_path_query  response_size  time_firstbyte
//! 2016         hashed_host_and_path  uri_query  content_type  response_size  X_Cache
//! ```
//!
//! A first line of names is passed over. In 2016 there are no times. The layouts are those of
//! wikitech.wikimedia.org, "Analytics/Data Lake/Traffic/Caching".

use super::fields::{Fields, compound_id, object_id, seconds, size};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault};

/// The lines of one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wikimedia {
    Upload2019,
    Text2019,
    Of2016,
}

impl LineFormat for Wikimedia {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        if line.starts_with(b"relative_unix") || line.starts_with(b"hashed_host") {
            return Ok(Parsed::Silent);
        }
        let mut fields = Fields::new(line, b'\t');
        let access = match self {
            Self::Upload2019 | Self::Text2019 => {
                let time_s = seconds(fields.next("time")?)?;
                let id = fields.next("object")?;
                fields.skip(usize::from(*self == Self::Upload2019), "image type")?;
                Access::get(time_s, object_id(id), size(fields.next("size")?)?)
            }
            Self::Of2016 => {
                let (path, query) = (fields.next("path")?, fields.next("query")?);
                fields.skip(1, "content type")?;
                Access::get(0, compound_id(&[path, query]), size(fields.next("size")?)?)
            }
        };
        Ok(Parsed::One(access))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint};

    #[test]
    fn each_year_has_its_layout() {
        let upload = "relative_unix\thashed_path_query\timage_type\tresponse_size\ttime_firstbyte\n\
                      0\t833946053\tjpeg\t9665\t1.85E-4\n";
        assert_eq!(accesses(Wikimedia::Upload2019, upload), [Access::get(0, 833_946_053, 9665)]);
        let text = "5\t-833946053\t9665\t1.85E-4\n";
        let want = Access::get(5, object_id(b"-833946053"), 9665);
        assert_eq!(accesses(Wikimedia::Text2019, text), [want]);
        let of_2016 = "2385\t?x=1\ttext/html\t77\thit\n2385\t\ttext/html\t77\thit\n";
        let read = accesses(Wikimedia::Of2016, of_2016);
        assert_eq!(read[0].size_bytes, 77);
        assert_ne!(read[0].id, read[1].id);
    }

    #[test]
    fn a_line_cut_short_is_malformed() {
        let want = "line 1: no column 3 for the size, the line has 2";
        assert_eq!(complaint(Wikimedia::Text2019, "5\t7\n"), want);
    }
}
