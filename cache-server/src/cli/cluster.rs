//! The flags of a cluster's node into `ClusterConfig`.
//!
//! `--cluster-dir` alone makes a server a node: with `--init` it founds a cluster, with `--join` it asks
//! to be let into one, with neither it goes on as whoever it was. Everything else has a default.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use cluster::hash::{SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX, SHARD_COUNT_MIN};
use cluster::map::{COPIES_MAX, Role, WEIGHT_MAX};
use cluster::pool::{Pool, Reads};

use super::listen::parse_place;
use super::{parse_number, parse_path};
use crate::config::{
    ADMIN_PORT_OFFSET, ClusterConfig, ClusterStart, Endpoint, Listen, PEER_PORT_OFFSET,
    TokenSource, WEIGHT_DEFAULT, ZONE_BYTES_MAX,
};

/// Flags of a cluster's node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterFlags {
    /// Be a node of a cluster, and keep in DIR who it is and what the cluster agreed on
    #[arg(long, value_name = "DIR", value_parser = parse_path)]
    pub(super) cluster_dir: Option<PathBuf>,

    /// Found a cluster, with this server as its first node
    #[arg(long, requires = "cluster_dir", conflicts_with = "join")]
    init: bool,

    /// Join the cluster of one of these nodes, named by their peer addresses; may repeat or hold a list
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', action = ArgAction::Append)]
    #[arg(requires = "cluster_dir")]
    join: Vec<Endpoint>,

    /// What lets it join: printed once by `cache-ctl add`
    #[arg(long, value_name = "TOKEN", requires = "join", conflicts_with = "token_file")]
    token: Option<String>,

    /// The same in a file, so that it is not seen in the list of processes
    #[arg(long, value_name = "FILE", requires = "join", value_parser = parse_path)]
    token_file: Option<PathBuf>,

    /// What the founded cluster promises: sessions (2 copies, both acknowledge) or strict (3 copies, 2
    /// acknowledge)
    #[arg(long, value_name = "POOL", requires = "init", default_value = "sessions", value_parser = parse_pool)]
    pool: Pool,

    /// Copies of each shard of the founded cluster, if not as many as the pool has
    #[arg(long, value_name = "NUM", requires = "init", value_parser = parse_replicas)]
    replicas: Option<u8>,

    /// What reads of the founded cluster wait for: lease (that copies still promise not to appoint another
    /// primary), confirm (that they say so once more, which trusts no clock and costs a round trip), any (nothing:
    /// any copy answers what it has, maybe an old value)
    #[arg(long, value_name = "HOW", requires = "init", default_value = "lease", value_parser = parse_reads)]
    reads: Reads,

    /// Shards of the founded cluster: a power of two, 64 to 16384
    #[arg(long, value_name = "NUM", requires = "init", default_value_t = SHARD_COUNT_DEFAULT, value_parser = parse_shard_count)]
    shards: u16,

    /// Address for other nodes; the port is that of clients + 200 if not named
    #[arg(long, value_name = "ADDR", requires = "cluster_dir", default_value = "127.0.0.1")]
    peer_listen: String,

    /// Where other nodes are told to connect, if not there
    #[arg(long, value_name = "HOST:PORT", requires = "cluster_dir")]
    peer_advertise: Option<Endpoint>,

    /// Where clients are told to connect, if not to the first address of -l
    #[arg(long, value_name = "HOST:PORT", requires = "cluster_dir")]
    client_advertise: Option<Endpoint>,

    /// Address for administration, which asks for no password; the port is that of clients + 100 if not
    /// named
    #[arg(long, value_name = "ADDR", requires = "cluster_dir", default_value = "127.0.0.1")]
    admin_listen: String,

    /// Copies of one shard go to different zones where that is possible
    #[arg(long, value_name = "NAME", requires = "cluster_dir", default_value = "", value_parser = parse_zone)]
    #[arg(hide_default_value = true)]
    zone: String,

    /// Share of the shards, relative to that of other nodes: 1 to 1000
    #[arg(long, value_name = "NUM", requires = "cluster_dir", default_value_t = WEIGHT_DEFAULT, value_parser = parse_weight)]
    weight: u16,

    /// data: hold shards and vote; witness: vote only, and take no memory for items
    #[arg(long, value_name = "ROLE", requires = "cluster_dir", default_value = "data", value_parser = parse_role)]
    role: Role,

    /// Talk to nodes on other machines without encryption
    #[arg(long, requires = "cluster_dir")]
    peer_plaintext: bool,
}

/// What the other flags say that matters to a cluster.
pub(super) struct Surroundings<'a> {
    /// `-p`.
    pub(super) port: u16,
    /// Where clients are served.
    pub(super) listen: &'a [Listen],
    /// Whether `-e` or `--backup-file` keep items in a file.
    pub(super) keeps_items: bool,
}

