//! A loaded server, ended again and again at random moments, and read after every restart.
//!
//! ```text
//! start ── read every key ── load ── end ── (start, end within 50 ms) x 0..4 ── start ── ...
//!              ^ while it restores     ^ killed: at any moment, within a large value, in a flush
//!                                        stopped in order, by each of three signals
//!                                        killed after the load has stopped, so that counts are exact
//! ```
//!
//! Each client has keys of its own and a [`Ledger`] of them. When the server is ended each has one
//! operation under way at most; whatever else was done was acknowledged, and must be there.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::connection::Connection;
use crate::ledger::{Answer, Flushes, Forgetting, Ledger, Op, Rest, Rule, Span};
use crate::process::{Launcher, Process};
use crate::wait::{self, Stopwatch};

/// The longest value that fits the largest item of the default size together with its key.
const VALUE_BYTES_MAX: usize = 1_048_000;
/// Keys read in one go when everything is read.
const KEYS_PER_READ: usize = 50;
/// How long a restart may take, for a server that is built without optimisations.
const RESTORE_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to be full; a campaign that fills none fails by itself.
const FILL_LIMIT: Duration = Duration::from_secs(20);
/// Items written before a server with memory to spare is ended for the first time.
const ITEMS_TO_BEGIN_WITH: u64 = 5_000;
/// One in so many keys counts.
const COUNTER_SHARE: u32 = 10;
/// The delay of a flush that is not to happen at once.
const FLUSH_DELAY_S: u32 = 1;
/// After so long a delayed flush is over, whatever the server's clock counts in.
const FLUSH_OVER: Duration = Duration::from_millis(2_300);

/// What a campaign does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's command lines, the memory file included, listening apart. Each start takes one of
    /// them; where they cut the memory in other ways the file is converted, and killed meanwhile too.
    pub command_lines: Vec<Vec<String>>,
    /// How often the server is ended.
    pub ends: u32,
    /// Where all chance comes from, but for the moments of the machine.
    pub seed: u64,
    /// What the server may forget.
    pub forgetting: Forgetting,
    /// Clients, each with a connection and keys of its own.
    pub clients: u64,
    /// Keys of each client.
    pub keys: u32,
    /// Of these, keys with large values.
    pub large_keys: u32,
    /// How many times as long the other values are as they are otherwise: about 1 KB.
    pub value_scale: usize,
    /// What `cache_memlimit` is set to now and then, and back to, in MiB; none: never.
    pub memory_limits: Option<[u32; 2]>,
}

/// What a campaign did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Ends by SIGKILL under load.
    pub kills: u64,
    /// Of these, with an operation under way that was not answered, on all clients together.
    pub unanswered: u64,
    /// Ends by SIGKILL during the start.
    pub kills_at_start: u64,
    /// Ends by SIGKILL after the load had stopped.
    pub quiet_kills: u64,
    /// Orderly stops.
    pub stops: u64,
    /// Operations acknowledged.
    pub operations: u64,
    /// Items found when everything was read.
    pub found: u64,
    /// Items evicted, going by the server that said most: the count begins anew after a kill.
    pub evicted: u64,
}

