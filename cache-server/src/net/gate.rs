//! The gate between a client and the service: what is spoken there, and who is let in.
//!
//! ```text
//! Entrance::Open(dialect) ──────────────────────────────────> Gate::Open
//! Entrance::Text    credentials as the first `set` ─────────> Gate::Open
//! Entrance::Sasl    SASL, whenever the client likes, and again: Gate::Sasl, locked or not
//! ```
//!
//! With SASL the protocol is binary. While the gate is locked the decoder refuses whatever is [not for
//! everybody](protocol::binary::Opcode::is_for_everybody) before its value is received, so nobody
//! fills buffers who was not let in.

use protocol::binary::request::{Command, SaslMessage};
use protocol::binary::response::{Status, encode_error, encode_success, encode_worded_error};
use protocol::binary::sasl::{MECHANISM_BYTES_MAX, MECHANISMS, parse_plain};
use protocol::binary::{Head, Opcode};
use protocol::{Dialect, Request};

use crate::net::{Call, Flow, Service};

/// What is spoken where a client comes in, and whether it has to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Everybody is let in.
    Open(Dialect),
    /// Whoever names a user of the authentication file (`-Y`). Text is spoken.
    Text,
    /// Whoever authenticates over SASL (`-S`). Frames are spoken.
    Sasl,
}

impl Default for Entrance {
    fn default() -> Self {
        Self::Open(Dialect::Auto)
    }
}

impl Entrance {
    /// What is spoken there.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Open(dialect) => dialect,
            Self::Text => Dialect::Text,
            Self::Sasl => Dialect::Binary,
        }
    }

    /// The same where `dialect` is spoken. Who has to authenticate does so in one dialect alone.
    #[must_use]
    pub fn speaking(self, dialect: Option<Dialect>) -> Self {
        match (self, dialect) {
            (Self::Open(_), Some(dialect)) => Self::Open(dialect),
            (usual, _) => usual,
        }
    }
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It is served.
    Open,
    /// It has to send credentials before anything else.
    Text,
    /// It may authenticate at any time.
    Sasl {
        /// It has: it is served.
        is_authenticated: bool,
        /// It has named a mechanism, and may go on with that.
        has_begun: bool,
    },
}

impl Gate {
    /// Before anything was said.
    pub(crate) fn of(entrance: Entrance) -> Self {
        match entrance {
            Entrance::Open(_) => Self::Open,
            Entrance::Text => Self::Text,
            Entrance::Sasl => Self::Sasl { is_authenticated: false, has_begun: false },
        }
    }

    /// Whether binary requests are refused that are not for everybody.
    pub(crate) fn is_locked(self) -> bool {
        matches!(self, Self::Sasl { is_authenticated: false, .. })
    }

    /// Carries out a request of a client that authenticates over SASL.
    #[cold]
    pub(crate) fn handle<S: Service>(
        &mut self,
        service: &mut S,
        request: &Request<'_>,
        call: Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let Request::Binary(binary) = request else { return service.handle(request, call, out) };
        match &binary.command {
            Command::SaslList => encode_success(out, binary.head, 0, MECHANISMS.as_bytes()),
            Command::Sasl(message) => self.hear(service, binary.head, message, out),
            // Decoded together with the message that has locked the gate.
            _ if self.is_locked()
                && !Opcode::from_byte(binary.head.opcode).is_some_and(Opcode::is_for_everybody) =>
            {
                encode_error(out, binary.head, Status::AuthFailure);
                return Flow::Close;
            }
            _ => return service.handle(request, call, out),
        }
        Flow::Continue
    }

    fn hear<S: Service>(
        &mut self,
        service: &mut S,
        head: Head,
        sasl: &SaslMessage<'_>,
        out: &mut Vec<u8>,
    ) {
        let Self::Sasl { is_authenticated, has_begun } = self else { return };
        if sasl.mechanism.len() > MECHANISM_BYTES_MAX {
            return encode_error(out, head, Status::InvalidArguments);
        }
        // Whoever tries again and fails is not let in any more.
        *is_authenticated = false;
        let is_known = sasl.mechanism.eq_ignore_ascii_case(MECHANISMS.as_bytes());
        if is_known && sasl.begins && sasl.message.is_empty() {
            *has_begun = true;
            return encode_worded_error(out, head, Status::AuthContinue, b"");
        }
        let goes_on = sasl.begins || *has_begun;
        let credentials = if is_known && goes_on { parse_plain(sasl.message) } else { None };
        *is_authenticated = service.authenticate(credentials);
        *has_begun = if sasl.begins { *is_authenticated } else { *has_begun };
        if *is_authenticated {
            encode_success(out, head, 0, b"Authenticated");
        } else {
            encode_error(out, head, Status::AuthFailure);
        }
    }
}
