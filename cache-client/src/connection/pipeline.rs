//! `Pipeline`: one connection as a state machine. Requests in, bytes out; bytes in, answers out.
//!
//! ```text
//! callers      0: waits        2: answered      5: waits        a slab: whoever calls has a ticket to it
//!              ▲                                ▲  ▲
//! pending    [ get a ][ set b, given up ][ get c ][ get d ]     what was sent and is not answered, in order
//!              ▲ the next response is to this one
//! output     what is encoded and not yet taken to be written
//! ```
//!
//! - A response belongs to the oldest request that has none. It is taken only if it can be the answer to that
//!   one: of the right kind, and with its opaque or its key. Anything else ends the connection, since from
//!   there on nobody knows whose answer is whose.
//! - A call that is given up leaves its request in its place, and the answer to that is dropped.
//! - When the connection ends, each call that waits is failed and told whether all of its request was written.
//! - Nothing here waits, and the time is an argument.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use protocol::response::Response;
use protocol::{Key, ResponseDecoder, ResponseLimits, ResponseStep};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Dialect;
use crate::connection::command::{self, Command, Expect, Reply};
use crate::error::{Disconnect, Refusal};
use crate::value::Stored;

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests that are not answered, those of calls that were given up included.
    pub(crate) pending_max: usize,
    /// Encoded bytes that are not yet taken to be written. One request may exceed it.
    pub(crate) output_bytes_max: usize,
    /// Requests of calls that were given up.
    pub(crate) abandoned_max: usize,
    /// How long nothing may be heard while answers are due.
    pub(crate) silence_max: Duration,
    /// How long a value may be.
    pub(crate) value_bytes_max: usize,
    /// Whether a get of many keys may be a classic one, of which a node of a cluster leaves out what it does not get
    /// in time, as if it were not there.
    pub(crate) gets_in_lines: bool,
}

/// A call's claim to its answer. It is redeemed or given up, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    One(Reply),
    /// Of a get of many keys, in their order.
    Many(Vec<Option<Stored>>),
    Failed(Failure),
}

/// Why a call was not answered as it should be.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Deadline,
    Lost { source: Disconnect, was_written: bool },
    Refused(Refusal),
}

/// A request that has no answer yet.
#[derive(Debug)]
struct Pending {
    expect: Expect,
    opaque: u32,
    /// Nobody once the call was given up.
    caller: Option<Ticket>,
    /// Where its last byte stands in all that was ever written.
    end: u64,
}

#[derive(Debug, Default)]
struct Caller {
    waker: Option<Waker>,
    deadline: Option<Instant>,
    /// The number of its first request, counted from the beginning of the connection.
    first: u64,
    /// Requests of its that are not answered.
    unanswered: usize,
    outcome: Option<Outcome>,
    /// What a get of many keys has found so far.
    found: Vec<Option<Stored>>,
    is_many: bool,
}

/// One connection, without its socket.
#[derive(Debug)]
pub(crate) struct Pipeline {
    limits: Limits,
    dialect: Dialect,
    decoder: ResponseDecoder,
    pending: VecDeque<Pending>,
    /// The number of the oldest pending request.
    answered: u64,
    callers: Vec<Caller>,
    vacant: Vec<Ticket>,
    abandoned: usize,
    output: Vec<u8>,
    /// Bytes encoded so far, on this connection.
    encoded: u64,
    opaque: u32,
    /// A value or a text whose `END` is still to come.
    partial: Option<Reply>,
    /// No call that waits has an earlier deadline.
    earliest: Option<Instant>,
    /// Since when nothing was heard, while an answer is due.
    silent_since: Option<Instant>,
}

impl Pipeline {
    pub(crate) fn new(limits: Limits, dialect: Dialect) -> Self {
        Self {
            limits,
            dialect,
            decoder: decoder(&limits),
            pending: VecDeque::new(),
            answered: 0,
            callers: Vec::new(),
            vacant: Vec::new(),
            abandoned: 0,
            output: Vec::new(),
            encoded: 0,
            opaque: 0,
            partial: None,
            earliest: None,
            silent_since: None,
        }
    }

