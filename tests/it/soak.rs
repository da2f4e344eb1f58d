//! A full server under random operations of several clients, each held against a model of its own
//! keys. `cargo xtask soak` runs it for as long as `SOAK_SECONDS` says.
//!
//! The server has less memory than the keys need, so it evicts all the time. What is checked: no
//! answer contradicts the model, memory stays within what was promised, the process stays alive.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tests::client::{Client, Dialect};
use tests::model::{Answer, Direction, Key, Model, Request, Rule, Side, Span};
use tests::server::{Server, config};
use tests::wait::Stopwatch;

/// How long `cargo test -- --ignored` runs it by itself.
const SECONDS_DEFAULT: u64 = 60;
const CLIENT_COUNT: u64 = 4;
/// What the server may use for items. The keys of all clients need about four times as much.
const MEMORY_MIB: u64 = 64;
const KEYS_PER_CLIENT: u32 = 40_000;
/// One in so many keys counts.
const COUNTER_SHARE: u32 = 10;
const OPERATIONS_BETWEEN_MEMORY_CHECKS: u64 = 2_000;

/// One client's share of the run.
struct Walk {
    client: Client,
    model: Model,
    random: StdRng,
    number: u64,
    clock: Stopwatch,
    /// The cas of the last value read, to store over it sometimes.
    last_read: Option<(Key, u64)>,
}

#[derive(Debug, Default)]
struct Tally {
    operations: u64,
    hits: u64,
    misses: u64,
    resident_bytes_max: u64,
}

impl Walk {
    fn run(mut self, server: &Server, limit: Duration, resident_bytes_max: u64) -> Tally {
        let mut tally = Tally::default();
        while self.clock.elapsed() < limit {
            self.operation(&mut tally);
            tally.operations += 1;
            if tally.operations.is_multiple_of(OPERATIONS_BETWEEN_MEMORY_CHECKS) {
                let resident = server.resident_bytes().expect("the server is alive");
                tally.resident_bytes_max = tally.resident_bytes_max.max(resident);
                assert!(
                    resident <= resident_bytes_max,
                    "{resident} bytes are resident, {resident_bytes_max} were promised"
                );
            }
        }
        tally
    }

