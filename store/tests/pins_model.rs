//! A pinned segment in every interleaving of who reads it and who wants to write it anew.
//!
//! The file under test is compiled once more here, with loom's atomics in place of the real ones.

#[path = "../src/pins/count.rs"]
mod count;

/// What `count.rs` finds beside it.
mod sync {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}

use loom::cell::Cell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::count::{Count, Pin};

/// A segment with one value, as its shard has it behind its lock.
struct World {
    shard: Mutex<Shard>,
    /// What stands in the segment. loom fails when one writes it while another reads, or in no order.
    value: Cell<u32>,
}

struct Shard {
    pins: Count,
    is_free: bool,
}

impl World {
    fn new() -> Self {
        let shard = Shard { pins: Count::default(), is_free: false };
        Self { shard: Mutex::new(shard), value: Cell::new(1) }
    }

    /// As a get does: finds under the lock, reads without it.
    fn read(&self) -> Option<u32> {
        let pin: Pin = {
            let shard = self.shard.lock().expect("nobody panics while holding it");
            if shard.is_free {
                return None;
            }
            shard.pins.pin()
        };
        let read = self.value.get();
        drop(pin);
        Some(read)
    }

    /// As a write does that needs the segment: frees it, and writes it anew if nobody has it pinned.
    fn write(&self) -> bool {
        let mut shard = self.shard.lock().expect("nobody panics while holding it");
        shard.is_free = true;
        let may_write = !shard.pins.is_pinned();
        if may_write {
            self.value.set(2);
        }
        may_write
    }
}

#[test]
fn what_is_pinned_is_read_as_it_was() {
    loom::model(|| {
        let world = Arc::new(World::new());
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.read())
            })
            .collect();
        world.write();
        for reader in readers {
            let read = reader.join().expect("a reader ends");
            assert!(matches!(read, None | Some(1)), "{read:?}");
        }
        assert!(world.write(), "in the end nobody has it pinned");
    });
}