/// How the server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    KillInLargeValues,
    KillInFlush,
    KillBeforeDelayedFlush,
    KillAtRest,
    Stop(&'static str),
    StopAtRest(&'static str),
}

impl End {
    fn draw(random: &mut StdRng) -> Self {
        let signal = ["TERM", "INT", "USR1"][random.random_range(0..3)];
        match random.random_range(0..20) {
            0..7 => Self::Kill,
            7..10 => Self::KillInLargeValues,
            10..12 => Self::KillInFlush,
            12 => Self::KillBeforeDelayedFlush,
            13..16 => Self::KillAtRest,
            16..18 => Self::Stop(signal),
            _ => Self::StopAtRest(signal),
        }
    }
}

/// How long the server is loaded.
#[derive(Debug, Clone, Copy)]
struct Load {
    ms: u64,
    /// Whether it is filled before.
    fills: bool,
}

/// What the clients are told while they load the server.
#[derive(Debug, Default)]
struct Signals {
    /// To end with the operation under way.
    stop: AtomicBool,
    /// To write large values, mostly.
    large: AtomicBool,
    /// That the server is about to be gone.
    ending: AtomicBool,
}

/// One client, its keys, and what it knows of them.
struct Walker {
    number: u64,
    keys: u32,
    large_keys: u32,
    value_scale: usize,
    ledger: Ledger,
    random: StdRng,
}

/// Time, and what is common to all clients.
struct Scene {
    clock: Stopwatch,
    flushes: Flushes,
}

impl Scene {
    fn now_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).expect("a test ends within a few days")
    }

    fn since(&self, from_us: u64) -> Span {
        Span { from_us, to_us: self.now_us() }
    }
}

/// What a server said of itself when nothing was going on.
#[derive(Debug, Clone, Copy)]
struct AtRest {
    items: u64,
    stored: u64,
    evicted: u64,
    at_us: u64,
}

/// Runs a campaign.
///
/// # Panics
/// When the server says what cannot be, does not come back, or ends by itself.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let launchers: Vec<Launcher> = plan
        .command_lines
        .iter()
        .map(|line| Launcher::new(&line.iter().map(String::as_str).collect::<Vec<_>>()))
        .collect();
    let scene = Scene { clock: Stopwatch::start(), flushes: Flushes::default() };
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut walkers: Vec<Walker> = (0..plan.clients)
        .map(|number| Walker {
            number,
            keys: plan.keys,
            large_keys: plan.large_keys,
            value_scale: plan.value_scale,
            ledger: Ledger::new(plan.forgetting),
            random: StdRng::seed_from_u64(plan.seed.wrapping_add(1 + number)),
        })
        .collect();
    let mut report = Report::default();
    let mut process = launchers[0].start();
    let mut flush_over_us = 0;
    for number in 0..plan.ends {
        let end = match End::draw(&mut random) {
            // One delayed flush at a time: a later one would replace it.
            End::KillInFlush | End::KillBeforeDelayedFlush if scene.now_us() < flush_over_us => {
                End::Kill
            }
            end => end,
        };
        let load = Load { ms: random.random_range(5..250), fills: number == 0 };
        let told = |what: &str| format!("end {number}, {end:?}, {what}");
        let at_rest =
            round(&mut walkers, process, &scene, plan, end, load, &mut random, &mut report);
        match end {
            End::KillBeforeDelayedFlush => {
                flush_over_us =
                    scene.now_us() + u64::try_from(FLUSH_OVER.as_micros()).unwrap_or(u64::MAX);
                if random.random_bool(0.5) {
                    // It comes due while there is no server.
                    wait::pass(FLUSH_OVER);
                }
            }
            // Killed while it restores, more than once sometimes. What is restored in order is
            // compared in full below, so there it is left alone.
            End::Kill | End::KillInLargeValues | End::KillInFlush if random.random_bool(0.4) => {
                for _ in 0..random.random_range(1..4) {
                    let starting = any(&launchers, &mut random).spawn();
                    wait::pass(Duration::from_micros(random.random_range(0..50_000)));
                    starting.kill();
                    report.kills_at_start += 1;
                }
            }
            _ => {}
        }
        process = any(&launchers, &mut random).start();
        if let Some(before) = at_rest {
            let may_flush = before.at_us < flush_over_us;
            let lost_max = |now_us| match may_flush {
                true => before.items,
                false => walkers.iter().map(|it| it.ledger.count_over(now_us)).sum(),
            };
            let told = told("afterwards");
            let stats = settled(&mut process, &told);
            compare_counts(&stats, before, lost_max(scene.now_us()), &told);
            // Another command line may have the file converted, which counts anew.
            if launchers.len() == 1 {
                compare_kind(&stats, before, end, &told);
            }
        }
        let found = read_everything(&mut walkers, &process, &scene);
        report.found += found;
        let now = settled(&mut process, &told("restored"));
        report.evicted = report.evicted.max(stat(&now, "evictions"));
    }
    process.stop("TERM");
    report
}

