//! The memcached protocol, sans-IO, both directions.
#![forbid(unsafe_code)]

pub mod error;
pub mod exptime;
pub mod key;
pub mod meta;
pub mod request;
pub mod response;
pub mod text;
pub mod token;

pub use error::ProtocolError;
pub use exptime::Exptime;
pub use key::{KEY_BYTES_MAX, Key};
pub use request::Request;
pub use request::decoder::{Decoder, Limits, Refusal, Step};
pub use response::Response;
