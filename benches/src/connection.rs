//! One client of the server, without its socket: requests in as keys, bytes out; bytes in, answers
//! checked and tallied.
//!
//! ```text
//! ask ──> output ──> socket ──> server ──> socket ──> input ──> take_replies ──> Tally
//!   └──> pending: what was asked, in order ───────────────────────────^
//! ```
//!
//! Replies come in the order of the requests, so the front of `pending` says what the next reply
//! answers, and every hit can be compared with the bytes its key must have.

use std::collections::VecDeque;
use std::time::Instant;

use crate::tally::{Tally, Window};
use crate::wire::{Dialect, Reply, WireError, next_reply, printable};
use crate::workload::{Ask, Workload};

const INPUT_BYTES: usize = 64 * 1024;

/// The server's answer does not fit what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The bytes are no reply at all.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A reply that no request asked for.
    #[error("the server sent '{reply}' when nothing was asked")]
    Unasked {
        /// The reply.
        reply: String,
    },
    /// A reply to another kind of request.
    #[error("the server answered a {asked} with '{reply}'")]
    Mismatch {
        /// The request's kind.
        asked: &'static str,
        /// The reply.
        reply: String,
    },
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    ask: Ask,
    /// Keys of it that no reply has dealt with.
    keys_left: u32,
    /// Whether it was one request of several keys: its end is then told apart from its last hit.
    several: bool,
    /// When it was to be sent: latency counts from here.
    intended: Instant,
}

/// One client of the server, without its socket.
#[derive(Debug)]
pub struct Connection {
    output: Vec<u8>,
    output_sent: usize,
    input: Vec<u8>,
    input_start: usize,
    input_end: usize,
    pending: VecDeque<Pending>,
    keys: VecDeque<u32>,
    missed: Vec<u32>,
    key: Vec<u8>,
}

impl Connection {
    /// A client that has asked for nothing yet.
    pub fn new() -> Self {
        Self {
            output: Vec::new(),
            output_sent: 0,
            input: vec![0; INPUT_BYTES],
            input_start: 0,
            input_end: 0,
            pending: VecDeque::new(),
            keys: VecDeque::new(),
            missed: Vec::new(),
            key: Vec::new(),
        }
    }

    /// Queues a request for `keys`, which was to be sent at `intended`.
    #[inline]
    pub fn ask(&mut self, workload: &Workload, ask: Ask, keys: &[u32], intended: Instant) {
        let key_bytes = workload.keyspace.key_bytes();
        self.key.resize(keys.len() * key_bytes, 0);
        for (key, &index) in self.key.chunks_exact_mut(key_bytes).zip(keys) {
            workload.keyspace.write_key(index, key);
        }
        match ask {
            Ask::Get => {
                workload.dialect.write_get(self.key.chunks_exact(key_bytes), &mut self.output);
            }
            Ask::Set => {
                let value_bytes = workload.value_bytes_of(keys[0]);
                let values = &workload.values;
                workload.dialect.write_set(&self.key, value_bytes, values, &mut self.output);
            }
        }
        self.keys.extend(keys);
        let keys_left = u32::try_from(keys.len()).expect("a request has a bounded number of keys");
        self.pending.push_back(Pending { ask, keys_left, several: keys.len() > 1, intended });
    }

    /// Requests without a complete answer.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// What is unanswered, each with when it was to be sent.
    pub fn unanswered(&self) -> impl Iterator<Item = (Ask, Instant)> {
        self.pending.iter().map(|pending| (pending.ask, pending.intended))
    }

    /// A key that a get missed and nobody has set since, if the workload fills.
    #[inline]
    pub fn next_missed(&mut self) -> Option<u32> {
        self.missed.pop()
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub fn unsent(&self) -> &[u8] {
        &self.output[self.output_sent..]
    }

    /// The first `bytes` of [`Self::unsent`] are on their way.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.output_sent += bytes;
        debug_assert!(self.output_sent <= self.output.len(), "sent no more than there was");
        if self.output_sent == self.output.len() {
            self.output.clear();
            self.output_sent = 0;
        }
    }