fn any<'a>(launchers: &'a [Launcher], random: &mut StdRng) -> &'a Launcher {
    &launchers[random.random_range(0..launchers.len())]
}

/// Loads the server and ends it; what it said before, if that was asked when the load had stopped.
#[expect(clippy::too_many_arguments, reason = "everything a round is about, once")]
fn round(
    walkers: &mut [Walker],
    mut process: Process,
    scene: &Scene,
    plan: &Plan,
    end: End,
    load: Load,
    random: &mut StdRng,
    report: &mut Report,
) -> Option<AtRest> {
    let signals = Signals::default();
    signals.large.store(end == End::KillInLargeValues, Ordering::SeqCst);
    let address = process.address();
    std::thread::scope(|scope| {
        let clients: Vec<_> = walkers
            .iter_mut()
            .map(|walker| scope.spawn(|| walker.load(address, &signals, scene)))
            .collect();
        let mut control = process.connect();
        if let Some([low, high]) = plan.memory_limits.filter(|_| random.random_bool(0.2)) {
            wait::pass(Duration::from_millis(load.ms / 2));
            for mib in [low, high] {
                ask(&mut control, &format!("cache_memlimit {mib}\r\n"), "OK");
            }
        }
        if load.fills {
            wait::until(FILL_LIMIT, || {
                let stats = stats(&mut control);
                report.evicted = stat(&stats, "evictions");
                let is_full = match plan.forgetting {
                    Forgetting::Nothing => stat(&stats, "total_items") > ITEMS_TO_BEGIN_WITH,
                    Forgetting::Anything => stat(&stats, "evictions") > 0,
                };
                is_full.then_some(())
            });
        }
        wait::pass(Duration::from_millis(load.ms));
        let mut flush = None;
        match end {
            End::KillInFlush => {
                let begun = scene.flushes.begin(scene.now_us(), 0);
                // Not `ask`: its answer may never come.
                control.send(b"flush_all\r\n").expect("it takes a line");
                let is_answered = random.random_bool(0.3);
                if is_answered {
                    let line = control.receive_line().expect("it answers");
                    assert_eq!(line.as_deref(), Some(b"OK".as_slice()));
                    scene.flushes.end(begun, scene.now_us(), true);
                } else {
                    wait::pass(Duration::from_micros(random.random_range(0..2_000)));
                    flush = Some(begun);
                }
            }
            End::KillBeforeDelayedFlush => {
                let begun = scene.flushes.begin(scene.now_us(), FLUSH_DELAY_S);
                ask(&mut control, &format!("flush_all {FLUSH_DELAY_S}\r\n"), "OK");
                scene.flushes.end(begun, scene.now_us(), true);
                wait::pass(Duration::from_millis(random.random_range(0..300)));
            }
            _ => {}
        }
        let is_at_rest = matches!(end, End::KillAtRest | End::StopAtRest(_));
        if is_at_rest {
            signals.stop.store(true, Ordering::SeqCst);
        } else {
            signals.ending.store(true, Ordering::SeqCst);
        }
        let mut join = |clients: Vec<std::thread::ScopedJoinHandle<'_, Loaded>>| {
            for client in clients {
                let loaded = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                report.operations += loaded.operations;
                report.unanswered += u64::from(loaded.was_cut);
            }
        };
        let mut at_rest = None;
        let mut clients = clients;
        if is_at_rest {
            join(std::mem::take(&mut clients));
            let stats = stats(&mut control);
            at_rest = Some(AtRest {
                items: stat(&stats, "curr_items"),
                stored: stat(&stats, "total_items"),
                evicted: stat(&stats, "evictions"),
                at_us: scene.now_us(),
            });
        }
        assert_eq!(process.ended(), None, "it has ended by itself: {}", process.said());
        match end {
            End::Stop(signal) | End::StopAtRest(signal) => {
                process.stop(signal);
                report.stops += 1;
            }
            _ => {
                process.kill();
                if is_at_rest { report.quiet_kills += 1 } else { report.kills += 1 }
            }
        }
        if let Some(begun) = flush {
            scene.flushes.end(begun, scene.now_us(), false);
        }
        join(clients);
        at_rest
    })
}

