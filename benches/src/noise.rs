//! How much the machine disturbed a round: what a round's figures are worth.
//!
//! ```text
//! server's threads   running ▓▓▓▓▓▓▓░░▓▓▓▓▓▓     ░ ready to run, and somebody else had the core
//! load's threads     running ▓▓▓▓░▓▓▓▓▓▓▓▓▓
//! hypervisor         ▓▓▓▓▓▓▓▓▓▓▓×▓▓▓             × stolen: no core of this machine ran at all
//! ```
//!
//! - Waiting is the second figure of `/proc/PID/task/TID/schedstat`: nanoseconds on a run queue.
//! - Stolen time, and the time that other programs had, are from `/proc/stat`, to a hundredth of a
//!   second.
//! - Where server and load have a core each, nobody waits unless another program runs. Where they share
//!   cores they wait for each other by design; then only what others used, and what was stolen, tells.

use std::collections::HashMap;
use std::ffi::OsString;
use std::ops::Sub;
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

use crate::clock;
use crate::server_process::cpu_time;

/// How a round was disturbed, in shares of its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// Time that a thread of the server waited for a core: of the thread that waited longest.
    pub server_wait: f64,
    /// Time that the load's threads waited for a core, on average.
    pub load_wait: f64,
    /// Time that the hypervisor kept from a core, on average.
    pub stolen: f64,
    /// Time that other programs had of the cores, on average.
    pub others: f64,
}

impl Noise {
    /// The one share that decides: the worst that should not be there.
    pub fn share(&self, cores_are_shared: bool) -> f64 {
        if cores_are_shared {
            self.stolen.max(self.others)
        } else {
            self.stolen.max(self.server_wait).max(self.load_wait)
        }
    }

    /// The worse of both, share by share.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        Self {
            server_wait: self.server_wait.max(other.server_wait),
            load_wait: self.load_wait.max(other.load_wait),
            stolen: self.stolen.max(other.stolen),
            others: self.others.max(other.others),
        }
    }
}

/// A look at the machine while a round goes on.
#[derive(Debug)]
pub struct Watch {
    server: u32,
    /// Processes whose use of the cores is nobody else's.
    ours: Vec<u32>,
    start: Instant,
    before: Look,
}

#[derive(Clone, Debug, Default)]
struct Look {
    /// By thread.
    server_waits: HashMap<OsString, Duration>,
    ours: Duration,
    machine: Machine,
}

impl Watch {
    /// Begins a round of load on process `server`; the processes of `ours` are this comparison's too, as
    /// the calling process is.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn start(server: u32, ours: &[u32]) -> io::Result<Self> {
        let ours = ours.iter().copied().chain([std::process::id()]).collect();
        let mut watch = Self { server, ours, start: clock::now(), before: Look::default() };
        watch.before = watch.look()?;
        Ok(watch)
    }

    /// Ends it: `threads` threads carried the load and have waited for `load_wait` together.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn end(&self, load_wait: Duration, threads: usize) -> io::Result<Noise> {
        let elapsed_s = (clock::now() - self.start).as_secs_f64();
        let (before, after) = (&self.before, self.look()?);
        let share = |time: Duration| time.as_secs_f64() / elapsed_s;
        let machine = after.machine - before.machine;
        let cores = machine.cores as f64;
        let ours = after.ours.saturating_sub(before.ours);
        let waited = after.server_waits.iter().map(|(thread, &wait)| {
            wait.saturating_sub(before.server_waits.get(thread).copied().unwrap_or(Duration::ZERO))
        });
        Ok(Noise {
            server_wait: share(waited.max().unwrap_or(Duration::ZERO)),
            load_wait: share(load_wait) / threads as f64,
            stolen: share(machine.stolen) / cores,
            others: share(machine.busy.saturating_sub(ours)) / cores,
        })
    }

    fn look(&self) -> io::Result<Look> {
        Ok(Look {
            server_waits: waits(self.server)?,
            ours: self.ours.iter().map(|&pid| cpu_time(pid)).sum::<io::Result<_>>()?,
            machine: Machine::look()?,
        })
    }
}

