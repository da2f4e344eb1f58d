//! Encodes and decodes the classic responses.

use crate::key::Key;
use crate::response::{Config, ErrorKind, ErrorLine, Response, Value};
use crate::token::{Tokens, parse_length, parse_u32, parse_u64, push_number};

/// Appends the line of a `VALUE` block, its line end included. The data and its `\r\n` are the
/// caller's to append, so that a large value can be sent from where it lies.
#[inline]
pub fn encode_value_line(
    out: &mut Vec<u8>,
    key: Key<'_>,
    client_flags: u32,
    value_bytes: usize,
    cas: Option<u64>,
) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key.as_bytes());
    out.push(b' ');
    push_number(out, client_flags.into());
    out.push(b' ');
    push_number(out, value_bytes as u64);
    if let Some(cas) = cas {
        out.push(b' ');
        push_number(out, cas);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a line of the statistics.
pub fn encode_stat(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [b"STAT ", name, b" ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl Value<'_> {
    /// Appends the item: its line and its data.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_value_line(out, self.key, self.client_flags, self.data.len(), self.cas);
        out.extend_from_slice(self.data);
        out.extend_from_slice(b"\r\n");
    }
}

impl Config<'_> {
    /// Appends the list: its line and its data. The flags that the line has are always 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONFIG ");
        out.extend_from_slice(self.name);
        out.extend_from_slice(b" 0 ");
        push_number(out, self.data.len() as u64);
        for part in [b"\r\n", self.data, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
}

impl ErrorLine<'_> {
    /// Appends the error.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.kind.word());
        if !self.message.is_empty() {
            out.push(b' ');
            out.extend_from_slice(self.message);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A response line of the classic commands, read.
pub(crate) enum ResponseLine<'a> {
    /// A response without data.
    Whole(Response<'a>),
    /// The line of a response whose data is still empty.
    Head { response: Response<'a>, data_bytes: usize },
}

/// Reads a response line, which is without its line end; `word` is its first token. `None` when it
/// is no response of the classic commands.
pub(crate) fn parse<'a>(
    line: &'a [u8],
    word: &[u8],
    tokens: Tokens<'a>,
) -> Option<ResponseLine<'a>> {
    let response = match word {
        b"VALUE" => return parse_value(tokens),
        b"CONFIG" => return parse_config(tokens),
        b"END" => Response::End,
        b"STORED" => Response::Stored,
        b"NOT_STORED" => Response::NotStored,
        b"EXISTS" => Response::Exists,
        b"NOT_FOUND" => Response::NotFound,
        b"DELETED" => Response::Deleted,
        b"TOUCHED" => Response::Touched,
        b"OK" => Response::Ok,
        b"RESET" => Response::Reset,
        b"STAT" => return parse_stat(line.strip_prefix(b"STAT ")?),
        b"VERSION" => Response::Version { version: line.strip_prefix(b"VERSION ")? },
        [b'0'..=b'9', ..] => Response::Number(parse_u64(word)?),
        _ => Response::Error(parse_error(line)?),
    };
    // A line with more on it than it should have is another one.
    let whole = line == word
        || matches!(response, Response::Version { .. } | Response::Error(_))
        || matches!(response, Response::Number(_)) && tokens.clone().next().is_none();
    whole.then_some(ResponseLine::Whole(response))
}

fn parse_value<'a>(mut tokens: Tokens<'a>) -> Option<ResponseLine<'a>> {
    let key = Key::new(tokens.next()?)?;
    let client_flags = parse_u32(tokens.next()?)?;
    let data_bytes = parse_length(tokens.next()?)?;
    let cas = match tokens.next() {
        Some(cas) => Some(parse_u64(cas)?),
        None => None,
    };
    let value = Value { key, client_flags, cas, data: b"" };
    let response = Response::Value(value);
    tokens.next().is_none().then_some(ResponseLine::Head { response, data_bytes })
}

fn parse_config<'a>(mut tokens: Tokens<'a>) -> Option<ResponseLine<'a>> {
    let name = tokens.next()?;
    let _flags = parse_u32(tokens.next()?)?;
    let data_bytes = parse_length(tokens.next()?)?;
    let response = Response::Config(Config { name, data: b"" });
    tokens.next().is_none().then_some(ResponseLine::Head { response, data_bytes })
}

/// A value may hold spaces, or nothing at all.
fn parse_stat<'a>(rest: &'a [u8]) -> Option<ResponseLine<'a>> {
    let name_end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    let (name, value) = rest.split_at(name_end);
    let value = value.strip_prefix(b" ").unwrap_or(value);
    (!name.is_empty()).then_some(ResponseLine::Whole(Response::Stat { name, value }))
}

fn parse_error<'a>(line: &'a [u8]) -> Option<ErrorLine<'a>> {
    ErrorKind::ALL.into_iter().find_map(|kind| {
        let message = line.strip_prefix(kind.word())?;
        // `ERROR: shutdown not enabled` has no space in between.
        let message = message.strip_prefix(b" ").unwrap_or(message);
        Some(ErrorLine { kind, message })
    })
}
