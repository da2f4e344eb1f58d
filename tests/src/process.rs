//! A server process that a test may end in every way: told to, killed, or before it serves at all.
//!
//! [`crate::server`] starts a server and waits; here starting and waiting are two steps, what it
//! writes to standard error is kept, and the same command line is started again and again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::connection::Connection;
use crate::program::Program;
use crate::wait;

/// How long a server may take until it accepts connections, or to leave once told to.
const LIMIT: Duration = Duration::from_secs(20);
/// Another process may take the free port before the server does; then it is tried again.
const START_ATTEMPTS: u32 = 5;
/// What the system says when somebody else has the port.
const PORT_TAKEN: &str = "in use";

/// A command line.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Launcher {
    /// Our server with `arguments`, on a port of its own each time.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self { program: Program::Server.path(), arguments }
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// When there is no such program.
    #[must_use]
    pub fn spawn(&self) -> Process {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        drop(listener);
        let said = tempfile::tempfile().expect("there is room for a few lines");
        let mut command = Command::new(&self.program);
        command.args(["-p", &address.port().to_string(), "-l", "127.0.0.1", "-U", "0"]);
        // To run as root takes naming somebody; the files of a test belong to who runs it.
        command.args(["-u", "root"]).args(&self.arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone().expect("a file can be shared"))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        Process { child, address, said }
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(&self) -> Process {
        for _ in 0..START_ATTEMPTS {
            let mut process = self.spawn();
            match process.serves() {
                Ok(()) => return process,
                Err(said) if said.contains(PORT_TAKEN) => {}
                Err(said) => panic!("{:?} does not serve: {said}", self.arguments),
            }
        }
        panic!("{:?} does not serve: every port is taken", self.arguments)
    }

    /// Starts it and waits until it has ended by itself: how, and what it said.
    ///
    /// # Panics
    /// When it goes on.
    #[must_use]
    pub fn refused(&self) -> (ExitStatus, String) {
        let mut process = self.spawn();
        let status = wait::until(LIMIT, || process.ended());
        let said = process.said();
        (status.unwrap_or_else(|| panic!("{:?} serves: {said}", self.arguments)), said)
    }
}

/// A process of a server; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    address: SocketAddr,
    said: File,
}

impl Process {
    /// Waits until it answers.
    ///
    /// # Errors
    /// What it said when it has ended before.
    ///
    /// # Panics
    /// When it does neither.
    pub fn serves(&mut self) -> Result<(), String> {
        let serves = wait::until_promptly(LIMIT, || {
            if self.ended().is_some() {
                return Some(false);
            }
            let mut connection = Connection::open(self.address).ok()?;
            connection.send(b"version\r\n").ok()?;
            let answer = connection.receive_line().ok()??;
            answer.starts_with(b"VERSION ").then_some(true)
        });
        match serves {
            Some(true) => Ok(()),
            Some(false) => Err(self.said()),
            None => panic!("it neither serves nor ends: {}", self.said()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A connection to it.
    ///
    /// # Panics
    /// When it accepts none.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("it serves")
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn said(&mut self) -> String {
        let mut said = String::new();
        // What cannot be read is missing from a message, nothing more.
        let _ = self.said.seek(SeekFrom::Start(0));
        let _ = self.said.read_to_string(&mut said);
        said
    }

    /// SIGKILL: it does nothing more, wherever it is. Returns when it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Sends `signal` (`TERM`, `INT`, `USR1`) and waits until it has left in order.
    ///
    /// # Panics
    /// When it stays, or leaves with another exit code than 0.
    pub fn stop(mut self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {signal}");
        let status = wait::until(LIMIT, || self.ended());
        let status = status.unwrap_or_else(|| panic!("it stays after {signal}: {}", self.said()));
        assert!(status.success(), "after {signal} it left with {status}: {}", self.said());
    }

    fn end(&mut self) {
        // Both fail only if it has already left, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
