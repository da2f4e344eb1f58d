//! `Log`: a request log as a replay plays it: its requests in order, completed by what the log itself
//! tells of the values that misses are filled with.
//!
//! A log of a key-value store is read twice, as the simulator reads it: before the first write of a key
//! a miss is filled with what that will write.

use std::path::PathBuf;

use sim::fill::{Fills, FirstWrites};
use sim::trace::{Access, Format, OpenError, Trace, TraceError};
use sim::ttl::TtlRule;

use super::Wanted;

/// Where a log is, and how it is to be understood.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its file.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
    /// Whether a record that cannot be read ends the replay.
    pub strict: bool,
    /// Which TTLs items get.
    pub ttl: TtlRule,
}

/// Why a log cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read to its end beforehand.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// What of a log could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// How many records.
    pub count: u64,
    /// Where the first is, and what is wrong with it.
    pub first: Option<String>,
}

impl Log {
    /// Opens the log; one with writes is read to its end once before.
    ///
    /// # Errors
    /// When it cannot be opened or, beforehand, read.
    pub fn open(&self) -> Result<Requests<'_>, LogError> {
        let trace = Trace::open(&self.path, &self.format)?;
        let has_writes = trace.format().has_writes();
        let mut requests =
            Requests { log: self, trace, fills: None, malformed: Malformed::default() };
        if !has_writes {
            return Ok(requests);
        }
        let mut first_writes = FirstWrites::default();
        while let Some(access) = requests.next_access() {
            first_writes.note(&access?.into());
        }
        requests.trace = Trace::open(&self.path, &self.format)?;
        requests.fills = Some(first_writes.into_fills());
        requests.malformed = Malformed::default();
        Ok(requests)
    }
}

/// The requests of a [`Log`].
pub struct Requests<'a> {
    log: &'a Log,
    trace: Trace,
    /// None for a log of gets alone.
    fills: Option<Fills>,
    malformed: Malformed,
}

impl Requests<'_> {
    /// What could not be read by now.
    pub fn malformed(&self) -> &Malformed {
        &self.malformed
    }

    /// The next access that is played: reads of size 0 are, as in `cache-sim`, only where the log is of
    /// a key-value store.
    fn next_access(&mut self) -> Option<Result<Access, TraceError>> {
        loop {
            match self.trace.next()? {
                Ok(access) => {
                    let is_unknown = access.size_bytes == 0 && access.op.is_read();
                    if is_unknown && !self.trace.format().has_writes() {
                        continue;
                    }
                    return Some(Ok(Access { ttl_s: self.log.ttl.apply(access.ttl_s), ..access }));
                }
                Err(error @ TraceError::Malformed { .. }) if !self.log.strict => {
                    self.malformed.count += 1;
                    self.malformed.first.get_or_insert_with(|| error.to_string());
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for Requests<'_> {
    type Item = Result<Wanted, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let access = match self.next_access()? {
            Ok(access) => access,
            Err(error) => return Some(Err(error)),
        };
        let mut wanted = Wanted::from(access);
        if let Some(fills) = &mut self.fills {
            fills.complete(&mut wanted.request);
        }
        Some(Ok(wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sim::trace::Op;

    use super::*;

    fn played(text: &str, ttl: TtlRule) -> (Vec<(Op, u32, u32)>, Malformed) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        fs::write(&path, text).unwrap();
        let log = Log { path, format: Format::Twitter, strict: false, ttl };
        let mut requests = log.open().unwrap();
        let played = requests
            .by_ref()
            .map(|wanted| wanted.unwrap().request)
            .map(|request| (request.op, request.size_bytes, request.ttl_s))
            .collect();
        (played, requests.malformed().clone())
    }

    #[test]
    fn a_read_knows_what_the_log_writes_and_a_bad_line_is_counted_once() {
        let text = "0,k,1,0,0,get,0\nnonsense\n1,k,1,70,0,set,60\n2,k,1,70,0,get,0\n";
        let (requests, malformed) = played(text, TtlRule::Log);
        assert_eq!(requests, [(Op::Get, 70, 60), (Op::Set, 70, 60), (Op::Get, 70, 60)]);
        assert_eq!(malformed.count, 1);
        assert!(malformed.first.unwrap().starts_with("line 2"));
    }

    #[test]
    fn the_rule_for_ttls_holds_for_what_is_filled_in_too() {
        let text = "0,k,1,0,0,get,0\n1,k,1,70,0,set,60\n";
        let (requests, _) = played(text, TtlRule::Fixed(5));
        assert_eq!(requests, [(Op::Get, 70, 5), (Op::Set, 70, 5)]);
    }
}
