//! From the start of a server to its first hit, with everything its memory file holds.
//!
//! ```text
//! round    1                                                2
//!          theirs, stopped │ ours, stopped, killed │ ...    ours │ theirs ...
//!
//! start ──▶ accepts ──▶ first right value ──▶ all is back ──▶ a sample of all keys, each compared
//! 0         a connection a millisecond         `restoring 0`
//! ```
//!
//! - Both servers are filled with the same items once; then each is ended and started again, round
//!   by round, over a file on the same file system. A round asks for random keys, one connection, a
//!   look a millisecond, until one is answered with its value.
//! - Each restart is measured on one core, and ours on all cores as well: the threads of the server
//!   are as many in both, so that its shards are.
//! - memcached (1.6.18) refuses its own file when it is started within the second of its stop, so all
//!   starts wait for a while.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock;
use crate::compare::{CompareError, median};
use crate::interrupt::Interrupt;
use crate::keyspace::{Keyspace, Popularity};
use crate::load::{self, Extent, Pace, Plan, Target};
use crate::server_process::{Launch, ServerProcess, StartedAt};
use crate::session::{Session, SessionError};
use crate::value::Values;
use crate::wire::{Dialect, Reply};
use crate::workload::Workload;

/// How often a server that does not answer yet is asked.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long a server may take until its first hit.
const FIRST_HIT_MAX: Duration = Duration::from_secs(120);
/// The pause between a stop and the next start.
const PAUSE: Duration = Duration::from_secs(3);
/// Keys asked for in one line when a sample is compared.
const KEYS_PER_LOOK: usize = 50;

/// How a server is ended before its start is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Told to stop, by the signal after which it comes back warm.
    Stopped,
    /// Killed.
    Killed,
}

impl Ending {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Killed => "killed",
        }
    }
}

/// What is measured of one server in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    ending: Ending,
    on_all_cores: bool,
}

/// A server that keeps its items in a file.
#[derive(Clone, Debug)]
pub struct Contender {
    /// How it is started, its file apart; its cores are those of a restart on one core.
    pub launch: Launch,
    /// The signal after which its next start is warm.
    pub stop: Signal,
    /// Whether it comes back from a kill, and is started on all cores too.
    pub survives_kills: bool,
}

/// How restarts are compared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Rounds, each with one restart of every kind.
    pub rounds: usize,
    /// Items that both servers hold.
    pub keys: u64,
    /// Length of each key, in bytes.
    pub key_bytes: usize,
    /// Length of each value, in bytes.
    pub value_bytes: usize,
    /// How many keys are looked at after each restart.
    pub sample: usize,
    /// Where the files stand.
    pub folder: PathBuf,
    /// The cores of the load.
    pub load_cores: Vec<usize>,
    /// Every core there is.
    pub all_cores: Vec<usize>,
}

/// One restart.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// From the start to the first connection accepted, in milliseconds.
    pub accepts_ms: f64,
    /// From the start to the first value that was its key's.
    pub first_hit_ms: f64,
    /// From the start until the server said that all was back; a server that does not say is back
    /// with its first hit.
    pub all_back_ms: f64,
    /// Of the sample, keys that were not there.
    pub missing: u64,
    /// Of the sample, values that were not their key's.
    pub wrong: u64,
}

/// All restarts of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// The server's name and version.
    pub title: String,
    /// How it was ended before.
    pub ending: Ending,
    /// On how many cores it was started.
    pub cores: usize,
    /// One for each round.
    pub restarts: Vec<Restart>,
    /// How long the stops before took, in milliseconds.
    pub stop_ms: Vec<f64>,
}

impl Series {
    /// The middle of what `of` gives for each restart.
    pub fn median(&self, of: impl Fn(&Restart) -> f64) -> f64 {
        median(&self.restarts.iter().map(of).collect::<Vec<_>>())
    }

    /// The middle of the ratios of the first hits, round by round, to those of `other`.
    pub fn ratio(&self, other: &Self) -> f64 {
        let pairs = self.restarts.iter().zip(&other.restarts);
        median(&pairs.map(|(a, b)| a.first_hit_ms / b.first_hit_ms).collect::<Vec<_>>())
    }
}

/// Why a comparison of restarts did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// As in other comparisons.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// Nothing came back.
    #[error("{server} gave no right value within {FIRST_HIT_MAX:?} of its start")]
    Cold {
        /// The server's title.
        server: String,
    },
    /// It stayed when told to stop.
    #[error("{server} does not stop")]
    Stays {
        /// The server's title.
        server: String,
    },
    /// It dropped what it was to hold.
    #[error("{server} holds {items} of {keys} items; give it more memory")]
    Evicted {
        /// The server's title.
        server: String,
        /// Items it holds.
        items: u64,
        /// Items that were written.
        keys: u64,
    },
}

