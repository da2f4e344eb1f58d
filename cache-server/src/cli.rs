//! Flags into `Config`, with memcached's spelling.
//!
//! Every flag of memcached 1.6.45 is taken, written as it takes them: values attached to their flag
//! (`-m64`), flags run together (`-dv`), a space before a value (`'-m 8192'` as one argument), a value that
//! begins with `-`, long names cut short where they stay unique (`--memory-l=64`), the last of repeated
//! flags, words that are no flags passed over. `-l` and `-o` may repeat and hold lists. What it refuses is
//! refused with its exit code (`cli/refused.rs`): 64 for values that make no sense, 71 for addresses, and 1 for
//! most numbers and for flags that do not exist. What has no meaning here does nothing, and the log says so.
//! The one difference is on purpose: without `-l` only this machine is served. See memcached.c, `main`.
//!
//! Flags of our own must not make a long name of memcached's ambiguous that was unique when cut short:
//! those that would have a hidden alias.
//!
//! `cache-server local-cluster` has flags of its own; the word counts in the first place alone, where no
//! flag of memcached's takes a value.

mod cluster;
mod extended;
mod imported;
mod listen;
mod local_cluster;
mod number;
mod refused;
mod tls;

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write as _};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use ::cluster::map::Role;
use clap::error::ErrorKind;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};
use protocol::KEY_BYTES_MAX;

use self::cluster::{ClusterFlags, Surroundings};
use self::extended::Extended;
use self::imported::Imported;
use self::local_cluster::LocalClusterFlags;
use self::number::{Number, at_least_one, decimal, integer};
use self::refused::Refused;
use crate::config::{
    Authentication, BackupConfig, Config, DEBUG_BUILD, Dialect, EVICTION_DEFAULT,
    ITEM_BYTES_CEILING, ITEM_BYTES_FLOOR, Inspection, IoChoice, Knobs, Listen, PORT_DEFAULT,
    ProcessConfig, Protection, TEST_CLOCK_VARIABLE, UnixSocket,
};
use crate::local_cluster::Plan;
use crate::process::EX_USAGE;

/// Names the file of passwords of `-S`, as for memcached.
const SASL_PASSWORD_FILE: &str = "MEMCACHED_SASL_PWDB";

/// The first word of a command line that asks for several servers.
const LOCAL_CLUSTER: &str = "local-cluster";

/// More threads than memcached thinks wise, and says so.
const THREADS_WISE: u32 = 64;

/// What `-V` tells, and `-h` and `-i` begin with. Scripts read the first line, to learn what they may
/// ask of the server: so it names the memcached that this one stands in for.
const VERSION: &str = concat!("memcached 1.6.45\ncache-server ", env!("CARGO_PKG_VERSION"), "\n");

/// What `-i` tells after that.
const LICENSE: &str = include_str!("../../LICENSE-MIT");

/// What to tell a user instead of serving: help, the version, or what is wrong with the flags.
#[derive(Debug)]
pub struct Answer {
    told: Told,
    exit_code: u8,
}

#[derive(Debug)]
enum Told {
    /// What was asked for.
    Text(String),
    /// What is wrong.
    Error(clap::Error),
}

impl Answer {
    /// Prints it where it belongs and returns the exit code: 0 for help and version, else memcached's.
    pub fn print(&self) -> ExitCode {
        // A closed terminal is no reason for another exit code.
        let _ = match &self.told {
            Told::Text(text) => io::stdout().lock().write_all(text.as_bytes()),
            Told::Error(error) => error.print(),
        };
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// What a command that memcached does not have is told: 64 for whatever is wrong.
    fn of_our_own(error: clap::Error) -> Self {
        if error.use_stderr() {
            Self { told: Told::Error(error), exit_code: EX_USAGE }
        } else {
            Self::text(error.render().to_string())
        }
    }

    fn text(text: String) -> Self {
        Self { told: Told::Text(text), exit_code: 0 }
    }

    fn refused(refused: &Refused) -> Self {
        let error = Flags::command().error(ErrorKind::ValueValidation, &refused.reason);
        Self { told: Told::Error(error), exit_code: refused.exit_code }
    }
}

impl From<clap::Error> for Answer {
    fn from(error: clap::Error) -> Self {
        let exit_code = match error.kind() {
            ErrorKind::DisplayHelp => return Self::text(format!("{VERSION}\n{}", error.render())),
            ErrorKind::DisplayVersion => return Self::text(VERSION.to_owned()),
            // A flag of our own without another one that it needs, or with one that it excludes.
            ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument => EX_USAGE,
            ErrorKind::ValueValidation => error
                .source()
                .and_then(|source| source.downcast_ref::<Refused>())
                .map_or(EX_USAGE, |refused| refused.exit_code),
            // No such flag, or no value for it.
            _ => Refused::failure("").exit_code,
        };
        Self { told: Told::Error(error), exit_code }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.told {
            Told::Text(text) => text.fmt(f),
            Told::Error(error) => error.fmt(f),
        }
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
        _ => {
            let program = arguments.first().cloned().unwrap_or_default();
            let mut config = parse(arguments)?;
            let variable = std::env::var_os(TEST_CLOCK_VARIABLE);
            config.inspection.test_clock =
                is_debug_build(&program) || variable.is_some_and(|value| value == "1");
            Ok(Command::Serve(Box::new(config)))
        }
    }
}

/// Whether the program was started by the name of memcached's debugging build, which suites of tests start where
/// they have a command that no other build has.
fn is_debug_build(program: &OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == DEBUG_BUILD)
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
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let flags = Flags::read(&arguments)?;
    if flags.license {
        return Err(Answer::text(format!("{VERSION}\n{LICENSE}")));
    }
    let Some(path) = flags.memcached_conf.clone() else {
        return flags.into_config(Imported::default()).map_err(|refused| Answer::refused(&refused));
    };
    let imported = imported::read(&path).map_err(|refused| Answer::refused(&refused))?;
    for line in &imported.lines {
        let words = line.arguments.iter().map(OsString::from);
        if let Err(refused) = Flags::read_line(words) {
            return Err(Answer::refused(&imported::at(&path, line.number, refused)));
        }
    }
    // What the command line says comes after what the file says, and wins; its addresses are all.
    let program = arguments.iter().take(1).cloned();
    let all = program.chain(imported.arguments()).chain(arguments.iter().skip(1).cloned());
    let mut merged = Flags::read(&all.collect::<Vec<_>>())?;
    if !flags.listen.is_empty() {
        merged.listen = flags.listen;
    }
    merged.into_config(imported).map_err(|refused| Answer::refused(&refused))
}

