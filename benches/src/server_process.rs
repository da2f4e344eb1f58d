//! A server under test as a process of this machine: started, waited for, watched, ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, geteuid};
use sim::html::command_line;

use crate::interrupt::{Interrupt, Interrupted};
use crate::session::{Session, SessionError};
use crate::wire::Dialect;
use crate::{clock, cores};

/// How long a server may take until it accepts a connection.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long a server may take to end in order when it has a file to write.
const STOP_WITH_FILE_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Whose flags a server takes and whose protocol it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// memcached's: ours, and whatever can stand in its place.
    Memcached,
    /// Redis's, in memory alone and as a cache.
    Redis,
    /// `cache-bench echo`.
    Echo,
}

impl Kind {
    /// The commands that a load speaks to it.
    pub fn dialect(self) -> Dialect {
        match self {
            // An echo server's answers are memcached's in form.
            Self::Memcached | Self::Echo => Dialect::Text,
            Self::Redis => Dialect::Resp,
        }
    }

    /// How many items it holds, as it says itself.
    ///
    /// # Errors
    /// When the connection ends or the server does not say.
    pub fn items(self, session: &mut Session) -> Result<u64, SessionError> {
        match self {
            Self::Memcached => session.items(),
            Self::Redis => session.redis_items(),
            Self::Echo => Ok(0),
        }
    }

