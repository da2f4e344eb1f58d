//! Tests of answers that are not ready: connections, detached responses and the waiting room
//! together, without sockets.
//!
//! The service answers each key of a get by what its first letter says, so the answer to any input
//! is known beforehand; what is random is when what arrives, is taken and is resolved.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use protocol::Request;
use protocol::meta::request::MetaKey;

use crate::clock::Now;
use crate::net::buffers::Gauge;
use crate::net::connection::{Connection, Scratch, Tally, Turn, TurnLimits};
use crate::net::detached::{Addressee, Served, Spare, serve};
use crate::net::ticket::{Hold, Resolution, Ticket};
use crate::net::waiting_room::{Finished, WaitingRoom};
use crate::net::{Call, Flow, Service};

const NOW: Now = Now { unix_ms: 1_000_000 };
const LIMITS: TurnLimits =
    TurnLimits { requests_max: u32::MAX, output_bytes_high: 1 << 16, holds_max: 1024 };

/// Answers a get key by key and then `END`:
///
/// | key   | answer            |                                              |
/// |-------|-------------------|----------------------------------------------|
/// | `r..` | the key           | ready                                        |
/// | `k..` | the key           | held, and kept                               |
/// | `x..` | the key and `...` | held, and replaced by that                   |
/// | `e..` | the key and `...` | to come from elsewhere                       |
/// | `y..` | the key           | held, and resolved before the hold is known  |
///
/// Any other request but `quit` is answered with `held`, kept.
#[derive(Default)]
struct Oracle {
    holds: Vec<Hold>,
    /// What is not resolved, with what it will be resolved to.
    open: Vec<(Ticket, Resolution)>,
    raw: Vec<Vec<u8>>,
}

fn line(key: &[u8]) -> Vec<u8> {
    [key, b"\r\n"].concat()
}

/// What takes the place of the answer to `key`: of another length than the answer, and of its own.
fn replacement(key: &[u8]) -> Vec<u8> {
    [key, &b"..........."[..key.len() * 3 % 11], b"\r\n"].concat()
}

/// What a client must get for `key`.
fn answer_to(key: &[u8]) -> Vec<u8> {
    if matches!(key[0], b'x' | b'e') { replacement(key) } else { line(key) }
}

impl Service for Oracle {
    type Message = Infallible;

    fn handle(&mut self, request: &Request<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
        let mut hold = |from, out: &mut Vec<u8>, resolution: Option<Resolution>| {
            let ticket = call.issue_ticket();
            self.holds.push(Hold { ticket, from, to: out.len() });
            match resolution {
                Some(resolution) => self.open.push((ticket, resolution)),
                None => call.waiting_room.resolve(ticket, Resolution::Keep),
            }
        };
        match request {
            Request::Get(get) => {
                let mut holds = 0;
                for (index, key) in get.keys.clone().enumerate().skip(call.done) {
                    let is_full = out.len() > call.output_bytes_high || holds >= call.holds_max;
                    if index > call.done && is_full {
                        return Flow::Pause { done: index };
                    }
                    let (key, from) = (key.as_bytes(), out.len());
                    if key[0] != b'e' {
                        out.extend_from_slice(&line(key));
                    }
                    holds += usize::from(key[0] != b'r');
                    let replaced = || Resolution::Replace(Bytes::from(replacement(key)));
                    match key[0] {
                        b'k' => hold(from, out, Some(Resolution::Keep)),
                        b'x' | b'e' => hold(from, out, Some(replaced())),
                        b'y' => hold(from, out, None),
                        _ => {}
                    }
                }
                out.extend_from_slice(b"END\r\n");
            }
            Request::Quit => return Flow::Close,
            _ => {
                let from = out.len();
                out.extend_from_slice(b"held\r\n");
                hold(from, out, Some(Resolution::Keep));
            }
        }
        self.raw.push(call.raw.to_vec());
        Flow::Continue
    }

    fn holds(&mut self) -> Option<&mut Vec<Hold>> {
        Some(&mut self.holds)
    }

    fn invalidate(&mut self, _: &MetaKey<'_>, _: &[u8], _: Call<'_>, _: &mut Vec<u8>) {}
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection as its driver runs it: one step after another until it has to wait, and on only
/// when what it waits for has happened.
struct Driven {
    connection: Connection,
    service: Oracle,
    room: WaitingRoom,
    gauge: Arc<Gauge>,
    scratch: Scratch,
    limits: TurnLimits,
    /// What has arrived and is not read.
    arrived: VecDeque<u8>,
    has_client_closed: bool,
    /// How many bytes the client still takes.
    window: usize,
    taken: Vec<u8>,
    last_turn: Turn,
    wakes: Arc<Wakes>,
    /// Wakes seen when it last waited for the room, if it does.
    asleep_since: Option<u32>,
    is_closed: bool,
    requests: u32,
}

impl Driven {
    fn new() -> Self {
        Self::with(LIMITS, usize::MAX)
    }

