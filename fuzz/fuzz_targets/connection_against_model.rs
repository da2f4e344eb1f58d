//! Any steps of a client over one connection to a whole server, in pieces of any size, against the model
//! of `tests/src/model.rs`.
//!
//! The first byte of the input says how long the pieces are, the second which words are used; every
//! eight bytes after them are a step. Steps are sent together and answered together. Some are lines
//! that are malformed: they get one error line each, and those behind them their own answers.
//!
//! The server is built with everything it is made of, so this target takes the feature `server`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tests::client::{Client, Dialect, Refused};
use tests::model::{Answer, Direction, Key, Model, Request, Rule, Side, Span};
use tests::server::Server;

/// One for all inputs, with more memory than the keys of one can take.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start_here(&["-m", "64", "-t", "1"]));

/// Nothing runs out while the steps of one input are answered.
const AT: Span = Span { sent_ms: 0, received_ms: 0 };

/// Each is answered with one error line.
const MALFORMED: [&[u8]; 11] = [
    b"\r\n",
    b"get\r\n",
    b"nonsense k 1\r\n",
    b"set k 0 0\r\n",
    b"set k 0 0 3\r\nabcde",
    b"set k none 0 9\r\nflush_all\r\n",
    b"incr k -1\r\n",
    b"touch k soon\r\n",
    b"mg k v v\r\n",
    b"ms k 9 zz\r\nflush_all\r\n",
    b" get k\r\n",
];

/// What is sent at a time.
enum Step {
    Asks(Request),
    Malformed(&'static [u8]),
}

fuzz_target!(|bytes: &[u8]| {
    let [piece_bytes, dialect, steps @ ..] = bytes else { return };
    let dialect = if dialect % 2 == 0 { Dialect::Classic } else { Dialect::Meta };
    let mut client = Client::open(SERVER.address()).expect("the server listens");
    let mut model = Model::new();
    let flush = client.ask(&Request::FlushAll, dialect);
    assert_eq!(flush.expect("it is obeyed"), Answer::Done);
    let steps: Vec<Step> = steps.as_chunks::<8>().0.iter().map(|bytes| step(*bytes)).collect();
    let mut sent = Vec::new();
    for step in &steps {
        match step {
            Step::Asks(request) => dialect.write(request, &mut sent),
            Step::Malformed(line) => sent.extend_from_slice(line),
        }
    }
    let piece_bytes = usize::from(*piece_bytes) * 16 + 1;
    sent.chunks(piece_bytes).for_each(|piece| client.send_bytes(piece).expect("it reads"));
    for step in steps {
        let answer = client.receive();
        match step {
            Step::Asks(request) => {
                let answer = answer.unwrap_or_else(|error| panic!("{request:?}: {error}"));
                model.observe(&request, &answer, AT).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
            Step::Malformed(line) => {
                let error = answer.expect_err("an error line");
                assert!(Refused::of(&error).is_some(), "{}: {error}", line.escape_ascii());
            }
        }
    }
    assert_eq!(
        client.ask(&Request::FlushAll, dialect).expect("nothing is left over"),
        Answer::Done
    );
});

/// Byte 0 is the step, byte 1 the key, the others are its numbers.
fn step([what, key, a, b, c, d, e, f]: [u8; 8]) -> Step {
    let key: Key = match key % 32 {
        31 => vec![b'k'; 250],
        number => format!("key{number}").into_bytes(),
    };
    let value = || -> Vec<u8> {
        match c % 8 {
            0 => u64::from_be_bytes([a, b, d, e, f, a, b, d]).to_string().into_bytes(),
            1 => vec![a; usize::from(b) * 16],
            2 => b"\r\nEND\r\nget k\r\n".to_vec(),
            _ => vec![a; usize::from(b)],
        }
    };
    let delta = u64::from_be_bytes([a, b, c, d, e, f, a, b]) >> (c % 64);
    let request = match what % 16 {
        0..=3 => {
            let rule = match d % 6 {
                0 => Rule::IfAbsent,
                1 => Rule::IfPresent,
                2 => Rule::IfCas(u64::from(e)),
                _ => Rule::Always,
            };
            Request::Put { key, rule, value: value(), flags: u32::from(e) << (f % 25), ttl_s: 0 }
        }
        4 => {
            let side = if d % 2 == 0 { Side::Front } else { Side::Back };
            Request::Extend { key, side, value: vec![a; usize::from(b)] }
        }
        5..=6 => {
            let direction = if d % 2 == 0 { Direction::Up } else { Direction::Down };
            Request::Count { key, direction, delta }
        }
        7 => Request::Delete { key },
        8 => Request::Touch { key, ttl_s: 0 },
        9 if a % 8 == 0 => Request::FlushAll,
        10..=11 => return Step::Malformed(MALFORMED[usize::from(a) % MALFORMED.len()]),
        _ => Request::Get { key },
    };
    Step::Asks(request)
}
