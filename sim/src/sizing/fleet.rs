//! `Fleet`: so much memory as servers that one can start: how many nodes, with how much each, and what
//! their machines need besides.
//!
//! ```text
//! memory of the cache × copies = nodes × -m
//! a machine's memory           = -m + allowance
//! ```
//!
//! A node that is one of many cuts its memory into shards of its own, and each shard has segments that are
//! never full. So `-m` is raised until all nodes together have as much for items, per copy, as the one
//! server that was simulated.

use std::fmt;

use store::Geometry;

use super::choice::STEP_BYTES;
use crate::replay::ServerShape;

const MIB: u64 = 1 << 20;

/// Connections that the allowance is for: the server's `-c` unless it is told otherwise.
const CONNECTIONS: u64 = 1024;

/// Nodes of a cluster unless it is said how many: as `cache-server local-cluster` starts, and the least of
/// which one may be lost.
const CLUSTER_NODES: u32 = 3;

/// More nodes than a cluster has.
const NODES_MAX: u32 = 1024;

/// What a cluster promises, by how many copies of each item it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Two copies.
    Sessions,
    /// Three copies.
    Strict,
}

impl Preset {
    /// The name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Strict => "strict",
        }
    }

    /// Copies of each item.
    pub fn copies(self) -> u32 {
        match self {
            Self::Sessions => 2,
            Self::Strict => 3,
        }
    }
}

/// What is said of the servers beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Threads and largest item of each.
    pub shape: ServerShape,
    /// How many there are; at least, if `machine_bytes_max` asks for more.
    pub nodes: Option<u32>,
    /// What a machine has for a server, allowance included, in bytes.
    pub machine_bytes_max: Option<u64>,
    /// That they are a cluster, and of which kind.
    pub preset: Option<Preset>,
}

/// Why there is no fleet as wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// A machine's memory is gone before an item is in it.
    #[error(
        "--node-memory-max of {} MiB leaves no room for items: beyond -m a server needs {} MiB",
        .machine_bytes_max / MIB, .allowance_bytes / MIB
    )]
    NoRoom {
        /// What a machine has.
        machine_bytes_max: u64,
        /// What the server needs besides `-m`.
        allowance_bytes: u64,
    },
    /// Copies would lie on the same node.
    #[error("--nodes {nodes}: the preset {} keeps {} copies, each on a node of its own", .preset.name(), .preset.copies())]
    FewNodes {
        /// How many nodes there are.
        nodes: u32,
        /// The preset.
        preset: Preset,
    },
}

impl Wish {
    /// Checks what can be known before the log is read.
    ///
    /// # Errors
    ///
    /// A machine is too small for any server, or there are less nodes than copies.
    pub fn check(&self) -> Result<(), FleetError> {
        let allowance_bytes = allowance_bytes(self.shape);
        if let Some(machine_bytes_max) = self.machine_bytes_max
            && machine_bytes_max < allowance_bytes + memory_bytes_min(self.shape)
        {
            return Err(FleetError::NoRoom { machine_bytes_max, allowance_bytes });
        }
        match (self.nodes, self.preset) {
            (Some(nodes), Some(preset)) if nodes < preset.copies() => {
                Err(FleetError::FewNodes { nodes, preset })
            }
            _ => Ok(()),
        }
    }

    /// Whether there is more than one server.
    fn is_alone(&self) -> bool {
        self.nodes.unwrap_or(1) == 1 && self.preset.is_none() && self.machine_bytes_max.is_none()
    }