/// Holds a server that was restarted at rest against what it was before.
fn compare_counts(stats: &[(String, String)], before: AtRest, lost_max: u64, told: &str) {
    let items = stat(stats, "curr_items");
    let is_right = items <= before.items && items + lost_max >= before.items;
    assert!(is_right, "{told}: {items} items of {before:?}, of which {lost_max} may be over");
}

/// Whether it came back in the way of its end, with the counters that are kept then.
fn compare_kind(stats: &[(String, String)], before: AtRest, end: End, told: &str) {
    if let End::StopAtRest(_) = end {
        assert_eq!(text(stats, "restore_kind"), "snapshot", "{told}");
        assert_eq!(stat(stats, "total_items"), before.stored, "{told}");
        assert_eq!(stat(stats, "evictions"), before.evicted, "{told}");
    } else {
        assert_eq!(text(stats, "restore_kind"), "walk", "{told}");
    }
}

/// Waits until everything is restored; what the server says of itself then.
fn settled(process: &mut Process, told: &str) -> Vec<(String, String)> {
    let mut control = process.connect();
    let restored = wait::until_promptly(RESTORE_LIMIT, || {
        let stats = stats(&mut control);
        (stat(&stats, "restoring") == 0).then_some(stats)
    });
    let stats = restored.unwrap_or_else(|| panic!("{told}: restoring goes on and on"));
    // A process that is killed damages nothing: what it leaves unfinished is no damage.
    let damage = (stat(&stats, "restore_dropped_records"), stat(&stats, "restore_damaged_bytes"));
    assert_eq!(damage, (0, 0), "{told}: {}", process.said());
    stats
}

fn read_everything(walkers: &mut [Walker], process: &Process, scene: &Scene) -> u64 {
    let address = process.address();
    std::thread::scope(|scope| {
        let readers: Vec<_> = walkers
            .iter_mut()
            .map(|walker| scope.spawn(|| walker.read_everything(address, scene)))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    })
}

/// What a client did before the server was gone or it was told to stop.
struct Loaded {
    operations: u64,
    /// Whether an operation was not answered.
    was_cut: bool,
}

impl Walker {
    fn load(&mut self, address: SocketAddr, signals: &Signals, scene: &Scene) -> Loaded {
        let mut operations = 0;
        let mut connection = match Connection::open(address) {
            Ok(connection) => connection,
            Err(error) => return cut(&error, signals, operations, false),
        };
        while !signals.stop.load(Ordering::SeqCst) {
            let (key, op) = self.draw(signals.large.load(Ordering::SeqCst));
            let is_meta = self.random.random_bool(0.5);
            let mut bytes = Vec::new();
            write_op(&self.name(key), &op, is_meta, &mut bytes);
            let sent_us = scene.now_us();
            let answer =
                send(&mut connection, &bytes).and_then(|()| receive(&mut connection, &op, is_meta));
            let span = scene.since(sent_us);
            match answer {
                Ok(answer) => self.judge(key, &op, &answer, span, scene),
                Err(error) => {
                    self.ledger.unanswered(key, &op, span, &scene.flushes);
                    return cut(&error, signals, operations, true);
                }
            }
            operations += 1;
        }
        Loaded { operations, was_cut: false }
    }

