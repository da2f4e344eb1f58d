//! Advice: how large a cache, of which policy, for a target or for prices; and how sure that is.
//!
//! ```text
//! log ──> scout ──> sizes worth trying ──> every policy at each ──> between those that may be the best
//!                                                                     │          (`choice`, until nothing
//!                                       as the server would: `Replay::of_server`   more can be gained)
//!                                                                     v
//!                          Advice: the cheapest that does what it must, as servers one can start
//! ```
//!
//! - [`choice`] says which is the best, which are worth playing next, and where the knee is.
//! - [`prices`] has the money, and the rule by which a cache pays.
//! - [`fleet`] turns memory into servers: nodes, copies, what their machines need.
//! - [`run`] carries a [`SizingPlan`](run::SizingPlan) out into an [`Advice`](run::Advice).
//! - [`report`] and [`page`] write that down: for people, for tools, for a colleague.
//!
//! A log that is short is played whole to every cache that is tried, and what is advised was played as
//! it is advised. In a long one the search looks at a sample of the objects, in miniature
//! ([`crate::sampling`]); around what it finds the whole log is played then, and that is what is advised.
//! Only where a sample is asked for nothing is played whole; then a target must be met by the lower edge
//! of the band.

pub mod choice;
pub mod fleet;
pub mod page;
pub mod prices;
pub mod report;
pub mod run;
pub mod watch;
