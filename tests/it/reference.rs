//! The simulator against another one: miss ratios on real traces, as libCacheSim measured them.
//!
//! Where all textbooks agree on an algorithm, its figures must be equal. S3-FIFO, W-TinyLFU, CLOCK
//! and ARC in bytes are nobody's standard, and must only not be worse. `data/README.md` says where
//! traces and figures come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::program::Program;

/// How far figures of one agreed algorithm may lie apart: they are printed with six decimals.
const EQUAL: f64 = 0.0001;
/// How much worse ARC in bytes may be.
const ARC_IN_BYTES_WORSE: f64 = 0.005;
/// How much worse an algorithm without an agreed form may be.
const WORSE: f64 = 0.02;

/// One line of `reference.csv`.
struct Figure {
    trace: String,
    unit: Unit,
    policy: String,
    cache_size: u64,
    requests: u64,
    miss_ratio: f64,
    /// Only where objects have sizes.
    byte_miss_ratio: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Objects,
    Bytes,
}

/// What the simulator printed for a policy and size.
struct Simulated {
    requests: u64,
    miss_ratio: f64,
    byte_miss_ratio: Option<f64>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Where traces are that this repository does not hold.
fn elsewhere() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("CACHE_TRACES").map_or(beside, PathBuf::from)
}

fn figures(trace: &str, unit: Unit) -> Vec<Figure> {
    let text = std::fs::read_to_string(data().join("reference.csv")).unwrap();
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        Figure {
            trace: columns[0].to_owned(),
            unit: if columns[1] == "byte" { Unit::Bytes } else { Unit::Objects },
            policy: columns[2].to_owned(),
            cache_size: columns[3].parse().unwrap(),
            requests: columns[4].parse().unwrap(),
            miss_ratio: columns[5].parse().unwrap(),
            byte_miss_ratio: columns[6].parse().ok(),
        }
    };
    let mut figures: Vec<Figure> = text.lines().skip(1).map(parse).collect();
    figures.retain(|figure| figure.trace == trace && figure.unit == unit);
    figures
}

/// Runs the simulator once for every policy and size of `figures`.
fn simulated(trace: &Path, figures: &[Figure], unit: Unit) -> BTreeMap<(String, u64), Simulated> {
    let policies: BTreeSet<&str> = figures.iter().map(|figure| figure.policy.as_str()).collect();
    let sizes: BTreeSet<String> =
        figures.iter().map(|figure| figure.cache_size.to_string()).collect();
    let list = |words: Vec<&str>| words.join(",");
    let output = Command::new(Program::Sim.path())
        .arg("run")
        .args(["--format", "oracle-general", "--output", "csv", "--trace"])
        .arg(trace)
        .args(["--policy", &list(policies.into_iter().collect())])
        .args(["--size", &list(sizes.iter().map(String::as_str).collect())])
        .args(["--unit", if unit == Unit::Bytes { "bytes" } else { "objects" }])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    lines
        .map(|line| {
            let column = |name: &str| {
                let index = names.iter().position(|known| *known == name)?;
                line.split(',').nth(index)
            };
            let number = |name: &str| column(name).unwrap().parse::<u64>().unwrap();
            let ratio = |name: &str| column(name).and_then(|text| text.parse::<f64>().ok());
            let simulated = Simulated {
                requests: number("requests"),
                miss_ratio: ratio("miss_ratio").unwrap(),
                byte_miss_ratio: ratio("byte_miss_ratio"),
            };
            ((column("policy").unwrap().to_owned(), number("cache_size")), simulated)
        })
        .collect()
}

/// What is allowed between our figure and the other one: how much less, how much more.
fn tolerance(policy: &str, unit: Unit) -> (f64, f64) {
    match (policy, unit) {
        ("lru" | "fifo" | "lfu" | "sieve", _) | ("arc" | "min", Unit::Objects) => (EQUAL, EQUAL),
        ("arc", Unit::Bytes) => (f64::INFINITY, ARC_IN_BYTES_WORSE),
        _ => (f64::INFINITY, WORSE),
    }
}

fn compare(folder: &Path, trace: &str, unit: Unit) {
    let figures = figures(trace, unit);
    assert!(!figures.is_empty(), "no figures for {trace} in {unit:?}");
    let path = folder.join(format!("{trace}.oracleGeneral.zst"));
    let simulated = simulated(&path, &figures, unit);
    let mut wrong = Vec::new();
    for figure in &figures {
        let key = (figure.policy.clone(), figure.cache_size);
        let ours = simulated.get(&key).unwrap_or_else(|| panic!("no line for {key:?}"));
        assert_eq!(ours.requests, figure.requests, "requests of {trace}");
        let (less, more) = tolerance(&figure.policy, unit);
        let mut check = |what: &str, ours: f64, theirs: f64| {
            let difference = ours - theirs;
            if difference < -less || difference > more {
                wrong.push(format!(
                    "{what} of {} at {}: ours {ours:.6}, theirs {theirs:.6}, {difference:+.6}",
                    figure.policy, figure.cache_size
                ));
            }
        };
        check("miss ratio", ours.miss_ratio, figure.miss_ratio);
        let byte_miss_ratios = ours.byte_miss_ratio.zip(figure.byte_miss_ratio);
        // Which bytes are missed follows from which requests are, if the algorithm is the same.
        if let Some((ours, theirs)) = byte_miss_ratios.filter(|_| less == EQUAL) {
            check("byte miss ratio", ours, theirs);
        }
    }
    assert!(wrong.is_empty(), "{trace} in {unit:?}:\n{}", wrong.join("\n"));
}

#[test]
fn a_web_log_counted_in_objects() {
    compare(&data(), "apache-log", Unit::Objects);
}

#[test]
fn a_web_log_counted_in_bytes() {
    compare(&data(), "apache-log", Unit::Bytes);
}

#[test]
fn block_storage_counted_in_objects() {
    compare(&data(), "cloudphysics-io", Unit::Objects);
}

#[test]
fn block_storage_counted_in_bytes() {
    compare(&data(), "cloudphysics-io", Unit::Bytes);
}

#[test]
fn product_pages_counted_in_objects() {
    compare(&data(), "cache2k-web12", Unit::Objects);
}

/// `cargo xtask test` says so when the trace is not there.
#[test]
fn a_database_counted_in_objects() {
    if elsewhere().join("arc-OLTP.oracleGeneral.zst").is_file() {
        compare(&elsewhere(), "arc-OLTP", Unit::Objects);
    }
}