    /// Reads every key that was ever written; how many are there.
    fn read_everything(&mut self, address: SocketAddr, scene: &Scene) -> u64 {
        let mut connection = Connection::open(address).expect("it serves");
        let mut found = 0;
        for keys in self.ledger.keys().chunks(KEYS_PER_READ) {
            let mut bytes = Vec::new();
            for &key in keys {
                write_op(&self.name(key), &Op::Get, true, &mut bytes);
            }
            let sent_us = scene.now_us();
            connection.send(&bytes).expect("it serves");
            for &key in keys {
                let answer = receive(&mut connection, &Op::Get, true)
                    .unwrap_or_else(|error| panic!("a read of {key} failed: {error}"));
                found += u64::from(answer != Answer::Missing);
                self.judge(key, &Op::Get, &answer, scene.since(sent_us), scene);
            }
        }
        found
    }

    fn judge(&mut self, key: u32, op: &Op, answer: &Answer, span: Span, scene: &Scene) {
        if let Err(wrong) = self.ledger.answered(key, op, answer, span, &scene.flushes) {
            panic!("client {}, key {key}: {wrong}", self.number);
        }
    }

    fn name(&self, key: u32) -> Vec<u8> {
        let filler = ".".repeat(usize::try_from(key % 97).unwrap_or_default());
        format!("{}:{key}{filler}", self.number).into_bytes()
    }

    /// What is done next, to which key.
    fn draw(&mut self, large: bool) -> (u32, Op) {
        let random = &mut self.random;
        let is_large = random.random_bool(if large { 0.8 } else { 0.01 });
        let key = if is_large {
            random.random_range(0..self.large_keys)
        } else {
            random.random_range(self.large_keys..self.keys)
        };
        let counts = !is_large && key.is_multiple_of(COUNTER_SHARE);
        let op = match random.random_range(0..100) {
            0..10 => Op::Get,
            10..48 => self.put(Rule::Always, is_large, counts),
            48..52 => self.put(Rule::IfAbsent, is_large, counts),
            52..56 => self.put(Rule::IfPresent, is_large, counts),
            56..62 => match self.ledger.cas(key) {
                Some(cas) => {
                    let wrong = u64::from(self.random.random_bool(0.3));
                    self.put(Rule::IfCas(cas + wrong), is_large, counts)
                }
                None => Op::Get,
            },
            62..78 if counts => {
                Op::Count { is_up: random.random_bool(0.7), delta: random.random_range(0..1000) }
            }
            62..70 if !is_large => {
                let len = random.random_range(0..200);
                Op::Extend { at_end: random.random_bool(0.5), value: bytes(random, len) }
            }
            62..80 => Op::Touch { ttl_s: ttl_s(random), reads: random.random_bool(0.5) },
            80..92 => Op::Delete,
            92..94 => Op::Invalidate,
            _ => Op::Count { is_up: true, delta: 1 },
        };
        (key, op)
    }

    fn put(&mut self, rule: Rule, is_large: bool, counts: bool) -> Op {
        let random = &mut self.random;
        let value = if counts {
            random.random::<u32>().to_string().into_bytes()
        } else {
            let len = match random.random_range(0..100) {
                _ if is_large => random.random_range(1..=VALUE_BYTES_MAX),
                0..5 => random.random_range(0..20_000 * self.value_scale),
                5..30 => random.random_range(0..3_000 * self.value_scale),
                _ => random.random_range(0..300 * self.value_scale),
            };
            bytes(random, len)
        };
        Op::Put { rule, value, flags: random.random(), ttl_s: ttl_s(random) }
    }
}

/// A client met the end of its connection.
fn cut(error: &io::Error, signals: &Signals, operations: u64, was_cut: bool) -> Loaded {
    assert!(error.kind() != io::ErrorKind::TimedOut, "{error}");
    assert!(signals.ending.load(Ordering::SeqCst), "the connection ended by itself: {error}");
    Loaded { operations, was_cut }
}

