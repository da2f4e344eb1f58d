//! How long a request to a server can be expected to take: peak EWMA.
//!
//! As Finagle's `Balancers.p2cPeakEwma` and tower's `PeakEwma` have it (Finagle's user guide, "Clients", "Balancers"):
//!
//! - A latency above the average replaces it at once: whoever became slow is believed immediately.
//! - One below moves it by `1 - exp(-dt / decay)`, with the time since the last: whoever recovers is believed slowly.
//! - While nothing is seen the average falls as if zeros were, so that a slow server is tried again some time.
//! - The expected wait is the average times the requests under way and the one to come.
//!
//! A server of which nothing is known counts as fast while it has nothing under way, and as slow as can be while its
//! first requests are: it is asked, and not flooded before it has answered.

use std::time::{Duration, Instant};

/// What an unknown server with requests under way counts as, in seconds.
const UNKNOWN_S: f64 = 1e6;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeakEwma(Option<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    average_s: f64,
}

impl PeakEwma {
    pub(super) fn observe(&mut self, now: Instant, latency: Duration, decay: Duration) {
        let latency_s = latency.as_secs_f64();
        let average_s = match self.0 {
            None => latency_s,
            Some(seen) if latency_s > seen.average_s => latency_s,
            Some(seen) => {
                let kept = kept(now.saturating_duration_since(seen.at), decay);
                seen.average_s * kept + latency_s * (1.0 - kept)
            }
        };
        self.0 = Some(Seen { at: now, average_s });
    }

    /// In seconds, of one more request.
    pub(super) fn expected_wait(&self, now: Instant, in_flight: u32, decay: Duration) -> f64 {
        let requests = f64::from(in_flight) + 1.0;
        match self.0 {
            None if in_flight == 0 => 0.0,
            None => UNKNOWN_S * requests,
            Some(seen) => {
                let kept = kept(now.saturating_duration_since(seen.at), decay);
                seen.average_s * kept * requests
            }
        }
    }
}

fn kept(since: Duration, decay: Duration) -> f64 {
    // Nothing decays within no time, also where everything does at once.
    (-since.as_secs_f64() / decay.as_secs_f64().max(1e-9)).exp()
}