    /// Where the next bytes from the server go; never empty.
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        if self.input_end == self.input.len() {
            if self.input_start > 0 {
                self.input.copy_within(self.input_start..self.input_end, 0);
                self.input_end -= self.input_start;
                self.input_start = 0;
            } else {
                // One reply fills the whole input: it is larger than any before it.
                self.input.resize(2 * self.input.len(), 0);
            }
        }
        &mut self.input[self.input_end..]
    }

    /// `bytes` of [`Self::room`] have been filled.
    #[inline]
    pub fn received(&mut self, bytes: usize) {
        self.input_end += bytes;
        debug_assert!(self.input_end <= self.input.len(), "received no more than there was room");
    }

    /// Checks and tallies every answer that is complete, as of `now`.
    ///
    /// # Errors
    /// When the server's bytes are no answer to what was asked; the conversation cannot go on.
    pub fn take_replies(
        &mut self,
        workload: &Workload,
        now: Instant,
        window: &Window,
        tally: &mut Tally,
    ) -> Result<(), ReplyError> {
        let counts = window.contains(now);
        while let Some((reply, bytes)) = next_reply(&self.input[self.input_start..self.input_end])?
        {
            let Some(pending) = self.pending.front_mut() else {
                return Err(ReplyError::Unasked { reply: reply.describe() });
            };
            let complete = match (pending.ask, &reply) {
                (Ask::Get, Reply::Hit { key, value }) => {
                    let is_alone = workload.dialect == Dialect::Meta && !pending.several;
                    let mut found = false;
                    while !found && pending.keys_left > 0 {
                        pending.keys_left -= 1;
                        let index = self.keys.pop_front().expect("keys_left of them are queued");
                        self.key.resize(workload.keyspace.key_bytes(), 0);
                        workload.keyspace.write_key(index, &mut self.key);
                        found = self.key == *key || !workload.checks;
                        if !found {
                            tally.misses += u64::from(counts);
                            if workload.fill {
                                self.missed.push(index);
                            }
                        }
                    }
                    if !found {
                        tally.wrong(|| format!("a hit for '{}', not asked for", printable(key)));
                    } else if workload.checks && !workload.values.matches(key, value) {
                        tally.wrong(|| wrong_value(key, value));
                    }
                    tally.hits += u64::from(counts && found);
                    is_alone
                }
                // Redis names no keys: its values come in the order in which they were asked for.
                (Ask::Get, Reply::Array(count)) if *count == pending.keys_left as usize => false,
                (Ask::Get, Reply::Bulk(_) | Reply::Nil) if pending.keys_left > 0 => {
                    pending.keys_left -= 1;
                    let index = self.keys.pop_front().expect("keys_left of them are queued");
                    if let Reply::Bulk(value) = reply {
                        self.key.resize(workload.keyspace.key_bytes(), 0);
                        workload.keyspace.write_key(index, &mut self.key);
                        if workload.checks && !workload.values.matches(&self.key, value) {
                            tally.wrong(|| wrong_value(&self.key, value));
                        }
                        tally.hits += u64::from(counts);
                    } else {
                        tally.misses += u64::from(counts);
                        if workload.fill {
                            self.missed.push(index);
                        }
                    }
                    pending.keys_left == 0
                }
                (Ask::Get, Reply::End | Reply::Miss) => {
                    tally.misses += u64::from(counts) * u64::from(pending.keys_left);
                    let missed = self.keys.drain(..pending.keys_left as usize);
                    if workload.fill {
                        self.missed.extend(missed);
                    }
                    true
                }
                (Ask::Set, Reply::Stored) => {
                    self.keys.pop_front();
                    true
                }
                (ask, Reply::Refused(line)) => {
                    if counts {
                        tally.refused(|| printable(line));
                    }
                    // Of several quiet `mg`s one was refused; the `MN` after them ends the request.
                    let goes_on = workload.dialect == Dialect::Meta && pending.several;
                    if !goes_on {
                        self.keys.drain(..pending.keys_left as usize);
                    }
                    debug_assert!(ask == Ask::Get || !goes_on, "a set has one key");
                    !goes_on
                }
                (Ask::Get, _) => {
                    return Err(ReplyError::Mismatch { asked: "get", reply: reply.describe() });
                }
                (Ask::Set, _) => {
                    return Err(ReplyError::Mismatch { asked: "set", reply: reply.describe() });
                }
            };
            if complete {
                tally.answered(pending.ask, pending.intended, now, window);
                self.pending.pop_front();
            }
            self.input_start += bytes;
        }
        if self.input_start == self.input_end {
            self.input_start = 0;
            self.input_end = 0;
        }
        Ok(())
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn wrong_value(key: &[u8], value: &[u8]) -> String {
    format!("the value of '{}' is not its own: '{}'", printable(key), printable(value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::workload::tests::small_workload;

    struct Talk {
        connection: Connection,
        workload: Workload,
        tally: Tally,
        start: Instant,
    }

    impl Talk {
        fn new(workload: Workload) -> Self {
            Self {
                connection: Connection::new(),
                workload,
                tally: Tally::new(),
                start: clock::now(),
            }
        }

        fn ask(&mut self, ask: Ask, keys: &[u32]) -> String {
            self.connection.ask(&self.workload, ask, keys, self.start);
            let request = String::from_utf8_lossy(self.connection.unsent()).into_owned();
            self.connection.sent(self.connection.unsent().len());
            request
        }

        fn hear(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
            self.connection.room()[..bytes.len()].copy_from_slice(bytes);
            self.connection.received(bytes.len());
            let window = Window { from: self.start, until: None };
            let now = self.start + Duration::from_millis(1);
            self.connection.take_replies(&self.workload, now, &window, &mut self.tally)
        }

        fn hit(&self, index: u32) -> Vec<u8> {
            let mut key = vec![0; self.workload.keyspace.key_bytes()];
            self.workload.keyspace.write_key(index, &mut key);
            let value_bytes = self.workload.value_bytes_of(index);
            let key_text = String::from_utf8_lossy(&key);
            let mut hit = match self.workload.dialect {
                Dialect::Text => format!("VALUE {key_text} 0 {value_bytes}\r\n"),
                Dialect::Meta => format!("VA {value_bytes} k{key_text}\r\n"),
                Dialect::Resp => format!("${value_bytes}\r\n"),
            }
            .into_bytes();
            self.workload.values.append(&key, value_bytes, &mut hit);
            hit.extend_from_slice(b"\r\n");
            hit
        }
    }

    fn meta_workload() -> Workload {
        Workload { dialect: Dialect::Meta, ..small_workload() }
    }

    fn redis_workload() -> Workload {
        Workload { dialect: Dialect::Resp, ..small_workload() }
    }

    #[test]
    fn a_hit_and_a_miss_are_told_apart() {
        for workload in [small_workload(), meta_workload(), redis_workload()] {
            let (after_hit, miss): (&[u8], &[u8]) = match workload.dialect {
                Dialect::Text => (b"END\r\n", b"END\r\n"),
                Dialect::Meta => (b"", b"EN\r\n"),
                Dialect::Resp => (b"", b"$-1\r\n"),
            };
            let mut talk = Talk::new(workload);
            talk.ask(Ask::Get, &[7]);
            talk.ask(Ask::Get, &[8]);
            let hit = talk.hit(7);
            talk.hear(&[&hit, after_hit, miss].concat()).unwrap();
            assert_eq!((talk.tally.hits, talk.tally.misses, talk.tally.gets), (1, 1, 2));
            assert_eq!((talk.tally.wrong, talk.connection.outstanding()), (0, 0));
        }
    }

    #[test]
    fn keys_between_the_hits_of_a_multi_get_are_misses() {
        for workload in [small_workload(), meta_workload()] {
            let mut talk = Talk::new(Workload { keys_per_get: 5, fill: true, ..workload });
            talk.ask(Ask::Get, &[1, 2, 3, 3, 4]);
            let end: &[u8] =
                if talk.workload.dialect == Dialect::Text { b"END\r\n" } else { b"MN\r\n" };
            let replies = [talk.hit(2), talk.hit(3), talk.hit(3), end.to_vec()].concat();
            for byte in replies {
                talk.hear(&[byte]).unwrap();
            }
            assert_eq!((talk.tally.hits, talk.tally.misses, talk.tally.gets), (3, 2, 1));
            assert_eq!(talk.connection.next_missed(), Some(4));
            assert_eq!(talk.connection.next_missed(), Some(1));
            assert_eq!(talk.connection.next_missed(), None);
            assert_eq!(talk.connection.outstanding(), 0);
        }
    }

    #[test]
    fn a_value_of_another_key_or_with_a_flipped_bit_is_wrong() {
        let mut talk = Talk::new(small_workload());
        let mut flipped = talk.hit(7);
        let last = flipped.len() - 3;
        flipped[last] ^= 1;
        for replies in [flipped, talk.hit(8)] {
            talk.ask(Ask::Get, &[7]);
            talk.hear(&[replies.as_slice(), b"END\r\n"].concat()).unwrap();
        }
        assert_eq!(talk.tally.wrong, 2);
        assert!(talk.tally.samples[0].contains("is not its own"));
        assert!(talk.tally.samples[1].contains("not asked for"));
    }

    #[test]
    fn a_refused_set_is_counted_and_the_talk_goes_on() {
        let mut talk = Talk::new(small_workload());
        assert!(talk.ask(Ask::Set, &[7]).starts_with("set k0000007 0 0 "));
        talk.ask(Ask::Set, &[8]);
        talk.hear(b"SERVER_ERROR out of memory storing object\r\nSTORED\r\n").unwrap();
        assert_eq!((talk.tally.refused, talk.tally.sets), (1, 2));
        assert_eq!(talk.tally.samples, ["SERVER_ERROR out of memory storing object"]);
    }

    #[test]
    fn an_answer_to_nothing_ends_the_talk() {
        let mut talk = Talk::new(small_workload());
        assert!(matches!(talk.hear(b"STORED\r\n"), Err(ReplyError::Unasked { .. })));
        let mut talk = Talk::new(small_workload());
        talk.ask(Ask::Get, &[7]);
        assert!(matches!(talk.hear(b"STORED\r\n"), Err(ReplyError::Mismatch { .. })));
    }

    #[test]
    fn redis_values_belong_to_the_keys_in_the_order_asked_for() {
        let mut talk = Talk::new(Workload { keys_per_get: 3, fill: true, ..redis_workload() });
        let (first, third) = (talk.hit(7), talk.hit(9));
        talk.ask(Ask::Get, &[7, 8, 9]);
        talk.hear(&[b"*3\r\n".as_slice(), &first, b"$-1\r\n", &third].concat()).unwrap();
        assert_eq!((talk.tally.hits, talk.tally.misses, talk.tally.gets), (2, 1, 1));
        assert_eq!(talk.tally.wrong, 0);
        assert_eq!(talk.connection.next_missed(), Some(8));
        talk.ask(Ask::Get, &[8]);
        talk.hear(&first).unwrap();
        assert_eq!((talk.tally.wrong, talk.connection.outstanding()), (1, 0));
    }

    #[test]
    fn a_value_larger_than_the_input_is_read_whole() {
        let workload = Workload { value_bytes: 300_000..=300_000, ..small_workload() };
        let mut talk = Talk::new(workload);
        talk.ask(Ask::Get, &[7]);
        let hit = talk.hit(7);
        for piece in hit.chunks(10_000) {
            let room = talk.connection.room().len().min(piece.len());
            talk.hear(&piece[..room]).unwrap();
            if room < piece.len() {
                talk.hear(&piece[room..]).unwrap();
            }
        }
        talk.hear(b"END\r\n").unwrap();
        assert_eq!((talk.tally.hits, talk.tally.wrong), (1, 0));
    }

    #[test]
    fn latency_counts_from_when_the_request_was_to_be_sent() {
        let mut talk = Talk::new(small_workload());
        talk.ask(Ask::Get, &[7]);
        talk.ask(Ask::Get, &[8]);
        // Heard together, 1 ms after both were to be sent, whatever was sent when.
        talk.hear(b"END\r\nEND\r\n").unwrap();
        let latency = &talk.tally.get_latency;
        assert_eq!(latency.len(), 2);
        assert!(latency.min() > 990_000 && latency.max() < 1_010_000, "both waited 1 ms");
    }
}
