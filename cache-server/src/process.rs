//! The server as a process of its own: limits, user, background, pid file, until a signal.
//!
//! ```text
//! raise limits -> bind TCP -> become -u -> tie to parent -> bind UNIX -> open -e -> background
//!              -> lock memory -> pid file -> serve
//! ```
//!
//! The order is what makes the flags work together. Limits and low ports need root, so they come
//! before it is given up; the UNIX socket, the memory file and the pid file must belong to the new
//! user, so they come after. Everything that can fail over a wrong flag happens before the process goes into the
//! background, so that whoever started it sees the reason and the exit code. Threads do not survive
//! the fork, so none is started before it.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{User, daemon, geteuid, getppid, initgroups, setgid, setuid};
use tokio::runtime;

use crate::authentication::Guard;
use crate::config::{Config, ProcessConfig, UnixSocket};
use crate::net::listener::{ListenError, Listeners};
use crate::pid_file::PidFile;
use crate::server::{Server, StartError, Storage, load_certificates};
use crate::signal::{Orders, Signals, StopReason, block_file_size_signal};
use crate::{cluster_node, port_file};

/// Descriptors that are not clients: listening sockets, runtimes, logs.
const SPARE_FILES: rlim_t = 64;

/// Why a server process ended other than in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Started as root without `-u`.
    #[error("can't run as root without the -u switch")]
    Root,
    /// `-u` names nobody.
    #[error("can't find the user {0} to switch to")]
    NoSuchUser(String),
    /// The user cannot be switched to.
    #[error("failed to assume identity of user {user}")]
    Identity {
        /// The user.
        user: String,
        /// What the operating system said.
        #[source]
        source: Errno,
    },
    /// The limit on open files is lower than what `-c` needs, and cannot be raised.
    #[error("cannot open {wanted} files; start as root or ask for fewer connections with -c")]
    OpenFiles {
        /// Files needed.
        wanted: u64,
        /// What the operating system said.
        #[source]
        source: Errno,
    },
    /// Core files are not to be had, and `-r` asks for them.
    #[error("there can be no core files, as -r asks")]
    CoreFiles(#[source] Errno),
    /// An address cannot be served, or a thread not started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process cannot go into the background.
    #[error("cannot run in the background")]
    Background(#[source] io::Error),
    /// The end of the parent process cannot be noticed.
    #[error("cannot stop with the process that started this one")]
    Parent(#[source] Errno),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] Errno),
}

impl RunError {
    /// The exit code that memcached has for this (`sysexits.h`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Root => EX_USAGE,
            Self::Start(StartError::Tls(_)) => EX_USAGE,
            Self::NoSuchUser(_) => EX_NOUSER,
            Self::Start(StartError::AuthFile(_)) => 1,
            Self::Identity { .. }
            | Self::OpenFiles { .. }
            | Self::CoreFiles(_)
            | Self::Start(_) => EX_OSERR,
            Self::Background(_) | Self::Parent(_) | Self::Signals(_) => 1,
        }
    }
}

impl From<ListenError> for RunError {
    fn from(error: ListenError) -> Self {
        Self::Start(error.into())
    }
}

/// The exit code for a command line that cannot be obeyed.
pub const EX_USAGE: u8 = 64;

/// The exit code for a user that does not exist.
pub const EX_NOUSER: u8 = 67;

/// The exit code for what the operating system refuses, addresses above all.
pub const EX_OSERR: u8 = 71;

/// Serves as `config` says until a signal asks for an orderly stop, and stops in order.
///
/// # Errors
///
/// When the server cannot be started.
pub fn run(config: &Config) -> Result<(), RunError> {
    let process = &config.process;
    let user = user_to_become(process)?;
    raise_limits(config)?;
    // While the key can still be read that only root may read, and before anybody is promised anything.
    let certificates = load_certificates(config).map_err(StartError::Tls)?;
    let mut listeners = Listeners::bind_tcp(&config.listen, config.threads.get(), config.backlog)?
        .under_tls(certificates);
    listeners.bind_udp(&config.udp)?;
    if config.unix_socket.is_none() {
        port_file::write(listeners.addresses());
    }
    if let Some(user) = &user {
        become_user(user)?;
    }
    if process.stop_with_parent {
        tie_to_parent().map_err(RunError::Parent)?;
    }
    if let Some(socket) = &config.unix_socket {
        let socket = UnixSocket { path: absolute(&socket.path), mode: socket.mode };
        listeners.bind_unix(&socket, config.backlog)?;
    }
    let config =
        &Config { memory_file: config.memory_file.as_deref().map(absolute), ..config.clone() };
    let pid_path = process.pid_file.as_deref().map(absolute);
    block_file_size_signal().map_err(RunError::Signals)?;
    // A stop that is asked for from here on is an orderly one.
    let signals = Signals::block().map_err(RunError::Signals)?;
    let guard = Arc::new(Guard::open(&config.authentication).map_err(StartError::from)?);
    let storage = Storage::open(config)?;
    if process.daemon {
        go_into_background(config)?;
    }
    if process.lock_memory {
        lock_memory();
    }
    let pid_file = pid_path.and_then(|path| write_pid_file(&path));
    let orders = Orders::default();
    signals.pass_on(orders.clone()).map_err(StartError::Thread)?;
    match Server::start_on(listeners, storage, Arc::clone(&guard), config, &orders) {
        Ok(server) => {
            let reason = wait_for_stop(&orders, &guard)?;
            tracing::info!("{reason}: stopping");
            server.stop();
        }
        // Told while it started: what it had taken into use is in order again.
        Err(StartError::Cluster(cluster_node::StartError::Stopped(reason))) => {
            tracing::info!("{reason}: stopping before it served");
        }
        Err(error) => return Err(error.into()),
    }
    drop(pid_file);
    Ok(())
}

