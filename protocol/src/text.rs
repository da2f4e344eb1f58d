//! The classic commands.

pub mod request;
pub mod response;
