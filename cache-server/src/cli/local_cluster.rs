//! The flags of `cache-server local-cluster` into its `Plan`.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cluster::hash::SHARD_COUNT_DEFAULT;
use cluster::pool::{Pool, Reads};

use super::cluster::{parse_pool, parse_reads, parse_replicas, parse_shard_count, with_replicas};
use super::{Answer, parse_number, parse_path, parse_prefixes};
use crate::config::ADMIN_PORT_OFFSET;
use crate::local_cluster::{NODES_MAX, Plan, Ports};

/// Starts the nodes of a cluster on this machine, for trying it out, and stops them with Ctrl-C.
///
/// Clients are served at BASE, BASE + 1 and so on; administration 100 ports above, other nodes 200. Started
/// again with the same DIR it goes on with what was there.
#[derive(Debug, Parser)]
#[command(name = "cache-server local-cluster", max_term_width = 100)]
pub(super) struct LocalClusterFlags {
    /// How many nodes
    #[arg(long, value_name = "NUM", default_value = "3", value_parser = parse_nodes)]
    nodes: u16,

    /// Copies of each shard; as many as the preset has if not given
    #[arg(long, value_name = "NUM", value_parser = parse_replicas)]
    replicas: Option<u8>,

    /// What the cluster promises: sessions (2 copies, both acknowledge) or strict (3 copies, 2
    /// acknowledge)
    #[arg(long, value_name = "POOL", default_value = "sessions", value_parser = parse_pool)]
    preset: Pool,

    /// What reads wait for: lease, confirm (a round trip to other copies), any (nothing)
    #[arg(long, value_name = "HOW", default_value = "lease", value_parser = parse_reads)]
    reads: Reads,

    /// Where the nodes keep what they know, their items and their logs; cluster.json in it tells of them
    #[arg(long, value_name = "DIR", value_parser = parse_path)]
    dir: PathBuf,

    /// The first node's port for clients
    #[arg(long, value_name = "PORT", default_value = "11211", value_parser = parse_number::<u16>)]
    base_port: u16,

    /// Each node's memory for items, in mebibytes
    #[arg(long, value_name = "MB", default_value = "64", value_parser = parse_number::<NonZeroUsize>)]
    memory: NonZeroUsize,

    /// Evict items whose keys begin with one of these last, and only for each other
    #[arg(long, value_name = "PREFIX,...", value_parser = parse_prefixes)]
    protect: Option<String>,

    /// Each node's worker threads
    #[arg(long, value_name = "NUM", default_value = "2", value_parser = parse_number::<NonZeroUsize>)]
    threads: NonZeroUsize,

    /// Shards of the cluster: a power of two, 64 to 16384
    #[arg(long, value_name = "NUM", default_value_t = SHARD_COUNT_DEFAULT, value_parser = parse_shard_count)]
    shards: u16,

    /// Keep items in anonymous memory, so that they end with the nodes
    #[arg(long)]
    no_memory_file: bool,

    /// Start a node again that ends by itself
    #[arg(long)]
    restart: bool,

    /// How many seconds the cluster may take until it serves
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = parse_number::<NonZeroU32>)]
    wait: NonZeroU32,
}

impl LocalClusterFlags {
    /// Reads a command line that begins with the subcommand's own name.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Plan, Answer> {
        let flags = Self::try_parse_from(arguments).map_err(Answer::of_our_own)?;
        flags.into_plan().map_err(|reason| {
            Answer::of_our_own(Self::command().error(ErrorKind::ValueValidation, reason))
        })
    }

    fn into_plan(self) -> Result<Plan, String> {
        let pool = Pool { reads: self.reads, ..with_replicas(self.preset, self.replicas)? };
        if self.nodes < u16::from(pool.copies) {
            return Err(format!(
                "--nodes {}: {} copies of a shard take as many nodes; add nodes, or ask for fewer \
                 copies with --replicas",
                self.nodes, pool.copies
            ));
        }
        let ports = Ports::new(self.base_port)
            .ok_or_else(|| format!("--base-port {}: 1 to {}", self.base_port, Ports::BASE_MAX))?;
        Ok(Plan {
            nodes: self.nodes,
            pool,
            shard_count: self.shards,
            dir: std::path::absolute(&self.dir).unwrap_or(self.dir),
            ports,
            memory_mebibytes: self.memory,
            protect: self.protect,
            threads: self.threads,
            memory_file: !self.no_memory_file,
            restart: self.restart,
            wait_s: self.wait,
        })
    }
}

fn parse_nodes(text: &str) -> Result<u16, String> {
    // Further ones would run into the ports for administration.
    const { assert!(NODES_MAX == ADMIN_PORT_OFFSET) };
    match parse_number::<u16>(text) {
        Ok(nodes @ 1..=NODES_MAX) => Ok(nodes),
        _ => Err(format!("1 to {NODES_MAX} nodes")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Plan, Answer> {
        let all = [&["local-cluster"], arguments].concat();
        LocalClusterFlags::parse(&all.into_iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn plan(arguments: &[&str]) -> Plan {
        parse(&[&["--dir", "/d"], arguments].concat()).unwrap()
    }

    fn refusal(arguments: &[&str]) -> String {
        let answer = parse(&[&["--dir", "/d"], arguments].concat()).unwrap_err();
        assert_eq!(answer.exit_code(), 64, "{arguments:?}");
        answer.to_string()
    }

    #[test]
    fn a_directory_is_enough() {
        let plan = plan(&[]);
        assert_eq!((plan.nodes, &plan.pool), (3, &Pool::sessions()));
        assert_eq!(plan.dir, Path::new("/d"));
        assert!(plan.memory_file && !plan.restart);
        assert_eq!(plan.memory_mebibytes.get(), 64);
        assert!(parse(&[]).unwrap_err().to_string().contains("--dir"));
    }

    #[test]
    fn everything_can_be_asked_for() {
        let plan = plan(&[
            "--nodes=5",
            "--replicas=5",
            "--preset=strict",
            "--base-port=20000",
            "--memory=128",
            "--protect=session:,cart:",
            "--threads=1",
            "--shards=64",
            "--no-memory-file",
            "--restart",
        ]);
        assert_eq!((plan.nodes, plan.pool), (5, Pool { copies: 5, ..Pool::strict() }));
        assert_eq!(plan.ports.client(2), 20_002);
        assert!(!plan.memory_file && plan.restart);
        assert_eq!(plan.protect.as_deref(), Some("session:,cart:"));
    }

    #[test]
    fn copies_take_as_many_nodes() {
        assert!(refusal(&["--nodes=1"]).contains("2 copies"));
        assert!(refusal(&["--nodes=2", "--preset=strict"]).contains("3 copies"));
        assert_eq!(plan(&["--nodes=1", "--replicas=1"]).pool.copies, 1);
    }

    #[test]
    fn nodes_and_ports_have_bounds() {
        for nodes in ["0", "101", "x"] {
            assert!(refusal(&["--nodes", nodes]).contains("1 to 100 nodes"), "{nodes}");
        }
        assert!(refusal(&["--base-port=65300"]).contains("--base-port"));
        assert!(refusal(&["--base-port=0"]).contains("--base-port"));
        assert_eq!(plan(&["--reads=any"]).pool.reads, Reads::Any);
        assert!(refusal(&["--reads=dirty"]).contains("known are confirm, lease, any"));
        assert!(refusal(&["--preset=gold"]).contains("known are sessions, strict"));
    }
}
