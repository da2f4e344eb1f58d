//! `ResponseDecoder`: a server's bytes into responses, resuming where it stopped.
//!
//! The client's counterpart of the [request decoder](crate::request::decoder): the first bytes of a
//! line that hold no newline are searched once, and while data is awaited nothing is read again. A
//! server that breaks the protocol is not to be trusted further, so there is no resynchronising.

use crate::backup::{Records, Restored};
use crate::meta;
use crate::meta::response::MetaStatus;
use crate::response::Response;
use crate::text::response::{self, ResponseLine};
use crate::token::{Tokens, find};

/// What a decoder of responses accepts at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// The longest value, or slice of a backup, in bytes.
    pub value_bytes_max: usize,
    /// The longest line, in bytes, its line end included.
    pub line_bytes_max: usize,
}

impl Default for ResponseLimits {
    /// Values up to 1 GiB, which is as far as a server's limit can be raised; lines up to 64 KiB.
    fn default() -> Self {
        Self { value_bytes_max: 1 << 30, line_bytes_max: 1 << 16 }
    }
}

/// What one call of [`ResponseDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseStep<'a> {
    /// There is no whole response yet.
    More {
        /// How long the input must become before another call can get further: exact when data is
        /// awaited, otherwise 1 more than what is there.
        wanted: usize,
    },
    /// A response.
    Response {
        /// Bytes of the input it took up: the next call gets what follows them.
        consumed: usize,
        /// The response.
        response: Response<'a>,
    },
    /// This is no memcached server, or one out of step: close the connection.
    Malformed(ResponseError),
}

/// Why a server's bytes cannot be made sense of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseError {
    /// The line is no response.
    UnknownLine,
    /// The line has no end within its limit.
    LineTooLong,
    /// The value is longer than the limit.
    ValueTooLarge,
    /// The data does not end where its line says.
    BadDataChunk,
}

impl std::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UnknownLine => "the server sent a line that is no response",
            Self::LineTooLong => "the server sent a line without an end",
            Self::ValueTooLarge => "the server sent a value above the limit",
            Self::BadDataChunk => "the server sent a value of another length than announced",
        })
    }
}

impl std::error::Error for ResponseError {}

/// Turns a server's bytes into responses. It owns no input; see
/// [`Decoder`](crate::request::decoder::Decoder).
#[derive(Debug)]
pub struct ResponseDecoder {
    limits: ResponseLimits,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A line is awaited; its first `scanned` bytes hold no newline.
    Line { scanned: usize },
    /// A line of `line_bytes` is read; with its data and their line end it makes `total_bytes`.
    Data { line_bytes: usize, total_bytes: usize },
}

impl ResponseDecoder {
    /// A decoder at the start of a connection.
    pub const fn new(limits: ResponseLimits) -> Self {
        Self { limits, state: State::Line { scanned: 0 } }
    }

    /// The first response of `input`, or what is missing.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> ResponseStep<'a> {
        match self.state {
            State::Data { total_bytes, .. } if input.len() < total_bytes => {
                ResponseStep::More { wanted: total_bytes }
            }
            State::Data { line_bytes, .. } => self.decode_at(input, line_bytes - 1),
            State::Line { scanned } => {
                let unseen = input.get(scanned..).unwrap_or_default();
                match find(b'\n', unseen) {
                    Some(index) => self.decode_at(input, scanned + index),
                    None if input.len() >= self.limits.line_bytes_max => {
                        ResponseStep::Malformed(ResponseError::LineTooLong)
                    }
                    None => {
                        self.state = State::Line { scanned: input.len() };
                        ResponseStep::More { wanted: input.len() + 1 }
                    }
                }
            }
        }
    }

    fn decode_at<'a>(&mut self, input: &'a [u8], newline: usize) -> ResponseStep<'a> {
        let line_bytes = newline + 1;
        if line_bytes > self.limits.line_bytes_max {
            return ResponseStep::Malformed(ResponseError::LineTooLong);
        }
        let line = &input[..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some((response, data_bytes)) = parse(line) else {
            return ResponseStep::Malformed(ResponseError::UnknownLine);
        };
        let Some(data_bytes) = data_bytes else {
            self.state = State::Line { scanned: 0 };
            return ResponseStep::Response { consumed: line_bytes, response };
        };
        if data_bytes > self.limits.value_bytes_max {
            return ResponseStep::Malformed(ResponseError::ValueTooLarge);
        }
        let total_bytes = line_bytes + data_bytes + b"\r\n".len();
        let Some(whole) = input.get(line_bytes..total_bytes) else {
            self.state = State::Data { line_bytes, total_bytes };
            return ResponseStep::More { wanted: total_bytes };
        };
        let Some(data) = whole.strip_suffix(b"\r\n") else {
            return ResponseStep::Malformed(ResponseError::BadDataChunk);
        };
        self.state = State::Line { scanned: 0 };
        ResponseStep::Response { consumed: total_bytes, response: with_data(response, data) }
    }
}

