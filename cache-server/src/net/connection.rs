//! One client as a state machine: bytes in, bytes out, no socket.
//!
//! ```text
//!                 consumed                                   sent
//!                    v                                        v
//! input:  | answered | requests ... | half a request |  output: | taken | answers ... |
//! ```
//!
//! A driver runs it in turns, and never waits between the steps of one:
//!
//! 1. [`lend`](Connection::lend) the worker's buffers, read into [`input`](Connection::input_mut);
//! 2. [`advance`](Connection::advance): every request that has arrived is answered into the output;
//! 3. write [`unsent`](Connection::unsent), report it with [`mark_sent`](Connection::mark_sent);
//! 4. [`settle`](Connection::settle): the worker's buffers go back, and what is left over moves into
//!    buffers of the connection's own, leased from the gauge.
//!
//! Between turns a connection that owes nothing and is owed nothing holds no buffer at all.
//!
//! Answers that are not ready yet stay behind (`outgoing.rs`), and requests behind them
//! are carried out all the same, up to a bound.

use std::sync::Arc;

use arrayvec::ArrayVec;
use protocol::binary::request::Command;
use protocol::text::authentication::{self, AuthenticationStep};
use protocol::{Decoder, ProtocolError, Request, Step};

use crate::clock::Now;
use crate::net::buffers::{Buffer, Gauge, Lease};
use crate::net::gate::{Entrance, Gate};
use crate::net::outgoing::Outgoing;
use crate::net::ticket::HolderId;
use crate::net::waiting_room::WaitingRoom;
use crate::net::{Ahead, Flow, Service, refuse};

/// What one read takes at most when no large value is awaited.
const SCRATCH_INPUT_BYTES: usize = 64 << 10;

/// What a worker's output buffer keeps for the next turn; a turn may make it grow beyond.
const SCRATCH_OUTPUT_BYTES_KEPT: usize = 2 << 20;

/// Requests decoded together at most: enough to have the memory busy, few enough for the stack.
const BATCH_REQUESTS_MAX: usize = 16;

/// What a client is told that asks to listen while answers before it are not ready: memcached's line.
const LISTENS_TOO_EARLY: &[u8] = b"ERROR cannot pipeline other commands before watch\r\n";

/// The smallest buffer for half a command line.
const LINE_BYTES: usize = 2048;

/// The first buffer for half a value; it doubles as data arrives, so that announcing a large value
/// costs a client nothing until it is sent.
const VALUE_BYTES_FIRST: usize = 64 << 10;

/// The buffers of a worker, lent to the connection whose turn it is.
#[derive(Debug)]
pub struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            input: Vec::with_capacity(SCRATCH_INPUT_BYTES),
            output: Vec::with_capacity(SCRATCH_INPUT_BYTES),
        }
    }
}

/// How far one turn may go.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Requests answered in one turn.
    pub requests_max: u32,
    /// Answers not yet sent, in bytes, beyond which no further request is decoded.
    pub output_bytes_high: usize,
    /// Answers not ready, beyond which no further request is decoded.
    pub holds_max: usize,
}

/// How a turn ended. In each case the output is to be sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Everything that arrived whole is answered.
    Drained,
    /// As many requests as a turn may have are answered; more may be there.
    Spent,
    /// The output is full; more requests, or the rest of one, are there.
    Full,
    /// Nothing further happens before an answer that is held becomes ready.
    Held,
    /// The connection closes: the client asked for it, or sent what cannot be made sense of.
    Closes,
    /// No request follows; once everything is sent, the client is sent a side stream.
    Listens,
    /// The connection closes: there is no memory for what the client began to send.
    OutOfMemory,
}

/// What a turn did, for the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests decoded, well-formed or not.
    pub requests: u32,
    /// Values refused because buffers were used up.
    pub values_refused: u32,
}

/// There is no memory left for what this connection must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffers of all connections together are used up")]
pub struct OutOfMemory;

