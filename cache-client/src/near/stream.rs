//! The stream that tells which keys change, as a state machine: bytes in, what they tell out.
//!
//! ```text
//! asked ──OK──▶ open ──key=, all, skipped=──▶ told, in order
//!                 │ ping every interval ──alive=N──▶ up to date as of when the N-th ping left
//!                 `─ no answer to a ping for too long, a line that is none: lost
//! ```
//!
//! What a ping proves is counted from when it was sent, so no two clocks are compared, and a stream that is alive
//! but late, wherever it is held up, is known to be late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::KEY_BYTES_MAX;
use protocol::changes::{ChangeLine, LINE_BYTES_MAX};

/// What a server says of itself that knows no such stream, or has none to give: no more of it is kept.
const REFUSAL_BYTES_MAX: usize = 120;

/// What a stream is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// From one ping to the next.
    pub(super) ping_interval: Duration,
    /// How long the answer to one may take.
    pub(super) silence_max: Duration,
}

/// What the stream tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    /// Whatever a reader can see change from this moment on will be told.
    Open { through: Instant },
    /// Whatever readers could see at this moment has been told.
    Alive { through: Instant },
    /// The item of this key has changed.
    Key(&'a [u8]),
    /// Any item may have.
    All,
}

/// Why a stream has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("the server refuses: {0}")]
    Refused(String),
    #[error("a line of the stream is none: {0}")]
    Garbage(String),
    #[error("a line of the stream does not end")]
    Endless,
    #[error("the server did not answer for {0:?}")]
    Silent(Duration),
}

/// One stream, from its request to its end.
#[derive(Debug)]
pub(super) struct Stream {
    pace: Pace,
    asked_at: Instant,
    is_open: bool,
    /// When the next ping is due.
    ping_at: Instant,
    /// Pings sent, and when those left that were not answered.
    sent: u64,
    unanswered: VecDeque<Instant>,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Stream {
    /// A stream that is about to be asked for.
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            asked_at: now,
            is_open: false,
            ping_at: now,
            sent: 0,
            unanswered: VecDeque::new(),
            begun: Vec::new(),
        }
    }

    /// Bytes have come.
    pub(super) fn input(
        &mut self,
        bytes: &[u8],
        mut tell: impl FnMut(Told<'_>),
    ) -> Result<(), Lost> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let (end, after) = (&rest[..at], &rest[at + 1..]);
            if self.begun.is_empty() {
                self.line(end, &mut tell)?;
            } else {
                self.keep(end)?;
                let line = std::mem::take(&mut self.begun);
                self.line(&line, &mut tell)?;
                self.begun = line;
                self.begun.clear();
            }
            rest = after;
        }
        self.keep(rest)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Lost> {
        if self.begun.len() + part.len() > LINE_BYTES_MAX {
            return Err(Lost::Endless);
        }
        self.begun.extend_from_slice(part);
        Ok(())
    }

    fn line(&mut self, line: &[u8], tell: &mut impl FnMut(Told<'_>)) -> Result<(), Lost> {
        if !self.is_open {
            if line != b"OK\r" {
                return Err(Lost::Refused(shown(line)));
            }
            self.is_open = true;
            tell(Told::Open { through: self.asked_at });
            return Ok(());
        }
        let garbage = || Lost::Garbage(shown(line));
        match ChangeLine::decode(line, &mut [0; KEY_BYTES_MAX]).ok_or_else(garbage)? {
            ChangeLine::Key(key) => tell(Told::Key(key)),
            ChangeLine::All | ChangeLine::Skipped(_) => tell(Told::All),
            ChangeLine::Alive(pings) => {
                let open = self.unanswered.len() as u64;
                // Pings are answered in order, some of them together, none twice unless lines were left out.
                let answered = pings.checked_sub(self.sent - open).filter(|&it| it <= open);
                let answered = answered.ok_or_else(garbage)?;
                let last = (0..answered).filter_map(|_| self.unanswered.pop_front()).last();
                if let Some(through) = last {
                    tell(Told::Alive { through });
                }
            }
        }
        Ok(())
    }

    /// The time has passed: whether a ping is to be sent now.
    pub(super) fn tick(&mut self, now: Instant) -> Result<bool, Lost> {
        if now >= self.lost_at() {
            return Err(Lost::Silent(self.pace.silence_max));
        }
        let is_due = self.is_open && now >= self.ping_at;
        if is_due {
            self.sent += 1;
            self.unanswered.push_back(now);
            self.ping_at = now + self.pace.ping_interval;
        }
        Ok(is_due)
    }

    /// When [`tick`](Self::tick) is to be called at the latest.
    pub(super) fn wakes_at(&self) -> Instant {
        let lost_at = self.lost_at();
        if self.is_open { lost_at.min(self.ping_at) } else { lost_at }
    }

    fn lost_at(&self) -> Instant {
        let since = match self.unanswered.front() {
            Some(&ping) => ping,
            None if self.is_open => self.ping_at,
            None => self.asked_at,
        };
        since + self.pace.silence_max
    }
}