/// Reads a line: the response, and how many bytes of data follow, if any do.
fn parse<'a>(line: &'a [u8]) -> Option<(Response<'a>, Option<usize>)> {
    let mut tokens = Tokens::new(line);
    let word = tokens.next()?;
    if !line.starts_with(word) {
        return None;
    }
    match word {
        b"MN" => Some((Response::MetaNoop, None)),
        b"ME" => {
            let key = tokens.next()?;
            let facts = line.strip_prefix(b"ME ")?.strip_prefix(key)?.strip_prefix(b" ")?;
            Some((Response::MetaDebug { key, facts }, None))
        }
        b"RECORDS" => {
            let (records, data_bytes) = Records::parse(tokens)?;
            Some((Response::Records(records), Some(data_bytes)))
        }
        b"RESTORED" => Some((Response::Restored(Restored::parse(tokens)?), None)),
        b"HD" | b"VA" | b"EN" | b"NF" | b"NS" | b"EX" => {
            let reply = meta::response::parse(word, tokens)?;
            let data_bytes = match reply.status {
                MetaStatus::Value { bytes } => Some(bytes),
                _ => None,
            };
            Some((Response::Meta(reply), data_bytes))
        }
        _ => match response::parse(line, word, tokens)? {
            ResponseLine::Whole(response) => Some((response, None)),
            ResponseLine::Head { response, data_bytes } => Some((response, Some(data_bytes))),
        },
    }
}