/// Compares restarts of both servers; `progress` hears what is going on. Theirs come first in the
/// result.
///
/// # Errors
/// When a server does not come up, does not come back, or breaks off. Both are ended in any case.
pub fn restarts(
    theirs: &Contender,
    ours: &Contender,
    rules: &Rules,
    interrupt: &Interrupt,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Series>, RestartError> {
    let mut tracks = [
        Track::fill(theirs, "theirs", rules, interrupt, &mut progress)?,
        Track::fill(ours, "ours", rules, interrupt, &mut progress)?,
    ];
    for round in 0..rules.rounds {
        for turn in 0..2 {
            // 0 1, 1 0, 0 1: neither is always the first.
            let track = &mut tracks[(round + turn) % 2];
            for case in 0..track.cases.len() {
                track.restart(case, round, rules, interrupt, &mut progress)?;
            }
        }
    }
    Ok(tracks.into_iter().flat_map(|track| track.series).collect())
}

/// One server through all its restarts.
struct Track<'a> {
    contender: &'a Contender,
    file: PathBuf,
    cases: Vec<Case>,
    series: Vec<Series>,
    /// Running between two restarts.
    server: Option<ServerProcess>,
    title: String,
    values: Values,
    keyspace: Keyspace,
}

impl<'a> Track<'a> {
    /// Starts the server over a new file and fills it.
    fn fill(
        contender: &'a Contender,
        name: &str,
        rules: &Rules,
        interrupt: &Interrupt,
        progress: &mut impl FnMut(&str),
    ) -> Result<Self, RestartError> {
        let file = rules.folder.join(name);
        // To fill it need not be kept to one core.
        let launch = Launch { cores: Vec::new(), ..with_file(&contender.launch, &file) };
        let server = ServerProcess::start(&launch, interrupt).map_err(CompareError::from)?;
        let title = server.title();
        progress(&format!("filling {title} with {} items", rules.keys));
        let keyspace = Keyspace::new(rules.keys, rules.key_bytes).map_err(CompareError::from)?;
        let workload = Workload {
            keyspace,
            popularity: Popularity::Uniform,
            value_bytes: rules.value_bytes..=rules.value_bytes,
            get_share: 0.0,
            keys_per_get: 1,
            dialect: Dialect::Text,
            fill: false,
            values: Values::new(),
            checks: true,
        };
        let plan = Plan {
            targets: vec![Target::any_key(server.address())],
            connections: 8,
            threads: 1,
            depth: 1,
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            extent: Extent::Filling,
            seed: 1,
            cores: rules.load_cores.clone(),
            server_pids: Vec::new(),
        };
        load::fill(&plan, &workload, interrupt, |_| {})
            .map_err(|source| CompareError::Load { server: title.clone(), source })?;
        let items = Session::connect(server.address())
            .and_then(|mut session| session.items())
            .map_err(|source| CompareError::Session { server: title.clone(), source })?;
        if items < rules.keys {
            return Err(RestartError::Evicted { server: title, items, keys: rules.keys });
        }
        let cases = cases_of(contender, rules);
        let series = cases
            .iter()
            .map(|case| Series {
                title: title.clone(),
                ending: case.ending,
                cores: if case.on_all_cores { rules.all_cores.len() } else { 1 },
                restarts: Vec::new(),
                stop_ms: Vec::new(),
            })
            .collect();
        let (server, values) = (Some(server), workload.values);
        Ok(Self { contender, file, cases, series, server, title, values, keyspace })
    }

    /// Ends the server and measures how it comes back.
    fn restart(
        &mut self,
        case: usize,
        round: usize,
        rules: &Rules,
        interrupt: &Interrupt,
        progress: &mut impl FnMut(&str),
    ) -> Result<(), RestartError> {
        let Case { ending, on_all_cores } = self.cases[case];
        let title = self.title.clone();
        progress(&format!("round {} of {}: {title}, {}", round + 1, rules.rounds, ending.name()));
        if let Some(server) = self.server.take() {
            let stopping = clock::now();
            let is_gone = match ending {
                Ending::Stopped => server.stop(self.contender.stop),
                Ending::Killed => server.kill(),
            };
            if !is_gone {
                return Err(RestartError::Stays { server: title });
            }
            self.series[case].stop_ms.push(millis(stopping));
        }
        thread::park_timeout(PAUSE);
        interrupt.check().map_err(CompareError::from)?;
        let mut launch = with_file(&self.contender.launch, &self.file);
        if on_all_cores {
            launch.cores.clone_from(&rules.all_cores);
        }
        let started = ServerProcess::spawn(&launch).map_err(CompareError::from)?;
        let StartedAt { mut server, at } = started;
        let mut random = StdRng::seed_from_u64(round as u64);
        let (accepts_ms, first_hit_ms) = self.first_hit(&mut server, at, &mut random, interrupt)?;
        let failed = |source| CompareError::Session { server: self.title.clone(), source };
        let mut session = Session::connect(server.address()).map_err(failed)?;
        let mut all_back_ms = first_hit_ms;
        while session.restore_stats().map_err(failed)?.get("restoring").is_some_and(|it| it == "1")
        {
            thread::park_timeout(LOOK_INTERVAL);
            all_back_ms = millis(at);
        }
        let (missing, wrong) =
            self.look(&mut session, rules.sample, &mut random).map_err(failed)?;
        self.series[case].restarts.push(Restart {
            accepts_ms,
            first_hit_ms,
            all_back_ms,
            missing,
            wrong,
        });
        self.server = Some(server);
        Ok(())
    }

