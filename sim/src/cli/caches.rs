//! Flags that say what is simulated: bare caches of some sizes, or servers of some memory.

use clap::{Args, ValueEnum};

use super::{PlanError, SERVER_ITEM_BYTES_MAX, SERVER_THREADS};
use crate::replay::{ServerShape, Unit};
use crate::run::Caches;
use crate::size::{self, Size};

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
        value_parser = size::read_bytes,
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
        value_parser = size::read_bytes
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
