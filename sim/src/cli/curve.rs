//! Flags of `cache-sim curve` and `cache-sim merge`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;

use clap::Args;

use super::caches::UnitName;
use super::part::PartArgs;
use super::{
    KEPT_REQUESTS_MAX, LogArgs, ONE_JOB, OutputName, PlanError, Rankings, SemanticsArgs, rankings,
};
use crate::curve::run::CurvePlan;
use crate::plot::{Form, NoForm};
use crate::report::Output;
use crate::run::{Caches, Plan};
use crate::sampling::Sampling;
use crate::size::Size;

/// Flags of `cache-sim curve`.
#[derive(Debug, Args)]
#[command(after_long_help = CURVE_HELP)]
pub struct CurveArgs {
    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    semantics: SemanticsArgs,

    /// Eviction policies, separated by commas, or all. LRU is mapped at all sizes in one reading, the
    /// others are played at the sizes shown, in a second one; min, the optimum (in objects), from what was
    /// kept of the first
    #[arg(long, value_name = "LIST", default_value = "lru", value_parser = rankings)]
    policy: Rankings,

    /// What sizes count
    #[arg(long, value_name = "UNIT", default_value = "bytes")]
    unit: UnitName,

    /// The sizes shown, as for `run`; if left out, as many as --points says, from small to the size in
    /// which everything fits
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    size: Vec<Size>,

    /// How many sizes are shown where --size names none
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    points: u16,

    /// Look at a sample: a share of the objects (1%), or so many of them at most (8192), however many
    /// come. The curve then has a band
    #[arg(long, value_name = "SHARE|N")]
    sample: Option<SampleSize>,

    #[command(flatten)]
    part: PartArgs,

    #[command(flatten)]
    show: ShowArgs,

    /// Threads to replay on; as many as there are cores if left out. The figures do not depend on it
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Flags that say what is shown, and how.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: OutputName,

    /// Draw a picture too: an SVG, a PNG, or, if the name ends in .html, a page to send to a colleague,
    /// with figures, what they rest on, and the command that made it. None asks anything of the network
    #[arg(long, value_name = "FILE", value_parser = picture)]
    plot: Option<PathBuf>,
}

/// A file that a picture can be drawn into; known before a long log is read.
pub(super) fn picture(path: &str) -> Result<PathBuf, NoForm> {
    Form::of(Path::new(path)).map(|_| PathBuf::from(path))
}

/// What stands below the flags in `cache-sim curve --help`.
const CURVE_HELP: &str = "\
The curve of LRU is exact. One reading maps it at all sizes; where that map is not the curve itself, LRU is \
replayed at the sizes shown, in a second reading: where expired objects leave at once (--expiry eager and \
TTLs), where objects are touched, counted or lengthened, and in bytes where they are deleted or change \
their sizes, or the cache is not much larger than the largest of them. A stream and parts put together \
are not read again: there the map is shown, which is close. --sample maps a sample in any case. \
miss_ratio_low and miss_ratio_high are the band \
of a sample: five standard errors to both sides, told from sixteen samples of disjoint objects.

Examples:
  cache-sim curve --trace web.oracleGeneral.zst --unit objects
  cache-sim curve --trace log.csv --policy lru,s3fifo,wtinylfu --sample 8192 --plot curve.html
  zcat logs/*.gz | cache-sim curve --trace - --format csv --part 3/16 --save part3.json";

/// Flags of `cache-sim merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Files that `curve` or `run` wrote with --part I/N --save, each part once; `-` is standard input.
    /// Several files may have been put together to one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The sizes shown; if left out, as many as --points says
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    size: Vec<Size>,

    /// How many sizes are shown where --size names none
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    points: u16,

    /// Write what was put together to a file, for a further `merge`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    show: ShowArgs,
}

impl CurveArgs {
    /// The plan that the flags describe.
    ///
    /// # Errors
    ///
    /// They leave the format open, or contradict each other.
    pub fn plan(&self) -> Result<CurvePlan, PlanError> {
        let jobs = self.jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(ONE_JOB);
        let unit = self.unit.into();
        if self.unit == UnitName::Objects
            && self.size.iter().any(|size| matches!(size, Size::Bytes(_)))
        {
            return Err(PlanError::BytesOfObjects);
        }
        Ok(CurvePlan {
            plan: Plan {
                source: self.log.source(),
                format: self.log.trace_format()?,
                policies: self.policy.policies.clone(),
                min: self.policy.min,
                caches: Caches::Plain { unit, sizes: Vec::new() },
                semantics: self.semantics.into(),
                empty: self.log.empty.into(),
                strict: self.log.strict,
                kept_requests_max: KEPT_REQUESTS_MAX,
                jobs,
            },
            sampling: self.sample.map_or(Sampling::Whole, |SampleSize(sampling)| sampling),
            dealing: self.part.dealing(),
            points: self.points.into(),
            sizes: self.size.clone(),
        })
    }

    /// Where the map is saved, if anywhere.
    pub fn save(&self) -> Option<&Path> {
        self.part.save()
    }

    /// What is shown, and how.
    pub fn show(&self) -> &ShowArgs {
        &self.show
    }
}

impl MergeArgs {
    /// The files to be put together.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The sizes shown, and how many if there are none.
    pub fn sizes(&self) -> (&[Size], usize) {
        (&self.size, self.points.into())
    }

    /// Where the map is saved, if anywhere.
    pub fn save(&self) -> Option<&Path> {
        self.save.as_deref()
    }

    /// What is shown, and how.
    pub fn show(&self) -> &ShowArgs {
        &self.show
    }
}

impl ShowArgs {
    /// How the report is to be written.
    pub fn output(&self) -> Output {
        self.output.into()
    }

    /// Where the picture goes, if one is drawn.
    pub fn plot(&self) -> Option<&Path> {
        self.plot.as_deref()
    }
}

/// `1%` or `8192`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SampleSize(pub(super) Sampling);

/// Why a text is no size of a sample.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a share of the objects above 0 and up to 100%, or at least {OBJECTS_MIN} of them, as in 1% or 8192"
)]
pub(super) struct NoSample;

/// Fewer tell nothing, not even how little they tell.
const OBJECTS_MIN: usize = 512;

impl FromStr for SampleSize {
    type Err = NoSample;

    fn from_str(text: &str) -> Result<Self, NoSample> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| NoSample)?;
            let is_share = percent > 0.0 && percent <= 100.0;
            return is_share.then_some(Self(Sampling::Rate(percent / 100.0))).ok_or(NoSample);
        }
        let objects: usize = text.parse().map_err(|_| NoSample)?;
        (objects >= OBJECTS_MIN).then_some(Self(Sampling::Objects(objects))).ok_or(NoSample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_share_or_a_number() {
        assert_eq!("1%".parse(), Ok(SampleSize(Sampling::Rate(0.01))));
        assert_eq!("8192".parse(), Ok(SampleSize(Sampling::Objects(8192))));
        for text in ["", "0%", "101%", "-1%", "NaN%", "0", "7", "x"] {
            assert_eq!(text.parse::<SampleSize>(), Err(NoSample), "{text}");
        }
    }
}