    fn with(limits: TurnLimits, buffer_bytes_max: usize) -> Self {
        let gauge = Arc::new(Gauge::new(buffer_bytes_max));
        let room = WaitingRoom::new(Arc::clone(&gauge));
        let holder = room.open();
        Self {
            connection: Connection::new(protocol::Limits::default(), Arc::clone(&gauge), holder),
            service: Oracle::default(),
            room,
            gauge,
            scratch: Scratch::default(),
            limits,
            arrived: VecDeque::new(),
            has_client_closed: false,
            window: usize::MAX,
            taken: Vec::new(),
            last_turn: Turn::Drained,
            wakes: Arc::default(),
            asleep_since: None,
            is_closed: false,
            requests: 0,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.arrived.extend(bytes);
        self.run();
    }

    fn close_client(&mut self) {
        self.has_client_closed = true;
        self.run();
    }

    /// Resolves the answer at `index` of those that are open, as it is to be.
    fn resolve(&mut self, index: usize) {
        let (ticket, resolution) = self.service.open.remove(index);
        self.room.resolve(ticket, resolution);
        self.wait();
    }

    /// A while passes.
    fn wait(&mut self) {
        self.room.wake_patient();
        self.run();
    }

    fn taken(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.taken)).unwrap()
    }

    /// Whether the room has something; asked again only after a wake-up.
    fn is_released(&mut self) -> bool {
        let wakes = self.wakes.0.load(Ordering::Relaxed);
        if self.asleep_since == Some(wakes) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.wakes));
        let context = &mut Context::from_waker(&waker);
        let is_released = self
            .room
            .poll_released(self.connection.holder(), self.last_turn == Turn::Held, context)
            .is_ready();
        self.asleep_since = (!is_released).then_some(wakes);
        is_released
    }

    fn run(&mut self) {
        while !self.is_closed {
            let unsent = self.connection.unsent();
            let count = unsent.len().min(self.window);
            self.taken.extend_from_slice(&unsent[..count]);
            self.connection.mark_sent(count);
            self.window -= count;
            if self.connection.has_unsent() {
                return;
            }
            let last_turn = self.last_turn;
            match last_turn {
                Turn::Closes | Turn::OutOfMemory => {
                    self.is_closed = true;
                    self.connection.close(&mut self.scratch);
                    self.room.close(self.connection.holder());
                    return;
                }
                Turn::Full | Turn::Spent => {}
                Turn::Held if self.is_released() => {}
                Turn::Held => return,
                Turn::Drained if !self.arrived.is_empty() => {
                    self.connection.lend(&mut self.scratch);
                    let input = self.connection.input_mut();
                    let room = (input.capacity() - input.len()).min(self.arrived.len());
                    assert!(room > 0, "a read has room");
                    input.extend(self.arrived.drain(..room));
                }
                Turn::Drained if self.has_client_closed => {
                    self.connection.end_input();
                    self.has_client_closed = false;
                }
                Turn::Drained if self.connection.is_holding() && self.is_released() => {}
                Turn::Drained | Turn::Listens => return,
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.asleep_since = None;
        self.connection.lend(&mut self.scratch);
        let mut tally = Tally::default();
        let (connection, room) = (&mut self.connection, &self.room);
        room.begin_turn(connection.holder());
        let service = &mut self.service;
        self.last_turn = connection.advance(service, room, NOW, self.limits, &mut tally);
        connection.release(room, self.limits);
        room.end_turn();
        self.requests += tally.requests;
        // A client that takes what it can before the connection keeps it.
        let count = connection.unsent().len().min(self.window);
        self.taken.extend_from_slice(&connection.unsent()[..count]);
        connection.mark_sent(count);
        self.window -= count;
        if self.last_turn != Turn::OutOfMemory {
            connection.settle(&mut self.scratch).unwrap();
        }
    }
}

#[test]
fn held_answer_and_all_behind_it_wait() {
    let mut client = Driven::new();
    client.send(b"get r1\r\nget k2\r\nget r3\r\n");
    assert_eq!(client.taken(), "r1\r\nEND\r\n");
    assert_eq!(client.requests, 3, "what is behind it is carried out");
    client.resolve(0);
    assert_eq!(client.taken(), "k2\r\nEND\r\nr3\r\nEND\r\n");
}

#[test]
fn holes_of_one_answer_are_filled_in_any_order() {
    for order in [[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [2, 0, 0], [2, 1, 0]] {
        let mut client = Driven::new();
        client.send(b"get r0 e1 r2 e3 x4\r\n");
        order.iter().for_each(|&index| client.resolve(index));
        let answers = ["r0", "e1", "r2", "e3", "x4"].map(|key| answer_to(key.as_bytes())).concat();
        assert_eq!(client.taken().as_bytes(), [&answers[..], b"END\r\n"].concat());
    }
}

#[test]
fn connection_is_woken_once_when_the_last_of_its_holds_is_resolved() {
    let mut client = Driven::new();
    client.send(b"get k1\r\nget k2\r\nget k3\r\n");
    let wakes = || client.wakes.0.load(Ordering::Relaxed);
    let open = std::mem::take(&mut client.service.open);
    let [first, second, third] = &open[..] else { panic!() };
    client.room.resolve(second.0, Resolution::Keep);
    assert_eq!(wakes(), 0, "nothing can leave yet");
    client.room.resolve(first.0, Resolution::Keep);
    assert_eq!(wakes(), 0, "the third is about to follow");
    client.room.resolve(third.0, Resolution::Keep);
    assert_eq!(wakes(), 1);
    client.run();
    assert_eq!(client.taken(), "k1\r\nEND\r\nk2\r\nEND\r\nk3\r\nEND\r\n");
}

#[test]
fn what_may_leave_waits_a_while_for_the_rest_and_no_longer() {
    let mut client = Driven::new();
    client.send(b"get k1\r\nget k2\r\n");
    let (first, _) = client.service.open[0];
    client.room.resolve(first, Resolution::Keep);
    client.run();
    assert_eq!(client.taken(), "", "the second may come any moment");
    client.wait();
    assert_eq!(client.taken(), "k1\r\nEND\r\n");
}

#[test]
fn what_is_much_already_does_not_wait_for_the_rest() {
    let mut client = Driven::new();
    client.send(&b"get k1\r\n".repeat(100));
    let first: Vec<Ticket> = client.service.open[..64].iter().map(|(ticket, _)| *ticket).collect();
    first.into_iter().for_each(|ticket| client.room.resolve(ticket, Resolution::Keep));
    client.run();
    assert_eq!(client.taken(), "k1\r\nEND\r\n".repeat(64));
}

#[test]
fn hold_that_is_resolved_within_its_own_turn_costs_no_wake() {
    let mut client = Driven::new();
    client.send(b"get y1 y2\r\nget y3\r\n");
    assert_eq!(client.taken(), "y1\r\ny2\r\nEND\r\ny3\r\nEND\r\n");
    assert_eq!(client.wakes.0.load(Ordering::Relaxed), 0);
}

#[test]
fn as_many_answers_are_held_as_may_be_and_no_further_request_is_carried_out() {
    let mut client = Driven::with(TurnLimits { holds_max: 3, ..LIMITS }, usize::MAX);
    client.send(&b"mn\r\n".repeat(10));
    assert_eq!((client.last_turn, client.requests), (Turn::Held, 3));
    client.resolve(2);
    client.resolve(1);
    assert_eq!(client.requests, 3, "what is ready behind the first still takes its place");
    client.resolve(0);
    assert_eq!(client.requests, 6);
}

#[test]
fn request_with_more_holds_than_may_be_pauses_and_goes_on() {
    let mut client = Driven::with(TurnLimits { holds_max: 2, ..LIMITS }, usize::MAX);
    client.send(b"get k1 k2 k3 k4 k5\r\n");
    assert_eq!(client.service.open.len(), 2);
    for _ in 0..5 {
        client.resolve(0);
    }
    assert_eq!(client.taken(), "k1\r\nk2\r\nk3\r\nk4\r\nk5\r\nEND\r\n");
}

#[test]
fn held_bytes_count_as_output() {
    let mut client = Driven::with(TurnLimits { output_bytes_high: 20, ..LIMITS }, usize::MAX);
    client.send(&b"mn\r\n".repeat(10));
    assert_eq!((client.last_turn, client.requests), (Turn::Held, 4), "of six bytes each");
    client.resolve(0);
    assert_eq!(client.requests, 5);
}

#[test]
fn quit_and_a_client_that_sends_no_more_get_the_answers_that_are_held() {
    for ending in [&b"quit\r\nmn\r\n"[..], b""] {
        let mut client = Driven::new();
        client.send(b"mn\r\nget r1\r\n");
        client.send(ending);
        client.close_client();
        assert_eq!((client.taken(), client.is_closed), (String::new(), false));
        client.resolve(0);
        assert_eq!((&*client.taken(), client.is_closed), ("held\r\nr1\r\nEND\r\n", true));
    }
}

#[test]
fn connection_that_has_nothing_held_any_more_owns_nothing() {
    let mut client = Driven::new();
    client.send(b"mn\r\nget e1\r\n");
    assert!(client.gauge.bytes() > 0);
    client.resolve(1);
    client.resolve(0);
    assert_eq!(client.gauge.bytes(), 0);
}

#[test]
fn answer_that_arrives_and_does_not_fit_into_memory_closes_its_connection() {
    let mut client = Driven::with(LIMITS, 100);
    client.send(b"get e1\r\nget r2\r\n");
    let (ticket, _) = client.service.open[0];
    client.room.resolve(ticket, Resolution::Replace(Bytes::from(vec![b'e'; 200])));
    client.run();
    assert_eq!((client.last_turn, client.is_closed), (Turn::OutOfMemory, true));
    assert_eq!(client.taken(), "", "nothing leaves before what was to come first");
}

#[test]
fn tickets_of_a_connection_that_is_gone_mean_nothing_to_the_next() {
    let mut gone = Driven::new();
    gone.send(b"mn\r\n");
    gone.room.close(gone.connection.holder());
    let holder = gone.room.open();
    assert_eq!(holder.slot, gone.connection.holder().slot, "its slot is used again");
    let gauge = Arc::clone(&gone.gauge);
    gone.connection = Connection::new(protocol::Limits::default(), gauge, holder);
    gone.send(b"mn\r\n");
    gone.resolve(0);
    assert_eq!(gone.taken(), "");
    gone.resolve(0);
    assert_eq!(gone.taken(), "held\r\n");
}

#[test]
fn service_gets_each_request_as_it_was_sent() {
    let mut client = Driven::new();
    let requests: [&[u8]; 3] = [b"get  r1 r2\n", b"set k 7 0 3\r\nabc\r\n", b"mg k v\r\n"];
    client.send(&requests.concat());
    assert_eq!(client.service.raw, requests);
}

#[test]
fn data_that_is_dropped_is_no_part_of_the_request_behind_it() {
    let mut client = Driven::new();
    let refused = [&b"set k 0 0 9999999\r\n"[..], &vec![b'x'; 9_999_999], b"\r\n"].concat();
    client.send(&refused[..refused.len() - 2000]);
    client.send(&[&refused[refused.len() - 2000..], b"mg k v\r\n"].concat());
    assert_eq!(client.service.raw, [b"mg k v\r\n"]);
}

/// Answers with their tokens.
type Answers = Vec<(u64, Vec<u8>)>;

/// Detached responses of one service, with what has finished.
#[derive(Default)]
struct Detachment {
    service: Oracle,
    room: WaitingRoom,
    spare: Spare,
    finished: Rc<RefCell<Answers>>,
}

impl Detachment {
    fn serve(&mut self, token: u64, request: &[u8]) -> (Served, String) {
        let finished = Rc::clone(&self.finished);
        let finished: Rc<dyn Finished> = Rc::new(move |token, answer: &[u8]| {
            finished.borrow_mut().push((token, answer.to_vec()));
        });
        let addressee = Addressee { finished, token };
        let limits = protocol::Limits::default();
        let mut out = b"before ".to_vec();
        let (service, room, spare) = (&mut self.service, &self.room, &mut self.spare);
        let served = serve(service, room, limits, NOW, request, &mut out, &addressee, spare);
        (served, String::from_utf8(out).unwrap())
    }

    fn resolve(&mut self, index: usize) {
        let (ticket, resolution) = self.service.open.remove(index);
        self.room.resolve(ticket, resolution);
    }
}

#[test]
fn detached_answers_finish_when_their_own_holds_do() {
    let mut detached = Detachment::default();
    let nothing = "before ".to_owned();
    assert_eq!(detached.serve(1, b"get r1 k2 e3\r\n"), (Served::Held, nothing.clone()));
    assert_eq!(detached.serve(2, b"mn\r\n"), (Served::Held, nothing));
    detached.resolve(2);
    assert_eq!(*detached.finished.borrow(), [(2, b"held\r\n".to_vec())]);
    detached.resolve(1);
    assert_eq!(detached.finished.borrow().len(), 1);
    detached.resolve(0);
    let answer = [&b"r1\r\nk2\r\n"[..], &answer_to(b"e3"), b"END\r\n"].concat();
    assert_eq!(detached.finished.borrow()[1], (1, answer));
    assert_eq!(detached.room.holders(), 0);
}

#[test]
fn detached_answer_that_is_ready_is_appended_at_once() {
    let mut detached = Detachment::default();
    let answered = (Served::Answered, "before r1\r\ny2\r\nEND\r\n".to_owned());
    assert_eq!(detached.serve(1, b"get r1 y2\r\n"), answered);
    assert!(detached.finished.borrow().is_empty());
    assert_eq!(detached.room.holders(), 0);
}

#[test]
fn one_place_is_kept_for_the_next_request_until_an_answer_takes_it() {
    let mut detached = Detachment::default();
    detached.serve(1, b"get r1\r\n");
    detached.serve(2, b"get r2\r\n");
    assert_eq!(detached.room.holders(), 1);
    detached.serve(3, b"get k3\r\n");
    detached.serve(4, b"get k4\r\n");
    assert_eq!(detached.room.holders(), 2, "each that is held has its own");
    detached.resolve(1);
    detached.resolve(0);
    let tokens: Vec<u64> = detached.finished.borrow().iter().map(|&(token, _)| token).collect();
    assert_eq!((tokens, detached.room.holders()), (vec![4, 3], 0));
    detached.serve(5, b"get r5\r\n");
    detached.spare.close(&detached.room);
    assert_eq!(detached.room.holders(), 0);
}

#[test]
fn bytes_that_are_not_one_request_are_malformed() {
    for bytes in [&b""[..], b"get k", b"mn\r\nmn\r\n", b"set k 0 0 3\r\nab"] {
        let mut detached = Detachment::default();
        assert_eq!(detached.serve(1, bytes), (Served::Malformed, "before ".to_owned()));
        assert_eq!(detached.room.holders(), 0);
    }
}

/// What may happen to a connection.
#[derive(Clone, Debug)]
enum Happening {
    /// The client sends this many bytes of what it has to say.
    Sends(usize),
    /// It takes this many more bytes.
    Takes(usize),
    /// One of the answers that wait becomes ready.
    Resolves(prop::sample::Index),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (1..40_usize).prop_map(Happening::Sends),
        (0..60_usize).prop_map(Happening::Takes),
        any::<prop::sample::Index>().prop_map(Happening::Resolves),
        any::<prop::sample::Index>().prop_map(Happening::Resolves),
    ]
}

fn get() -> impl Strategy<Value = Vec<String>> {
    vec("[rrkxey][0-9]{1,4}", 1..7)
}

proptest! {
    #[test]
    fn answers_are_complete_and_in_order_whatever_becomes_ready_when(
        gets in vec(get(), 1..25),
        happenings in vec(happening(), 0..120),
        quits in any::<bool>(),
        output_bytes_high in 1..200_usize,
        holds_max in 1..12_usize,
        requests_max in 1..8_u32,
    ) {
        let limits = TurnLimits { requests_max, output_bytes_high, holds_max };
        let mut client = Driven::with(limits, usize::MAX);
        client.window = 0;
        let mut says: VecDeque<u8> =
            gets.iter().flat_map(|keys| format!("get {}\r\n", keys.join(" ")).into_bytes()).collect();
        let mut expected = Vec::new();
        for keys in &gets {
            keys.iter().for_each(|key| expected.extend(answer_to(key.as_bytes())));
            expected.extend(b"END\r\n");
        }
        if quits {
            says.extend(b"quit\r\n");
        }
        for happening in happenings {
            match happening {
                Happening::Sends(count) => {
                    let sent: Vec<u8> = says.drain(..count.min(says.len())).collect();
                    client.send(&sent);
                }
                Happening::Takes(count) => {
                    client.window += count;
                    client.run();
                }
                Happening::Resolves(_) if client.service.open.is_empty() => {}
                Happening::Resolves(index) => {
                    client.resolve(index.index(client.service.open.len()));
                }
            }
            prop_assert!(expected.starts_with(&client.taken));
            prop_assert!(client.service.open.len() <= holds_max);
        }
        client.window = usize::MAX;
        client.send(says.make_contiguous());
        client.close_client();
        while !client.service.open.is_empty() {
            prop_assert!(!client.is_closed, "closed with answers held");
            client.resolve(0);
        }
        prop_assert_eq!(client.taken.escape_ascii().to_string(), expected.escape_ascii().to_string());
        prop_assert!(client.is_closed);
        prop_assert_eq!(client.room.holders(), 0);
        drop(client.connection);
        prop_assert_eq!(client.gauge.bytes(), 0);
    }
}
