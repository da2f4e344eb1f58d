//! A copy and its version in every interleaving of who changes an item and who reads it.
//!
//! The file under test is compiled once more here, with loom's atomics in place of the real ones.

#[path = "../src/shards/versions.rs"]
#[expect(unreachable_pub, reason = "public in the crate that it belongs to")]
mod versions;

/// What `versions.rs` finds beside it.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::sync::atomic::AtomicU32;
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::sync::Ordering;
use crate::versions::{Version, Versions};

/// One item in one group, and what its writer was answered.
struct World {
    versions: Versions,
    item: Mutex<u32>,
    answered: AtomicU32,
}

impl World {
    fn copy(&self) -> (u32, Version) {
        let item = self.item.lock().expect("nobody panics while holding it");
        (*item, self.versions.of(0))
    }

    /// Writes, as a worker does that holds the lock.
    fn write(&self, value: u32) {
        let mut item = self.item.lock().expect("nobody panics while holding it");
        *item = value;
        self.versions.advance(0);
        drop(item);
        self.answered.store(value, Ordering::Release);
    }

    /// What a worker answers that has `copy`, and finds the lock taken if it is of no use.
    fn read(&self, copy: (u32, Version)) -> u32 {
        let (value, version) = copy;
        if self.versions.of(0) == version { value } else { self.copy().0 }
    }
}

/// While `write` writes 1 and 2, a reader that copied at any moment reads twice: never less than was answered,
/// and never less than it read before.
fn readers_see_what_was_answered(write: fn(&World, u32)) {
    loom::model(move || {
        let world = Arc::new(World {
            versions: Versions::new(1),
            item: Mutex::new(0),
            answered: AtomicU32::new(0),
        });
        let writers = Arc::clone(&world);
        let writer = thread::spawn(move || {
            write(&writers, 1);
            write(&writers, 2);
        });
        let copy = world.copy();
        let floor = world.answered.load(Ordering::Acquire);
        let first = world.read(copy);
        assert!(first >= floor, "read less than was answered");
        let floor = world.answered.load(Ordering::Acquire).max(first);
        assert!(world.read(copy) >= floor, "read less than was answered");
        writer.join().expect("it does not panic");
    });
}

#[test]
fn a_copy_is_not_read_after_a_change_was_answered() {
    readers_see_what_was_answered(World::write);
}

#[test]
#[should_panic(expected = "read less than was answered")]
fn a_change_that_is_answered_before_its_version_advances_is_found() {
    readers_see_what_was_answered(|world, value| {
        let mut item = world.item.lock().expect("nobody panics while holding it");
        *item = value;
        world.answered.store(value, Ordering::Release);
        world.versions.advance(0);
        drop(item);
    });
}
