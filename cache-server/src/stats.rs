//! Counters of all shards into `stats`.
//!
//! The names are memcached's, so that what reads them today goes on reading them. The memory has no
//! size classes; what memcached tells per class is told of one class, number 1. What has no meaning
//! here (hash expansion, slab moves, LRU segments) is told as it is in a memcached that is at rest.
//!
//! `stats`, `stats settings` and the others that memcached has hold its lines, in its order, and no more. What
//! is this server's own has words of its own: `stats server`, `restore`, `backup`, `mrc`, `cluster`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use protocol::text::response::encode_stat;
use protocol::token::Tokens;
use protocol::{Dialect, ProtocolError};
use store::{Counters, Segments, SizeCounts, Timestamp};

use crate::admin::model::{Mrc, MrcPoint, ShardCounts};
use crate::administration::{Administration, is_short_for};
use crate::backup::Backups;
use crate::clock::Now;
use crate::commands::{CommandCounters, CommandTotals};
use crate::config::{Authentication, Config, PROTOCOL_VERSION, TlsConfig};
use crate::dump;
use crate::live_curve::LiveCurve;
use crate::net::registry::ConnectionState;
use crate::net::{ListeningAddress, Network};
use crate::observe::Observation;
use crate::observe::line::CLASS;
use crate::replication::Replication;
use crate::scheduled_backup::BackupRecord;
use crate::shards::Shards;
use crate::tls::TlsError;

/// Classes that memcached can have: numbers below this are those of one.
const CLASSES: u32 = 64;

/// Entries of a shard that are looked at under its lock, for what needs only a sample.
const SAMPLE_ENTRIES: u32 = 4096;

/// Everything `stats` reads.
pub struct Statistics {
    /// The items.
    pub(crate) shards: Arc<Shards>,
    /// Connections and their counters.
    pub(crate) network: Arc<Network>,
    /// What each worker carried out.
    pub(crate) commands: Box<[Arc<CachePadded<CommandCounters>>]>,
    /// What names the cache.
    pub(crate) backups: Arc<Backups>,
    /// What became of scheduled backups.
    pub(crate) backup_record: Arc<BackupRecord>,
    /// The hit ratio at other sizes.
    pub(crate) live_curve: Arc<LiveCurve>,
    /// Who looks on.
    pub(crate) observation: Arc<Observation>,
    /// What was administered.
    pub(crate) administration: Arc<Administration>,
    /// On a node of a cluster.
    pub(crate) replication: Option<Arc<Replication>>,
    /// What the server was asked to be.
    pub(crate) config: Config,
    /// When it started.
    pub(crate) started: Now,
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
    /// Answers `stats`, with the words after it. As in memcached the beginning of some of its own words is
    /// enough.
    pub fn answer(&self, mut arguments: Tokens<'_>, now: Now, out: &mut Vec<u8>) {
        let mut stats = Lines { out };
        let Some(topic) = arguments.next() else {
            self.general(now, &mut stats);
            return end(out);
        };
        let line = match topic {
            _ if is_short_for(topic, "reset") => {
                self.reset();
                "RESET\r\n"
            }
            _ if is_short_for(topic, "detail") => {
                return self.detail(arguments.next().unwrap_or(b"detail"), out);
            }
            _ if is_short_for(topic, "settings") => return self.told(out, Self::settings),
            _ if is_short_for(topic, "cachedump") => return self.cachedump(arguments, now, out),
            _ if is_short_for(topic, "conns") => {
                return self.told(out, |this, stats| this.connections(now, stats));
            }
            // It tells of memcached's storage on flash only where there is one.
            _ if is_short_for(topic, "extstore") => return end(out),
            b"items" => return self.told(out, |this, stats| this.items(now, stats)),
            b"slabs" => return self.told(out, Self::slabs),
            b"sizes" => return self.told(out, |this, stats| this.sizes(stats)),
            b"server" => return self.told(out, Self::server),
            b"restore" => return self.told(out, Self::restore),
            b"backup" => return self.told(out, Self::backup),
            b"mrc" => return self.told(out, |this, stats| this.curve(now, stats)),
            b"cluster" if self.replication.is_some() => return self.told(out, Self::cluster),
            _ => ProtocolError::UnknownCommand.line(),
        };
        out.extend_from_slice(line.as_bytes());
    }