/// One client.
#[derive(Debug)]
pub struct Connection {
    decoder: Decoder,
    gate: Gate,
    limits: protocol::Limits,
    input: Buffer,
    outgoing: Outgoing,
    /// No request follows; the connection closes once nothing is held any more.
    ends: bool,
    /// It ends because of what the client sent.
    is_at_fault: bool,
    /// The decoder may stand within data that it drops.
    may_swallow: bool,
    /// How many bytes of unconsumed input it takes to get further.
    wanted: usize,
    /// How much of the first unconsumed request is answered; see [`Call::done`](crate::net::Call::done).
    done: usize,
    lease: Lease,
}

/// Requests decoded together, so that the service can have what all of them will read fetched at once.
type Batch<'a> = ArrayVec<Ahead<'a>, BATCH_REQUESTS_MAX>;

/// Decodes up to `more_max` further whole requests of `input` into `batch`. The connection's own
/// decoder stays where it is: `decoder` is a copy, and what it learns of a half request is dropped.
fn look_ahead<'a>(
    mut decoder: Decoder,
    mut input: &'a [u8],
    more_max: usize,
    batch: &mut Batch<'a>,
) {
    let more_max = more_max.min(batch.remaining_capacity());
    for _ in 0..more_max {
        let Step::Request { consumed, request } = decoder.decode(input) else { return };
        batch.push(Ahead { request, bytes: consumed });
        input = &input[consumed..];
    }
}

impl Connection {
    /// A client that has said nothing yet. What is held of its answers is known as `holder`'s.
    pub fn new(limits: protocol::Limits, gauge: Arc<Gauge>, holder: HolderId) -> Self {
        Self {
            decoder: Decoder::new(limits),
            gate: Gate::Open,
            limits,
            input: Buffer::default(),
            outgoing: Outgoing::new(holder),
            ends: false,
            is_at_fault: false,
            may_swallow: false,
            wanted: 0,
            done: 0,
            lease: Lease::new(gauge),
        }
    }

    /// The same client, come in by `entrance`.
    #[must_use]
    pub fn at(mut self, entrance: Entrance) -> Self {
        self.gate = Gate::of(entrance);
        self.decoder = Decoder::of(self.limits, entrance.dialect());
        self.decoder.set_locked(self.gate.is_locked());
        self
    }

    /// The same client, over a socket that sends several pieces at once: a large value leaves from where it is stored.
    #[must_use]
    pub fn sending_apart(mut self) -> Self {
        self.outgoing.allow_apart();
        self
    }

    /// Begins a turn, or goes on with it.
    pub fn lend(&mut self, scratch: &mut Scratch) {
        self.input.borrow(&mut scratch.input);
        self.outgoing.output.borrow(&mut scratch.output);
    }

    /// Where bytes from the client are appended: its spare capacity is what one read should take.
    pub fn input_mut(&mut self) -> &mut Vec<u8> {
        &mut self.input.bytes
    }