/// Without a pid file the server serves all the same, as memcached does.
fn write_pid_file(path: &Path) -> Option<PidFile> {
    if let Some(other) = PidFile::running(path) {
        tracing::warn!("the pid file {} names a process that runs: {other}", path.display());
    }
    PidFile::write(path)
        .inspect_err(|error| {
            tracing::warn!("cannot write the pid file {}: {error}", path.display());
        })
        .ok()
}

/// Waits for an order to stop; has the authentication file read again when that is asked for.
fn wait_for_stop(orders: &Orders, guard: &Guard) -> Result<StopReason, StartError> {
    let runtime = runtime::Builder::new_current_thread().build().map_err(StartError::Thread)?;
    Ok(runtime.block_on(async {
        if !guard.has_file() {
            return orders.stopped().await;
        }
        let mut reloads = orders.reloads();
        loop {
            tokio::select! {
                reason = orders.stopped() => return reason,
                // The sender lives as long as the orders.
                _ = reloads.changed() => guard.reload(),
            }
        }
    }))
}

/// `path` from the root: the background changes the working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Who to run as, when this process is root: root itself only if asked for by name.
fn user_to_become(process: &ProcessConfig) -> Result<Option<User>, RunError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let Some(name) = &process.user else { return Err(RunError::Root) };
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) | Err(_) => Err(RunError::NoSuchUser(name.clone())),
    }
}

fn become_user(user: &User) -> Result<(), RunError> {
    let identity_error = |source| RunError::Identity { user: user.name.clone(), source };
    let name = CString::new(user.name.as_str()).map_err(|_| identity_error(Errno::EINVAL))?;
    // Groups first: once the user is changed there is no right left to change them.
    initgroups(&name, user.gid).map_err(identity_error)?;
    setgid(user.gid).map_err(identity_error)?;
    setuid(user.uid).map_err(identity_error)
}

fn raise_limits(config: &Config) -> Result<(), RunError> {
    let sockets = config.threads.get() * (config.listen.len() + config.udp.len() + 1);
    let wanted = rlim_t::from(config.connections_max.get()) + SPARE_FILES + sockets as rlim_t;
    raise_limit(Resource::RLIMIT_NOFILE, wanted)
        .map_err(|source| RunError::OpenFiles { wanted, source })?;
    if config.process.lock_memory {
        // Refused to whoever is not root; whether the limit suffices is looked at when locking.
        let _ = raise_limit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY);
    }
    if config.process.core_dumps {
        raise_core_limit().map_err(RunError::CoreFiles)?;
    }
    Ok(())
}

/// As high as may be; an error only if there could be no core file at all.
fn raise_core_limit() -> Result<(), Errno> {
    let raised = raise_limit(Resource::RLIMIT_CORE, RLIM_INFINITY);
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    match raised {
        Err(error) if soft == 0 && hard == 0 => Err(error),
        Err(_) => setrlimit(Resource::RLIMIT_CORE, hard, hard),
        Ok(()) => Ok(()),
    }
}

/// Raises a limit to at least `wanted`; the hard limit too, if need be and allowed.
fn raise_limit(resource: Resource, wanted: rlim_t) -> Result<(), Errno> {
    let (soft, hard) = getrlimit(resource)?;
    if soft >= wanted { Ok(()) } else { setrlimit(resource, wanted, hard.max(wanted)) }
}

/// Has this process told to stop when its parent ends. A change of user undoes that, so it comes after.
fn tie_to_parent() -> Result<(), Errno> {
    let parent = getppid();
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // It may have ended just before. Then somebody else is the parent by now, and says nothing.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Forks, leaves the terminal, and like memcached keeps the working directory with `-r` and the
/// standard streams with `-v`.
fn go_into_background(config: &Config) -> Result<(), RunError> {
    daemon(config.process.core_dumps, config.verbosity > 0)
        .map_err(|error| RunError::Background(error.into()))
}

/// Keeps all memory out of swap, page by page as it is first touched: columns are reserved long
/// before they are used, and locking them whole would take the memory at once.
///
/// Under a limit it is left undone with a warning. The call would succeed, and later growth beyond
/// the limit fail: a cache that dies when it fills up is worse than one that may be swapped.
fn lock_memory() {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    if limit != RLIM_INFINITY {
        tracing::warn!("memory is not locked as -k asks: only {limit} bytes may be, see ulimit -l");
        return;
    }
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    if let Err(error) = mlockall(all | on_fault) {
        tracing::warn!("memory is not locked as -k asks: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_that_suffices_is_left_alone() {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_limit(Resource::RLIMIT_NOFILE, 1).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), before);
    }

    #[test]
    fn exit_codes_are_those_of_memcached() {
        assert_eq!(RunError::Root.exit_code(), 64);
        assert_eq!(RunError::NoSuchUser("nosuchuser".into()).exit_code(), 67);
        let in_use = ListenError::Tcp {
            address: ([127, 0, 0, 1], 11211).into(),
            source: io::ErrorKind::AddrInUse.into(),
        };
        assert_eq!(RunError::from(in_use).exit_code(), 71);
    }
}
