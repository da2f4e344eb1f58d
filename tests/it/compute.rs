//! `get_or_compute` over a real server: leases, lives and generations as the server keeps them.
//!
//! The stampede is of processes. Elsewhere a process is what one is to the server: a client of its own.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_client::compute::{Cached, Namespace, OnError, Policy};
use cache_client::{Client, Config};
use tests::server::Server;
use tests::wait::Stopwatch;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

type Process = Arc<Cached<Client, String>>;

const MS: Duration = Duration::from_millis(1);

fn process(address: SocketAddr, seed: u64) -> Process {
    let mut config =
        Config::new([cache_client::Server::new(address.ip().to_string(), address.port())]);
    // A stampede is many callers, on a machine that may be busy with other tests.
    config.timeout = Duration::from_secs(60);
    Arc::new(Cached::new(Client::new(config), seed))
}

/// The value of `key`: which computation it came of.
async fn get(
    process: &Process,
    key: &[u8],
    tags: &[&[u8]],
    policy: &Policy,
    computed: &AtomicU64,
) -> String {
    let compute = || async {
        tokio::time::sleep(500 * MS).await;
        Ok(Some((computed.fetch_add(1, Ordering::Relaxed) + 1).to_string().into()))
    };
    let value = process.get_or_compute_tagged(key, tags, policy, compute).await.unwrap();
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}

/// Names the server to a process of the stampede.
const STAMPEDE_SERVER: &str = "STAMPEDE_SERVER";
const STAMPEDE_POLICY: Policy = Policy {
    fresh: Duration::from_secs(300),
    stale: Duration::ZERO,
    early: 0.0,
    absent: Duration::ZERO,
    lease: Duration::from_secs(60),
    on_error: OnError::Share,
};

/// A line for the process that started this one.
#[expect(
    clippy::print_stdout,
    reason = "processes of a stampede are told apart by what they print"
)]
fn answer(line: &str) {
    println!("\n{line}");
}

/// Connects, and then for each line that it is sent calls 250 times at once; answers with how often it computed and with
/// the value if all got the same.
#[test]
#[ignore = "the stampede below starts it as a process of its own"]
fn one_process_of_a_stampede() {
    let Ok(address) = std::env::var(STAMPEDE_SERVER) else { return };
    let runtime = Runtime::new().unwrap();
    let process = runtime.block_on(async { process(address.parse().unwrap(), 1) });
    runtime.block_on(process.store().get("nothing")).unwrap();
    answer("ready");
    // No other process, and no other round, computes the same.
    let computed = Arc::new(AtomicU64::new(u64::from(std::process::id()) << 32));
    for _ in io::stdin().lines() {
        let before = computed.load(Ordering::Relaxed);
        let mut calls = JoinSet::new();
        for _ in 0..250 {
            let (process, computed) = (Arc::clone(&process), Arc::clone(&computed));
            let call = async move { get(&process, b"hot", &[], &STAMPEDE_POLICY, &computed).await };
            calls.spawn_on(call, runtime.handle());
        }
        let got: BTreeSet<_> = runtime.block_on(calls.join_all()).into_iter().collect();
        let got: Vec<_> = got.into_iter().collect();
        answer(&format!("got {} {}", computed.load(Ordering::Relaxed) - before, got.join(",")));
    }
}

struct Stampeder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stampeder {
    fn start(server: &Server) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["compute::one_process_of_a_stampede", "--exact", "--ignored", "--nocapture"]);
        command.env(STAMPEDE_SERVER, server.address().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stampeder = Self { child, lines };
        stampeder.answer("ready");
        stampeder
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// The rest of the line that begins so.
    fn answer(&mut self, start: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(start).map(str::to_owned)).unwrap()
    }
}

impl Drop for Stampeder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For people to read: a machine may be busy, so that nothing is asserted of it.
#[expect(clippy::print_stderr, reason = "a stampede tells how long it took")]
fn tell(waited: Duration) {
    eprintln!(
        "computed in 500 ms, the last of 1,000 callers in 4 processes had it after {waited:?}"
    );
}

