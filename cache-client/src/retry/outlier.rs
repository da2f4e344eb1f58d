//! Nodes that do worse than the others are left out, and come back little by little.
//!
//! As Envoy's outlier detection (its documentation, "Architecture overview", "Upstream clusters", "Outlier detection"):
//!
//! - A node with `failures_max` failures in a row is ejected at once.
//! - At each sweep, one whose success rate lies more than `deviations` standard deviations below the mean of all is,
//!   where at least `nodes_min` nodes had `requests_min` requests each since the last.
//! - It stays out for `ejection` times the number of its ejections, at most `ejection_max`; each time it is not ejected
//!   for as long, one is forgotten.
//! - At most `ejected_share_max` of the nodes are out at once, but one if there are others, and never all: if all are
//!   bad the fault is elsewhere.
//!
//! Beyond Envoy's, a node that comes back takes a part of its requests that grows from `return_share` to all over
//! `return_time`, for a cache that was away is cold, and its misses are somebody's load.

use std::time::{Duration, Instant};

/// When nodes are left out, and how they return.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierConfig {
    /// Failures in a row that eject a node at once.
    pub failures_max: u32,
    /// How far below the mean a success rate may lie, in standard deviations.
    pub deviations: f64,
    /// Nodes with enough requests that it takes to compare them.
    pub nodes_min: u32,
    /// Requests since the last sweep that are enough.
    pub requests_min: u32,
    /// How often success rates are compared.
    pub sweep: Duration,
    /// How long the first ejection takes.
    pub ejection: Duration,
    /// How long any ejection takes at most.
    pub ejection_max: Duration,
    /// The part of all nodes that may be out at once.
    pub ejected_share_max: f64,
    /// What a node takes of its requests when it comes back.
    pub return_share: f64,
    /// How long it takes until it takes all.
    pub return_time: Duration,
}

impl Default for OutlierConfig {
    /// Envoy's, but for what it has not, and for a third of the nodes that may be out, where it says a tenth.
    fn default() -> Self {
        Self {
            failures_max: 5,
            deviations: 1.9,
            nodes_min: 5,
            requests_min: 100,
            sweep: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            ejected_share_max: 0.34,
            return_share: 0.1,
            return_time: Duration::from_secs(30),
        }
    }
}

/// How each of several nodes, called by their index, does.
#[derive(Clone, Debug)]
pub struct Outliers {
    config: OutlierConfig,
    nodes: Vec<Node>,
    next_sweep: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    in_a_row: u32,
    /// Since the last sweep.
    requests: u32,
    successes: u32,
    /// Ejections that are not forgotten.
    ejections: u32,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, Default)]
enum Standing {
    #[default]
    In,
    Out {
        until: Instant,
    },
    /// It came back then.
    Back {
        since: Instant,
        forget_at: Instant,
    },
}

impl Outliers {
    /// So many nodes, all in.
    pub fn new(config: OutlierConfig, nodes: usize) -> Self {
        Self { config, nodes: vec![Node::default(); nodes], next_sweep: None }
    }

    /// `index` is who `known` calls `known_index`: what was learnt of it there holds here.
    pub fn adopt(&mut self, index: usize, known: &Self, known_index: usize) {
        if let (Some(node), Some(known)) = (self.nodes.get_mut(index), known.nodes.get(known_index))
        {
            *node = *known;
        }
    }

    /// A request to `index` ended; tells whether the node is out because of it. `is_success` also where the answer is
    /// an error that is the caller's.
    pub fn record(&mut self, now: Instant, index: usize, is_success: bool) -> bool {
        self.sweep(now);
        let Some(node) = self.nodes.get_mut(index) else { return false };
        node.requests = node.requests.saturating_add(1);
        if is_success {
            node.successes = node.successes.saturating_add(1);
            node.in_a_row = 0;
            return false;
        }
        node.in_a_row = node.in_a_row.saturating_add(1);
        // Requests that were under way tell nothing new of a node that is out.
        node.in_a_row >= self.config.failures_max
            && !matches!(node.standing, Standing::Out { .. })
            && self.eject(now, index)
    }