fn with_data<'a>(mut response: Response<'a>, data: &'a [u8]) -> Response<'a> {
    match &mut response {
        Response::Value(value) => value.data = data,
        Response::Config(config) => config.data = data,
        Response::Records(records) => records.data = data,
        Response::Meta(reply) => reply.data = data,
        _ => debug_assert!(data.is_empty(), "only values carry data"),
    }
    response
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::token;
    use crate::backup::Cursor;
    use crate::error::ProtocolError;
    use crate::key::Key;
    use crate::meta::response::{MetaReply, ReturnedFlags};
    use crate::response::{Config, ErrorLine, Value};

    fn decode_all(bytes: &[u8], piece_bytes: usize) -> Vec<String> {
        let mut decoder = ResponseDecoder::new(ResponseLimits::default());
        let (mut heard, mut start, mut end) = (Vec::new(), 0, 0);
        loop {
            match decoder.decode(&bytes[start..end]) {
                ResponseStep::More { wanted } => {
                    assert!(wanted > end - start, "enough is there already");
                    if end == bytes.len() {
                        return heard;
                    }
                    end = (end + piece_bytes).min(bytes.len());
                }
                ResponseStep::Response { consumed, response } => {
                    assert!(consumed > 0, "no progress");
                    heard.push(format!("{response:?}"));
                    start += consumed;
                }
                ResponseStep::Malformed(error) => {
                    heard.push(error.to_string());
                    return heard;
                }
            }
        }
    }

    /// One response of each kind, made of the given parts.
    fn responses<'a>(key: &'a [u8], data: &'a [u8], number: u64) -> Vec<Response<'a>> {
        let value = Value {
            key: Key::new(key).expect("1 to 250 bytes"),
            client_flags: 7,
            cas: number.is_multiple_of(2).then_some(number),
            data,
        };
        let status = MetaStatus::Value { bytes: data.len() };
        let returned = |line| ReturnedFlags::new(line).expect("flags");
        let mut all = vec![
            Response::Value(value),
            Response::End,
            Response::Stored,
            Response::NotStored,
            Response::Exists,
            Response::NotFound,
            Response::Deleted,
            Response::Touched,
            Response::Ok,
            Response::Reset,
            Response::Number(number),
            Response::Version { version: b"1.6.45" },
            Response::Config(Config { name: key, data }),
            Response::Stat { name: key, value: b"" },
            Response::Stat { name: b"version", value: b"a b" },
            Response::Meta(MetaReply { status, returned: returned(b"c5 f7 kx b t-1"), data }),
            Response::Records(Records {
                next: Cursor { shard: 1, generation: number, entry: 2 },
                data,
            }),
            Response::Restored(Restored { stored: number, kept: 1, expired: 2, refused: 3 }),
            Response::MetaNoop,
            Response::MetaDebug { key, facts: b"exp=-1 la=0" },
        ];
        for status in [
            MetaStatus::Done,
            MetaStatus::Miss,
            MetaStatus::NotFound,
            MetaStatus::NotStored,
            MetaStatus::Exists,
        ] {
            let returned = returned(b"h0 l9 s12 t9 O44 W X Z");
            all.push(Response::Meta(MetaReply { status, returned, data: b"" }));
        }
        let answered = ProtocolError::ALL.into_iter().filter(|error| !error.line().is_empty());
        all.extend(answered.map(|error| Response::Error(ErrorLine::from(error))));
        all
    }

    #[test]
    fn an_error_written_as_a_response_is_its_line() {
        for error in ProtocolError::ALL.into_iter().filter(|error| !error.line().is_empty()) {
            let mut out = Vec::new();
            Response::Error(error.into()).encode(&mut out);
            assert_eq!(out, error.line().as_bytes());
        }
    }

    #[test]
    fn a_line_that_is_no_response_is_malformed() {
        for line in [
            "",
            "HELLO",
            "VALUE k 0",
            "VALUE k 0 1 2 3",
            "END 5",
            "VA x",
            "HD ?",
            "5 5",
            "RECORDS 1 2 3",
            "CONFIG cluster 0",
            "RESTORED 1 2 3",
        ] {
            let input = format!("{line}\r\n");
            let mut decoder = ResponseDecoder::new(ResponseLimits::default());
            let step = decoder.decode(input.as_bytes());
            assert_eq!(step, ResponseStep::Malformed(ResponseError::UnknownLine), "{line}");
        }
    }

    #[test]
    fn limits_hold_before_the_bytes_arrive() {
        let limits = ResponseLimits { value_bytes_max: 3, line_bytes_max: 16 };
        let malformed = |input: &[u8]| {
            ResponseDecoder::new(limits).decode(input)
                == ResponseStep::Malformed(ResponseError::ValueTooLarge)
        };
        assert!(malformed(b"VALUE k 0 4\r\n"));
        assert!(!malformed(b"VALUE k 0 3\r\n"));
        let step = ResponseDecoder::new(limits).decode(&[b'x'; 16]).clone();
        assert_eq!(step, ResponseStep::Malformed(ResponseError::LineTooLong));
    }

    #[test]
    fn a_value_of_another_length_is_malformed() {
        let mut decoder = ResponseDecoder::new(ResponseLimits::default());
        let step = decoder.decode(b"VALUE k 0 3\r\nabcdEND\r\n");
        assert_eq!(step, ResponseStep::Malformed(ResponseError::BadDataChunk));
    }

    proptest! {
        #[test]
        fn a_response_encoded_decodes_to_itself(
            key in token(250),
            data in vec(any::<u8>(), 0..100),
            number: u64,
            piece_bytes in 1usize..50,
        ) {
            let all = responses(&key, &data, number);
            let mut out = Vec::new();
            all.iter().for_each(|response| response.encode(&mut out));
            let expected: Vec<String> = all.iter().map(|response| format!("{response:?}")).collect();
            prop_assert_eq!(decode_all(&out, piece_bytes), expected);
        }

        #[test]
        fn noise_never_stops_the_decoder(noise in vec(any::<u8>(), 0..500), piece_bytes in 1usize..50) {
            decode_all(&noise, piece_bytes);
        }
    }
}
