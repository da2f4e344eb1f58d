//! `Tallies`: what `run` counted of parts of a log, put together.
//!
//! | what is simulated | a part is | together the parts are |
//! |---|---|---|
//! | servers | a share of the server's shards, each whole | the server, to the last hit |
//! | bare caches | a share of the objects, in that share of the room | one cache that is cut into as many by hash |
//!
//! A server's shards have nothing to do with each other, so that a part of them is played as in the whole. A
//! bare cache has no such seams: cut, it evicts in each part what is the least there. `docs/sizing.md` says
//! how much that makes.
//!
//! The file is a line of JSON; its flags must be the same in all parts.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::partial::PartialError;
use crate::replay::{Tally, Unit};
use crate::run::{Caches, Found, Report, Row};
use crate::sampling::Part;

/// What the file says it is.
pub(crate) const FORMAT: &str = "cache-sim tallies 1";

/// What was counted of parts of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Tallies {
    unit: &'static str,
    /// All flags that the figures depend on.
    flags: String,
    parts: Vec<Part>,
    rows: Vec<Row>,
}

/// Why two files do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    /// The same part is in both.
    #[error("part {}/{} is there twice", .0.index + 1, .0.count)]
    Twice(Part),
    /// They are parts of different numbers.
    #[error("the log was not cut into the same number of parts")]
    Cut,
    /// They were not played alike.
    #[error("they were played with other flags: {0} and {1}")]
    Flags(String, String),
    /// They are of other policies or sizes.
    #[error("they do not hold the same policies and sizes")]
    Rows,
}

impl Tallies {
    /// What `report` says of `part`; `flags` are those that figures depend on.
    pub fn new(report: &Report, part: Part, flags: String) -> Self {
        Self { unit: report.unit, flags, parts: vec![part], rows: report.rows.clone() }
    }

    /// Adds other parts of the same log.
    ///
    /// # Errors
    ///
    /// They are not of the same kind, or hold the same part.
    pub fn merge(&mut self, other: &Self) -> Result<(), MismatchError> {
        if let Some(&part) = other.parts.iter().find(|part| self.parts.contains(part)) {
            return Err(MismatchError::Twice(part));
        }
        if self.parts.iter().chain(&other.parts).any(|part| part.count != self.parts[0].count) {
            return Err(MismatchError::Cut);
        }
        if self.flags != other.flags || self.unit != other.unit {
            return Err(MismatchError::Flags(self.flags.clone(), other.flags.clone()));
        }
        let is_same = |(a, b): (&Row, &Row)| (a.policy, a.cache_size) == (b.policy, b.cache_size);
        if self.rows.len() != other.rows.len() || !self.rows.iter().zip(&other.rows).all(is_same) {
            return Err(MismatchError::Rows);
        }
        self.parts.extend(&other.parts);
        for (row, other) in self.rows.iter_mut().zip(&other.rows) {
            row.tally.add(other.tally);
        }
        Ok(())
    }

    /// The parts that are missing.
    pub fn parts_missing(&self) -> u32 {
        let count = self.parts.first().map_or(1, |part| part.count);
        count.saturating_sub(u32::try_from(self.parts.len()).unwrap_or(u32::MAX))
    }

    /// The report on all parts together.
    pub fn report(&self) -> Report {
        let reads = self.rows.first().map_or(0, |row| row.tally.requests);
        Report {
            trace: "merged".into(),
            format: "tallies",
            unit: self.unit,
            found: Found { requests: reads, reads, ..Found::default() },
            readings: 0,
            rows: self.rows.clone(),
        }
    }

    /// Writes them as a line.
    ///
    /// # Errors
    ///
    /// What `out` answers.
    pub fn save(&self, out: &mut impl Write) -> io::Result<()> {
        let row = |&Row { policy, cache_size, tally }: &Row| {
            let Tally { requests, hits, bytes, hit_bytes } = tally;
            json!([policy.name(), cache_size, requests, hits, bytes, hit_bytes])
        };
        let value = json!({
            "format": FORMAT,
            "unit": self.unit,
            "flags": self.flags,
            "parts": self.parts.iter().map(|part| json!([part.index, part.count])).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        });
        serde_json::to_writer(&mut *out, &value)?;
        writeln!(out)
    }

