//! Decodes and encodes the meta requests.
//!
//! Quiet mode (flag `q`) leaves out the response a client expects anyway; every other response and
//! every error is sent. [`MetaStatus::is_quiet`](crate::meta::response::MetaStatus::is_quiet) is this
//! table, found out from memcached:
//!
//! | command | left out | sent |
//! |---|---|---|
//! | `mg` | `EN` (a miss) | `HD`, `VA` |
//! | `ms` | `HD` (stored) | `NS`, `EX`, `NF` |
//! | `md` | `HD` (removed) | `NF`, `EX` |
//! | `ma` | `HD`, `VA` (changed) | `NF`, `NS`, `EX` |

use crate::error::ProtocolError;
use crate::exptime::Exptime;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::meta::base64;
use crate::meta::flags::{Flags, Returns, TOKENS_MAX, letters};
use crate::request::decoder::Line;
use crate::request::{Direction, Request, StoreMode};
use crate::token::{Tokens, parse_length, push_number, push_signed, push_token};

/// The key of a meta command, as it is written on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    written: Key<'a>,
    base64: bool,
}

impl<'a> MetaKey<'a> {
    /// A key that stands on the line as it is.
    #[inline]
    pub const fn plain(key: Key<'a>) -> Self {
        Self { written: key, base64: false }
    }

    /// A key that is written in base64; `None` when `written` is none, or longer than a key may be.
    pub fn base64(written: &'a [u8]) -> Option<Self> {
        let written = Key::new(written)?;
        base64::decode(written.as_bytes(), &mut KeyScratch::default().0)?;
        Some(Self { written, base64: true })
    }

    /// Appends `key` in base64, as [`MetaKey::base64`] takes it. Up to 186 bytes of key fit.
    pub fn encode_base64(key: Key<'_>, out: &mut Vec<u8>) {
        base64::encode(key.as_bytes(), out);
    }

    /// The item. A key in base64 is decoded into `scratch`; any other points into the input.
    #[inline]
    pub fn key<'s>(&self, scratch: &'s mut KeyScratch) -> Key<'s>
    where
        'a: 's,
    {
        if !self.base64 {
            return self.written;
        }
        let len = base64::decode(self.written.as_bytes(), &mut scratch.0);
        debug_assert!(len.is_some(), "a key in base64 was decoded when it was read");
        Key::new(&scratch.0[..len.unwrap_or(0)]).unwrap_or(self.written)
    }

    /// The key as it stands on the line; flag `k` sends it back.
    #[inline]
    pub const fn written(&self) -> &'a [u8] {
        self.written.as_bytes()
    }

    /// Flag `b`: the key is written in base64.
    #[inline]
    pub const fn is_base64(&self) -> bool {
        self.base64
    }
}

/// Room for one key that was sent in base64.
#[derive(Clone, Debug)]
pub struct KeyScratch([u8; KEY_BYTES_MAX]);

impl Default for KeyScratch {
    fn default() -> Self {
        Self([0; KEY_BYTES_MAX])
    }
}

/// `mg`: fetches an item, or asks about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaGet<'a> {
    /// The item.
    pub key: MetaKey<'a>,
    /// What to send back, in this order.
    pub returns: Returns<'a>,
    /// `v`: the answer to a hit is `VA` with the value, otherwise `HD`.
    pub value: bool,
    /// `T`: the item gets this expiry.
    pub touch: Option<Exptime>,
    /// `N`: a miss creates an empty item with this expiry, and the client has won (`W`).
    pub vivify: Option<Exptime>,
    /// `R`: a client that finds less time left than this has won (`W`), if none has before.
    pub recache: Option<Exptime>,
    /// `C`: the value that the client has; it is left out, and the answer `HD`, if the item has this cas.
    pub known_cas: Option<u64>,
    /// `E`: the cas of an item that is created or changed.
    pub new_cas: Option<u64>,
    /// `u`: the read leaves no trace in the policy, nor in what `h` and `l` tell.
    pub no_bump: bool,
    /// `q`.
    pub quiet: bool,
}