fn shown(line: &[u8]) -> String {
    line[..line.len().min(REFUSAL_BYTES_MAX)].trim_ascii_end().escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::test_time;

    const PACE: Pace =
        Pace { ping_interval: Duration::from_millis(100), silence_max: Duration::from_secs(1) };

    fn at(millis: u64) -> Instant {
        test_time::start() + Duration::from_millis(millis)
    }

    fn told(stream: &mut Stream, bytes: &[u8]) -> Result<Vec<String>, Lost> {
        let mut told = Vec::new();
        stream.input(bytes, |it| {
            told.push(match it {
                Told::Open { through } => format!("open {}", (through - at(0)).as_millis()),
                Told::Alive { through } => format!("alive {}", (through - at(0)).as_millis()),
                Told::Key(key) => format!("key {}", key.escape_ascii()),
                Told::All => "all".to_owned(),
            });
        })?;
        Ok(told)
    }

    fn open_stream() -> Stream {
        let mut stream = Stream::new(PACE, at(0));
        assert_eq!(told(&mut stream, b"OK\r\n").unwrap(), ["open 0"]);
        stream
    }

    #[test]
    fn changes_are_told_in_order_however_the_bytes_come() {
        let mut stream = open_stream();
        let told_whole = told(&mut stream, b"key=a%3A1\nall\nskipped=3\nkey=b\n").unwrap();
        assert_eq!(told_whole, ["key a:1", "all", "all", "key b"]);
        let parts: Vec<_> = b"key=a%3A1\nkey=b\n"
            .iter()
            .flat_map(|it| told(&mut stream, &[*it]).unwrap())
            .collect();
        assert_eq!(parts, ["key a:1", "key b"]);
    }

    #[test]
    fn an_answer_proves_what_was_when_its_ping_was_sent() {
        let mut stream = open_stream();
        assert!(stream.tick(at(5)).unwrap());
        assert!(!stream.tick(at(104)).unwrap());
        assert!(stream.tick(at(105)).unwrap());
        assert!(stream.tick(at(205)).unwrap());
        assert_eq!(told(&mut stream, b"alive=2\n").unwrap(), ["alive 105"]);
        assert!(told(&mut stream, b"alive=2\n").unwrap().is_empty());
        assert_eq!(told(&mut stream, b"alive=3\n").unwrap(), ["alive 205"]);
    }

    #[test]
    fn an_answer_without_a_ping_is_none() {
        let mut stream = open_stream();
        assert!(stream.tick(at(5)).unwrap());
        let lost = told(&mut stream, b"alive=2\n").unwrap_err();
        assert_eq!(lost, Lost::Garbage("alive=2".to_owned()));
    }

    #[test]
    fn a_stream_that_does_not_answer_is_lost_in_time() {
        let mut stream = Stream::new(PACE, at(0));
        assert!(!stream.tick(at(999)).unwrap());
        assert_eq!(stream.wakes_at(), at(1000));
        assert_eq!(stream.tick(at(1000)), Err(Lost::Silent(PACE.silence_max)));

        let mut stream = open_stream();
        (0..10).for_each(|n| assert!(stream.tick(at(n * 100)).unwrap()));
        assert_eq!(told(&mut stream, b"alive=4\nkey=a\n").unwrap(), ["alive 300", "key a"]);
        assert!(stream.tick(at(1399)).is_ok());
        assert!(stream.tick(at(1400)).is_err(), "the fifth ping left at 400");
    }

    #[test]
    fn a_server_that_knows_no_such_stream_is_told_from_one_that_talks_nonsense() {
        let lost = |bytes: &[u8]| told(&mut Stream::new(PACE, at(0)), bytes).unwrap_err();
        assert_eq!(lost(b"ERROR\r\n"), Lost::Refused("ERROR".to_owned()));
        assert_eq!(lost(b"OK\r\nhello\n"), Lost::Garbage("hello".to_owned()));
        assert_eq!(lost(&[b'x'; LINE_BYTES_MAX + 1]), Lost::Endless);
        assert_eq!(told(&mut open_stream(), &[b'x'; LINE_BYTES_MAX + 1]), Err(Lost::Endless));
    }

    proptest! {
        #[test]
        fn whatever_comes_ends_in_lines_told_or_in_an_error(
            bytes in vec(any::<u8>(), 0..4000),
            cuts in vec(1usize..100, 0..100),
        ) {
            let mut stream = open_stream();
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1000).min(rest.len()));
                if told(&mut stream, now).is_err() {
                    break;
                }
                prop_assert!(stream.begun.len() <= LINE_BYTES_MAX);
                rest = later;
            }
        }

        #[test]
        fn lines_that_are_nearly_right_never_panic(
            lines in vec("(OK\r|all|key=[a%0-9]{0,5}|skipped=[0-9]{0,3}|alive=[0-9]{1,2})\n", 0..20),
            pings in 0u64..5,
        ) {
            let mut stream = open_stream();
            (0..pings).for_each(|n| assert!(stream.tick(at(n * 100)).unwrap()));
            let _ = told(&mut stream, lines.concat().as_bytes());
        }
    }
}
