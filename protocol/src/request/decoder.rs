//! `Decoder`: bytes as they arrive into requests, resuming where it stopped.
//!
//! ```text
//!          newline found: no data          newline found: data follows       data is there
//! Line ------------------------> Line   Line ----------------------> Data ------------------> Line
//!   |                                     |                            | refuse_data
//!   | no newline in reach                 | refused, data follows      v
//!   v                                     +-----------> Swallow <--- Refuse
//! Closed                                                   +--> Line, all of it swallowed
//!
//!             first byte 0x80                               first byte anything else
//! Frame, ... <---------------- Start, nothing received yet ------------------------> Line
//! ```
//!
//! - In `Line`, the first `scanned` bytes hold no newline; they are not searched again.
//! - In `Data`, the header is valid; it is read a second and last time when the data is complete.
//! - The binary protocol has the same states under other names; a connection never goes over.
//! - What a stream of bytes decodes to does not depend on the pieces it arrives in.
//!
//! After data of another length than announced, memcached takes up the next line right behind the
//! announced length and its two bytes of line end, whatever they are. So does this.

use crate::backup::{ITEM_OVERHEAD_BYTES_MAX, SLICE_BYTES_MAX};
use crate::binary::request::{BinaryRequest, Command};
use crate::binary::response::{self, Status};
use crate::binary::{HEADER_BYTES, Head, Header, Opcode, REQUEST_MAGIC, sasl};
use crate::error::ProtocolError;
use crate::key::KEY_BYTES_MAX;
use crate::meta::request::MetaKey;
use crate::request::{Request, StoreMode};
use crate::token::{Tokens, find};
use crate::{meta, text};

/// What a decoder accepts at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest value, in bytes. A longer one is answered with
    /// [`ProtocolError::TooLarge`] and its data is swallowed. A `restore` may carry an item with
    /// such a value, or a slice of items.
    pub value_bytes_max: usize,
    /// The longest command line, in bytes, its line end included; beyond it the connection closes.
    /// 2,048 as in memcached, which looks at it only while the line end has not arrived: here it
    /// holds always. Not less than 128, so that the command can be told.
    pub line_bytes_max: usize,
    /// The same for `get`, `gets`, `gat` and `gats`, whose lines may carry many keys. memcached has
    /// no bound here. 1 MiB by default: 4,000 keys of the longest kind, 100,000 short ones.
    pub get_line_bytes_max: usize,
}

impl Default for Limits {
    /// Values up to 1 MiB, lines up to 2,048 bytes, those of gets up to 1 MiB.
    fn default() -> Self {
        Self { value_bytes_max: 1 << 20, line_bytes_max: 2048, get_line_bytes_max: 1 << 20 }
    }
}

impl Limits {
    /// How much data may follow the header of `request`, in bytes.
    fn data_bytes_max(&self, request: &Request<'_>) -> usize {
        match request {
            Request::Restore(_) => {
                SLICE_BYTES_MAX.max(self.value_bytes_max.saturating_add(ITEM_OVERHEAD_BYTES_MAX))
            }
            _ => self.value_bytes_max,
        }
    }

    /// Why a binary request cannot have a value of so many bytes, if it cannot.
    fn refuse_value(&self, request: &BinaryRequest<'_>, bytes: usize) -> Option<ProtocolError> {
        match request.command {
            Command::Sasl(_) => {
                (bytes > sasl::MESSAGE_BYTES_MAX).then_some(ProtocolError::OutOfMemory)
            }
            _ => (bytes > self.value_bytes_max).then_some(ProtocolError::TooLarge),
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// What its first byte says.
    #[default]
    Auto,
    /// Lines: the classic and the meta commands.
    Text,
    /// Frames.
    Binary,
}

/// What one call of [`Decoder::decode`] found.
///
/// In every case the first `consumed` bytes of the input are done with: the next call gets what
/// follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// There is no whole request yet.
    More {
        /// Bytes of the input to drop: more than 0 only while refused data is being swallowed.
        consumed: usize,
        /// How long the input must become, counted after dropping `consumed`, before another call
        /// can get further. At least 1 more than what is there; exact when a data block is awaited.
        wanted: usize,
    },
    /// A request.
    Request {
        /// Bytes of the input it took up.
        consumed: usize,
        /// The request.
        request: Request<'a>,
    },
    /// Something that is not carried out but answered with an error.
    Refused {
        /// Bytes of the input it took up. Data that belongs to it and has not arrived is swallowed
        /// by later calls.
        consumed: usize,
        /// What to answer.
        refusal: Refusal<'a>,
    },
}

/// A request that is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// Why.
    pub error: ProtocolError,
    /// The client asked for no answer, so there is none. ([`Refusal::encode`] heeds it.)
    pub noreply: bool,
    /// The binary request that it answers; `None` in the text protocol.
    pub frame: Option<Head>,
    /// An item that must be removed: a `set` or `ms` whose value could not be taken leaves no stale
    /// value behind.
    pub invalidates: Option<MetaKey<'a>>,
}