/// Any bytes that are certainly no number.
fn bytes(random: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    if let Some(first) = bytes.first_mut() {
        *first = b'x';
    }
    bytes
}

/// Mostly for ever, sometimes for long, seldom for a moment.
fn ttl_s(random: &mut StdRng) -> u32 {
    match random.random_range(0..20) {
        0 => random.random_range(1..4),
        1..6 => random.random_range(1_000..100_000),
        _ => 0,
    }
}

/// Sends a large request in parts, so that the server can be ended between them.
fn send(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    const PART_BYTES: usize = 256 * 1024;
    for (number, part) in bytes.chunks(PART_BYTES).enumerate() {
        if number > 0 {
            wait::pass(Duration::from_micros(300));
        }
        connection.send(part)?;
    }
    Ok(())
}

fn write_op(key: &[u8], op: &Op, is_meta: bool, to: &mut Vec<u8>) {
    let key = String::from_utf8_lossy(key);
    let line = match (op, is_meta) {
        (Op::Get, true) => format!("mg {key} v f c t"),
        (Op::Get, false) => format!("gets {key}"),
        (Op::Put { rule, value, flags, ttl_s }, true) => {
            let rule = match rule {
                Rule::Always => "MS".to_owned(),
                Rule::IfAbsent => "ME".to_owned(),
                Rule::IfPresent => "MR".to_owned(),
                Rule::IfCas(cas) => format!("C{cas}"),
            };
            format!("ms {key} {} F{flags} T{ttl_s} c {rule}", value.len())
        }
        (Op::Put { rule, value, flags, ttl_s }, false) => {
            let (command, cas) = match rule {
                Rule::Always => ("set", String::new()),
                Rule::IfAbsent => ("add", String::new()),
                Rule::IfPresent => ("replace", String::new()),
                Rule::IfCas(cas) => ("cas", format!(" {cas}")),
            };
            format!("{command} {key} {flags} {ttl_s} {}{cas}", value.len())
        }
        (Op::Extend { at_end, value }, true) => {
            format!("ms {key} {} c {}", value.len(), if *at_end { "MA" } else { "MP" })
        }
        (Op::Extend { at_end, value }, false) => {
            format!("{} {key} 0 0 {}", if *at_end { "append" } else { "prepend" }, value.len())
        }
        (Op::Count { is_up, delta }, true) => {
            format!("ma {key} {} D{delta} v", if *is_up { "MI" } else { "MD" })
        }
        (Op::Count { is_up, delta }, false) => {
            format!("{} {key} {delta}", if *is_up { "incr" } else { "decr" })
        }
        (Op::Delete, true) => format!("md {key}"),
        (Op::Delete, false) => format!("delete {key}"),
        (Op::Touch { ttl_s, reads: true }, true) => format!("mg {key} T{ttl_s} v f c t"),
        (Op::Touch { ttl_s, reads: true }, false) => format!("gats {ttl_s} {key}"),
        (Op::Touch { ttl_s, reads: false }, true) => format!("mg {key} T{ttl_s}"),
        (Op::Touch { ttl_s, reads: false }, false) => format!("touch {key} {ttl_s}"),
        (Op::Invalidate, _) => format!("md {key} I"),
    };
    to.extend_from_slice(line.as_bytes());
    to.extend_from_slice(b"\r\n");
    if let Op::Put { value, .. } | Op::Extend { value, .. } = op {
        to.extend_from_slice(value);
        to.extend_from_slice(b"\r\n");
    }
}

