//! (tests) Which parts memcached 1.6.45 takes in a frame of which command, tried out.
//!
//! A frame of any other shape is answered with `Invalid arguments`, the last answer of its connection.
//! Three differences are deliberate, and stand in [`DIFFERENT`]. What the commands then do and answer
//! is in the dialogues `tests/scripts/binary_*.txt`.

use Part::{Any, Must, MustNot};

use crate::binary::{Head, Header, Opcode, REQUEST_MAGIC};
use crate::error::ProtocolError;
use crate::request::decoder::{Decoder, Limits, Step};

/// Whether a frame has a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Must,
    MustNot,
    Any,
}

impl Part {
    fn takes(self, bytes: usize) -> bool {
        match self {
            Must => bytes > 0,
            MustNot => bytes == 0,
            Any => true,
        }
    }
}

/// Commands, the lengths that their extras may have, key, and value.
type Row = (&'static [Opcode], &'static [usize], Part, Part);

const SHAPES: &[Row] = &[
    (&[Opcode::Get, Opcode::GetQ, Opcode::GetK, Opcode::GetKQ], &[0], Must, MustNot),
    (&[Opcode::Gat, Opcode::GatQ, Opcode::GatK, Opcode::GatKQ], &[4], Must, MustNot),
    (&[Opcode::Touch], &[4], Must, MustNot),
    (&[Opcode::Set, Opcode::SetQ, Opcode::Add, Opcode::AddQ], &[8], Must, Any),
    (&[Opcode::Replace, Opcode::ReplaceQ], &[8], Must, Any),
    (&[Opcode::Append, Opcode::AppendQ], &[0], Must, Any),
    (&[Opcode::Prepend, Opcode::PrependQ], &[0], Must, Any),
    (&[Opcode::Delete, Opcode::DeleteQ], &[0], Must, MustNot),
    (&[Opcode::Increment, Opcode::IncrementQ], &[20], Must, MustNot),
    (&[Opcode::Decrement, Opcode::DecrementQ], &[20], Must, MustNot),
    (&[Opcode::Flush, Opcode::FlushQ], &[0, 4], MustNot, MustNot),
    (&[Opcode::Stat], &[0], Any, MustNot),
    (&[Opcode::Verbosity], &[4], MustNot, MustNot),
    (&[Opcode::Noop, Opcode::Version], &[0], MustNot, MustNot),
    (&[Opcode::Quit, Opcode::QuitQ, Opcode::SaslList], &[0], MustNot, MustNot),
    (&[Opcode::SaslAuth, Opcode::SaslStep], &[0], Must, Any),
];

/// Otherwise than memcached, on purpose.
const DIFFERENT: &[(&[Opcode], &str)] = &[
    (
        &[Opcode::Gat, Opcode::GatQ, Opcode::GatK, Opcode::GatKQ, Opcode::Touch, Opcode::Stat],
        "memcached does not look for a value, and takes it for the beginning of the next frame",
    ),
    (&[Opcode::Verbosity], "memcached does not know it, and closes when the next frame comes"),
];

/// A frame of zeros with these lengths.
fn frame(opcode: u8, extras_bytes: usize, key_bytes: usize, value_bytes: usize) -> Vec<u8> {
    let body_bytes = extras_bytes + key_bytes + value_bytes;
    let head = Head { opcode, opaque: 1 };
    let (magic, status, cas) = (REQUEST_MAGIC, 0, 0);
    let mut frame = Vec::new();
    Header { magic, head, key_bytes, extras_bytes, body_bytes, status, cas }.write(&mut frame);
    frame.resize(frame.len() + body_bytes, 0);
    frame
}

fn refusal(step: Step<'_>) -> Option<(ProtocolError, bool)> {
    match step {
        Step::Refused { refusal, .. } => Some((refusal.error, refusal.closes())),
        Step::Request { .. } => None,
        Step::More { .. } => panic!("the frame is whole"),
    }
}