impl Refusal<'_> {
    /// Appends the answer, if there is any.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.frame {
            Some(head) => response::encode_error(out, head, Status::from(self.error)),
            None => out.extend_from_slice(self.line().as_bytes()),
        }
    }

    /// The line to answer, its `\r\n` included; empty when nothing is to be sent, or no line.
    pub const fn line(&self) -> &'static str {
        if self.noreply || self.frame.is_some() { "" } else { self.error.line() }
    }

    /// Whether the connection closes once the answer, if any, is sent.
    pub const fn closes(&self) -> bool {
        self.error.closes()
    }
}

/// One line, read.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    /// A request without data.
    Request(Request<'a>),
    /// The header of a write, whose data is still empty.
    Store { request: Request<'a>, data_bytes: usize },
    /// Not carried out; `data_bytes` and a line end follow and are not looked at.
    Refused { error: ProtocolError, noreply: bool, data_bytes: Option<usize> },
}

impl Line<'_> {
    /// Refused, loudly, with no data behind it.
    pub(crate) const fn refused(error: ProtocolError) -> Self {
        Self::Refused { error, noreply: false, data_bytes: None }
    }
}

impl<'a> Line<'a> {
    /// Reads a line, which is without its line end.
    #[inline]
    fn parse(line: &'a [u8]) -> Self {
        // The one command that must be fast.
        if let Some(keys) = line.strip_prefix(b"get ") {
            return text::request::parse_get(Tokens::new(keys), false);
        }
        if line.len() < COMMAND_BYTES_MIN {
            return Self::refused(ProtocolError::BadCommandLine);
        }
        // The name is what stands before the first space: nothing, where the line begins with one.
        let name_bytes = find(b' ', line).unwrap_or(line.len());
        let (name, arguments) = line.split_at(name_bytes);
        let arguments = Tokens::new(arguments);
        match name {
            &[b'm', letter] => meta::request::parse(letter, arguments),
            name => text::request::parse(name, arguments),
        }
    }
}

/// Turns a connection's bytes into requests.
///
/// It owns no input: the caller keeps the bytes and passes all that are not consumed yet, each call
/// the same ones with more behind them. What was looked at before is not looked at again. Requests
/// borrow from the input alone, so several can be decoded first and carried out together.
#[derive(Clone, Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    /// The client of a binary connection must authenticate before anything else.
    is_locked: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing was received yet, and either protocol may be.
    Start,
    /// A line is awaited; its first `scanned` bytes hold no newline.
    Line { scanned: usize },
    /// A header of `header_bytes` is valid; with its data and their line end it makes `total_bytes`.
    Data { header_bytes: usize, total_bytes: usize },
    /// The same, but the data is not wanted.
    Refuse { header_bytes: usize, total_bytes: usize, error: ProtocolError },
    /// This many bytes are dropped before the next line.
    Swallow { remaining: usize },
    /// A binary request is awaited.
    Frame,
    /// All but the value of a binary request is valid; with it the frame makes `total_bytes`.
    FrameValue { total_bytes: usize },
    /// The same, but the value is not wanted.
    FrameRefuse { error: ProtocolError },
    /// This many bytes are dropped before the next binary request.
    FrameSwallow { remaining: usize },
    /// A line had no end, or a frame was none; nothing can be made of what follows.
    Closed,
}

