//! Decodes and encodes the classic requests.
//!
//! ```text
//! get|gets <key>+                      set|add|replace|append|prepend <key> <flags> <exptime> <bytes> [noreply]
//! gat|gats <exptime> <key>+            cas <key> <flags> <exptime> <bytes> <cas> [noreply]
//! incr|decr <key> <delta> [noreply]    touch <key> <exptime> [noreply]
//! delete <key> [noreply]               flush_all [delay] [noreply]
//! verbosity <level> [noreply]          cache_memlimit <MiB> [noreply]
//! stats [words], version, quit, shutdown [graceful]          config get cluster|shards
//! watch|lru_crawler|lru|slabs|debugtime [words]
//!
//! backup <shard> <generation> <entry> [prefix]         restore <bytes> [keep-newer <cache id>]
//! ```
//!
//! The last two are this project's own (see [`crate::backup`]), and so is `config get shards`. As in memcached 1.6.45 words beyond those
//! are passed over (`delete` takes two at most), `noreply` is looked for in the last one, and an error in a
//! line that ends so is not reported.

use crate::backup::{Backup, CacheId, Cursor, Items, KEEP_NEWER, Restore};
use crate::error::ProtocolError;
use crate::exptime::Exptime;
use crate::key::Key;
use crate::request::decoder::Line;
use crate::request::{
    AdminCommand, Arithmetic, Delete, Direction, FlushAll, Get, MemoryLimit, Request, ShutdownMode,
    Store, StoreMode, Touch, Verbosity,
};
use crate::token::{
    Tokens, parse_i64, parse_length, parse_u32, parse_u64, push_number, push_signed, push_token,
};

/// The keys of a get, each of them valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    tokens: Tokens<'a>,
    count: usize,
}

impl<'a> Keys<'a> {
    /// The keys on `line`, separated by spaces; `None` when there is none, or one is too long.
    #[inline]
    pub fn new(line: &'a [u8]) -> Option<Self> {
        Self::of(Tokens::new(line))
    }

    #[inline]
    fn of(tokens: Tokens<'a>) -> Option<Self> {
        let mut count = 0;
        for token in tokens.clone() {
            Key::new(token)?;
            count += 1;
        }
        (count > 0).then_some(Self { tokens, count })
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = Key<'a>;

    #[inline]
    fn next(&mut self) -> Option<Key<'a>> {
        let key = Key::new(self.tokens.next()?);
        debug_assert!(key.is_some(), "the keys of a get are checked before it is handed out");
        self.count -= 1;
        key
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Keys<'_> {}

/// Reads the line of a classic command; `arguments` are the tokens after its name.
pub(crate) fn parse<'a>(command: &[u8], arguments: Tokens<'a>) -> Line<'a> {
    match command {
        b"get" => parse_get(arguments, false),
        b"gets" => parse_get(arguments, true),
        b"set" => parse_store(arguments, StoreMode::Set, false),
        b"gat" => parse_get_and_touch(arguments, false),
        b"gats" => parse_get_and_touch(arguments, true),
        b"add" => parse_store(arguments, StoreMode::Add, false),
        b"replace" => parse_store(arguments, StoreMode::Replace, false),
        b"append" => parse_store(arguments, StoreMode::Append, false),
        b"prepend" => parse_store(arguments, StoreMode::Prepend, false),
        b"cas" => parse_store(arguments, StoreMode::Set, true),
        b"incr" => {
            Words::of(arguments).parse(2, |words| parse_arithmetic(words, Direction::Increment))
        }
        b"decr" => {
            Words::of(arguments).parse(2, |words| parse_arithmetic(words, Direction::Decrement))
        }
        b"delete" => Words::of(arguments).parse(1, parse_delete),
        b"touch" => Words::of(arguments).parse(2, parse_touch),
        b"flush_all" => Words::of(arguments).parse(0, parse_flush_all),
        b"verbosity" => Words::of(arguments).parse(0, parse_verbosity),
        b"cache_memlimit" => Words::of(arguments).parse(0, parse_memory_limit),
        b"stats" => Line::Request(Request::Stats { arguments }),
        b"version" => Line::Request(Request::Version),
        b"refresh_certs" => Line::Request(Request::RefreshCerts),
        b"config" => parse_config(arguments),
        b"shutdown" => parse_shutdown(arguments),
        b"quit" => Line::Request(Request::Quit),
        b"backup" => parse_backup(arguments),
        b"restore" => parse_restore(arguments),
        _ => parse_rarely(command, arguments),
    }
}

