//! The session kit over a real server: tower-sessions' store, and locks that processes contend for.

use std::io::{self, BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime};

use cache_client::sessions::{LockConfig, LockError, Locks, Sessions, SessionsConfig};
use cache_client::{Client, Config, Dialect};
use tests::server::Server;
use tests::wait::Stopwatch;
use tokio::runtime::Runtime;
use tower_sessions_core::SessionStore as _;
use tower_sessions_core::session::{Id, Record};

const LEASE: Duration = Duration::from_secs(3);

fn client(address: SocketAddr, change: impl FnOnce(&mut Config)) -> Client {
    let mut config =
        Config::new([cache_client::Server::new(address.ip().to_string(), address.port())]);
    config.timeout = Duration::from_secs(10);
    change(&mut config);
    Client::new(config)
}

/// Its holders are waited for as long as a busy machine may need.
fn locks(address: SocketAddr) -> Locks {
    let config =
        LockConfig { lease: LEASE, wait: Duration::from_secs(60), ..LockConfig::default() };
    Locks::with_config(client(address, |_| {}), config)
}

fn record(expiry: SystemTime) -> Record {
    let data = [("user".to_owned(), "alice".into()), ("count".to_owned(), 0.into())];
    Record { id: Id::default(), data: data.into(), expiry_date: expiry.into() }
}

#[expect(clippy::disallowed_methods, reason = "a record ends at a time of day")]
fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

#[tokio::test]
async fn a_session_is_created_saved_loaded_and_deleted_in_both_dialects() {
    for dialect in [Dialect::Meta, Dialect::Text] {
        let server = Server::start(&[]);
        let client = client(server.address(), |config| config.connection.dialect = dialect);
        let store = Sessions::new(client.clone());
        let mut alice = record(in_an_hour());
        store.create(&mut alice).await.unwrap();
        let mut other = Record { id: alice.id, ..record(in_an_hour()) };
        store.create(&mut other).await.unwrap();
        assert_ne!(other.id, alice.id, "an id is taken once");

        alice.data.insert("count".into(), 1.into());
        store.save(&alice).await.unwrap();
        assert_eq!(store.load(&alice.id).await.unwrap(), Some(alice.clone()));
        store.delete(&alice.id).await.unwrap();
        assert_eq!(store.load(&alice.id).await.unwrap(), None);
        assert!(store.save(&alice).await.is_err(), "who has logged out stays so");

        let locks = Locks::new(client);
        locks.lock(alice.id).await.unwrap().release().await.unwrap();
        let held = locks.lock(alice.id).await.unwrap();
        drop(held);
        locks.lock(alice.id).await.unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_is_read_again_and_again_outlives_the_life_it_was_saved_with() {
    let server = Server::start_here(&[]);
    let config = SessionsConfig { touch_below: Some(0.5), ..SessionsConfig::default() };
    let store = Sessions::with_config(client(server.address(), |_| {}), config);
    let mut alice = record(in_an_hour());
    store.create(&mut alice).await.unwrap();
    for _ in 0..4 {
        // More than half of its life.
        server.advance(Duration::from_secs(2000));
        let read = store.load(&alice.id).await.unwrap().expect("it was read in time");
        assert_eq!(read.data, alice.data);
    }
    server.advance(Duration::from_secs(4000));
    assert_eq!(store.load(&alice.id).await.unwrap(), None);
}

/// Names the server and the session to a process that contends for its lock.
const SERVER: &str = "SESSIONS_SERVER";
const SESSION: &str = "SESSIONS_SESSION";
const COUNTS: u64 = 30;

/// A line for the process that started this one.
#[expect(clippy::print_stdout, reason = "processes are told apart by what they print")]
fn answer(line: &str) {
    println!("\n{line}");
}

async fn count(locks: &Locks, store: &Sessions, id: Id) {
    let lock = locks.lock(id).await.unwrap();
    let mut record = store.load(&id).await.unwrap().unwrap();
    let count = record.data["count"].as_u64().unwrap();
    record.data.insert("count".into(), (count + 1).into());
    lock.check().unwrap();
    store.save(&record).await.unwrap();
}

#[test]
#[ignore = "the tests below start it as a process of its own"]
fn one_process_that_contends() {
    let Ok(address) = std::env::var(SERVER) else { return };
    let id: Id = std::env::var(SESSION).unwrap().parse().unwrap();
    let address = address.parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let (locks, store) = (locks(address), Sessions::new(client(address, |_| {})));
        let mut held = Vec::new();
        answer("ready");
        for line in io::stdin().lines() {
            match line.unwrap().as_str() {
                "count" => {
                    for _ in 0..COUNTS {
                        count(&locks, &store, id).await;
                    }
                    answer("counted");
                }
                _ => {
                    held.push(locks.lock(id).await.unwrap());
                    answer("held");
                }
            }
        }
    });
}

/// A process of its own that takes the lock of a session.
struct Contender {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Contender {
    fn start(server: &Server, id: Id) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "sessions::one_process_that_contends",
            "--exact",
            "--ignored",
            "--nocapture",
        ]);
        command.env(SERVER, server.address().to_string()).env(SESSION, id.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut contender = Self { child, lines };
        contender.await_answer("ready");
        contender
    }

    fn tell(&mut self, what: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    fn await_answer(&mut self, expected: &str) {
        assert!(self.lines.by_ref().any(|line| line.unwrap() == expected), "{expected}");
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn of_processes_that_count_in_one_session_under_its_lock_no_count_is_lost() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().unwrap();
    let (store, mut session) = runtime.block_on(async {
        let store = Sessions::new(client(server.address(), |_| {}));
        let mut session = record(in_an_hour());
        store.create(&mut session).await.unwrap();
        (store, session)
    });
    let mut processes: Vec<_> = (0..3).map(|_| Contender::start(&server, session.id)).collect();
    processes.iter_mut().for_each(|process| process.tell("count"));
    processes.iter_mut().for_each(|process| process.await_answer("counted"));
    session = runtime.block_on(store.load(&session.id)).unwrap().unwrap();
    assert_eq!(session.data["count"], 3 * COUNTS);
}

#[test]
fn the_lock_of_a_process_that_was_killed_is_taken_when_its_lease_is_over() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().unwrap();
    let id = Id::default();
    let mut holder = Contender::start(&server, id);
    holder.tell("hold");
    holder.await_answer("held");
    runtime.block_on(async {
        let impatient = LockConfig { wait: LEASE * 3, lease: LEASE, ..LockConfig::default() };
        let impatient = Locks::with_config(client(server.address(), |_| {}), impatient);
        let refused = impatient.lock(id).await.map(drop);
        assert!(matches!(refused, Err(LockError::Busy { .. })), "it is renewed: {refused:?}");
    });
    let clock = Stopwatch::start();
    holder.kill();
    let lock = runtime.block_on(async { locks(server.address()).lock(id).await.unwrap() });
    assert!(lock.is_held());
    assert!(clock.elapsed() > Duration::from_secs(1), "nobody gave it back");
}
