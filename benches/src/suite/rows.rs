//! The suite's rows: which workloads there are. No goal is among them: the suite tells, and documents
//! judge.

use crate::compare::KEY_BYTES;
use crate::keyspace::{Keyspace, KeyspaceError, Popularity};
use crate::value::Values;
use crate::wire::Dialect;
use crate::workload::Workload;

/// How much of everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As much as figures need that are to be believed.
    Full,
    /// As little as shows that everything works.
    Quick,
}

impl Scale {
    /// So many, or a fiftieth.
    fn of(self, count: u64) -> u64 {
        match self {
            Self::Full => count,
            Self::Quick => count.div_ceil(50),
        }
    }
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name, by which it is chosen.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: String,
    /// What is done.
    pub task: Task,
}

/// What is done in a row.
#[derive(Clone, Debug)]
pub enum Task {
    /// Requests one after the other, as fast as they are answered: work per processor time.
    Speed(Speed),
    /// Requests at half the pace that the server compared with can keep up: latency.
    OpenLoop(Speed),
    /// A server filled beyond its memory: resident memory per item.
    Memory(Fill),
    /// Logs replayed at equal memory: hit ratios.
    HitRatio,
}

impl Task {
    /// The name by which all rows of its kind are chosen.
    pub fn group(&self) -> &'static str {
        match self {
            Self::Speed(_) => "speed",
            Self::OpenLoop(_) => "latency",
            Self::Memory(_) => "memory",
            Self::HitRatio => "hits",
        }
    }

    /// Whether servers and load share their cores.
    pub fn shares_cores(&self) -> bool {
        matches!(self, Self::Speed(speed) | Self::OpenLoop(speed) if speed.data.threads > 1)
    }
}

/// What servers hold; rows that agree on it find the same servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// How many keys are asked for, each set once before.
    pub keys: u64,
    /// How long each value is.
    pub value_bytes: usize,
    /// What a server may hold: `-m`.
    pub memory_mib: u64,
    /// Worker threads of a server. Several share their cores with the load's.
    pub threads: usize,
}

impl Data {
    /// Whether it is more than fits.
    pub fn overflows(&self) -> bool {
        self.keys * (KEY_BYTES + self.value_bytes) as u64 > self.memory_mib << 20
    }
}

/// Requests, and how they are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// What servers hold.
    pub data: Data,
    /// Gets of a thousand requests; the others are sets.
    pub get_permille: u32,
    /// Keys that one get asks for.
    pub keys_per_get: usize,
    /// Requests outstanding on each connection.
    pub depth: usize,
    /// Connections.
    pub connections: usize,
    /// Whether some keys are far more popular than others.
    pub is_zipf: bool,
}

impl Speed {
    /// The requests, in a dialect.
    ///
    /// # Errors
    /// When there cannot be so many keys.
    pub fn workload(&self, dialect: Dialect, checks: bool) -> Result<Workload, KeyspaceError> {
        let exponent = Popularity::ZIPF_EXPONENT_DEFAULT;
        Ok(Workload {
            keyspace: Keyspace::new(self.data.keys, KEY_BYTES)?,
            popularity: if self.is_zipf {
                Popularity::Zipf { exponent }
            } else {
                Popularity::Uniform
            },
            value_bytes: self.data.value_bytes..=self.data.value_bytes,
            get_share: f64::from(self.get_permille) / 1000.0,
            keys_per_get: self.keys_per_get,
            dialect,
            fill: false,
            values: Values::new(),
            checks,
        })
    }

    /// Whether an echo server can answer as a cache would: when every get is a hit, and on one thread.
    pub fn has_echo(&self) -> bool {
        !self.data.overflows() && self.data.threads == 1
    }
}

/// How a server is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// How long each value is.
    pub value_bytes: usize,
    /// `-m`.
    pub memory_mib: u64,
    /// Our server's policy.
    pub policy: &'static str,
    /// Another policy of our server that it is compared with.
    pub baseline: Option<&'static str>,
}

