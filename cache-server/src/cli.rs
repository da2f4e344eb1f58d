//! Flags into `Config`, with memcached's spelling.
//!
//! What memcached takes is taken: values attached to their flag (`-m64`), flags run together
//! (`-dv`), a space before a value (`'-m 8192'` as one argument), long names cut short where they
//! stay unique (`--memory-l=64`), the last of repeated flags. `-l` may repeat and hold lists. The one
//! difference is on purpose: without `-l` only this machine is served. See memcached.c, `main`.
//!
//! Flags of our own must not make a long name of memcached's ambiguous that was unique when cut short:
//! those that would have a hidden alias.
//!
//! `cache-server local-cluster` has flags of its own; the word counts in the first place alone, where no
//! flag of memcached's takes a value.

mod cluster;
mod local_cluster;

use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use ::cluster::map::Role;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};

use self::cluster::{ClusterFlags, Surroundings};
use self::local_cluster::LocalClusterFlags;
use crate::config::{
    BackupConfig, Config, EVICTION_DEFAULT, ITEM_BYTES_CEILING, ITEM_BYTES_FLOOR, Listen,
    ProcessConfig, UnixSocket,
};
use crate::local_cluster::Plan;
use crate::process::EX_USAGE;

/// The first word of a command line that asks for several servers.
const LOCAL_CLUSTER: &str = "local-cluster";

/// What to tell a user instead of serving: help, the version, or what is wrong with the flags.
#[derive(Debug)]
pub struct Answer(clap::Error);

impl Answer {
    /// Prints it where it belongs and returns the exit code: 0 for help and version, else 64.
    pub fn print(&self) -> ExitCode {
        // A closed terminal is no reason for another exit code.
        let _ = self.0.print();
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        if self.0.use_stderr() { EX_USAGE } else { 0 }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// One server.
    Serve(Box<Config>),
    /// Several of them on this machine.
    LocalCluster(Plan),
}

/// Reads a command line, its first word being the program's name.
///
/// # Errors
///
/// When help or the version is asked for, or a flag cannot be obeyed.
pub fn parse_command(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Answer> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match arguments.get(1) {
        Some(word) if word == LOCAL_CLUSTER => {
            LocalClusterFlags::parse(&arguments[1..]).map(Command::LocalCluster)
        }
        _ => parse(arguments).map(|config| Command::Serve(Box::new(config))),
    }
}

/// Reads the command line of one server, its first word being the program's name.
///
/// # Errors
///
/// When help or the version is asked for, or a flag cannot be obeyed.
pub fn parse<I, T>(arguments: I) -> Result<Config, Answer>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let flags = Flags::try_parse_from(arguments).map_err(Answer)?;
    flags
        .into_config()
        .map_err(|reason| Answer(Flags::command().error(ErrorKind::ValueValidation, reason)))
}

/// A memory cache that speaks memcached's protocol.
#[derive(Debug, Parser)]
#[command(
    name = "cache-server",
    version,
    infer_long_args = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = "`cache-server local-cluster --help` tells how to try out a cluster on this machine."
)]
struct Flags {
    /// TCP port to listen on; 0 or -1 is any free one
    #[arg(short, long, value_name = "NUM", default_value = "11211", value_parser = parse_port)]
    #[arg(allow_negative_numbers = true, alias = "po")]
    port: u16,

    /// UDP port to listen on; only 0, off
    #[arg(short = 'U', long, value_name = "NUM", default_value = "0", value_parser = parse_udp_port)]
    udp_port: u16,

    /// UNIX socket to listen on (disables TCP)
    #[arg(short = 's', long, value_name = "FILE")]
    unix_socket: Option<PathBuf>,

    /// Access mask for the UNIX socket, in octal
    #[arg(short = 'a', long, value_name = "MASK", default_value = "700", value_parser = parse_mode)]
    unix_mask: u32,

    /// Address to listen on: ADDR or ADDR:PORT, '*' for every one; may repeat or hold a list
    #[arg(short, long, value_name = "ADDR", value_delimiter = ',', action = ArgAction::Append)]
    #[arg(default_value = "127.0.0.1")]
    listen: Vec<String>,

    /// Run as a daemon
    #[arg(short, long)]
    daemon: bool,

    /// Maximize core file limit
    #[arg(short = 'r', long)]
    enable_coredumps: bool,

