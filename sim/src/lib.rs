//! Predicts a cache's hit ratio from a request log, with the server's own eviction code.
//!
//! # The tour
//!
//! **A log and a cache.** A log is a [`trace::Trace`], an iterator of accesses, from a file, a pipe or
//! memory, whoever wrote it. A [`replay::Replay`] is one cache, of one policy and one size, that is fed
//! them:
//!
//! ```
//! use eviction::Kind;
//! use sim::replay::{Replay, Unit};
//! use sim::trace::{Format, Trace};
//!
//! let log = "time,id,size\n0,7,100\n1,8,100\n2,7,100\n";
//! let mut cache = Replay::new(Kind::Lru, 200, Unit::Bytes);
//! for access in Trace::read(log.as_bytes(), &Format::Csv(Default::default()))? {
//!     cache.request(&access?.into());
//! }
//! assert_eq!(cache.tally().hits, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A server.** [`replay::Replay::of_server`] cuts memory into shards, counts items and picks victims
//! as the server with this `-m`, `-t` and `-I` does, so its hits are those the server will count:
//!
//! ```
//! use eviction::Kind;
//! use sim::replay::{Expiry, Replay, ServerShape};
//! use sim::trace::zipf;
//!
//! let spec = zipf::Spec {
//!     requests: 20_000,
//!     objects: 10_000,
//!     alpha: 0.9,
//!     value_bytes: 100..=4096,
//!     requests_per_s: 100,
//!     seed: 7,
//! };
//! let shape = ServerShape { threads: 1, item_bytes_max: 64 << 10 };
//! let [mut small, mut large] =
//!     [4 << 20, 16 << 20].map(|bytes| Replay::of_server(Kind::S3Fifo, bytes, shape, Expiry::Eager));
//! for access in zipf::Generator::new(spec)? {
//!     small.request(&access.into());
//!     large.request(&access.into());
//! }
//! assert!(small.tally().hits < large.tally().hits);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **All sizes at once.** A [`curve::LruMapper`] is fed the same requests and knows LRU's hits at every
//! size; of a sample of the objects, if a log is too long, and then with its error:
//!
//! ```
//! use sim::curve::{LruMapper, Spec};
//! use sim::replay::{Expiry, Player as _, Unit};
//! use sim::sampling::{Part, Sampling};
//! use sim::trace::{Format, Trace};
//!
//! let (weighing, part) = (Unit::Objects.into(), Part::WHOLE);
//! let spec = Spec { weighing, expiry: Expiry::Ignore, sampling: Sampling::Whole, part };
//! let mut mapper = LruMapper::new(spec);
//! for access in Trace::read("7\n8\n7\n7\n9\n8\n".as_bytes(), &Format::Ids)? {
//!     mapper.request(&access?.into());
//! }
//! let points = mapper.finish().points(&[1, 2, 3]);
//! let misses: Vec<f64> = points.iter().map(|point| (6.0 * point.miss_ratio).round()).collect();
//! assert_eq!(misses, [5.0, 4.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **A whole question.** A [`run::Plan`] says which log, which policies and which sizes; [`run::run`]
//! reads the log once for all of them, on as many threads as there are jobs, and returns a
//! [`run::Report`]. On top of a plan stand curves of every policy with their bands
//! ([`curve::run`](mod@curve::run)), advice on size and cost ([`sizing::run`](mod@sizing::run)) and
//! what-ifs ([`what_if`]); [`describe`](mod@describe) tells what a log is like. Whoever wants to hear how
//! far they are passes a [`run::Observer`]; `&mut ()` is none. [`report`] and [`html`] write what came
//! of it.
//!
//! Maps and reports of parts of a log are put together again ([`partial`]), so that any engine can spread
//! the work.
//!
//! The figures are comparable with those of other simulators; the rules stand in [`replay`].

pub mod belady;
pub mod blueprint;
pub mod capture;
pub mod cli;
pub mod console;
pub mod curve;
pub mod describe;
pub mod fill;
pub mod html;
pub mod partial;
pub mod plot;
pub mod ranking;
pub mod replay;
pub mod report;
pub mod run;
pub mod sampling;
pub mod size;
pub mod sizing;
pub mod tallies;
pub mod trace;
pub mod ttl;
pub mod what_if;