/// All rows.
pub fn all(scale: Scale) -> Vec<Row> {
    let data = Data { keys: scale.of(1_000_000), value_bytes: 100, memory_mib: 1024, threads: 1 };
    let mixed = Speed {
        data,
        get_permille: 950,
        keys_per_get: 1,
        depth: 1,
        connections: 50,
        is_zipf: true,
    };
    let large = |value_bytes, keys| Speed {
        data: Data { keys: scale.of(keys), value_bytes, ..data },
        ..mixed
    };
    let memory_mib = if scale == Scale::Full { 256 } else { 16 };
    let four_times = 4 * (memory_mib << 20) / (KEY_BYTES + data.value_bytes) as u64;
    let row = |name, about: &str, task| Row { name, about: about.to_owned(), task };
    let speed = |name, about: &str, speed| row(name, about, Task::Speed(speed));
    let memory = |name, value_bytes, policy, baseline: Option<_>| {
        let beside = baseline.map_or(String::new(), |it| format!(", beside {it}"));
        let about = format!(
            "resident memory per item at -m {memory_mib}, 24-byte keys, {value_bytes}-byte values, policy \
             {policy}{beside}"
        );
        row(name, &about, Task::Memory(Fill { value_bytes, memory_mib, policy, baseline }))
    };
    vec![
        speed(
            "mixed",
            "get 95 : set 5, 50 connections, depth 1, 100-byte values, zipf 0.99",
            mixed,
        ),
        speed("mixed-16", "the same at depth 16", Speed { depth: 16, ..mixed }),
        speed(
            "mixed-16-uniform",
            "the same at depth 16, all keys equally popular",
            Speed { depth: 16, is_zipf: false, ..mixed },
        ),
        speed(
            "multi-get-50",
            "gets of 50 keys, depth 1",
            Speed { get_permille: 1000, keys_per_get: 50, ..mixed },
        ),
        speed("set", "sets alone, depth 1", Speed { get_permille: 0, ..mixed }),
        speed("set-16", "sets alone, depth 16", Speed { get_permille: 0, depth: 16, ..mixed }),
        speed(
            "connections-1000",
            "get 95 : set 5 on 1,000 connections, depth 1",
            Speed { connections: 1000, ..mixed },
        ),
        row(
            "open-loop",
            "get 95 : set 5 at half of what the first server compared with manages: latency",
            Task::OpenLoop(mixed),
        ),
        speed("value-1k", "get 95 : set 5 of 1 KB values, depth 1", large(1_000, 400_000)),
        speed("value-10k", "get 95 : set 5 of 10 KB values, depth 1", large(10_000, 50_000)),
        speed("value-100k", "get 95 : set 5 of 100 KB values, depth 1", large(100_000, 5_000)),
        speed(
            "evict",
            "get 50 : set 50 of four times as much as fits, depth 1",
            Speed {
                data: Data { keys: four_times, memory_mib, ..data },
                get_permille: 500,
                ..mixed
            },
        ),
        speed(
            "two-threads",
            "get 95 : set 5, depth 16, two threads on two cores shared with the load",
            Speed { data: Data { threads: 2, ..data }, depth: 16, ..mixed },
        ),
        memory("memory-10", 10, "lru", None),
        memory("memory-100", 100, "lru", None),
        memory("memory-500", 500, "lru", None),
        memory("memory-arc", 100, "arc", Some("lru")),
        row("hits", "logs replayed at equal -m, misses filled: hit ratio", Task::HitRatio),
    ]
}

/// The rows of these names and groups, in the suite's order; all if none is named.
///
/// # Errors
/// When a name is none: which there are.
pub fn chosen(scale: Scale, names: &[String]) -> Result<Vec<Row>, String> {
    let all = all(scale);
    let is_named = |row: &Row, name: &str| row.name == name || row.task.group() == name;
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|row| is_named(row, name))) {
        let known: Vec<&str> = all.iter().map(|row| row.name).collect();
        return Err(format!(
            "'{unknown}' is no row: there are {}; and the groups speed, latency, memory, hits",
            known.join(", ")
        ));
    }
    let is_chosen = |row: &Row| names.is_empty() || names.iter().any(|name| is_named(row, name));
    Ok(all.into_iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&str]) -> Vec<&'static str> {
        let chosen: Vec<String> = chosen.iter().map(|&name| name.to_owned()).collect();
        super::chosen(Scale::Full, &chosen).unwrap().iter().map(|row| row.name).collect()
    }

    #[test]
    fn rows_are_chosen_by_name_and_group_and_come_in_the_suites_order() {
        assert_eq!(names(&["hits", "mixed"]), ["mixed", "hits"]);
        assert_eq!(names(&["memory"]), ["memory-10", "memory-100", "memory-500", "memory-arc"]);
        assert_eq!(names(&[]).len(), all(Scale::Full).len());
        let error = chosen(Scale::Full, &["mixd".to_owned()]).unwrap_err();
        assert!(error.contains("mixed-16"), "{error}");
    }

    #[test]
    fn every_name_is_one_rows() {
        let mut names: Vec<&str> = all(Scale::Full).iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all(Scale::Full).len());
    }

    #[test]
    fn only_the_row_that_evicts_has_more_than_fits_at_either_scale() {
        for scale in [Scale::Full, Scale::Quick] {
            for row in all(scale) {
                if let Task::Speed(speed) | Task::OpenLoop(speed) = row.task {
                    assert_eq!(speed.data.overflows(), row.name == "evict", "{}", row.name);
                    assert!(speed.workload(Dialect::Text, true).is_ok());
                }
            }
        }
    }
}