    fn version(self, session: &mut Session) -> Result<String, SessionError> {
        match self {
            Self::Memcached => session.version(),
            Self::Redis => session.redis_version(),
            Self::Echo => Ok(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }

    /// The flags that make it listen at `port` of loopback with one worker thread.
    fn flags(self, launch: &Launch, port: u16) -> Vec<String> {
        let Launch { memory_mib, connections, .. } = launch;
        let flags = match self {
            Self::Memcached => {
                let root = if geteuid().is_root() { " -u nobody" } else { "" };
                // memcached does not run as root, and says so.
                format!("-l 127.0.0.1 -t 1 -U 0 -p {port} -m {memory_mib} -c {connections}{root}")
            }
            Self::Redis => format!(
                "--bind 127.0.0.1 --port {port} --maxclients {connections} --maxmemory {memory_mib}mb \
                 --maxmemory-policy allkeys-lru --appendonly no --daemonize no --save"
            ),
            Self::Echo => format!("echo --port {port}"),
        };
        let mut flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
        if self == Self::Redis {
            // Snapshots never.
            flags.push(String::new());
        }
        flags
    }
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What it is.
    pub kind: Kind,
    /// The executable: a path, or a name to be found in `PATH`.
    pub program: PathBuf,
    /// How much it may hold, in MiB: `-m`.
    pub memory_mib: u64,
    /// How many connections it must take: `-c`.
    pub connections: usize,
    /// The cores it may run on; none named means any.
    pub cores: Vec<usize>,
    /// Flags after those.
    pub extra: Vec<OsString>,
}

/// Why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It could not be started at all.
    #[error("cannot start {}", program.display())]
    Start {
        /// The executable.
        program: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It ended before it accepted a connection.
    #[error("{} ended with {status} before it accepted a connection: {said}", program.display())]
    Ended {
        /// The executable.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// It runs and does not accept connections.
    #[error("{} did not accept a connection within {START_MAX:?}", program.display())]
    Mute {
        /// The executable.
        program: PathBuf,
    },
    /// It accepts connections and does not answer as a server of its kind.
    #[error("{} does not answer", program.display())]
    Answer {
        /// The executable.
        program: PathBuf,
        /// What it did instead.
        #[source]
        source: SessionError,
    },
    /// The user wants the program to end.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A server that this process started, and that ends with it.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// What it writes to standard error: logs that would stand between the results.
    errors: File,
    program: PathBuf,
    address: SocketAddr,
    version: String,
    command: String,
}

/// A server that does not answer yet, perhaps.
#[derive(Debug)]
pub struct StartedAt {
    /// The server.
    pub server: ServerProcess,
    /// When it was started.
    pub at: Instant,
}

impl ServerProcess {
    /// Starts a server on a free port of loopback, one worker thread, no UDP, and waits until it
    /// answers.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not answer.
    pub fn start(launch: &Launch, interrupt: &Interrupt) -> Result<Self, LaunchError> {
        let StartedAt { mut server, .. } = Self::spawn(launch)?;
        let mut session = server.first_session(interrupt)?;
        server.version = launch
            .kind
            .version(&mut session)
            .map_err(|source| LaunchError::Answer { program: server.program.clone(), source })?;
        Ok(server)
    }

    /// As [`Self::start`], but does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(launch: &Launch) -> Result<StartedAt, LaunchError> {
        let program = &launch.program;
        let failed = |source| LaunchError::Start { program: program.clone(), source };
        let address = free_address().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(launch.kind.flags(launch, address.port())).args(&launch.extra);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = command_line(words.map(|word| word.to_string_lossy().into_owned()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let errors = tempfile::tempfile().map_err(failed)?;
        command.stderr(errors.try_clone().map_err(failed)?);
        let at = clock::now();
        // The child inherits the cores of the thread that starts it, so that thread is a new one.
        let child = thread::scope(|scope| {
            scope
                .spawn(|| {
                    cores::pin(&launch.cores)?;
                    command.spawn()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(failed)?;
        let (program, version) = (program.clone(), String::new());
        let server = Self { child, errors, program, address, version, command: line };
        Ok(StartedAt { server, at })
    }

    /// Nothing, while it runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn is_alive(&mut self) -> Result<(), LaunchError> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let (program, said) = (self.program.clone(), end_of(&mut self.errors));
                Err(LaunchError::Ended { program, status, said })
            }
            _ => Ok(()),
        }
    }

    /// Sends `signal`, after which it ends in order, and waits until it has: whether it did.
    pub fn stop(mut self, signal: Signal) -> bool {
        self.end(signal, STOP_WITH_FILE_MAX)
    }

    /// Kills it: whether it is gone.
    pub fn kill(mut self) -> bool {
        self.child.kill().is_ok() && self.child.wait().is_ok()
    }

    /// Sends `signal` and waits for so long at most.
    fn end(&mut self, signal: Signal, patience: Duration) -> bool {
        // The child has not been waited for, so its pid cannot belong to anyone else yet.
        let asked = i32::try_from(self.child.id())
            .is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok());
        let deadline = clock::now() + patience;
        while asked && clock::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        false
    }

    /// Waits until somebody accepts connections, as long as that can be the child.
    fn first_session(&mut self, interrupt: &Interrupt) -> Result<Session, LaunchError> {
        let deadline = clock::now() + START_MAX;
        while clock::now() < deadline {
            interrupt.check()?;
            self.is_alive()?;
            if let Ok(session) = Session::connect(self.address) {
                return Ok(session);
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Err(LaunchError::Mute { program: self.program.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command that started it, as it would be typed.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The version it answers.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its executable's name and the version it answers, for reports.
    pub fn title(&self) -> String {
        let name = self.program.file_name().unwrap_or_else(|| self.program.as_os_str());
        format!("{} {}", Path::new(name).display(), self.version)
    }
}

impl Drop for ServerProcess {
    /// SIGTERM, and SIGKILL when that does not end it.
    fn drop(&mut self) {
        if self.end(Signal::SIGTERM, STOP_MAX) {
            return;
        }
        // Nothing is left to be done when these fail: the process is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file, as one.
fn end_of(file: &mut File) -> String {
    const BYTES_MAX: u64 = 2048;
    let mut end = Vec::new();
    let length = file.seek(SeekFrom::End(0)).unwrap_or(0);
    // What cannot be read cannot be shown; the caller has more important things to report.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)));
    let _ = file.read_to_end(&mut end);
    String::from_utf8_lossy(&end).trim().replace('\n', "; ")
}

/// An address of loopback that nobody listens on at the moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Time that the process has spent on a processor, in user and in kernel mode together, since it
/// started: what `/proc/PID/stat` calls utime and stime, in nanoseconds instead of ticks.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(|_| no_such_process(pid))?;
    let time = clock_getcpuclockid(Pid::from_raw(pid))?.now()?;
    Ok(Duration::from(time))
}

/// Memory of the process that is in RAM, in bytes: `VmRSS` of `/proc/PID/status`.
///
/// # Errors
/// When there is no such process, or the kernel does not say.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident_bytes_in(&status).ok_or_else(|| no_such_process(pid))
}

fn resident_bytes_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn no_such_process(pid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no process {pid} with memory of its own"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_file() {
        assert_eq!(resident_bytes_in("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes_in("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn a_busy_process_uses_its_processor() {
        let before = cpu_time(std::process::id()).unwrap();
        let start = clock::now();
        while clock::now() - start < Duration::from_millis(20) {}
        let used = cpu_time(std::process::id()).unwrap() - before;
        assert!(used > Duration::from_millis(5), "{used:?} of processor time in 20 ms of work");
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(cpu_time(u32::MAX).is_err());
        assert!(resident_bytes(u32::MAX).is_err());
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_with_its_words() {
        let launch = Launch {
            kind: Kind::Memcached,
            program: PathBuf::from("ls"),
            memory_mib: 64,
            connections: 10,
            cores: Vec::new(),
            extra: Vec::new(),
        };
        let error = ServerProcess::start(&launch, &Interrupt::default()).unwrap_err();
        assert!(matches!(error, LaunchError::Ended { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "ls finds no such file: {error}");
        let launch = Launch { program: PathBuf::from("/no/such/server"), ..launch };
        let error = ServerProcess::start(&launch, &Interrupt::default()).unwrap_err();
        assert!(matches!(error, LaunchError::Start { .. }), "{error}");
    }
}
