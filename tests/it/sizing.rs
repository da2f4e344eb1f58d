//! The advice of `cache-sim size`: what it promises is what the simulator measures, and what it says of the
//! server is what the server says of itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tests::connection::Connection;
use tests::program::Program;
use tests::server::Server;

const MIB: u64 = 1 << 20;

fn trace(name: &str) -> PathBuf {
    let file = format!("{name}.oracleGeneral.zst");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file)
}

fn sim(arguments: &[&str]) -> Output {
    Command::new(Program::Sim.path()).args(arguments).output().unwrap()
}

/// What `cache-sim` prints as JSON.
fn asked(arguments: &[&str]) -> Value {
    let output = sim(&[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// The hit ratio of a server of so much memory, as `run` measures it.
fn replayed(trace: &Path, policy: &str, memory_bytes: u64) -> f64 {
    let (trace, memory) = (trace.to_str().unwrap(), memory_bytes.to_string());
    let report = asked(&["run", "--trace", trace, "--policy", policy, "--as-server", &memory]);
    1.0 - report["results"][0]["miss_ratio"].as_f64().unwrap()
}

#[test]
fn the_advised_server_meets_the_target_and_a_smaller_one_does_not() {
    for (name, target) in
        [("apache-log", "0.7"), ("cloudphysics-io", "0.4"), ("cache2k-web12", "0.8")]
    {
        let trace = trace(name);
        let path = trace.to_str().unwrap();
        let advice =
            asked(&["size", "--trace", path, "--target-hit-ratio", target])["advice"].clone();
        let (policy, bytes) = (advice["policy"].as_str().unwrap(), number(&advice["memory_bytes"]));
        let target: f64 = target.parse().unwrap();
        let measured = replayed(&trace, policy, bytes);
        assert!(measured >= target, "{name}: {policy} in {bytes} hits {measured}");
        let told = advice["hit_ratio"].as_f64().unwrap();
        assert!((measured - told).abs() < 1e-6, "{name}: {told} told, {measured} measured");
        // The search ends where less than a third of a percent of the machine's memory is to be gained.
        let less = bytes - (bytes / 100).next_multiple_of(MIB);
        // And the server takes no less than twice its largest item.
        if less >= 2 * MIB {
            for other in ["lru", "lfu", "arc", "s3fifo", "wtinylfu"] {
                let hits = replayed(&trace, other, less);
                assert!(hits < target, "{name}: {other} in {less}, which is less, hits {hits}");
            }
        }
    }
}

#[test]
fn what_a_machine_needs_beyond_its_items_is_what_the_server_says() {
    let trace = trace("apache-log");
    let path = trace.to_str().unwrap();
    for (threads, item_mib) in [(4, 1), (8, 16), (1, 2)] {
        let (threads_flag, item_flag) = (threads.to_string(), format!("{item_mib}MiB"));
        let flags = ["--policy", "lru", "--threads", &threads_flag, "--item-size-max", &item_flag];
        let advice =
            asked(&[&["size", "--trace", path], flags.as_slice()].concat())["advice"].clone();
        let config = cache_server::config::Config {
            threads: threads.try_into().unwrap(),
            item_bytes_max: item_mib << 20,
            ..cache_server::config::Config::default()
        };
        let beyond = number(&advice["machine_bytes"]) - number(&advice["node_memory_bytes"]);
        assert_eq!(beyond, config.allowance_bytes() as u64, "-t {threads} -I {item_mib}m");
    }
}

#[test]
fn the_servers_command_line_starts_it() {
    let trace = trace("cloudphysics-io");
    let path = trace.to_str().unwrap();
    let flags = ["--policy", "s3fifo", "--threads", "2", "--item-size-max", "2MiB"];
    let advice = asked(&[&["size", "--trace", path], flags.as_slice()].concat())["advice"].clone();
    let command = advice["command"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[0], "cache-server");
    let server = Server::start_process(&words[1..]);
    let mut client = Connection::open(server.address()).unwrap();
    client.send(b"stats settings\r\n").unwrap();
    let mut settings = Vec::new();
    while let Some(line) = client.receive_line().unwrap() {
        if line == b"END" {
            break;
        }
        settings.push(String::from_utf8(line).unwrap());
    }
    let memory = format!("STAT maxbytes {}", number(&advice["memory_bytes"]));
    for wanted in [memory.as_str(), "STAT num_threads 2", "STAT item_size_max 2097152"] {
        assert!(settings.iter().any(|line| line == wanted), "{wanted} is not in {settings:?}");
    }
}

#[test]
fn a_target_beyond_the_ceiling_is_an_answer_and_no_failure() {
    let trace = trace("cache2k-web12");
    let path = trace.to_str().unwrap();
    let output = sim(&["size", "--trace", path, "--target-hit-ratio", "0.99"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    // 13,756 objects in 95,607 reads: each is missed once.
    assert!(text.contains("85.61%"), "{text}");
    assert!(text.contains("cannot be had from any cache"), "{text}");
}

#[test]
fn a_page_asks_nothing_of_the_network_and_names_its_command() {
    let trace = trace("apache-log");
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("size.html");
    let (path, plot) = (trace.to_str().unwrap(), page.to_str().unwrap());
    let output = sim(&["size", "--trace", path, "--plot", plot]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(page).unwrap();
    for outside in ["<script", "<link", "<img", "@import", "url(", "NaN", "http-equiv"] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(text.contains("cache-sim size --trace "));
    assert!(text.contains("cache-server -m "));
    assert!(text.contains("knee, advised: "));
}

#[test]
fn a_log_that_holds_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("empty.csv");
    std::fs::write(&log, "time,id,size\n").unwrap();
    let output = sim(&["size", "--trace", log.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no reads"));
}

#[test]
fn what_nobody_can_mean_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("a.csv");
    std::fs::write(&log, "time,id,size\n1,a,5\n").unwrap();
    let log = log.to_str().unwrap();
    let zipf = folder.path().join("zipf.oracleGeneral");
    let too_long =
        format!("generate zipf --objects 9 --requests 99999999999999 --output {}", zipf.display());
    for (command, reason) in [
        (format!("run --trace {log} --as-server 18446744073709551615"), "takes 1MiB to 64TiB"),
        (format!("run --trace {log} --as-server 1g --item-size-max 2g"), "takes 1KiB to 1GiB"),
        (
            format!("run --trace {log} --size 9 --format twitter"),
            "no request that can be read as twitter",
        ),
        (
            format!("describe --trace {log} --format twitter"),
            "no request that can be read as twitter",
        ),
        (format!("curve --trace {log} --points 100000000"), "10000"),
        (format!("curve --trace {log} --plot {log}"), ".svg, .png or .html"),
        (format!("curve --trace {log} --plot /nowhere/a.png"), "cannot write /nowhere/a.png"),
        (too_long, "do not fit into memory"),
    ] {
        let output = sim(&command.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{command}: {said}");
        assert!(output.status.code().is_some_and(|code| code < 100), "{command}: {said}");
    }
}

#[test]
fn a_log_that_asks_for_nothing_twice_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("once.csv");
    std::fs::write(&log, "time,id,size\n1,a,5\n2,b,5\n").unwrap();
    let output = sim(&["size", "--trace", log.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.starts_with("No cache hits any of these reads"),
        "{text}"
    );
    assert!(!text.contains("hits 100.00%"), "nobody asked for that: {text}");
}
