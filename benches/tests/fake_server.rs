//! The load generator against a server in this process that is too simple to be wrong, and that
//! misbehaves when told to.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use benches::interrupt::Interrupt;
use benches::keyspace::{Keyspace, Popularity};
use benches::load::{self, Extent, LoadError, Pace, Plan, Target};
use benches::replay::{Expiry, Wanted, replay};
use benches::schedule::Arrivals;
use benches::session::Session;
use benches::value::Values;
use benches::wire::Dialect;
use benches::workload::Workload;
use sim::trace::Access;

/// What the server does wrong.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Flips a bit in every value it gives.
    flips_bits: bool,
    /// Closes the connection at the first get.
    hangs_up: bool,
    /// Does nothing for so long, once, at the get of this number.
    stall: Option<(u64, Duration)>,
    /// Refuses values longer than this.
    value_bytes_max: Option<usize>,
}

#[derive(Default)]
struct Contents {
    items: HashMap<String, Vec<u8>>,
    gets: u64,
}

/// Starts a server that forgets nothing; it lives as long as the test.
fn start(faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    let contents = Arc::new(Mutex::new(Contents::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, contents) = (stream.expect("a client"), Arc::clone(&contents));
            // A client that leaves ends its connection with an error; that is all there is to it.
            thread::spawn(move || serve(&stream, faults, &contents));
        }
    });
    address
}

fn serve(stream: &TcpStream, faults: Faults, contents: &Mutex<Contents>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    let mut out = Vec::new();
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["get", keys @ ..] => {
                let mut contents = contents.lock().expect("no thread has panicked");
                contents.gets += 1;
                if faults.hangs_up {
                    return Ok(());
                }
                if let Some((_, stall)) = faults.stall.filter(|(get, _)| *get == contents.gets) {
                    thread::park_timeout(stall);
                }
                for &key in keys {
                    let Some(value) = contents.items.get(key) else { continue };
                    write!(out, "VALUE {key} 0 {}\r\n", value.len())?;
                    out.extend_from_slice(value);
                    if faults.flips_bits {
                        *out.last_mut().expect("the value's line stands there") ^= 1;
                    }
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"END\r\n");
            }
            ["set", key, "0", "0", value_bytes] => {
                let value_bytes: usize = value_bytes.parse().expect("a length");
                let mut value = vec![0; value_bytes + 2];
                io::Read::read_exact(&mut input, &mut value)?;
                value.truncate(value_bytes);
                if faults.value_bytes_max.is_some_and(|max| value_bytes > max) {
                    out.extend_from_slice(b"SERVER_ERROR object too large for cache\r\n");
                } else {
                    let mut contents = contents.lock().expect("no thread has panicked");
                    contents.items.insert((*key).to_owned(), value);
                    out.extend_from_slice(b"STORED\r\n");
                }
            }
            ["version"] => out.extend_from_slice(b"VERSION 0.0.0-fake\r\n"),
            ["stats"] => {
                let items = contents.lock().expect("no thread has panicked").items.len();
                write!(out, "STAT curr_items {items}\r\nEND\r\n")?;
            }
            _ => out.extend_from_slice(b"ERROR\r\n"),
        }
        line.clear();
        if input.buffer().is_empty() {
            (&*stream).write_all(&out)?;
            out.clear();
        }
    }
    Ok(())
}

fn workload() -> Workload {
    Workload {
        keyspace: Keyspace::new(500, 16).expect("500 keys fit 16 bytes"),
        popularity: Popularity::Uniform,
        value_bytes: 1..=5000,
        get_share: 1.0,
        keys_per_get: 1,
        dialect: Dialect::Text,
        fill: false,
        values: Values::new(),
        checks: true,
    }
}

fn plan(server: SocketAddr, requests: u64) -> Plan {
    Plan {
        targets: vec![Target::any_key(server)],
        connections: 6,
        threads: 2,
        depth: 3,
        pace: Pace::Closed,
        warm_up: Duration::ZERO,
        extent: Extent::Requests(requests),
        seed: 7,
        cores: Vec::new(),
        server_pids: Vec::new(),
    }
}

fn run(plan: &Plan, workload: &Workload) -> Result<load::Outcome, LoadError> {
    load::run(plan, workload, &Interrupt::default(), |_| {})
}