    /// Whether another call has room. One that asks more than there is room for at all is let in alone.
    pub(crate) fn has_room(&self, requests: usize) -> bool {
        let fits = self.pending.len() + requests <= self.limits.pending_max;
        (fits || self.pending.is_empty()) && self.output.len() < self.limits.output_bytes_max
    }

    /// Requests that are not answered.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether something is to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// A call of one request.
    pub(crate) fn ask(
        &mut self,
        command: &Command<'_>,
        now: Instant,
        deadline: Instant,
        waker: Waker,
    ) -> Ticket {
        let ticket = self.enter(now, deadline, waker, 1, false);
        let opaque = self.next_opaque();
        let start = self.output.len();
        let expect = command.encode(self.dialect, opaque, &mut self.output);
        self.push(expect, opaque, ticket, start);
        ticket
    }

    /// A call that fetches `count` items, one at least.
    pub(crate) fn ask_many<'k>(
        &mut self,
        keys: impl Iterator<Item = Key<'k>>,
        count: usize,
        with_cas: bool,
        now: Instant,
        deadline: Instant,
        waker: Waker,
    ) -> Ticket {
        let ticket = self.enter(now, deadline, waker, count, true);
        let mut keys = keys;
        let in_one_line = match self.dialect {
            Dialect::Text => count,
            // The last one's answer bears a number, so that an answer too many among the others is noticed before
            // any of them is handed out.
            Dialect::Meta if self.limits.gets_in_lines => count - 1,
            Dialect::Meta => 0,
        };
        if in_one_line > 0 {
            self.ask_in_one_line(keys.by_ref().take(in_one_line), with_cas, ticket);
        }
        for key in keys {
            let opaque = self.next_opaque();
            let start = self.output.len();
            let get = Command::Get { key, touch: None, with_cas };
            let expect = get.encode(self.dialect, opaque, &mut self.output);
            self.push(expect, opaque, ticket, start);
        }
        ticket
    }

    /// A classic get: its answers are shorter, and are told apart by their keys.
    fn ask_in_one_line<'k>(
        &mut self,
        keys: impl Iterator<Item = Key<'k>>,
        with_cas: bool,
        ticket: Ticket,
    ) {
        let (start, first) = (self.output.len(), self.pending.len());
        self.output.extend_from_slice(if with_cas { b"gets" } else { b"get" });
        for key in keys {
            self.output.push(b' ');
            self.output.extend_from_slice(key.as_bytes());
            let key_hash = xxh3_64(key.as_bytes());
            let expect = Expect::TextGet { key_hash, is_last: false };
            self.pending.push_back(Pending { expect, opaque: 0, caller: Some(ticket), end: 0 });
        }
        self.output.extend_from_slice(b"\r\n");
        self.encoded += (self.output.len() - start) as u64;
        for pending in self.pending.iter_mut().skip(first) {
            pending.end = self.encoded;
        }
        if let Some(Pending { expect: Expect::TextGet { is_last, .. }, .. }) =
            self.pending.back_mut()
        {
            *is_last = true;
        }
    }

    /// Takes what is to be written, all of it, into `buffer`, which is empty.
    pub(crate) fn take_output(&mut self, buffer: &mut Vec<u8>) {
        debug_assert!(buffer.is_empty(), "what was taken before is written");
        std::mem::swap(&mut self.output, buffer);
    }

    /// Reads what has come and is not consumed. Whoever is to be woken is appended to `woken`; how much was
    /// consumed is returned, with how long the input must become for more.
    pub(crate) fn receive(
        &mut self,
        input: &[u8],
        now: Instant,
        woken: &mut Vec<Waker>,
    ) -> Result<Received, Disconnect> {
        let mut consumed = 0;
        let wanted = loop {
            let rest = &input[consumed..];
            if rest.is_empty() {
                break 1;
            }
            if self.pending.is_empty() {
                return Err(Disconnect::Unasked);
            }
            match self.decoder.decode(rest) {
                ResponseStep::More { wanted } => break wanted,
                ResponseStep::Malformed(error) => return Err(Disconnect::Malformed(error)),
                ResponseStep::Response { consumed: bytes, response } => {
                    consumed += bytes;
                    self.take(&response, woken)?;
                }
            }
        };
        self.silent_since = (!self.pending.is_empty()).then_some(now);
        Ok(Received { consumed, wanted })
    }

    /// When [`Pipeline::tick`] has something to do, if nothing happens before.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        let silent = self.silent_since.map(|since| since + self.limits.silence_max);
        self.earliest.into_iter().chain(silent).min()
    }

    /// Fails the calls whose deadline has passed.
    pub(crate) fn tick(&mut self, now: Instant, woken: &mut Vec<Waker>) -> Result<(), Disconnect> {
        if self.earliest.is_some_and(|earliest| earliest <= now) {
            self.earliest = None;
            for index in 0..self.callers.len() {
                let Some(deadline) = self.callers[index].deadline else { continue };
                if deadline > now {
                    self.earliest = Some(self.earliest.map_or(deadline, |it| it.min(deadline)));
                    continue;
                }
                self.abandon_requests(index);
                self.end_call(index, Outcome::Failed(Failure::Deadline), woken);
            }
        }
        if self.abandoned > self.limits.abandoned_max {
            return Err(Disconnect::Abandoned(self.abandoned));
        }
        match self.silent_since {
            Some(since) if now >= since + self.limits.silence_max => {
                Err(Disconnect::Silent(now - since))
            }
            _ => Ok(()),
        }
    }

    /// Begins anew: every call that waits fails. Of what was encoded `written` bytes were written.
    pub(crate) fn disconnect(&mut self, source: &Disconnect, written: u64, woken: &mut Vec<Waker>) {
        for pending in std::mem::take(&mut self.pending) {
            let Some(ticket) = pending.caller else { continue };
            let was_written = pending.end <= written;
            let caller = &mut self.callers[ticket.0 as usize];
            caller.unanswered -= 1;
            // A call of many requests is a read: what holds for the first holds for it.
            if caller.outcome.is_none() {
                let source = source.clone();
                caller.outcome = Some(Outcome::Failed(Failure::Lost { source, was_written }));
                caller.deadline = None;
                woken.extend(caller.waker.take());
            }
        }
        self.output.clear();
        self.encoded = 0;
        self.abandoned = 0;
        self.answered = 0;
        self.partial = None;
        self.silent_since = None;
        self.earliest = None;
        self.decoder = decoder(&self.limits);
    }

    /// How the call ended, and with that its ticket is gone; else `waker` is woken when it does.
    pub(crate) fn redeem(&mut self, ticket: Ticket, waker: &Waker) -> Option<Outcome> {
        let caller = &mut self.callers[ticket.0 as usize];
        match caller.outcome.take() {
            Some(outcome) => {
                self.leave(ticket);
                Some(outcome)
            }
            None => {
                match &mut caller.waker {
                    Some(known) => known.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                None
            }
        }
    }

    /// The caller is not interested any more.
    pub(crate) fn give_up(&mut self, ticket: Ticket) {
        self.abandon_requests(ticket.0 as usize);
        self.leave(ticket);
    }

    /// Whether so many calls were given up that the connection is to end.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.abandoned > self.limits.abandoned_max
    }

    fn enter(
        &mut self,
        now: Instant,
        deadline: Instant,
        waker: Waker,
        requests: usize,
        is_many: bool,
    ) -> Ticket {
        let ticket = self.vacant.pop().unwrap_or_else(|| {
            self.callers.push(Caller::default());
            let index = u32::try_from(self.callers.len() - 1);
            Ticket(index.unwrap_or_else(|_| unreachable!("as many calls as pending_max at most")))
        });
        if self.pending.is_empty() {
            self.silent_since = Some(now);
        }
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
        let caller = &mut self.callers[ticket.0 as usize];
        caller.waker = Some(waker);
        caller.deadline = Some(deadline);
        caller.first = self.answered + self.pending.len() as u64;
        caller.unanswered = requests;
        caller.is_many = is_many;
        if is_many {
            caller.found.reserve_exact(requests);
        }
        debug_assert!(caller.outcome.is_none() && caller.found.is_empty(), "it was vacant");
        ticket
    }

    fn leave(&mut self, ticket: Ticket) {
        let caller = &mut self.callers[ticket.0 as usize];
        caller.waker = None;
        caller.deadline = None;
        caller.outcome = None;
        caller.found = Vec::new();
        self.vacant.push(ticket);
    }

    fn next_opaque(&mut self) -> u32 {
        self.opaque = self.opaque.wrapping_add(1);
        self.opaque
    }

    fn push(&mut self, expect: Expect, opaque: u32, ticket: Ticket, start: usize) {
        self.encoded += (self.output.len() - start) as u64;
        let end = self.encoded;
        self.pending.push_back(Pending { expect, opaque, caller: Some(ticket), end });
    }

    /// Takes one response, or piece of one, to the oldest request.
    fn take(&mut self, response: &Response<'_>, woken: &mut Vec<Waker>) -> Result<(), Disconnect> {
        let Some(oldest) = self.pending.front() else { return Err(Disconnect::Unasked) };
        match (oldest.expect, response) {
            (expect, Response::Error(error)) => {
                let message = String::from_utf8_lossy(error.message);
                let refusal = Refusal { kind: error.kind, message: message.as_ref().into() };
                self.refuse(expect, &refusal, woken);
            }
            (Expect::TextGet { .. }, Response::Value(value)) => {
                let hash = xxh3_64(value.key.as_bytes());
                let stored = Stored {
                    data: bytes::Bytes::copy_from_slice(value.data),
                    flags: value.client_flags,
                    cas: value.cas,
                    ..Stored::default()
                };
                self.take_value(hash, stored, woken)?;
            }
            (Expect::TextGet { .. }, Response::End) => self.end_values(woken),
            (Expect::Config { name }, Response::Config(config))
                if self.partial.is_none() && config.name == name =>
            {
                let mut text = Vec::new();
                response.encode(&mut text);
                self.partial = Some(Reply::Text(text));
            }
            (Expect::Config { .. }, Response::End) => {
                let Some(Reply::Text(mut text)) = self.partial.take() else {
                    return Err(Disconnect::Mismatch);
                };
                response.encode(&mut text);
                self.answer_oldest(Reply::Text(text), woken);
            }
            (expect, response) => {
                let reply = command::reply(expect, oldest.opaque, response);
                self.answer_oldest(reply.ok_or(Disconnect::Mismatch)?, woken);
            }
        }
        Ok(())
    }

    /// A value of a get of several keys: those before its own are not there. The last one's waits for `END`.
    fn take_value(
        &mut self,
        hash: u64,
        stored: Stored,
        woken: &mut Vec<Waker>,
    ) -> Result<(), Disconnect> {
        if self.partial.is_some() {
            return Err(Disconnect::Mismatch);
        }
        while let Some(&Pending { expect: Expect::TextGet { key_hash, is_last }, .. }) =
            self.pending.front()
        {
            match (key_hash == hash, is_last) {
                (true, true) => {
                    self.partial = Some(Reply::Found(Some(stored)));
                    return Ok(());
                }
                (true, false) => {
                    self.answer_oldest(Reply::Found(Some(stored)), woken);
                    return Ok(());
                }
                (false, false) => self.answer_oldest(Reply::Found(None), woken),
                (false, true) => return Err(Disconnect::Mismatch),
            }
        }
        Err(Disconnect::Mismatch)
    }

    fn end_values(&mut self, woken: &mut Vec<Waker>) {
        while let Some(&Pending { expect: Expect::TextGet { is_last, .. }, .. }) =
            self.pending.front()
        {
            if is_last {
                let last = self.partial.take().unwrap_or(Reply::Found(None));
                return self.answer_oldest(last, woken);
            }
            self.answer_oldest(Reply::Found(None), woken);
        }
    }

    /// An error ends a get of several keys in one line for those that have no answer yet.
    fn refuse(&mut self, expect: Expect, refusal: &Refusal, woken: &mut Vec<Waker>) {
        self.partial = None;
        let mut is_last = !matches!(expect, Expect::TextGet { is_last: false, .. });
        self.fail_oldest(refusal, woken);
        while !is_last {
            is_last = !matches!(
                self.pending.front(),
                Some(Pending { expect: Expect::TextGet { is_last: false, .. }, .. })
            );
            self.fail_oldest(refusal, woken);
        }
    }

    fn pop_oldest(&mut self) -> Option<usize> {
        let oldest = self.pending.pop_front()?;
        self.answered += 1;
        if oldest.caller.is_none() {
            self.abandoned -= 1;
        }
        let index = oldest.caller?.0 as usize;
        self.callers[index].unanswered -= 1;
        Some(index)
    }

    fn answer_oldest(&mut self, reply: Reply, woken: &mut Vec<Waker>) {
        let Some(index) = self.pop_oldest() else { return };
        let caller = &mut self.callers[index];
        if !caller.is_many {
            return self.end_call(index, Outcome::One(reply), woken);
        }
        caller.found.push(match reply {
            Reply::Found(found) => found,
            _ => None,
        });
        if caller.unanswered == 0 {
            let found = std::mem::take(&mut caller.found);
            self.end_call(index, Outcome::Many(found), woken);
        }
    }

    /// One refusal fails the whole call; what else it asked is given up.
    fn fail_oldest(&mut self, refusal: &Refusal, woken: &mut Vec<Waker>) {
        let Some(index) = self.pop_oldest() else { return };
        self.abandon_requests(index);
        self.end_call(index, Outcome::Failed(Failure::Refused(refusal.clone())), woken);
    }

    fn end_call(&mut self, index: usize, outcome: Outcome, woken: &mut Vec<Waker>) {
        let caller = &mut self.callers[index];
        caller.outcome = Some(outcome);
        caller.deadline = None;
        woken.extend(caller.waker.take());
    }

    /// Nobody waits any more for what this caller has asked and was not answered.
    fn abandon_requests(&mut self, index: usize) {
        let caller = &mut self.callers[index];
        if caller.unanswered == 0 {
            return;
        }
        let left = std::mem::take(&mut caller.unanswered);
        let first = usize::try_from(caller.first.saturating_sub(self.answered)).unwrap_or_default();
        let ticket = Ticket(u32::try_from(index).unwrap_or_default());
        let theirs = self.pending.iter_mut().skip(first);
        for pending in theirs.filter(|pending| pending.caller == Some(ticket)).take(left) {
            pending.caller = None;
            self.abandoned += 1;
        }
    }
}

