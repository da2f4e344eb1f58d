//! Any steps of a client, against a shard that is full and a map beside it; see `store/tests/pair.rs`.
//!
//! The first byte of the input picks the policy, every eight after it are a step.

#![no_main]

#[path = "../../store/tests/pair.rs"]
#[expect(
    dead_code,
    reason = "the steps that end a process take a file, and files are slow to fuzz"
)]
mod pair;

use eviction::Kind;
use libfuzzer_sys::fuzz_target;

use crate::pair::{Op, Pair, Rule};

/// Small enough that values of a few KiB are evicted and cleaned around.
const MEMORY_BYTES: u64 = 640 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, steps)) = bytes.split_first() else { return };
    let mut pair = Pair::new(MEMORY_BYTES, kind(first), true);
    for step in steps.as_chunks::<8>().0 {
        pair.apply(&op(*step));
    }
    pair.check();
});

fn kind(byte: u8) -> Kind {
    Kind::ALL[usize::from(byte) % Kind::ALL.len()]
}

/// Byte 0 is the step, byte 1 the key, the others are its numbers.
fn op(step: [u8; 8]) -> Op {
    let [what, key, a, b, c, d, e, f] = step;
    let key = key % 40;
    let ttl_ms = (c % 3 == 0).then(|| u64::from(d) * 80);
    let bytes = match a % 8 {
        0..=5 => usize::from(b),
        6 => usize::from(b) * 20,
        _ => usize::from(b) * 350,
    };
    match what % 16 {
        0..=3 => {
            let rule = match e % 8 {
                0 => Rule::Add,
                1 => Rule::Replace,
                2 => Rule::Cas(f % 2 == 0),
                _ => Rule::Set,
            };
            let own_cas = (f % 7 == 0).then(|| u64::from(e));
            Op::Put { key, rule, bytes, client_flags: u32::from(f) % 3, ttl_ms, own_cas }
        }
        4 => Op::Concat { key, back: c % 2 == 0, bytes },
        5 => Op::Number { key, value: u64::from(a) },
        6 => Op::Delta { key, up: a % 2 == 0, by: u64::from(b) },
        7 => Op::Touch { key, ttl_ms },
        8 => Op::Delete { key, right_cas: [None, Some(true), Some(false)][usize::from(a) % 3] },
        9 => Op::Invalidate { key, drop_value: a % 2 == 0 },
        10 => Op::Advance { ms: u64::from(a) * 16 },
        11 => Op::Sweep,
        12 if a % 8 == 0 => Op::Flush { in_ms: u64::from(b) * 10 },
        13 if a % 8 == 0 => Op::SetPolicy(kind(b)),
        _ => Op::Get { key },
    }
}