    /// The servers that hold as much as one of `memory_bytes`. Of nodes there are as few as can be; if not
    /// even 1,024 are enough, so many, with more memory each than was wished.
    pub fn fleet(&self, memory_bytes: u64) -> Fleet {
        let copies = self.preset.map_or(1, Preset::copies);
        let least = match self.preset {
            Some(_) => self.nodes.unwrap_or_else(|| CLUSTER_NODES.max(copies)),
            None => self.nodes.unwrap_or(1),
        };
        let of = |nodes: u32| Fleet {
            nodes,
            copies,
            memory_bytes: if self.is_alone() {
                memory_bytes
            } else {
                node_bytes(self.shape, memory_bytes, nodes, copies)
            },
            allowance_bytes: allowance_bytes(self.shape),
        };
        let fits =
            |fleet: &Fleet| self.machine_bytes_max.is_none_or(|max| fleet.machine_bytes() <= max);
        let room = self.machine_bytes_max.map_or(u64::MAX, |max| max - allowance_bytes(self.shape));
        let wanted = memory_bytes.saturating_mul(copies.into()).div_ceil(room);
        let from = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(least, NODES_MAX.max(least));
        (from..=NODES_MAX).map(of).find(fits).unwrap_or_else(|| of(NODES_MAX.max(least)))
    }
}

/// What each of `nodes` servers needs for items, so that together they hold what one of `memory_bytes`
/// does, in so many copies.
fn node_bytes(shape: ServerShape, memory_bytes: u64, nodes: u32, copies: u32) -> u64 {
    let for_items = |bytes| {
        let geometry = Geometry::new(bytes, shape.item_bytes_max, shape.threads);
        u128::from(geometry.items_bytes_max()) * u128::from(geometry.shard_count)
    };
    let wanted = for_items(memory_bytes) * u128::from(copies);
    let even = memory_bytes.saturating_mul(copies.into()).div_ceil(nodes.into());
    let mut bytes = even.next_multiple_of(STEP_BYTES).max(memory_bytes_min(shape));
    // Shards come in powers of two, and what is not used of each is less than a twentieth of it.
    while for_items(bytes) * u128::from(nodes) < wanted {
        bytes += STEP_BYTES;
    }
    bytes
}

/// The least `-m` that a server takes, in bytes: its largest item is at most half of it, as with memcached.
pub fn memory_bytes_min(shape: ServerShape) -> u64 {
    (2 * shape.item_bytes_max).next_multiple_of(STEP_BYTES)
}

/// What a server's resident memory may exceed `-m` by, in bytes, at its default limits: the formula of
/// `cache_server::Config::allowance_bytes`, which a test holds against this.
pub fn allowance_bytes(shape: ServerShape) -> u64 {
    // Its buffers, its stack and its ring's buffers, and a value on its way.
    let per_thread = (3 + 3) * MIB + shape.item_bytes_max;
    let buffers = (32 * MIB).max(4 * shape.item_bytes_max);
    16 * MIB + u64::from(shape.threads) * per_thread + CONNECTIONS * 4096 + buffers
}

/// Servers, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// How many.
    pub nodes: u32,
    /// How many of them hold the same item.
    pub copies: u32,
    /// `-m` of each, in bytes.
    pub memory_bytes: u64,
    /// What each needs besides, in bytes.
    pub allowance_bytes: u64,
}

impl Fleet {
    /// What one machine needs for its server.
    pub fn machine_bytes(&self) -> u64 {
        self.memory_bytes + self.allowance_bytes
    }

    /// What all machines need.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.nodes) * self.machine_bytes()
    }
}

