//! The classic commands.

pub mod authentication;
pub mod request;
pub mod response;
