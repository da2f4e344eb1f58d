//! What memcached can be told and nothing here turns on, kept so that what was set is what is told.
//!
//! Scripts set these and read them back, dashboards show them, and some lines of `stats` are there only if
//! a thread is that they switch. Here the memory has no classes, no page moves between any, and the LRU has no
//! segments; what expires is removed without a crawler. So they are told and nothing more.

/// memcached's settings of its internals, at its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Knobs {
    /// How much larger each class's chunks are than those of the one before (`-f`).
    pub growth_factor: f64,
    /// The smallest chunk, in bytes (`-n`).
    pub chunk_bytes: u32,
    /// The mode of a UNIX socket (`-a`), which is told where there is none as well.
    pub socket_mode: u32,
    /// Whether items are said to have a cas (`-C` forbids it). Here they have one all the same.
    pub cas: bool,
    /// Threads that clients are given to by the network card's queue (`-N`); 0 is as they come.
    pub napi_ids: u32,
    /// The power of two that the hash table begins with (`-o hashpower`); 0 is its default.
    pub hash_power: u32,
    /// What the hash table hashes with (`-o hash_algorithm`).
    pub hash_algorithm: &'static str,
    /// The largest chunk, in bytes (`-o slab_chunk_max`).
    pub slab_chunk_bytes_max: u32,
    /// Whether pages may move between classes (`-o slab_reassign`).
    pub slab_reassign: bool,
    /// Whether they do by themselves: 0, 1 or 2 (`slabs automove`).
    pub slab_automove: u32,
    /// How much younger a class must be to be given a page (`slabs automove ratio`).
    pub slab_automove_ratio: f64,
    /// How much is kept free (`slabs automove freeratio`).
    pub slab_automove_free_ratio: f64,
    /// Over how many seconds ages are averaged (`slabs automove window`).
    pub slab_automove_window_s: u32,
    /// Whether there is a crawler (`lru_crawler enable`). Forbids `crawl`, `metadump` and `mgdump` if not.
    pub lru_crawler: bool,
    /// How long it sleeps between items, in microseconds (`lru_crawler sleep`).
    pub lru_crawler_sleep_us: u32,
    /// Items it looks at in a run (`lru_crawler tocrawl`); 0 is all.
    pub lru_crawler_tocrawl: u32,
    /// Seconds after which an item in use is freed all the same (`-o tail_repair_time`).
    pub tail_repair_s: u32,
    /// Whether there is a thread that moves items between segments (`-o lru_maintainer`).
    pub lru_maintainer: bool,
    /// Whether the LRU has segments (`lru mode`).
    pub lru_segmented: bool,
    /// The share of the hot segment, in per cent (`lru tune`).
    pub hot_lru_percent: u32,
    /// The share of the warm segment, in per cent (`lru tune`).
    pub warm_lru_percent: u32,
    /// The hot segment's age in relation to the cold one's (`lru tune`).
    pub hot_max_factor: f64,
    /// The warm segment's (`lru tune`).
    pub warm_max_factor: f64,
    /// Whether short-lived items have a segment of their own (`lru temp_ttl`).
    pub temp_lru: bool,
    /// What a short life is, in seconds (`lru temp_ttl`).
    pub temporary_ttl_s: u32,
    /// Memory for read buffers (`-o read_buf_mem_limit`), in bytes; 0 is no limit.
    pub read_buffer_bytes_max: u64,
    /// What there would be of storage on flash.
    pub flash: FlashKnobs,
}

/// memcached's settings of its storage on flash (`-o ext_*`), which it tells without one, too.
#[derive(Clone, Debug, PartialEq)]
pub struct FlashKnobs {
    /// The smallest item that goes there, in bytes (`ext_item_size`).
    pub item_bytes: u32,
    /// Seconds that an item must not have been used for (`ext_item_age`).
    pub item_age_s: u32,
    /// Items that live for less stay together (`ext_low_ttl`), in seconds.
    pub low_ttl_s: u32,
    /// Of so many reads of an item there one brings it back to memory (`ext_recache_rate`).
    pub recache_rate: u32,
    /// What is written at once, in bytes (`ext_wbuf_size`, there in MiB).
    pub write_buffer_bytes: u32,
    /// Pages free below which others are compacted (`ext_compact_under`).
    pub compact_under: u32,
    /// And below which they are dropped (`ext_drop_under`).
    pub drop_under: u32,
    /// How long its threads sleep at most, in microseconds (`ext_max_sleep`).
    pub sleep_us_max: u32,
    /// How empty a page must be to be compacted (`ext_max_frag`).
    pub fragmentation_max: f64,
    /// Whether what was not read is not compacted (`ext_drop_unread`).
    pub drops_unread: bool,
}

impl Default for FlashKnobs {
    fn default() -> Self {
        Self {
            item_bytes: 512,
            item_age_s: u32::MAX,
            low_ttl_s: 0,
            recache_rate: 2000,
            write_buffer_bytes: 4 << 20,
            compact_under: 0,
            drop_under: 0,
            sleep_us_max: 1_000_000,
            fragmentation_max: 0.8,
            drops_unread: false,
        }
    }
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            growth_factor: 1.25,
            chunk_bytes: 48,
            socket_mode: 0o700,
            cas: true,
            napi_ids: 0,
            hash_power: 0,
            hash_algorithm: "xxh3",
            slab_chunk_bytes_max: 524_288,
            slab_reassign: true,
            slab_automove: 1,
            slab_automove_ratio: 0.8,
            slab_automove_free_ratio: 0.01,
            slab_automove_window_s: 10,
            lru_crawler: true,
            lru_crawler_sleep_us: 100,
            lru_crawler_tocrawl: 0,
            tail_repair_s: 0,
            lru_maintainer: true,
            lru_segmented: true,
            hot_lru_percent: 20,
            warm_lru_percent: 40,
            hot_max_factor: 0.2,
            warm_max_factor: 2.0,
            temp_lru: false,
            temporary_ttl_s: 61,
            read_buffer_bytes_max: 0,
            flash: FlashKnobs::default(),
        }
    }
}