    /// Answers the requests that have arrived, in their order. What of earlier answers is held in
    /// `room` and has become ready moves to the output first.
    pub fn advance<S: Service>(
        &mut self,
        service: &mut S,
        room: &WaitingRoom,
        now: Now,
        limits: TurnLimits,
        tally: &mut Tally,
    ) -> Turn {
        self.outgoing.release(room, limits);
        if self.outgoing.is_out_of_memory() {
            return Turn::OutOfMemory;
        }
        if self.ends {
            return self.end();
        }
        if self.gate == Gate::Text
            && let Some(turn) = self.authenticate(service, limits, tally)
        {
            return turn;
        }
        loop {
            if let Some(obstacle) = self.outgoing.obstacle(limits) {
                return obstacle;
            }
            if tally.requests >= limits.requests_max {
                return if self.input.rest().len() < self.wanted.max(1) {
                    Turn::Drained
                } else {
                    Turn::Spent
                };
            }
            let input = &self.input.bytes[self.input.start..];
            match self.decoder.decode(input) {
                Step::More { consumed, wanted } => {
                    self.input.start += consumed;
                    self.wanted = wanted;
                    if self.lease_room() {
                        return Turn::Drained;
                    }
                    if self.decoder.awaited_bytes().is_none() {
                        return Turn::OutOfMemory;
                    }
                    tally.values_refused += 1;
                    self.decoder.refuse_data(ProtocolError::OutOfMemoryStoring);
                }
                Step::Request { consumed, request } => {
                    // Rare, and the one case in which the bytes consumed are not the request's alone.
                    let mut written_anew = Vec::new();
                    if std::mem::take(&mut self.may_swallow) {
                        request.encode(&mut written_anew);
                    }
                    let mut batch = Batch::new();
                    batch.push(Ahead { request, bytes: consumed });
                    let more_max = (limits.requests_max - tally.requests - 1) as usize;
                    look_ahead(self.decoder.clone(), &input[consumed..], more_max, &mut batch);
                    let mut ahead = 0;
                    if batch.len() > 1 && self.done == 0 && self.gate == Gate::Open {
                        let (call, out) = self.outgoing.call(now, &[], 0, room, limits);
                        ahead = service.handle_ahead(&batch, now, call.output_bytes_high, out);
                    }
                    let mut offset = batch[..ahead].iter().map(|ahead| ahead.bytes).sum();
                    if ahead > 0 {
                        tally.requests += u32::try_from(ahead).unwrap_or(u32::MAX);
                        self.wanted = 0;
                        self.input.start += offset;
                    }
                    for (index, Ahead { request, bytes }) in batch.iter().enumerate().skip(ahead) {
                        if let Some(obstacle) = self.outgoing.obstacle(limits) {
                            return obstacle;
                        }
                        let raw = if index == 0 && !written_anew.is_empty() {
                            &written_anew[..]
                        } else {
                            &input[offset..offset + bytes]
                        };
                        let (call, out) = self.outgoing.call(now, raw, self.done, room, limits);
                        let flow = if self.gate == Gate::Open {
                            service.handle(request, call, out)
                        } else {
                            let flow = self.gate.handle(service, request, call, out);
                            self.decoder.set_locked(self.gate.is_locked());
                            flow
                        };
                        self.outgoing.hold_what_waits(service, room);
                        if let Flow::Pause { done } = flow {
                            // Its bytes stay, and the decoder stands before them again.
                            self.done = done;
                            return Turn::Full;
                        }
                        tally.requests += 1;
                        self.done = 0;
                        self.wanted = 0;
                        offset += bytes;
                        self.input.start += bytes;
                        match flow {
                            Flow::Close => {
                                self.ends = true;
                                return self.end();
                            }
                            Flow::Listen if self.outgoing.is_holding() => {
                                // A connection waits for its own answers or for others' bytes.
                                drop(service.take_side_stream());
                                self.outgoing.push(LISTENS_TOO_EARLY);
                            }
                            Flow::Listen => {
                                self.ends = true;
                                return Turn::Listens;
                            }
                            Flow::Apart(apart) => {
                                // Before anything else is done: while it is pinned nothing may be waited for.
                                self.outgoing.set_apart(apart);
                                return match self.input.rest().is_empty() {
                                    true => Turn::Drained,
                                    false => Turn::Full,
                                };
                            }
                            Flow::Continue | Flow::Pause { .. } => {}
                        }
                    }
                }
                Step::Refused { consumed, refusal } => {
                    tally.requests += 1;
                    self.may_swallow = true;
                    service.refused(&refusal, now);
                    let (call, out) = self.outgoing.call(now, &[], 0, room, limits);
                    refuse(service, &refusal, call, out);
                    self.outgoing.hold_what_waits(service, room);
                    self.wanted = 0;
                    self.input.start += consumed;
                    if refusal.closes() {
                        self.ends = true;
                        self.is_at_fault = true;
                        return self.end();
                    }
                }
            }
        }
    }

