//! `Description`: what a log is like, before any cache is simulated: how many objects, how popular, how
//! large, how long they live, how soon they come again.
//!
//! One reading, and bounded memory: an exact table of objects as long as they are at most
//! [`OBJECTS_MAX`] (48 to 96 bytes each, so at most 192 MiB), a spatial sample of them from then on.
//! An object is in the sample if the hash of its id is below a threshold, which is halved whenever the
//! table is full: all requests of a sampled object are seen, and what is counted in objects is divided
//! by the share that the sample is of all (Waldspurger et al., "Efficient MRC Construction with SHARDS",
//! FAST 2015). Which share that was is part of the description. Requests, ops and rates are counted
//! over the whole log in any case. Quantiles are of histograms with two significant digits.
//!
//! How figures that can be had in several ways are had:
//!
//! - **Zipf's exponent**: the slope of a least-squares line through logarithm of count over logarithm
//!   of rank, at ranks spaced evenly in the logarithm (each decade weighs the same), of objects that
//!   were asked for at least [`FITTED_COUNT_MIN`] times. `fit_r2` says how straight that line is.
//! - **Working set**: the mean number of objects asked for within the last minute, hour, day, over the
//!   time of the log; from the gaps between uses (Denning and Schwartz, "Properties of the Working-Set
//!   Model", CACM 1972), an object being in the set for so long after each use.
//! - **Reuse**: between a read and the use of the same object before it: seconds, and requests.
//! - **Burst**: requests in the busiest second by those in a mean one, and the variance of requests a
//!   second by their mean (1 if they come independently).

pub mod report;

use eviction::KeyHash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use hdrhistogram::Histogram;
use xxhash_rust::xxh3::xxh3_64;

use crate::run::{Observer, RunError, Source};
use crate::trace::{Access, Format, Notes, Op, TraceError};

/// Objects that are kept in a table at a time.
pub const OBJECTS_MAX: usize = 2 << 20;

/// What an object must have been asked for to count in the fit of popularity.
pub const FITTED_COUNT_MIN: u64 = 3;

/// Points a decade that popularity is fitted at.
const FIT_POINTS_PER_DECADE: f64 = 20.0;

/// Fewer points make no line.
const FIT_POINTS_MIN: usize = 5;

/// Windows of the working set, in seconds.
const WINDOWS: [(&str, u32); 3] = [("minute", 60), ("hour", 3600), ("day", 86_400)];

/// Shares of the objects whose share of the requests is told, in thousandths.
const HEADS: [(&str, u64); 3] = [("top_0.1%", 1), ("top_1%", 10), ("top_10%", 100)];

/// How many hot objects are named.
const HOT_OBJECTS: usize = 10;

/// How many points of time the growth of the log is told at, at most.
const SLOTS_MAX: usize = 16;

/// Requests between two looks at how far the work has come.
const GLANCE_REQUESTS: u64 = 1 << 16;

/// One figure of a description.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it belongs to: `objects`, `sizes`.
    pub section: &'static str,
    /// What it is.
    pub name: String,
    /// Its value; none where the log does not tell.
    pub value: Value,
}

/// A figure's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A count, bytes, or seconds.
    Count(u64),
    /// A ratio, a share or a mean.
    Number(f64),
    /// A word.
    Text(String),
    /// The log does not tell.
    Unknown,
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        if number.is_finite() { Self::Number(number) } else { Self::Unknown }
    }
}

impl From<Option<f64>> for Value {
    fn from(number: Option<f64>) -> Self {
        number.map_or(Self::Unknown, Self::from)
    }
}