#[test]
fn a_frame_of_any_other_shape_is_refused() {
    for &opcode in Opcode::ALL {
        let (_, extras, key, value) =
            SHAPES.iter().find(|(opcodes, ..)| opcodes.contains(&opcode)).expect("a row for each");
        for extras_bytes in 0..=24 {
            for key_bytes in [0, 1, 250] {
                for value_bytes in [0, 1] {
                    let frame = frame(opcode as u8, extras_bytes, key_bytes, value_bytes);
                    let step = Decoder::new(Limits::default()).decode(&frame);
                    let is_taken = extras.contains(&extras_bytes)
                        && key.takes(key_bytes)
                        && value.takes(value_bytes);
                    let expected = (!is_taken).then_some((ProtocolError::BadFrame, true));
                    let shape = (extras_bytes, key_bytes, value_bytes);
                    assert_eq!(refusal(step), expected, "{opcode:?} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn the_deliberate_differences_concern_commands_there_are() {
    for (opcodes, why) in DIFFERENT {
        assert!(opcodes.iter().all(|opcode| Opcode::ALL.contains(opcode)), "{why}");
    }
}

#[test]
fn a_key_too_long_closes_whatever_the_command() {
    for opcode in 0..=255 {
        let frame = frame(opcode, 0, 251, 0);
        let step = Decoder::new(Limits::default()).decode(&frame);
        assert_eq!(refusal(step), Some((ProtocolError::BadFrame, true)), "{opcode:#x}");
    }
}

#[test]
fn lengths_that_do_not_fit_close() {
    let mut short = frame(Opcode::Get as u8, 0, 5, 0);
    short[11] = 3;
    let step = Decoder::new(Limits::default()).decode(&short);
    assert_eq!(refusal(step), Some((ProtocolError::BadFrameLengths, true)));
    let mut huge = frame(Opcode::Set as u8, 8, 1, 0);
    huge[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let step = Decoder::new(Limits::default()).decode(&huge);
    assert_eq!(refusal(step), Some((ProtocolError::BadFrame, true)));
}

#[test]
fn an_unknown_command_is_swallowed_whole() {
    let noop = frame(Opcode::Noop as u8, 0, 0, 0);
    let input = [frame(0x99, 3, 4, 5), noop.clone()].concat();
    let mut decoder = Decoder::new(Limits::default());
    let Step::Refused { consumed, refusal } = decoder.decode(&input) else { panic!() };
    assert_eq!((refusal.error, refusal.closes()), (ProtocolError::UnknownCommand, false));
    let Step::Request { consumed: more, .. } = decoder.decode(&input[consumed..]) else { panic!() };
    assert_eq!(consumed + more, input.len());
}

#[test]
fn before_a_client_has_authenticated_a_value_is_not_waited_for() {
    let set = frame(Opcode::Set as u8, 8, 1, 1 << 20);
    let mut decoder = Decoder::new(Limits::default());
    decoder.set_locked(true);
    let step = decoder.decode(&set[..33]);
    assert_eq!(refusal(step), Some((ProtocolError::NotAuthenticated, true)));
    for opcode in [Opcode::SaslList, Opcode::Version] {
        let frame = frame(opcode as u8, 0, 0, 0);
        let mut decoder = Decoder::new(Limits::default());
        decoder.set_locked(true);
        assert_eq!(refusal(decoder.decode(&frame)), None, "{opcode:?}");
    }
}

#[test]
fn a_value_that_is_awaited_can_be_refused() {
    let set = frame(Opcode::Set as u8, 8, 1, 10);
    let input = [set.clone(), frame(Opcode::Noop as u8, 0, 0, 0)].concat();
    let mut decoder = Decoder::new(Limits::default());
    let awaited = Step::More { consumed: 0, wanted: set.len() };
    assert_eq!(decoder.decode(&set[..40]), awaited);
    assert_eq!(decoder.awaited_bytes(), Some(set.len()));
    decoder.refuse_data(ProtocolError::OutOfMemoryStoring);
    let Step::Refused { consumed, refusal } = decoder.decode(&set[..40]) else { panic!() };
    assert_eq!(consumed, 33);
    assert_eq!(refusal.invalidates.map(|key| key.written()), Some(&[0][..]));
    let mut answer = Vec::new();
    refusal.encode(&mut answer);
    assert!(answer.ends_with(b"Out of memory"));
    let Step::Request { consumed: more, .. } = decoder.decode(&input[consumed..]) else { panic!() };
    assert_eq!(consumed + more, input.len());
}