    /// Has a client of the text protocol authenticate; `None` once it has.
    fn authenticate<S: Service>(
        &mut self,
        service: &mut S,
        limits: TurnLimits,
        tally: &mut Tally,
    ) -> Option<Turn> {
        loop {
            if let Some(obstacle) = self.outgoing.obstacle(limits) {
                return Some(obstacle);
            }
            if tally.requests >= limits.requests_max {
                return Some(Turn::Spent);
            }
            let (consumed, answer) = match authentication::decode(self.input.rest()) {
                AuthenticationStep::More { wanted } => {
                    self.wanted = wanted;
                    let has_room = self.lease_room();
                    return Some(if has_room { Turn::Drained } else { Turn::OutOfMemory });
                }
                AuthenticationStep::Credentials { consumed, credentials } => {
                    if service.authenticate(Some(credentials)) {
                        self.gate = Gate::Open;
                        (consumed, authentication::ACCEPTED)
                    } else {
                        (consumed, authentication::REJECTED)
                    }
                }
                AuthenticationStep::Refused { consumed, line } => (consumed, line),
                AuthenticationStep::Closes => {
                    self.ends = true;
                    return Some(self.end());
                }
            };
            tally.requests += 1;
            self.wanted = 0;
            self.input.start += consumed;
            self.outgoing.push(answer.as_bytes());
            if self.gate == Gate::Open {
                return None;
            }
        }
    }

    /// Moves to the output what has become ready since, as at the start of [`Connection::advance`].
    #[inline]
    pub fn release(&mut self, room: &WaitingRoom, limits: TurnLimits) {
        self.outgoing.release(room, limits);
    }

    /// The client sends nothing any more. It may still take answers that are held.
    pub fn end_input(&mut self) {
        self.ends = true;
    }

    /// Whether the connection ends because of what the client sent.
    pub fn is_at_fault(&self) -> bool {
        self.is_at_fault
    }

    /// Whether the rest of a value is awaited.
    pub fn awaits_value(&self) -> bool {
        self.decoder.awaited_bytes().is_some()
    }

    /// Whether answers are held: more becomes sendable without anything being received.
    pub fn is_holding(&self) -> bool {
        self.outgoing.is_holding()
    }

    /// Who these answers are held for.
    pub fn holder(&self) -> HolderId {
        self.outgoing.holder()
    }

    /// The last requests are carried out: the connection closes, or waits for what is held.
    fn end(&self) -> Turn {
        if self.outgoing.is_holding() { Turn::Held } else { Turn::Closes }
    }

    /// Whether a value is to be sent from where it is stored, with what else is unsent around it: before the connection
    /// settles, and before anything is waited for.
    #[inline]
    pub fn has_apart(&self) -> bool {
        self.outgoing.has_apart()
    }