/// Reads a log and describes it.
///
/// # Errors
///
/// The log cannot be read, or a record is malformed and `is_strict`.
pub fn describe(
    source: &Source,
    format: &Format,
    is_strict: bool,
    observer: &mut dyn Observer,
) -> Result<Vec<Figure>, RunError> {
    let path = || source.to_string();
    let (mut trace, bytes) =
        source.open(format).map_err(|source| RunError::Open { path: path(), source })?;
    observer.begin("describe", bytes);
    let position = trace.position();
    let mut census = Census::new(OBJECTS_MAX);
    let mut malformed = 0;
    for item in trace.by_ref() {
        match item {
            Ok(access) => {
                if census.requests.is_multiple_of(GLANCE_REQUESTS) {
                    observer.advance(position.bytes());
                }
                census.take(&access);
            }
            Err(TraceError::Io(source)) => {
                observer.end();
                let requests = census.requests;
                return Err(RunError::Unreadable { path: path(), requests, source });
            }
            Err(error) if is_strict => {
                observer.end();
                return Err(RunError::Malformed { path: path(), source: error });
            }
            Err(error) => {
                malformed += 1;
                observer.malformed(&error);
            }
        }
    }
    observer.end();
    if census.requests == 0 {
        let (path, format) = (path(), trace.format().name());
        return Err(match malformed {
            0 => RunError::NoReads { path },
            malformed => RunError::NothingReadable { path, format, malformed },
        });
    }
    let mut figures = vec![Figure {
        section: "log",
        name: "format".into(),
        value: Value::Text(trace.format().name().into()),
    }];
    let Notes { lost, passed_over } = trace.notes();
    for (name, count) in [("malformed", malformed), ("lost", lost), ("passed_over", passed_over)] {
        figures.push(Figure { section: "log", name: name.into(), value: count.into() });
    }
    figures.extend(census.figures());
    Ok(figures)
}

/// What is known of an object.
#[derive(Clone, Copy, Debug)]
struct Object {
    hash: KeyHash,
    id: u64,
    requests: u64,
    last_request: u64,
    last_s: u32,
    size_bytes: u32,
}

/// A stretch of time, and what happened in it.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u64,
    new_objects: u64,
}

/// What has been counted by now.
struct Census {
    objects_max: usize,
    objects: HashTable<Object>,
    /// The sample is of hashes below `2^64 / 2^halvings`.
    halvings: u32,
    requests: u64,
    /// Requests of objects in the sample.
    sampled_requests: u64,
    ops: [u64; Op::ALL.len()],
    first_s: u32,
    last_s: u32,
    /// The second being counted, and its requests.
    this_second: (u32, u64),
    /// Most requests in a second, and the sum of their squares over all seconds.
    busiest: u64,
    squares: f64,
    request_bytes: u64,
    key_bytes: u64,
    ttls: Histogram<u64>,
    without_ttl: u64,
    reuse_s: Histogram<u64>,
    reuse_requests: Histogram<u64>,
    /// Seconds that objects, and their bytes, were in the working set of each window.
    working: [(f64, f64); WINDOWS.len()],
    slot_s: u32,
    slots: Vec<Slot>,
}

/// A histogram of two significant digits.
fn histogram() -> Histogram<u64> {
    // What it is asked for it has: two digits is within what it can do.
    Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are a precision"))
}

/// Counts a value. A histogram that grows takes any.
fn record(histogram: &mut Histogram<u64>, value: u64) {
    let _too_large = histogram.record(value);
}

impl Census {
    fn new(objects_max: usize) -> Self {
        Self {
            objects_max,
            objects: HashTable::new(),
            halvings: 0,
            requests: 0,
            sampled_requests: 0,
            ops: [0; Op::ALL.len()],
            first_s: u32::MAX,
            last_s: 0,
            this_second: (0, 0),
            busiest: 0,
            squares: 0.0,
            request_bytes: 0,
            key_bytes: 0,
            ttls: histogram(),
            without_ttl: 0,
            reuse_s: histogram(),
            reuse_requests: histogram(),
            working: [(0.0, 0.0); WINDOWS.len()],
            slot_s: 1,
            slots: Vec::new(),
        }
    }

    /// Counts a request.
    fn take(&mut self, access: &Access) {
        let &Access { id, time_s, size_bytes, ttl_s, key_bytes, op } = access;
        self.requests += 1;
        self.ops[op as usize] += 1;
        self.first_s = self.first_s.min(time_s);
        self.last_s = self.last_s.max(time_s);
        self.request_bytes += u64::from(size_bytes);
        self.key_bytes += u64::from(key_bytes);
        if op.is_write() {
            match ttl_s {
                0 => self.without_ttl += 1,
                ttl_s => record(&mut self.ttls, ttl_s.into()),
            }
        } else if op.is_read() && ttl_s > 0 {
            record(&mut self.ttls, ttl_s.into());
        }
        self.count_second(time_s);
        let hash = xxh3_64(&id.to_le_bytes());
        let is_new = self.is_sampled(hash) && self.take_object(access, KeyHash(hash));
        self.count_slot(time_s, is_new);
    }

    fn count_second(&mut self, time_s: u32) {
        if self.this_second.0 != time_s {
            self.close_second();
            self.this_second.0 = time_s;
        }
        self.this_second.1 += 1;
    }