/// The longest body of a binary request: memcached's `ITEM_SIZE_MAX_UPPER_LIMIT`.
const FRAME_BODY_BYTES_MAX: usize = 1 << 30;

/// The two bytes behind every data block.
const LINE_END: &[u8; 2] = b"\r\n";

/// A shorter line is not looked at.
const COMMAND_BYTES_MIN: usize = 2;

impl Decoder {
    /// A decoder at the start of a connection.
    pub const fn new(limits: Limits) -> Self {
        Self::of(limits, Dialect::Auto)
    }

    /// A decoder at the start of a connection on which `dialect` is spoken.
    pub const fn of(limits: Limits, dialect: Dialect) -> Self {
        let state = match dialect {
            Dialect::Auto => State::Start,
            Dialect::Text => State::Line { scanned: 0 },
            Dialect::Binary => State::Frame,
        };
        Self { limits, state, is_locked: false }
    }

    /// From now on, whether a binary request other than [those for
    /// everybody](Opcode::is_for_everybody) is refused.
    pub const fn set_locked(&mut self, is_locked: bool) {
        self.is_locked = is_locked;
    }

    /// Changes the limits, for every line that is not complete yet.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The first request of `input`, or what is missing.
    #[inline]
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        match self.state {
            State::Line { scanned } => self.decode_line(input, scanned),
            _ => self.resume(input),
        }
    }

    /// How many bytes of input the request whose data is awaited takes up, header and data block
    /// with its line end; `None` when no data is awaited.
    pub const fn awaited_bytes(&self) -> Option<usize> {
        match self.state {
            State::Data { total_bytes, .. } | State::FrameValue { total_bytes } => {
                Some(total_bytes)
            }
            _ => None,
        }
    }

    /// Refuses the request whose data is awaited: the next [`Decoder::decode`] answers `error`, and
    /// the data is swallowed as it arrives. Without effect when no data is awaited.
    pub const fn refuse_data(&mut self, error: ProtocolError) {
        match self.state {
            State::Data { header_bytes, total_bytes } => {
                self.state = State::Refuse { header_bytes, total_bytes, error };
            }
            State::FrameValue { .. } => self.state = State::FrameRefuse { error },
            _ => {}
        }
    }

    /// Takes up anything but the start of a line.
    fn resume<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        match self.state {
            State::Start => match input.first() {
                None => Step::More { consumed: 0, wanted: 1 },
                Some(&REQUEST_MAGIC) => self.decode_frame(input, None),
                Some(_) => self.decode_line(input, 0),
            },
            State::Frame => self.decode_frame(input, None),
            State::FrameValue { total_bytes } if input.len() < total_bytes => {
                Step::More { consumed: 0, wanted: total_bytes }
            }
            State::FrameValue { .. } => self.decode_frame(input, None),
            State::FrameRefuse { error } => self.decode_frame(input, Some(error)),
            State::FrameSwallow { remaining } if input.len() <= remaining => {
                self.state = match remaining - input.len() {
                    0 => State::Frame,
                    remaining => State::FrameSwallow { remaining },
                };
                Step::More { consumed: input.len(), wanted: 1 }
            }
            State::FrameSwallow { remaining } => {
                self.decode_frame(&input[remaining..], None).behind(remaining)
            }
            State::Line { scanned } => self.decode_line(input, scanned),
            State::Data { total_bytes, .. } if input.len() < total_bytes => {
                Step::More { consumed: 0, wanted: total_bytes }
            }
            State::Data { header_bytes, total_bytes } => {
                self.state = State::Line { scanned: 0 };
                match Line::parse(trim_line_end(&input[..header_bytes - 1])) {
                    Line::Store { request, .. } => {
                        complete(request, &input[..total_bytes], header_bytes)
                    }
                    Line::Request(_) | Line::Refused { .. } => {
                        debug_assert!(false, "a header reads the same the second time");
                        refused(total_bytes, ProtocolError::BadCommandLine, false)
                    }
                }
            }
            State::Refuse { header_bytes, total_bytes, error } => {
                match Line::parse(trim_line_end(&input[..header_bytes - 1])) {
                    Line::Store { request, .. } => {
                        self.refuse(&request, error, header_bytes, total_bytes)
                    }
                    Line::Request(_) | Line::Refused { .. } => {
                        debug_assert!(false, "a header reads the same the second time");
                        self.state = State::Swallow { remaining: total_bytes - header_bytes };
                        refused(header_bytes, error, false)
                    }
                }
            }
            State::Swallow { remaining } if input.len() <= remaining => {
                self.state = match remaining - input.len() {
                    0 => State::Line { scanned: 0 },
                    remaining => State::Swallow { remaining },
                };
                Step::More { consumed: input.len(), wanted: 1 }
            }
            State::Swallow { remaining } => {
                self.decode_line(&input[remaining..], 0).behind(remaining)
            }
            State::Closed => Step::More { consumed: input.len(), wanted: 1 },
        }
    }

    #[inline]
    fn decode_line<'a>(&mut self, input: &'a [u8], scanned: usize) -> Step<'a> {
        let unseen = input.get(scanned..).unwrap_or_default();
        let Some(newline) = find(b'\n', unseen).map(|index| scanned + index) else {
            return self.wait_for_line_end(input);
        };
        let line_bytes = newline + 1;
        if line_bytes > self.limits.line_bytes_max && line_bytes > self.line_bytes_max(input) {
            return self.close(input);
        }
        self.state = State::Line { scanned: 0 };
        match Line::parse(trim_line_end(&input[..newline])) {
            Line::Request(request) => Step::Request { consumed: line_bytes, request },
            Line::Store { request, data_bytes } => {
                self.begin_store(request, data_bytes, input, line_bytes)
            }
            Line::Refused { error, noreply, data_bytes } => {
                if let Some(data_bytes) = data_bytes {
                    self.state = State::Swallow { remaining: data_bytes + LINE_END.len() };
                }
                refused(line_bytes, error, noreply)
            }
        }
    }

    /// The header of a write is read: its data is there, awaited, or too much.
    fn begin_store<'a>(
        &mut self,
        request: Request<'a>,
        data_bytes: usize,
        input: &'a [u8],
        header_bytes: usize,
    ) -> Step<'a> {
        let total_bytes = header_bytes + data_bytes + LINE_END.len();
        if data_bytes > self.limits.value_bytes_max
            && data_bytes > self.limits.data_bytes_max(&request)
        {
            return self.refuse(&request, ProtocolError::TooLarge, header_bytes, total_bytes);
        }
        if input.len() < total_bytes {
            self.state = State::Data { header_bytes, total_bytes };
            return Step::More { consumed: 0, wanted: total_bytes };
        }
        complete(request, &input[..total_bytes], header_bytes)
    }

    /// Answers `error` to a write instead of carrying it out, and drops its data.
    fn refuse<'a>(
        &mut self,
        request: &Request<'a>,
        error: ProtocolError,
        header_bytes: usize,
        total_bytes: usize,
    ) -> Step<'a> {
        self.state = State::Swallow { remaining: total_bytes - header_bytes };
        let (noreply, invalidates) = match request {
            Request::Store(store) => {
                let overwrites = store.mode == StoreMode::Set && store.compare_cas.is_none();
                (store.noreply, overwrites.then_some(MetaKey::plain(store.key)))
            }
            Request::MetaSet(set) => {
                let overwrites = set.mode == StoreMode::Set && set.compare_cas.is_none();
                (false, overwrites.then_some(set.key))
            }
            _ => (false, None),
        };
        let refusal = Refusal { error, noreply, frame: None, invalidates };
        Step::Refused { consumed: header_bytes, refusal }
    }

    fn wait_for_line_end<'a>(&mut self, input: &'a [u8]) -> Step<'a> {
        if input.len() >= self.limits.line_bytes_max && input.len() >= self.line_bytes_max(input) {
            return self.close(input);
        }
        self.state = State::Line { scanned: input.len() };
        Step::More { consumed: 0, wanted: input.len() + 1 }
    }

    /// How long the line at the front of `input` may be, which shows by its first word.
    #[cold]
    fn line_bytes_max(&self, input: &[u8]) -> usize {
        let is_get =
            [&b"get "[..], b"gets ", b"gat ", b"gats "].iter().any(|name| input.starts_with(name));
        if is_get {
            self.limits.get_line_bytes_max.max(self.limits.line_bytes_max)
        } else {
            self.limits.line_bytes_max
        }
    }

    /// The binary request at the front of `input`. Its value is refused with `error`, if there is one.
    fn decode_frame<'a>(&mut self, input: &'a [u8], error: Option<ProtocolError>) -> Step<'a> {
        self.state = State::Frame;
        let Some(&magic) = input.first() else { return Step::More { consumed: 0, wanted: 1 } };
        if magic != REQUEST_MAGIC {
            self.state = State::Closed;
            return refused(input.len(), ProtocolError::BadMagic, false);
        }
        let Some(header) = Header::read(input) else {
            return Step::More { consumed: 0, wanted: HEADER_BYTES };
        };
        let Some(prefix) = input.get(..header.prefix_bytes()) else {
            return Step::More { consumed: 0, wanted: header.prefix_bytes() };
        };
        if let Err(error) = self.admit(&header) {
            return self.close_frame(&header, error);
        }
        let request = match BinaryRequest::parse(&header, prefix) {
            Ok(request) => request,
            // Known by its length, so what follows can be made sense of.
            Err(error @ ProtocolError::UnknownCommand) => {
                return self.refuse_frame(&header, error, None);
            }
            Err(error) => return self.close_frame(&header, error),
        };
        let value_bytes = header.total_bytes() - prefix.len();
        if let Some(error) = error.or_else(|| self.limits.refuse_value(&request, value_bytes)) {
            return self.refuse_frame(&header, error, overwritten(&request));
        }
        let total_bytes = header.total_bytes();
        let Some(value) = input.get(prefix.len()..total_bytes) else {
            self.state = State::FrameValue { total_bytes };
            return Step::More { consumed: 0, wanted: total_bytes };
        };
        match Request::Binary(request).with_data(value) {
            Some(request) => Step::Request { consumed: total_bytes, request },
            None => self.close_frame(&header, ProtocolError::BadFrame),
        }
    }

    /// Whether a frame may be looked at further.
    #[inline]
    fn admit(&self, header: &Header) -> Result<(), ProtocolError> {
        if !header.is_sound() {
            return Err(ProtocolError::BadFrameLengths);
        }
        if header.body_bytes > FRAME_BODY_BYTES_MAX {
            return Err(ProtocolError::BadFrame);
        }
        if self.is_locked
            && !Opcode::from_byte(header.head.opcode).is_some_and(Opcode::is_for_everybody)
        {
            return Err(ProtocolError::NotAuthenticated);
        }
        if header.key_bytes > KEY_BYTES_MAX {
            return Err(ProtocolError::BadFrame);
        }
        Ok(())
    }

    /// Answers `error` to a binary request and drops its value.
    fn refuse_frame<'a>(
        &mut self,
        header: &Header,
        error: ProtocolError,
        invalidates: Option<MetaKey<'a>>,
    ) -> Step<'a> {
        let consumed = header.prefix_bytes();
        if header.total_bytes() > consumed {
            self.state = State::FrameSwallow { remaining: header.total_bytes() - consumed };
        }
        let frame = Some(header.head);
        Step::Refused { consumed, refusal: Refusal { error, noreply: false, frame, invalidates } }
    }

    /// Answers `error` to a binary request, the last one of the connection.
    #[cold]
    fn close_frame<'a>(&mut self, header: &Header, error: ProtocolError) -> Step<'a> {
        self.state = State::Closed;
        let (consumed, frame) = (header.prefix_bytes(), Some(header.head));
        let refusal = Refusal { error, noreply: false, frame, invalidates: None };
        Step::Refused { consumed, refusal }
    }

    #[cold]
    fn close<'a>(&mut self, input: &[u8]) -> Step<'a> {
        let consumed = self.line_bytes_max(input);
        self.state = State::Closed;
        refused(consumed, ProtocolError::LineTooLong, false)
    }
}