#[test]
fn after_a_filling_every_get_is_a_hit_with_its_own_value() {
    let plan = plan(start(Faults::default()), 5000);
    let filled = load::fill(&plan, &workload(), &Interrupt::default(), |_| {}).unwrap();
    assert_eq!((filled.tally.sets, filled.tally.refused), (500, 0));
    assert_eq!(Session::connect(plan.targets[0].address).unwrap().items().unwrap(), 500);
    let outcome = run(&plan, &workload()).unwrap();
    assert_eq!((outcome.tally.gets, outcome.tally.hits), (5000, 5000));
    assert_eq!((outcome.tally.misses, outcome.tally.wrong), (0, 0));
    assert_eq!(outcome.tally.get_latency.len(), 5000);
}

#[test]
fn what_a_get_missed_is_set_when_the_workload_fills() {
    let plan = plan(start(Faults::default()), 3000);
    let outcome = run(&plan, &Workload { fill: true, keys_per_get: 5, ..workload() }).unwrap();
    let tally = &outcome.tally;
    assert_eq!((tally.gets, tally.hits + tally.misses), (3000, 15_000));
    assert_eq!(tally.sets, tally.misses, "every miss is set");
    assert_eq!(Session::connect(plan.targets[0].address).unwrap().items().unwrap(), 500);
}

#[test]
fn a_server_that_flips_a_bit_is_found_out() {
    let plan = plan(start(Faults { flips_bits: true, ..Faults::default() }), 300);
    load::fill(&plan, &workload(), &Interrupt::default(), |_| {}).unwrap();
    let outcome = run(&plan, &workload()).unwrap();
    assert_eq!(outcome.tally.wrong, 300);
}

#[test]
fn a_server_that_hangs_up_ends_the_run() {
    let plan = plan(start(Faults { hangs_up: true, ..Faults::default() }), 300);
    let error = run(&plan, &workload()).unwrap_err();
    assert!(matches!(error, LoadError::Closed { .. } | LoadError::Connection(_)), "{error}");
}

#[test]
fn a_stall_is_felt_by_every_request_due_while_it_lasts() {
    let stall = Duration::from_millis(400);
    let server = start(Faults { stall: Some((500, stall)), ..Faults::default() });
    // 1,000 a second, so some 400 of 2,000 are due while nothing moves; a closed loop would see the
    // stall in no more than the six requests that its connections wait for.
    let pace = Pace::Open { rate: 1000.0, arrivals: Arrivals::Constant };
    let extent = Extent::Time(Duration::from_secs(2));
    let plan = Plan { pace, extent, depth: 1, threads: 1, ..plan(server, 0) };
    let outcome = run(&plan, &workload()).unwrap();
    let latency = &outcome.tally.get_latency;
    assert!((1990..=2000).contains(&latency.len()), "{} requests were due", latency.len());
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
    let felt = latency.len() - latency.count_between(0, ns(Duration::from_millis(20)));
    assert!(felt > 300, "{felt} requests waited over 20 ms");
    assert!(latency.max() > ns(stall.mul_f64(0.9)));
}

#[test]
fn replaying_misses_what_was_never_seen_or_was_refused() {
    let server = start(Faults { value_bytes_max: Some(1000), ..Faults::default() });
    let trace =
        [(1, 10), (2, 0), (1, 99), (3, 1001), (3, 1001), (2, 5), (u64::MAX, 7), (u64::MAX, 7)];
    let trace =
        trace.map(|(id, bytes)| Ok::<_, io::Error>(Wanted::from(Access::get(0, id, bytes))));
    let replayed = replay(trace, server, 1, Expiry::Log, &Interrupt::default(), |_| {}).unwrap();
    assert_eq!((replayed.requests, replayed.hits), (8, 3));
    assert_eq!((replayed.stored, replayed.refused, replayed.wrong), (3, 2, 0));
    assert_eq!(replayed.samples[0], "SERVER_ERROR object too large for cache");
    assert!((replayed.hit_percent() - 37.5).abs() < 1e-9);
}

#[test]
fn a_replayed_object_has_its_id_as_key_and_its_size_as_length() {
    let server = start(Faults::default());
    let trace = [Ok::<_, io::Error>(Wanted::from(Access::get(0, 42, 5)))];
    replay(trace, server, 1, Expiry::Log, &Interrupt::default(), |_| {}).unwrap();
    let mut session = Session::connect(server).unwrap();
    session.output().extend_from_slice(b"get 42\r\n");
    let hit = session.reply(|reply| reply.describe()).unwrap();
    assert_eq!(hit, "the value of '42', 5 bytes");
}
