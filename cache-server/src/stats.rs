//! Counters of all shards into `stats`.
//!
//! The names are memcached's, so that what reads them today goes on reading them. The memory has no
//! size classes; what memcached tells per class is told of one class, number 1. What has no meaning
//! here (hash expansion, slab moves, LRU segments) is told as it is in a memcached that is at rest.
//! A node of a cluster tells of that under names of its own, which all begin with `cluster_`.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use protocol::ProtocolError;
use protocol::text::response::encode_stat;
use protocol::token::Tokens;
use store::{Counters, Segments, Timestamp};

use crate::admin::model::{Mrc, MrcPoint, ShardCounts};
use crate::backup::Backups;
use crate::clock::Now;
use crate::commands::{CommandCounters, CommandTotals};
use crate::config::{Config, PROTOCOL_VERSION};
use crate::live_curve::LiveCurve;
use crate::net::registry::ConnectionState;
use crate::net::{ListeningAddress, Network};
use crate::replication::Replication;
use crate::restoring::RestoreReport;
use crate::scheduled_backup::BackupRecord;
use crate::shards::Shards;

/// Sizes are told in steps of so many bytes, as memcached does.
const SIZE_STEP_BYTES: u64 = 32;
/// Entries visited under one lock.
const VISIT_SLICE_ENTRIES: u32 = 4096;

/// Everything `stats` reads.
pub struct Statistics {
    shards: Arc<Shards>,
    network: Arc<Network>,
    commands: Box<[Arc<CachePadded<CommandCounters>>]>,
    backups: Arc<Backups>,
    backup_record: Arc<BackupRecord>,
    live_curve: Arc<LiveCurve>,
    /// On a node of a cluster.
    replication: Option<Arc<Replication>>,
    config: Config,
    started: Now,
}

/// The shards added up.
#[derive(Default)]
struct Totals {
    counters: Counters,
    items: u64,
    used_bytes: u64,
    index_bytes: u64,
    segments: Segments,
}

impl Statistics {
    /// Statistics of a server that started at `started`.
    #[expect(clippy::too_many_arguments, reason = "one for each part that counts")]
    pub fn new(
        shards: Arc<Shards>,
        network: Arc<Network>,
        commands: Box<[Arc<CachePadded<CommandCounters>>]>,
        backups: Arc<Backups>,
        backup_record: Arc<BackupRecord>,
        live_curve: Arc<LiveCurve>,
        config: Config,
        started: Now,
    ) -> Self {
        Self {
            shards,
            network,
            commands,
            backups,
            backup_record,
            live_curve,
            replication: None,
            config,
            started,
        }
    }

    /// Statistics of a node of a cluster.
    pub(crate) fn of_node(self, replication: Arc<Replication>) -> Self {
        Self { replication: Some(replication), ..self }
    }

    /// Answers `stats`, with the words after it.
    pub fn answer(&self, mut arguments: Tokens<'_>, now: Now, out: &mut Vec<u8>) {
        let topic = arguments.next();
        let mut stats = Lines { out };
        match topic {
            None => self.general(now, &mut stats),
            Some(b"settings") => self.settings(&mut stats),
            Some(b"items") => self.items(now, &mut stats),
            Some(b"slabs") => self.slabs(&mut stats),
            Some(b"conns") => self.connections(now, &mut stats),
            Some(b"sizes") => self.sizes(now, &mut stats),
            Some(b"mrc") => self.curve(now, &mut stats),
            Some(b"cluster") if self.replication.is_some() => self.cluster(&mut stats),
            Some(b"reset") => {
                self.reset();
                out.extend_from_slice(b"RESET\r\n");
                return;
            }
            Some(_) => {
                out.extend_from_slice(ProtocolError::UnknownCommand.line().as_bytes());
                return;
            }
        }
        out.extend_from_slice(b"END\r\n");
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.shards.each_that_is_back() {
            let segments = shard.segments();
            totals.counters += shard.counters();
            totals.items += shard.items();
            totals.used_bytes += shard.budget().used_bytes();
            totals.index_bytes += shard.index_bytes();
            totals.segments.resident += segments.resident;
            totals.segments.free += segments.free;
            totals.segments.bytes = segments.bytes;
        }
        totals
    }

