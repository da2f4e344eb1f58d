//! Any bytes in the place of a shard's segments and its snapshot: reopening neither panics nor loops,
//! and the shard that comes of it can be used.
//!
//! ```text
//! input: | policy 1 | steps, 4 B each ... until one is all ones | damages, 4 B each ... |
//! ```
//!
//! Bytes drawn at random fail the first checksum they meet. So a shard is used first, as the input
//! says, and the input then says what is changed of what it left: single bytes, and runs of bytes that
//! are copied from one place to another, with checksums that hold wherever they held before.

#![no_main]

use std::sync::{Arc, Mutex};

use eviction::Kind;
use libfuzzer_sys::fuzz_target;
use store::arena::{Arena, SegmentId};
use store::{Config, Deadline, Delta, Geometry, Key, NewItem, Precondition, Shard, Timestamp};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const PAGE_BYTES: usize = 4096;
const SEGMENT_BYTES: usize = 16 << 10;
const SEGMENTS: usize = 32;
const KEYS: u8 = 60;

/// A page and segments in memory, which are lent again when the shard is gone.
struct LentArena {
    bytes: Vec<u8>,
    lender: Arc<Mutex<Vec<u8>>>,
}

impl LentArena {
    fn of(lender: &Arc<Mutex<Vec<u8>>>) -> Box<Self> {
        let bytes = lender.lock().map(|mut bytes| std::mem::take(&mut *bytes)).unwrap_or_default();
        Box::new(Self { bytes, lender: Arc::clone(lender) })
    }

    fn range(segment: SegmentId) -> std::ops::Range<usize> {
        let from = PAGE_BYTES + segment.0 as usize * SEGMENT_BYTES;
        from..from + SEGMENT_BYTES
    }
}

impl Drop for LentArena {
    fn drop(&mut self) {
        if let Ok(mut lender) = self.lender.lock() {
            *lender = std::mem::take(&mut self.bytes);
        }
    }
}

impl Arena for LentArena {
    fn segment_bytes(&self) -> u32 {
        SEGMENT_BYTES as u32
    }

    fn segment_count(&self) -> u32 {
        SEGMENTS as u32
    }

    fn segment(&self, segment: SegmentId) -> &[u8] {
        &self.bytes[Self::range(segment)]
    }

    fn segment_mut(&mut self, segment: SegmentId) -> &mut [u8] {
        &mut self.bytes[Self::range(segment)]
    }

    fn grow(&mut self, _segment_count: u32) {}

    fn release(&mut self, segment: SegmentId) {
        self.segment_mut(segment).fill(0);
    }

    fn page(&self) -> Option<&[u8]> {
        Some(&self.bytes[..PAGE_BYTES])
    }

    fn page_mut(&mut self) -> Option<&mut [u8]> {
        Some(&mut self.bytes[..PAGE_BYTES])
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let config = Config {
        geometry: Geometry {
            shard_count: 1,
            shard_bytes: (SEGMENTS * SEGMENT_BYTES) as u64,
            segment_bytes: SEGMENT_BYTES as u32,
        },
        item_bytes_max: 64 << 10,
        policy: Kind::ALL[usize::from(first) % Kind::ALL.len()],
        evicts: true,
        protected: store::Protected::NONE,
        shard: 0,
    };
    let lender = Arc::new(Mutex::new(vec![0; PAGE_BYTES + SEGMENTS * SEGMENT_BYTES]));
    let mut shard = Shard::with_arena(config, LentArena::of(&lender));
    let mut words = rest.as_chunks::<4>().0.iter();
    for step in words.by_ref().take_while(|step| **step != [0xff; 4]) {
        use_shard(&mut shard, *step);
    }
    let mut section = shard.save();
    drop(shard);
    if let Ok(mut bytes) = lender.lock() {
        for damage in words {
            do_damage(&mut bytes, &mut section, *damage);
        }
    }
    let (mut shard, _) = Shard::reopen(config, LentArena::of(&lender), NOW);
    shard.check();
    for number in 0..=u8::MAX {
        use_shard(&mut shard, [number, number, 40, 1]);
    }
    shard.check();
    drop(shard);
    // The snapshot's own checksum is compared before this, so what it says is ours or gone; that
    // nothing in it can be as harmful as a panic is worth more than that.
    if let Ok(shard) = Shard::reopen_from(config, LentArena::of(&lender), &section) {
        drop(shard);
    }
});

fn use_shard(shard: &mut Shard, [what, key, a, b]: [u8; 4]) {
    let name = [b'k', b'a' + key % KEYS / 10, b'0' + key % 10];
    let key = Key::new(&name);
    let value = vec![b'0' + b % 10; usize::from(a) * [1, 1, 1, 90][usize::from(b) % 4]];
    let deadline = match b % 5 {
        0 => Deadline::at(NOW.plus_millis(u64::from(a) + 1)),
        _ => Deadline::NEVER,
    };
    match what % 8 {
        0..=3 => {
            let client_flags = u32::from(b % 3);
            let new = NewItem { client_flags, deadline, value: &[&value], own_cas: None };
            shard.put(&key, &new, Precondition::None, NOW);
        }
        4 => drop(shard.add_delta(&key, Delta::Increment(1), None, None, None, NOW)),
        5 => drop(shard.touch(&key, deadline, NOW)),
        6 => drop(shard.delete(&key, None, NOW)),
        _ if a == 0 && b == 0 => shard.flush_all(NOW, NOW),
        _ => drop(shard.get(&key, NOW).map(|item| item.value.to_vec())),
    }
}

/// Changes one byte, or copies a run of them to another place.
fn do_damage(bytes: &mut [u8], section: &mut [u8], [how, high, low, value]: [u8; 4]) {
    let spread = usize::from(high) << 8 | usize::from(low);
    let at = spread * 8 % bytes.len();
    match how % 4 {
        0 => bytes[at] ^= value,
        1 => bytes[at + usize::from(value) % 8] = value,
        2 => {
            let from = usize::from(value) * SEGMENT_BYTES / 4 % (bytes.len() - 512);
            let to = at.min(bytes.len() - 512);
            bytes.copy_within(from..from + 512, to);
        }
        _ if section.is_empty() => {}
        _ => {
            let at = spread % section.len();
            section[at] ^= value;
        }
    }
}
