//! The memcached protocol, sans-IO, both directions.
//!
//! A server passes what a connection has received to a [`Decoder`] and gets requests that borrow from
//! it; it appends the responses to a buffer. A client does the reverse, with [`Request::encode`] and a
//! [`ResponseDecoder`]. Nothing here knows of sockets or clocks, nothing allocates per request, and
//! whatever bytes come in, an answer comes out.
//!
//! ```
//! use protocol::{Decoder, Limits, Request, Response, Step};
//!
//! let mut decoder = Decoder::new(Limits::default());
//! let mut output = Vec::new();
//!
//! // The data block is not there yet: the decoder says how long the input must become.
//! let step = decoder.decode(b"set greeting 0 60 5\r\nhel");
//! assert_eq!(step, Step::More { consumed: 0, wanted: 28 });
//!
//! // The rest has arrived, and with it a second, malformed request.
//! let input = b"set greeting 0 60 5\r\nhello\r\nincr greeting one\r\n";
//! let Step::Request { consumed, request: Request::Store(store) } = decoder.decode(input) else {
//!     unreachable!("the input begins with a whole request")
//! };
//! assert_eq!((store.key.as_bytes(), store.data), (&b"greeting"[..], &b"hello"[..]));
//! Response::Stored.encode(&mut output);
//!
//! let Step::Refused { refusal, .. } = decoder.decode(&input[consumed..]) else {
//!     unreachable!("one is no number")
//! };
//! refusal.encode(&mut output);
//! assert_eq!(output, b"STORED\r\nCLIENT_ERROR invalid numeric delta argument\r\n");
//! ```
//!
//! A connection whose first byte is [`binary::REQUEST_MAGIC`] speaks the [`binary`] protocol
//! from then on: the same decoder, and [`Request::Binary`].
//!
//! The words are those of memcached's `doc/protocol.txt`; where it is silent, what memcached 1.6.45
//! does was tried out and stands in the table of `conformance.rs`, deliberate differences included.

#![forbid(unsafe_code)]

pub mod backup;
pub mod binary;
pub mod changes;
pub mod credentials;
pub mod error;
pub mod exptime;
pub mod key;
pub mod meta;
pub mod request;
pub mod response;
pub mod text;
pub mod token;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod conformance;

pub use credentials::Credentials;
pub use error::ProtocolError;
pub use exptime::Exptime;
pub use key::{KEY_BYTES_MAX, Key};
pub use request::Request;
pub use request::decoder::{Decoder, Dialect, Limits, Refusal, Step};
pub use response::Response;
pub use response::decoder::{ResponseDecoder, ResponseLimits, ResponseStep};