    /// The part of its requests that a node takes: nothing while it is out, all while it is in.
    pub fn share(&self, now: Instant, index: usize) -> f64 {
        let Some(node) = self.nodes.get(index) else { return 0.0 };
        let since = match node.standing {
            Standing::In => return 1.0,
            Standing::Out { until } if now < until => return 0.0,
            Standing::Out { until } => until,
            Standing::Back { since, .. } => since,
        };
        let whole = self.config.return_time.as_secs_f64();
        let age = now.saturating_duration_since(since).as_secs_f64();
        let first = self.config.return_share.clamp(0.0, 1.0);
        if age >= whole { 1.0 } else { first + (1.0 - first) * age / whole }
    }

    /// Whether a node takes this request. `draw`, in [0, 1), comes from a generator where the nodes are equals; where
    /// keys belong to nodes, from the key's hash, so that each key comes back once and does not go to and fro.
    pub fn takes(&self, now: Instant, index: usize, draw: f64) -> bool {
        draw < self.share(now, index)
    }

    /// Nodes that are out.
    pub fn ejected(&self, now: Instant) -> impl Iterator<Item = usize> + '_ {
        let is_out =
            move |node: &Node| matches!(node.standing, Standing::Out { until } if now < until);
        (0..self.nodes.len()).filter(move |&index| is_out(&self.nodes[index]))
    }

    /// Lets back in who was out for long enough, and compares success rates when that is due. [`Outliers::record`]
    /// calls it.
    pub fn sweep(&mut self, now: Instant) {
        for node in &mut self.nodes {
            match node.standing {
                Standing::Out { until } if now >= until => {
                    let forget_at = until + out_for(&self.config, node.ejections);
                    node.standing = Standing::Back { since: until, forget_at };
                    node.in_a_row = 0;
                }
                Standing::Back { since, forget_at } if now >= forget_at => {
                    node.ejections = node.ejections.saturating_sub(1);
                    let forget_at = now + out_for(&self.config, node.ejections);
                    node.standing = match node.ejections {
                        // Whether it takes all again is for `share` to say.
                        0 if now.saturating_duration_since(since) >= self.config.return_time => {
                            Standing::In
                        }
                        _ => Standing::Back { since, forget_at },
                    };
                }
                _ => {}
            }
        }
        let due = *self.next_sweep.get_or_insert(now + self.config.sweep);
        if now >= due {
            self.next_sweep = Some(now + self.config.sweep);
            self.compare(now);
        }
    }

    fn compare(&mut self, now: Instant) {
        let config = self.config;
        let rates: Vec<(usize, f64)> = (0..)
            .zip(&self.nodes)
            .filter(|(_, node)| {
                node.requests >= config.requests_min.max(1)
                    && !matches!(node.standing, Standing::Out { .. })
            })
            .map(|(index, node)| (index, f64::from(node.successes) / f64::from(node.requests)))
            .collect();
        for node in &mut self.nodes {
            (node.requests, node.successes) = (0, 0);
        }
        let count = u32::try_from(rates.len()).unwrap_or(u32::MAX);
        if count < config.nodes_min.max(1) {
            return;
        }
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / f64::from(count);
        let squares = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>();
        let bound = mean - config.deviations * (squares / f64::from(count)).sqrt();
        for (index, _) in rates.into_iter().filter(|&(_, rate)| rate < bound) {
            self.eject(now, index);
        }
    }

    /// Tells whether there was room to.
    fn eject(&mut self, now: Instant, index: usize) -> bool {
        let count = self.nodes.len();
        let out = self.ejected(now).count();
        let share = (out + 1) as f64 / count as f64;
        let is_allowed = out == 0 || share <= self.config.ejected_share_max;
        if !is_allowed || out + 1 >= count {
            return false;
        }
        let node = &mut self.nodes[index];
        node.ejections = node.ejections.saturating_add(1);
        node.standing = Standing::Out { until: now + out_for(&self.config, node.ejections) };
        true
    }
}

fn out_for(config: &OutlierConfig, ejections: u32) -> Duration {
    config.ejection.saturating_mul(ejections.max(1)).min(config.ejection_max)
}
