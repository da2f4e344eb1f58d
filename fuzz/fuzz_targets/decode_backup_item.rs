//! Any bytes as items of a backup: they are items or an error, and what are items survive being
//! written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::backup::Items;

fuzz_target!(|bytes: &[u8]| {
    let Ok(items) = Items::new(bytes) else { return };
    assert_eq!(items.as_bytes(), bytes);
    let (count, mut written) = (items.len(), Vec::new());
    let read = items.inspect(|item| item.encode(&mut written)).count();
    assert_eq!(read, count, "as many as were announced");
    assert_eq!(written, bytes, "an item is written in one way");
});