fn receive(connection: &mut Connection, op: &Op, is_meta: bool) -> io::Result<Answer> {
    let line = line(connection)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["VALUE", _key, flags, len, cas] => {
            let value = connection.receive_block(number(len)?)?;
            match self::line(connection)?.as_str() {
                "END" => {
                    let (flags, cas) = (number(flags)?, number(cas)?);
                    Ok(Answer::Value { value, flags, cas, rest: None })
                }
                other => Err(unexpected(other)),
            }
        }
        ["VA", len, marks @ ..] => {
            let value = connection.receive_block(number(len)?)?;
            if let Op::Count { .. } = op {
                return number(&String::from_utf8_lossy(&value)).map(Answer::Number);
            }
            let mark = |name: char| marks.iter().find_map(|mark| mark.strip_prefix(name));
            let (Some(flags), Some(cas), Some(ttl)) = (mark('f'), mark('c'), mark('t')) else {
                return Err(unexpected(&line));
            };
            let ttl_s = if ttl == "-1" { None } else { Some(number(ttl)?) };
            let rest = Some(Rest { ttl_s, is_stale: marks.contains(&"X") });
            Ok(Answer::Value { value, flags: number(flags)?, cas: number(cas)?, rest })
        }
        ["HD", marks @ ..] => {
            let cas = marks.iter().find_map(|mark| mark.strip_prefix('c'));
            Ok(Answer::Done(cas.map(number).transpose()?))
        }
        ["STORED" | "DELETED" | "TOUCHED"] => Ok(Answer::Done(None)),
        ["NOT_STORED"] | ["NS", ..] => Ok(Answer::NotStored),
        ["EXISTS"] | ["EX", ..] => Ok(Answer::Exists),
        ["END" | "NOT_FOUND" | "EN"] | ["NF", ..] => Ok(Answer::Missing),
        ["CLIENT_ERROR", "cannot", "increment", ..] => Ok(Answer::NotANumber),
        ["SERVER_ERROR", "out", "of", "memory", ..] => Ok(Answer::Refused),
        [digits] if !is_meta => number(digits).map(Answer::Number),
        _ => Err(unexpected(&line)),
    }
}

fn line(connection: &mut Connection) -> io::Result<String> {
    let line = connection.receive_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
    String::from_utf8(line).map_err(io::Error::other)
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| unexpected(text))
}

/// Says itself that it is wrong: no end of a connection excuses it.
fn unexpected(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("unexpected answer: {text}"))
}

fn ask(connection: &mut Connection, request: &str, expected: &str) {
    connection.send(request.as_bytes()).expect("it takes a line");
    let answer = connection.receive_line().expect("it answers");
    assert_eq!(answer.as_deref(), Some(expected.as_bytes()), "{request}");
}

/// What the server says of itself, in general and of its own: what it restored, and its backups.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn stats(connection: &mut Connection) -> Vec<(String, String)> {
    // Its restart first: when that says that all is restored, what is counted after it is all there is.
    ["stats restore", "stats backup", "stats"]
        .into_iter()
        .flat_map(|request| stats_of(connection, request))
        .collect()
}

/// What the server answers to `request`, which asks for statistics.
///
/// # Panics
/// When it answers something else.
#[must_use]
pub fn stats_of(connection: &mut Connection, request: &str) -> Vec<(String, String)> {
    connection.send(format!("{request}\r\n").as_bytes()).expect("it takes a line");
    let mut stats = Vec::new();
    loop {
        let line = line(connection).expect("it answers");
        match line.splitn(3, ' ').collect::<Vec<_>>().as_slice() {
            ["END"] => return stats,
            ["STAT", name, value] => stats.push(((*name).to_owned(), (*value).to_owned())),
            _ => panic!("{line} is no statistic"),
        }
    }
}

/// One of its statistics.
///
/// # Panics
/// When there is none of this name.
#[must_use]
pub fn text<'a>(stats: &'a [(String, String)], name: &str) -> &'a str {
    let found = stats.iter().find(|(it, _)| it == name);
    found.map_or_else(|| panic!("there is no {name} in {stats:?}"), |(_, value)| value)
}

/// One of its statistics that is a number.
///
/// # Panics
/// When there is none of this name, or it is none.
#[must_use]
pub fn stat(stats: &[(String, String)], name: &str) -> u64 {
    let value = text(stats, name);
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}
