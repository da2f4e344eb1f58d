//! Figures of parts of a log as files, so that several machines each take a part and one puts them together:
//! maps of LRU, or tallies ([`crate::tallies`]).
//!
//! A part holds all requests of its objects: objects are dealt out by hash, see [`crate::sampling`]. So
//! the parts need no word with each other, any engine that runs a command may run them, and what is saved
//! is small: hits by size, and not objects.
//!
//! The file is JSON. Changes of hits are `[size, requests, bytes]`, see `curve/histogram.rs`.

use std::io::{self, Read, Write};

use serde_json::{Value, json};

use crate::curve::{Histogram, Map, MergeError, Weight};
use crate::replay::Unit;
use crate::sampling::Part;
use crate::tallies::{self, MismatchError, Tallies};

/// What the file says it is.
const FORMAT: &str = "cache-sim map 1";

/// Why a file holds no map.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// It is no JSON.
    #[error("is no JSON")]
    Json(#[from] serde_json::Error),
    /// It is something else, or of another version.
    #[error("does not say that it is a `{FORMAT}` or `{}`", tallies::FORMAT)]
    Format,
    /// There is nothing in it.
    #[error("holds no part")]
    Empty,
    /// Something is missing, or no number.
    #[error("lacks `{0}`, or it cannot be understood")]
    Field(&'static str),
}

/// Writes `map`.
///
/// # Errors
///
/// What `out` answers.
pub fn save(map: &Map, out: &mut impl Write) -> io::Result<()> {
    let weight = |weight: Weight| json!([weight.requests, weight.bytes]);
    let changes: Vec<Value> =
        map.hits.changes().map(|(size, w)| json!([size, w.requests, w.bytes])).collect();
    let value = json!({
        "format": FORMAT,
        "unit": map.unit.name(),
        "parts": map.parts.iter().map(|part| json!([part.index, part.count])).collect::<Vec<_>>(),
        "rate": map.rate,
        "reads": weight(map.reads),
        "objects": map.objects,
        "weight": map.weight,
        "largest": map.largest,
        "grain": map.grain,
        "precision": map.hits.precision(),
        "hits": changes,
        "variances": map.variances,
    });
    serde_json::to_writer(&mut *out, &value)?;
    writeln!(out)
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// LRU at all sizes.
    Map(Box<Map>),
    /// Some policies at some sizes.
    Tallies(Tallies),
}

/// Why files do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedMismatchError {
    /// Maps that do not.
    #[error(transparent)]
    Maps(#[from] MergeError),
    /// Tallies that do not.
    #[error(transparent)]
    Tallies(#[from] MismatchError),
    /// One is a map.
    #[error("one is of `curve` and one of `run`")]
    Kinds,
}

impl Saved {
    /// Adds other parts of the same log.
    ///
    /// # Errors
    ///
    /// They are not of the same kind, or hold the same part.
    pub fn merge(&mut self, other: &Self) -> Result<(), SavedMismatchError> {
        match (self, other) {
            (Self::Map(map), Self::Map(other)) => Ok(map.merge(other)?),
            (Self::Tallies(tallies), Self::Tallies(other)) => Ok(tallies.merge(other)?),
            _ => Err(SavedMismatchError::Kinds),
        }
    }

    /// Writes it as a line.
    ///
    /// # Errors
    ///
    /// What `out` answers.
    pub fn save(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Map(map) => save(map, out),
            Self::Tallies(tallies) => tallies.save(out),
        }
    }
}

/// Reads all that was saved to one file, or to several that were put one behind the other, as engines do
/// with what their workers print.
///
/// # Errors
///
/// The file cannot be read, or holds something else, or nothing.
pub fn load_all(from: impl Read) -> Result<Vec<Saved>, PartialError> {
    let values = serde_json::Deserializer::from_reader(from).into_iter::<Value>();
    let saved = |value: Result<Value, serde_json::Error>| {
        let value = value?;
        if value["format"] == tallies::FORMAT {
            return Ok(Saved::Tallies(Tallies::load(&value)?));
        }
        Ok(Saved::Map(Box::new(map_of(&value)?)))
    };
    let all: Vec<Saved> = values.map(saved).collect::<Result<_, PartialError>>()?;
    if all.is_empty() { Err(PartialError::Empty) } else { Ok(all) }
}

/// Reads a map that [`save`] wrote.
///
/// # Errors
///
/// The file cannot be read, or is none.
pub fn load(from: impl Read) -> Result<Map, PartialError> {
    map_of(&serde_json::from_reader(from)?)
}

fn map_of(value: &Value) -> Result<Map, PartialError> {
    if value["format"] != FORMAT {
        return Err(PartialError::Format);
    }
    let number = |name: &'static str| value[name].as_f64().ok_or(PartialError::Field(name));
    let list = |name: &'static str| value[name].as_array().ok_or(PartialError::Field(name));
    let unit = match value["unit"].as_str() {
        Some("objects") => Unit::Objects,
        Some("bytes") => Unit::Bytes,
        _ => return Err(PartialError::Field("unit")),
    };
    let precision = value["precision"].as_u64().and_then(|bits| u32::try_from(bits).ok());
    let precision = precision.filter(|&bits| bits <= PRECISION_MAX);
    let mut hits = Histogram::new(precision.ok_or(PartialError::Field("precision"))?);
    for change in list("hits")? {
        let (size, weight) = change_of(change).ok_or(PartialError::Field("hits"))?;
        hits.restore(size, weight);
    }
    let part = |part: &Value| {
        let [index, count] = [0, 1].map(|at| u32::try_from(part[at].as_u64()?).ok());
        Some(Part { index: index?, count: count? }).filter(|part| part.index < part.count)
    };
    let parts: Option<Vec<Part>> = list("parts")?.iter().map(part).collect();
    let variance = |pair: &Value| Some((pair[0].as_u64()?, pair[1].as_f64()?));
    let variances: Option<Vec<(u64, f64)>> = list("variances")?.iter().map(variance).collect();
    let [requests, bytes] = [0, 1].map(|at| value["reads"][at].as_f64());
    let reads = requests.zip(bytes).ok_or(PartialError::Field("reads"))?;
    Ok(Map {
        unit,
        parts: parts.filter(|parts| !parts.is_empty()).ok_or(PartialError::Field("parts"))?,
        rate: number("rate")?,
        reads: Weight { requests: reads.0, bytes: reads.1 },
        objects: number("objects")?,
        weight: number("weight")?,
        largest: value["largest"].as_u64().ok_or(PartialError::Field("largest"))?,
        // Parts are not replayed: their map is all there is.
        has_left_stack: false,
        grain: number("grain")?,
        hits,
        variances: variances.ok_or(PartialError::Field("variances"))?,
    })
}

/// Far more than any map has.
const PRECISION_MAX: u32 = 20;
/// Beyond any memory; a histogram grows with its largest size, by doublings.
const SIZE_MAX: u64 = 1 << 56;

fn change_of(change: &Value) -> Option<(u64, Weight)> {
    let size = change[0].as_u64().filter(|&size| size <= SIZE_MAX)?;
    Some((size, Weight { requests: change[1].as_f64()?, bytes: change[2].as_f64()? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{LruMapper, Spec};
    use crate::replay::{Expiry, Player, Request};
    use crate::sampling::Sampling;
    use crate::trace::Access;

    fn map(sampling: Sampling) -> Map {
        let part = Part { index: 1, count: 2 };
        let spec = Spec { weighing: Unit::Bytes.into(), expiry: Expiry::Eager, sampling, part };
        let mut mapper = LruMapper::new(spec);
        for n in 0..20_000_u64 {
            mapper.request(&Request::from(Access::get(0, n * n % 5_003, 77)));
        }
        mapper.finish()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        for sampling in [Sampling::Whole, Sampling::Objects(600)] {
            let map = map(sampling);
            let mut bytes = Vec::new();
            save(&map, &mut bytes).unwrap();
            let loaded = load(bytes.as_slice()).unwrap();
            let sizes = map.sizes(50);
            // Floats may lose their last digit.
            for (loaded, point) in loaded.points(&sizes).iter().zip(map.points(&sizes)) {
                assert_eq!(loaded.cache_size, point.cache_size);
                assert!((loaded.miss_ratio - point.miss_ratio).abs() < 1e-12);
                assert!((loaded.byte_miss_ratio - point.byte_miss_ratio).abs() < 1e-12);
                assert!((loaded.margin - point.margin).abs() < 1e-12);
            }
            assert_eq!((loaded.parts, loaded.unit), (map.parts, map.unit));
        }
    }

    #[test]
    fn files_one_behind_the_other_are_read_as_one() {
        let mut bytes = Vec::new();
        save(&map(Sampling::Whole), &mut bytes).unwrap();
        bytes.push(b'\n');
        save(&map(Sampling::Whole), &mut bytes).unwrap();
        let mut all = load_all(bytes.as_slice()).unwrap();
        let (last, first) = (all.pop().unwrap(), all.first_mut().unwrap());
        let twice = SavedMismatchError::Maps(MergeError::Twice(Part { index: 1, count: 2 }));
        assert_eq!(first.merge(&last), Err(twice));
        assert!(matches!(load_all(&b" \n"[..]), Err(PartialError::Empty)));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert!(matches!(load(&b"time,id"[..]), Err(PartialError::Json(_))));
        assert!(matches!(load(&b"{}"[..]), Err(PartialError::Format)));
        let mut bytes = Vec::new();
        save(&map(Sampling::Whole), &mut bytes).unwrap();
        let text =
            String::from_utf8(bytes).unwrap().replace("\"precision\":14", "\"precision\":40");
        let error = load(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "lacks `precision`, or it cannot be understood");
    }
}