    fn operation(&mut self, tally: &mut Tally) {
        let request = self.request();
        let dialect = if self.random.random_bool(0.5) { Dialect::Classic } else { Dialect::Meta };
        let sent_ms = self.now_ms();
        let answer = match self.client.ask(&request, dialect) {
            Ok(answer) => answer,
            Err(error) => {
                let key = String::from_utf8_lossy(request.key());
                panic!("client {} at {sent_ms} ms, {key}, in {dialect:?}: {error}", self.number);
            }
        };
        let at = Span { sent_ms, received_ms: self.now_ms() };
        if let Err(wrong) = self.model.observe(&request, &answer, at) {
            let key = String::from_utf8_lossy(request.key());
            panic!("client {} at {} ms, {key}, in {dialect:?}: {wrong}", self.number, at.sent_ms);
        }
        match (request, answer) {
            (Request::Get { key }, Answer::Value { cas, .. }) => {
                tally.hits += 1;
                self.last_read = Some((key, cas));
            }
            (Request::Get { .. }, _) => tally.misses += 1,
            _ => {}
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap()
    }

    fn request(&mut self) -> Request {
        let (key, counts) = self.key();
        match self.random.random_range(0..1000) {
            0..400 => Request::Get { key },
            400..700 => self.put(Rule::Always, key, counts),
            700..730 => self.put(Rule::IfAbsent, key, counts),
            730..760 => self.put(Rule::IfPresent, key, counts),
            760..800 => match self.last_read.take() {
                Some((key, cas)) => {
                    let counts = key.starts_with(b"count");
                    self.put(Rule::IfCas(cas), key, counts)
                }
                None => Request::Get { key },
            },
            800..840 if !counts => {
                let side = if self.random.random_bool(0.5) { Side::Front } else { Side::Back };
                let len = self.random.random_range(0..200);
                Request::Extend { key, side, value: self.bytes(len) }
            }
            800..920 => {
                let direction =
                    if self.random.random_bool(0.5) { Direction::Up } else { Direction::Down };
                let delta = self.random.random::<u64>() >> self.random.random_range(0..64);
                Request::Count { key, direction, delta }
            }
            920..960 => Request::Delete { key },
            // Once in a while: a run should be full most of the time.
            999 if self.random.random_ratio(1, 200) => Request::FlushAll,
            _ => Request::Touch { key, ttl_s: self.ttl_s() },
        }
    }

    /// A key of this client alone, the lower ones far more often, and whether it counts.
    fn key(&mut self) -> (Key, bool) {
        let uniform: f64 = self.random.random();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 40,000")]
        let index = (uniform * uniform * f64::from(KEYS_PER_CLIENT)) as u32;
        let counts = index.is_multiple_of(COUNTER_SHARE);
        let name = if counts { "count" } else { "key" };
        let filler = ".".repeat(usize::try_from(index % 97).unwrap());
        (format!("{name}:{}:{index}{filler}", self.number).into_bytes(), counts)
    }

    fn put(&mut self, rule: Rule, key: Key, counts: bool) -> Request {
        let value = if counts {
            self.random.random::<u32>().to_string().into_bytes()
        } else {
            let len = self.len();
            self.bytes(len)
        };
        let (flags, ttl_s) = (self.random.random(), self.ttl_s());
        Request::Put { key, rule, value, flags, ttl_s }
    }

    /// Mostly small, now and then as large as an item may be.
    fn len(&mut self) -> usize {
        match self.random.random_range(0..2000) {
            0 => self.random.random_range(0..1_000_000),
            1..20 => self.random.random_range(0..100_000),
            20..400 => self.random.random_range(0..8_000),
            _ => self.random.random_range(0..1_000),
        }
    }

    /// Any bytes that are certainly no number, whatever a server takes for one.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.random.fill_bytes(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = b'x';
        }
        bytes
    }

    fn ttl_s(&mut self) -> u32 {
        match self.random.random_range(0..10) {
            0 => self.random.random_range(1..4),
            1..4 => self.random.random_range(4..1000),
            _ => 0,
        }
    }
}

fn soak(limit: Duration, seed: u64) {
    let memory = MEMORY_MIB.to_string();
    let arguments = ["-m", memory.as_str(), "-t", "2"];
    let server = Server::start_process(&arguments);
    let configured = config(&arguments);
    let resident_bytes_max =
        u64::try_from(configured.memory_bytes + configured.allowance_bytes()).unwrap();
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENT_COUNT)
            .map(|number| {
                let walk = Walk {
                    client: Client::open(server.address()).unwrap(),
                    model: Model::new(),
                    random: StdRng::seed_from_u64(seed + number),
                    number,
                    clock: Stopwatch::start(),
                    last_read: None,
                };
                let server = &server;
                scope.spawn(move || walk.run(server, limit, resident_bytes_max))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no client saw a wrong answer"))
            .collect()
    });
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let (hits, misses) = (sum(|tally| tally.hits), sum(|tally| tally.misses));
    let resident = tallies.iter().map(|tally| tally.resident_bytes_max).max().unwrap_or(0);
    let operations = sum(|tally| tally.operations);
    #[expect(clippy::print_stderr, reason = "a soak tells what it did")]
    {
        eprintln!(
            "{operations} operations, {hits} hits, {misses} misses, at most {} of {} MiB resident",
            resident >> 20,
            resident_bytes_max >> 20,
        );
    }
    assert!(hits > 0 && misses > 0, "a run without hits or without misses proves nothing");
    assert!(server.stop_with("TERM").success(), "the server ends in order");
}

#[test]
#[ignore = "runs for a minute, or for SOAK_SECONDS; cargo xtask soak"]
fn no_answer_is_wrong_and_memory_stays_within_its_promise() {
    let seconds = std::env::var("SOAK_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = std::env::var("SOAK_SEED").ok().map(|text| text.parse().unwrap());
    soak(Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT)), seed.unwrap_or(1));
}

#[test]
fn a_few_seconds_of_it() {
    soak(Duration::from_secs(3), 2);
}