/// A memory cache that speaks memcached's protocol.
#[derive(Debug, Parser)]
#[command(
    name = "cache-server",
    version,
    infer_long_args = true,
    args_override_self = true,
    max_term_width = 100,
    after_help = AFTER_HELP
)]
struct Flags {
    /// TCP port to listen on; 0 is none, -1 any free one [default: 11211]
    #[arg(short, long, value_name = "NUM", value_parser = listen::parse_port_flag)]
    #[arg(alias = "po")]
    port: Option<Number<PortAsked>>,

    /// UDP port to listen on; 0 is none, -1 any free one. Without -p it is the TCP port as well
    #[arg(short = 'U', long, value_name = "NUM", default_value = "0", value_parser = listen::parse_port_flag)]
    udp_port: Number<PortAsked>,

    /// UNIX socket to listen on (disables TCP and UDP)
    #[arg(short = 's', long, value_name = "FILE")]
    unix_socket: Option<PathBuf>,

    /// Access mask for the UNIX socket, in octal
    #[arg(short = 'a', long, value_name = "MASK", default_value = "700", value_parser = parse_mode)]
    unix_mask: u32,

    /// Let clients stop the server (`shutdown`)
    #[arg(short = 'A', long)]
    enable_shutdown: bool,

    /// Where to listen; see `cli/listen.rs`.
    #[arg(short, long, value_name = "ADDR", action = ArgAction::Append, value_parser = listen::check_list)]
    #[arg(
        help = "Address to listen on: ADDR or ADDR:PORT, '*' for every one; may repeat or hold a list. \
        Before it may stand notls:, btls: or mtls:, then proto[ascii|binary|negotiating]:, then tag[NAME]: \
        [default: 127.0.0.1]"
    )]
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
    #[arg(short, long, value_name = "NUM", default_value = "64", value_parser = parse_mebibytes)]
    memory_limit: Number<usize>,

    /// Refuse writes when memory is full instead of evicting
    #[arg(short = 'M', long)]
    disable_evictions: bool,

    /// Which items leave when memory is full
    #[arg(long, value_name = "KIND", default_value = EVICTION_DEFAULT.name(), value_parser = parse_eviction)]
    eviction: eviction::Kind,

    /// Evict items whose keys begin with one of these last, and only for each other
    #[arg(long, value_name = "PREFIX,...", value_parser = parse_protected)]
    protect: Option<store::Protected>,

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
    #[arg(short, long, value_name = "NUM", default_value = "1024", value_parser = parse_connections)]
    conn_limit: Number<u32>,

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
    #[arg(short, long, value_name = "NUM", default_value = "4", value_parser = parse_threads)]
    threads: Number<u32>,

    /// Requests one connection has answered before others get their turn
    #[arg(short = 'R', long, value_name = "NUM", default_value = "20", value_parser = parse_requests)]
    max_reqs_per_event: Number<u32>,

    /// Connections that may wait to be accepted
    #[arg(short = 'b', long, value_name = "NUM", default_value = "1024", value_parser = integer)]
    listen_backlog: Number<i64>,

    /// Protocol of clients: ascii, binary, or auto for either
    #[arg(aliases = ["pr", "pro", "prot"])]
    #[arg(short = 'B', long, value_name = "NAME", value_parser = parse_protocol)]
    protocol: Option<Dialect>,

    /// Largest item: bytes, or with k, m or g
    #[arg(short = 'I', long, value_name = "SIZE", default_value = "1m", value_parser = parse_item_bytes)]
    max_item_size: Number<usize>,

    /// Have clients of the binary protocol say who they are (SASL)
    #[arg(short = 'S', long)]
    enable_sasl: bool,

    /// Have clients of the text protocol say who they are; FILE has user:password in each line
    #[arg(short = 'Y', long, value_name = "FILE", value_parser = parse_path, alias = "a")]
    auth_file: Option<PathBuf>,

    /// Speak TLS to clients
    #[arg(short = 'Z', long)]
    enable_ssl: bool,

    /// Refuse `flush_all`
    #[arg(short = 'F', long)]
    disable_flush_all: bool,

    /// Refuse `stats cachedump`, `stats detail`, `lru_crawler metadump` and `lru_crawler mgdump`
    #[arg(short = 'X', long)]
    disable_dumping: bool,

    /// Refuse `watch`
    #[arg(short = 'W', long)]
    disable_watch: bool,

    /// What ends the prefix of a key, by which `stats detail` counts; it counts from the start then
    #[arg(short = 'D', value_name = "CHAR", value_parser = parse_delimiter)]
    prefix_delimiter: Option<u8>,

    /// Extended options, comma separated; see below
    #[arg(short = 'o', long, value_name = "LIST", action = ArgAction::Append, value_parser = extended::check_list)]
    extended: Vec<String>,

    /// Take over the flags of a memcached from /etc/memcached.conf or /etc/sysconfig/memcached; those given
    /// here win
    #[arg(long, value_name = "FILE", value_parser = parse_path)]
    memcached_conf: Option<PathBuf>,

    /// What reads and writes clients' sockets: epoll, uring (Linux 6.1 and later), or auto for uring where the
    /// kernel lets it
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = parse_io)]
    io: IoChoice,

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

    /// Print the license
    #[arg(short = 'i', long)]
    license: bool,

    #[command(flatten)]
    meaningless: MeaninglessFlags,

    #[command(flatten)]
    cluster: ClusterFlags,

    /// Words that are no flags: memcached passes over them
    #[arg(hide = true)]
    words: Vec<OsString>,
}

