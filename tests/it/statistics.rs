//! What `stats` tells: memcached's lines and no others, and what they count.

use std::path::Path;

use cache_server::Config;
use tests::connection::Connection;
use tests::killer::{stat, stats, stats_of, text};
use tests::server::Server;
use tests::wait::Stopwatch;

/// The general statistics of memcached 1.6.45 started without a flag, in its order.
const GENERAL: &str = "
    pid uptime time version libevent pointer_size rusage_user rusage_system max_connections
    curr_connections total_connections rejected_connections connection_structures
    response_obj_oom response_obj_count response_obj_bytes read_buf_count read_buf_bytes
    read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set cmd_flush cmd_touch cmd_meta
    get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses incr_hits
    decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large
    store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes
    accepting_conns listen_disabled_num time_in_listen_disabled_us threads conn_yields
    hash_power_level hash_bytes hash_is_expanding slab_reassign_rescues
    slab_reassign_chunk_rescues slab_reassign_inline_reclaim slab_reassign_busy_items
    slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status
    slab_reassign_running slabs_moved lru_crawler_running lru_crawler_starts
    lru_maintainer_juggles malloc_fails log_worker_dropped log_worker_written
    log_watcher_skipped log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback
    bytes curr_items total_items slab_global_page_pool expired_unfetched evicted_unfetched
    evicted_active evictions reclaimed crawler_reclaimed crawler_items_checked lrutail_reflocked
    moves_to_cold moves_to_warm moves_within_lru direct_reclaims lru_bumps_dropped
";

/// Its settings.
const SETTINGS: &str = "
    maxbytes maxconns tcpport udpport inter verbosity oldest evictions domain_socket umask
    shutdown_command growth_factor chunk_size num_threads num_threads_per_udp stat_key_prefix
    detail_enabled reqs_per_event cas_enabled tcp_backlog binding_protocol auth_enabled_sasl
    auth_enabled_ascii item_size_max maxconns_fast hashpower_init slab_reassign slab_automove
    slab_automove_ratio slab_automove_window slab_chunk_max lru_crawler lru_crawler_sleep
    lru_crawler_tocrawl tail_repair_time flush_enabled dump_enabled hash_algorithm
    lru_maintainer_thread lru_segmented hot_lru_pct warm_lru_pct hot_max_factor warm_max_factor
    temp_lru temporary_ttl idle_timeout watcher_logbuf_size worker_logbuf_size
    read_buf_mem_limit track_sizes inline_ascii_response ext_item_size ext_item_age ext_low_ttl
    ext_recache_rate ext_wbuf_size ext_compact_under ext_drop_under ext_max_sleep ext_max_frag
    slab_automove_freeratio ext_drop_unread ssl_enabled ssl_chain_cert ssl_key ssl_verify_mode
    ssl_keyformat ssl_ciphers ssl_ca_cert ssl_wbuf_size ssl_session_cache ssl_kernel_tls
    ssl_min_version num_napi_ids memory_file client_flags_size
";

/// Lines that memcached 1.6.18, which distributions have, has and 1.6.45 has not.
const GONE_SINCE: [&str; 1] = ["slab_reassign_evictions_nomem"];

/// Lines that came since.
const NEW_SINCE: [&str; 3] =
    ["slab_reassign_busy_nomem", "slab_reassign_last_busy_status", "client_flags_size"];

/// Where distributions put it.
const MEMCACHED: &str = "/usr/bin/memcached";

fn names(stats: Vec<(String, String)>) -> Vec<String> {
    stats.into_iter().map(|(name, _)| name).collect()
}

fn connect(server: &Server) -> Connection {
    Connection::open(server.address()).expect("it listens")
}

fn told(server: &Server, request: &str) -> Vec<(String, String)> {
    stats_of(&mut connect(server), request)
}

fn ask(client: &mut Connection, request: &str) {
    client.send(format!("{request}\r\nmn\r\n").as_bytes()).expect("it takes a line");
    while client.receive_line().expect("in time").expect("it is open") != b"MN" {}
}

