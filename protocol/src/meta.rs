//! The meta commands.

pub mod flags;
pub mod request;
pub mod response;
