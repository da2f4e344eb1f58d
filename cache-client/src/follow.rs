//! Following a cluster: its map is asked for, by time and by hints, and a new one makes a new fleet.
//!
//! A task of its own, which ends with the client. It polls the short list of nodes, whose first line is the map's
//! revision, and asks for the map when that has grown. A hint (a node that could not be reached, a cas of an epoch
//! that the map does not know) has it asked for at once, though no more often than each [`INTERVAL_MIN`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::Inner;
use crate::config::Config;
use crate::connection::command::{Command, Reply};
use crate::connection::random_number;
use crate::error::Error;
use crate::fleet::Fleet;
use crate::pool::Node;
use crate::random::Random;
use crate::retry::{Backoff, Refresh, RefreshConfig};
use crate::routing::Map;

/// The least time between two questions, whatever happens.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Follows the map until the client is gone.
pub(crate) async fn follow(client: Weak<Inner>, poll_interval: Duration) {
    let mut refresh = Refresh::new(RefreshConfig {
        lifetime: poll_interval,
        lifetime_max: poll_interval,
        interval_min: INTERVAL_MIN,
        backoff: Backoff { first: INTERVAL_MIN, max: poll_interval.max(INTERVAL_MIN) },
    });
    let mut random = Random::new(random_number());
    let mut last_node = 0;
    loop {
        let hints = {
            let Some(client) = client.upgrade() else { return };
            refresh.ask(Instant::now().into_std());
            let is_known = client.refresh(&mut last_node).await;
            let now = Instant::now().into_std();
            if is_known {
                refresh.answered(now, None, &mut random);
            } else {
                refresh.failed(now, &mut random);
            }
            Arc::clone(&client.hints)
        };
        until_due(&mut refresh, &hints).await;
    }
}

/// Waits until the question is due again, which a hint makes sooner. A client that is gone is noticed then.
async fn until_due(refresh: &mut Refresh, hints: &Notify) {
    while let Some(due) = refresh.due_at()
        && tokio::time::timeout_at(due.into(), hints.notified()).await.is_ok()
    {
        refresh.lost(Instant::now().into_std());
    }
}

impl Inner {
    /// Asks one node after the other until one gives a map that can be used, beginning with the last that did. Whether
    /// one did.
    async fn refresh(&self, last_node: &mut usize) -> bool {
        let now = Instant::now();
        let fleet = self.fleet();
        let count = fleet.nodes().len();
        for turn in 0..count {
            let index = (*last_node + turn) % count;
            match self.refresh_from(&fleet, &fleet.nodes()[index]).await {
                Ok(()) => {
                    *last_node = index;
                    self.map_checks.send_replace(Some(now));
                    return true;
                }
                Err(error) => tracing::debug!(%error, "no map"),
            }
        }
        // None that the map names answers: begin again with those that were named by the user.
        if fleet.map().is_some() {
            let Config { servers, balance, .. } = &*self.config;
            let seeds = Fleet::of_equals(servers, balance, |address| self.open(address));
            let known = fleet.map().cloned();
            for seed in seeds.nodes() {
                match self.map_of(seed).await {
                    Ok(map) if known.as_ref().is_none_or(|known| known.cluster == map.cluster) => {
                        self.take(map, &fleet);
                        return true;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        false
    }

    async fn refresh_from(&self, fleet: &Fleet, node: &Node) -> Result<(), FollowError> {
        let Some(known) = fleet.map() else {
            let map = self.map_of(node).await?;
            self.take(map, fleet);
            return Ok(());
        };
        let nodes = self.text_of(node, &Command::Nodes).await?;
        if Map::revision_in(&nodes)? <= known.revision {
            return Ok(());
        }
        let mut map = known.clone();
        if map.update(self.map_of(node).await?)? {
            self.take(map, fleet);
        }
        Ok(())
    }

    fn take(&self, map: Map, known: &Fleet) {
        tracing::debug!(revision = map.revision, "a new map");
        let (reads, balance) = (self.reads(), &self.config.balance);
        let open = |address| self.open(address);
        self.set_fleet(Fleet::of_map(map, known, reads, balance, Instant::now(), open));
    }

    async fn map_of(&self, node: &Node) -> Result<Map, FollowError> {
        Ok(Map::parse(&self.text_of(node, &Command::Shards).await?)?)
    }

    async fn text_of(&self, node: &Node, list: &Command<'_>) -> Result<Vec<u8>, FollowError> {
        let now = Instant::now();
        match node.connection().ask(list, now, now + self.config.timeout).await? {
            Reply::Text(text) => Ok(text),
            _ => Ok(Vec::new()),
        }
    }
}

/// Why a node gave no map that can be used.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Asking(#[from] Error),
    #[error(transparent)]
    Map(#[from] crate::routing::MapError),
    #[error(transparent)]
    Other(#[from] crate::routing::OtherCluster),
}