impl ClusterFlags {
    /// What they ask for, if they ask for a node of a cluster at all.
    pub(super) fn into_config(
        self,
        surroundings: &Surroundings<'_>,
    ) -> Result<Option<ClusterConfig>, String> {
        let Some(dir) = &self.cluster_dir else { return Ok(None) };
        let Some(first) = surroundings.listen.first() else {
            return Err(
                "--cluster-dir: a node is reached over TCP, which -s disables, and -p 0".into()
            );
        };
        if self.client_advertise.is_none() && is_everywhere(first) {
            return Err("-l does not say where clients reach this node: \
                        add --client-advertise HOST:PORT"
                .into());
        }
        let near =
            |flag, address: &str, offset| listen_near(flag, address, surroundings.port, offset);
        let peer_listen = near("--peer-listen", &self.peer_listen, PEER_PORT_OFFSET)?;
        if self.peer_advertise.is_none() && is_everywhere(&peer_listen) {
            return Err("--peer-listen does not say where other nodes reach this one: \
                        add --peer-advertise HOST:PORT"
                .into());
        }
        let admin_listen = near("--admin-listen", &self.admin_listen, ADMIN_PORT_OFFSET)?;
        if self.role == Role::Witness && self.init {
            return Err("--role witness: who founds a cluster holds its shards".into());
        }
        if self.role == Role::Witness && surroundings.keeps_items {
            return Err(
                "--role witness: it has no items that -e or --backup-file could keep".into()
            );
        }
        Ok(Some(ClusterConfig {
            // The background changes the working directory.
            dir: std::path::absolute(dir).unwrap_or_else(|_| dir.clone()),
            peer_listen,
            peer_advertise: self.peer_advertise.clone(),
            client_advertise: self.client_advertise.clone(),
            admin_listen,
            zone: self.zone.clone(),
            weight: self.weight,
            role: self.role,
            peer_plaintext: self.peer_plaintext,
            start: self.start()?,
        }))
    }

    fn start(self) -> Result<ClusterStart, String> {
        if self.init {
            let pool = Pool { reads: self.reads, ..with_replicas(self.pool, self.replicas)? };
            return Ok(ClusterStart::Init { pool, shard_count: self.shards });
        }
        if self.join.is_empty() {
            return Ok(ClusterStart::Continue);
        }
        let token = match (self.token, self.token_file) {
            (Some(token), _) => TokenSource::Given(token),
            (None, Some(file)) => TokenSource::File(std::path::absolute(&file).unwrap_or(file)),
            (None, None) => {
                return Err("--join takes a token, which `cache-ctl add` prints: \
                            add --token TOKEN or --token-file FILE"
                    .into());
            }
        };
        Ok(ClusterStart::Join { seeds: self.join, token })
    }
}

/// `pool` with another number of copies.
pub(super) fn with_replicas(pool: Pool, replicas: Option<u8>) -> Result<Pool, String> {
    let Some(copies) = replicas else { return Ok(pool) };
    if copies < pool.in_sync_min {
        return Err(format!(
            "--replicas {copies}: the pool {} takes no writes with less than {} copies",
            pool.name, pool.in_sync_min
        ));
    }
    Ok(Pool { copies, ..pool })
}

/// An address with the clients' port plus `offset` where it names none.
fn listen_near(flag: &str, address: &str, port: u16, offset: u16) -> Result<Listen, String> {
    // No address of TCP has port 0 for a name, so an address without a port shows.
    let names_a_port = parse_place(address, 1) == parse_place(address, 2);
    let port_default = match port {
        // Any free port for clients goes with any free port for others.
        0 => 0,
        port => match port.checked_add(offset) {
            Some(near) => near,
            None if names_a_port => 0,
            None => return Err(format!("{flag}: name a port, {port} + {offset} is none")),
        },
    };
    parse_place(address, port_default).map_err(|wrong| wrong.replacen("-l", flag, 1))
}

/// Whether an address means every one of this machine.
fn is_everywhere(listen: &Listen) -> bool {
    listen.host.as_ref().is_none_or(|host| {
        host.parse().is_ok_and(|address: std::net::IpAddr| address.is_unspecified())
    })
}

/// A pool by its name.
pub(super) fn parse_pool(text: &str) -> Result<Pool, String> {
    let presets = [Pool::sessions(), Pool::strict()];
    let names = presets.each_ref().map(|pool| pool.name.clone()).join(", ");
    presets
        .into_iter()
        .find(|pool| pool.name == text.trim())
        .ok_or_else(|| format!("known are {names}"))
}

/// What reads wait for, by its name.
pub(super) fn parse_reads(text: &str) -> Result<Reads, String> {
    let found = Reads::ALL.into_iter().find(|reads| reads.name() == text.trim());
    found.ok_or_else(|| format!("known are {}", Reads::ALL.map(Reads::name).join(", ")))
}

