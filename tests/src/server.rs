//! A server for one test, on a free port of the loopback, ended with the test.
//!
//! It runs in the test's own process, where its clock can be moved, or, where signals, crashes or
//! memory are the matter, as a process of its own. `CACHE_TEST_SERVER` lets the same tests ask another server how it behaves:
//!
//! - `host:port`: one that already runs; a test that needs flags of its own cannot use it;
//! - a path: a program started afresh for every test, with memcached's flags.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::program::Program;
use crate::wait;

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a server may take to leave once told to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Another process may take the free port before the server does; then it is tried again.
const START_ATTEMPTS: u32 = 3;

/// A running server, stopped when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    running: Running,
}

#[derive(Debug)]
enum Running {
    /// In this process.
    Here(Box<cache_server::Server>),
    /// A process this test started.
    Process(Child),
    /// Since before the test, and after it.
    Elsewhere,
}

/// What the tests run against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// This workspace's own server.
    Ours,
    /// Another program that takes memcached's flags.
    Program(PathBuf),
    /// A server that already runs.
    Running(SocketAddr),
}

impl Subject {
    /// What `CACHE_TEST_SERVER` names, or our own server.
    ///
    /// # Panics
    /// When it names neither an address nor a file.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(value) = std::env::var_os("CACHE_TEST_SERVER") else { return Self::Ours };
        if let Some(address) = value.to_str().and_then(|text| text.parse().ok()) {
            return Self::Running(address);
        }
        let path = PathBuf::from(value);
        assert!(path.is_file(), "CACHE_TEST_SERVER is neither host:port nor a program: {path:?}");
        Self::Program(path)
    }
}

impl Server {
    /// Starts what [`Subject::from_environment`] says, with `args` added to its command line.
    ///
    /// # Panics
    /// When it does not accept connections in time, or is already running and cannot take `args`.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        match Subject::from_environment() {
            Subject::Ours => Self::start_here(args),
            Subject::Program(path) => Self::start_program(&path, args),
            Subject::Running(address) => {
                assert!(args.is_empty(), "a running server cannot be given {args:?}");
                Self { address, running: Running::Elsewhere }
            }
        }
    }

    /// Starts our server in this process, configured by `args`.
    ///
    /// # Panics
    /// When `args` are none of its flags, or it does not start.
    #[must_use]
    pub fn start_here(args: &[&str]) -> Self {
        Self::start_changed(args, |_| {})
    }

    /// The same, with what `change` makes of its configuration.
    ///
    /// # Panics
    /// When `args` are none of its flags, or it does not start.
    #[must_use]
    pub fn start_changed(args: &[&str], change: impl FnOnce(&mut cache_server::Config)) -> Self {
        let mut config = config(args);
        config.listen = vec![cache_server::Listen::loopback(0)];
        change(&mut config);
        let server = cache_server::Server::start(&config).expect("a server starts on any port");
        let address = server.address().expect("a server that was told to listen has an address");
        Self { address, running: Running::Here(Box::new(server)) }
    }

    /// Starts our server as a process of its own with `args`.
    ///
    /// # Panics
    /// When it does not accept connections in time.
    #[must_use]
    pub fn start_process(args: &[&str]) -> Self {
        Self::start_program(&Program::Server.path(), args)
    }

    /// Starts our server as a process of its own that serves a UNIX socket at `path`; it has no other
    /// address.
    ///
    /// # Panics
    /// When it does not accept connections in time.
    #[must_use]
    pub fn start_process_at_path(path: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(Program::Server.path());
        command.arg("-s").arg(path).args(["-u", "root"]).args(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start a server: {error}"));
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let server = Self { address, running: Running::Process(child) };
        let serves = wait::until(START_LIMIT, || UnixStream::connect(path).ok());
        assert!(serves.is_some(), "nobody serves {}", path.display());
        server
    }

    /// Starts `program` on a free port with `args`.
    ///
    /// # Panics
    /// When it does not accept connections in time.
    #[must_use]
    pub fn start_program(program: &Path, args: &[&str]) -> Self {
        (0..START_ATTEMPTS)
            .find_map(|_| Self::try_start(program, args))
            .unwrap_or_else(|| panic!("{} {args:?} does not serve", program.display()))
    }

    fn try_start(program: &Path, args: &[&str]) -> Option<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(program);
        command.args(["-p", &address.port().to_string(), "-l", "127.0.0.1", "-U", "0"]);
        // As memcached: refused without it to root, ignored from anyone else.
        command.args(["-u", "nobody"]);
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let mut server = Self { address, running: Running::Process(child) };
        let serves = wait::until(START_LIMIT, || {
            if server.exited().is_some() {
                return Some(false);
            }
            TcpStream::connect(address).is_ok().then_some(true)
        });
        (serves == Some(true)).then_some(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, and how: only of a server in this process.
    #[must_use]
    pub fn listening(&self) -> &[cache_server::net::ListeningAddress] {
        match &self.running {
            Running::Here(server) => server.listening(),
            Running::Process(_) | Running::Elsewhere => &[],
        }
    }

    /// Moves its clock on by `duration`; where that cannot be, waits as long.
    pub fn advance(&self, duration: Duration) {
        match &self.running {
            Running::Here(server) => server.clock().advance(duration),
            Running::Process(_) | Running::Elsewhere => wait::pass(duration),
        }
    }

    /// Its process, if this test started one.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        match &self.running {
            Running::Process(child) => Some(child.id()),
            Running::Here(_) | Running::Elsewhere => None,
        }
    }

    /// Its exit status if it is a process of this test and has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        match &mut self.running {
            Running::Process(child) => child.try_wait().ok().flatten(),
            Running::Here(_) | Running::Elsewhere => None,
        }
    }

    /// The bytes of memory its process has resident, if this test started one.
    #[must_use]
    pub fn resident_bytes(&self) -> Option<u64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process_id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }

    /// Sends it `signal` (`TERM`, `INT`, `USR1`, …) and waits until it has left.
    ///
    /// # Panics
    /// When it stays, or was not started by this test.
    pub fn stop_with(mut self, signal: &str) -> ExitStatus {
        let process = self.process_id().expect("only a server this test started is stopped");
        let sent = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal} to {process}");
        wait::until(STOP_LIMIT, || self.exited()).expect("the server leaves when told to")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Running::Process(child) = &mut self.running {
            // Both fail only if the server has already left, which is what is wanted.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What `args` configure.
///
/// # Panics
/// When they are none of the server's flags.
#[must_use]
pub fn config(args: &[&str]) -> cache_server::Config {
    let program = ["cache-server"];
    let all = program.iter().chain(args);
    cache_server::cli::parse(all).unwrap_or_else(|answer| panic!("{args:?}: {answer:?}"))
}

/// A port that nothing listens on at the moment.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("the loopback has a free port")
        .port()
}
