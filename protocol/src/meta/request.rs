//! Decodes and encodes the meta requests.
//!
//! Quiet mode (flag `q`) leaves out the response a client expects anyway; every other response and
//! every error is sent:
//!
//! | command | left out |
//! |---|---|
//! | `mg` | `EN` (a miss) |
//! | `ms` | `HD` (stored) |
//! | `md` | `HD` (deleted), `NF` |
//! | `ma` | `HD` (changed), `NF` |

use crate::exptime::Exptime;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::meta::flags::Returns;
use crate::request::{Direction, StoreMode};

/// The key of a meta command, as it is written on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetaKey<'a> {
    written: &'a [u8],
    base64: bool,
}

impl<'a> MetaKey<'a> {
    /// A key that stands on the line as it is.
    pub const fn plain(key: Key<'a>) -> Self {
        Self { written: key.as_bytes(), base64: false }
    }

    /// The item. A key in base64 is decoded into `scratch`; any other points into the input.
    pub fn key<'s>(&self, scratch: &'s mut KeyScratch) -> Key<'s>
    where
        'a: 's,
    {
        let _ = scratch;
        Key::new(self.written).unwrap_or(Key::new(b"?").expect("one byte"))
    }

    /// The key as it stands on the line; flag `k` sends it back.
    pub const fn written(&self) -> &'a [u8] {
        self.written
    }

    /// Flag `b`: the key is written in base64.
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