/// What [`Pipeline::receive`] made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) consumed: usize,
    /// How long what is left must become before another call gets further.
    pub(crate) wanted: usize,
}

fn decoder(limits: &Limits) -> ResponseDecoder {
    let lines = ResponseLimits::default();
    ResponseDecoder::new(ResponseLimits { value_bytes_max: limits.value_bytes_max, ..lines })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use protocol::Exptime;
    use protocol::request::StoreMode;

    use super::*;

    const LIMITS: Limits = Limits {
        pending_max: 1000,
        output_bytes_max: 1 << 20,
        abandoned_max: 1000,
        silence_max: Duration::from_secs(5),
        value_bytes_max: 1 << 20,
        gets_in_lines: true,
    };

    fn key(text: &str) -> Key<'_> {
        Key::new(text.as_bytes()).unwrap()
    }

    fn get(text: &str) -> Command<'_> {
        Command::Get { key: key(text), touch: None, with_cas: false }
    }

    /// A pipeline, and a server that has every key but those that begin with `no.`, each with itself as the value.
    struct Rig {
        pipeline: Pipeline,
        now: Instant,
        answers: Vec<u8>,
        read: usize,
    }

    impl Rig {
        fn new(dialect: Dialect) -> Self {
            Self::with(dialect, true)
        }

        fn with(dialect: Dialect, gets_in_lines: bool) -> Self {
            let pipeline = Pipeline::new(Limits { gets_in_lines, ..LIMITS }, dialect);
            Self { pipeline, now: Instant::now(), answers: Vec::new(), read: 0 }
        }

        fn ask(&mut self, command: &Command<'_>, after: Duration) -> Ticket {
            self.pipeline.ask(command, self.now, self.now + after, Waker::noop().clone())
        }

        fn ask_many(&mut self, keys: &[&str]) -> Ticket {
            let (now, deadline) = (self.now, self.now + Duration::from_secs(1));
            let (count, waker) = (keys.len(), Waker::noop().clone());
            let keys = keys.iter().map(|text| key(text));
            self.pipeline.ask_many(keys, count, false, now, deadline, waker)
        }

        /// Has the server answer all that was asked, to be received later.
        fn answer(&mut self) {
            let mut output = Vec::new();
            self.pipeline.take_output(&mut output);
            for line in String::from_utf8(output).unwrap().split_terminator("\r\n") {
                let words: Vec<&str> = line.split(' ').collect();
                let is_there = |name: &&str| !name.starts_with("no.");
                let answer = match words[0] {
                    "mg" => {
                        let opaque = words.iter().find(|word| word.starts_with('O')).unwrap();
                        match words[1] {
                            name if is_there(&name) => {
                                format!("VA {} f7 {opaque}\r\n{name}\r\n", name.len())
                            }
                            _ => format!("EN {opaque}\r\n"),
                        }
                    }
                    "get" => {
                        let found = words[1..].iter().copied().filter(is_there);
                        let value =
                            |name: &str| format!("VALUE {name} 7 {}\r\n{name}\r\n", name.len());
                        found.map(value).collect::<String>() + "END\r\n"
                    }
                    other => panic!("{other}"),
                };
                self.answers.extend_from_slice(answer.as_bytes());
            }
        }

        /// Receives so many bytes more of the answers.
        fn receive(&mut self, bytes: usize) -> Result<(), Disconnect> {
            self.read = self.read.saturating_add(bytes).min(self.answers.len());
            let input = &self.answers[..self.read];
            let received = self.pipeline.receive(input, self.now, &mut Vec::new())?;
            self.answers.drain(..received.consumed);
            self.read -= received.consumed;
            Ok(())
        }

        fn outcome(&mut self, ticket: Ticket) -> Option<Outcome> {
            self.pipeline.redeem(ticket, Waker::noop())
        }

        fn value(&mut self, ticket: Ticket) -> Option<Vec<u8>> {
            match self.outcome(ticket) {
                Some(Outcome::One(Reply::Found(found))) => found.map(|found| found.data.to_vec()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_place_of_a_call_that_was_given_up_stays() {
        for dialect in [Dialect::Meta, Dialect::Text] {
            let mut rig = Rig::new(dialect);
            let gone = rig.ask(&get("a"), LIMITS.silence_max);
            let stays = rig.ask(&get("b"), LIMITS.silence_max);
            rig.answer();
            rig.pipeline.give_up(gone);
            // Its ticket is given to somebody else, who must not get its answer.
            let next = rig.ask(&get("c"), LIMITS.silence_max);
            rig.answer();
            rig.receive(usize::MAX).unwrap();
            assert_eq!(rig.value(stays), Some(b"b".to_vec()));
            assert_eq!(rig.value(next), Some(b"c".to_vec()));
            assert_eq!((rig.pipeline.pending(), rig.pipeline.abandoned), (0, 0));
        }
    }

    #[test]
    fn a_deadline_fails_those_it_has_passed_for_and_no_others() {
        let mut rig = Rig::new(Dialect::Meta);
        let hasty = rig.ask(&get("a"), Duration::from_millis(10));
        let patient = rig.ask(&get("b"), Duration::from_secs(1));
        assert_eq!(rig.pipeline.wakes_at(), Some(rig.now + Duration::from_millis(10)));
        rig.answer();
        rig.now += Duration::from_millis(10);
        rig.pipeline.tick(rig.now, &mut Vec::new()).unwrap();
        assert!(matches!(rig.outcome(hasty), Some(Outcome::Failed(Failure::Deadline))));
        assert!(rig.outcome(patient).is_none());
        rig.receive(usize::MAX).unwrap();
        assert_eq!(rig.value(patient), Some(b"b".to_vec()));
    }

    #[test]
    fn what_was_not_written_to_its_last_byte_did_not_happen() {
        let mut rig = Rig::new(Dialect::Meta);
        let set = |name| Command::Store {
            mode: StoreMode::Set,
            key: key(name),
            flags: 0,
            exptime: Exptime::Never,
            compare_cas: None,
            data: b"value",
        };
        let [first, second] = ["a", "b"].map(|name| rig.ask(&set(name), LIMITS.silence_max));
        let mut output = Vec::new();
        rig.pipeline.take_output(&mut output);
        let written = output.len() as u64 - 1;
        rig.pipeline.disconnect(&Disconnect::Closed, written, &mut Vec::new());
        let was_written = |outcome| match outcome {
            Some(Outcome::Failed(Failure::Lost { was_written, .. })) => was_written,
            other => panic!("{other:?}"),
        };
        assert!(was_written(rig.outcome(first)));
        assert!(!was_written(rig.outcome(second)));
    }

    #[test]
    fn an_answer_to_the_same_keys_that_came_before_is_noticed() {
        let mut rig = Rig::new(Dialect::Meta);
        let first = rig.ask_many(&["a", "b"]);
        rig.answers = b"VALUE a 0 3\r\nold\r\nEND\r\n".to_vec();
        rig.answer();
        assert!(matches!(rig.receive(usize::MAX), Err(Disconnect::Mismatch)));
        assert!(rig.outcome(first).is_none());
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_one_too_many() {
        let mut rig = Rig::new(Dialect::Meta);
        rig.answers = b"MN\r\n".to_vec();
        assert!(matches!(rig.receive(4), Err(Disconnect::Unasked)));
    }

    proptest! {
        /// Steps: ask one key, ask many, give one up, let the server answer, receive some bytes.
        #[test]
        fn every_call_gets_its_own_answer(
            is_text: bool,
            in_lines: bool,
            steps in vec((0u8..5, 0usize..100), 1..200),
        ) {
            let dialect = if is_text { Dialect::Text } else { Dialect::Meta };
            let mut rig = Rig::with(dialect, in_lines);
            let name = |number: usize| {
                if number.is_multiple_of(3) { format!("no.{number}") } else { format!("k.{number}") }
            };
            let value = |name: &str| (!name.starts_with("no.")).then(|| name.as_bytes().to_vec());
            let mut waiting: Vec<(Ticket, Vec<String>)> = Vec::new();
            for (step, (what, number)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        let name = name(step);
                        waiting.push((rig.ask(&get(&name), LIMITS.silence_max), vec![name]));
                    }
                    1 => {
                        let names: Vec<_> =
                            (0..2 + number % 4).map(|index| name(1000 * step + index)).collect();
                        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
                        waiting.push((rig.ask_many(&keys), names));
                    }
                    2 if !waiting.is_empty() => {
                        let (ticket, _) = waiting.remove(number % waiting.len());
                        rig.pipeline.give_up(ticket);
                    }
                    3 => rig.answer(),
                    _ => rig.receive(number).unwrap(),
                }
                waiting.retain(|(ticket, names)| match rig.outcome(*ticket) {
                    None => true,
                    Some(Outcome::One(Reply::Found(found))) => {
                        assert_eq!(found.map(|found| found.data.to_vec()), value(&names[0]));
                        false
                    }
                    Some(Outcome::Many(found)) => {
                        let data = |it: Option<Stored>| it.map(|it| it.data.to_vec());
                        let found: Vec<_> = found.into_iter().map(data).collect();
                        let expected: Vec<_> = names.iter().map(|name| value(name)).collect();
                        assert_eq!(found, expected);
                        false
                    }
                    Some(other) => panic!("{other:?}"),
                });
            }
            rig.answer();
            rig.receive(usize::MAX).unwrap();
            for (ticket, _) in waiting {
                prop_assert!(rig.outcome(ticket).is_some());
            }
            prop_assert_eq!((rig.pipeline.pending(), rig.pipeline.abandoned), (0, 0));
            prop_assert_eq!(rig.pipeline.vacant.len(), rig.pipeline.callers.len());
        }

        #[test]
        fn noise_fails_every_call_and_answers_none_wrongly(
            is_text: bool,
            noise in vec(any::<u8>(), 0..200),
            cut in 0usize..60,
        ) {
            let mut rig = Rig::new(if is_text { Dialect::Text } else { Dialect::Meta });
            let mut tickets: Vec<_> =
                ["a", "b", "no.c"].map(|name| rig.ask(&get(name), LIMITS.silence_max)).into();
            tickets.push(rig.ask_many(&["d", "no.e"]));
            rig.answer();
            rig.answers.truncate(cut);
            rig.answers.extend(noise);
            let _ = rig.receive(usize::MAX);
            rig.pipeline.disconnect(&Disconnect::Closed, u64::MAX, &mut Vec::new());
            for ticket in tickets {
                prop_assert!(rig.outcome(ticket).is_some());
            }
            prop_assert_eq!(rig.pipeline.vacant.len(), rig.pipeline.callers.len());
        }
    }
}