    /// User to become when run as root
    #[arg(short, long, value_name = "USER", value_parser = parse_word)]
    user: Option<String>,

    /// Item memory in mebibytes
    #[arg(short, long, value_name = "NUM", default_value = "64", value_parser = parse_number::<NonZeroUsize>)]
    memory_limit: NonZeroUsize,

    /// Refuse writes when memory is full instead of evicting
    #[arg(short = 'M', long)]
    disable_evictions: bool,

    /// Which items leave when memory is full
    #[arg(long, value_name = "KIND", default_value = EVICTION_DEFAULT.name(), value_parser = parse_eviction)]
    eviction: eviction::Kind,

    /// Keep items in FILE, or in a directory, so that they outlive the server
    #[arg(short = 'e', long, value_name = "FILE", value_parser = parse_path)]
    memory_file: Option<PathBuf>,

    /// Start only if the memory file brings items back
    #[arg(long, requires = "memory_file")]
    require_warm: bool,

    /// Write the memory file to its device every SECS seconds; 0 leaves that to the system
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = parse_number::<u64>)]
    #[arg(requires = "memory_file")]
    sync_interval: u64,

    /// Clients served at the same time
    #[arg(alias = "c")]
    #[arg(short, long, value_name = "NUM", default_value = "1024", value_parser = parse_number::<NonZeroU32>)]
    conn_limit: NonZeroU32,

    /// Lock down all memory, as it is touched
    #[arg(short = 'k', long)]
    lock_memory: bool,

    /// Log connections; -vv for everything
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Save the process id in FILE
    #[arg(short = 'P', long, value_name = "FILE", value_parser = parse_path)]
    pidfile: Option<PathBuf>,

    /// Worker threads
    #[arg(alias = "t")]
    #[arg(short, long, value_name = "NUM", default_value = "4", value_parser = parse_number::<NonZeroUsize>)]
    threads: NonZeroUsize,

    /// Requests one connection has answered before others get their turn
    #[arg(short = 'R', long, value_name = "NUM", default_value = "20", value_parser = parse_number::<NonZeroU32>)]
    max_reqs_per_event: NonZeroU32,

    /// Connections that may wait to be accepted
    #[arg(short = 'b', long, value_name = "NUM", default_value = "1024", value_parser = parse_number::<u32>)]
    listen_backlog: u32,

    /// Largest item: bytes, or with k, m or g
    #[arg(short = 'I', long, value_name = "SIZE", default_value = "1m", value_parser = parse_item_bytes)]
    max_item_size: usize,

    /// Do not keep the hit ratio at other memory sizes, of the server's own traffic (`stats mrc`)
    #[arg(long)]
    no_live_curve: bool,

    /// Write a backup to FILE now and then, in the place of the one before
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    backup_file: Option<PathBuf>,

    /// Time between backups
    #[arg(long, value_name = "SECS", default_value = "3600", value_parser = parse_number::<NonZeroU64>)]
    #[arg(requires = "backup_file")]
    backup_interval: NonZeroU64,

    /// Stop when the process that started this one ends
    #[arg(long, conflicts_with = "daemon")]
    stop_with_parent: bool,

    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Flags {
    fn into_config(self) -> Result<Config, String> {
        let memory_bytes = self
            .memory_limit
            .get()
            .checked_mul(1 << 20)
            .ok_or_else(|| "more memory than this machine can address".to_owned())?;
        if self.max_item_size > memory_bytes / 2 {
            return Err("Cannot set item size limit higher than 1/2 of memory max.".into());
        }
        let unix_socket =
            self.unix_socket.map(|path| UnixSocket { path: trimmed(path), mode: self.unix_mask });
        let listen = match unix_socket {
            Some(_) => Vec::new(),
            None => self
                .listen
                .iter()
                .map(|address| parse_listen(address, self.port))
                .collect::<Result<_, _>>()?,
        };
        let keeps_items = self.memory_file.is_some() || self.backup_file.is_some();
        let surroundings = Surroundings { port: self.port, listen: &listen, keeps_items };
        let cluster = self.cluster.into_config(&surroundings)?;
        let holds_items = cluster.as_ref().is_none_or(|node| node.role == Role::Data);
        // What a witness has is as little as there can be.
        let memory_bytes = if holds_items { memory_bytes } else { 2 * self.max_item_size };
        Ok(Config {
            listen,
            unix_socket,
            backlog: self.listen_backlog,
            memory_bytes,
            evicts: !self.disable_evictions,
            eviction: self.eviction,
            item_bytes_max: self.max_item_size,
            memory_file: self.memory_file,
            require_warm: self.require_warm,
            sync_interval: Duration::from_secs(self.sync_interval),
            connections_max: self.conn_limit,
            threads: self.threads,
            requests_per_turn: self.max_reqs_per_event,
            live_curve: !self.no_live_curve,
            backup: self.backup_file.map(|file| BackupConfig {
                // The background changes the working directory.
                file: std::path::absolute(&file).unwrap_or(file),
                interval: Duration::from_secs(self.backup_interval.get()),
            }),
            verbosity: self.verbose,
            process: ProcessConfig {
                user: self.user,
                daemon: self.daemon,
                pid_file: self.pidfile,
                lock_memory: self.lock_memory,
                core_dumps: self.enable_coredumps,
                stop_with_parent: self.stop_with_parent,
            },
            cluster,
            ..Config::default()
        })
    }
}