    /// All that is unsent then.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.outgoing.pieces()
    }

    /// The first `sent` bytes of them are on their way; what is left is copied.
    pub fn end_apart(&mut self, sent: usize) {
        self.outgoing.end_apart(sent);
    }

    /// Answers that are not sent yet.
    pub fn unsent(&self) -> &[u8] {
        self.outgoing.output.rest()
    }

    /// Whether there are any.
    pub fn has_unsent(&self) -> bool {
        !self.outgoing.output.rest().is_empty()
    }

    /// The first `count` bytes of [`Connection::unsent`] are on their way.
    pub fn mark_sent(&mut self, count: usize) {
        let output = &mut self.outgoing.output;
        output.start += count;
        debug_assert!(output.start <= output.bytes.len(), "sent what was there");
    }

    /// Ends a turn: lent buffers go back to `scratch`, what is left over is kept.
    ///
    /// # Errors
    ///
    /// When there is no memory to keep it in. The connection must close; the lent buffers are back.
    pub fn settle(&mut self, scratch: &mut Scratch) -> Result<(), OutOfMemory> {
        let input_bytes = self.input_capacity();
        let output_bytes = match self.outgoing.output.rest().len() {
            0 => 0,
            unsent => unsent.max(self.outgoing.output.own_bytes()),
        };
        let held_bytes = self.outgoing.held_capacity();
        let kept = self.lease.resize(input_bytes + output_bytes + held_bytes);
        if !kept {
            self.close(scratch);
            return Err(OutOfMemory);
        }
        self.input.settle(&mut scratch.input, input_bytes);
        self.outgoing.output.settle(&mut scratch.output, output_bytes);
        if scratch.output.capacity() > SCRATCH_OUTPUT_BYTES_KEPT {
            scratch.output.shrink_to(SCRATCH_OUTPUT_BYTES_KEPT);
        }
        Ok(())
    }

    /// Ends the connection: lent buffers go back to `scratch`, whatever is left over is forgotten.
    pub fn close(&mut self, scratch: &mut Scratch) {
        self.input.start = self.input.bytes.len();
        self.outgoing.clear();
        self.input.settle(&mut scratch.input, 0);
        self.outgoing.output.settle(&mut scratch.output, 0);
    }

    /// The request that is next, or being served: what is logged of it after a crash.
    pub fn shape(&self) -> Shape {
        // The decoder may have been in the middle of anything; a new one reads the same bytes.
        match Decoder::new(self.limits).decode(self.input.rest()) {
            Step::Request { request, .. } => Shape::of(&request),
            Step::Refused { refusal, .. } => {
                Shape { command: refusal.error.line().trim_end(), key_bytes: 0 }
            }
            Step::More { .. } => Shape { command: "(incomplete)", key_bytes: 0 },
        }
    }

    /// The capacity that the input needs beyond this turn: none, when nothing is left over.
    fn input_capacity(&self) -> usize {
        let rest = self.input.rest().len();
        if rest == 0 {
            return 0;
        }
        let own = self.input.own_bytes();
        if self.wanted <= rest || self.input.start + self.wanted <= own {
            // Either everything is there, or it fits behind what is there.
            return own.max(rest);
        }
        let step = match self.decoder.awaited_bytes() {
            Some(_) => self.wanted.min((2 * rest).max(VALUE_BYTES_FIRST)),
            None => (2 * rest).max(LINE_BYTES),
        };
        step.max(own)
    }

    /// Leases what [`Connection::settle`] will need for the rest of the input.
    fn lease_room(&mut self) -> bool {
        let output_bytes = self.outgoing.output.own_bytes() + self.outgoing.held_capacity();
        let room = self.input_capacity() + output_bytes;
        room <= self.lease.bytes() || self.lease.resize(room)
    }
}

/// What a request looked like, without its key or value: enough to find a bug, nothing that is the
/// client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The command.
    pub command: &'static str,
    /// The length of its key, as it stands on the line, in bytes; 0 when it has none or many.
    pub key_bytes: usize,
}

