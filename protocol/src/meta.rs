//! The meta commands.

pub mod base64;
pub mod flags;
pub mod request;
pub mod response;
