//! What is replayed: logs of the command line, and three made up here.
//!
//! | log | what it asks of a policy |
//! |---|---|
//! | `zipf` | to know what is popular |
//! | `zipf-scans` | not to forget it over runs of objects that are asked for once |
//! | `zipf-drifting` | to notice that something else has become popular |

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use sim::trace::{Access, Format, TraceError};
use sim::ttl::TtlRule;

use super::RowError;
use super::rows::Scale;
use crate::replay::Wanted;
use crate::replay::log::{Log, LogError};
use crate::value::mix;

/// Popularity's exponent in what is made up.
const EXPONENT: f64 = 0.9;
/// What a folder is searched for; logs in other formats are named one by one.
const FOLDER_SUFFIX: &str = ".oracleGeneral.zst";

/// A log.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Log(Log),
    Made(Made),
}

/// What a log asks for altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Bytes of all objects together.
    pub(super) bytes: u64,
    /// Whether it tells how long objects are.
    pub(super) has_sizes: bool,
}

impl Source {
    /// The logs of `paths`, then those made up. A file that is named twice, in whatever folder, comes once.
    pub(super) fn all(paths: &[PathBuf], scale: Scale) -> Result<Vec<Self>, RowError> {
        let mut sources: Vec<Self> = Vec::new();
        for path in paths {
            for path in files(path)? {
                let source = Self::of_file(path);
                if sources.iter().all(|it| it.name != source.name) {
                    sources.push(source);
                }
            }
        }
        sources.extend(
            Made::all(scale)
                .map(|made| Self { name: made.name.to_owned(), what: What::Made(made) }),
        );
        Ok(sources)
    }

    fn of_file(path: PathBuf) -> Self {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        let log = Log { path, format: Format::Guess, strict: false, ttl: TtlRule::Log };
        Self { name, what: What::Log(log) }
    }

    /// Its requests, from the first.
    pub(super) fn requests(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Wanted, TraceError>> + '_>, RowError> {
        match &self.what {
            What::Log(log) => {
                let failed = |source: LogError| RowError::Log { path: log.path.clone(), source };
                Ok(Box::new(log.open().map_err(failed)?))
            }
            What::Made(made) => Ok(Box::new(made.requests().map(|access| Ok(access.into())))),
        }
    }

    /// Reads it once.
    pub(super) fn demand(&self) -> Result<Demand, RowError> {
        let mut sizes = HashMap::new();
        for wanted in self.requests()? {
            let Ok(Wanted { access, .. }) = wanted else { break };
            sizes.entry(access.id).or_insert(access.size_bytes);
        }
        Ok(Demand {
            bytes: sizes.values().map(|&bytes| u64::from(bytes)).sum(),
            has_sizes: sizes.values().any(|&bytes| bytes > 1),
        })
    }
}

/// A file itself, or what of a folder is a log.
fn files(path: &Path) -> Result<Vec<PathBuf>, RowError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |source| RowError::Folder { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.to_string_lossy().ends_with(FOLDER_SUFFIX) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A log that is made up: the same every time.
#[derive(Clone, Copy, Debug)]
struct Made {
    name: &'static str,
    requests: u64,
    objects: u64,
    /// After so many requests comes a scan of so many objects.
    scan: Option<(u64, u64)>,
    /// After so many requests everything moves up by one in popularity, and the first becomes the last.
    drift: Option<u64>,
}

impl Made {
    fn all(scale: Scale) -> impl Iterator<Item = Self> {
        let (requests, objects) = match scale {
            Scale::Full => (1_000_000, 500_000),
            Scale::Quick => (10_000, 20_000),
        };
        let zipf = Self { name: "zipf", requests, objects, scan: None, drift: None };
        let scan = Some((requests / 50, requests / 250));
        [
            zipf,
            Self { name: "zipf-scans", scan, ..zipf },
            Self { name: "zipf-drifting", drift: Some(100), ..zipf },
        ]
        .into_iter()
    }

    fn requests(self) -> impl Iterator<Item = Access> {
        let mut random = StdRng::seed_from_u64(1);
        let popularity = Zipf::new(self.objects as f64, EXPONENT)
            .expect("constants that Zipf's law is defined for");
        let mut scanned = self.objects;
        let mut scan_left = 0;
        (0..self.requests).map(move |number| {
            if let Some((_, objects)) = self.scan.filter(|(every, _)| number % every == every - 1) {
                scan_left = objects;
            }
            if scan_left > 0 {
                scan_left -= 1;
                scanned += 1;
                return access(scanned);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number from 1 to the number of objects"
            )]
            let rank = popularity.sample(&mut random) as u64;
            let shift = self.drift.map_or(0, |every| number / every);
            access((rank - 1 + shift) % self.objects)
        })
    }
}

/// A get of an object, whose size is always the same: 100 to 4,000 bytes.
fn access(id: u64) -> Access {
    let above = u32::try_from(mix(id) % 3_901).expect("below 3,901");
    Access::get(0, id, 100 + above)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn made(name: &str) -> Vec<u64> {
        let made = Made::all(Scale::Quick).find(|made| made.name == name).unwrap();
        made.requests().map(|access| access.id).collect()
    }

    fn popular(ids: &[u64]) -> u64 {
        let mut counts = HashMap::new();
        ids.iter().for_each(|id| *counts.entry(*id).or_insert(0) += 1);
        *counts.iter().max_by_key(|(_, count)| **count).unwrap().0
    }

    #[test]
    fn logs_made_up_are_the_same_every_time() {
        assert_eq!(made("zipf-drifting"), made("zipf-drifting"));
    }

    #[test]
    fn a_scan_asks_for_what_nobody_asked_for_and_nobody_will() {
        let ids = made("zipf-scans");
        let scanned: Vec<u64> = ids.iter().copied().filter(|&id| id > 20_000).collect();
        assert_eq!(scanned.iter().collect::<HashSet<_>>().len(), scanned.len());
        assert!((1_500..2_500).contains(&scanned.len()), "{} of 10,000", scanned.len());
    }

    #[test]
    fn what_is_popular_drifts() {
        let ids = made("zipf-drifting");
        let (first, last) = (popular(&ids[..1_000]), popular(&ids[9_000..]));
        assert!(first < 10 && last >= 90, "{first}, then {last}");
        assert_eq!(popular(&made("zipf")), 0);
    }

    #[test]
    fn a_folder_gives_its_logs_and_one_named_twice_comes_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.oracleGeneral.zst", "a.oracleGeneral.zst", "README.md"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let paths = [folder.path().to_owned(), folder.path().join("a.oracleGeneral.zst")];
        let names: Vec<String> =
            Source::all(&paths, Scale::Quick).unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a", "b", "zipf", "zipf-scans", "zipf-drifting"]);
    }

    #[test]
    fn a_log_tells_what_its_objects_take() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        fs::write(&path, "time,id,size\n0,7,100\n1,8,50\n2,7,100\n").unwrap();
        let demand = Source::of_file(path).demand().unwrap();
        assert_eq!(demand, Demand { bytes: 150, has_sizes: true });
    }
}