    fn close_second(&mut self) {
        let requests = std::mem::take(&mut self.this_second.1);
        self.busiest = self.busiest.max(requests);
        self.squares += (requests as f64).powi(2);
    }

    fn count_slot(&mut self, time_s: u32, is_new: bool) {
        let since = time_s.saturating_sub(self.slots.first().map_or(time_s, |_| self.first_s));
        while (since / self.slot_s) as usize >= SLOTS_MAX {
            // Two slots become one of twice the length.
            self.slots = self
                .slots
                .chunks(2)
                .map(|pair| Slot {
                    requests: pair.iter().map(|slot| slot.requests).sum(),
                    new_objects: pair.iter().map(|slot| slot.new_objects).sum(),
                })
                .collect();
            self.slot_s *= 2;
        }
        let slot = (since / self.slot_s) as usize;
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, Slot::default());
        }
        self.slots[slot].requests += 1;
        self.slots[slot].new_objects += u64::from(is_new) << self.halvings;
    }

    fn is_sampled(&self, hash: u64) -> bool {
        hash.leading_zeros() >= self.halvings
    }

    /// Counts a request of an object in the sample. True if it is the first.
    fn take_object(&mut self, access: &Access, hash: KeyHash) -> bool {
        let &Access { id, time_s, size_bytes, op, .. } = access;
        self.sampled_requests += 1;
        let request = self.requests;
        match self.objects.entry(hash.0, |object| object.id == id, |object| object.hash.0) {
            Entry::Occupied(mut place) => {
                let object = place.get_mut();
                let gap_s = time_s.saturating_sub(object.last_s);
                if op.is_read() {
                    record(&mut self.reuse_s, gap_s.into());
                    record(&mut self.reuse_requests, request - object.last_request);
                }
                in_working_set(&mut self.working, gap_s, object.size_bytes);
                object.requests += 1;
                object.last_request = request;
                object.last_s = object.last_s.max(time_s);
                if size_bytes > 0 {
                    object.size_bytes = size_bytes;
                }
                false
            }
            Entry::Vacant(place) => {
                let (last_request, last_s, requests) = (request, time_s, 1);
                place.insert(Object { hash, id, requests, last_request, last_s, size_bytes });
                while self.objects.len() > self.objects_max {
                    self.halve();
                }
                true
            }
        }
    }

    /// Halves the sample.
    #[cold]
    fn halve(&mut self) {
        self.halvings += 1;
        let halvings = self.halvings;
        self.objects.retain(|object| object.hash.0.leading_zeros() >= halvings);
        self.sampled_requests = self.objects.iter().map(|object| object.requests).sum();
        // What was counted of objects that are gone is left to its share.
        for (seconds, bytes) in &mut self.working {
            (*seconds, *bytes) = (*seconds / 2.0, *bytes / 2.0);
        }
    }

    /// All figures.
    fn figures(mut self) -> Vec<Figure> {
        self.close_second();
        for object in &self.objects {
            in_working_set(&mut self.working, self.last_s - object.last_s, object.size_bytes);
        }
        let mut figures = Figures(Vec::new());
        self.log_figures(&mut figures);
        self.object_figures(&mut figures);
        self.popularity_figures(&mut figures);
        self.size_figures(&mut figures);
        figures.quantiles("ttls", "s", &self.ttls);
        let with_ttl = self.ttls.len();
        figures.add("ttls", "with_ttl", with_ttl);
        figures.add("ttls", "written_without_ttl", self.without_ttl);
        figures.quantiles("reuse", "s", &self.reuse_s);
        figures.quantiles("reuse", "requests", &self.reuse_requests);
        self.working_set_figures(&mut figures);
        figures.0
    }

    /// Seconds from the first request to the last, both counted.
    fn seconds(&self) -> u64 {
        if self.requests == 0 { 0 } else { u64::from(self.last_s - self.first_s) + 1 }
    }

    fn sum_of(&self, is_it: fn(Op) -> bool) -> u64 {
        Op::ALL.into_iter().filter(|&op| is_it(op)).map(|op| self.ops[op as usize]).sum()
    }

    fn log_figures(&self, figures: &mut Figures) {
        let seconds = self.seconds();
        let (reads, writes) = (self.sum_of(Op::is_read), self.sum_of(Op::is_write));
        figures.add("log", "requests", self.requests);
        figures.add("log", "reads", reads);
        figures.add("log", "writes", writes);
        figures.add("log", "deletes", self.ops[Op::Delete as usize]);
        let deletes = self.ops[Op::Delete as usize];
        figures.add("log", "others", self.requests - reads - writes - deletes);
        figures.add("log", "reads_per_write", share(reads as f64, writes as f64));
        figures.add("log", "first_s", if seconds == 0 { 0 } else { u64::from(self.first_s) });
        figures.add("log", "seconds", seconds);
        let mean = share(self.requests as f64, seconds as f64);
        figures.add("rate", "requests_per_s", mean);
        figures.add("rate", "busiest_second", self.busiest);
        let busiest = self.busiest as f64;
        figures.add("rate", "busiest_by_mean", mean.and_then(|mean| share(busiest, mean)));
        let dispersion = mean.and_then(|mean| {
            let variance = share(self.squares, seconds as f64)? - mean * mean;
            share(variance.max(0.0), mean)
        });
        figures.add("rate", "variance_by_mean", dispersion);
        figures.add("rate", "mean_gap_s", share(seconds as f64, self.requests as f64));
    }

    fn object_figures(&self, figures: &mut Figures) {
        let once = self.objects.iter().filter(|object| object.requests == 1).count() as u64;
        let unique = self.objects.len() as u64;
        figures.add("objects", "unique", unique << self.halvings);
        figures.add("objects", "asked_for_once", once << self.halvings);
        figures.add("objects", "asked_for_once_share", share(once as f64, unique as f64));
        let mean = share(self.sampled_requests as f64, unique as f64);
        figures.add("objects", "requests_per_object", mean);
        let sampled = 0.5f64.powi(i32::try_from(self.halvings).unwrap_or(i32::MAX));
        figures.add("objects", "sampled_share", sampled);
    }

    fn popularity_figures(&self, figures: &mut Figures) {
        let mut objects: Vec<Object> = self.objects.iter().copied().collect();
        // Ties are put in an order, so that the same log has the same description.
        objects.sort_unstable_by_key(|object| (std::cmp::Reverse(object.requests), object.id));
        let counts: Vec<u64> = objects.iter().map(|object| object.requests).collect();
        let fit = fit_zipf(&counts);
        figures.add("popularity", "zipf_alpha", fit.map(|fit| fit.alpha));
        figures.add("popularity", "zipf_fit_r2", fit.map(|fit| fit.r2));
        figures.add("popularity", "zipf_fitted_objects", fit.map_or(0, |fit| fit.objects));
        let all = self.sampled_requests as f64;
        for (name, thousandths) in HEADS {
            let head = (counts.len() as u64 * thousandths).div_ceil(1000);
            let head = usize::try_from(head).unwrap_or(usize::MAX);
            let requests: u64 = counts.iter().take(head).sum();
            figures.add("popularity", &format!("{name}_share"), share(requests as f64, all));
        }
        for (index, object) in objects.iter().take(HOT_OBJECTS).enumerate() {
            let rank = index + 1;
            figures.text("hot", &format!("{rank}_id"), object.id.to_string());
            let all = self.requests as f64;
            figures.add("hot", &format!("{rank}_share"), share(object.requests as f64, all));
        }
    }

    fn size_figures(&self, figures: &mut Figures) {
        let mut sizes = histogram();
        let mut sum = 0;
        for object in self.objects.iter().filter(|object| object.size_bytes > 0) {
            record(&mut sizes, object.size_bytes.into());
            sum += u64::from(object.size_bytes);
        }
        figures.quantiles("sizes", "bytes", &sizes);
        figures.add("sizes", "all_objects_bytes", sum << self.halvings);
        let requests = self.requests as f64;
        figures.add("sizes", "mean_request_bytes", share(self.request_bytes as f64, requests));
        figures.add("sizes", "mean_key_bytes", share(self.key_bytes as f64, requests));
    }

    fn working_set_figures(&self, figures: &mut Figures) {
        let scale = 2f64.powi(i32::try_from(self.halvings).unwrap_or(i32::MAX));
        for ((name, window_s), (objects, bytes)) in WINDOWS.into_iter().zip(self.working) {
            // A window longer than the log tells nothing that the log as a whole does not.
            let seconds = self.seconds() as f64;
            let is_told = self.seconds() > u64::from(window_s);
            let mean = |sum: f64| share(sum * scale, seconds).filter(|_| is_told);
            figures.add("working_set", &format!("{name}_objects"), mean(objects));
            figures.add("working_set", &format!("{name}_bytes"), mean(bytes));
        }
        let mut objects = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            objects += slot.new_objects;
            let end_s = (index as u64 + 1) * u64::from(self.slot_s);
            figures.add("growth", &format!("{end_s}s_requests"), slot.requests);
            figures.add("growth", &format!("{end_s}s_objects_so_far"), objects);
        }
    }
}