/// The command that starts a server of a fleet.
pub struct CommandLine {
    /// The servers.
    pub fleet: Fleet,
    /// Which items leave.
    pub policy: eviction::Kind,
    /// Threads and largest item.
    pub shape: ServerShape,
    /// What the cluster promises, if it is one.
    pub preset: Option<Preset>,
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerShape { threads, item_bytes_max } = self.shape;
        let memory = self.fleet.memory_bytes / MIB;
        write!(f, "cache-server -m {memory} -t {threads}")?;
        match item_bytes_max {
            MIB => {}
            bytes if bytes.is_multiple_of(MIB) => write!(f, " -I {}m", bytes / MIB)?,
            bytes => write!(f, " -I {bytes}")?,
        }
        write!(f, " --eviction {}", self.policy)?;
        match self.preset {
            Some(preset) => write!(f, " --cluster-dir DIR --init --pool {}", preset.name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use eviction::Kind;
    use proptest::prelude::*;

    use super::*;

    const SHAPE: ServerShape = ServerShape { threads: 4, item_bytes_max: MIB };
    const GIB: u64 = 1 << 30;

    fn wish(nodes: Option<u32>, machine_bytes_max: Option<u64>, preset: Option<Preset>) -> Wish {
        Wish { shape: SHAPE, nodes, machine_bytes_max, preset }
    }

    #[test]
    fn one_server_has_the_memory_that_was_simulated() {
        let fleet = wish(None, None, None).fleet(412 * MIB);
        assert_eq!((fleet.nodes, fleet.memory_bytes), (1, 412 * MIB));
        assert_eq!(fleet.machine_bytes(), (412 + 80) * MIB);
        let line = CommandLine { fleet, policy: Kind::S3Fifo, shape: SHAPE, preset: None };
        assert_eq!(line.to_string(), "cache-server -m 412 -t 4 --eviction s3fifo");
        let shape = ServerShape { threads: 8, item_bytes_max: 4 * MIB };
        let line = CommandLine { shape, preset: Some(Preset::Strict), ..line };
        assert_eq!(
            line.to_string(),
            "cache-server -m 412 -t 8 -I 4m --eviction s3fifo --cluster-dir DIR --init --pool strict"
        );
    }

    #[test]
    fn a_preset_multiplies_the_memory_by_its_copies() {
        let fleet = wish(None, None, Some(Preset::Sessions)).fleet(3 * GIB);
        assert_eq!((fleet.nodes, fleet.copies), (3, 2));
        assert!((2 * GIB..2 * GIB + 64 * MIB).contains(&fleet.memory_bytes), "{fleet:?}");
        let fleet = wish(None, None, Some(Preset::Strict)).fleet(3 * GIB);
        assert!((3 * GIB..3 * GIB + 64 * MIB).contains(&fleet.memory_bytes), "{fleet:?}");
    }

    #[test]
    fn machines_are_as_few_as_can_be_and_no_fuller_than_they_may() {
        let fleet = wish(None, Some(8 * GIB), None).fleet(20 * GIB);
        assert_eq!(fleet.nodes, 3);
        assert!(fleet.machine_bytes() <= 8 * GIB);
        assert_eq!(wish(Some(5), Some(8 * GIB), None).fleet(20 * GIB).nodes, 5);
    }

    #[test]
    fn a_wish_that_cannot_be_is_refused() {
        let error = wish(None, Some(64 * MIB), None).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "--node-memory-max of 64 MiB leaves no room for items: beyond -m a server needs 80 MiB"
        );
        let error = wish(Some(2), None, Some(Preset::Strict)).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "--nodes 2: the preset strict keeps 3 copies, each on a node of its own"
        );
    }

    proptest! {
        #[test]
        fn a_fleet_has_room_for_as_much_as_the_one_server(
            mib in 1_u64..100_000, nodes in 1_u32..40, max_gib in proptest::option::of(1_u64..64),
            preset in proptest::option::of(prop_oneof![Just(Preset::Sessions), Just(Preset::Strict)]),
        ) {
            let copies = preset.map_or(1, Preset::copies);
            let wish = wish(Some(nodes.max(copies)), max_gib.map(|gib| gib * GIB), preset);
            let fleet = wish.fleet(mib * MIB);
            let for_items = |bytes| {
                let geometry = Geometry::new(bytes, MIB, 4);
                geometry.items_bytes_max() * u64::from(geometry.shard_count)
            };
            let held = for_items(fleet.memory_bytes) * u64::from(fleet.nodes) / u64::from(copies);
            prop_assert!(held >= for_items(mib * MIB));
            prop_assert!(fleet.nodes >= nodes.max(copies));
            if let Some(gib) = max_gib {
                prop_assert!(fleet.machine_bytes() <= gib * GIB);
            }
        }
    }
}
