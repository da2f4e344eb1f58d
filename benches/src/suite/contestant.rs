//! `Contestant`: a server that takes part, as the command line names it.
//!
//! ```text
//! memcached                                found in PATH
//! redis=/usr/bin/redis-server              at a path
//! two-lines=/opt/m/memcached -o hashpower=20    with flags of its own
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::server_process::{Kind, Launch};

/// Connections a server takes: those of the largest load, and those that ask about it.
const CONNECTIONS: usize = 1_100;

/// How long a program may take to say its version; one that serves instead is ended then.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A server that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// What it is called in reports.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The executable.
    pub program: PathBuf,
    /// Its flags, after those that every row gives.
    pub flags: Vec<OsString>,
}

/// Why a text names no server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no server: expected NAME, NAME=PATH or 'NAME=PATH FLAGS'")]
pub struct NoContestant(String);

impl Contestant {
    /// Our server.
    pub fn ours(program: PathBuf, flags: Vec<OsString>) -> Self {
        Self { name: "ours".to_owned(), kind: Kind::Memcached, program, flags }
    }

    /// Reads `NAME`, `NAME=PATH` or `NAME=PATH FLAGS`. What it is its name says, or else what the
    /// program answers to `--version`; whatever is not Redis takes memcached's flags.
    ///
    /// # Errors
    /// When a part is missing.
    pub fn parse(text: &str) -> Result<Self, NoContestant> {
        let (name, command) = text.split_once('=').unwrap_or((text, text));
        let mut words = command.split_ascii_whitespace();
        let program =
            words.next().filter(|_| !name.is_empty() && !name.contains(char::is_whitespace));
        let Some(program) = program else { return Err(NoContestant(text.to_owned())) };
        let kind = kind_by_words(name).unwrap_or_else(|| kind_by_version(program));
        let flags = words.map(OsString::from).collect();
        Ok(Self { name: name.to_owned(), kind, program: PathBuf::from(program), flags })
    }

    /// What its program says that it is: the last line of `--version`.
    pub(super) fn version(&self) -> Option<String> {
        let said = answer_to_version(&self.program)?;
        said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }

    /// Flags that make it work on so many threads; `None` if it cannot.
    pub(super) fn flags_for_threads(&self, threads: usize) -> Option<Vec<OsString>> {
        match self.kind {
            _ if threads == 1 => Some(Vec::new()),
            Kind::Memcached => Some(vec!["-t".into(), threads.to_string().into()]),
            // Redis runs commands on one thread, whatever its input and output run on.
            Kind::Redis | Kind::Echo => None,
        }
    }

    /// How it is started; `flags` come before its own, which have the last word.
    pub(super) fn launch(&self, memory_mib: u64, cores: Vec<usize>, flags: &[OsString]) -> Launch {
        Launch {
            kind: self.kind,
            program: self.program.clone(),
            memory_mib,
            connections: CONNECTIONS,
            cores,
            extra: flags.iter().chain(&self.flags).cloned().collect(),
        }
    }
}

/// What somebody who names or describes a server so means.
fn kind_by_words(words: &str) -> Option<Kind> {
    let words = words.to_ascii_lowercase();
    let has = |name| words.contains(name);
    if has("redis") || has("valkey") || has("keydb") {
        return Some(Kind::Redis);
    }
    has("memcached").then_some(Kind::Memcached)
}

fn kind_by_version(program: &str) -> Kind {
    let said = answer_to_version(Path::new(program));
    said.as_deref().and_then(kind_by_words).unwrap_or(Kind::Memcached)
}

/// What a program prints when it is started with `--version`, if it ends at that.
fn answer_to_version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let deadline = clock::now() + ANSWER_MAX;
    while matches!(child.try_wait(), Ok(None)) && clock::now() < deadline {
        thread::park_timeout(LOOK_INTERVAL);
    }
    // Nothing is left to be done when this fails: it has ended.
    let _ = child.kill();
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_a_path_and_flags() {
        let of = |text| Contestant::parse(text).unwrap();
        assert_eq!(of("memcached").program, PathBuf::from("memcached"));
        let redis = of("redis=/usr/bin/redis-server --io-threads 1");
        assert_eq!((redis.name.as_str(), redis.kind), ("redis", Kind::Redis));
        assert_eq!(redis.flags, ["--io-threads", "1"]);
        let text = "debian-memcached=/usr/bin/memcached -o hashpower=20";
        assert_eq!((of(text).kind, of(text).flags.len()), (Kind::Memcached, 2));
        for text in ["", "=/usr/bin/memcached", "memcached=", "a b=/usr/bin/memcached"] {
            assert!(Contestant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_program_whose_name_tells_nothing_takes_memcacheds_flags() {
        assert_eq!(Contestant::parse("x=/no/such/server").unwrap().kind, Kind::Memcached);
        assert_eq!(kind_by_words("Redis server v=7.0.15"), Some(Kind::Redis));
    }

    #[test]
    fn a_program_is_asked_what_it_is() {
        let rustc = Contestant::parse("rustc").unwrap();
        assert!(rustc.version().unwrap().starts_with("rustc "));
        assert_eq!(Contestant::parse("x=/no/such/server").unwrap().version(), None);
    }

    #[test]
    fn redis_takes_no_part_in_what_needs_two_threads() {
        let redis = Contestant::parse("redis=/usr/bin/redis-server").unwrap();
        assert_eq!(redis.flags_for_threads(2), None);
        assert_eq!(redis.flags_for_threads(1), Some(Vec::new()));
        let ours = Contestant::ours("cache-server".into(), vec!["--eviction=lru".into()]);
        let launch = ours.launch(64, vec![1], &ours.flags_for_threads(2).unwrap());
        assert_eq!(launch.extra, ["-t", "2", "--eviction=lru"]);
    }
}