impl Step<'_> {
    /// The same step, with `bytes` more in front of it.
    fn behind(mut self, bytes: usize) -> Self {
        match &mut self {
            Self::More { consumed, .. }
            | Self::Request { consumed, .. }
            | Self::Refused { consumed, .. } => *consumed += bytes,
        }
        self
    }
}

/// A write whose data has arrived: `whole` is its header and its data block with the line end.
#[inline]
fn complete<'a>(request: Request<'a>, whole: &'a [u8], header_bytes: usize) -> Step<'a> {
    let noreply = matches!(&request, Request::Store(store) if store.noreply);
    let data = whole[header_bytes..].strip_suffix(LINE_END);
    match data.and_then(|data| request.with_data(data)) {
        Some(request) => Step::Request { consumed: whole.len(), request },
        None => refused(whole.len(), ProtocolError::BadDataChunk, noreply),
    }
}

const fn refused<'a>(consumed: usize, error: ProtocolError, noreply: bool) -> Step<'a> {
    let refusal = Refusal { error, noreply, frame: None, invalidates: None };
    Step::Refused { consumed, refusal }
}

/// The item that a binary write overwrites, whatever it held: as in memcached also where a cas is
/// compared.
fn overwritten<'a>(request: &BinaryRequest<'a>) -> Option<MetaKey<'a>> {
    let Command::Store(store) = &request.command else { return None };
    matches!(Opcode::from_byte(request.head.opcode), Some(Opcode::Set | Opcode::SetQ))
        .then_some(MetaKey::plain(store.key))
}

