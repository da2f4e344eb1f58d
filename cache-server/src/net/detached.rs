//! A request without a connection: bytes in, an answer now or later.
//!
//! ```text
//! request --> Service --> | answer |                 Served::Answered: it is in `out`
//!                     `-> | hold | answer | ... |    Served::Held: `Finished` gets it, with `token`,
//!                                                    when its last hold is resolved
//! ```
//!
//! Unlike the answers of a connection those of different requests do not wait for each other.

use std::rc::Rc;

use protocol::{Decoder, Step};

use crate::clock::Now;
use crate::net::waiting_room::{Finished, HeldBytes, WaitingRoom};
use crate::net::{Call, Flow, Service};

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Its answer, perhaps an empty one, was appended.
    Answered,
    /// Its answer comes later; nothing was appended.
    Held,
    /// The bytes are not one whole request; nothing was done.
    Malformed,
    /// It met a bug in the server, which is logged. Nothing was appended; what it has changed is
    /// unknown.
    Crashed,
}

/// Who takes the answer when it is not ready at once.
#[derive(Clone)]
pub struct Addressee {
    /// Called with it.
    pub finished: Rc<dyn Finished>,
    /// What it tells this answer from others by.
    pub token: u64,
}

/// Carries out `request`, which is one whole request as a client sends it.
pub(crate) fn serve<S: Service>(
    service: &mut S,
    room: &WaitingRoom,
    limits: protocol::Limits,
    now: Now,
    request: &[u8],
    out: &mut Vec<u8>,
    addressee: &Addressee,
) -> Served {
    let start = out.len();
    let decoded = match Decoder::new(limits).decode(request) {
        Step::Request { consumed, request: decoded } if consumed == request.len() => decoded,
        Step::Refused { consumed, refusal } if consumed <= request.len() => {
            // A node with other limits passed it on. Data behind the line is dropped with it.
            if let Some(key) = &refusal.invalidates {
                service.invalidate(key, now);
            }
            out.extend_from_slice(refusal.line().as_bytes());
            return Served::Answered;
        }
        _ => return Served::Malformed,
    };
    let holder = room.open_detached(Rc::clone(&addressee.finished), addressee.token);
    room.begin_turn(holder);
    let mut done = 0;
    loop {
        let call = Call {
            now,
            raw: request,
            done,
            output_bytes_high: usize::MAX,
            holds_max: usize::MAX,
            holder,
            waiting_room: room,
        };
        match service.handle(&decoded, call, out) {
            Flow::Pause { done: further } => done = further,
            Flow::Continue | Flow::Close => break,
        }
    }
    let served = match service.holds() {
        Some(holds) if !holds.is_empty() => {
            let bytes = HeldBytes::of(&out[start..]);
            out.truncate(start);
            for hold in holds.iter_mut() {
                hold.from -= start;
                hold.to -= start;
            }
            if room.hold_detached(holder, holds, bytes) { Served::Answered } else { Served::Held }
        }
        _ => Served::Answered,
    };
    if served == Served::Answered {
        room.finish_detached(holder, out);
    }
    room.end_turn();
    served
}