/// `ms`: writes a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaSet<'a> {
    /// The item.
    pub key: MetaKey<'a>,
    /// What to send back, in this order.
    pub returns: Returns<'a>,
    /// `M`: under which condition, or in which way.
    pub mode: StoreMode,
    /// `F`: the client's flags, 0 when not given.
    pub client_flags: u32,
    /// `T`: when the item expires, never when not given.
    pub exptime: Exptime,
    /// `C`: the item must have this cas.
    pub compare_cas: Option<u64>,
    /// `E`: the cas the item gets.
    pub new_cas: Option<u64>,
    /// `I`: with `C`, an older cas is accepted too, and the item is then stale.
    pub invalidate: bool,
    /// `N`: append and prepend create a missing item, with this expiry.
    pub vivify: Option<Exptime>,
    /// The value, without its line end.
    pub data: &'a [u8],
    /// `q`.
    pub quiet: bool,
}

/// `md`: removes an item, or marks it stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaDelete<'a> {
    /// The item.
    pub key: MetaKey<'a>,
    /// What to send back, in this order.
    pub returns: Returns<'a>,
    /// `C`: the item must have this cas.
    pub compare_cas: Option<u64>,
    /// `E`: the cas of the item that stays.
    pub new_cas: Option<u64>,
    /// `I`: the item stays, marked stale.
    pub invalidate: bool,
    /// `x`: the item stays, without its value and client flags.
    pub remove_value: bool,
    /// `T`: with `I`, the expiry of the stale item.
    pub touch: Option<Exptime>,
    /// `q`.
    pub quiet: bool,
}

/// `ma`: changes a decimal number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaArithmetic<'a> {
    /// The item.
    pub key: MetaKey<'a>,
    /// What to send back, in this order.
    pub returns: Returns<'a>,
    /// `M`: up or down.
    pub direction: Direction,
    /// `D`: by how much, 1 when not given.
    pub delta: u64,
    /// `J`: the number a created item starts with, 0 when not given.
    pub initial: u64,
    /// `N`: a miss creates the item, with this expiry.
    pub vivify: Option<Exptime>,
    /// `T`: the item gets this expiry.
    pub touch: Option<Exptime>,
    /// `C`: the item must have this cas.
    pub compare_cas: Option<u64>,
    /// `E`: the cas the item gets.
    pub new_cas: Option<u64>,
    /// `v`: the answer is `VA` with the new number, otherwise `HD`.
    pub value: bool,
    /// `q`.
    pub quiet: bool,
}

/// `me`: asks what the server knows about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaDebug<'a> {
    /// The item.
    pub key: MetaKey<'a>,
}

/// Reads the line of a meta command; `letter` is the second one of its name, `arguments` follow it.
pub(crate) fn parse<'a>(letter: u8, arguments: Tokens<'a>) -> Line<'a> {
    let request = match letter {
        b'g' => parse_get(arguments),
        b's' => return parse_set(arguments),
        b'd' => parse_delete(arguments),
        b'a' => parse_arithmetic(arguments),
        b'e' => parse_debug(arguments),
        b'n' => Ok(Request::MetaNoop),
        _ => Err(ProtocolError::UnknownCommand),
    };
    request.map_or_else(Line::refused, Line::Request)
}

fn parse_get<'a>(mut arguments: Tokens<'a>) -> Result<Request<'a>, ProtocolError> {
    let written = key_token(&mut arguments)?;
    let (flags, key) = parse_flags(arguments.clone(), written, 2)?;
    if flags.opaque_too_long {
        return Err(ProtocolError::OpaqueTooLong);
    }
    Ok(Request::MetaGet(MetaGet {
        key,
        returns: Returns::of(arguments, const { letters(b"cfhklOst") }),
        value: flags.value,
        touch: flags.touch,
        vivify: flags.vivify,
        recache: flags.recache,
        known_cas: flags.compare_cas,
        new_cas: flags.new_cas,
        no_bump: flags.no_bump,
        quiet: flags.quiet,
    }))
}

/// `ms <key> <length> <flags>*`. Whatever is wrong, the data block is skipped if its length can be
/// read.
fn parse_set<'a>(arguments: Tokens<'a>) -> Line<'a> {
    let Some(data_bytes) = arguments.clone().nth(1).and_then(parse_length) else {
        return Line::refused(ProtocolError::BadCommandLine);
    };
    match parse_set_line(arguments) {
        Ok(set) => Line::Store { request: Request::MetaSet(set), data_bytes },
        Err(error) => Line::Refused { error, noreply: false, data_bytes: Some(data_bytes) },
    }
}