impl Shape {
    fn of(request: &Request<'_>) -> Self {
        let (command, key_bytes) = match request {
            Request::Get(_) => ("get", 0),
            Request::Store(store) => ("store", store.key.as_bytes().len()),
            Request::Arithmetic(arithmetic) => ("arithmetic", arithmetic.key.as_bytes().len()),
            Request::Touch(touch) => ("touch", touch.key.as_bytes().len()),
            Request::Delete(delete) => ("delete", delete.key.as_bytes().len()),
            Request::FlushAll(_) => ("flush_all", 0),
            Request::Verbosity(_) => ("verbosity", 0),
            Request::MemoryLimit(_) => ("cache_memlimit", 0),
            Request::Shutdown { .. } => ("shutdown", 0),
            Request::Stats { .. } => ("stats", 0),
            Request::Administer { command, .. } => {
                (std::str::from_utf8(command.name()).unwrap_or_default(), 0)
            }
            Request::Version => ("version", 0),
            Request::RefreshCerts => ("refresh_certs", 0),
            Request::ConfigGetCluster => ("config get cluster", 0),
            Request::ConfigGetShards => ("config get shards", 0),
            Request::Backup(_) => ("backup", 0),
            Request::Restore(_) => ("restore", 0),
            Request::Quit => ("quit", 0),
            Request::MetaGet(get) => ("mg", get.key.written().len()),
            Request::MetaSet(set) => ("ms", set.key.written().len()),
            Request::MetaDelete(delete) => ("md", delete.key.written().len()),
            Request::MetaArithmetic(arithmetic) => ("ma", arithmetic.key.written().len()),
            Request::MetaDebug(debug) => ("me", debug.key.written().len()),
            Request::MetaNoop => ("mn", 0),
            Request::Binary(binary) => {
                let command = match &binary.command {
                    Command::Get(_) => "binary get",
                    Command::Touch { .. } => "binary touch",
                    Command::Store(_) => "binary store",
                    Command::Arithmetic(_) => "binary arithmetic",
                    Command::Delete { .. } => "binary delete",
                    Command::Flush { .. } => "binary flush",
                    Command::Stat { .. } => "binary stat",
                    Command::Verbosity { .. } => "binary verbosity",
                    Command::Version => "binary version",
                    Command::Noop => "binary noop",
                    Command::Quit => "binary quit",
                    Command::SaslList | Command::Sasl(_) => "binary sasl",
                };
                (command, binary.command.key().map_or(0, |key| key.as_bytes().len()))
            }
        };
        Self { command, key_bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use protocol::meta::request::MetaKey;

    use super::*;
    use crate::net::Call;

    /// Answers a store with the length of its data, a get with its keys, one line each, pausing
    /// when the output is full, and `stats` with a panic.
    #[derive(Default)]
    struct Mirror {
        invalidated: usize,
    }

    impl Service for Mirror {
        type Message = Infallible;

        fn handle(&mut self, request: &Request<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
            match request {
                Request::Store(store) => {
                    out.extend_from_slice(format!("{}\r\n", store.data.len()).as_bytes());
                }
                Request::Get(get) => {
                    for (index, key) in get.keys.clone().enumerate().skip(call.done) {
                        if out.len() >= call.output_bytes_high {
                            return Flow::Pause { done: index };
                        }
                        out.extend_from_slice(key.as_bytes());
                        out.extend_from_slice(b"\r\n");
                    }
                }
                Request::Quit => return Flow::Close,
                Request::Stats { .. } => panic!("a bug"),
                _ => out.extend_from_slice(b"?\r\n"),
            }
            Flow::Continue
        }

        fn invalidate(&mut self, _: &MetaKey<'_>, line: &[u8], _: Call<'_>, out: &mut Vec<u8>) {
            self.invalidated += 1;
            out.extend_from_slice(line);
        }
    }

    const NOW: Now = Now { unix_ms: 1_000_000 };
    const LIMITS: TurnLimits =
        TurnLimits { requests_max: u32::MAX, output_bytes_high: 1 << 16, holds_max: 1024 };

    /// A connection with the worker around it.
    struct Rig {
        connection: Connection,
        service: Mirror,
        room: WaitingRoom,
        scratch: Scratch,
        gauge: Arc<Gauge>,
        limits: TurnLimits,
        tally: Tally,
        answers: Vec<u8>,
    }

    impl Rig {
        fn new() -> Self {
            Self::with(usize::MAX, LIMITS)
        }

        fn with(buffer_bytes_max: usize, limits: TurnLimits) -> Self {
            Self::at(Entrance::default(), buffer_bytes_max, limits)
        }

        fn at(entrance: Entrance, buffer_bytes_max: usize, limits: TurnLimits) -> Self {
            let gauge = Arc::new(Gauge::new(buffer_bytes_max));
            let room = WaitingRoom::new(Arc::clone(&gauge));
            let limits_of_requests = protocol::Limits::default();
            Self {
                connection: Connection::new(limits_of_requests, Arc::clone(&gauge), room.open())
                    .at(entrance),
                room,
                service: Mirror::default(),
                scratch: Scratch::default(),
                gauge,
                limits,
                tally: Tally::default(),
                answers: Vec::new(),
            }
        }

        /// The client sends `bytes`, in as many reads as they take; every answer is taken at once.
        fn send(&mut self, mut bytes: &[u8]) -> Turn {
            let mut turn = Turn::Drained;
            while !bytes.is_empty() {
                self.connection.lend(&mut self.scratch);
                let input = self.connection.input_mut();
                let room = input.capacity() - input.len();
                assert!(room > 0, "a read has room");
                let (read, rest) = bytes.split_at(room.min(bytes.len()));
                input.extend_from_slice(read);
                bytes = rest;
                turn = self.turn();
                while matches!(turn, Turn::Full | Turn::Spent) {
                    turn = self.turn();
                }
                if turn != Turn::Drained {
                    break;
                }
            }
            turn
        }

        /// One turn, at the end of which the client takes what there is.
        fn turn(&mut self) -> Turn {
            self.connection.lend(&mut self.scratch);
            let mut tally = Tally::default();
            let turn = self.connection.advance(
                &mut self.service,
                &self.room,
                NOW,
                self.limits,
                &mut tally,
            );
            self.tally.requests += tally.requests;
            self.tally.values_refused += tally.values_refused;
            self.answers.extend_from_slice(self.connection.unsent());
            self.connection.mark_sent(self.connection.unsent().len());
            match turn {
                Turn::OutOfMemory => self.connection.close(&mut self.scratch),
                _ => self.connection.settle(&mut self.scratch).unwrap(),
            }
            turn
        }

        fn answers(&mut self) -> String {
            String::from_utf8(std::mem::take(&mut self.answers)).unwrap()
        }
    }

    const DIALOGUE: &[u8] =
        b"get a b\r\nset k 0 0 5\r\nab\r\nc\r\nbogus\r\nmn\r\nset k 0 0 0\r\n\r\nget c\r\n";
    const ANSWERS: &str = "a\r\nb\r\n5\r\nERROR\r\n?\r\n0\r\nc\r\n";

    #[test]
    fn answers_do_not_depend_on_where_the_bytes_are_split() {
        for first in 0..DIALOGUE.len() {
            for second in first..DIALOGUE.len() {
                let mut rig = Rig::new();
                rig.send(&DIALOGUE[..first]);
                rig.send(&DIALOGUE[first..second]);
                rig.send(&DIALOGUE[second..]);
                assert_eq!(rig.answers(), ANSWERS, "split at {first} and {second}");
                assert_eq!(rig.tally.requests, 6);
            }
        }
    }

    #[test]
    fn idle_connection_holds_no_buffer() {
        let mut rig = Rig::new();
        rig.send(b"get a");
        assert!(rig.gauge.bytes() > 0, "half a request is kept");
        rig.send(b"\r\n");
        assert_eq!(rig.gauge.bytes(), 0);
        assert_eq!(rig.connection.input.bytes.capacity(), 0);
        assert_eq!(rig.connection.outgoing.output.bytes.capacity(), 0);
        assert!(rig.scratch.input.capacity() >= SCRATCH_INPUT_BYTES, "the worker has it back");
    }

    #[test]
    fn turn_ends_after_as_many_requests_as_it_may_have() {
        let mut rig = Rig::with(usize::MAX, TurnLimits { requests_max: 2, ..LIMITS });
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(&b"mn\r\n".repeat(5));
        assert_eq!(rig.turn(), Turn::Spent);
        assert_eq!(rig.answers(), "?\r\n?\r\n");
        assert_eq!(rig.turn(), Turn::Spent);
        assert_eq!(rig.turn(), Turn::Drained);
        assert_eq!(rig.answers(), "?\r\n".repeat(3));
    }

    #[test]
    fn request_with_more_answers_than_fit_pauses_and_goes_on_where_it_was() {
        let mut rig = Rig::with(usize::MAX, TurnLimits { output_bytes_high: 8, ..LIMITS });
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(b"get k1 k2 k3 k4 k5\r\nmn\r\n");
        assert_eq!(rig.turn(), Turn::Full);
        assert_eq!(rig.answers(), "k1\r\nk2\r\n");
        assert_eq!(rig.turn(), Turn::Full);
        assert_eq!(rig.turn(), Turn::Drained);
        assert_eq!(rig.answers(), "k3\r\nk4\r\nk5\r\n?\r\n");
    }

    #[test]
    fn unread_answers_keep_further_requests_waiting() {
        let mut rig = Rig::with(usize::MAX, TurnLimits { output_bytes_high: 6, ..LIMITS });
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(&b"mn\r\n".repeat(9));
        let mut tally = Tally::default();
        let connection = &mut rig.connection;
        assert_eq!(
            connection.advance(&mut rig.service, &rig.room, NOW, rig.limits, &mut tally),
            Turn::Full
        );
        connection.settle(&mut rig.scratch).unwrap();
        assert_eq!(connection.unsent(), b"?\r\n?\r\n");
        assert_eq!(
            connection.advance(&mut rig.service, &rig.room, NOW, rig.limits, &mut tally),
            Turn::Full
        );
        assert_eq!(tally.requests, 2);
        connection.mark_sent(4);
        assert_eq!(
            connection.advance(&mut rig.service, &rig.room, NOW, rig.limits, &mut tally),
            Turn::Full
        );
        assert_eq!(tally.requests, 4, "room for answers makes room for requests");
    }

    #[test]
    fn announcing_a_large_value_costs_nothing_until_it_is_sent() {
        let mut rig = Rig::new();
        rig.send(b"set k 0 0 1000000\r\n");
        assert!(rig.gauge.bytes() <= VALUE_BYTES_FIRST);
        rig.send(&vec![b'x'; 1_000_000]);
        assert!(rig.gauge.bytes() >= 1_000_000);
        rig.send(b"\r\nmn\r\n");
        assert_eq!(rig.answers(), "1000000\r\n?\r\n");
        assert_eq!(rig.gauge.bytes(), 0);
    }

    #[test]
    fn value_without_memory_to_receive_it_is_refused_and_the_connection_goes_on() {
        let mut rig = Rig::with(100_000, LIMITS);
        rig.send(b"set k 0 0 1000000\r\n");
        rig.send(&vec![b'x'; 1_000_000]);
        rig.send(b"\r\nmn\r\n");
        assert_eq!(rig.answers(), "SERVER_ERROR out of memory storing object\r\n?\r\n");
        assert_eq!(rig.tally.values_refused, 1);
        assert_eq!(rig.service.invalidated, 1, "no stale value stays behind");
        assert_eq!(rig.gauge.bytes(), 0);
    }

    #[test]
    fn line_without_memory_to_receive_it_closes() {
        let mut rig = Rig::with(1000, LIMITS);
        assert_eq!(rig.send(b"get half a line"), Turn::OutOfMemory);
        assert_eq!(rig.gauge.bytes(), 0);
        assert!(rig.scratch.input.capacity() > 0, "the worker has its buffer back");
    }

    #[test]
    fn answers_without_memory_to_keep_them_close_and_return_the_buffers() {
        let mut rig = Rig::with(10, LIMITS);
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(b"get abcdefghijklmnop\r\n");
        let mut tally = Tally::default();
        let turn = rig.connection.advance(&mut rig.service, &rig.room, NOW, LIMITS, &mut tally);
        assert_eq!(turn, Turn::Drained);
        assert_eq!(rig.connection.settle(&mut rig.scratch), Err(OutOfMemory));
        assert!(rig.scratch.output.is_empty() && rig.scratch.output.capacity() > 0);
        assert!(rig.scratch.input.is_empty() && rig.scratch.input.capacity() > 0);
    }

    #[test]
    fn quit_closes_after_earlier_answers_and_before_later_requests() {
        let mut rig = Rig::new();
        assert_eq!(rig.send(b"mn\r\nquit\r\nmn\r\n"), Turn::Closes);
        assert_eq!(rig.answers(), "?\r\n");
    }

    #[test]
    fn crash_is_described_without_key_or_value() {
        let mut rig = Rig::new();
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(b"mn\r\nset secret 0 0 2\r\nab\r\n");
        assert_eq!(rig.connection.shape(), Shape { command: "mn", key_bytes: 0 });
        rig.connection.input.start = 4;
        assert_eq!(rig.connection.shape(), Shape { command: "store", key_bytes: 6 });
    }

    #[test]
    fn crash_in_the_service_leaves_the_request_at_the_head_of_the_input() {
        let mut rig = Rig::new();
        rig.connection.lend(&mut rig.scratch);
        rig.connection.input_mut().extend_from_slice(b"mn\r\nstats\r\n");
        let crash = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.turn()));
        assert!(crash.is_err());
        assert_eq!(rig.connection.shape(), Shape { command: "stats", key_bytes: 0 });
    }
}