#[test]
fn a_thousand_callers_in_four_processes_cause_one_computation_before_and_after_the_value_ends() {
    // Its clock is moved on: a process that the machine holds up for long must not find the value at its end.
    let server = Server::start_here(&[]);
    let mut processes: Vec<_> = (0..4).map(|_| Stampeder::start(&server)).collect();
    let mut values = BTreeSet::new();
    for round in 1..=2 {
        let clock = Stopwatch::start();
        processes.iter_mut().for_each(Stampeder::go);
        let mut computed = 0;
        for process in &mut processes {
            let answer = process.answer("got ");
            let (count, value) = answer.split_once(' ').unwrap();
            computed += count.parse::<u64>().unwrap();
            values.insert(value.to_owned());
        }
        tell(clock.elapsed());
        assert_eq!(computed, 1);
        assert_eq!(values.len(), round, "all got the same: {values:?}");
        server.advance(STAMPEDE_POLICY.fresh + Duration::from_secs(2));
    }
}

#[tokio::test]
async fn an_invalidated_value_is_served_while_one_caller_computes_it_anew() {
    let server = Server::start(&[]);
    let (one, other) = (process(server.address(), 1), process(server.address(), 2));
    let computed = Arc::new(AtomicU64::new(0));
    let policy = Policy { early: 0.0, ..Policy::default() };
    assert_eq!(get(&one, b"k", &[], &policy, &computed).await, "1");
    assert!(other.invalidate(b"k").await.unwrap());
    let renewing = {
        let (one, computed) = (Arc::clone(&one), Arc::clone(&computed));
        tokio::spawn(async move { get(&one, b"k", &[], &policy, &computed).await })
    };
    tokio::time::sleep(100 * MS).await;
    assert_eq!(get(&other, b"k", &[], &policy, &computed).await, "1");
    assert_eq!(renewing.await.unwrap(), "2");
    assert_eq!(get(&other, b"k", &[], &policy, &computed).await, "2");
}

#[tokio::test]
async fn a_lease_is_given_back_by_a_computation_that_failed() {
    let server = Server::start(&[]);
    let (one, other) = (process(server.address(), 1), process(server.address(), 2));
    let policy = Policy::default();
    let failed = one.get_or_compute(b"k", &policy, || async { Err("no".to_owned()) }).await;
    assert_eq!(*failed.unwrap_err().0, "no");
    let computed = AtomicU64::new(0);
    let got = get(&other, b"k", &[], &policy, &computed);
    assert_eq!(tokio::time::timeout(policy.lease, got).await.unwrap(), "1");
}

#[tokio::test]
async fn tags_and_namespaces_are_emptied_by_one_request() {
    let server = Server::start(&[]);
    let (one, other) = (process(server.address(), 1), process(server.address(), 2));
    let computed = AtomicU64::new(0);
    let policy = Policy { early: 0.0, ..Policy::default() };
    let tags: [&[u8]; 2] = [b"user:1", b"prices"];
    assert_eq!(get(&one, b"k", &tags, &policy, &computed).await, "1");
    assert_eq!(get(&other, b"k", &tags, &policy, &computed).await, "1");
    other.invalidate_tag(b"prices").await.unwrap();
    assert_eq!(get(&one, b"k", &tags, &policy, &computed).await, "2");

    let ours = Namespace::new("shop", Duration::ZERO, 1);
    let theirs = Namespace::new("shop", Duration::ZERO, 2);
    let key = ours.key(one.store(), b"a").await.unwrap();
    assert_eq!(theirs.key(other.store(), b"a").await.unwrap(), key);
    theirs.invalidate(other.store()).await.unwrap();
    assert_ne!(ours.key(one.store(), b"a").await.unwrap(), key);
}