    fn told(&self, out: &mut Vec<u8>, tell: impl FnOnce(&Self, &mut Lines<'_>)) {
        tell(self, &mut Lines { out });
        end(out);
    }

    /// Answers `stats detail`.
    fn detail(&self, word: &[u8], out: &mut Vec<u8>) {
        let line = if !self.administration.dumps_allowed() {
            "CLIENT_ERROR stats detail not allowed\r\n"
        } else if is_short_for(word, "on") {
            self.observation.set_counting_prefixes(true);
            "OK\r\n"
        } else if is_short_for(word, "off") {
            self.observation.set_counting_prefixes(false);
            "OK\r\n"
        } else if is_short_for(word, "dump") {
            return self.observation.dump_prefixes(out);
        } else {
            "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
        };
        out.extend_from_slice(line.as_bytes());
    }

    /// Answers `stats cachedump`, with its class and the number of items after it.
    fn cachedump(&self, mut arguments: Tokens<'_>, now: Now, out: &mut Vec<u8>) {
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse::<u32>().ok();
        let line = match (arguments.next(), arguments.next()) {
            _ if !self.administration.dumps_allowed() => {
                "CLIENT_ERROR stats cachedump not allowed\r\n"
            }
            (Some(class), Some(items_max)) => match (number(class), number(items_max)) {
                (Some(CLASS), Some(items_max)) => {
                    let now = Timestamp(now.unix_ms);
                    return dump::cachedump(&self.shards, items_max, now, out);
                }
                (Some(class), Some(_)) if class >= CLASSES => "CLIENT_ERROR Illegal slab id\r\n",
                (Some(_), Some(_)) => return end(out),
                _ => ProtocolError::BadCommandLine.line(),
            },
            _ => "CLIENT_ERROR bad command line\r\n",
        };
        out.extend_from_slice(line.as_bytes());
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
        let network = self.network.counters();
        let commands = self.commands();
        let totals = self.totals();
        let counters = totals.counters;
        let knobs = self.administration.knobs();
        let log = self.observation.log_counters();

        stats.add("pid", std::process::id());
        stats.add("uptime", now.unix_seconds().saturating_sub(self.started.unix_seconds()));
        stats.add("time", now.unix_seconds());
        stats.add("version", PROTOCOL_VERSION);
        stats.add("libevent", "none");
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
        stats.add("auth_cmds", commands.auth_cmds);
        stats.add("auth_errors", commands.auth_errors);
        if self.config.limits.idle_timeout.is_some() {
            stats.add("idle_kicks", network.idle_kicks);
        }
        stats.add("bytes_read", network.bytes_read);
        stats.add("bytes_written", network.bytes_written);
        stats.add("limit_maxbytes", self.shards.memory_bytes());
        let room = self.network.room();
        stats.add("accepting_conns", u32::from(room.is_accepting));
        stats.add("listen_disabled_num", room.times);
        stats.add("time_in_listen_disabled_us", room.total.as_micros());
        stats.add("threads", self.config.threads);
        stats.add("conn_yields", network.yields);
        stats.add("hash_power_level", totals.index_bytes.max(8).ilog2() - 3);
        stats.add("hash_bytes", totals.index_bytes);
        stats.add("hash_is_expanding", 0);
        if knobs.slab_reassign {
            stats.add("slab_reassign_rescues", 0);
            stats.add("slab_reassign_chunk_rescues", 0);
            stats.add("slab_reassign_inline_reclaim", 0);
            stats.add("slab_reassign_busy_items", 0);
            stats.add("slab_reassign_busy_deletes", 0);
            stats.add("slab_reassign_busy_nomem", 0);
            stats.add("slab_reassign_last_busy_status", "none");
            stats.add("slab_reassign_running", 0);
            stats.add("slabs_moved", 0);
        }
        if knobs.lru_crawler {
            stats.add("lru_crawler_running", u32::from(self.administration.is_crawling()));
            stats.add("lru_crawler_starts", self.administration.crawler_starts());
        }
        if knobs.lru_maintainer {
            stats.add("lru_maintainer_juggles", 0);
        }
        stats.add("malloc_fails", counters.out_of_memory);
        stats.add("log_worker_dropped", log.worker_dropped);
        stats.add("log_worker_written", log.worker_written);
        stats.add("log_watcher_skipped", log.watcher_skipped);
        stats.add("log_watcher_sent", log.watcher_sent);
        stats.add("log_watchers", log.watchers);
        if let Some(certificates) = self.network.certificates() {
            if certificates.config().resumes_sessions {
                stats.add("ssl_new_sessions", network.ssl_new_sessions);
            }
            stats.add("ssl_handshake_errors", network.ssl_handshake_errors);
            stats.add("ssl_proto_errors", network.ssl_proto_errors);
            let seconds = certificates.seconds_since_refresh(now);
            stats.add("time_since_server_cert_refresh", seconds);
        }
        stats.add("unexpected_napi_ids", 0);
        stats.add("round_robin_fallback", 0);
        stats.add("bytes", totals.used_bytes);
        stats.add("curr_items", totals.items);
        stats.add("total_items", counters.items_stored);
        stats.add("slab_global_page_pool", totals.segments.free);
        stats.add("expired_unfetched", counters.expired_unfetched);
        stats.add("evicted_unfetched", counters.evicted_unfetched);
        if knobs.lru_maintainer {
            stats.add("evicted_active", counters.evicted_active);
        }
        stats.add("evictions", counters.evicted);
        stats.add("reclaimed", counters.expired + counters.flushed);
        stats.add("crawler_reclaimed", counters.swept_expired);
        stats.add("crawler_items_checked", counters.swept);
        stats.add("lrutail_reflocked", 0);
        if knobs.lru_maintainer {
            stats.add("moves_to_cold", 0);
            stats.add("moves_to_warm", 0);
            stats.add("moves_within_lru", 0);
            stats.add("direct_reclaims", 0);
            stats.add("lru_bumps_dropped", 0);
        }
    }

    /// What this server is, and counts that memcached has no name for.
    fn server(&self, stats: &mut Lines<'_>) {
        let (config, network) = (&self.config, self.network.counters());
        let counters = self.totals().counters;
        let geometry = self.shards.geometry();
        let backup = config.backup.as_ref();
        stats.add("server_version", env!("CARGO_PKG_VERSION"));
        stats.add("cache_id", self.backups.cache_id());
        stats.add("eviction_policy", config.eviction);
        stats.add("shards", geometry.shard_count);
        stats.add("shard_bytes", geometry.shard_bytes);
        stats.add("segment_bytes", geometry.segment_bytes);
        stats.add(
            "backup_file",
            backup.map_or_else(|| "(null)".into(), |backup| backup.file.to_string_lossy()),
        );
        stats.add("backup_interval", backup.map_or(0, |backup| backup.interval.as_secs()));
        stats.add("io_driver", self.network.io_driver());
        stats.add("connections_dropped_slow", network.connections_dropped_slow);
        stats.add("connections_dropped_for_memory", network.connections_dropped_for_memory);
        stats.add("connections_crashed", network.connections_crashed);
        stats.add("accept_failures", network.accept_failures);
        stats.add("datagrams_dropped", network.datagrams_dropped);
        stats.add("datagram_answers_refused", network.datagram_answers_refused);
        stats.add("requests", network.requests);
        stats.add("evicted_by_log", counters.evicted_by_log);
        stats.add("evicted_protected", counters.evicted_protected);
        stats.add("written_bytes", counters.written_bytes);
        stats.add("moved_bytes", counters.moved_bytes);
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
        let pauses = &replication.pauses;
        let spreads = [
            ("handed_over", &pauses.handed_over),
            ("taken_over", &pauses.taken_over),
            ("parked", &pauses.parked),
        ];
        for (what, spread) in spreads {
            stats.add(format_args!("cluster_{what}_count"), spread.count());
            for percent in [50, 99] {
                let us = spread.percentile_us(percent);
                stats.add(format_args!("cluster_{what}_us_p{percent}"), us);
            }
            stats.add(format_args!("cluster_{what}_us_max"), spread.longest_us());
        }
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
    fn restore(&self, stats: &mut Lines<'_>) {
        let report = self.shards.progress().report();
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
        if self.config.backup.is_none() {
            return;
        }
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
        let (config, knobs) = (&self.config, self.administration.knobs());
        let port = self.network.listening().iter().find_map(|address| match address {
            ListeningAddress::Tcp(address) => Some(address.port()),
            ListeningAddress::Udp(_) | ListeningAddress::Unix(_) => None,
        });
        let udp_port = self.network.listening().iter().find_map(|address| match address {
            ListeningAddress::Udp(address) => Some(address.port()),
            ListeningAddress::Tcp(_) | ListeningAddress::Unix(_) => None,
        });
        let hosts = config.listen.iter().map(|listen| listen.host.as_deref().unwrap_or("*"));
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let socket = config.unix_socket.as_ref();

        stats.add("maxbytes", self.shards.memory_bytes());
        stats.add("maxconns", config.connections_max);
        stats.add("tcpport", port.unwrap_or(0));
        stats.add("udpport", udp_port.unwrap_or(0));
        stats.add("inter", hosts);
        stats.add("verbosity", self.administration.verbosity());
        stats.add("oldest", self.oldest_secs());
        stats.add("evictions", if config.evicts { "on" } else { "off" });
        stats.add(
            "domain_socket",
            socket.map_or_else(|| "NULL".into(), |at| at.path.to_string_lossy()),
        );
        stats.add("umask", format_args!("{:o}", socket.map_or(knobs.socket_mode, |at| at.mode)));
        stats.add("shutdown_command", yes_no(config.allows_shutdown));
        stats.add("growth_factor", format_args!("{:.2}", knobs.growth_factor));
        stats.add("chunk_size", knobs.chunk_bytes);
        stats.add("num_threads", config.threads);
        stats.add("num_threads_per_udp", config.threads);
        stats.add("stat_key_prefix", char::from(self.observation.prefix_delimiter()));
        stats.add("detail_enabled", yes_no(self.observation.counts_prefixes()));
        stats.add("reqs_per_event", config.requests_per_turn);
        stats.add("cas_enabled", yes_no(knobs.cas));
        stats.add("tcp_backlog", config.backlog);
        stats.add(
            "binding_protocol",
            match config.entrance().dialect() {
                Dialect::Auto => "auto-negotiate",
                Dialect::Text => "ascii",
                Dialect::Binary => "binary",
            },
        );
        let has_sasl = matches!(config.authentication, Authentication::Sasl { .. });
        stats.add("auth_enabled_sasl", if has_sasl { "yes" } else { "no" });
        match &config.authentication {
            Authentication::File(path) => stats.add("auth_enabled_ascii", path.display()),
            _ => stats.add("auth_enabled_ascii", "no"),
        }
        stats.add("item_size_max", config.item_bytes_max);
        let limits = &config.limits;
        stats.add("maxconns_fast", yes_no(limits.refuses_fast));
        stats.add("hashpower_init", knobs.hash_power);
        stats.add("slab_reassign", yes_no(knobs.slab_reassign));
        stats.add("slab_automove", knobs.slab_automove);
        stats.add("slab_automove_ratio", format_args!("{:.2}", knobs.slab_automove_ratio));
        stats.add("slab_automove_window", knobs.slab_automove_window_s);
        stats.add("slab_chunk_max", knobs.slab_chunk_bytes_max);
        stats.add("lru_crawler", yes_no(knobs.lru_crawler));
        stats.add("lru_crawler_sleep", knobs.lru_crawler_sleep_us);
        stats.add("lru_crawler_tocrawl", knobs.lru_crawler_tocrawl);
        stats.add("tail_repair_time", knobs.tail_repair_s);
        stats.add("flush_enabled", yes_no(config.allows_flush));
        stats.add("dump_enabled", yes_no(self.administration.dumps_allowed()));
        stats.add("hash_algorithm", knobs.hash_algorithm);
        stats.add("lru_maintainer_thread", yes_no(knobs.lru_maintainer));
        stats.add("lru_segmented", yes_no(knobs.lru_segmented));
        stats.add("hot_lru_pct", knobs.hot_lru_percent);
        stats.add("warm_lru_pct", knobs.warm_lru_percent);
        stats.add("hot_max_factor", format_args!("{:.2}", knobs.hot_max_factor));
        stats.add("warm_max_factor", format_args!("{:.2}", knobs.warm_max_factor));
        stats.add("temp_lru", yes_no(knobs.temp_lru));
        stats.add("temporary_ttl", knobs.temporary_ttl_s);
        stats.add("idle_timeout", limits.idle_timeout.map_or(0, |limit| limit.as_secs()));
        stats.add("watcher_logbuf_size", config.inspection.watcher_buffer_bytes);
        stats.add("worker_logbuf_size", config.inspection.worker_buffer_bytes);
        stats.add("read_buf_mem_limit", knobs.read_buffer_bytes_max);
        stats.add("track_sizes", yes_no(config.inspection.tracks_sizes));
        stats.add("inline_ascii_response", "no");
        let flash = &knobs.flash;
        stats.add("ext_item_size", flash.item_bytes);
        stats.add("ext_item_age", flash.item_age_s);
        stats.add("ext_low_ttl", flash.low_ttl_s);
        stats.add("ext_recache_rate", flash.recache_rate);
        stats.add("ext_wbuf_size", flash.write_buffer_bytes);
        stats.add("ext_compact_under", flash.compact_under);
        stats.add("ext_drop_under", flash.drop_under);
        stats.add("ext_max_sleep", flash.sleep_us_max);
        stats.add("ext_max_frag", format_args!("{:.2}", flash.fragmentation_max));
        stats.add("slab_automove_freeratio", format_args!("{:.3}", knobs.slab_automove_free_ratio));
        stats.add("ext_drop_unread", yes_no(flash.drops_unread));
        self.tls_settings(stats);
        stats.add("num_napi_ids", knobs.napi_ids);
        let memory_file = config.memory_file.as_ref();
        stats.add(
            "memory_file",
            memory_file.map_or_else(|| "(null)".into(), |path| path.to_string_lossy()),
        );
        stats.add("client_flags_size", 4);
    }

    /// `-Z` and its options; memcached's defaults where there is none.
    fn tls_settings(&self, stats: &mut Lines<'_>) {
        let certificates = self.network.certificates();
        let unset = TlsConfig::default();
        let tls = certificates.map_or(&unset, |certificates| certificates.config());
        let yes = |is_so: bool| if is_so { "yes" } else { "no" };
        let path = |path: &Option<PathBuf>, none: &str| {
            path.as_ref().map_or_else(|| none.to_owned(), |path| path.display().to_string())
        };
        stats.add("ssl_enabled", yes(certificates.is_some()));
        stats.add("ssl_chain_cert", path(&tls.chain, "(null)"));
        stats.add("ssl_key", path(&tls.key, "(null)"));
        stats.add("ssl_verify_mode", tls.verify.bits());
        stats.add("ssl_keyformat", tls.key_format.number());
        stats.add("ssl_ciphers", tls.ciphers.as_deref().unwrap_or("NULL"));
        stats.add("ssl_ca_cert", path(&tls.authorities, "NULL"));
        stats.add("ssl_wbuf_size", tls.output_bytes);
        stats.add("ssl_session_cache", yes(tls.resumes_sessions));
        stats.add("ssl_kernel_tls", "no");
        stats.add("ssl_min_version", tls.version_min.spoken());
    }

    /// Loads the certificates again, and answers how that went in memcached's words.
    pub fn refresh_certificates(&self, now: Now, out: &mut Vec<u8>) {
        let certificates = self.network.certificates().ok_or(TlsError::NotEnabled);
        match certificates.and_then(|certificates| certificates.refresh(now)) {
            Ok(()) => out.extend_from_slice(b"OK\r\n"),
            Err(error) => {
                tracing::error!("refresh_certs: the certificates stay as they were: {error}");
                // Writing to a vector does not fail. What a file's name holds is no line of the answer.
                let _ = write!(out, "{}\r\n", error.to_string().replace(['\r', '\n'], " "));
            }
        }
    }

    fn items(&self, now: Now, stats: &mut Lines<'_>) {
        let totals = self.totals();
        if totals.items == 0 && totals.counters.items_stored == 0 {
            return;
        }
        let counters = totals.counters;
        let age = self.oldest_of_a_sample(now);
        let knobs = self.administration.knobs();
        stats.add("items:1:number", totals.items);
        if knobs.lru_maintainer {
            stats.add("items:1:number_hot", 0);
            stats.add("items:1:number_warm", 0);
            stats.add("items:1:number_cold", totals.items);
            if knobs.temp_lru {
                stats.add("items:1:number_temp", 0);
            }
            stats.add("items:1:age_hot", 0);
            stats.add("items:1:age_warm", 0);
        }
        stats.add("items:1:age", age);
        stats.add("items:1:mem_requested", totals.used_bytes);
        stats.add("items:1:evicted", counters.evicted);
        stats.add("items:1:evicted_nonzero", counters.evicted_with_deadline);
        stats.add("items:1:evicted_time", counters.evicted_idle_secs);
        stats.add("items:1:outofmemory", counters.out_of_memory);
        stats.add("items:1:tailrepairs", 0);
        stats.add("items:1:reclaimed", counters.expired + counters.flushed);
        stats.add("items:1:expired_unfetched", counters.expired_unfetched);
        stats.add("items:1:evicted_unfetched", counters.evicted_unfetched);
        if knobs.lru_maintainer {
            stats.add("items:1:evicted_active", counters.evicted_active);
        }
        stats.add("items:1:crawler_reclaimed", counters.swept_expired);
        stats.add("items:1:crawler_items_checked", counters.swept);
        stats.add("items:1:lrutail_reflocked", 0);
        if knobs.lru_maintainer {
            stats.add("items:1:moves_to_cold", 0);
            stats.add("items:1:moves_to_warm", 0);
            stats.add("items:1:moves_within_lru", 0);
            stats.add("items:1:direct_reclaims", 0);
            stats.add("items:1:hits_to_hot", 0);
            stats.add("items:1:hits_to_warm", 0);
            stats.add("items:1:hits_to_cold", self.commands().get_hits);
            stats.add("items:1:hits_to_temp", 0);
        }
    }

    /// A page of the one class is a segment of the log. A chunk is what one item takes, and so as large as
    /// they are on average; what is free is told as so many of them.
    fn slabs(&self, stats: &mut Lines<'_>) {
        let totals = self.totals();
        let commands = self.commands();
        let Segments { resident, free, bytes } = totals.segments;
        if resident > 0 {
            let page_bytes = u64::from(bytes);
            let chunk_bytes = totals.used_bytes.checked_div(totals.items).unwrap_or(page_bytes);
            let chunks_per_page = page_bytes.checked_div(chunk_bytes).unwrap_or(1).max(1);
            let free_chunks = u64::from(free) * chunks_per_page;
            stats.add("1:chunk_size", chunk_bytes);
            stats.add("1:chunks_per_page", chunks_per_page);
            stats.add("1:total_pages", resident);
            stats.add("1:total_chunks", totals.items + free_chunks);
            stats.add("1:used_chunks", totals.items);
            stats.add("1:free_chunks", free_chunks);
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

    /// In the order of their descriptors, as in memcached.
    fn connections(&self, now: Now, stats: &mut Lines<'_>) {
        let mut each = BTreeMap::new();
        self.network.for_each_listener(|fd, local| {
            each.insert(fd, (local.to_string(), None, "conn_listening", 0));
        });
        self.network.for_each_connection(|connection| {
            let state = match connection.state() {
                ConnectionState::Waiting => "conn_waiting",
                ConnectionState::Serving => "conn_parse_cmd",
                ConnectionState::Sending => "conn_mwrite",
                ConnectionState::Receiving => "conn_nread",
                ConnectionState::Watching => "conn_watch",
            };
            let (peer, local) = (connection.peer.to_string(), connection.local.to_string());
            each.insert(connection.fd, (peer, Some(local), state, connection.idle_seconds(now)));
        });
        for (fd, (address, local, state, idle_s)) in each {
            stats.add(format_args!("{fd}:addr"), address);
            if let Some(local) = local {
                stats.add(format_args!("{fd}:listen_addr"), local);
            }
            stats.add(format_args!("{fd}:state"), state);
            stats.add(format_args!("{fd}:secs_since_last_cmd"), idle_s);
        }
    }

    /// How many items cost how much, as the shards that are there have counted.
    fn sizes(&self, stats: &mut Lines<'_>) {
        if !self.config.inspection.tracks_sizes {
            return stats.add("sizes_status", "disabled");
        }
        let mut counts = SizeCounts::default();
        for shard in self.shards.each_that_is_back() {
            if let Some(of_shard) = shard.size_counts() {
                counts.add(of_shard);
            }
        }
        for (bytes, count) in counts.iter() {
            stats.add(bytes, count);
        }
    }

    /// The longest time since the last use among the first entries of every shard: whoever polls
    /// `stats items` must not make the server walk through all of its memory.
    fn oldest_of_a_sample(&self, now: Now) -> u32 {
        let now = Timestamp(now.unix_ms);
        let shards = self.shards.each_that_is_back();
        let oldest = shards.map(|shard| shard.longest_idle_secs(SAMPLE_ENTRIES, now));
        oldest.max().unwrap_or(0)
    }

    /// Idle time of the item evicted last, where any was.
    fn oldest_secs(&self) -> u64 {
        self.totals().counters.evicted_idle_secs
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
        self.observation.reset_counters();
        self.administration.reset_counters();
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

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END\r\n");
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
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
