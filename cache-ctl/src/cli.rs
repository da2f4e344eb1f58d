//! Flags into what they ask for, and the doing of it.
//!
//! Some subcommands ask a server, in memcached's protocol (`--server`), others a cluster, at the admin port
//! of one of its nodes (`--node`).

mod cluster;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use indicatif::ProgressBar;
use protocol::Key;

use self::cluster::ClusterCommand;
use crate::admin::Admin;
use crate::connection::Connection;
use crate::dump::{self, Format};
use crate::new_file::NewFile;
use crate::{backup, mrc, output, progress, restore};

/// The exit code for a command line that cannot be obeyed, `EX_USAGE` of `sysexits.h`.
const EXIT_USAGE: u8 = 64;
/// The server, if none is named.
const SERVER_DEFAULT: &str = "127.0.0.1:11211";
/// The node, if none is named.
const NODE_DEFAULT: &str = "127.0.0.1:11311";

/// What to tell a user instead of doing something: help, the version, or what is wrong with the
/// flags.
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
        if self.0.use_stderr() { EXIT_USAGE } else { 0 }
    }
}

/// Reads a command line, its first word being the program's name.
///
/// # Errors
///
/// When help or the version is asked for, or a flag cannot be obeyed.
pub fn parse<I, T>(arguments: I) -> Result<Cli, Answer>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = Cli::try_parse_from(arguments).map_err(Answer)?;
    match cli.flag_for_nothing() {
        None => Ok(cli),
        Some(reason) => Err(Answer(Cli::command().error(ErrorKind::ArgumentConflict, reason))),
    }
}

/// Looks after running cache servers and clusters of them.
#[derive(Debug, Parser)]
#[command(name = "cache-ctl", version, max_term_width = 100)]
pub struct Cli {
    /// The server for backup, restore, dump and mrc: HOST:PORT, or the path of its UNIX socket [default:
    /// 127.0.0.1:11211]
    #[arg(long, global = true, value_name = "ADDR")]
    server: Option<String>,

    /// The node of a cluster for all others, and for mrc: its admin port, HOST:PORT [default:
    /// 127.0.0.1:11311]
    #[arg(long, global = true, value_name = "ADDR")]
    node: Option<String>,

    /// Print what the node says as JSON
    #[arg(long, global = true)]
    json: bool,

    /// How many seconds one answer may take
    #[arg(long, global = true, value_name = "SECS", default_value = "10", value_parser = parse_seconds)]
    timeout: Duration,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a server's items to a file, while it serves
    Backup(BackupArgs),
    /// Put the items of a backup into a server, while it serves
    Restore(RestoreArgs),
    /// Print items as text, of a server or of a backup
    Dump(DumpArgs),
    /// Show what a running server would hit with more memory, and with less, told from its traffic
    Mrc,
    #[command(flatten)]
    Cluster(ClusterCommand),
}

/// Flags of `cache-ctl backup`.
#[derive(Debug, Args)]
struct BackupArgs {
    /// Where to; what is there already is replaced when the backup is whole. `-` is standard output
    file: PathBuf,

    /// Only items whose keys begin with PREFIX
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    prefix: Option<String>,
}

/// Flags of `cache-ctl restore`.
#[derive(Debug, Args)]
struct RestoreArgs {
    /// The backup; `-` is standard input
    file: PathBuf,

    /// Only items whose keys begin with PREFIX
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    prefix: Option<String>,

    /// Leave what the server holds where that is newer than the backup, or where the backup is of
    /// another cache
    #[arg(long)]
    keep_newer: bool,
}

/// Flags of `cache-ctl dump`.
#[derive(Debug, Args)]
struct DumpArgs {
    /// A backup to read instead of a server; `-` is standard input
    file: Option<PathBuf>,

    /// How items are printed
    #[arg(long, value_enum)]
    format: Format,

    /// Only items whose keys begin with PREFIX
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    prefix: Option<String>,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    ///
    /// When it cannot be done, or not to the end.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let done = match &self.command {
            // Half a backup is none: for it a pipe that nobody reads is an error.
            Command::Backup(args) => args.run(&mut self.connect()?),
            Command::Restore(args) => args.run(&mut self.connect()?),
            Command::Dump(args) => or_seen_enough(args.run(|| self.connect()), ()),
            Command::Mrc => or_seen_enough(self.show_curve(), ()),
            Command::Cluster(command) => {
                let node = self.node.as_deref().unwrap_or(NODE_DEFAULT);
                let outcome = command.run(node, self.timeout, self.json, &mut io::stdout().lock());
                return or_seen_enough(outcome, ExitCode::SUCCESS);
            }
        };
        done.map(|()| ExitCode::SUCCESS)
    }

    /// What is wrong with flags that the subcommand has no use for.
    fn flag_for_nothing(&self) -> Option<&'static str> {
        match self.command {
            Command::Cluster(_) if self.server.is_some() => {
                Some("--server: a cluster is asked at the admin port of a node, see --node")
            }
            Command::Cluster(_) => None,
            Command::Mrc if self.server.is_some() && self.node.is_some() => {
                Some("--node: one of them is asked, the server or the node")
            }
            Command::Mrc => None,
            _ if self.node.is_some() => {
                Some("--node: items are asked of a server and not of an admin port, see --server")
            }
            _ if self.json => {
                Some("--json: only mrc and what a cluster says are JSON; dump has --format")
            }
            _ => None,
        }
    }

    /// Asks for the curve of a server or a node, and writes it.
    fn show_curve(&self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        let (curve, json) = match &self.node {
            Some(node) => {
                let said = mrc::ask_node(&Admin::at(node, self.timeout))?;
                (said.read, said.json)
            }
            None => {
                let told = mrc::ask_server(&mut self.connect()?)?;
                let curve = told.context("the server keeps no curve: it runs --no-live-curve")?;
                let json = serde_json::to_value(&curve)?;
                (curve, json)
            }
        };
        if self.json {
            Ok(output::json(&mut out, &json)?)
        } else {
            Ok(mrc::write(&mut out, &curve)?)
        }
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        let server = self.server.as_deref().unwrap_or(SERVER_DEFAULT);
        Ok(Connection::open(server, self.timeout)?)
    }
}