    /// Asks for random keys until one is answered with its value; when a connection was accepted and
    /// when that was, in milliseconds since `start`.
    fn first_hit(
        &self,
        server: &mut ServerProcess,
        start: Instant,
        random: &mut StdRng,
        interrupt: &Interrupt,
    ) -> Result<(f64, f64), RestartError> {
        let mut session = None;
        let mut accepts_ms = f64::NAN;
        while start.elapsed() < FIRST_HIT_MAX {
            interrupt.check().map_err(CompareError::from)?;
            server.is_alive().map_err(CompareError::from)?;
            if session.is_none() {
                session = Session::connect(server.address()).ok();
                accepts_ms = millis(start);
            }
            if let Some(open) = &mut session {
                match self.look(open, 1, random) {
                    Ok((0, 0)) => return Ok((accepts_ms, millis(start))),
                    Ok(_) => {}
                    // It may not be ready for more than connections.
                    Err(_) => session = None,
                }
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
        Err(RestartError::Cold { server: self.title.clone() })
    }

    /// Asks for so many random keys: how many are missing, and how many have another value.
    fn look(
        &self,
        session: &mut Session,
        count: usize,
        random: &mut StdRng,
    ) -> Result<(u64, u64), SessionError> {
        let (mut missing, mut wrong) = (0, 0);
        let mut left = count;
        while left > 0 {
            let asked = left.min(KEYS_PER_LOOK);
            left -= asked;
            let keys: Vec<Vec<u8>> = (0..asked)
                .map(|_| {
                    let mut key = vec![0; self.keyspace.key_bytes()];
                    self.keyspace
                        .write_key(random.random_range(0..self.keyspace.count()), &mut key);
                    key
                })
                .collect();
            Dialect::Text.write_get(keys.iter().map(Vec::as_slice), session.output());
            let mut found = 0;
            loop {
                let is_end = session.reply(|reply| match reply {
                    Reply::Hit { key, value } => {
                        found += 1;
                        wrong += u64::from(!self.values.matches(key, value));
                        false
                    }
                    _ => true,
                })?;
                if is_end {
                    break;
                }
            }
            missing += (asked - found) as u64;
        }
        Ok((missing, wrong))
    }
}

fn cases_of(contender: &Contender, rules: &Rules) -> Vec<Case> {
    let mut cases = vec![Case { ending: Ending::Stopped, on_all_cores: false }];
    if contender.survives_kills {
        cases.push(Case { ending: Ending::Killed, on_all_cores: false });
        if rules.all_cores.len() > 1 {
            cases.push(Case { ending: Ending::Stopped, on_all_cores: true });
            cases.push(Case { ending: Ending::Killed, on_all_cores: true });
        }
    }
    cases
}

fn with_file(launch: &Launch, file: &Path) -> Launch {
    let mut launch = launch.clone();
    launch.extra.extend([OsString::from("-e"), file.as_os_str().to_owned()]);
    launch
}

fn millis(since: Instant) -> f64 {
    (clock::now() - since).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(first_hits_ms: &[f64]) -> Series {
        let restart = |&first_hit_ms: &f64| Restart {
            accepts_ms: 0.0,
            first_hit_ms,
            all_back_ms: first_hit_ms,
            missing: 0,
            wrong: 0,
        };
        Series {
            title: String::new(),
            ending: Ending::Stopped,
            cores: 1,
            restarts: first_hits_ms.iter().map(restart).collect(),
            stop_ms: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let (ours, theirs) = (series(&[10.0, 20.0, 90.0]), series(&[100.0, 100.0, 300.0]));
        assert_eq!(ours.ratio(&theirs), 0.2);
        assert_eq!(ours.median(|it| it.first_hit_ms), 20.0);
    }
}