/// Flags of memcached's that have no meaning here: read, checked, and told of in the log.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken and without effect here")]
struct MeaninglessFlags {
    /// Growth factor of slab classes
    #[arg(short = 'f', long, value_name = "NUM", value_parser = parse_growth_factor)]
    slab_growth_factor: Option<f64>,

    /// Smallest slab chunk
    #[arg(short = 'n', long, value_name = "BYTES", value_parser = parse_chunk_bytes)]
    slab_min_size: Option<Number<u32>>,

    /// Large memory pages
    #[arg(short = 'L', long)]
    enable_largepages: bool,

    /// Items without a cas
    #[arg(short = 'C', long)]
    disable_cas: bool,

    /// Threads chosen by the network card's queue
    #[arg(short = 'N', long, value_name = "NUM", value_parser = parse_napi_ids, alias = "n")]
    napi_ids: Option<Number<u32>>,
}

/// What `-p` or `-U` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortAsked {
    None,
    AnyFree,
    One(u16),
}

impl PortAsked {
    /// The port to bind; 0 is any free one.
    fn to_bind(self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::AnyFree => Some(0),
            Self::One(port) => Some(port),
        }
    }
}

impl fmt::Display for PortAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => 0.fmt(f),
            Self::AnyFree => (-1).fmt(f),
            Self::One(port) => port.fmt(f),
        }
    }
}

impl Flags {
    /// Reads a command line, its first word being the program's name.
    fn read(arguments: &[OsString]) -> Result<Self, Answer> {
        let matches = matches(arguments.iter().cloned())?;
        Self::from_arg_matches(&matches).map_err(Answer::from)
    }

    /// Checks the flags of one line of a file, as far as they can be without the others.
    fn read_line(words: impl Iterator<Item = OsString>) -> Result<(), Refused> {
        let program = OsString::from("cache-server");
        match matches([program].into_iter().chain(words)) {
            Err(Answer { told: Told::Error(error), exit_code }) => match error.kind() {
                ErrorKind::ArgumentConflict | ErrorKind::MissingRequiredArgument => Ok(()),
                _ => {
                    let text = error.to_string();
                    let reason = text.lines().next().unwrap_or_default();
                    let reason = reason.trim_start_matches("error: ").to_owned();
                    Err(Refused { exit_code, reason })
                }
            },
            _ => Ok(()),
        }
    }

    fn into_config(self, imported: Imported) -> Result<Config, Refused> {
        let authentication = self.authentication()?;
        let mut warnings = imported.warnings;
        for word in &self.words {
            let word = word.to_string_lossy();
            if word == LOCAL_CLUSTER {
                return Err(Refused::usage("local-cluster is only known as the first word"));
            }
            warnings.push(format!("{word:?} is no flag and means nothing"));
        }
        let mut extended = Extended::default();
        self.extended.iter().try_for_each(|list| extended.take(list))?;
        let threads = self.threads.take("-t", &mut warnings);
        self.meaningless.note(threads, &mut extended.knobs, &mut warnings)?;

        let mebibytes = self.memory_limit.take("-m", &mut warnings);
        let memory_bytes = mebibytes
            .checked_mul(1 << 20)
            .ok_or_else(|| Refused::usage("more memory than this machine can address"))?;
        let item_bytes_max = self.max_item_size.take("-I", &mut warnings);
        if item_bytes_max > memory_bytes / 2 {
            let reason = "Cannot set item size limit higher than 1/2 of memory max.";
            return Err(Refused::usage(reason));
        }
        extended.check(item_bytes_max)?;
        if threads > THREADS_WISE {
            warnings.push(format!(
                "-t {threads}: more threads than the machine has cores only get in each other's way"
            ));
        }

        let udp_port = self.udp_port.take("-U", &mut warnings);
        let port = self.port.map(|port| port.take("-p", &mut warnings));
        // As memcached: who names only a port for UDP means TCP as well.
        let port = port.unwrap_or(match udp_port {
            PortAsked::None => PortAsked::One(PORT_DEFAULT),
            udp => udp,
        });
        if self.enable_ssl && port == PortAsked::None {
            return Err(Refused::usage("-Z: TLS needs a TCP port, and -p asks for none"));
        }
        extended.knobs.socket_mode = self.unix_mask;
        let unix_socket =
            self.unix_socket.map(|path| UnixSocket { path: trimmed(path), mode: self.unix_mask });
        let (mut listen, mut udp) = (Vec::new(), Vec::new());
        if unix_socket.is_none() {
            listen = addresses(&self.listen, port, self.enable_ssl, &mut warnings)?;
            udp = addresses(&self.listen, udp_port, self.enable_ssl, &mut Vec::new())?;
            for place in listen.iter().chain(&udp) {
                check_dialect(place, &authentication)?;
            }
            if listen.is_empty() && udp.is_empty() {
                warnings.push("-p 0: nothing is served, as no other way in is asked for".into());
            }
        }
        let keeps_items = self.memory_file.is_some() || self.backup_file.is_some();
        let port = port.to_bind().unwrap_or(0);
        let surroundings = Surroundings { port, listen: &listen, keeps_items };
        let cluster = self.cluster.into_config(&surroundings)?;
        if cluster.is_some() && !udp.is_empty() {
            let reason = "-U: a node of a cluster cannot hold an answer back that is a datagram";
            return Err(Refused::usage(reason));
        }
        let holds_items = cluster.as_ref().is_none_or(|node| node.role == Role::Data);
        // What a witness has is as little as there can be.
        let memory_bytes = if holds_items { memory_bytes } else { 2 * item_bytes_max };
        let connections_max = self.conn_limit.take("-c", &mut warnings);
        let requests_per_turn = self.max_reqs_per_event.take("-R", &mut warnings);
        let backlog = self.listen_backlog.take("-b", &mut warnings);
        for (name, reason) in &extended.meaningless {
            warnings.push(format!("-o {name} does nothing here: {reason}"));
        }
        let inspection = Inspection {
            dumps: !self.disable_dumping,
            watches: !self.disable_watch,
            prefix_delimiter: self.prefix_delimiter.unwrap_or(b':'),
            counts_prefixes: self.prefix_delimiter.is_some(),
            ..extended.inspection.clone()
        };
        Ok(Config {
            listen,
            udp,
            unix_socket,
            // What is below 0 is as many as the system has, as there.
            backlog: u32::try_from(backlog).unwrap_or(i32::MAX.unsigned_abs()),
            tls: self.enable_ssl.then(|| extended.tls()),
            dialect: self.protocol.unwrap_or_default(),
            authentication,
            allows_shutdown: self.enable_shutdown,
            allows_flush: !self.disable_flush_all,
            memory_bytes,
            evicts: !self.disable_evictions,
            eviction: self.eviction,
            protected: self.protect.unwrap_or_default(),
            item_bytes_max,
            memory_file: self.memory_file,
            require_warm: self.require_warm,
            sync_interval: Duration::from_secs(self.sync_interval),
            io: self.io,
            connections_max: NonZeroU32::new(connections_max).unwrap_or(NonZeroU32::MIN),
            threads: NonZeroUsize::new(threads as usize).unwrap_or(NonZeroUsize::MIN),
            requests_per_turn: NonZeroU32::new(requests_per_turn).unwrap_or(NonZeroU32::MIN),
            live_curve: !self.no_live_curve,
            backup: self.backup_file.map(|file| BackupConfig {
                // The background changes the working directory.
                file: std::path::absolute(&file).unwrap_or(file),
                interval: Duration::from_secs(self.backup_interval.get()),
            }),
            verbosity: self.verbose,
            inspection,
            knobs: extended.knobs,
            warnings,
            limits: extended.limits,
            process: ProcessConfig {
                user: self.user,
                daemon: self.daemon,
                pid_file: self.pidfile,
                lock_memory: self.lock_memory,
                core_dumps: self.enable_coredumps,
                stop_with_parent: self.stop_with_parent,
            },
            cluster,
        })
    }

