//! A request and its outcome to a response; where protocol meets store.

use protocol::meta::request::MetaKey;
use protocol::{ProtocolError, Request};

use crate::clock::Now;
use crate::config::PROTOCOL_VERSION;
use crate::net::{Call, Flow, Service};

/// Answers what needs no store.
#[derive(Clone, Debug, Default)]
pub struct CacheService {}

impl Service for CacheService {
    fn handle(&mut self, request: &Request<'_>, _call: Call, out: &mut Vec<u8>) -> Flow {
        match request {
            Request::Quit => return Flow::Close,
            Request::Version => {
                out.extend_from_slice(b"VERSION ");
                out.extend_from_slice(PROTOCOL_VERSION.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Request::MetaNoop => out.extend_from_slice(b"MN\r\n"),
            _ => out.extend_from_slice(ProtocolError::UnknownCommand.line().as_bytes()),
        }
        Flow::Continue
    }

    fn invalidate(&mut self, _key: &MetaKey<'_>, _now: Now) {}
}