    fn commands(&self) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for worker in &self.commands {
            totals.add(worker);
        }
        totals
    }

    fn general(&self, now: Now, stats: &mut Lines<'_>) {
        // Before the shards: once it says that all are back, none is left out of the totals.
        let restore = self.shards.progress().report();
        let network = self.network.counters();
        let commands = self.commands();
        let totals = self.totals();
        let counters = totals.counters;

        stats.add("pid", std::process::id());
        stats.add("uptime", now.unix_seconds().saturating_sub(self.started.unix_seconds()));
        stats.add("time", now.unix_seconds());
        stats.add("version", PROTOCOL_VERSION);
        stats.add("pointer_size", usize::BITS);
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = |us: i64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
            stats.add("rusage_user", seconds(usage.user_time().num_microseconds()));
            stats.add("rusage_system", seconds(usage.system_time().num_microseconds()));
        }
        stats.add("max_connections", self.network.connections_max());
        stats.add("curr_connections", self.network.connections());
        stats.add("total_connections", network.connections_accepted);
        stats.add("rejected_connections", network.connections_rejected);
        stats.add("connection_structures", self.network.connections());
        stats.add("response_obj_oom", 0);
        stats.add("response_obj_count", 0);
        stats.add("response_obj_bytes", 0);
        stats.add("read_buf_count", 0);
        stats.add("read_buf_bytes", self.network.buffers().bytes());
        stats.add("read_buf_bytes_free", 0);
        stats.add("read_buf_oom", network.values_refused_for_memory);
        stats.add("reserved_fds", 0);
        stats.add("cmd_get", commands.cmd_get);
        stats.add("cmd_set", commands.cmd_set);
        stats.add("cmd_flush", commands.cmd_flush);
        stats.add("cmd_touch", commands.cmd_touch);
        stats.add("cmd_meta", commands.cmd_meta);
        stats.add("get_hits", commands.get_hits);
        stats.add("get_misses", commands.get_misses);
        stats.add("get_expired", counters.read_expired);
        stats.add("get_flushed", 0);
        stats.add("delete_misses", commands.delete_misses);
        stats.add("delete_hits", commands.delete_hits);
        stats.add("incr_misses", commands.incr_misses);
        stats.add("incr_hits", commands.incr_hits);
        stats.add("decr_misses", commands.decr_misses);
        stats.add("decr_hits", commands.decr_hits);
        stats.add("cas_misses", commands.cas_misses);
        stats.add("cas_hits", commands.cas_hits);
        stats.add("cas_badval", commands.cas_badval);
        stats.add("touch_hits", commands.touch_hits);
        stats.add("touch_misses", commands.touch_misses);
        stats.add("store_too_large", commands.store_too_large);
        stats.add("store_no_memory", commands.store_no_memory);
        stats.add("auth_cmds", 0);
        stats.add("auth_errors", 0);
        stats.add("bytes_read", network.bytes_read);
        stats.add("bytes_written", network.bytes_written);
        stats.add("limit_maxbytes", self.shards.memory_bytes());
        stats.add("accepting_conns", 1);
        stats.add("listen_disabled_num", 0);
        stats.add("time_in_listen_disabled_us", 0);
        stats.add("threads", self.config.threads);
        stats.add("conn_yields", network.yields);
        stats.add("hash_power_level", totals.index_bytes.max(8).ilog2() - 3);
        stats.add("hash_bytes", totals.index_bytes);
        stats.add("hash_is_expanding", 0);
        stats.add("slab_reassign_rescues", 0);
        stats.add("slab_reassign_chunk_rescues", 0);
        stats.add("slab_reassign_evictions_nomem", 0);
        stats.add("slab_reassign_inline_reclaim", 0);
        stats.add("slab_reassign_busy_items", 0);
        stats.add("slab_reassign_busy_deletes", 0);
        stats.add("slab_reassign_running", 0);
        stats.add("slabs_moved", 0);
        stats.add("lru_crawler_running", 0);
        stats.add("lru_crawler_starts", 0);
        stats.add("lru_maintainer_juggles", 0);
        stats.add("malloc_fails", counters.out_of_memory);
        stats.add("log_worker_dropped", 0);
        stats.add("log_worker_written", 0);
        stats.add("log_watcher_skipped", 0);
        stats.add("log_watcher_sent", 0);
        stats.add("log_watchers", 0);
        stats.add("unexpected_napi_ids", 0);
        stats.add("round_robin_fallback", 0);
        stats.add("bytes", totals.used_bytes);
        stats.add("curr_items", totals.items);
        stats.add("total_items", counters.items_stored);
        stats.add("slab_global_page_pool", totals.segments.free);
        stats.add("expired_unfetched", counters.expired_unfetched);
        stats.add("evicted_unfetched", counters.evicted_unfetched);
        stats.add("evicted_active", counters.evicted_active);
        stats.add("evictions", counters.evicted);
        stats.add("reclaimed", counters.expired);
        stats.add("crawler_reclaimed", counters.swept_expired);
        stats.add("crawler_items_checked", counters.swept);
        stats.add("lrutail_reflocked", 0);
        stats.add("moves_to_cold", 0);
        stats.add("moves_to_warm", 0);
        stats.add("moves_within_lru", 0);
        stats.add("direct_reclaims", 0);
        stats.add("lru_bumps_dropped", 0);
        self.restore(restore, stats);
        if self.config.backup.is_some() {
            self.backup(stats);
        }
        if let Some(replication) = &self.replication {
            standing(replication, stats);
        }
    }

    /// What a node of a cluster did for others, and others for it.
    fn cluster(&self, stats: &mut Lines<'_>) {
        let Some(replication) = &self.replication else { return };
        standing(replication, stats);
        let map = replication.map();
        let counters = &replication.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.add("cluster_pool", &map.pool.name);
        stats.add("cluster_copies", map.pool.copies);
        stats.add("cluster_shards", replication.shard_count());
        stats.add("cluster_forwarded", count(&counters.forwarded));
        stats.add("cluster_served_for_others", count(&counters.served_for_others));
        stats.add("cluster_parked", count(&counters.parked));
        stats.add("cluster_parked_too_long", count(&counters.parked_too_long));
        stats.add("cluster_unknown_outcomes", count(&counters.unknown_outcomes));
        stats.add("cluster_frames_refused", count(&counters.frames_refused));
        stats.add("cluster_joins_completed", count(&counters.joins_completed));
        stats.add("cluster_bytes_sent_to_joiners", count(&counters.bytes_sent_to_joiners));
        let lanes = replication.lanes();
        let backlog_bytes =
            lanes.nodes().into_iter().map(|node| lanes.backlog_bytes(node)).sum::<usize>();
        stats.add("cluster_lane_bytes", lanes.sent_bytes());
        stats.add("cluster_lane_backlog_bytes", backlog_bytes);
    }

    /// The hit ratio at other sizes. Not memcached's: `-m` in bytes stands where that has a class.
    fn curve(&self, now: Now, stats: &mut Lines<'_>) {
        let told = self.live_curve.tell(now);
        stats.add("mrc_enabled", u32::from(told.is_some()));
        let Some(told) = told else { return };
        let Mrc { memory_bytes, policy, points, .. } = told;
        stats.add("mrc_memory_bytes", memory_bytes);
        stats.add("mrc_policy", policy);
        stats.add("mrc_requests", told.requests);
        stats.add("mrc_hit_ratio", format_args!("{:.6}", told.hit_ratio));
        stats.add("mrc_sampled_requests", told.sampled_requests);
        stats.add("mrc_sampled_objects", told.sampled_objects);
        stats.add("mrc_sampled_share", format_args!("{:.9}", told.sampled_share));
        stats.add("mrc_lost", told.lost);
        stats.add("mrc_bytes", told.bytes);
        stats.add("mrc_seconds", told.seconds);
        stats.add("mrc_half_life_seconds", told.half_life_seconds);
        for MrcPoint { memory_bytes, items_bytes, hit_ratio, low, high } in points {
            stats.add(format_args!("mrc:{memory_bytes}:items_bytes"), items_bytes);
            for (name, value) in [("hit_ratio", hit_ratio), ("low", low), ("high", high)] {
                stats.add(format_args!("mrc:{memory_bytes}:{name}"), format_args!("{value:.6}"));
            }
        }
    }

    /// What became of the memory file's items at the start.
    fn restore(&self, report: RestoreReport, stats: &mut Lines<'_>) {
        stats.add("restoring", u32::from(report.is_restoring));
        stats.add("restore_kind", report.kind);
        let Some(reason) = report.reason else { return };
        stats.add("restore_reason", reason);
        stats.add("restore_ms", report.duration_ms);
        stats.add("restored_items", report.restored.items);
        stats.add("restore_expired", report.restored.expired);
        stats.add("restore_dropped_records", report.restored.dropped_records);
        stats.add("restore_damaged_bytes", report.restored.damaged_bytes);
        stats.add("restore_clock_back_ms", report.clock_back_ms);
        stats.add("memory_file_failed", u32::from(report.is_abandoned));
    }

    /// What became of the scheduled backups.
    fn backup(&self, stats: &mut Lines<'_>) {
        let report = self.backup_record.report();
        stats.add("backup_running", u32::from(report.is_running));
        stats.add("backup_written", report.written);
        stats.add("backup_failed", report.failed);
        let Some(last) = report.last else {
            return stats.add("backup_last_result", "none");
        };
        let result = if last.totals.is_some() { "ok" } else { "failed" };
        let totals = last.totals.unwrap_or_default();
        stats.add("backup_last_result", result);
        stats.add("backup_last_time", last.ended_unix_s);
        stats.add("backup_last_ms", last.duration_ms);
        stats.add("backup_last_items", totals.items);
        stats.add("backup_last_bytes", totals.bytes);
    }

    fn settings(&self, stats: &mut Lines<'_>) {
        let config = &self.config;
        let port = self.network.listening().iter().find_map(|address| match address {
            ListeningAddress::Tcp(address) => Some(address.port()),
            ListeningAddress::Unix(_) => None,
        });
        let hosts = config.listen.iter().map(|listen| listen.host.as_deref().unwrap_or("*"));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let socket = config.unix_socket.as_ref();

        stats.add("maxbytes", self.shards.memory_bytes());
        stats.add("maxconns", config.connections_max);
        stats.add("tcpport", port.unwrap_or(0));
        stats.add("udpport", 0);
        stats.add("inter", hosts);
        stats.add("verbosity", config.verbosity);
        stats.add("oldest", self.oldest_secs());
        stats.add("evictions", if config.evicts { "on" } else { "off" });
        stats.add(
            "domain_socket",
            socket.map_or_else(|| "NULL".into(), |at| at.path.to_string_lossy()),
        );
        stats.add("umask", format_args!("{:o}", socket.map_or(0o700, |at| at.mode)));
        stats.add("num_threads", config.threads);
        stats.add("detail_enabled", "no");
        stats.add("reqs_per_event", config.requests_per_turn);
        stats.add("cas_enabled", "yes");
        stats.add("tcp_backlog", config.backlog);
        stats.add("binding_protocol", "ascii");
        stats.add("auth_enabled_sasl", "no");
        stats.add("auth_enabled_ascii", "no");
        stats.add("item_size_max", config.item_bytes_max);
        stats.add("maxconns_fast", "yes");
        stats.add("flush_enabled", "yes");
        stats.add("dump_enabled", "no");
        stats.add("hash_algorithm", "xxh3");
        stats.add("idle_timeout", 0);
        stats.add("ssl_enabled", "no");
        let memory_file = config.memory_file.as_ref();
        stats.add(
            "memory_file",
            memory_file.map_or_else(|| "(null)".into(), |path| path.to_string_lossy()),
        );
        let backup = config.backup.as_ref();
        stats.add(
            "backup_file",
            backup.map_or_else(|| "(null)".into(), |backup| backup.file.to_string_lossy()),
        );
        stats.add("backup_interval", backup.map_or(0, |backup| backup.interval.as_secs()));
        stats.add("cache_id", self.backups.cache_id());
        stats.add("server_version", env!("CARGO_PKG_VERSION"));
        stats.add("eviction_policy", config.eviction);
        stats.add("shards", self.shards.geometry().shard_count);
        stats.add("shard_bytes", self.shards.geometry().shard_bytes);
        stats.add("segment_bytes", self.shards.geometry().segment_bytes);
    }

    fn items(&self, now: Now, stats: &mut Lines<'_>) {
        let totals = self.totals();
        if totals.items == 0 && totals.counters.items_stored == 0 {
            return;
        }
        let counters = totals.counters;
        let age = self.oldest_of_a_sample(now);
        stats.add("items:1:number", totals.items);
        stats.add("items:1:number_hot", 0);
        stats.add("items:1:number_warm", 0);
        stats.add("items:1:number_cold", totals.items);
        stats.add("items:1:age_hot", 0);
        stats.add("items:1:age_warm", 0);
        stats.add("items:1:age", age);
        stats.add("items:1:mem_requested", totals.used_bytes);
        stats.add("items:1:evicted", counters.evicted);
        stats.add("items:1:evicted_nonzero", counters.evicted_with_deadline);
        stats.add("items:1:evicted_time", counters.evicted_idle_secs);
        stats.add("items:1:outofmemory", counters.out_of_memory);
        stats.add("items:1:tailrepairs", 0);
        stats.add("items:1:reclaimed", counters.expired);
        stats.add("items:1:expired_unfetched", counters.expired_unfetched);
        stats.add("items:1:evicted_unfetched", counters.evicted_unfetched);
        stats.add("items:1:evicted_active", counters.evicted_active);
        stats.add("items:1:crawler_reclaimed", counters.swept_expired);
        stats.add("items:1:crawler_items_checked", counters.swept);
        stats.add("items:1:lrutail_reflocked", 0);
        stats.add("items:1:moves_to_cold", 0);
        stats.add("items:1:moves_to_warm", 0);
        stats.add("items:1:moves_within_lru", 0);
        stats.add("items:1:direct_reclaims", 0);
        stats.add("items:1:hits_to_hot", 0);
        stats.add("items:1:hits_to_warm", 0);
        stats.add("items:1:hits_to_cold", self.commands().get_hits);
        stats.add("items:1:hits_to_temp", 0);
    }

    /// A page of the one class is a segment of the log, and a chunk is the whole page.
    fn slabs(&self, stats: &mut Lines<'_>) {
        let totals = self.totals();
        let commands = self.commands();
        let Segments { resident, free, bytes } = totals.segments;
        if resident > 0 {
            stats.add("1:chunk_size", bytes);
            stats.add("1:chunks_per_page", 1);
            stats.add("1:total_pages", resident);
            stats.add("1:total_chunks", resident);
            stats.add("1:used_chunks", resident - free);
            stats.add("1:free_chunks", free);
            stats.add("1:free_chunks_end", 0);
            stats.add("1:get_hits", commands.get_hits);
            stats.add("1:cmd_set", commands.cmd_set);
            stats.add("1:delete_hits", commands.delete_hits);
            stats.add("1:incr_hits", commands.incr_hits);
            stats.add("1:decr_hits", commands.decr_hits);
            stats.add("1:cas_hits", commands.cas_hits);
            stats.add("1:cas_badval", commands.cas_badval);
            stats.add("1:touch_hits", commands.touch_hits);
        }
        stats.add("active_slabs", u32::from(resident > 0));
        stats.add("total_malloced", u64::from(resident) * u64::from(bytes));
    }

    fn connections(&self, now: Now, stats: &mut Lines<'_>) {
        for (index, address) in self.network.listening().iter().enumerate() {
            let kind = if matches!(address, ListeningAddress::Unix(_)) { "unix" } else { "tcp" };
            stats.add(format_args!("listener{index}:addr"), format_args!("{kind}:{address}"));
            stats.add(format_args!("listener{index}:state"), "conn_listening");
        }
        self.network.for_each_connection(|connection| {
            let fd = connection.fd;
            let state = match connection.state() {
                ConnectionState::Waiting => "conn_waiting",
                ConnectionState::Serving => "conn_parse_cmd",
                ConnectionState::Sending => "conn_mwrite",
            };
            stats.add(format_args!("{fd}:addr"), &connection.peer);
            stats.add(format_args!("{fd}:listen_addr"), &connection.local);
            stats.add(format_args!("{fd}:state"), state);
            stats.add(format_args!("{fd}:secs_since_last_cmd"), connection.idle_seconds(now));
        });
    }

    /// How many items cost how much: every item is visited, a slice under each lock.
    fn sizes(&self, now: Now, stats: &mut Lines<'_>) {
        let mut counts = std::collections::BTreeMap::new();
        self.visit(now, |footprint_bytes, _| {
            *counts.entry(footprint_bytes.next_multiple_of(SIZE_STEP_BYTES)).or_insert(0u64) += 1;
        });
        stats.add("sizes_status", "enabled");
        for (bytes, count) in counts {
            stats.add(bytes, count);
        }
    }

    /// The longest time since the last use among the first entries of every shard: whoever polls
    /// `stats items` must not make the server walk through all of its memory.
    fn oldest_of_a_sample(&self, now: Now) -> u32 {
        let now = Timestamp(now.unix_ms);
        let mut oldest = 0;
        for shard in self.shards.each_that_is_back() {
            shard.visit(0, VISIT_SLICE_ENTRIES, now, |_, idle_secs| oldest = oldest.max(idle_secs));
        }
        oldest
    }

    /// Idle time of the item evicted last, where any was.
    fn oldest_secs(&self) -> u64 {
        self.totals().counters.evicted_idle_secs
    }

    fn visit(&self, now: Now, mut visit: impl FnMut(u64, u32)) {
        let now = Timestamp(now.unix_ms);
        for index in 0..self.shards.geometry().shard_count {
            let mut from = 0;
            // The shard is locked anew for each slice.
            loop {
                let Some(shard) = self.shards.lock_nth_if_back(index) else { break };
                if from >= shard.entries_high() {
                    break;
                }
                shard.visit(from, from + VISIT_SLICE_ENTRIES, now, &mut visit);
                from += VISIT_SLICE_ENTRIES;
            }
        }
    }

    fn reset(&self) {
        self.network.reset_counters();
        for worker in &self.commands {
            worker.reset();
        }
        for mut shard in self.shards.each() {
            shard.reset_counters();
        }
        self.live_curve.reset();
    }
}

