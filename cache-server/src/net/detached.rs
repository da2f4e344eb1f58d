//! A request without a connection: bytes in, an answer now or later.
//!
//! ```text
//! request --> Service --> | answer |                 Served::Answered: it is in `out`
//!                     `-> | hold | answer | ... |    Served::Held: `Finished` gets it, with `token`,
//!                                                    when its last hold is resolved
//! ```
//!
//! Nearly all answers are ready at once. So whoever hands requests in keeps one place in the waiting room for the
//! next ([`Spare`]), which an answer that is held takes with it.
//!
//! Unlike the answers of a connection those of different requests do not wait for each other.

use std::rc::Rc;

use protocol::{Decoder, Step};

use crate::clock::Now;
use crate::net::ticket::HolderId;
use crate::net::waiting_room::{Finished, HeldBytes, WaitingRoom};
use crate::net::{Call, Flow, Service, refuse};

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

/// A place in a waiting room, for the next request. To be given back with [`Spare::close`].
#[derive(Debug, Default)]
pub struct Spare(Option<HolderId>);

impl Spare {
    /// Gives the place back to the room.
    pub fn close(&mut self, room: &WaitingRoom) {
        if let Some(holder) = self.0.take() {
            room.close(holder);
        }
    }
}

/// Carries out `request`, which is one whole request as a client sends it.
#[expect(
    clippy::too_many_arguments,
    reason = "what serves, what is served, and where the answer goes"
)]
pub(crate) fn serve<S: Service>(
    service: &mut S,
    room: &WaitingRoom,
    limits: protocol::Limits,
    now: Now,
    request: &[u8],
    out: &mut Vec<u8>,
    addressee: &Addressee,
    spare: &mut Spare,
) -> Served {
    let start = out.len();
    let step = Decoder::new(limits).decode(request);
    match &step {
        Step::Request { consumed, .. } if *consumed == request.len() => {}
        // A node with other limits passed it on. Data behind the line is dropped with it.
        Step::Refused { consumed, .. } if *consumed <= request.len() => {}
        _ => return Served::Malformed,
    }
    let holder = *spare.0.get_or_insert_with(|| room.open());
    room.begin_turn(holder);
    let mut done = 0;
    loop {
        let call = Call {
            now,
            raw: request,
            done,
            output_bytes_high: usize::MAX,
            holds_max: usize::MAX,
            sends_apart: false,
            holder,
            waiting_room: room,
        };
        let flow = match &step {
            Step::Request { request, .. } => service.handle(request, call, out),
            Step::Refused { refusal, .. } => {
                refuse(service, refusal, Call { raw: &[], ..call }, out);
                Flow::Continue
            }
            Step::More { .. } => unreachable!("half a request was turned away above"),
        };
        match flow {
            Flow::Pause { done: further } => done = further,
            Flow::Continue | Flow::Close => break,
            Flow::Apart(_) => unreachable!("only where the call says so"),
            // Nobody is there to listen.
            Flow::Listen => {
                drop(service.take_side_stream());
                break;
            }
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
            spare.0 = None;
            let finished = Rc::clone(&addressee.finished);
            if room.hold_detached(holder, finished, addressee.token, holds, bytes) {
                room.finish_detached(holder, out);
                Served::Answered
            } else {
                Served::Held
            }
        }
        _ => Served::Answered,
    };
    room.end_turn();
    served
}