    /// Reads what [`Self::save`] wrote.
    pub(crate) fn load(value: &Value) -> Result<Self, PartialError> {
        let units = [Unit::Objects.name(), Unit::Bytes.name(), Caches::SERVER_UNIT];
        let unit = units.into_iter().find(|unit| value["unit"] == *unit);
        let list = |name: &'static str| value[name].as_array().ok_or(PartialError::Field(name));
        let part = |part: &Value| {
            let [index, count] = [0, 1].map(|at| u32::try_from(part[at].as_u64()?).ok());
            Some(Part { index: index?, count: count? }).filter(|part| part.index < part.count)
        };
        let parts: Option<Vec<Part>> = list("parts")?.iter().map(part).collect();
        let rows: Option<Vec<Row>> = list("rows")?.iter().map(row_of).collect();
        Ok(Self {
            unit: unit.ok_or(PartialError::Field("unit"))?,
            flags: value["flags"].as_str().ok_or(PartialError::Field("flags"))?.into(),
            parts: parts.filter(|parts| !parts.is_empty()).ok_or(PartialError::Field("parts"))?,
            rows: rows.ok_or(PartialError::Field("rows"))?,
        })
    }
}

/// A row, if it is one that can have been counted.
fn row_of(row: &Value) -> Option<Row> {
    let policy = row[0].as_str()?.parse().ok()?;
    let number = |at: usize| row[at].as_u64();
    let tally =
        Tally { requests: number(2)?, hits: number(3)?, bytes: number(4)?, hit_bytes: number(5)? };
    let is_sound = tally.hits <= tally.requests && tally.hit_bytes <= tally.bytes;
    is_sound.then_some(Row { policy, cache_size: number(1)?, tally })
}

#[cfg(test)]
mod tests {
    use eviction::Kind;

    use super::*;

    fn tallies(index: u32, hits: u64) -> Tallies {
        let tally = Tally { requests: 10, hits, bytes: 100, hit_bytes: 10 * hits };
        let report = Report {
            trace: "a.csv".into(),
            format: "csv",
            unit: "objects",
            found: Found::default(),
            readings: 1,
            rows: vec![Row { policy: Kind::Arc.into(), cache_size: 7, tally }],
        };
        Tallies::new(&report, Part { index, count: 3 }, "eager".into())
    }

    #[test]
    fn parts_add_up() {
        let mut merged = tallies(0, 3);
        assert_eq!(merged.parts_missing(), 2);
        merged.merge(&tallies(2, 5)).unwrap();
        let tally = Tally { requests: 20, hits: 8, bytes: 200, hit_bytes: 80 };
        assert_eq!(merged.report().rows[0].tally, tally);
        assert_eq!(merged.report().found.reads, 20);
        assert_eq!(merged.parts_missing(), 1);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let mut merged = tallies(0, 3);
        let error = merged.merge(&tallies(0, 3)).unwrap_err();
        assert_eq!(error.to_string(), "part 1/3 is there twice");
        let lazy = Tallies { flags: "lazy".into(), ..tallies(1, 3) };
        assert!(matches!(merged.merge(&lazy), Err(MismatchError::Flags(..))));
        let other = Tallies { rows: Vec::new(), ..tallies(1, 3) };
        assert_eq!(merged.merge(&other), Err(MismatchError::Rows));
        let cut = Tallies { parts: vec![Part { index: 1, count: 4 }], ..tallies(1, 3) };
        assert_eq!(merged.merge(&cut), Err(MismatchError::Cut));
        assert_eq!(merged, tallies(0, 3));
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_else() {
        let mut bytes = Vec::new();
        tallies(1, 4).save(&mut bytes).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(Tallies::load(&value).unwrap(), tallies(1, 4));
        for (field, broken) in [
            ("unit", json!("pages")),
            ("parts", json!([])),
            ("parts", json!([[3, 3]])),
            ("rows", json!([["mru", 7, 10, 4, 100, 40]])),
            ("rows", json!([["arc", 7, 10, 11, 100, 40]])),
        ] {
            let mut value = value.clone();
            value[field] = broken;
            assert!(Tallies::load(&value).is_err(), "{field}");
        }
    }
}
