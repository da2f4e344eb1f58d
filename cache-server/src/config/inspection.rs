//! What clients may look into: dumps of keys, the stream of what happens, and what is counted for them.

/// What clients may look into, and with what memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Whether keys are listed: `lru_crawler metadump` and `mgdump`, `stats cachedump`, `stats detail`
    /// (`-X` forbids it).
    pub dumps: bool,
    /// Whether `watch` is obeyed (`-W` forbids it).
    pub watches: bool,
    /// Lines kept for one watcher that is slower than they come, in bytes (`-o watcher_logbuf_size`).
    pub watcher_buffer_bytes: usize,
    /// Lines that a worker keeps until it hands them to watchers, in bytes (`-o worker_logbuf_size`).
    pub worker_buffer_bytes: usize,
    /// What ends the prefix of a key (`-D`).
    pub prefix_delimiter: u8,
    /// Whether requests are counted by their key's prefix from the start (`-D`); `stats detail` changes it.
    pub counts_prefixes: bool,
    /// Whether `stats sizes` answers (`-o track_sizes`).
    pub tracks_sizes: bool,
    /// Whether clients may set the server's clock with `debugtime`: for tests alone
    /// ([`TEST_CLOCK_VARIABLE`], [`DEBUG_BUILD`]).
    pub test_clock: bool,
}

/// The environment variable that, set to 1, lets clients set the server's clock. Not a flag, so that a suite of
/// tests which starts servers with memcached's flags can use it, and no flag copied from one sets it.
pub const TEST_CLOCK_VARIABLE: &str = "CACHE_TEST_CLOCK";

/// What memcached's build for tests is called. A program of that name has its clock set by clients as well.
pub const DEBUG_BUILD: &str = "memcached-debug";

impl Default for Inspection {
    /// As memcached.
    fn default() -> Self {
        Self {
            dumps: true,
            watches: true,
            watcher_buffer_bytes: 256 << 10,
            worker_buffer_bytes: 64 << 10,
            prefix_delimiter: b':',
            counts_prefixes: false,
            tracks_sizes: false,
            test_clock: false,
        }
    }
}
