//! One node: its command line, its process, its log.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use cluster::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::folder::{CACHE_FILE, CLUSTER_DIR, LOG_FILE, TOKEN_FILE};
use super::{Plan, local};

/// What is read of a log's end, to tell why a node ended.
const LAST_WORDS_BYTES: u64 = 2048;
/// How many lines of it are told.
const LAST_WORDS_LINES: usize = 4;

/// How a node comes to the cluster.
#[derive(Debug)]
pub(super) enum Origin {
    /// It founds it.
    Founds,
    /// It joins it, with the token in its folder.
    Joins,
    /// It was in it before.
    Continues,
}

/// A node; killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    /// From 0, in order of ports.
    pub(super) index: u16,
    /// Its id in the cluster, once it is known.
    pub(super) id: Option<NodeId>,
    /// When its process was started, in milliseconds since the start of 1970.
    pub(super) started_ms: u64,
    /// How often in a row it ended soon after its start.
    pub(super) quick_ends: u32,
    /// When it is to be started again.
    pub(super) restart_at_ms: Option<u64>,
    dir: PathBuf,
    child: Option<Child>,
    running: bool,
}

impl Node {
    pub(super) fn new(index: u16, dir: PathBuf) -> Self {
        Self {
            index,
            id: None,
            started_ms: 0,
            quick_ends: 0,
            restart_at_ms: None,
            dir,
            child: None,
            running: false,
        }
    }

    /// From 1, as a person counts and as folders are named.
    pub(super) fn number(&self) -> u16 {
        self.index + 1
    }

    /// The process that it is, or last was; 0 before the first.
    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join(LOG_FILE)
    }

    /// Starts its process.
    pub(super) fn start(
        &mut self,
        plan: &Plan,
        origin: &Origin,
        now_ms: u64,
    ) -> anyhow::Result<()> {
        let path = self.log();
        let cannot_log = || format!("cannot write {}", path.display());
        let mut log =
            OpenOptions::new().append(true).create(true).open(&path).with_context(cannot_log)?;
        let mut command = self.command(plan, origin)?;
        // Whoever wants to start this node alone finds here how.
        let words = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>();
        writeln!(log, "cache-server {}", words.join(" ")).with_context(cannot_log)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().context("cannot start a server")?;
        self.child = Some(child);
        self.running = true;
        self.started_ms = now_ms;
        self.restart_at_ms = None;
        Ok(())
    }

    fn command(&self, plan: &Plan, origin: &Origin) -> anyhow::Result<Command> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        let ports = plan.ports;
        if geteuid().is_root() {
            // A server asks root to name somebody. The nodes are whoever tries them out.
            command.args(["-u", "root"]);
        }
        command.args(["-l", "127.0.0.1", "-p", &ports.client(self.index).to_string()]);
        command.args(["-m", &plan.memory_mebibytes.to_string()]);
        command.args(["-t", &plan.threads.to_string()]);
        if let Some(prefixes) = &plan.protect {
            command.args(["--protect", prefixes]);
        }
        if plan.memory_file {
            command.arg("-e").arg(self.dir.join(CACHE_FILE));
        }
        command.arg("--cluster-dir").arg(self.dir.join(CLUSTER_DIR));
        command.args(["--peer-listen", &local(ports.peer(self.index)).to_string()]);
        command.args(["--admin-listen", &local(ports.admin(self.index)).to_string()]);
        command.arg("--stop-with-parent");
        match origin {
            Origin::Founds => {
                command.args(["--init", "--pool", &plan.pool.name]);
                command.args(["--replicas", &plan.pool.copies.to_string()]);
                command.args(["--reads", plan.pool.reads.name()]);
                command.args(["--shards", &plan.shard_count.to_string()]);
            }
            Origin::Joins => {
                command.args(["--join", &local(ports.peer(0)).to_string()]);
                command.arg("--token-file").arg(self.dir.join(TOKEN_FILE));
            }
            Origin::Continues => {}
        }
        Ok(command)
    }

    /// Whether its process was running when it was last looked at.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Looks whether its process is running.
    pub(super) fn check_running(&mut self) -> bool {
        // A process that cannot be asked about is one to be killed in the end.
        self.ended().ok();
        self.running
    }

    /// How its process has ended, if it has since this was last asked.
    pub(super) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut().filter(|_| self.running) else { return Ok(None) };
        let status = child.try_wait()?;
        self.running = status.is_none();
        Ok(status)
    }

    /// Asks its process to leave in order, if it runs.
    pub(super) fn tell_to_stop(&self) {
        let pid = i32::try_from(self.pid()).unwrap_or(0);
        if self.running && pid > 0 {
            // Refused to one that has ended meanwhile, which is what is wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Ends its process, wherever it is.
    pub(super) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has already ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.running = false;
    }

    /// The last lines of its log.
    pub(super) fn last_words(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = std::fs::File::open(self.log())?;
            let bytes = log.metadata()?.len();
            log.seek(SeekFrom::Start(bytes.saturating_sub(LAST_WORDS_BYTES)))?;
            let mut end = Vec::new();
            log.read_to_end(&mut end)?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        match read() {
            Ok(end) => {
                let lines: Vec<_> = end.lines().collect();
                lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("\n")
            }
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.running {
            self.kill();
        }
    }
}
