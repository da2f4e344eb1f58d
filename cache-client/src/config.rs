//! `Config`: which servers, how they are asked, and the bounds that hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls;

use crate::balance::{Balance, Limits};
use crate::codec::Codec;
use crate::resolve::{Resolve, SystemResolver};
use crate::retry::{
    BreakerConfig, BudgetConfig, HedgeConfig, OutlierConfig, RefreshConfig, RetryConfig,
};
use crate::routing::{self, Scheme, Server};

/// Which words are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The meta commands, which memcached knows since 1.6. Each answer names the request that it belongs to.
    #[default]
    Meta,
    /// The classic commands, for servers and proxies that know no others. An answer belongs to a request by its
    /// place, and that of a get by its key too.
    Text,
}

/// TLS to servers.
#[derive(Clone)]
pub struct Tls {
    /// What is trusted, and which certificate is shown.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the servers' certificates are for; `None` for the host of each one's address. A UNIX socket
    /// has no host.
    pub server_name: Option<String>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Who the client says it is, as in memcached's `--auth-file`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Without spaces.
    pub user: String,
    /// Any text.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How one server is connected to.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Which words are sent.
    pub dialect: Dialect,
    /// Connections to each server. One carries as many requests as there are; a second uses a second core.
    pub connections: usize,
    /// Encrypted, and the servers made sure of.
    pub tls: Option<Tls>,
    /// Said first on every connection.
    pub credentials: Option<Credentials>,
    /// How long connecting may take, with TLS and authentication.
    pub connect_timeout: Duration,
    /// How long after a failed attempt to connect the next one is made: this at first, doubled each time, and a
    /// random part of it less.
    pub reconnect_delay: Duration,
    /// The longest it becomes.
    pub reconnect_delay_max: Duration,
    /// Requests under way on a connection; a call beyond waits.
    pub requests_max: usize,
    /// Bytes of requests that wait to be written on a connection; a call beyond waits.
    pub output_bytes_max: usize,
    /// Requests whose callers did not wait for the answer; with more of them the connection is given up.
    pub abandoned_max: usize,
    /// For how long a connection may say nothing while answers are due.
    pub silence_max: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            dialect: Dialect::Meta,
            connections: 1,
            tls: None,
            credentials: None,
            connect_timeout: Duration::from_secs(1),
            reconnect_delay: Duration::from_millis(50),
            reconnect_delay_max: Duration::from_secs(2),
            requests_max: 4096,
            output_bytes_max: 1 << 20,
            abandoned_max: 1024,
            silence_max: Duration::from_secs(5),
        }
    }
}

/// What the servers are to each other.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Nothing: keys are divided among them by this scheme.
    Static(Scheme),
    /// Equals: any of them takes any key. Proxies of one kind, or nodes of a cluster that pass on what is not theirs.
    /// Which one a call goes to is for [`Config::balance`] to say.
    Equals,
    /// Nodes of one cluster. Those named are asked for the others, and for who holds which key.
    Cluster {
        /// Which copies are read.
        reads: ReadFrom,
        /// How often a node is asked whether the map has changed.
        poll_interval: Duration,
    },
}

/// Which copies of a shard are read. The default is the primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFrom {
    /// Which. A copy other than the primary answers by itself only in a cluster whose reads are `any`.
    pub copy: routing::ReadFrom,
    /// The zone that the client is in, for [`routing::ReadFrom::Nearest`].
    pub zone: String,
}

/// How one of several is picked where any may be asked: of [`Mode::Equals`], and of the copies of a shard in a cluster
/// whose reads are `any`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BalanceConfig {
    /// The way, by name in [`Balance::ALL`].
    pub strategy: Balance,
    /// What the ways go by.
    pub limits: Limits,
    /// When one that does worse than the others is left out, and how it returns; `None` for never.
    pub outliers: Option<OutlierConfig>,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            strategy: Balance::default(),
            limits: Limits::default(),
            outliers: Some(OutlierConfig::default()),
        }
    }
}

/// Which servers, how they are asked, and the bounds that hold.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers, or some nodes of a cluster.
    pub servers: Vec<Server>,
    /// What they are to each other.
    pub mode: Mode,
    /// How each is connected to.
    pub connection: ConnectionConfig,
    /// How long a call may take, waiting for room and for a connection, and trying again, included.
    pub timeout: Duration,
    /// How often a call is tried. A write that may have been carried out is tried again only where twice is as good
    /// as once.
    pub retry: RetryConfig,
    /// How much may be tried again, of all calls together.
    pub retry_budget: BudgetConfig,
    /// When a server that fails is left alone, and how it is tried again; `None` for never.
    pub breaker: Option<BreakerConfig>,
    /// Which of equals is asked.
    pub balance: BalanceConfig,
    /// When a read whose answer is late is sent to another of equals too; `None`, the default, for never.
    pub hedge: Option<HedgeConfig>,
    /// Who knows the addresses of servers that are named. Each new connection asks.
    pub resolver: Arc<dyn Resolve>,
    /// How often the name of a server is looked up while there is a connection to it, which moves when its address is
    /// none of the name's any more; `None` for never.
    pub resolve: Option<RefreshConfig>,
    /// The longest value that is sent or taken.
    pub value_bytes_max: usize,
    /// A read that fails is a miss, and a write that fails has stored nothing: no call of those has an error
    /// that is a server's or the network's fault. What the caller got wrong stays an error.
    pub fail_soft: bool,
    /// How typed values become bytes.
    pub codec: Codec,
}

impl Config {
    /// These servers, divided by ketama as libmemcached does it, and defaults for everything else.
    pub fn new(servers: impl IntoIterator<Item = Server>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            mode: Mode::Static(Scheme::Ketama),
            connection: ConnectionConfig::default(),
            timeout: Duration::from_secs(1),
            retry: RetryConfig::default(),
            retry_budget: BudgetConfig::default(),
            breaker: Some(BreakerConfig::default()),
            balance: BalanceConfig::default(),
            hedge: None,
            resolver: Arc::new(SystemResolver),
            resolve: Some(RefreshConfig::default()),
            value_bytes_max: 64 << 20,
            fail_soft: false,
            codec: Codec::default(),
        }
    }

    /// Any of these servers for any key.
    pub fn equals(servers: impl IntoIterator<Item = Server>) -> Self {
        Self { mode: Mode::Equals, ..Self::new(servers) }
    }

    /// The cluster that these nodes are of, read at the primaries.
    pub fn cluster(seeds: impl IntoIterator<Item = Server>) -> Self {
        let mode =
            Mode::Cluster { reads: ReadFrom::default(), poll_interval: Duration::from_secs(2) };
        Self { mode, ..Self::new(seeds) }
    }
}