/// Counts an object into the working sets for `gap_s` at most, and never longer than each window.
fn in_working_set(working: &mut [(f64, f64); WINDOWS.len()], gap_s: u32, size_bytes: u32) {
    for ((_, window_s), (objects, bytes)) in WINDOWS.into_iter().zip(working) {
        let seconds = f64::from(gap_s.min(window_s));
        *objects += seconds;
        *bytes += seconds * f64::from(size_bytes);
    }
}

/// `part / whole`, if there is a whole.
fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// Figures being put together.
struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, section: &'static str, name: &str, value: impl Into<Value>) {
        self.0.push(Figure { section, name: name.into(), value: value.into() });
    }

    fn text(&mut self, section: &'static str, name: &str, text: String) {
        self.0.push(Figure { section, name: name.into(), value: Value::Text(text) });
    }

    /// What of a distribution is told.
    fn quantiles(&mut self, section: &'static str, unit: &str, of: &Histogram<u64>) {
        let known = |value: u64| if of.is_empty() { Value::Unknown } else { Value::Count(value) };
        for (name, quantile) in [("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
            let value = known(of.value_at_quantile(quantile));
            self.0.push(Figure { section, name: format!("{name}_{unit}"), value });
        }
        let mean = if of.is_empty() { Value::Unknown } else { of.mean().into() };
        self.0.push(Figure { section, name: format!("mean_{unit}"), value: mean });
        self.0.push(Figure { section, name: format!("max_{unit}"), value: known(of.max()) });
    }
}

