//! What a server says it would hit with other memory, beside what the simulator says of the same requests.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cache_ctl::admin::model::Mrc;
use tests::connection::Connection;
use tests::program::Program;
use tests::server::Server;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the curve may be off, in the mean over its sizes. The log has 49 thousand objects, of which an
/// eighth is sampled: were all reads misses of as many objects each, one standard error of the hit ratio
/// would be √(7 / 49,000) = 0.012, and few are.
const ERROR_MAX: f64 = 0.02;

/// What the curve takes of memory beside 12 KiB a shard, of four and one to exchange.
const BYTES_MAX: u64 = 1 << 20;

fn curve(server: &Server) -> Mrc {
    told(server).expect("it keeps a curve")
}

fn told(server: &Server) -> Option<Mrc> {
    let address = server.address().to_string();
    let mut connection =
        cache_ctl::connection::Connection::open(&address, PATIENCE).expect("it serves");
    cache_ctl::mrc::ask_server(&mut connection).expect("it answers")
}

/// A client that sends many requests at once and reads what is answered.
struct Client(Connection);

impl Client {
    fn of(server: &Server) -> Self {
        Self(Connection::open_within(server.address(), PATIENCE).unwrap())
    }

    /// Sends `request` for each number, and waits until all are carried out.
    fn each(&mut self, numbers: std::ops::Range<u32>, request: impl Fn(u32) -> String) {
        for from in numbers.clone().step_by(500) {
            let until = (from + 500).min(numbers.end);
            let batch: String = (from..until).map(&request).collect();
            self.0.send((batch + "mn\r\n").as_bytes()).unwrap();
            while self.0.receive_line().unwrap().expect("it serves on") != b"MN" {}
        }
    }
}

fn set(number: u32, exptime: u32) -> String {
    format!("set key-{number} 0 {exptime} 100 noreply\r\n{:0100}\r\n", number)
}

/// Ids and sizes of a log in oracleGeneral's records of 24 bytes.
fn requests(path: &Path) -> Vec<(u64, u32)> {
    let mut bytes = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path).unwrap())
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
        .chunks_exact(24)
        .map(|record| {
            let id = u64::from_le_bytes(record[4..12].try_into().unwrap());
            (id, u32::from_le_bytes(record[12..16].try_into().unwrap()))
        })
        .filter(|&(_, size)| size > 0)
        .collect()
}

/// Plays a log as a look-aside client does, the set of a miss in one write with the next get.
fn play(server: &Server, requests: &[(u64, u32)]) {
    let mut client = Connection::open_within(server.address(), PATIENCE).unwrap();
    let value = vec![b'v'; requests.iter().map(|&(_, size)| size as usize).max().unwrap_or(0)];
    let mut output = Vec::new();
    for &(id, size) in requests {
        output.extend_from_slice(format!("get {id}\r\n").as_bytes());
        client.send(&output).unwrap();
        output.clear();
        let line = client.receive_line().unwrap().expect("it serves on");
        if line == b"END" {
            output.extend_from_slice(format!("set {id} 0 0 {size} noreply\r\n").as_bytes());
            output.extend_from_slice(&value[..size as usize]);
            output.extend_from_slice(b"\r\n");
        } else {
            let line = String::from_utf8(line).unwrap();
            let bytes = line.rsplit(' ').next().unwrap().parse().unwrap();
            client.receive_block(bytes).unwrap();
            assert_eq!(client.receive_line().unwrap().unwrap(), b"END");
        }
    }
}

/// LRU's hit ratio by `-m`, of a server that is asked for all of the log.
fn predicted(path: &Path, curve: &Mrc) -> BTreeMap<u64, f64> {
    let memory: Vec<String> =
        curve.points.iter().map(|point| point.memory_bytes.to_string()).collect();
    let output = Command::new(Program::Sim.path())
        .args(["run", "--policy", "lru", "--threads", "1", "--output", "csv"])
        .args(["--as-server", &memory.join(",")])
        .arg("--trace")
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let column = |name| names.iter().position(|known| *known == name).unwrap();
    let (size, misses) = (column("cache_size"), column("miss_ratio"));
    lines
        .map(|line| (line[size].parse().unwrap(), 1.0 - line[misses].parse::<f64>().unwrap()))
        .collect()
}

