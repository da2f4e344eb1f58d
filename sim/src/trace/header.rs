//! `Columns`: which fields of a line are wanted, found by their names in the log's header.
//!
//! Fields are separated by commas and hold no quotes, as in the public data sets.

use memchr::memchr_iter;

use super::{Fault, OpenError};

/// Most columns that are asked for at once.
const WANTED_MAX: usize = 8;

/// Where wanted fields stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<const N: usize> {
    names: [&'static str; N],
    places: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// Finds `names` in the first line of `head`.
    ///
    /// # Errors
    ///
    /// One is not there.
    pub(crate) fn find(head: &[u8], names: [&'static str; N]) -> Result<Self, OpenError> {
        const { assert!(N <= WANTED_MAX, "few enough to be looked up by walking") };
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_prefix(super::lines::BYTE_ORDER_MARK).unwrap_or(line);
        let header: Vec<&[u8]> = line.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).collect();
        let mut places = [0; N];
        for (place, name) in places.iter_mut().zip(names) {
            let found = header.iter().position(|found| *found == name.as_bytes());
            *place = found.ok_or_else(|| OpenError::NoSuchColumn {
                name: name.into(),
                header: String::from_utf8_lossy(line).into_owned(),
            })?;
        }
        Ok(Self { names, places })
    }

    /// The wanted fields of a line.
    #[inline]
    pub(crate) fn of<'a>(&self, line: &'a [u8]) -> Result<[&'a [u8]; N], Fault> {
        let mut found = [None; N];
        let mut start = 0;
        let mut fields = 0;
        for end in memchr_iter(b',', line).chain(std::iter::once(line.len())) {
            for (found, place) in found.iter_mut().zip(self.places) {
                if place == fields {
                    *found = Some(&line[start..end]);
                }
            }
            start = end + 1;
            fields += 1;
        }
        let mut values = [&b""[..]; N];
        for (index, value) in values.iter_mut().enumerate() {
            let (field, column) = (self.names[index], self.places[index] + 1);
            *value = found[index].ok_or(Fault::MissingField { field, column, fields })?;
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_wherever_they_stand() {
        let columns = Columns::find(b"size,time,key\r\n1,2,3\n", ["key", "size"]).unwrap();
        assert_eq!(columns.of(b"10,20,30").unwrap(), [b"30", b"10"]);
        let fault = columns.of(b"10,20").unwrap_err();
        assert_eq!(fault.to_string(), "no column 3 for the key, the line has 2");
    }

    #[test]
    fn a_header_cannot_speak_to_the_terminal() {
        let error = Columns::find(b"size\x1b[2J,time\n", ["key"]).unwrap_err();
        assert!(error.to_string().ends_with(r"size\u{1b}[2J,time"), "{error}");
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = Columns::find(b"size,time\n", ["key"]).unwrap_err();
        assert_eq!(error.to_string(), "no column is named `key`, the header has: size,time");
    }
}