    /// What `-S` and `-Y` ask for. Each has a protocol of its own, and another is not to be asked for.
    fn authentication(&self) -> Result<Authentication, Refused> {
        let refuses = |dialect| self.protocol.is_some_and(|asked| asked != dialect);
        let has_udp = self.udp_port.value() != PortAsked::None;
        let reason = if self.enable_sasl && refuses(Dialect::Binary) {
            "-S: the text protocol has no SASL; -B binary goes with it"
        } else if self.auth_file.is_some() && (self.enable_sasl || refuses(Dialect::Text)) {
            "-Y: the binary protocol has no such users; -B ascii goes with it"
        } else if has_udp && (self.enable_sasl || self.auth_file.is_some()) {
            "-S, -Y: nobody can say who they are over UDP; -U does not go with it"
        } else if let Some(file) = &self.auth_file {
            return Ok(Authentication::File(file.clone()));
        } else if self.enable_sasl {
            let password_file = std::env::var_os(SASL_PASSWORD_FILE).map(PathBuf::from);
            return Ok(Authentication::Sasl { password_file });
        } else {
            return Ok(Authentication::None);
        };
        Err(Refused::usage(reason))
    }
}

impl MeaninglessFlags {
    fn note(
        self,
        threads: u32,
        knobs: &mut Knobs,
        warnings: &mut Vec<String>,
    ) -> Result<(), Refused> {
        let no_slabs = "memory is one log of segments, not slab classes";
        if let Some(factor) = self.slab_growth_factor {
            knobs.growth_factor = factor;
            warnings.push(format!("-f does nothing here: {no_slabs}"));
        }
        if let Some(bytes) = self.slab_min_size {
            knobs.chunk_bytes = bytes.take("-n", warnings);
            warnings.push(format!("-n does nothing here: {no_slabs}"));
        }
        if self.enable_largepages {
            warnings.push("-L does nothing here: large pages are asked for without it".into());
        }
        if self.disable_cas {
            knobs.cas = false;
            warnings.push("-C does nothing here: an item's cas takes no room of its own".into());
        }
        if let Some(ids) = self.napi_ids {
            let ids = ids.take("-N", warnings);
            if ids > threads {
                let reason =
                    format!("-N {ids}: there are only {threads} threads to choose from (-t)");
                return Err(Refused::usage(reason));
            }
            knobs.napi_ids = ids;
            warnings.push("-N does nothing here: the kernel spreads clients over threads".into());
        }
        Ok(())
    }
}

