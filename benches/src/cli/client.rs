//! Flags of `cache-client`, for the loads that it carries.

use std::time::Duration;

use anyhow::{Context, bail};
use cache_client::balance::Balance;
use cache_client::routing::{self, Scheme};
use cache_client::{Client, Config, Mode, ReadFrom, Server};
use clap::{Args, ValueEnum};

use super::parse::parse_duration;

/// How often a cluster's map is asked for.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How the client treats its servers.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// Client: what the servers are to each other.
    #[arg(long, value_enum, default_value_t = ServersArg::Static)]
    servers_are: ServersArg,
    /// Client: how keys are divided among static servers.
    #[arg(long, value_name = "NAME", default_value = "ketama")]
    scheme: Scheme,
    /// Client: which copies of a cluster are read.
    #[arg(long, value_enum, default_value_t = ReadsArg::Primary)]
    reads: ReadsArg,
    /// Client: its failure domain, for the nearest copies.
    #[arg(long, value_name = "NAME", default_value = "")]
    zone: String,
    /// Client: how one of equals is picked.
    #[arg(long, value_name = "NAME", default_value = "two-choices")]
    balance: Balance,
    /// Client: connections to each server.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections_each: u16,
    /// Client: how long a call may take.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    timeout: Duration,
}

/// What servers are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServersArg {
    /// Nothing: keys are divided among them.
    Static,
    /// Each takes any key.
    Equals,
    /// Some nodes of a cluster, which is followed.
    Cluster,
}

/// Which copies are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReadsArg {
    /// The primary.
    Primary,
    /// Any.
    Any,
    /// Any, those of the own zone first.
    Nearest,
}

impl ClientArgs {
    /// The configuration of a client of `servers`.
    pub(super) fn config(&self, servers: &[Server]) -> Config {
        let mut config = Config::new(servers.iter().cloned());
        config.mode = match self.servers_are {
            ServersArg::Static => Mode::Static(self.scheme),
            ServersArg::Equals => Mode::Equals,
            ServersArg::Cluster => {
                let copy = match self.reads {
                    ReadsArg::Primary => routing::ReadFrom::Primary,
                    ReadsArg::Any => routing::ReadFrom::Any,
                    ReadsArg::Nearest => routing::ReadFrom::Nearest,
                };
                let reads = ReadFrom { copy, zone: self.zone.clone() };
                Mode::Cluster { reads, poll_interval: POLL_INTERVAL }
            }
        };
        config.balance.strategy = self.balance;
        config.connection.connections = usize::from(self.connections_each);
        config.timeout = self.timeout;
        config
    }
}

/// What the first of the servers that answers calls its version: a load on servers of which none answers is refused.
pub(super) fn version(config: &Config) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let versions = runtime.block_on(async { Client::new(config.clone()).versions().await });
    let mut failed = None;
    for (_, version) in versions {
        match version {
            Ok(version) => return Ok(version),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error).context("none of the servers answers"),
        None => bail!("no server is named"),
    }
}