/// How long each thread of a process has waited for a core.
fn waits(pid: u32) -> io::Result<HashMap<OsString, Duration>> {
    let mut waits = HashMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        // A thread may end meanwhile; it is no worker then.
        if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
            waits.insert(task.file_name(), wait_in(&text)?);
        }
    }
    if waits.is_empty() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "no thread has a schedstat"));
    }
    Ok(waits)
}

/// How long the calling thread has waited for a core.
///
/// # Errors
/// When the kernel does not say.
pub fn thread_wait() -> io::Result<Duration> {
    wait_in(&fs::read_to_string("/proc/thread-self/schedstat")?)
}

/// `running waiting turns`
fn wait_in(schedstat: &str) -> io::Result<Duration> {
    let wait = schedstat.split_ascii_whitespace().nth(1).and_then(|wait| wait.parse().ok());
    wait.map(Duration::from_nanos).ok_or_else(|| unreadable("schedstat", schedstat))
}

fn unreadable(file: &str, text: &str) -> io::Error {
    let line = text.lines().next().unwrap_or_default();
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} begins with '{line}'"))
}

/// What all cores did since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Machine {
    busy: Duration,
    stolen: Duration,
    cores: usize,
}

impl Machine {
    fn look() -> io::Result<Self> {
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok());
        Self::of(&fs::read_to_string("/proc/stat")?, ticks_per_s.unwrap_or(100))
    }

    /// `cpu user nice system idle iowait irq softirq steal ...`, and a line for each core.
    fn of(stat: &str, ticks_per_s: u32) -> io::Result<Self> {
        let ticks = |line: &str| -> Option<Vec<u64>> {
            line.split_ascii_whitespace().take(8).map(|ticks| ticks.parse().ok()).collect()
        };
        let cores = stat.lines().filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        let all = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let Some([user, nice, system, _idle, _iowait, irq, softirq, stolen]) =
            all.and_then(ticks).and_then(|ticks| <[u64; 8]>::try_from(ticks).ok())
        else {
            return Err(unreadable("/proc/stat", stat));
        };
        let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / f64::from(ticks_per_s));
        let busy = [user, nice, system, irq, softirq].into_iter().sum();
        Ok(Self { busy: time(busy), stolen: time(stolen), cores: cores.count().max(1) })
    }
}

impl Sub for Machine {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            stolen: self.stolen.saturating_sub(before.stolen),
            cores: self.cores,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_the_second_figure() {
        assert_eq!(wait_in("4227838 22419195 64\n").unwrap(), Duration::from_nanos(22_419_195));
        assert!(wait_in("4227838").is_err() && wait_in("a b c").is_err());
        assert!(thread_wait().is_ok());
    }

    #[test]
    fn what_the_cores_did_is_read_in_ticks() {
        let stat = "cpu  100 10 200 9000 50 5 85 40 0 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        let machine = Machine::of(stat, 100).unwrap();
        assert_eq!(machine.busy, Duration::from_secs(4));
        assert_eq!((machine.stolen, machine.cores), (Duration::from_millis(400), 2));
        assert!(Machine::of("cpu  1 2 3\n", 100).is_err());
    }

    #[test]
    fn where_cores_are_shared_only_others_and_theft_count() {
        let noise = Noise { server_wait: 0.5, load_wait: 0.4, stolen: 0.01, others: 0.02 };
        assert_eq!((noise.share(false), noise.share(true)), (0.5, 0.02));
        let quiet = Noise { stolen: 0.03, ..Noise::default() };
        assert_eq!(noise.worse(quiet), Noise { stolen: 0.03, ..noise });
    }

    #[test]
    fn a_round_of_this_process_is_watched() {
        let pid = std::process::id();
        let watch = Watch::start(pid, &[]).unwrap();
        while clock::now() - watch.start < Duration::from_millis(20) {}
        let noise = watch.end(Duration::from_millis(1), 2).unwrap();
        assert!(noise.load_wait > 0.0 && noise.load_wait < 0.03, "{noise:?}");
        assert!(noise.server_wait >= 0.0 && noise.others >= 0.0);
    }
}