/// A number as memcached's users write it, perhaps after a space.
fn parse_number<N>(text: &str) -> Result<N, String>
where
    N: FromStr,
    N::Err: ToString,
{
    text.trim().parse().map_err(|error: N::Err| error.to_string())
}

fn parse_port(text: &str) -> Result<u16, String> {
    // memcached's tests ask for any free port with -1.
    if text.trim() == "-1" { Ok(0) } else { parse_number(text) }
}

fn parse_udp_port(text: &str) -> Result<u16, String> {
    match parse_number(text)? {
        0 => Ok(0),
        _ => Err("UDP is not supported; only 0, off, is accepted".into()),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text.trim(), 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("an access mask is three octal digits, such as 700".into()),
    }
}

fn parse_word(text: &str) -> Result<String, String> {
    Ok(text.trim().to_owned())
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    match text.trim_start() {
        "" => Err("a path has at least one character".into()),
        path => Ok(path.into()),
    }
}

/// `path` without the spaces before it.
fn trimmed(path: PathBuf) -> PathBuf {
    path.to_str().map(|text| text.trim_start().into()).unwrap_or(path)
}

fn parse_eviction(text: &str) -> Result<eviction::Kind, String> {
    let wanted = text.trim();
    eviction::Kind::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| {
        let names = eviction::Kind::ALL.map(eviction::Kind::name).join(", ");
        format!("known are {names}")
    })
}

fn parse_item_bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let bytes = parse_number::<usize>(digits)?.saturating_mul(unit);
    if bytes < ITEM_BYTES_FLOOR {
        return Err("Item max size cannot be less than 1024 bytes.".into());
    }
    if bytes > ITEM_BYTES_CEILING {
        return Err("Cannot set item size limit higher than a gigabyte.".into());
    }
    Ok(bytes)
}