/// What nobody sends often, and what is no command.
fn parse_rarely<'a>(name: &[u8], arguments: Tokens<'a>) -> Line<'a> {
    if let Some(command) = AdminCommand::ALL.into_iter().find(|it| it.name() == name) {
        return Line::Request(Request::Administer { command, arguments });
    }
    let last = arguments.last().unwrap_or_default();
    // A browser, or a page that has a browser send commands for it: the headers and the body of what it
    // posts are not to be carried out.
    if last.starts_with(b"HTTP/") {
        return Line::refused(ProtocolError::NotOurProtocol);
    }
    let noreply = last == b"noreply";
    Line::Refused { error: ProtocolError::UnknownCommand, noreply, data_bytes: None }
}

/// One error line and nothing else, if any key is too long. (memcached adds a stray line end when
/// keys before it were found.)
#[inline]
pub(crate) fn parse_get<'a>(arguments: Tokens<'a>, with_cas: bool) -> Line<'a> {
    match Keys::of(arguments) {
        Some(keys) => Line::Request(Request::Get(Get { keys, with_cas, touch: None })),
        None => Line::refused(ProtocolError::BadCommandLine),
    }
}

fn parse_get_and_touch<'a>(mut arguments: Tokens<'a>, with_cas: bool) -> Line<'a> {
    let exptime = arguments.next().filter(|_| arguments.clone().next().is_some());
    let Some(exptime) = exptime else { return Line::refused(ProtocolError::BadCommandLine) };
    let Some(exptime) = parse_exptime(exptime) else {
        return Line::refused(ProtocolError::InvalidExptime);
    };
    match Keys::of(arguments) {
        Some(keys) => Line::Request(Request::Get(Get { keys, with_cas, touch: Some(exptime) })),
        None => Line::refused(ProtocolError::BadCommandLine),
    }
}

/// The arguments of a command that takes a few.
struct Words<'a> {
    /// The first ones; empty where there is none.
    words: [&'a [u8]; WORDS_MAX],
    /// How many there are, also beyond [`WORDS_MAX`].
    count: usize,
    /// The last one says so.
    noreply: bool,
}

/// The smallest `cache_memlimit` that memcached takes.
const MEMORY_LIMIT_MIB_MIN: u32 = 8;
/// The largest; beyond it the number must have been meant as bytes.
const MEMORY_LIMIT_MIB_MAX: u32 = 1_000_000_000;

/// `cas` takes the most.
const WORDS_MAX: usize = 6;

/// Key, hold time, `noreply`.
const DELETE_WORDS_MAX: usize = 3;

impl<'a> Words<'a> {
    #[inline]
    fn of(arguments: Tokens<'a>) -> Self {
        let mut words = [&[][..]; WORDS_MAX];
        let mut count = 0;
        let mut last: &[u8] = &[];
        for token in arguments {
            if let Some(word) = words.get_mut(count) {
                *word = token;
            }
            last = token;
            count += 1;
        }
        Self { words, count, noreply: last == b"noreply" }
    }

    /// A command without data that takes at least so many words. An error in them is silent if they end
    /// in `noreply`; that there are too few is told, since `noreply` may stand for another.
    fn parse(
        &self,
        count_min: usize,
        command: impl FnOnce(&Self) -> Result<Request<'a>, ProtocolError>,
    ) -> Line<'a> {
        if self.count < count_min {
            return Line::refused(ProtocolError::BadCommandLine);
        }
        match command(self) {
            Ok(request) => Line::Request(request),
            Err(error) => Line::Refused { error, noreply: self.noreply, data_bytes: None },
        }
    }

    fn key(&self) -> Result<Key<'a>, ProtocolError> {
        Key::new(self.words[0]).ok_or(ProtocolError::BadCommandLine)
    }
}

/// A line that is wrong still skips the data block that follows it, if its length can be read: so
/// the data is not taken for commands.
fn parse_store<'a>(arguments: Tokens<'a>, mode: StoreMode, with_cas: bool) -> Line<'a> {
    let words = Words::of(arguments);
    let Some(data_bytes) = parse_length(words.words[3]) else {
        return Line::refused(ProtocolError::BadCommandLine);
    };
    match parse_store_line(&words, mode, with_cas) {
        Ok(store) => Line::Store { request: Request::Store(store), data_bytes },
        Err(error) => Line::Refused { error, noreply: words.noreply, data_bytes: Some(data_bytes) },
    }
}

