//! Flags that say what is simulated: bare caches of some sizes, or servers of some memory.

use clap::{Args, ValueEnum};

use super::{PlanError, SERVER_ITEM_BYTES_MAX, SERVER_THREADS};
use crate::replay::{ServerShape, Unit};
use crate::run::Caches;
use crate::size::{Size, read_bytes};

/// What a server can be given (its `-m`): no less than one MiB, and no more than machines have.
const SERVER_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 40;

/// What a server's largest item may be (its `-I`).
const ITEM_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 30;

/// What is simulated, and how large it is.
#[derive(Clone, Debug, Args)]
pub struct CachesArgs {
    /// Sizes, separated by commas: a number of the unit's (489), an amount of bytes (1GiB, 64m), or
    /// a share (10%) of the trace's unique objects, or of the sum of their sizes when first seen,
    /// rounded down
    #[arg(long, value_name = "LIST", value_delimiter = ',', required_unless_present = "as_server")]
    size: Vec<Size>,

    /// What sizes count
    #[arg(long, value_name = "UNIT", default_value = "bytes")]
    unit: UnitName,

    /// Instead of --size: count as the server does with this much memory (its -m): its footprints,
    /// its shards, its hash. Several amounts are separated by commas. A key is the id in decimal
    /// digits, a value has the object's size, no flags and no expiry
    #[arg(
        long,
        value_name = "MEMORY",
        value_delimiter = ',',
        value_parser = server_memory,
        conflicts_with_all = ["size", "unit", "item_overhead"]
    )]
    as_server: Vec<u64>,

    /// With --as-server: the server's threads (its -t); 4 if left out
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1024)
    )]
    threads: Option<u32>,

    /// With --as-server: the server's largest item (its -I), 1MiB if left out; what is larger is not
    /// stored
    #[arg(
        long,
        value_name = "BYTES",
        value_parser = item_size
    )]
    item_size_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UnitName {
    /// Each object weighs 1
    Objects,
    /// Each object weighs its size
    Bytes,
}

impl From<UnitName> for Unit {
    fn from(name: UnitName) -> Self {
        match name {
            UnitName::Objects => Self::Objects,
            UnitName::Bytes => Self::Bytes,
        }
    }
}

impl CachesArgs {
    /// What the flags describe.
    ///
    /// # Errors
    ///
    /// They contradict each other.
    pub fn caches(&self) -> Result<Caches, PlanError> {
        if !self.as_server.is_empty() {
            let shape = ServerShape {
                threads: self.threads.unwrap_or(SERVER_THREADS),
                item_bytes_max: self.item_size_max.unwrap_or(SERVER_ITEM_BYTES_MAX),
            };
            return Ok(Caches::Server { shape, memory_bytes: self.as_server.clone() });
        }
        if self.threads.is_some() {
            return Err(PlanError::NoServer("--threads"));
        }
        if self.item_size_max.is_some() {
            return Err(PlanError::NoServer("--item-size-max"));
        }
        let unit = self.unit.into();
        if unit == Unit::Objects && self.size.iter().any(|size| matches!(size, Size::Bytes(_))) {
            return Err(PlanError::BytesOfObjects);
        }
        Ok(Caches::Plain { unit, sizes: self.size.clone() })
    }
}

/// Why an amount of bytes is none that a server takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServerSizeError {
    #[error("the server takes 1MiB to 64TiB")]
    Memory,
    #[error("the server takes 1KiB to 1GiB")]
    Item,
}

fn server_memory(text: &str) -> Result<u64, ServerSizeError> {
    let bytes = read_bytes(text).map_err(|_| ServerSizeError::Memory)?;
    Some(bytes).filter(|bytes| SERVER_BYTES.contains(bytes)).ok_or(ServerSizeError::Memory)
}

pub(super) fn item_size(text: &str) -> Result<u64, ServerSizeError> {
    let bytes = read_bytes(text).map_err(|_| ServerSizeError::Item)?;
    Some(bytes).filter(|bytes| ITEM_BYTES.contains(bytes)).ok_or(ServerSizeError::Item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_takes_is_refused() {
        assert_eq!(server_memory("64MiB"), Ok(64 << 20));
        for text in ["0", "1KiB", "65TiB", "18446744073709551615", "10%", "x"] {
            assert_eq!(server_memory(text), Err(ServerSizeError::Memory), "{text}");
        }
        assert_eq!(item_size("1MiB"), Ok(1 << 20));
        for text in ["0", "1000", "2GiB", "x"] {
            assert_eq!(item_size(text), Err(ServerSizeError::Item), "{text}");
        }
    }
}
