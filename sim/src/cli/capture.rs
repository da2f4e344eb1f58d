//! Flags of `cache-sim capture`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::capture::Capture;
use crate::ttl;

/// Flags of `cache-sim capture`.
#[derive(Debug, Args)]
#[command(after_long_help = CAPTURE_HELP)]
pub struct CaptureArgs {
    /// The server: HOST:PORT, HOST, or the path of its UNIX socket
    #[arg(value_name = "SERVER")]
    server: String,

    /// Where the log goes, packed with zstd; a file that is there already is left as it is
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// How long to record: seconds, or a time (60s, 5m, 12h); without it, until Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,

    /// How many requests to record; a write is two of them, its lookup and itself
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
}

/// What stands below the flags in `cache-sim capture --help`.
const CAPTURE_HELP: &str = "\
The server is watched (`watch fetchers mutations deletions evictions`), which memcached can from 1.4.26 \
on; versions that tell of no deletions (1.6.18 is one) are watched without, and their log lacks deletes. \
It slows no client down: where the server is faster than this program or the network it leaves lines \
out and says how many; the last line on standard error tells their share of all, and so does whatever \
reads the log. With many left out, fewer requests are in the log than there were, and the hit ratios it \
leads to are too low: record from a host beside the server.

Ctrl-C ends the log in order, and whatever else ends it, what was recorded until then can be read. The log \
is of format memcached-watch, for --trace of run, curve and describe.

Example:
  cache-sim capture cache-1:11211 --for 1h --output cache-1.watch.zst
  cache-sim curve --trace cache-1.watch.zst --sample 8192 --plot cache-1.html";

impl CaptureArgs {
    /// What the flags describe.
    pub fn capture(&self) -> Capture {
        Capture {
            server: self.server.clone(),
            output: self.output.clone(),
            time_max: self.time,
            requests_max: self.requests,
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let seconds = ttl::seconds(text).ok_or("seconds (300), or a time (60s, 5m, 12h)")?;
    Ok(Duration::from_secs(seconds.into()))
}