#[test]
fn statistics_hold_the_lines_of_memcached_in_its_order() {
    let server = Server::start_here(&[]);
    assert_eq!(names(told(&server, "stats")), GENERAL.split_whitespace().collect::<Vec<_>>());
    let settings = names(told(&server, "stats settings"));
    assert_eq!(settings, SETTINGS.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn the_lists_here_are_those_of_the_memcached_that_is_installed() {
    // Without one the lists are all there is.
    if !Path::new(MEMCACHED).exists() {
        return;
    }
    let theirs = Server::start_program(Path::new(MEMCACHED), &[]);
    let version = text(&told(&theirs, "stats"), "version").to_owned();
    for (request, list) in [("stats", GENERAL), ("stats settings", SETTINGS)] {
        let mut theirs = names(told(&theirs, request));
        let mut ours: Vec<&str> = list.split_whitespace().collect();
        if version != "1.6.45" {
            theirs.retain(|name| !GONE_SINCE.contains(&name.as_str()));
            ours.retain(|name| !NEW_SINCE.contains(name) || theirs.iter().any(|it| it == name));
        }
        assert_eq!(theirs, ours, "{request} of {version}");
    }
}

/// Settings that turn nothing here, and what 1.6.45 says of them when they are set so.
const TOLD_BACK: &[(&str, &str, &str)] = &[
    ("-a 770", "umask", "770"),
    ("-f 1.5", "growth_factor", "1.50"),
    ("-n 64", "chunk_size", "64"),
    ("-C", "cas_enabled", "no"),
    ("-N 2", "num_napi_ids", "2"),
    ("-o hashpower=20", "hashpower_init", "20"),
    ("-o hash_algorithm=murmur3", "hash_algorithm", "murmur3"),
    ("-o slab_automove_ratio=0.4", "slab_automove_ratio", "0.40"),
    ("-o slab_automove_freeratio=0.3", "slab_automove_freeratio", "0.300"),
    ("-o tail_repair_time=11", "tail_repair_time", "11"),
    ("-o temporary_ttl=70", "temporary_ttl", "70"),
    ("-o ext_item_size=4", "ext_item_size", "4"),
    ("-o ext_item_age=5", "ext_item_age", "5"),
    ("-o ext_low_ttl=6", "ext_low_ttl", "6"),
    ("-o ext_recache_rate=7", "ext_recache_rate", "7"),
    ("-o ext_wbuf_size=8", "ext_wbuf_size", "8388608"),
    ("-o ext_compact_under=9", "ext_compact_under", "9"),
    ("-o ext_drop_under=10", "ext_drop_under", "10"),
    ("-o ext_max_sleep=11", "ext_max_sleep", "11"),
    ("-o ext_max_frag=0.5", "ext_max_frag", "0.50"),
    ("-o ext_drop_unread", "ext_drop_unread", "yes"),
];

#[test]
fn a_setting_without_effect_is_told_as_it_was_given() {
    let flags: Vec<&str> =
        TOLD_BACK.iter().flat_map(|(flag, ..)| flag.split_whitespace()).collect();
    let server = Server::start_here(&flags);
    let settings = told(&server, "stats settings");
    for (flag, name, value) in TOLD_BACK {
        assert_eq!(text(&settings, name), *value, "{flag}");
    }
}

/// A server configured by `configure`, and a client of it.
fn configured(configure: impl FnOnce(&mut Config)) -> (cache_server::Server, Connection) {
    let mut config = tests::server::config(&[]);
    config.listen = vec![cache_server::Listen::loopback(0)];
    configure(&mut config);
    let server = cache_server::Server::start(&config).expect("a server starts on any port");
    let client = Connection::open(server.address().expect("it listens")).expect("it listens");
    (server, client)
}

#[test]
fn nobody_lists_keys_or_watches_where_that_is_forbidden() {
    let (_server, mut client) = configured(|config| {
        config.inspection.dumps = false;
        config.inspection.watches = false;
    });
    for (request, answer) in [
        ("lru_crawler metadump all", "ERROR metadump not allowed"),
        ("lru_crawler mgdump all", "ERROR key dump not allowed"),
        ("stats cachedump 1 1", "CLIENT_ERROR stats cachedump not allowed"),
        ("stats detail dump", "CLIENT_ERROR stats detail not allowed"),
        ("watch", "CLIENT_ERROR watch commands not allowed"),
    ] {
        client.send(format!("{request}\r\n").as_bytes()).expect("it takes a line");
        let line = client.receive_line().expect("in time").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&line), answer);
    }
}

#[test]
fn sizes_are_told_where_they_are_tracked() {
    let (_server, mut client) = configured(|config| config.inspection.tracks_sizes = true);
    ask(&mut client, "set key 0 0 2\r\nok");
    let sizes = stats_of(&mut client, "stats sizes");
    assert!(matches!(&sizes[..], [(_, count)] if count == "1"), "{sizes:?}");
}