/// A line through popularity over rank.
#[derive(Clone, Copy, Debug)]
struct Fit {
    alpha: f64,
    r2: f64,
    /// Objects that were asked for often enough to be fitted.
    objects: u64,
}

/// Fits Zipf's law to counts, the largest first; none if too few objects are asked for often enough.
fn fit_zipf(counts: &[u64]) -> Option<Fit> {
    let fitted = counts.partition_point(|&count| count >= FITTED_COUNT_MIN);
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut last_rank = 0;
    for step in 0.. {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a power of ten is positive, and a rank is at most the number of objects"
        )]
        let rank = 10f64.powf(f64::from(step) / FIT_POINTS_PER_DECADE).round() as usize;
        if rank > fitted {
            break;
        }
        if rank > last_rank {
            points.push(((rank as f64).ln(), (counts[rank - 1] as f64).ln()));
            last_rank = rank;
        }
    }
    if points.len() < FIT_POINTS_MIN {
        return None;
    }
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let xy: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let xx: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let yy: f64 = points.iter().map(|(_, y)| (y - mean_y).powi(2)).sum();
    // Counts that are all equal lie on a line as straight as can be.
    let r2 = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
    Some(Fit { alpha: -xy / xx, r2, objects: fitted as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::zipf;

    fn figures_of(accesses: &[Access], objects_max: usize) -> Vec<Figure> {
        let mut census = Census::new(objects_max);
        accesses.iter().for_each(|access| census.take(access));
        census.figures()
    }

    fn value(figures: &[Figure], section: &str, name: &str) -> Value {
        let mut found =
            figures.iter().filter(|figure| figure.section == section && figure.name == name);
        let figure = found.next().unwrap_or_else(|| panic!("no {section}.{name}"));
        assert!(found.next().is_none(), "{section}.{name} is there twice");
        figure.value.clone()
    }

    fn number(figures: &[Figure], section: &str, name: &str) -> f64 {
        match value(figures, section, name) {
            Value::Count(count) => count as f64,
            Value::Number(number) => number,
            other => panic!("{section}.{name} is {other:?}"),
        }
    }

    fn zipf(objects: u64, alpha: f64) -> Vec<Access> {
        let (requests, value_bytes, requests_per_s, seed) = (400_000, 100..=100, 1000, 3);
        let spec = zipf::Spec { requests, objects, alpha, value_bytes, requests_per_s, seed };
        zipf::Generator::new(spec).unwrap().collect()
    }

    #[test]
    fn a_small_log_is_described_to_the_last_figure() {
        let set = Access { op: Op::Set, ttl_s: 60, key_bytes: 4, ..Access::get(0, 1, 100) };
        let log = [set, Access::get(0, 1, 100), Access::get(9, 1, 100), Access::get(9, 2, 200)];
        let figures = figures_of(&log, 10);
        for (section, name, want) in [
            ("log", "requests", 4.0),
            ("log", "reads", 3.0),
            ("log", "reads_per_write", 3.0),
            ("log", "seconds", 10.0),
            ("rate", "requests_per_s", 0.4),
            ("rate", "busiest_second", 2.0),
            ("rate", "busiest_by_mean", 5.0),
            ("objects", "unique", 2.0),
            ("objects", "asked_for_once", 1.0),
            ("objects", "sampled_share", 1.0),
            ("popularity", "top_10%_share", 0.75),
            ("hot", "1_share", 0.75),
            ("sizes", "all_objects_bytes", 300.0),
            ("sizes", "max_bytes", 200.0),
            ("sizes", "mean_key_bytes", 1.0),
            ("ttls", "p50_s", 60.0),
            ("ttls", "with_ttl", 1.0),
            ("reuse", "max_s", 9.0),
            ("reuse", "max_requests", 1.0),
        ] {
            let found = number(&figures, section, name);
            assert!((found - want).abs() < 1e-9, "{section}.{name} is {found}, not {want}");
        }
        assert_eq!(value(&figures, "popularity", "zipf_alpha"), Value::Unknown);
        assert_eq!(value(&figures, "working_set", "minute_objects"), Value::Unknown);
    }

    #[test]
    fn an_empty_log_is_described() {
        let figures = figures_of(&[], 10);
        assert_eq!(value(&figures, "log", "requests"), Value::Count(0));
        assert_eq!(value(&figures, "rate", "requests_per_s"), Value::Unknown);
    }

    #[test]
    fn zipfs_exponent_is_found_again() {
        for alpha in [0.7, 1.0, 1.2] {
            let figures = figures_of(&zipf(20_000, alpha), OBJECTS_MAX);
            let found = number(&figures, "popularity", "zipf_alpha");
            assert!((found - alpha).abs() < 0.08, "{found} of {alpha}");
            assert!(number(&figures, "popularity", "zipf_fit_r2") > 0.97);
        }
    }

    #[test]
    fn what_does_not_fit_the_table_is_estimated_from_a_sample() {
        let log = zipf(50_000, 0.6);
        let (exact, sampled) = (figures_of(&log, OBJECTS_MAX), figures_of(&log, 4096));
        assert!(number(&sampled, "objects", "sampled_share") < 0.2);
        for (section, name) in [
            ("objects", "unique"),
            ("sizes", "all_objects_bytes"),
            ("working_set", "minute_objects"),
        ] {
            let (want, found) = (number(&exact, section, name), number(&sampled, section, name));
            assert!((found / want - 1.0).abs() < 0.1, "{section}.{name}: {found} of {want}");
        }
        let requests = number(&sampled, "log", "requests");
        assert!((requests - 400_000.0).abs() < 0.5, "requests are counted, not estimated");
    }

    #[test]
    fn an_object_is_in_the_working_set_for_so_long_after_each_use() {
        // Object 1 every 30 s for 600 s is always there; object 2 once for a minute of ten.
        let mut log: Vec<Access> = (0..=20).map(|n| Access::get(n * 30, 1, 100)).collect();
        log.insert(5, Access::get(130, 2, 100));
        let figures = figures_of(&log, 10);
        let objects = number(&figures, "working_set", "minute_objects");
        assert!((objects - 660.0 / 601.0).abs() < 1e-9, "{objects}");
    }

    #[test]
    fn growth_is_told_in_few_slots_however_long_the_log_is() {
        let log: Vec<Access> = (0..10_000).map(|n| Access::get(n * 100, n.into(), 1)).collect();
        let figures = figures_of(&log, OBJECTS_MAX);
        let so_far: Vec<&Figure> = figures
            .iter()
            .filter(|figure| figure.section == "growth" && figure.name.ends_with("so_far"))
            .collect();
        assert!((2..=SLOTS_MAX).contains(&so_far.len()), "{}", so_far.len());
        assert_eq!(so_far.last().unwrap().value, Value::Count(10_000));
    }
}