fn parse_set_line<'a>(mut arguments: Tokens<'a>) -> Result<MetaSet<'a>, ProtocolError> {
    let written = key_token(&mut arguments)?;
    let _length = arguments.next();
    let (flags, key) = parse_flags(arguments.clone(), written, 3)?;
    let mode = match flags.mode {
        None | Some(b'S') => StoreMode::Set,
        Some(b'E') => StoreMode::Add,
        Some(b'R') => StoreMode::Replace,
        Some(b'A') => StoreMode::Append,
        Some(b'P') => StoreMode::Prepend,
        Some(_) => return Err(ProtocolError::InvalidModeSet),
    };
    if flags.opaque_too_long {
        return Err(ProtocolError::OpaqueTooLong);
    }
    Ok(MetaSet {
        key,
        returns: Returns::of(arguments, const { letters(b"ckOs") }),
        mode,
        client_flags: flags.client_flags,
        exptime: flags.touch.unwrap_or_default(),
        compare_cas: flags.compare_cas,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        vivify: flags.vivify,
        data: b"",
        quiet: flags.quiet,
    })
}

fn parse_delete<'a>(mut arguments: Tokens<'a>) -> Result<Request<'a>, ProtocolError> {
    let written = key_token(&mut arguments)?;
    let (flags, key) = parse_flags(arguments.clone(), written, 2)?;
    if flags.opaque_too_long {
        return Err(ProtocolError::OpaqueTooLong);
    }
    Ok(Request::MetaDelete(MetaDelete {
        key,
        returns: Returns::of(arguments, const { letters(b"kO") }),
        compare_cas: flags.compare_cas,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        remove_value: flags.remove_value,
        touch: flags.touch,
        quiet: flags.quiet,
    }))
}

fn parse_arithmetic<'a>(mut arguments: Tokens<'a>) -> Result<Request<'a>, ProtocolError> {
    let written = arguments.next().ok_or(ProtocolError::BadCommandLine)?;
    let (flags, key) = Key::new(written)
        .ok_or(ProtocolError::BadCommandLine)
        .and_then(|written| parse_flags(arguments.clone(), written, 2))
        .map_err(|_| ProtocolError::InvalidOrDuplicateFlag)?;
    let direction = match flags.mode {
        None | Some(b'I' | b'+') => Direction::Increment,
        Some(b'D' | b'-') => Direction::Decrement,
        Some(_) => return Err(ProtocolError::InvalidModeArithmetic),
    };
    if flags.opaque_too_long {
        return Err(ProtocolError::OpaqueTooLong);
    }
    Ok(Request::MetaArithmetic(MetaArithmetic {
        key,
        returns: Returns::of(arguments, const { letters(b"ckOt") }),
        direction,
        delta: flags.delta.unwrap_or(1),
        initial: flags.initial.unwrap_or(0),
        vivify: flags.vivify,
        touch: flags.touch,
        compare_cas: flags.compare_cas,
        new_cas: flags.new_cas,
        value: flags.value,
        quiet: flags.quiet,
    }))
}

/// `me <key> [b]`: what follows is not looked at.
fn parse_debug<'a>(mut arguments: Tokens<'a>) -> Result<Request<'a>, ProtocolError> {
    let written = key_token(&mut arguments)?;
    let key = if arguments.next() == Some(b"b") {
        MetaKey::base64(written.as_bytes()).ok_or(ProtocolError::BadCommandLine)?
    } else {
        MetaKey::plain(written)
    };
    Ok(Request::MetaDebug(MetaDebug { key }))
}

fn key_token<'a>(arguments: &mut Tokens<'a>) -> Result<Key<'a>, ProtocolError> {
    arguments.next().and_then(Key::new).ok_or(ProtocolError::BadCommandLine)
}

/// Reads the flags of a line on which so many tokens stand before them, and with them what the key is.
fn parse_flags<'a>(
    tokens: Tokens<'_>,
    written: Key<'a>,
    tokens_before: usize,
) -> Result<(Flags, MetaKey<'a>), ProtocolError> {
    if tokens_before + tokens.clone().count() > TOKENS_MAX {
        return Err(ProtocolError::TooManyFlags);
    }
    let flags = Flags::parse(tokens, || MetaKey::base64(written.as_bytes()).is_some())?;
    let key = MetaKey { written, base64: flags.base64 };
    Ok((flags, key))
}

