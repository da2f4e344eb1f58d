//! The near cache with writers elsewhere: no read is staler than promised, whatever becomes of the streams.
//!
//! Each key has one writer, which writes greater and greater numbers and notes when each was acknowledged. A reader that
//! finds a number looks when the next one was acknowledged: if that was before it asked, it was served something stale,
//! by that much at most. The writers know nothing of the near caches.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_client::near::{Kind, NearCounters};
use cache_client::{Client, Config, Near, NearConfig, Ttl, Written};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tests::cluster_rig::{Layout, Memory, Rig};
use tests::server::{Server as Subject, Subject as WhichServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
const LIFE: Ttl = Ttl::seconds(600);
const WRITERS: usize = 3;
const READERS: usize = 4;
const KEYS_EACH: usize = 20;

fn at(address: SocketAddr) -> cache_client::Server {
    cache_client::Server::new(address.ip().to_string(), address.port())
}

fn client_of(address: SocketAddr) -> Client {
    let mut config = Config::new([at(address)]);
    config.timeout = Duration::from_secs(10);
    Client::new(config)
}

fn near_config() -> NearConfig {
    NearConfig {
        bytes_max: 1 << 20,
        eviction: Kind::S3Fifo,
        absent_ttl_max: Some(Duration::from_secs(30)),
        silence_max: Duration::from_secs(1),
        ping_interval: 200 * MS,
        ..NearConfig::default()
    }
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(LIMIT, async {
        while !holds() {
            sleep(5 * MS).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

async fn followed(client: Client, config: NearConfig, streams: usize) -> Near {
    let near = Near::new(client, config);
    until("the streams are up", || near.counters().streams == streams).await;
    near
}

async fn read(near: &Near, key: &str) -> Option<String> {
    let found = near.get(key).await.expect("it is answered");
    found.map(|value| String::from_utf8_lossy(&value.data).into_owned())
}

/// The value of a key once it is served from the cache: a change that was made just before may be told just now, and then
/// what is read meanwhile is not kept.
async fn kept(near: &Near, key: &str) -> Option<String> {
    let before = near.counters().hits;
    let served = timeout(LIMIT, async {
        loop {
            let found = read(near, key).await;
            if near.counters().hits > before {
                return found;
            }
        }
    });
    served.await.expect("it is kept")
}

/// A key, and when each of its numbers was acknowledged, from 0 on. After a failure another key takes its place: what
/// became of the write is not known.
#[derive(Default)]
struct Slot {
    key: String,
    acknowledged: Vec<Instant>,
}

/// What writers have written and readers have found.
struct Scene {
    slots: Vec<Mutex<Slot>>,
    ends: AtomicBool,
    writes: AtomicU64,
    reads: AtomicU64,
    failures: AtomicU64,
    /// The worst there was.
    worst: Mutex<Duration>,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: (0..WRITERS * KEYS_EACH).map(|_| Mutex::default()).collect(),
            ends: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            worst: Mutex::default(),
        })
    }

    fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Relaxed)
    }

    /// Writes numbers to the keys of one writer, some by setting, some by counting.
    async fn write(self: Arc<Self>, client: Client, writer: usize, pause: Duration) {
        let mut random = StdRng::seed_from_u64(writer as u64);
        let mut generation = 0;
        while self.goes_on() {
            let place = writer * KEYS_EACH + random.random_range(0..KEYS_EACH);
            let (key, number) = {
                let mut slot = self.slots[place].lock().unwrap();
                if slot.key.is_empty() {
                    slot.key = format!("near:{place}:{generation}");
                    generation += 1;
                }
                (slot.key.clone(), slot.acknowledged.len())
            };
            let written = if number > 0 && number.is_multiple_of(3) {
                client.incr(&key, 1).await.map(|it| it == Some(number as u64))
            } else {
                client.set(&key, number.to_string(), LIFE).await.map(Written::is_stored)
            };
            self.note(place, written.is_ok_and(|is_it| is_it));
            sleep(pause).await;
        }
    }

    fn note(&self, place: usize, is_acknowledged: bool) {
        let mut slot = self.slots[place].lock().unwrap();
        if is_acknowledged {
            slot.acknowledged.push(Instant::now());
            self.writes.fetch_add(1, Ordering::Relaxed);
        } else {
            *slot = Slot::default();
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads keys, some more often than others.
    async fn read(self: Arc<Self>, near: Near, reader: u64) {
        let mut random = StdRng::seed_from_u64(1000 + reader);
        let bound = near.staleness_max();
        while self.goes_on() {
            let most = random.random_range(1..=self.slots.len());
            let place = random.random_range(0..most);
            let key = self.slots[place].lock().unwrap().key.clone();
            if key.is_empty() {
                sleep(MS).await;
                continue;
            }
            let asked_at = Instant::now();
            let found = near.get(&key).await;
            self.reads.fetch_add(1, Ordering::Relaxed);
            if let Ok(Some(value)) = found {
                let number: usize = String::from_utf8_lossy(&value.data).parse().expect("a number");
                let slot = self.slots[place].lock().unwrap();
                let next = slot.acknowledged.get(number + 1).filter(|_| slot.key == key);
                let stale =
                    next.map_or(Duration::ZERO, |&it| asked_at.saturating_duration_since(it));
                drop(slot);
                assert!(stale <= bound, "{key} was {number} for {stale:?} too long");
                let mut worst = self.worst.lock().unwrap();
                *worst = stale.max(*worst);
            }
            // About three thousand a second and reader.
            if random.random_range(0..4) == 0 {
                sleep(MS).await;
            }
        }
    }

    /// Runs writers and readers for as long as `faults` takes; what the near caches counted.
    #[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
    async fn run(
        self: &Arc<Self>,
        name: &str,
        clients: Vec<Client>,
        nears: &[Near],
        faults: impl Future<Output = ()>,
    ) -> NearCounters {
        let mut tasks = JoinSet::new();
        for (writer, client) in clients.into_iter().enumerate() {
            tasks.spawn(Arc::clone(self).write(client, writer, 4 * MS));
        }
        for reader in 0..READERS {
            let near = nears[reader % nears.len()].clone();
            tasks.spawn(Arc::clone(self).read(near, reader as u64));
        }
        faults.await;
        self.ends.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task.expect("no read is staler than promised");
        }
        let counters = nears[0].counters();
        println!(
            "near cache, {name}: hit ratio {:.3}, staleness promised {:?}, worst seen {:?}; {} reads, {} writes, {} of \
             them failed; {counters:?}",
            counters.hit_ratio(),
            nears[0].staleness_max(),
            self.worst.lock().unwrap(),
            self.reads.load(Ordering::Relaxed),
            self.writes.load(Ordering::Relaxed),
            self.failures.load(Ordering::Relaxed),
        );
        counters
    }
}

/// What happens to streams on their way through the proxy; other connections are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// They are closed, and new ones at once.
    Cut,
    /// Nothing of them arrives, in either direction, and they stay.
    Stall,
    /// Only what the server says does not arrive.
    Mute,
}

struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
}

impl Proxy {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (fault, faults) = watch::channel(Fault::None);
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let faults = faults.clone();
                connections.spawn(async move {
                    let _ = Self::carry(client, server, faults).await;
                });
            }
        });
        Self { address, fault }
    }

    async fn carry(
        mut client: TcpStream,
        server: SocketAddr,
        mut faults: watch::Receiver<Fault>,
    ) -> std::io::Result<()> {
        let mut server = TcpStream::connect(server).await?;
        let (mut up, mut down) = (vec![0; 4096], vec![0; 4096]);
        let count = client.read(&mut up).await?;
        server.write_all(&up[..count]).await?;
        if !up.starts_with(b"watch") {
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        loop {
            let fault = *faults.borrow_and_update();
            tokio::select! {
                changed = faults.changed() => {
                    if changed.is_err() || *faults.borrow() == Fault::Cut {
                        return Ok(());
                    }
                }
                _ = std::future::ready(()), if fault == Fault::Cut => return Ok(()),
                count = client.read(&mut up), if fault != Fault::Stall => match count? {
                    0 => return Ok(()),
                    count => server.write_all(&up[..count]).await?,
                },
                count = server.read(&mut down), if fault == Fault::None => match count? {
                    0 => return Ok(()),
                    count => client.write_all(&down[..count]).await?,
                },
            }
        }
    }

    fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_staler_than_promised_whatever_becomes_of_the_streams() {
    let server = Subject::start_here(&["-t", "2"]);
    let proxy = Proxy::before(server.address()).await;
    let mut nears = Vec::new();
    for _ in 0..2 {
        nears.push(followed(client_of(proxy.address), near_config(), 1).await);
    }
    let up = async || until("a stream is back", || nears[0].counters().streams == 1).await;
    let clients = (0..WRITERS).map(|_| client_of(server.address())).collect();
    let scene = Scene::new();
    let counters = scene
        .run("one server", clients, &nears, async {
            sleep(2000 * MS).await;
            println!(
                "near cache, before any fault: hit ratio {:.3}",
                nears[0].counters().hit_ratio()
            );
            let noticed = async |before| {
                until("the loss is noticed", || nears[0].counters().flushes > before).await;
            };
            for _ in 0..3 {
                let before = nears[0].counters().flushes;
                proxy.set(Fault::Cut);
                noticed(before).await;
                proxy.set(Fault::None);
                up().await;
                sleep(500 * MS).await;
            }
            for fault in [Fault::Stall, Fault::Mute] {
                // Late and no more.
                proxy.set(fault);
                sleep(600 * MS).await;
                proxy.set(Fault::None);
                sleep(500 * MS).await;
                // Given up.
                let before = nears[0].counters().flushes;
                proxy.set(fault);
                noticed(before).await;
                sleep(1000 * MS).await;
                proxy.set(Fault::None);
                up().await;
                sleep(800 * MS).await;
            }
            client_of(server.address()).flush_all().await.expect("it is flushed");
            sleep(300 * MS).await;
        })
        .await;
    assert!(counters.hits > counters.misses / 4, "it is a cache");
    assert!(counters.flushes > 5, "cut three times, given up twice, flushed");
    assert!(counters.dropped > 0 && counters.misses_withheld > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_others_are_seen_soon_and_own_ones_at_once() {
    let server = Subject::start_here(&[]);
    let other = client_of(server.address());
    let near = followed(client_of(server.address()), near_config(), 1).await;
    other.set("k", "1", LIFE).await.expect("it is stored");
    assert_eq!(kept(&near, "k").await.as_deref(), Some("1"));
    other.append("k", "2").await.expect("it is stored");
    until("the change is told", || near.counters().items == 0).await;
    assert_eq!(read(&near, "k").await.as_deref(), Some("12"));
    for (number, written) in [(13, near.incr("k", 1).await), (10, near.decr("k", 3).await)] {
        assert_eq!(written.expect("it counts"), Some(number));
    }
    assert_eq!(read(&near, "k").await.as_deref(), Some("10"));
    assert!(near.delete("k").await.expect("it is answered"));
    assert_eq!(kept(&near, "k").await, None);
    assert_eq!(near.counters().hits_absent, 1);
    other.add("k", "3", LIFE).await.expect("it is stored");
    until("the change is told", || near.counters().items == 0).await;
    assert_eq!(read(&near, "k").await.as_deref(), Some("3"));
    near.flush_all().await.expect("it is flushed");
    assert_eq!(read(&near, "k").await, None);
}

#[tokio::test]
async fn only_keys_with_the_prefixes_are_near() {
    let server = Subject::start_here(&[]);
    let config = NearConfig { prefixes: vec![b"near:".to_vec()], ..near_config() };
    let near = followed(client_of(server.address()), config, 1).await;
    for key in ["near:1", "far:1"] {
        near.client().set(key, "v", LIFE).await.expect("it is stored");
    }
    until("the one change is told", || near.counters().changes == 1).await;
    assert_eq!(kept(&near, "near:1").await.as_deref(), Some("v"));
    let before = near.counters();
    assert_eq!(read(&near, "far:1").await.as_deref(), Some("v"));
    assert_eq!(near.counters(), before, "it went straight to the server");
    assert_eq!(before.items, 1);
}

/// Also against memcached, which knows no such stream: see `Subject::from_environment`.
#[tokio::test]
async fn a_server_without_streams_is_read_through_or_for_a_short_time() {
    let is_ours = WhichServer::from_environment() == WhichServer::Ours;
    let server = Subject::start(if is_ours { &["-W"] } else { &[] });
    let other = client_of(server.address());
    other.set("k", "1", LIFE).await.expect("it is stored");
    let near = Near::new(client_of(server.address()), near_config());
    for _ in 0..3 {
        assert_eq!(read(&near, "k").await.as_deref(), Some("1"));
    }
    assert_eq!((near.counters().hits, near.counters().streams), (0, 0));

    let short = NearConfig { without_stream: Some(400 * MS), silence_max: MS, ..near_config() };
    let near = Near::new(client_of(server.address()), short);
    assert_eq!(near.staleness_max(), 400 * MS);
    let asked_at = Instant::now();
    assert_eq!(read(&near, "k").await.as_deref(), Some("1"));
    other.set("k", "2", LIFE).await.expect("it is stored");
    let mut hits = 0;
    let seen = timeout(LIMIT, async {
        while read(&near, "k").await.as_deref() != Some("2") {
            hits += 1;
            sleep(MS).await;
        }
    });
    assert!(seen.await.is_ok(), "the change is seen");
    assert_eq!(near.counters().hits, hits);
    assert!(hits == 0 || asked_at.elapsed() >= 400 * MS, "it was served for its time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_staler_than_promised_while_nodes_of_a_cluster_fail() {
    let mut rig = Rig::start(&Layout::sessions());
    let seeds: Vec<_> = rig.nodes().iter().map(|node| at(node.client)).collect();
    let client = || {
        let mut config = Config::cluster(seeds.clone());
        config.timeout = Duration::from_secs(2);
        Client::new(config)
    };
    let near = followed(client(), near_config(), 3).await;
    let nears = [near];
    let scene = Scene::new();
    let counters = scene
        .run("a cluster", (0..WRITERS).map(|_| client()).collect(), &nears, async {
            let up = async || until("streams are back", || nears[0].counters().streams == 3).await;
            sleep(Duration::from_secs(2)).await;
            rig.kill(1);
            sleep(Duration::from_secs(3)).await;
            rig.restart(1, Memory::Kept);
            rig.wait_healthy(LIMIT);
            up().await;
            sleep(Duration::from_secs(1)).await;
            rig.pause(2);
            sleep(Duration::from_secs(4)).await;
            rig.resume(2);
            rig.wait_healthy(LIMIT);
            up().await;
            sleep(Duration::from_secs(1)).await;
        })
        .await;
    assert!(counters.hits > counters.misses / 4, "it is a cache");
    assert!(counters.dropped > 0 && counters.flushes > 0);
}