/// One address of `-l`: `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`, a bare IPv6 address, or every
/// address of this machine as `*`, `*:PORT` or `INADDR_ANY`.
fn parse_listen(text: &str, port_default: u16) -> Result<Listen, String> {
    let text = text.trim();
    let wrong = || format!("-l: {text:?} is no address");
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or_else(wrong)?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        }
    } else {
        match text.split_once(':') {
            // A second colon: an IPv6 address, which without brackets can have no port.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(port) => parse_port(port).map_err(|_| wrong())?,
        None => port_default,
    };
    match host {
        "" => Err(wrong()),
        "*" | "INADDR_ANY" => Ok(Listen { host: None, port }),
        host => Ok(Listen { host: Some(host.to_owned()), port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BACKUP_INTERVAL_DEFAULT, PORT_DEFAULT};

    fn config(arguments: &[&str]) -> Config {
        try_config(arguments).unwrap_or_else(|answer| panic!("{arguments:?}: {}", answer.0))
    }

    fn try_config(arguments: &[&str]) -> Result<Config, Answer> {
        parse([&["cache-server"], arguments].concat())
    }

    fn exit_code(arguments: &[&str]) -> u8 {
        try_config(arguments).expect_err("not a server to run").exit_code()
    }

    fn listen(host: &str, port: u16) -> Listen {
        Listen { host: Some(host.to_owned()), port }
    }

    const MIB: usize = 1 << 20;

    #[test]
    fn no_flag_gives_the_defaults() {
        let parsed = config(&[]);
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
        assert_eq!(parsed.listen, [listen("127.0.0.1", PORT_DEFAULT)], "this machine alone");
    }

    #[test]
    fn help_and_version_are_no_failures_and_bad_usage_is_64() {
        for arguments in [["-h"], ["--help"], ["-V"], ["--version"]] {
            assert_eq!(exit_code(&arguments), 0, "{arguments:?}");
        }
        for arguments in [["-Q"], ["-m"], ["-mx"], ["-m0"], ["-c0"], ["-t0"], ["-R0"], ["-p70000"]]
        {
            assert_eq!(exit_code(&arguments), 64, "{arguments:?}");
        }
        assert!(try_config(&["-V"]).unwrap_err().0.to_string().starts_with("cache-server 0."));
    }

    #[test]
    fn values_may_stand_apart_attached_after_a_space_or_an_equals_sign() {
        for arguments in [
            &["-m", "8192"][..],
            &["-m8192"],
            &["-m 8192"],
            &["--memory-limit=8192"],
            &["--memory-limit", "8192"],
            &["--memory-l=8192"],
            &["-m", "64", "-m", "8192"],
            &["-vm8192"],
        ] {
            assert_eq!(config(arguments).memory_bytes, 8192 * MIB, "{arguments:?}");
        }
    }

    #[test]
    fn flags_may_run_together() {
        let parsed = config(&["-dvMk", "-rvv"]);
        assert!(parsed.process.daemon && parsed.process.lock_memory && parsed.process.core_dumps);
        assert!(!parsed.evicts);
        assert_eq!(parsed.verbosity, 3);
        assert_eq!(config(&["-vvv"]).verbosity, 3);
    }

    #[test]
    fn names_that_memcached_takes_cut_short_stay_unique() {
        let parsed = config(&["--po=11212", "--c=10", "--con=10", "--t=2", "--th=2"]);
        assert_eq!(parsed.listen, [listen("127.0.0.1", 11212)]);
        assert_eq!((parsed.connections_max.get(), parsed.threads.get()), (10, 2));
        for cut in ["--pi=f", "--us=u", "--memory-l=2", "--max-r=1", "--max-i=1k", "--ud=0"] {
            config(&[cut]);
        }
    }

    #[test]
    fn local_cluster_is_meant_in_the_first_place_alone() {
        let command = |arguments: &[&str]| {
            parse_command([&["cache-server"], arguments].concat().into_iter().map(OsString::from))
        };
        let plan = command(&["local-cluster", "--dir", "d"]);
        assert!(matches!(plan, Ok(Command::LocalCluster(_))), "{plan:?}");
        let alone = command(&["-p", "11212", "-m", "64"]);
        assert!(matches!(alone, Ok(Command::Serve(config)) if config.memory_bytes == 64 * MIB));
        let user = command(&["-u", "local-cluster"]);
        assert!(matches!(user, Ok(Command::Serve(_))), "{user:?}");
        assert_eq!(command(&["-v", "local-cluster"]).unwrap_err().exit_code(), 64);
    }

    #[test]
    fn every_short_flag_has_its_long_form() {
        let short = config(&[
            "-p",
            "11212",
            "-c",
            "10",
            "-t",
            "2",
            "-R",
            "7",
            "-b",
            "9",
            "-I",
            "2m",
            "-u",
            "nobody",
            "-P",
            "/run/c.pid",
            "-U",
            "0",
            "-l",
            "::1",
            "-d",
            "-M",
            "-k",
            "-r",
            "-v",
            "-m",
            "100",
        ]);
        let long = config(&[
            "--port=11212",
            "--conn-limit=10",
            "--threads=2",
            "--max-reqs-per-event=7",
            "--listen-backlog=9",
            "--max-item-size=2m",
            "--user=nobody",
            "--pidfile=/run/c.pid",
            "--udp-port=0",
            "--listen=::1",
            "--daemon",
            "--disable-evictions",
            "--lock-memory",
            "--enable-coredumps",
            "--verbose",
            "--memory-limit=100",
        ]);
        assert_eq!(format!("{short:?}"), format!("{long:?}"));
        assert_eq!(short.listen, [listen("::1", 11212)]);
        assert_eq!(short.connections_max.get(), 10);
        assert_eq!(short.requests_per_turn.get(), 7);
        assert_eq!(short.process.user.as_deref(), Some("nobody"));
    }

    #[test]
    fn addresses_come_in_lists_with_or_without_ports() {
        let parsed = config(&["-p11311", "-l", "10.0.0.1, 10.0.0.2:7", "-l[::1]:8", "-l", "::1"]);
        assert_eq!(
            parsed.listen,
            [
                listen("10.0.0.1", 11311),
                listen("10.0.0.2", 7),
                listen("::1", 8),
                listen("::1", 11311)
            ]
        );
        assert_eq!(config(&["-l", "[::1]"]).listen, [listen("::1", PORT_DEFAULT)]);
        assert_eq!(config(&["-l", "0.0.0.0"]).listen, [listen("0.0.0.0", PORT_DEFAULT)]);
        assert_eq!(config(&["-l", "localhost:1"]).listen, [listen("localhost", 1)]);
        for every in ["*", "INADDR_ANY"] {
            assert_eq!(config(&["-l", every]).listen, [Listen { host: None, port: PORT_DEFAULT }]);
        }
        for wrong in ["", "[::1", "[::1]8", "host:port", ":7"] {
            assert_eq!(exit_code(&["-l", wrong]), 64, "{wrong:?}");
        }
    }

    #[test]
    fn any_free_port_is_0_or_memcacheds_minus_1() {
        for arguments in [&["-p", "0"][..], &["-p-1"], &["-p", "-1"], &["-p 0"]] {
            assert_eq!(config(arguments).listen, [listen("127.0.0.1", 0)], "{arguments:?}");
        }
    }

    #[test]
    fn unix_socket_replaces_tcp() {
        let parsed = config(&["-s", "/run/c.sock", "-a", "0770", "-p", "11212"]);
        assert_eq!(
            parsed.unix_socket,
            Some(UnixSocket { path: "/run/c.sock".into(), mode: 0o770 })
        );
        assert_eq!(parsed.listen, []);
        assert_eq!(config(&["-s/run/c.sock"]).unix_socket.unwrap().mode, 0o700);
        assert_eq!(exit_code(&["-s", "/run/c.sock", "-a", "9"]), 64);
    }

    #[test]
    fn item_size_has_units_and_bounds() {
        for (text, bytes) in [("1k", 1024), ("512k", 512 << 10), ("4M", 4 * MIB), ("2048", 2048)] {
            assert_eq!(config(&["-I", text]).item_bytes_max, bytes, "{text}");
        }
        assert_eq!(config(&["-I1g", "-m2048"]).item_bytes_max, 1 << 30);
        for (text, reason) in [
            ("1023", "less than 1024 bytes"),
            ("2g", "higher than a gigabyte"),
            ("33m", "higher than 1/2 of memory max"),
            ("99999999999999999999m", "too large"),
            ("m", "empty"),
        ] {
            let answer = try_config(&["-I", text]).unwrap_err();
            assert!(answer.0.to_string().contains(reason), "{text}: {}", answer.0);
            assert_eq!(answer.exit_code(), 64, "{text}");
        }
    }

    #[test]
    fn a_backup_has_a_file_and_an_interval() {
        let parsed = config(&["--backup-file", "/var/backups/cache", "--backup-interval=60"]);
        let (file, interval) = ("/var/backups/cache".into(), Duration::from_secs(60));
        assert_eq!(parsed.backup, Some(BackupConfig { file, interval }));
        let parsed = config(&["--backup-file=cache.backup"]).backup.unwrap();
        assert_eq!(parsed.interval, BACKUP_INTERVAL_DEFAULT);
        assert!(parsed.file.is_absolute());
        assert_eq!(exit_code(&["--backup-interval=60"]), 64);
        assert_eq!(exit_code(&["--backup-file=f", "--backup-interval=0"]), 64);
    }

    #[test]
    fn udp_is_refused_with_a_reason() {
        assert_eq!(config(&["-U0"]).listen.len(), 1);
        let answer = try_config(&["-U", "11211"]).unwrap_err();
        assert!(answer.0.to_string().contains("UDP is not supported"), "{}", answer.0);
    }

    #[test]
    fn every_policy_can_be_asked_for() {
        for kind in eviction::Kind::ALL {
            assert_eq!(config(&["--eviction", kind.name()]).eviction, kind);
        }
        let answer = try_config(&["--eviction=random"]).unwrap_err();
        assert!(answer.0.to_string().contains("known are"), "{}", answer.0);
    }
}
