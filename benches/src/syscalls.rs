//! System calls of a server's process, counted by a tool that may: `perf`, or else `strace`.
//!
//! - `perf stat` counts the tracepoint `raw_syscalls:sys_enter` in the kernel, which slows every call of
//!   the machine a little. `strace -c -f` stops the process at every call, which slows it tenfold, so
//!   that more is ready whenever it asks: its counts are lower bounds.
//! - Either way speed is measured without it. What is told is calls per request, from the difference
//!   of two loads of different length: accepting connections, and what a server does once, cancels out.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::clock;

/// How long a tool may take until it counts.
const ATTACH_MAX: Duration = Duration::from_secs(5);
/// How long it may take to write its count down.
const DETACH_MAX: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// `perf stat`.
    Perf,
    /// `strace -c -f`.
    Strace,
}

impl Tool {
    /// Its name, as it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perf => "perf",
            Self::Strace => "strace",
        }
    }

    /// The first tool that may count the calls of process `pid`.
    ///
    /// # Errors
    /// When none may: why not, each.
    pub fn for_process(pid: u32) -> Result<Self, String> {
        let mut reasons = Vec::new();
        for tool in [Self::Perf, Self::Strace] {
            match Counting::start(tool, pid).and_then(Counting::end) {
                Ok(_) => return Ok(tool),
                Err(error) => reasons.push(format!("{}: {error}", tool.name())),
            }
        }
        Err(reasons.join("; "))
    }

    fn command(self, pid: u32, folder: &Path) -> Command {
        let mut command = Command::new(self.name());
        match self {
            // Its first line of counts, after 50 ms, says that it counts.
            Self::Perf => command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-I", "50"]),
            Self::Strace => command.args(["-c", "-f"]),
        };
        command.arg("-p").arg(pid.to_string()).arg("-o").arg(folder.join(COUNTS));
        command
    }

    /// Whether it has begun to count, by what it has written.
    fn counts(self, folder: &Path) -> bool {
        let read = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        match self {
            Self::Perf => read(COUNTS).contains("sys_enter"),
            Self::Strace => read(ERRORS).contains("attached"),
        }
    }

    /// The calls that its file tells of.
    fn total(self, counts: &str) -> Option<u64> {
        match self {
            Self::Perf => counts
                .lines()
                .filter(|line| line.contains("sys_enter"))
                .map(|line| match line.split(',').nth(1)? {
                    "<not counted>" => Some(0),
                    count => count.parse::<u64>().ok(),
                })
                .sum(),
            // `% time  seconds  usecs/call  calls  [errors]  total`
            Self::Strace => {
                let line = counts.lines().find(|line| line.trim_end().ends_with(" total"))?;
                line.split_ascii_whitespace().nth(3)?.parse().ok()
            }
        }
    }
}

/// The tool's count, and what it says beside.
const COUNTS: &str = "counts";
const ERRORS: &str = "errors";

/// A count that goes on.
#[derive(Debug)]
pub struct Counting {
    tool: Tool,
    child: Child,
    folder: TempDir,
}

impl Counting {
    /// Begins to count the calls of process `pid`.
    ///
    /// # Errors
    /// When the tool is not there, or not allowed to.
    pub fn start(tool: Tool, pid: u32) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let errors = fs::File::create(folder.path().join(ERRORS))?;
        let child = tool
            .command(pid, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        let mut counting = Self { tool, child, folder };
        let deadline = clock::now() + ATTACH_MAX;
        while !tool.counts(counting.folder.path()) {
            if counting.child.try_wait()?.is_some() {
                return Err(io::Error::other(counting.said()));
            }
            if clock::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Ok(counting)
    }

    /// Ends it: how many calls there were.
    ///
    /// # Errors
    /// When the tool does not say.
    pub fn end(mut self) -> io::Result<u64> {
        // The child has not been waited for, so its pid cannot belong to anyone else yet.
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        kill(Pid::from_raw(pid), Signal::SIGINT)?;
        let deadline = clock::now() + DETACH_MAX;
        while self.child.try_wait()?.is_none() {
            if clock::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        let counts = fs::read_to_string(self.folder.path().join(COUNTS))?;
        self.tool.total(&counts).ok_or_else(|| io::Error::other(self.said()))
    }

    /// What the tool complains of, in a line.
    fn said(&self) -> String {
        let errors = fs::read_to_string(self.folder.path().join(ERRORS)).unwrap_or_default();
        let lines: Vec<&str> =
            errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() { "it ended without a count".to_owned() } else { lines.join("; ") }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // Nothing is left to be done when these fail: the tool is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_counts_in_intervals() {
        let counts = "# started on Mon\n\n     0.054,12,,raw_syscalls:sys_enter,28608,100.00,,\n     \
                      0.105,<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n     \
                      0.156,30,,raw_syscalls:sys_enter,67895,100.00,,\n";
        assert_eq!(Tool::Perf.total(counts), Some(42));
    }

    #[test]
    fn strace_has_a_line_for_all() {
        let counts = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      62.09    0.000172         172         1           epoll_wait\n\
                      100.00    0.000277          69        56         3 total\n";
        assert_eq!(Tool::Strace.total(counts), Some(56));
        assert_eq!(Tool::Strace.total(""), None);
    }

    #[test]
    fn where_nobody_may_count_the_reasons_are_told() {
        let reasons = Tool::for_process(u32::MAX).unwrap_err();
        assert!(reasons.contains("perf: ") && reasons.contains("strace: "), "{reasons}");
    }
}
