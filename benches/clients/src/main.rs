//! `cache-client` beside other asynchronous clients for Rust, in turns, against one server.
//!
//! ```text
//! cargo run --release --manifest-path benches/clients/Cargo.toml -- --server 127.0.0.1:11211
//! ```
//!
//! A turn is a second or so of gets by one client and all tasks; turns of the clients alternate, so that what else the
//! machine does falls on all of them. What counts is operations per second of processor time of *this* process, user
//! and system, and the 99th percentile of a call's time. Ratios are of neighbouring turns.
//!
//! The other clients carry one request at a time on a connection: each task has a connection of its own, which is
//! their best case (no pool to wait for).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cache_client::{Client, Config, Ttl};
use clap::Parser;
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use tokio::net::TcpStream;

/// Keys there are.
const KEYS: usize = 10_000;

/// Compares clients against one server.
#[derive(Parser, Clone)]
struct Arguments {
    /// Where the server listens.
    #[arg(long)]
    server: String,
    /// Tasks that get.
    #[arg(long, default_value_t = 50)]
    tasks: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Keys of a get when they are pipelined.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Turns of each client.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of a turn.
    #[arg(long, default_value_t = 1000)]
    turn_ms: u64,
    /// Threads of the runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Who gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    CacheClient,
    AsyncMemcached,
    MemcacheAsync,
}

const CONTENDERS: [Contender; 3] =
    [Contender::CacheClient, Contender::AsyncMemcached, Contender::MemcacheAsync];

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::CacheClient => "cache-client",
            Self::AsyncMemcached => "async-memcached 0.9.0",
            Self::MemcacheAsync => "memcache-async 0.10.1",
        }
    }
}

/// One task's way to the server.
enum Lane {
    CacheClient(Client),
    AsyncMemcached(Box<async_memcached::Client>),
    MemcacheAsync(Box<memcache_async::ascii::Protocol<TcpStream>>),
}

impl Lane {
    async fn open(contender: Contender, server: &str, shared: &Client) -> Result<Self> {
        Ok(match contender {
            Contender::CacheClient => Self::CacheClient(shared.clone()),
            Contender::AsyncMemcached => {
                let client = async_memcached::Client::new(format!("tcp://{server}")).await;
                Self::AsyncMemcached(Box::new(client.map_err(anyhow::Error::msg)?))
            }
            Contender::MemcacheAsync => {
                let stream = TcpStream::connect(server).await?;
                stream.set_nodelay(true)?;
                Self::MemcacheAsync(Box::new(memcache_async::ascii::Protocol::new(stream)))
            }
        })
    }

    /// How many of the keys were there.
    async fn get(&mut self, keys: &[String]) -> Result<usize> {
        use async_memcached::AsciiProtocol as _;
        Ok(match (self, keys) {
            (Self::CacheClient(client), [key]) => usize::from(client.get(key).await?.is_some()),
            (Self::CacheClient(client), keys) => {
                client.get_many(keys).await?.into_iter().flatten().count()
            }
            (Self::AsyncMemcached(client), [key]) => {
                usize::from(client.get(key).await.map_err(anyhow::Error::msg)?.is_some())
            }
            (Self::AsyncMemcached(client), keys) => {
                client.get_multi(keys).await.map_err(anyhow::Error::msg)?.len()
            }
            (Self::MemcacheAsync(client), [key]) => {
                client.get(key).await?;
                1
            }
            (Self::MemcacheAsync(client), keys) => client.get_multi(keys).await?.len(),
        })
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_cpu_second: f64,
    per_second: f64,
    p99_us: u64,
}

fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

async fn turn(
    contender: Contender,
    depth: usize,
    arguments: &Arguments,
    shared: &Client,
    keys: &Arc<Vec<String>>,
) -> Result<Figures> {
    let mut lanes = Vec::new();
    for _ in 0..arguments.tasks {
        lanes.push(Lane::open(contender, &arguments.server, shared).await?);
    }
    let (cpu_before, begun) = (cpu_time()?, Instant::now());
    let until = begun + Duration::from_millis(arguments.turn_ms);
    let tasks = lanes.into_iter().enumerate().map(|(task, mut lane)| {
        let keys = Arc::clone(keys);
        tokio::spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            let (mut gets, mut number, mut now) = (0u64, task * 7919, Instant::now());
            while now < until {
                let first = number % (KEYS - depth);
                number += depth;
                let found = lane.get(&keys[first..first + depth]).await?;
                anyhow::ensure!(found == depth, "{found} of {depth} keys are there");
                gets += depth as u64;
                let then = Instant::now();
                times.record(u64::try_from((then - now).as_micros())?)?;
                now = then;
            }
            Ok((gets, times))
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut gets, mut times) = (0, Histogram::<u64>::new(3)?);
    for task in tasks {
        let (more, theirs) = task.await??;
        gets += more;
        times.add(theirs)?;
    }
    let (wall, cpu) = (begun.elapsed(), cpu_time()? - cpu_before);
    Ok(Figures {
        per_cpu_second: gets as f64 / cpu.as_secs_f64(),
        per_second: gets as f64 / wall.as_secs_f64(),
        p99_us: times.value_at_quantile(0.99),
    })
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

async fn compare(depth: usize, arguments: &Arguments, shared: &Client) -> Result<()> {
    println!(
        "{} tasks, {depth} keys a call, values of {} bytes",
        arguments.tasks, arguments.value_bytes
    );
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key.{number}")).collect();
    let keys = Arc::new(keys);
    let mut all: Vec<(Contender, Figures)> = Vec::new();
    for _ in 0..arguments.rounds {
        for contender in CONTENDERS {
            all.push((contender, turn(contender, depth, arguments, shared, &keys).await?));
        }
    }
    let of = |contender: Contender| {
        all.iter().filter(move |(who, _)| *who == contender).map(|(_, figures)| *figures)
    };
    for contender in CONTENDERS {
        let ours = of(Contender::CacheClient);
        let cpu = ours.clone().zip(of(contender)).map(|(a, b)| a.per_cpu_second / b.per_cpu_second);
        let p99 = ours.zip(of(contender)).map(|(a, b)| a.p99_us as f64 / b.p99_us as f64);
        println!(
            "{:22} {:>9.0} gets/cpu-s {:>9.0} gets/s  p99 {:>6.0} us   ours/theirs: {:.2} per cpu-s, {:.2} p99",
            contender.name(),
            median(of(contender).map(|it| it.per_cpu_second).collect()),
            median(of(contender).map(|it| it.per_second).collect()),
            median(of(contender).map(|it| it.p99_us as f64).collect()),
            median(cpu.collect()),
            median(p99.collect()),
        );
    }
    Ok(())
}

async fn run(arguments: Arguments) -> Result<()> {
    let server = arguments.server.parse().context("the server's address")?;
    let client = Client::new(Config::new([server]));
    let value = vec![b'x'; arguments.value_bytes];
    for number in 0..KEYS {
        client.set(format!("key.{number}"), &value, Ttl::NEVER).await?;
    }
    compare(1, &arguments, &client).await?;
    compare(arguments.depth, &arguments, &client).await
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()?;
    runtime.block_on(run(arguments))
}
