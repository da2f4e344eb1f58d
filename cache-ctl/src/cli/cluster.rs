//! The subcommands that look after a cluster.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use protocol::Key;

use crate::admin::model::Agreed;
use crate::admin::{Admin, Said};
use crate::{locate, map, membership, moves, output, recover, status};

/// The exit code of `status` and `recover` when something is amiss.
const EXIT_UNHEALTHY: u8 = 2;

/// What is asked of a cluster, by way of one of its nodes.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show how a cluster is; exits with 2 when something is amiss
    Status,
    /// Show who holds which shards
    Map,
    /// Show where a key is
    Locate {
        /// The key
        #[arg(value_parser = parse_key)]
        key: String,
    },
    /// Show what is being moved between nodes
    Moves,
    /// Move all shards of a node away, so that it may leave
    Drain(NodeArgs),
    /// Have a node that was drained take its share again
    Undrain(NodeArgs),
    /// Have a shard be held by certain nodes
    Move {
        /// The shard
        shard: u16,

        /// The nodes, the preferred primary first
        #[arg(long, value_name = "NODE", required = true, value_delimiter = ',', value_parser = parse_node)]
        to: Vec<u32>,
    },
    /// Print a token with which one node may join
    Add {
        /// For how many seconds it may be used
        #[arg(long, value_name = "SECS", default_value = "900", value_parser = clap::value_parser!(u32).range(1..))]
        ttl: u32,
    },
    /// Strike a node from the cluster once it is drained; its id is never given out again
    Remove {
        #[command(flatten)]
        node: NodeArgs,

        /// Also while it holds shards: for a node that will not come back
        #[arg(long)]
        force: bool,
    },
    /// Have certain nodes vote in the control plane, and no others
    Voters {
        /// The nodes: 3 or 5 of them in most clusters
        #[arg(value_name = "NODE", required = true, value_delimiter = ',', value_parser = parse_node)]
        nodes: Vec<u32>,
    },
    /// Show what shards would go on with whose copies are gone or too few; exits with 2 if there are any
    Recover {
        /// Have them go on with that, and lose what only the missing nodes hold
        #[arg(long)]
        accept_data_loss: bool,
    },
}

/// Names a node.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node's id
    #[arg(value_name = "NODE", value_parser = parse_node)]
    id: u32,
}

impl ClusterCommand {
    /// Asks `node` and writes what it says.
    pub(super) fn run(
        &self,
        node: &str,
        timeout: Duration,
        as_json: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<ExitCode> {
        let admin = &Admin::at(node, timeout);
        let mut answer = Answer { out, as_json };
        match self {
            Self::Status => {
                let said = status::ask(admin)?;
                answer.write(&said, |out, status| status::write(out, status))?;
                if !said.read.healthy {
                    return Ok(ExitCode::from(EXIT_UNHEALTHY));
                }
            }
            Self::Map => answer.write(&map::ask(admin)?, |out, map| map::write(out, map))?,
            Self::Locate { key } => {
                let said = locate::ask(admin, key)?;
                answer.write(&said, |out, located| locate::write(out, located))?;
            }
            Self::Moves => answer.write(&moves::ask(admin)?, |out, it| moves::write(out, it))?,
            Self::Drain(NodeArgs { id }) => answer.agreed(
                &membership::drain(admin, *id)?,
                &format!("node {id} is being drained; `cache-ctl moves` shows how far it is"),
            )?,
            Self::Undrain(NodeArgs { id }) => answer.agreed(
                &membership::undrain(admin, *id)?,
                &format!("node {id} takes its share again"),
            )?,
            Self::Move { shard, to } => answer.agreed(
                &moves::request(admin, *shard, to)?,
                &format!(
                    "shard {shard} is to be held by {}; `cache-ctl moves` shows how far it is",
                    output::ids(to.iter().copied())
                ),
            )?,
            Self::Add { ttl } => {
                let said = membership::add(admin, *ttl)?;
                answer.write(&said, |out, token| membership::write_token(out, token, *ttl))?;
            }
            Self::Remove { node: NodeArgs { id }, force } => answer.agreed(
                &membership::remove(admin, *id, *force)?,
                &format!("node {id} is no longer of the cluster"),
            )?,
            Self::Voters { nodes } => answer.agreed(
                &membership::set_voters(admin, nodes)?,
                &format!("voters are {}", output::ids(nodes.iter().copied())),
            )?,
            Self::Recover { accept_data_loss } => {
                let said = recover::ask(admin, *accept_data_loss)?;
                answer.write(&said, |out, recovery| recover::write(out, recovery))?;
                if !said.read.is_done && !said.read.shards.is_empty() {
                    return Ok(ExitCode::from(EXIT_UNHEALTHY));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Where answers go, and in which form.
struct Answer<'a> {
    out: &'a mut dyn Write,
    as_json: bool,
}

impl Answer<'_> {
    fn write<T>(
        &mut self,
        said: &Said<T>,
        for_people: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.as_json {
            output::json(&mut *self.out, &said.json)
        } else {
            for_people(&mut *self.out, &said.read)
        }
    }

    fn agreed(&mut self, said: &Said<Agreed>, follows: &str) -> io::Result<()> {
        self.write(said, |out, _| writeln!(out, "{follows}"))
    }
}

fn parse_key(text: &str) -> Result<String, String> {
    match Key::new(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => Err("a key has 1 to 250 bytes".into()),
    }
}

fn parse_node(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err("a node's id is a number from 1".into()),
        Ok(node) => Ok(node),
    }
}