fn parse_store_line<'a>(
    words: &Words<'a>,
    mode: StoreMode,
    with_cas: bool,
) -> Result<Store<'a>, ProtocolError> {
    let [_, client_flags, exptime, _, cas, _] = words.words;
    let key = words.key()?;
    let client_flags = parse_u32(client_flags).ok_or(ProtocolError::BadCommandLine)?;
    let exptime = parse_exptime(exptime).ok_or(ProtocolError::BadCommandLine)?;
    let compare_cas =
        if with_cas { Some(parse_u64(cas).ok_or(ProtocolError::BadCommandLine)?) } else { None };
    let noreply = words.noreply;
    Ok(Store { mode, key, client_flags, exptime, compare_cas, data: b"", noreply })
}

fn parse_arithmetic<'a>(
    words: &Words<'a>,
    direction: Direction,
) -> Result<Request<'a>, ProtocolError> {
    let key = words.key()?;
    let delta = parse_u64(words.words[1]).ok_or(ProtocolError::InvalidDelta)?;
    Ok(Request::Arithmetic(Arithmetic { direction, key, delta, noreply: words.noreply }))
}

fn parse_touch<'a>(words: &Words<'a>) -> Result<Request<'a>, ProtocolError> {
    let key = words.key()?;
    let exptime = parse_exptime(words.words[1]).ok_or(ProtocolError::InvalidExptime)?;
    Ok(Request::Touch(Touch { key, exptime, noreply: words.noreply }))
}

/// Old clients send a hold time, which is passed over; with more words than that it is no `delete` that
/// anybody means. A key may be called `noreply`.
fn parse_delete<'a>(words: &Words<'a>) -> Result<Request<'a>, ProtocolError> {
    if words.count > DELETE_WORDS_MAX {
        return Err(ProtocolError::BadCommandLine);
    }
    Ok(Request::Delete(Delete { key: words.key()?, noreply: words.count > 1 && words.noreply }))
}

fn parse_flush_all<'a>(words: &Words<'a>) -> Result<Request<'a>, ProtocolError> {
    let noreply = words.noreply;
    let delay = if words.count == usize::from(noreply) {
        Exptime::Never
    } else {
        parse_exptime(words.words[0]).ok_or(ProtocolError::InvalidExptime)?
    };
    Ok(Request::FlushAll(FlushAll { delay, noreply }))
}

fn parse_verbosity<'a>(words: &Words<'a>) -> Result<Request<'a>, ProtocolError> {
    let level = parse_u32(words.words[0]).ok_or(ProtocolError::BadCommandLine)?;
    Ok(Request::Verbosity(Verbosity { level, noreply: words.noreply }))
}

fn parse_memory_limit<'a>(words: &Words<'a>) -> Result<Request<'a>, ProtocolError> {
    let mebibytes = parse_u32(words.words[0]).ok_or(ProtocolError::UnknownCommand)?;
    if mebibytes < MEMORY_LIMIT_MIB_MIN {
        return Err(ProtocolError::MemoryLimitTooSmall);
    }
    if mebibytes > MEMORY_LIMIT_MIB_MAX {
        return Err(ProtocolError::MemoryLimitTooLarge);
    }
    Ok(Request::MemoryLimit(MemoryLimit { mebibytes, noreply: words.noreply }))
}

fn parse_shutdown<'a>(mut arguments: Tokens<'a>) -> Line<'a> {
    let mode = match (arguments.next(), arguments.next()) {
        (None, _) => Some(ShutdownMode::Now),
        (Some(b"graceful"), None) => Some(ShutdownMode::Graceful),
        _ => None,
    };
    Line::Request(Request::Shutdown { mode })
}

/// The list of nodes, and the map of shards, are all that clients ask a `config` command for.
fn parse_config<'a>(mut arguments: Tokens<'a>) -> Line<'a> {
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(b"get"), Some(b"cluster"), None) => Line::Request(Request::ConfigGetCluster),
        (Some(b"get"), Some(b"shards"), None) => Line::Request(Request::ConfigGetShards),
        _ => Line::refused(ProtocolError::UnknownCommand),
    }
}