/// The places that the `lists` of `-l` name, at `port` where they name none.
fn addresses(
    lists: &[String],
    port: PortAsked,
    has_tls: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Listen>, Refused> {
    let Some(port) = port.to_bind() else { return Ok(Vec::new()) };
    if lists.is_empty() {
        return Ok(vec![Listen::loopback(port)]);
    }
    let mut places = Vec::new();
    for list in lists {
        for address in listen::parse_list(list, port)? {
            if address.listen.protection != Protection::Usual && !has_tls {
                let reason = "-l: notls:, btls: and mtls: go only with -Z";
                return Err(Refused::address(reason));
            }
            if address.is_tagged {
                warnings.push(format!("-l {list}: a tag does nothing here: there is no proxy"));
            }
            // Named twice it is still served once.
            if !places.contains(&address.listen) {
                places.push(address.listen);
            }
        }
    }
    Ok(places)
}

/// Whoever has to authenticate does so in one dialect: a place where another is spoken would let everybody
/// in.
fn check_dialect(place: &Listen, authentication: &Authentication) -> Result<(), Refused> {
    let reason = match (authentication, place.dialect) {
        (Authentication::File(_), Some(Dialect::Binary)) => {
            "-l: proto[binary] does not go with -Y: the binary protocol has no such users"
        }
        (Authentication::Sasl { .. }, Some(Dialect::Text | Dialect::Auto)) => {
            "-l: with -S only proto[binary] is spoken: the text protocol has no SASL"
        }
        _ => return Ok(()),
    };
    Err(Refused::address(reason))
}

/// Reads a command line as `getopt_long` does: a flag's value may begin with `-`, `--verbose` may have one
/// that means nothing.
fn matches(arguments: impl Iterator<Item = OsString>) -> Result<ArgMatches, Answer> {
    let arguments =
        arguments.map(|word| match word.to_str().and_then(|word| word.split_once('=')) {
            Some((name, _)) if name.len() > "--ver".len() && "--verbose".starts_with(name) => {
                OsString::from("--verbose")
            }
            _ => word,
        });
    Ok(Flags::command().mut_args(value_may_begin_with_a_hyphen).try_get_matches_from(arguments)?)
}

fn value_may_begin_with_a_hyphen(arg: clap::Arg) -> clap::Arg {
    let takes_value = arg.get_action().takes_values() && !arg.is_positional();
    arg.allow_hyphen_values(takes_value)
}

/// A number as our own flags take it, perhaps after a space.
fn parse_number<N>(text: &str) -> Result<N, String>
where
    N: FromStr,
    N::Err: ToString,
{
    text.trim().parse().map_err(|error: N::Err| error.to_string())
}

fn parse_connections(text: &str) -> Result<Number<u32>, Refused> {
    at_least_one(text, "Maximum connections must be greater than 0")
}

fn parse_threads(text: &str) -> Result<Number<u32>, Refused> {
    at_least_one(text, "Number of threads must be greater than 0")
}

fn parse_requests(text: &str) -> Result<Number<u32>, Refused> {
    at_least_one(text, "Number of requests per event must be greater than 0")
}

fn parse_chunk_bytes(text: &str) -> Result<Number<u32>, Refused> {
    at_least_one(text, "Chunk size must be greater than 0")
}

fn parse_napi_ids(text: &str) -> Result<Number<u32>, Refused> {
    at_least_one(text, "Maximum number of NAPI IDs must be greater than 0")
}

fn parse_growth_factor(text: &str) -> Result<f64, Refused> {
    match decimal(text) {
        factor if factor > 1.0 => Ok(factor),
        _ => Err(Refused::failure("Factor must be greater than 1")),
    }
}

fn parse_delimiter(text: &str) -> Result<u8, Refused> {
    text.bytes().next().ok_or_else(|| Refused::failure("No delimiter specified"))
}

fn parse_protocol(text: &str) -> Result<Dialect, Refused> {
    match text.trim_start() {
        "auto" => Ok(Dialect::Auto),
        "ascii" => Ok(Dialect::Text),
        "binary" => Ok(Dialect::Binary),
        _ => Err(Refused::usage("should be one of auto, binary, or ascii")),
    }
}

fn parse_io(text: &str) -> Result<IoChoice, Refused> {
    match text.trim_start() {
        "auto" => Ok(IoChoice::Auto),
        "epoll" => Ok(IoChoice::Epoll),
        "uring" => Ok(IoChoice::Uring),
        _ => Err(Refused::usage("should be one of auto, epoll, or uring")),
    }
}

fn parse_mebibytes(text: &str) -> Result<Number<usize>, Refused> {
    let number = integer(text)?;
    match usize::try_from(number.value()) {
        Ok(mebibytes @ 1..) => Ok(number.map(|_| mebibytes)),
        _ => Err(Refused::usage("memory is a number of mebibytes, at least 1")),
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    // Bits beyond those of access are dropped, as memcached drops them.
    u32::from_str_radix(text.trim(), 8)
        .map(|mode| mode & 0o777)
        .map_err(|_| "an access mask is octal digits, such as 700".into())
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

fn parse_protected(text: &str) -> Result<store::Protected, String> {
    let prefixes = parse_prefixes(text)?;
    Ok(store::Protected::prefixes(prefixes.split(',').map(str::as_bytes)))
}

/// A list of what keys may begin with.
fn parse_prefixes(text: &str) -> Result<String, String> {
    let is_fit = |prefix: &str| {
        (1..=KEY_BYTES_MAX).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte > b' ' && byte != 0x7f)
    };
    match text.split(',').find(|prefix| !is_fit(prefix)) {
        Some(prefix) => Err(format!("no key begins with {prefix:?}")),
        None => Ok(text.to_owned()),
    }
}

fn parse_eviction(text: &str) -> Result<eviction::Kind, String> {
    let wanted = text.trim();
    eviction::Kind::ALL.into_iter().find(|kind| kind.name() == wanted).ok_or_else(|| {
        let names = eviction::Kind::ALL.map(eviction::Kind::name).join(", ");
        format!("known are {names}")
    })
}

fn parse_item_bytes(text: &str) -> Result<Number<usize>, Refused> {
    let text = text.trim();
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number = integer(digits)?;
    let count = usize::try_from(number.value()).unwrap_or(0);
    let bytes = count.saturating_mul(unit);
    if bytes < ITEM_BYTES_FLOOR {
        return Err(Refused::usage("Item max size cannot be less than 1024 bytes."));
    }
    if bytes > ITEM_BYTES_CEILING {
        return Err(Refused::usage("Cannot set item size limit higher than a gigabyte."));
    }
    Ok(number.map(|_| bytes))
}

/// What `-h` tells after the flags.
const AFTER_HELP: &str = "\
Extended options (-o), as memcached has them:
  no_maxconns_fast      let clients beyond -c wait, rather than refuse them at once
  idle_timeout=SECS     close clients that were silent for so long [default: 0, never]
  read_buf_mem_limit=MB what the buffers of all connections may take together [default: 32]
  watcher_logbuf_size=KB, worker_logbuf_size=KB
                        what a watcher may be behind, and what a worker may have to tell
  maxconns_fast, track_sizes, modern, no_drop_privileges
                        taken, and so anyway
All others that memcached knows (hashpower, slab_*, lru_*, drop_privileges, ...) are taken and
checked, and do nothing here; the log says why.

`cache-server local-cluster --help` tells how to try out a cluster on this machine.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BACKUP_INTERVAL_DEFAULT, PROTOCOL_VERSION};

    fn config(arguments: &[&str]) -> Config {
        try_config(arguments).unwrap_or_else(|answer| panic!("{arguments:?}: {}", answer))
    }

    fn try_config(arguments: &[&str]) -> Result<Config, Answer> {
        parse([&["cache-server"], arguments].concat())
    }

    #[test]
    fn io_is_chosen_by_name_and_automatic_otherwise() {
        assert_eq!(config(&[]).io, IoChoice::Auto);
        for (name, choice) in
            [("auto", IoChoice::Auto), ("epoll", IoChoice::Epoll), ("uring", IoChoice::Uring)]
        {
            assert_eq!(config(&["--io", name]).io, choice);
        }
        assert_eq!(try_config(&["--io", "kqueue"]).unwrap_err().exit_code(), 64);
    }

    #[test]
    fn the_name_of_memcacheds_debugging_build_opens_the_clock_and_no_other_does() {
        let opens = |program: &str| match parse_command([program.into()]) {
            Ok(Command::Serve(config)) => config.inspection.test_clock,
            other => panic!("{program}: {other:?}"),
        };
        assert!(opens("memcached-debug"));
        assert!(opens("/builds/memcached-debug"));
        assert!(!opens("memcached"));
        assert!(!opens("/memcached-debug/cache-server"));
    }

    fn exit_code(arguments: &[&str]) -> u8 {
        try_config(arguments).expect_err("not a server to run").exit_code()
    }

    fn listen(host: &str, port: u16) -> Listen {
        Listen::new(Some(host.to_owned()), port)
    }

    const MIB: usize = 1 << 20;

    #[test]
    fn no_flag_gives_the_defaults() {
        let parsed = config(&[]);
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
        assert_eq!(parsed.listen, [listen("127.0.0.1", PORT_DEFAULT)], "this machine alone");
    }

    #[test]
    fn help_version_and_license_are_no_failures_and_name_a_memcached_first() {
        for flag in ["-h", "--help", "-V", "--version", "-i", "--license"] {
            let answer = try_config(&[flag]).unwrap_err();
            assert_eq!(answer.exit_code(), 0, "{flag}");
            let text = answer.to_string();
            let lines: Vec<_> = text.lines().take(2).collect();
            assert_eq!(lines[0], "memcached 1.6.45", "{flag}");
            assert!(lines[1].starts_with("cache-server 0."), "{flag}: {lines:?}");
        }
        assert!(VERSION.contains(PROTOCOL_VERSION));
        let help = try_config(&["-h"]).unwrap_err().to_string();
        for word in ["unix-socket", "enable-ssl", "sasl", "no_drop_privileges"] {
            assert!(help.contains(word), "{word}");
        }
        for word in ["ext_path", "proxy_config"] {
            assert!(!help.contains(word), "{word} is what harnesses take for a feature");
        }
    }

    /// What memcached 1.6.45 was seen to exit with; 0 where it serves.
    const EXIT_CODES: &[(&[&str], u8)] = &[
        (&["-Q"], 1),
        (&["--no-such"], 1),
        (&["--no-such=5"], 1),
        (&["--daemon=x"], 1),
        (&["--me=1"], 1),
        (&["-m"], 1),
        (&["--memory-limit"], 1),
        (&["-c", "0"], 1),
        (&["-c", "-1"], 1),
        (&["-c", "x"], 1),
        (&["-t", "0"], 1),
        (&["-t", "x"], 1),
        (&["-t", "-3"], 1),
        (&["-t", "65"], 0),
        (&["-R", "0"], 1),
        (&["-R", "x"], 1),
        (&["-b", "0"], 0),
        (&["-b", "-1"], 0),
        (&["-m", "0"], 64),
        (&["-m", "x"], 64),
        (&["-m", "1"], 64),
        (&["-m", "2"], 0),
        (&["-m", "64m"], 0),
        (&["-m 100"], 0),
        (&["-p", "70000"], 64),
        (&["-p", "-1"], 0),
        (&["-p", "0"], 0),
        (&["-p", "-2"], 71),
        (&["-p", "65535"], 0),
        (&["-U", "70000"], 64),
        (&["-U", "-1"], 0),
        (&["-B", "http"], 64),
        (&["-B", "auto"], 0),
        (&["-B", "ascii"], 0),
        (&["-B", "binary"], 0),
        (&["-f", "1"], 1),
        (&["-f", "0.5"], 1),
        (&["-f", "x"], 1),
        (&["-f", "1.01"], 0),
        (&["-n", "0"], 1),
        (&["-n", "-1"], 1),
        (&["-n", "x"], 1),
        (&["-n", "48"], 0),
        (&["-D", ""], 1),
        (&["-D", ":"], 0),
        (&["-L"], 0),
        (&["-C"], 0),
        (&["-F"], 0),
        (&["-X"], 0),
        (&["-W"], 0),
        (&["-A"], 0),
        (&["-S"], 0),
        (&["-S", "-B", "binary"], 0),
        (&["-S", "-B", "ascii"], 64),
        (&["-S", "-B", "auto"], 64),
        (&["-S", "-U", "11212"], 64),
        (&["-Y", "f"], 0),
        (&["-Y", "f", "-B", "ascii"], 0),
        (&["-Y", "f", "-B", "binary"], 64),
        (&["-Y", "f", "-S"], 64),
        (&["-Y", "f", "-U", "11212"], 64),
        (&["-N", "0"], 1),
        (&["-N", "x"], 1),
        (&["-N", "1"], 0),
        (&["-N", "5"], 64),
        (&["-I", "1023"], 64),
        (&["-I", "x"], 64),
        (&["-I", ""], 64),
        (&["-I", "512k"], 0),
        (&["-I", "1.5m"], 0),
        (&["-I", "33m"], 64),
        (&["-I", "32m"], 0),
        (&["-I", "1024m", "-m", "4096"], 0),
        (&["-I", "1025m", "-m", "4096"], 64),
        (&["-a", "7777"], 0),
        (&["-l", ":24002"], 71),
        (&["-l", "127.0.0.1:x"], 71),
        (&["-l", "127.0.0.1:"], 71),
        (&["-l", "[::1"], 71),
        (&["-l", "notls:127.0.0.1"], 71),
        (&["-l", "proto[proxy]:127.0.0.1"], 71),
        (&["-l", "proto[:127.0.0.1"], 71),
        (&["-l", "tag[]:127.0.0.1"], 71),
        (&["-l", "tag[abc:127.0.0.1"], 71),
        (&["-Y", "/dev/null", "-l", "proto[binary]:127.0.0.1"], 71),
        (&["-l", "127.0.0.1,"], 0),
        (&["-l", "127.0.0.1;127.0.0.2"], 0),
        (&["-o", "foo"], 1),
        (&["-o", "hot_lru_pct=79"], 64),
        (&["-o", "slab_chunk_max=512", "-I", "256k"], 64),
        (&["--verbose=3"], 0),
        (&["foo"], 0),
        (&["foo", "-c", "0"], 1),
        (&["--", "-c", "0"], 0),
    ];

    #[test]
    fn exit_codes_are_those_of_memcached() {
        for (arguments, code) in EXIT_CODES {
            let answer = try_config(arguments).err();
            let seen = answer.as_ref().map_or(0, Answer::exit_code);
            assert_eq!(seen, *code, "{arguments:?}: {answer:?}");
        }
    }

    #[test]
    fn no_address_lets_in_whom_another_asks_for_a_password() {
        for protocol in ["ascii", "negotiating"] {
            let place = format!("proto[{protocol}]:127.0.0.1");
            let answer = try_config(&["-S", "-l", &place]).unwrap_err();
            assert_eq!(answer.exit_code(), 71, "{place}: {answer}");
        }
        assert!(try_config(&["-S", "-l", "proto[binary]:127.0.0.1"]).is_ok());
    }

    /// memcached's long names.
    const LONG_NAMES: &[&str] = &[
        "unix-mask",
        "enable-shutdown",
        "enable-ssl",
        "port",
        "unix-socket",
        "udp-port",
        "memory-limit",
        "disable-evictions",
        "conn-limit",
        "lock-memory",
        "help",
        "license",
        "version",
        "enable-coredumps",
        "verbose",
        "daemon",
        "listen",
        "user",
        "pidfile",
        "slab-growth-factor",
        "slab-min-size",
        "threads",
        "enable-largepages",
        "max-reqs-per-event",
        "disable-cas",
        "listen-backlog",
        "protocol",
        "max-item-size",
        "enable-sasl",
        "disable-flush-all",
        "disable-dumping",
        "disable-watch",
        "auth-file",
        "memory-file",
        "extended",
        "napi-ids",
    ];

    #[test]
    fn names_that_are_unique_in_memcached_are_unique_here() {
        for name in LONG_NAMES {
            for end in 1..=name.len() {
                let cut = &name[..end];
                if LONG_NAMES.iter().filter(|other| other.starts_with(cut)).count() > 1 {
                    continue;
                }
                for words in [vec![format!("--{cut}")], vec![format!("--{cut}"), "1".into()]] {
                    let program = ["cache-server".into()].into_iter().chain(words);
                    let Err(Answer { told: Told::Error(error), .. }) =
                        matches(program.map(OsString::from))
                    else {
                        continue;
                    };
                    assert_ne!(error.kind(), ErrorKind::UnknownArgument, "--{cut}: {error}");
                }
            }
        }
    }

    #[test]
    fn what_does_nothing_is_told_once() {
        let parsed = config(&["-f", "1.1", "-n", "64", "-L", "-C", "-N", "2", "-m", "64m", "word"]);
        let begins = ["\"word\"", "-f ", "-n ", "-L ", "-C ", "-N ", "-m 64m: read as 64"]
            .map(str::to_owned);
        assert_eq!(parsed.warnings.len(), begins.len(), "{:?}", parsed.warnings);
        for begin in begins {
            let told = |warning: &String| warning.starts_with(&begin);
            assert_eq!(
                parsed.warnings.iter().filter(|warning| told(warning)).count(),
                1,
                "{begin}"
            );
        }
        assert_eq!(config(&["-o", "modern,maxconns_fast", "-t2"]).warnings, [""; 0]);
        let twice = config(&["-o", "hashpower=20", "-o", "hashpower=21,idle_timeout=7"]);
        assert_eq!(twice.warnings.len(), 1, "{:?}", twice.warnings);
        assert_eq!(twice.limits.idle_timeout, Some(Duration::from_secs(7)));
        assert_eq!(twice.knobs.hash_power, 21);
    }

    #[test]
    fn a_value_may_begin_with_a_hyphen() {
        assert_eq!(config(&["-P", "-v"]).process.pid_file, Some("-v".into()));
        assert_eq!(config(&["-P", "-v"]).verbosity, 0);
        assert_eq!(config(&["-p", "-1", "-v"]).verbosity, 1);
    }

    #[test]
    fn udp_goes_where_tcp_goes_and_brings_tcp_along() {
        let places = |arguments: &[&str]| {
            let Config { listen, udp, .. } = config(arguments);
            let ports = |places: Vec<Listen>| places.iter().map(|at| at.port).collect::<Vec<_>>();
            (ports(listen), ports(udp))
        };
        assert_eq!(places(&[]), (vec![11211], vec![]));
        assert_eq!(places(&["-U", "11222"]), (vec![11222], vec![11222]));
        assert_eq!(places(&["-U", "-1"]), (vec![0], vec![0]));
        assert_eq!(places(&["-p", "0"]), (vec![], vec![]));
        assert_eq!(places(&["-p", "0", "-U", "7"]), (vec![], vec![7]));
        assert_eq!(places(&["-p", "6", "-U", "7"]), (vec![6], vec![7]));
        assert_eq!(places(&["-l", "a,b:9", "-p6", "-U7"]), (vec![6, 9], vec![7, 9]));
        assert_eq!(places(&["-s", "sock", "-U7"]), (vec![], vec![]));
    }

    #[test]
    fn tls_has_its_certificate_its_addresses_and_a_port() {
        let chain = "ssl_chain_cert=chain.pem,ssl_key=key.pem";
        let Config { tls, listen, .. } = config(&["-Z", "-o", chain, "-l", "a,notls:b,mtls:c:7"]);
        let tls = tls.expect("-Z asks for it");
        assert_eq!((tls.chain, tls.key), (Some("chain.pem".into()), Some("key.pem".into())));
        let protections: Vec<_> = listen.iter().map(|at| at.protection).collect();
        assert_eq!(protections, [Protection::Usual, Protection::Plain, Protection::Mutual]);
        assert_eq!(config(&["-o", chain]).tls, None);
        assert_eq!(exit_code(&["-Z", "-p", "0"]), 64);
    }

    #[test]
    fn commands_are_switched_on_and_off() {
        let switches = config(&["-AFXW", "-D", "::"]);
        assert!(switches.allows_shutdown && !switches.allows_flush);
        assert!(!switches.inspection.dumps && !switches.inspection.watches);
        assert!(switches.inspection.counts_prefixes);
        let defaults = config(&[]);
        assert!(!defaults.allows_shutdown && defaults.allows_flush);
        assert_eq!(defaults.inspection, Inspection::default());
    }

    #[test]
    fn a_file_of_memcacheds_is_taken_over_and_the_command_line_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memcached.conf");
        std::fs::write(&path, "-d\n-m 128\n-p 11311\n-u memcache\n-l 10.0.0.1,10.0.0.2\n-c 5\n")
            .unwrap();
        let file = path.to_str().unwrap();
        let parsed = config(&["--memcached-conf", file]);
        assert_eq!(parsed.memory_bytes, 128 * MIB);
        assert_eq!(parsed.listen, [listen("10.0.0.1", 11311), listen("10.0.0.2", 11311)]);
        assert_eq!(parsed.process.user.as_deref(), Some("memcache"));
        assert!(!parsed.process.daemon, "that is the service manager's");
        let parsed = config(&["-m 256", "-l::1", "-o", "idle_timeout=1", "--memcached-conf", file]);
        assert_eq!(parsed.memory_bytes, 256 * MIB);
        assert_eq!(parsed.listen, [listen("::1", 11311)]);
        assert_eq!(parsed.connections_max.get(), 5);

        std::fs::write(&path, "# c\n-m 64\n-c 0\n").unwrap();
        let answer = try_config(&["--memcached-conf", file]).unwrap_err();
        assert_eq!(answer.exit_code(), 1);
        assert!(answer.to_string().contains("memcached.conf:3: "), "{answer}");
        let answer = try_config(&["--memcached-conf", "/nonexistent"]).unwrap_err();
        assert_eq!(answer.exit_code(), 64);
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
            assert_eq!(config(&["-l", every]).listen, [Listen::new(None, PORT_DEFAULT)]);
        }
        for wrong in ["", "[::1", "[::1]8", "host:port", ":7"] {
            assert_eq!(exit_code(&["-l", wrong]), 71, "{wrong:?}");
        }
        let twice = config(&["-l", "10.0.0.1", "-l", "10.0.0.1"]);
        assert_eq!(twice.listen.len(), 1);
    }

    #[test]
    fn any_free_port_is_memcacheds_minus_1() {
        for arguments in [&["-p-1"][..], &["-p", "-1"], &["-p -1"], &["--port=-1"]] {
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
            ("99999999999999999999m", "more than memcached can count"),
            ("m", "no number"),
        ] {
            let answer = try_config(&["-I", text]).unwrap_err();
            assert!(answer.to_string().contains(reason), "{text}: {}", answer);
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
    fn prefixes_are_protected_that_keys_can_begin_with() {
        assert!(config(&[]).protected.is_none());
        let protected = config(&["--protect", "session:,cart:"]).protected;
        assert!(protected.covers(b"session:1") && protected.covers(b"cart:2"));
        assert!(!protected.covers(b"page:3"));
        let too_long = "k".repeat(KEY_BYTES_MAX + 1);
        for refused in ["", "session:,", "a b", "\t", &too_long] {
            let answer = try_config(&["--protect", refused]).unwrap_err();
            assert!(answer.to_string().contains("no key begins with"), "{answer}");
        }
    }

    #[test]
    fn every_policy_can_be_asked_for() {
        for kind in eviction::Kind::ALL {
            assert_eq!(config(&["--eviction", kind.name()]).eviction, kind);
        }
        let answer = try_config(&["--eviction=random"]).unwrap_err();
        assert!(answer.to_string().contains("known are"), "{}", answer);
    }
}