impl BackupArgs {
    fn run(&self, server: &mut Connection) -> anyhow::Result<()> {
        let prefix = bytes_of(self.prefix.as_ref());
        let bar = progress::of_items("backup", prefix.is_empty().then_some(0));
        let totals = if self.file == Path::new("-") {
            backup::back_up(server, prefix, io::stdout().lock(), &bar)?.1
        } else {
            let cannot_write = || format!("cannot write {}", self.file.display());
            let file = NewFile::begin(&self.file).with_context(cannot_write)?;
            let totals = backup::back_up(server, prefix, file.file(), &bar)?.1;
            file.commit().with_context(cannot_write)?;
            totals
        };
        bar.finish_and_clear();
        Ok(backup::summarise(totals, &bar)?)
    }
}

impl RestoreArgs {
    fn run(&self, server: &mut Connection) -> anyhow::Result<()> {
        let (input, bar) = open(&self.file, "restore")?;
        let prefix = bytes_of(self.prefix.as_ref()).to_vec();
        let plan = restore::Plan { prefix, keep_newer: self.keep_newer };
        let restored = restore::restore(server, input, &plan, &bar)
            .with_context(|| self.file.display().to_string())?;
        bar.finish_and_clear();
        restore::summarise(restored, &bar)?;
        if restored.refused > 0 {
            let refused = restored.refused;
            bail!("{refused} items were refused: the server takes none of their size, or is full");
        }
        Ok(())
    }
}

impl DumpArgs {
    fn run(&self, connect: impl FnOnce() -> anyhow::Result<Connection>) -> anyhow::Result<()> {
        let prefix = bytes_of(self.prefix.as_ref());
        let out = BufWriter::new(io::stdout().lock());
        let bar = match &self.file {
            None => {
                let bar = progress::of_items("dump", prefix.is_empty().then_some(0));
                dump::dump_server(&mut connect()?, prefix, self.format, out, &bar)?;
                bar
            }
            Some(file) => {
                let (input, bar) = open(file, "dump")?;
                dump::dump_file(input, prefix, self.format, out, &bar)
                    .with_context(|| file.display().to_string())?;
                bar
            }
        };
        bar.finish_and_clear();
        Ok(())
    }
}

/// `outcome`, or `enough` if whoever reads the output has seen enough of it.
fn or_seen_enough<T>(outcome: anyhow::Result<T>, enough: T) -> anyhow::Result<T> {
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(enough),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_broken)
}

/// A file to read, with a bar as long as it.
fn open(path: &Path, what: &'static str) -> anyhow::Result<(Box<dyn Read>, ProgressBar)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), progress::of_bytes(what, None)));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|it| it.len());
    Ok((Box::new(file), progress::of_bytes(what, bytes)))
}

fn bytes_of(prefix: Option<&String>) -> &[u8] {
    prefix.map_or(b"", |prefix| prefix.as_bytes())
}

fn parse_prefix(text: &str) -> Result<String, String> {
    match Key::new(text.as_bytes()) {
        Some(key) if key.is_token() => Ok(text.to_owned()),
        Some(_) => Err("a prefix has no spaces and no line ends, as a key has none".into()),
        None => Err("a prefix has 1 to 250 bytes, as a key has".into()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| "more than 0 and less than for ever".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_code(arguments: &[&str]) -> u8 {
        parse([&["cache-ctl"], arguments].concat()).map_or_else(|answer| answer.exit_code(), |_| 0)
    }

    #[test]
    fn bad_usage_is_64_and_help_is_no_failure() {
        assert_eq!(exit_code(&["--help"]), 0);
        assert_eq!(exit_code(&["backup", "f", "--server", "h:1", "--timeout", "0.5"]), 0);
        assert_eq!(exit_code(&["--node", "h:1", "move", "7", "--to", "2,1", "--json"]), 0);
        assert_eq!(exit_code(&["mrc", "--json", "--server", "h:1"]), 0);
        assert_eq!(exit_code(&["mrc", "--node", "h:1"]), 0);
        for arguments in [
            &[][..],
            &["copy"],
            &["backup"],
            &["backup", "f", "g"],
            &["backup", "f", "--prefix", ""],
            &["backup", "f", "--prefix", "a b"],
            &["dump"],
            &["dump", "--format", "xml"],
            &["restore", "f", "--timeout", "0"],
            &["restore", "f", "--timeout", "soon"],
            &["backup", "f", "--node", "h:1"],
            &["mrc", "--node", "h:1", "--server", "h:2"],
            &["backup", "f", "--json"],
            &["status", "--server", "h:1"],
            &["locate"],
            &["locate", ""],
            &["drain"],
            &["drain", "0"],
            &["drain", "one"],
            &["move", "7"],
            &["move", "70000", "--to", "1"],
            &["move", "7", "--to", "1,x"],
            &["add", "--ttl", "0"],
            &["voters"],
        ] {
            assert_eq!(exit_code(arguments), EXIT_USAGE, "{arguments:?}");
        }
    }
}