#[test]
fn lines_of_what_is_switched_off_are_not_there() {
    let (_server, mut client) = configured(|config| {
        config.knobs.lru_maintainer = false;
        config.knobs.lru_crawler = false;
        config.knobs.slab_reassign = false;
    });
    let general = names(stats_of(&mut client, "stats"));
    let gone: Vec<&str> =
        GENERAL.split_whitespace().filter(|name| !general.iter().any(|it| it == name)).collect();
    // Counted with memcached 1.6.45 and the same options.
    assert_eq!(gone.len(), 9 + 2 + 1 + 6, "{gone:?}");
}

#[test]
fn every_counter_is_zero_at_first() {
    const SET_AT_START: [&str; 22] = [
        "pid",
        "uptime",
        "time",
        "version",
        "libevent",
        "pointer_size",
        "rusage_user",
        "rusage_system",
        "max_connections",
        "curr_connections",
        "total_connections",
        "connection_structures",
        "bytes_read",
        "limit_maxbytes",
        "accepting_conns",
        "threads",
        "hash_power_level",
        "hash_bytes",
        "slab_reassign_last_busy_status",
        "slab_global_page_pool",
        "read_buf_bytes",
        "time_in_listen_disabled_us",
    ];
    for (name, value) in told(&Server::start_here(&[]), "stats") {
        if !SET_AT_START.contains(&name.as_str()) {
            assert_eq!(value, "0", "{name}");
        }
    }
}

#[test]
fn evictions_are_counted_by_reason() {
    let flags = ["-m", "8", "-I", "64k", "-t", "1", "--eviction", "fifo"];
    let server = Server::start_here(&flags);
    let clock = Stopwatch::start();
    let mut client = connect(&server);
    let value = "v".repeat(10_000);
    let set = |client: &mut Connection, key: &str, exptime: u32| {
        ask(client, &format!("set {key} 0 {exptime} 10000 noreply\r\n{value}"));
    };
    for number in 0..50 {
        set(&mut client, &format!("read-{number}"), 0);
        ask(&mut client, &format!("get read-{number}"));
    }
    for number in 0..50 {
        set(&mut client, &format!("mortal-{number}"), 1000);
    }
    // All of the above leaves: the policy is first in, first out.
    for number in 0..3000 {
        set(&mut client, &format!("key-{number}"), 0);
    }
    let general = stats(&mut client);
    let items = stats_of(&mut client, "stats items");
    let evictions = stat(&general, "evictions");
    let [unfetched, active] =
        ["evicted_unfetched", "evicted_active"].map(|name| stat(&general, name));
    assert_eq!((evictions - unfetched, active), (50, 50), "what was read, and just now");
    assert_eq!(stat(&items, "items:1:evicted"), evictions);
    assert_eq!(stat(&items, "items:1:evicted_nonzero"), 50, "what had a deadline");
    let evicted_time = stat(&items, "items:1:evicted_time");
    assert!(evicted_time <= clock.elapsed().as_secs() + 1, "no item was there before the test");
    assert_eq!(stat(&general, "reclaimed") + stat(&general, "expired_unfetched"), 0);
    assert_eq!(evictions + stat(&general, "curr_items"), stat(&general, "total_items"));
}

#[test]
fn expiry_is_no_eviction() {
    let server = Server::start_here(&[]);
    let mut client = connect(&server);
    for number in 0..20 {
        ask(&mut client, &format!("set key-{number} 0 10 1\r\nx"));
    }
    ask(&mut client, "get key-0 key-1 key-2 key-3 key-4");
    server.advance(std::time::Duration::from_secs(11));
    ask(&mut client, "lru_crawler crawl all");
    let crawled = tests::wait::until(std::time::Duration::from_secs(10), || {
        (stat(&stats(&mut client), "lru_crawler_running") == 0).then_some(())
    });
    assert!(crawled.is_some());
    let general = stats(&mut client);
    assert_eq!(stat(&general, "evictions"), 0);
    assert_eq!((stat(&general, "reclaimed"), stat(&general, "expired_unfetched")), (20, 15));
    assert_eq!(stat(&general, "crawler_reclaimed"), 20);
    assert_eq!((stat(&general, "curr_items"), stat(&general, "bytes")), (0, 0));
    assert_eq!(stat(&general, "lru_crawler_starts"), 1);
}