/// A number of copies.
pub(super) fn parse_replicas(text: &str) -> Result<u8, String> {
    match parse_number::<u8>(text) {
        Ok(copies @ 1..=COPIES_MAX) => Ok(copies),
        _ => Err(format!("1 to {COPIES_MAX} copies")),
    }
}

/// A number of shards.
pub(super) fn parse_shard_count(text: &str) -> Result<u16, String> {
    match parse_number::<u16>(text) {
        Ok(count @ SHARD_COUNT_MIN..=SHARD_COUNT_MAX) if count.is_power_of_two() => Ok(count),
        _ => Err(format!("a power of two, {SHARD_COUNT_MIN} to {SHARD_COUNT_MAX}")),
    }
}

fn parse_weight(text: &str) -> Result<u16, String> {
    match parse_number::<u16>(text) {
        Ok(weight @ 1..=WEIGHT_MAX) => Ok(weight),
        _ => Err(format!("1 to {WEIGHT_MAX}")),
    }
}

fn parse_zone(text: &str) -> Result<String, String> {
    let zone = text.trim();
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    if zone.len() <= ZONE_BYTES_MAX && zone.bytes().all(is_plain) {
        Ok(zone.to_owned())
    } else {
        Err(format!("at most {ZONE_BYTES_MAX} letters, digits and signs, without spaces"))
    }
}

