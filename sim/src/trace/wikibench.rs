//! Wikibench: requests to Wikipedia in 2007.
//!
//! ```text
//! counter time.ms URL -|save
//! 929840891 1190146243.326 http://en.wikipedia.org/wiki/Main_Page -
//! ```
//!
//! A line that ends in `save` changed the page: a cache must forget it. There are no sizes. The traces
//! are those of Urdaneta, Pierre and van Steen, "Wikipedia workload analysis for decentralized
//! hosting", Computer Networks 2009.

use super::fields::{bad, length_of, object_id, seconds, word, words};
use super::lines::{LineFormat, Parsed};
use super::{Access, Fault, Op};

/// The lines.
pub(crate) struct Wikibench;

impl LineFormat for Wikibench {
    fn parse(&mut self, line: &[u8]) -> Result<Parsed, Fault> {
        let mut words = words(line);
        word(&mut words, "counter")?;
        let time_s = seconds(word(&mut words, "time")?)?;
        let url = word(&mut words, "URL")?;
        let op = match word(&mut words, "flag")? {
            b"-" => Op::Get,
            b"save" => Op::Delete,
            other => return Err(bad("flag", other, "`-` or `save`")),
        };
        let access = Access::get(time_s, object_id(url), 1);
        Ok(Parsed::One(Access { op, key_bytes: length_of(url), ..access }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lines::testing::{accesses, complaint, ops};

    #[test]
    fn a_save_makes_the_page_be_forgotten() {
        let text = "1 1190146243.326 http://a/b -\n2 1190146244.1 http://a/b save\n";
        let read = accesses(Wikibench, text);
        assert_eq!(ops(&read), [(Op::Get, 1, 0), (Op::Delete, 1, 0)]);
        assert_eq!((read[1].time_s, read[1].id), (1_190_146_244, read[0].id));
    }

    #[test]
    fn another_flag_is_malformed() {
        let want = "line 1: the flag is `x`, not `-` or `save`";
        assert_eq!(complaint(Wikibench, "1 1190146243.326 http://a/b x\n"), want);
    }
}