/// How a node stands in its cluster. The shards are those of the map that it has applied: those below their
/// copies, and those without a primary, are counted over the whole cluster, so that one node tells of all.
fn standing(replication: &Replication, stats: &mut Lines<'_>) {
    let map = replication.map();
    let me = replication.me();
    let in_sync = map.places().filter(|(_, place)| place.config.in_sync.contains(&me));
    let counts = ShardCounts::of(&map, |_, _| false);
    stats.add("cluster_id", map.cluster);
    stats.add("cluster_node", me.node);
    stats.add("cluster_incarnation", me.incarnation.0);
    stats.add("cluster_map_revision", map.revision);
    stats.add("cluster_shards_led", map.shards_led_by(me.node).count());
    stats.add("cluster_shards_in_sync", in_sync.count());
    stats.add("cluster_shards_below_copies", counts.under_replicated);
    stats.add("cluster_shards_without_primary", counts.without_primary);
}

/// `STAT` lines being written.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
}

impl Lines<'_> {
    fn add(&mut self, name: impl std::fmt::Display, value: impl std::fmt::Display) {
        let mut line = Vec::new();
        // Writing to a vector does not fail.
        let _ = write!(line, "{name}");
        let name_bytes = line.len();
        let _ = write!(line, "{value}");
        let (name, value) = line.split_at(name_bytes);
        encode_stat(self.out, name, value);
    }
}