impl MetaGet<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, b"mg", &self.key);
        self.returns.encode(out);
        push_flag(out, b'v', self.value);
        push_exptime(out, b'T', self.touch);
        push_exptime(out, b'N', self.vivify);
        push_exptime(out, b'R', self.recache);
        push_argument(out, b'C', self.known_cas);
        push_argument(out, b'E', self.new_cas);
        push_flag(out, b'u', self.no_bump);
        push_flag(out, b'q', self.quiet);
        out.extend_from_slice(b"\r\n");
    }
}

impl MetaSet<'_> {
    /// Appends the request, its data block included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ms");
        push_token(out, self.key.written());
        out.push(b' ');
        push_number(out, self.data.len() as u64);
        push_flag(out, b'b', self.key.base64);
        self.returns.encode(out);
        let mode = match self.mode {
            StoreMode::Set => None,
            StoreMode::Add => Some(b" ME"),
            StoreMode::Replace => Some(b" MR"),
            StoreMode::Append => Some(b" MA"),
            StoreMode::Prepend => Some(b" MP"),
        };
        out.extend_from_slice(mode.map_or(b"", |mode| mode));
        push_argument(out, b'F', (self.client_flags != 0).then_some(self.client_flags.into()));
        push_exptime(out, b'T', Some(self.exptime).filter(|&exptime| exptime != Exptime::Never));
        push_argument(out, b'C', self.compare_cas);
        push_argument(out, b'E', self.new_cas);
        push_flag(out, b'I', self.invalidate);
        push_exptime(out, b'N', self.vivify);
        push_flag(out, b'q', self.quiet);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.data);
        out.extend_from_slice(b"\r\n");
    }
}

impl<'a> MetaDelete<'a> {
    /// Removes the item, whatever it is.
    pub fn plain(key: MetaKey<'a>, returns: Returns<'a>) -> Self {
        Self {
            key,
            returns,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            remove_value: false,
            touch: None,
            quiet: false,
        }
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, b"md", &self.key);
        self.returns.encode(out);
        push_argument(out, b'C', self.compare_cas);
        push_argument(out, b'E', self.new_cas);
        push_flag(out, b'I', self.invalidate);
        push_flag(out, b'x', self.remove_value);
        push_exptime(out, b'T', self.touch);
        push_flag(out, b'q', self.quiet);
        out.extend_from_slice(b"\r\n");
    }
}

impl MetaArithmetic<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, b"ma", &self.key);
        self.returns.encode(out);
        if self.direction == Direction::Decrement {
            push_token(out, b"MD");
        }
        push_argument(out, b'D', Some(self.delta).filter(|&delta| delta != 1));
        push_argument(out, b'J', Some(self.initial).filter(|&initial| initial != 0));
        push_exptime(out, b'N', self.vivify);
        push_exptime(out, b'T', self.touch);
        push_argument(out, b'C', self.compare_cas);
        push_argument(out, b'E', self.new_cas);
        push_flag(out, b'v', self.value);
        push_flag(out, b'q', self.quiet);
        out.extend_from_slice(b"\r\n");
    }
}

impl MetaDebug<'_> {
    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, b"me", &self.key);
        out.extend_from_slice(b"\r\n");
    }
}

fn begin(out: &mut Vec<u8>, command: &[u8], key: &MetaKey<'_>) {
    out.extend_from_slice(command);
    push_token(out, key.written());
    push_flag(out, b'b', key.base64);
}

fn push_flag(out: &mut Vec<u8>, flag: u8, present: bool) {
    if present {
        push_token(out, &[flag]);
    }
}

fn push_argument(out: &mut Vec<u8>, flag: u8, argument: Option<u64>) {
    if let Some(number) = argument {
        push_token(out, &[flag]);
        push_number(out, number);
    }
}

fn push_exptime(out: &mut Vec<u8>, flag: u8, argument: Option<Exptime>) {
    if let Some(exptime) = argument {
        push_token(out, &[flag]);
        push_signed(out, exptime.to_wire());
    }
}