#[test]
fn what_a_flush_forgets_is_reclaimed_at_once_and_then_a_miss_like_any_other() {
    let server = Server::start_here(&[]);
    let mut client = connect(&server);
    for number in 0..20 {
        ask(&mut client, &format!("set key-{number} 0 0 1\r\nx"));
    }
    ask(&mut client, "flush_all");
    ask(&mut client, "get key-0 key-1");
    let general = stats(&mut client);
    assert_eq!((stat(&general, "reclaimed"), stat(&general, "evictions")), (20, 0));
    assert_eq!((stat(&general, "get_misses"), stat(&general, "get_flushed")), (2, 0));
}

#[test]
fn a_chunk_is_what_an_item_takes() {
    let server = Server::start_here(&[]);
    let mut client = connect(&server);
    for number in 0..90 {
        ask(&mut client, &format!("set key-{number} 0 0 2\r\nok"));
    }
    let slabs = stats_of(&mut client, "stats slabs");
    let general = stats(&mut client);
    assert_eq!(stat(&slabs, "1:used_chunks"), 90);
    let chunk_bytes = stat(&slabs, "1:chunk_size");
    assert!(stat(&general, "bytes").abs_diff(90 * chunk_bytes) < 90);
    assert!(stat(&slabs, "1:total_chunks") >= 90);
}

#[test]
fn connections_and_bytes_are_counted() {
    const VALUE_BYTES: u64 = 100_000;
    let server = Server::start_here(&[]);
    let mut client = connect(&server);
    let before = stats(&mut client);
    let others: Vec<Connection> = (0..3).map(|_| connect(&server)).collect();
    let value = "v".repeat(100_000);
    ask(&mut client, &format!("set key 0 0 {VALUE_BYTES}\r\n{value}"));
    ask(&mut client, "get key key");
    // One that is open may not have been accepted yet.
    let grown =
        |client: &mut Connection, name: &str| stat(&stats(client), name) - stat(&before, name);
    let limit = std::time::Duration::from_secs(10);
    let came =
        tests::wait::until(limit, || (grown(&mut client, "curr_connections") == 3).then_some(()));
    assert!(came.is_some());
    let bytes_read = grown(&mut client, "bytes_read");
    assert!((VALUE_BYTES..2 * VALUE_BYTES).contains(&bytes_read), "{bytes_read}");
    assert!(grown(&mut client, "bytes_written") >= 2 * VALUE_BYTES);
    drop(others);
    let left =
        tests::wait::until(limit, || (grown(&mut client, "curr_connections") == 0).then_some(()));
    assert!(left.is_some());
    assert_eq!(grown(&mut client, "total_connections"), 3, "also those that are gone");
}

#[test]
fn time_and_uptime_pass_with_the_servers_clock() {
    let server = Server::start_here(&[]);
    let mut client = connect(&server);
    let before = stats(&mut client);
    server.advance(std::time::Duration::from_secs(1000));
    let after = stats(&mut client);
    for name in ["time", "uptime"] {
        let passed = stat(&after, name) - stat(&before, name);
        assert!((1000..1060).contains(&passed), "{name}: {passed}");
    }
}

#[test]
fn what_is_too_large_is_counted() {
    let server = Server::start_here(&["-I", "1024"]);
    let mut client = connect(&server);
    ask(&mut client, &format!("set large 0 0 2048\r\n{}", "x".repeat(2048)));
    let general = stats(&mut client);
    assert_eq!((stat(&general, "store_too_large"), stat(&general, "cmd_set")), (1, 0));
}

#[test]
fn connections_are_told_in_the_order_of_their_descriptors() {
    let server = Server::start_here(&["-t", "2"]);
    let mut waiting = connect(&server);
    waiting.send(b"set half 0 0 100\r\n").expect("sent");
    let seen = tests::wait::until(std::time::Duration::from_secs(10), || {
        let told = told(&server, "stats conns");
        told.iter().any(|(_, value)| value == "conn_nread").then_some(told)
    });
    let told = seen.expect("one waits for its value");
    let descriptors: Vec<i32> = told
        .iter()
        .map(|(name, _)| {
            name.split(':').next().and_then(|fd| fd.parse().ok()).expect("a descriptor")
        })
        .collect();
    assert!(descriptors.is_sorted(), "{descriptors:?}");
    let listening = told.iter().filter(|(_, value)| value == "conn_listening").count();
    assert_eq!(listening, 1, "one address, however many threads");
}