fn parse_backup<'a>(mut arguments: Tokens<'a>) -> Line<'a> {
    if arguments.clone().count() > 4 {
        return Line::refused(ProtocolError::BadCommandLine);
    }
    let Some(cursor) = Cursor::parse(&mut arguments) else {
        return Line::refused(ProtocolError::BadCommandLine);
    };
    match arguments.next().map(Key::new) {
        None => Line::Request(Request::Backup(Backup { cursor, prefix: b"" })),
        Some(Some(prefix)) => {
            Line::Request(Request::Backup(Backup { cursor, prefix: prefix.as_bytes() }))
        }
        Some(None) => Line::refused(ProtocolError::BadCommandLine),
    }
}

/// As with every write, a line that is wrong still skips the items that follow it.
fn parse_restore<'a>(arguments: Tokens<'a>) -> Line<'a> {
    let words = Words::of(arguments);
    let [bytes, how, cache_id, ..] = words.words;
    let Some(data_bytes) = parse_length(bytes) else {
        return Line::refused(ProtocolError::BadCommandLine);
    };
    let keep_newer = match (words.count, CacheId::parse(cache_id)) {
        (1, _) => None,
        (3, Some(cache_id)) if how == KEEP_NEWER => Some(cache_id),
        _ => {
            let error = ProtocolError::BadCommandLine;
            return Line::Refused { error, noreply: false, data_bytes: Some(data_bytes) };
        }
    };
    let restore = Restore { keep_newer, items: Items::NONE };
    Line::Store { request: Request::Restore(restore), data_bytes }
}

#[inline]
fn parse_exptime(token: &[u8]) -> Option<Exptime> {
    parse_i64(token).map(Exptime::from_wire)
}

impl Get<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match (self.touch, self.with_cas) {
            (None, false) => b"get",
            (None, true) => b"gets",
            (Some(_), false) => b"gat",
            (Some(_), true) => b"gats",
        });
        if let Some(exptime) = self.touch {
            out.push(b' ');
            push_signed(out, exptime.to_wire());
        }
        for key in self.keys.clone() {
            push_token(out, key.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Store<'_> {
    /// Appends the request, its data block included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match (self.mode, self.compare_cas) {
            (StoreMode::Set, None) => b"set",
            (StoreMode::Set, Some(_)) => b"cas",
            (StoreMode::Add, _) => b"add",
            (StoreMode::Replace, _) => b"replace",
            (StoreMode::Append, _) => b"append",
            (StoreMode::Prepend, _) => b"prepend",
        });
        push_token(out, self.key.as_bytes());
        out.push(b' ');
        push_number(out, self.client_flags.into());
        out.push(b' ');
        push_signed(out, self.exptime.to_wire());
        out.push(b' ');
        push_number(out, self.data.len() as u64);
        if let (StoreMode::Set, Some(cas)) = (self.mode, self.compare_cas) {
            out.push(b' ');
            push_number(out, cas);
        }
        end(out, self.noreply);
        out.extend_from_slice(self.data);
        out.extend_from_slice(b"\r\n");
    }
}

impl Arithmetic<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.direction {
            Direction::Increment => b"incr",
            Direction::Decrement => b"decr",
        });
        push_token(out, self.key.as_bytes());
        out.push(b' ');
        push_number(out, self.delta);
        end(out, self.noreply);
    }
}

impl Touch<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"touch");
        push_token(out, self.key.as_bytes());
        out.push(b' ');
        push_signed(out, self.exptime.to_wire());
        end(out, self.noreply);
    }
}

impl Delete<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"delete");
        push_token(out, self.key.as_bytes());
        end(out, self.noreply);
    }
}

impl FlushAll {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"flush_all");
        if self.delay != Exptime::Never {
            out.push(b' ');
            push_signed(out, self.delay.to_wire());
        }
        end(out, self.noreply);
    }
}

impl Verbosity {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"verbosity ");
        push_number(out, self.level.into());
        end(out, self.noreply);
    }
}

impl MemoryLimit {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"cache_memlimit ");
        push_number(out, self.mebibytes.into());
        end(out, self.noreply);
    }
}

fn end(out: &mut Vec<u8>, noreply: bool) {
    out.extend_from_slice(if noreply { b" noreply\r\n" } else { b"\r\n" });
}