#[test]
fn curve_of_a_server_is_what_the_simulator_says_of_its_requests() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let path = data.join("cloudphysics-io.oracleGeneral.zst");
    let requests = requests(&path);
    // Sizes reach from where most is missed to where most fits.
    for memory in ["64", "128"] {
        let args = ["-t", "1", "-m", memory, "--eviction", "lru"];
        let server = Server::start_here(&args);
        play(&server, &requests);
        let curve = curve(&server);
        assert_eq!(curve.requests, requests.len() as u64);
        assert!(
            curve.sampled_objects <= 8192 && curve.bytes <= BYTES_MAX + (64 << 10),
            "{curve:?}"
        );
        let predicted = predicted(&path, &curve);
        let mut errors = 0.0;
        for point in &curve.points {
            let want = predicted[&point.memory_bytes];
            let error = (point.hit_ratio - want).abs();
            assert!(
                (point.low..=point.high).contains(&want),
                "{want} is not within the band of {point:?}"
            );
            errors += error;
        }
        let error = errors / curve.points.len() as f64;
        assert!(error <= ERROR_MAX, "off by {error} in the mean: {curve:?}, {predicted:?}");
        // At the present size the server itself knows.
        let present = curve.points.iter().find(|point| point.memory_bytes == curve.memory_bytes);
        let (low, high) = present.map(|point| (point.low, point.high)).unwrap();
        assert!((low..=high).contains(&curve.hit_ratio), "{curve:?}");
        let spread = curve.points.last().unwrap().hit_ratio - curve.points[0].hit_ratio;
        assert!(spread > 0.1, "the sizes make a difference: {curve:?}");
    }
}

#[test]
fn what_is_flushed_deleted_or_expired_is_not_remembered() {
    let server = Server::start_here(&["-t", "1"]);
    let mut client = Client::of(&server);
    let objects = || curve(&server).sampled_objects;
    let sampled = |objects: u64| (150..=350).contains(&objects);
    client.each(0..2_000, |number| set(number, 0));
    assert!(sampled(objects()), "an eighth of 2,000, not {}", objects());
    client.each(0..1, |_| "flush_all noreply\r\n".to_owned());
    assert_eq!(objects(), 0);
    client.each(0..2_000, |number| set(number, 0));
    assert!(sampled(objects()));
    client.each(0..2_000, |number| format!("delete key-{number} noreply\r\n"));
    assert_eq!(objects(), 0);
    client.each(0..2_000, |number| set(number, 10));
    assert!(sampled(objects()));
    server.advance(Duration::from_secs(12));
    assert_eq!(objects(), 0);
    client.each(0..2_000, |number| format!("get key-{number}\r\n"));
    let missed = curve(&server);
    assert_eq!((missed.requests, missed.hit_ratio), (2_000, 0.0));
    assert!(missed.points.iter().all(|point| point.hit_ratio == 0.0), "{missed:?}");
}

#[test]
fn reads_of_what_is_there_hit_at_all_sizes_that_hold_it() {
    let server = Server::start_here(&["-t", "1"]);
    let mut client = Client::of(&server);
    client.each(0..4_000, |number| set(number, 0));
    (0..3).for_each(|_| client.each(0..4_000, |number| format!("get key-{number}\r\n")));
    let curve = curve(&server);
    assert_eq!((curve.requests, curve.hit_ratio), (12_000, 1.0));
    assert!(curve.points.iter().all(|point| point.hit_ratio == 1.0), "{curve:?}");
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let server = Server::start_here(&["-t", "1", "-m", "1024"]);
    let mut client = Client::of(&server);
    client.each(0..300_000, |number| set(number, number % 100));
    let curve = curve(&server);
    assert!(curve.sampled_objects <= 8192, "{curve:?}");
    assert!(curve.sampled_objects > 2_000, "{curve:?}");
    assert!(curve.bytes <= BYTES_MAX + (64 << 10), "{curve:?}");
}

#[test]
fn counting_begins_anew_with_the_other_statistics() {
    let server = Server::start_here(&["-t", "1"]);
    let mut client = Client::of(&server);
    client.each(0..4_000, |number| set(number, 0));
    client.each(0..4_000, |number| format!("get key-{number}\r\n"));
    assert_eq!(curve(&server).requests, 4_000);
    client.each(0..1, |_| "stats reset\r\n".to_owned());
    let reset = curve(&server);
    assert_eq!((reset.requests, reset.points.len()), (0, 0));
    assert!(reset.sampled_objects > 0, "what is held is still known");
}

#[test]
fn a_server_without_a_curve_says_so() {
    let server = Server::start_here(&["-t", "1", "--no-live-curve"]);
    Client::of(&server).each(0..100, |number| set(number, 0));
    assert_eq!(told(&server), None);
    let ctl = Command::new(Program::Ctl.path())
        .args(["mrc", "--server", &server.address().to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ctl.stderr);
    assert!(!ctl.status.success() && said.contains("--no-live-curve"), "{said}");
}

#[test]
fn the_program_shows_what_more_memory_would_do() {
    let server = Server::start_here(&["-t", "1", "-m", "64"]);
    let mut client = Client::of(&server);
    client.each(0..4_000, |number| set(number, 0));
    client.each(0..4_000, |number| format!("get key-{number}\r\n"));
    let ctl = |flags: &[&str]| {
        let mut ctl = Command::new(Program::Ctl.path());
        ctl.args(["mrc", "--server", &server.address().to_string()]).args(flags);
        let output = ctl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = ctl(&[]);
    assert!(table.contains("64 MiB more would do: hit ratio +0.0 points"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&ctl(&["--json"])).unwrap();
    assert_eq!(json["points"].as_array().unwrap().len(), 10);
    assert_eq!(json["requests"], 4_000);
}