fn parse_role(text: &str) -> Result<Role, String> {
    match text.trim() {
        "data" => Ok(Role::Data),
        "witness" => Ok(Role::Witness),
        _ => Err("known are data, witness".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli;

    fn node(arguments: &[&str]) -> ClusterConfig {
        let all = [&["cache-server", "--cluster-dir", "/var/lib/cache"], arguments].concat();
        cli::parse(&all).unwrap_or_else(|answer| panic!("{all:?}: {answer:?}")).cluster.unwrap()
    }

    /// Why `arguments` are refused.
    fn refusal(arguments: &[&str]) -> String {
        let answer = cli::parse([&["cache-server"], arguments].concat()).unwrap_err();
        assert_eq!(answer.exit_code(), 64, "{arguments:?}");
        answer.to_string()
    }

    fn refusal_in_dir(arguments: &[&str]) -> String {
        refusal(&[&["--cluster-dir", "/var/lib/cache"], arguments].concat())
    }

    fn loopback(port: u16) -> Listen {
        Listen::loopback(port)
    }

    #[test]
    fn a_server_is_alone_without_a_directory() {
        assert!(cli::parse(["cache-server"]).unwrap().cluster.is_none());
        for flags in [
            &["--init"][..],
            &["--join", "h:1", "--token", "t"],
            &["--peer-listen", "::1"],
            &["--peer-advertise", "h:1"],
            &["--client-advertise", "h:1"],
            &["--admin-listen", "::1"],
            &["--zone", "a"],
            &["--weight", "1"],
            &["--role", "data"],
            &["--peer-plaintext"],
        ] {
            assert!(refusal(flags).contains("--cluster-dir"), "{flags:?}");
        }
    }

    #[test]
    fn a_directory_alone_continues_with_defaults() {
        let node = node(&[]);
        assert_eq!(node.dir, Path::new("/var/lib/cache"));
        assert_eq!(node.start, ClusterStart::Continue);
        assert_eq!(node.peer_listen, loopback(11_411));
        assert_eq!(node.admin_listen, loopback(11_311));
        assert_eq!((node.weight, node.role, &*node.zone), (100, Role::Data, ""));
        assert!(!node.peer_plaintext);
    }

    #[test]
    fn founding_takes_a_pool_its_copies_and_shards() {
        let init = |arguments: &[&str]| match node(&[&["--init"], arguments].concat()).start {
            ClusterStart::Init { pool, shard_count } => (pool, shard_count),
            other => panic!("{other:?}"),
        };
        assert_eq!(init(&[]), (Pool::sessions(), SHARD_COUNT_DEFAULT));
        assert_eq!(init(&["--pool", "strict", "--shards", "64"]), (Pool::strict(), 64));
        assert_eq!(init(&["--replicas=3"]).0, Pool { copies: 3, ..Pool::sessions() });
        for shards in ["63", "65", "100", "0", "32768", "-1", "x"] {
            let reason = refusal_in_dir(&["--init", &format!("--shards={shards}")]);
            assert!(reason.contains("a power of two, 64 to 16384"), "{shards}: {reason}");
        }
        let reason = refusal_in_dir(&["--init", "--pool=gold"]);
        assert!(reason.contains("known are sessions, strict"), "{reason}");
        let reason = refusal_in_dir(&["--init", "--pool=strict", "--replicas=1"]);
        assert!(reason.contains("less than 2 copies"), "{reason}");
        for copies in ["0", "8", "x"] {
            assert!(refusal_in_dir(&["--init", "--replicas", copies]).contains("1 to 7 copies"));
        }
        for flags in [["--pool", "strict"], ["--shards", "64"], ["--replicas", "2"]] {
            assert!(refusal_in_dir(&flags).contains("--init"), "{flags:?}");
        }
    }

    #[test]
    fn joining_takes_seeds_and_a_token() {
        let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
        assert_eq!(
            node(&["--join", "a:1,b:2", "--join=[::1]:3", "--token", "t"]).start,
            ClusterStart::Join {
                seeds: vec![endpoint("a:1"), endpoint("b:2"), endpoint("[::1]:3")],
                token: TokenSource::Given("t".into())
            }
        );
        let ClusterStart::Join { token, .. } = node(&["--join=a:1", "--token-file=t"]).start else {
            panic!("it joins");
        };
        assert!(matches!(token, TokenSource::File(path) if path.is_absolute()));
        assert!(refusal_in_dir(&["--join", "a:1"]).contains("--token"));
        assert!(refusal_in_dir(&["--join", "a", "--token", "t"]).contains("HOST:PORT"));
        assert!(refusal_in_dir(&["--token", "t"]).contains("--join"));
        assert!(refusal_in_dir(&["--token-file", "t"]).contains("--join"));
        let both = ["--join", "a:1", "--token", "t", "--token-file", "f"];
        assert!(refusal_in_dir(&both).contains("cannot be used with"));
        let both = ["--init", "--join", "a:1", "--token", "t"];
        assert!(refusal_in_dir(&both).contains("cannot be used with"));
    }

    #[test]
    fn ports_follow_the_clients_unless_named() {
        let near = node(&["-p", "20000", "--peer-listen=::1", "--admin-listen=::1"]);
        assert_eq!((near.peer_listen.port, near.admin_listen.port), (20_200, 20_100));
        let named = node(&["-p65500", "--peer-listen=127.0.0.1:7", "--admin-listen=[::1]:8"]);
        assert_eq!((named.peer_listen.port, named.admin_listen.port), (7, 8));
        let free = node(&["-p-1"]);
        assert_eq!((free.peer_listen.port, free.admin_listen.port), (0, 0));
        let reason = refusal_in_dir(&["-p65500", "--admin-listen=127.0.0.1:8"]);
        assert!(reason.contains("--peer-listen: name a port, 65500 + 200 is none"), "{reason}");
        assert!(refusal_in_dir(&["--peer-listen", "h:x"]).contains("--peer-listen: "));
    }

    #[test]
    fn a_node_says_where_it_is_found() {
        assert!(refusal_in_dir(&["-l", "*"]).contains("--client-advertise"));
        assert!(refusal_in_dir(&["-l", "0.0.0.0"]).contains("--client-advertise"));
        assert!(refusal_in_dir(&["--peer-listen", "[::]:7"]).contains("--peer-advertise"));
        assert!(refusal_in_dir(&["--peer-advertise", "0.0.0.0:7"]).contains("leads to none"));
        let node = node(&[
            "-l*",
            "--client-advertise=a:1",
            "--peer-listen=*",
            "--peer-advertise=a:2",
            "--admin-listen=*",
        ]);
        assert_eq!(node.peer_listen.host, None);
        assert_eq!(node.client_advertise.unwrap().to_string(), "a:1");
    }

    #[test]
    fn what_does_not_go_with_a_cluster_is_refused() {
        assert!(refusal_in_dir(&["-s", "/run/c.sock"]).contains("-s disables"));
        assert!(refusal_in_dir(&["--weight", "0"]).contains("1 to 1000"));
        assert!(refusal_in_dir(&["--weight", "1001"]).contains("1 to 1000"));
        assert!(refusal_in_dir(&["--zone", "a b"]).contains("without spaces"));
        assert!(refusal_in_dir(&["--role", "king"]).contains("known are data, witness"));
    }

    #[test]
    fn a_witness_holds_nothing() {
        let join = ["--cluster-dir=/d", "--join=a:1", "--token=t", "--role=witness"];
        let config = cli::parse([&["cache-server", "-m", "8192"], &join[..]].concat()).unwrap();
        assert_eq!(config.cluster.unwrap().role, Role::Witness);
        assert!(config.memory_bytes <= 2 * config.item_bytes_max, "-m is not looked at");
        assert!(refusal_in_dir(&["--init", "--role=witness"]).contains("who founds"));
        assert!(refusal_in_dir(&["-e/x", "--role=witness"]).contains("no items"));
        assert!(refusal_in_dir(&["--backup-file=/x", "--role=witness"]).contains("no items"));
    }
}