/// A line may end in a bare newline; a `\r` in front of it belongs to the line end.
#[inline]
fn trim_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{self, Parts};

    const SMALL: Limits =
        Limits { value_bytes_max: 64, line_bytes_max: 300, get_line_bytes_max: 600 };

    /// What a connection hears when `stream` arrives in `pieces`, and how much of it is done with.
    fn hear(limits: Limits, pieces: &[&[u8]]) -> (Vec<String>, usize) {
        hear_by(Decoder::new(limits), pieces)
    }

    fn hear_by(mut decoder: Decoder, pieces: &[&[u8]]) -> (Vec<String>, usize) {
        let (mut heard, mut input, mut done, mut wanted) = (Vec::new(), Vec::new(), 0, 0);
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let early = input.len() < wanted;
                let step = decoder.decode(&input);
                assert!(!early || matches!(step, Step::More { .. }), "fewer bytes were enough");
                let consumed = match step {
                    Step::More { consumed, wanted: more } => {
                        assert!(more > input.len() - consumed, "enough is there already");
                        wanted = more;
                        done += consumed;
                        input.drain(..consumed);
                        break;
                    }
                    Step::Request { consumed, request } => {
                        heard.push(format!("{request:?}"));
                        consumed
                    }
                    Step::Refused { consumed, refusal } => {
                        heard.push(format!("{refusal:?}"));
                        consumed
                    }
                };
                assert!(consumed > 0, "no progress");
                done += consumed;
                input.drain(..consumed);
                wanted = 0;
            }
        }
        (heard, done)
    }

    /// `stream` in pieces.
    fn cut_at<'a>(stream: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut rest = stream;
        for cut in cuts.iter().rev() {
            let (front, back) = rest.split_at(*cut);
            pieces.insert(0, back);
            rest = front;
        }
        pieces.insert(0, rest);
        pieces
    }

    #[test]
    fn the_first_byte_says_what_is_spoken() {
        let frame = b"\x80\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let heard = |dialect, input| hear_by(Decoder::of(SMALL, dialect), &[input]).0;
        assert!(heard(Dialect::Auto, &frame[..])[0].contains("Binary"));
        assert!(heard(Dialect::Binary, &frame[..])[0].contains("Binary"));
        assert_eq!(heard(Dialect::Auto, b"mn\r\n"), ["MetaNoop"]);
        let line = [frame, &b"\r\n"[..]].concat();
        assert!(heard(Dialect::Text, &line)[0].contains("UnknownCommand"));
        assert!(heard(Dialect::Binary, b"mn\r\n")[0].contains("BadMagic"));
        // It stays what it was.
        let mixed = [b"mn\r\n", &line[..]].concat();
        assert!(heard(Dialect::Auto, &mixed)[1].contains("UnknownCommand"));
        let mixed = [&frame[..], b"mn\r\n"].concat();
        assert!(heard(Dialect::Auto, &mixed)[1].contains("BadMagic"));
    }

    fn more(step: Step<'_>) -> usize {
        match step {
            Step::More { consumed: 0, wanted } => wanted,
            step => panic!("{step:?} where more bytes are needed"),
        }
    }

    fn line(step: Step<'_>) -> (usize, &'static str) {
        match step {
            Step::Refused { consumed, refusal } => (consumed, refusal.line()),
            step => panic!("{step:?} where an error is due"),
        }
    }

    #[test]
    fn a_header_is_not_read_again_while_its_data_arrives() {
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(more(decoder.decode(b"set k 0 0 9\r\n")), 24);
        // The header is gone, and it does not matter.
        assert_eq!(more(decoder.decode(b"-------------abc")), 24);
        assert_eq!(decoder.awaited_bytes(), Some(24));
    }

    #[test]
    fn bytes_without_a_newline_are_searched_once() {
        let mut decoder = Decoder::new(Limits::default());
        assert_eq!(more(decoder.decode(b"get some")), 9);
        // A newline among the bytes already searched goes unseen.
        assert_eq!(more(decoder.decode(b"get\nsomething")), 14);
    }

    #[test]
    fn a_value_too_large_is_swallowed_in_any_pieces() {
        let mut decoder = Decoder::new(Limits { value_bytes_max: 3, ..Limits::default() });
        let header = b"set k 0 0 4\r\n";
        let Step::Refused { consumed, refusal } = decoder.decode(header) else { panic!() };
        assert_eq!(consumed, header.len());
        assert_eq!(refusal.line(), "SERVER_ERROR object too large for cache\r\n");
        assert_eq!(refusal.invalidates.map(|key| key.written()), Some(&b"k"[..]));
        assert_eq!(decoder.decode(b"da"), Step::More { consumed: 2, wanted: 1 });
        let after = decoder.decode(b"ta\r\nmn\r\n");
        assert_eq!(after, Step::Request { consumed: 8, request: Request::MetaNoop });
    }

    #[test]
    fn only_an_unconditional_write_that_is_refused_removes_the_old_value() {
        for (header, removes) in [
            ("set k 0 0 4\r\n", true),
            ("ms k 4\r\n", true),
            ("add k 0 0 4\r\n", false),
            ("cas k 0 0 4 1\r\n", false),
            ("ms k 4 MA\r\n", false),
        ] {
            let mut decoder = Decoder::new(Limits { value_bytes_max: 3, ..Limits::default() });
            let Step::Refused { refusal, .. } = decoder.decode(header.as_bytes()) else { panic!() };
            assert_eq!(refusal.invalidates.is_some(), removes, "{header}");
        }
    }

    #[test]
    fn data_that_is_awaited_can_be_refused() {
        let mut decoder = Decoder::new(Limits::default());
        let input = b"set k 0 0 4\r\ndata\r\nmn\r\n";
        assert_eq!(more(decoder.decode(&input[..14])), 19);
        decoder.refuse_data(ProtocolError::OutOfMemoryStoring);
        let (consumed, answer) = line(decoder.decode(&input[..14]));
        assert_eq!((consumed, answer), (13, "SERVER_ERROR out of memory storing object\r\n"));
        let after = decoder.decode(&input[13..]);
        assert_eq!(after, Step::Request { consumed: 10, request: Request::MetaNoop });
    }

    #[test]
    fn a_refusal_heeds_noreply() {
        let mut decoder = Decoder::new(Limits { value_bytes_max: 3, ..Limits::default() });
        assert_eq!(line(decoder.decode(b"set k 0 0 4 noreply\r\n")).1, "");
    }

    #[test]
    fn a_line_without_an_end_closes_the_connection() {
        let mut decoder = Decoder::new(Limits::default());
        more(decoder.decode(&[b'x'; 2047]));
        let Step::Refused { refusal, .. } = decoder.decode(&[b'x'; 2048]) else { panic!() };
        assert!(refusal.closes());
        assert_eq!(refusal.line(), "");
        let after = decoder.decode(b"mn\r\n");
        assert_eq!(after, Step::More { consumed: 4, wanted: 1 });
    }

    #[test]
    fn a_get_of_four_thousand_long_keys_is_one_request() {
        let input = [b"get".to_vec(), [b" ", &[b'k'; 250][..]].concat().repeat(4000)].concat();
        let mut decoder = Decoder::new(Limits::default());
        more(decoder.decode(&input));
        let input = [&input[..], b"\r\n"].concat();
        let Step::Request { request: Request::Get(get), .. } = decoder.decode(&input) else {
            panic!()
        };
        assert_eq!(get.keys.len(), 4000);
        assert_eq!(get.keys.count(), 4000);
    }

    #[test]
    fn a_get_without_an_end_is_bounded_too() {
        let mut decoder = Decoder::new(Limits::default());
        let input = [&b"get "[..], &[b'k'; 1 << 20]].concat();
        assert_eq!(line(decoder.decode(&input)).0, 1 << 20);
    }

    #[test]
    fn a_long_mg_is_no_get() {
        let mut decoder = Decoder::new(Limits::default());
        let input = [&b"mg "[..], &[b'k'; 2048]].concat();
        assert_eq!(line(decoder.decode(&input)).0, 2048);
    }

    #[test]
    fn several_requests_can_be_held_at_once() {
        let mut decoder = Decoder::new(Limits::default());
        let input = b"get a\r\nget b\r\n";
        let Step::Request { consumed, request: first } = decoder.decode(input) else { panic!() };
        let Step::Request { request: second, .. } = decoder.decode(&input[consumed..]) else {
            panic!()
        };
        assert_ne!(first, second);
    }

    proptest! {
        #[test]
        fn a_request_encoded_decodes_to_itself(parts in Parts::any()) {
            let request = parts.request();
            let mut out = Vec::new();
            request.encode(&mut out);
            let mut decoder = Decoder::new(Limits::default());
            prop_assert_eq!(
                decoder.decode(&out),
                Step::Request { consumed: out.len(), request: request.clone() }
            );
        }

        #[test]
        fn a_stream_decodes_alike_in_one_piece_and_byte_by_byte(stream in arbitrary::stream()) {
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(hear(SMALL, &[&stream]).0, hear(SMALL, &bytes).0);
        }

        #[test]
        fn a_stream_decodes_alike_however_it_is_cut(
            stream in arbitrary::stream(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            prop_assert_eq!(hear(SMALL, &[&stream]), hear(SMALL, &cut_at(&stream, &cuts)));
        }

        #[test]
        fn a_binary_request_encoded_decodes_to_itself(parts in Parts::any()) {
            let request = Request::Binary(parts.binary_request());
            let mut out = Vec::new();
            request.encode(&mut out);
            let mut decoder = Decoder::new(Limits::default());
            prop_assert_eq!(
                decoder.decode(&out),
                Step::Request { consumed: out.len(), request: request.clone() }
            );
        }

        #[test]
        fn a_binary_stream_decodes_alike_however_it_is_cut(
            stream in arbitrary::binary_stream(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let hear = |pieces: &[&[u8]]| hear_by(Decoder::of(SMALL, Dialect::Binary), pieces);
            let whole = hear(&[&stream]);
            prop_assert_eq!(&whole, &hear(&cut_at(&stream, &cuts)));
            prop_assert_eq!(&whole, &hear(&stream.chunks(1).collect::<Vec<_>>()));
        }

        #[test]
        fn noise_never_stops_the_decoder(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (_, done) = hear(SMALL, &[&noise]);
            prop_assert!(done <= noise.len());
        }
    }
}
