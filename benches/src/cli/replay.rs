//! `cache-bench replay`: a log played against one server.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use sim::trace::Format;
use sim::trace::csv::Layout;
use sim::ttl::TtlRule;

use super::parse::parse_server;
use super::{Verdict, note_samples, progress_bar};
use crate::clock;
use crate::interrupt::{Interrupt, Interrupted};
use crate::replay::log::{Log, Malformed, Requests};
use crate::replay::{DEPTH_MAX, Expiry, Replayed, replay};
use crate::report::{Cell, Output, Report};
use crate::session::Session;

/// A log played against one server.
///
/// What the log has is sent, op by op, on one connection; a get that misses is followed by a set of the
/// value that the log says was there. Keys and values are as long as recorded, flags are 0. What the
/// server refuses to store counts as a miss. Time is the log's: an item whose TTL is up is deleted at
/// that second of the log. The exit code is 1 if a value read was wrong.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The log; packed with zstd, gzip or xz or not.
    trace: PathBuf,
    /// The server, HOST:PORT.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:11211", value_parser = parse_server)]
    server: SocketAddr,
    #[command(flatten)]
    format: FormatArgs,
    /// How long items live: as the log says (log), for ever (none), so long after each write (300, 5m,
    /// 12h, 7d), or the log's times a factor (x0.5).
    #[arg(long, value_name = "TTL", default_value = "log")]
    ttl: TtlRule,
    /// Play the log in its own time, second by second, and leave it to the server to let items expire.
    #[arg(long)]
    real_time: bool,
    /// Requests under way at once. Above 1 the order of the log is kept only approximately: the sets
    /// of so many gets come after all of them.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX as u64))]
    depth: u64,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// How the log is written, as `cache-sim` names it [default: by its name and first lines].
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
    /// Columns of a CSV, as `cache-sim` takes them: time=ts,id=url,size=bytes.
    #[arg(long, value_name = "LAYOUT", conflicts_with = "format")]
    csv: Option<Layout>,
    /// End at the first line or record that cannot be read, instead of counting it.
    #[arg(long)]
    strict: bool,
}

impl FormatArgs {
    pub(super) fn log(&self, path: &Path, ttl: TtlRule) -> Log {
        let by_columns = self.csv.clone().map(Format::Csv);
        let format = by_columns.or_else(|| self.format.clone()).unwrap_or(Format::Guess);
        Log { path: path.to_owned(), format, strict: self.strict, ttl }
    }
}

/// A format's name or another of its names.
fn parse_format(name: &str) -> Result<Format, String> {
    let is_it = |format: &&Format| format.name() == name || format.aliases().contains(&name);
    Format::ALL.iter().find(is_it).cloned().ok_or_else(|| {
        let names: Vec<_> = Format::ALL.iter().map(Format::name).collect();
        format!("there are {}", names.join(", "))
    })
}

pub(super) fn note_malformed(
    Malformed { count, first }: &Malformed,
    path: &Path,
) -> anyhow::Result<()> {
    if let Some(first) = first {
        writeln!(io::stderr(), "{}: {count} malformed, the first at {first}", path.display())?;
    }
    Ok(())
}

pub(super) fn open_log(log: &Log) -> anyhow::Result<Requests<'_>> {
    log.open().with_context(|| format!("cannot read {}", log.path.display()))
}

impl ReplayArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let log = self.format.log(&self.trace, self.ttl);
        let mut requests = open_log(&log)?;
        let version = Session::connect(self.server)?.version()?;
        let bar = progress_bar(None);
        bar.set_message("replaying");
        let depth = usize::try_from(self.depth)?;
        let mut wait = |seconds: u32| wait_s(seconds, interrupt);
        let expiry = if self.real_time { Expiry::Server(&mut wait) } else { Expiry::Log };
        let note = |played| bar.set_position(played);
        let replayed = replay(requests.by_ref(), self.server, depth, expiry, interrupt, note)
            .with_context(|| format!("replaying {}", self.trace.display()))?;
        bar.finish_and_clear();
        note_malformed(requests.malformed(), &self.trace)?;
        note_samples(&replayed.samples)?;
        let mut cells = vec![("server_version", version.into())];
        cells.extend(replay_cells(&self.trace, &replayed));
        cells.push(("malformed", requests.malformed().count.into()));
        Report::of_one(cells).write(self.output, &mut io::stdout().lock())?;
        Ok(Verdict::of(replayed.wrong))
    }
}

/// Lets so many seconds pass, or as many as the user has patience for.
fn wait_s(seconds: u32, interrupt: &Interrupt) -> Result<(), Interrupted> {
    let until = clock::now() + Duration::from_secs(seconds.into());
    while clock::now() < until {
        interrupt.check()?;
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Ok(())
}

pub(super) fn replay_cells(trace: &Path, replayed: &Replayed) -> Vec<(&'static str, Cell)> {
    let name = trace.file_name().unwrap_or(trace.as_os_str());
    vec![
        ("trace", name.to_string_lossy().into_owned().into()),
        ("operations", replayed.operations.into()),
        ("requests", replayed.requests.into()),
        ("hits", replayed.hits.into()),
        ("hit_percent", Cell::Real(replayed.hit_percent(), 4)),
        ("stored", replayed.stored.into()),
        ("refused", replayed.refused.into()),
        ("expired", replayed.expired.into()),
        ("wrong_values", replayed.wrong.into()),
    ]
}
