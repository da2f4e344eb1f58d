//! A stream of changes from every server: connected, pinged, made again when it is lost; and whose stream tells of which
//! keys.
//!
//! A task a server. In a cluster one more task hears of each look at the map: a new map begins with nothing near, and
//! how long ago the last look was bounds what may be served, since a server that nobody here knows of tells nothing.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use protocol::changes::{PING, encode_request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::state::{SourceId, Token};
use super::stream::{Lost, Stream, Told};
use super::{NearConfig, Shared};
use crate::Client;
use crate::address::Address;
use crate::config::Config;
use crate::connection::random_number;
use crate::connection::transport::Transport;
use crate::error::ConnectError;
use crate::fleet::Fleet;
use crate::random::Random;
use crate::resolve::Lookup;

/// How long a server that refuses a stream is left in peace. It may know none.
const REFUSED_DELAY: Duration = Duration::from_secs(10);

/// Bytes read at once.
const INPUT_BYTES: usize = 16 << 10;

/// The streams of a fleet.
pub(super) struct Streams {
    /// Whose they are.
    fleet: Arc<Fleet>,
    /// In the order of the fleet's nodes.
    nodes: Vec<NodeStream>,
    /// The last number of a source that was given.
    last: u64,
}

struct NodeStream {
    address: Address,
    source: SourceId,
    task: AbortHandle,
}

impl Streams {
    /// None yet.
    pub(super) fn new(client: &Client) -> Self {
        Self { fleet: client.inner.fleet(), nodes: Vec::new(), last: SourceId::MAP.0 }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| node.task.abort());
    }
}

impl Shared {
    /// Begins to follow all servers.
    pub(super) fn follow(self: &Arc<Self>) {
        let fleet = self.client.inner.fleet();
        self.follow_fleet(&mut self.streams.lock(), fleet);
        if let Some(map_age_max) = self.map_age_max() {
            self.state.lock().add_source(SourceId::MAP);
            tokio::spawn(follow_map(Arc::downgrade(self), map_age_max));
        }
    }

    /// The servers are these from now on.
    fn follow_fleet(self: &Arc<Self>, streams: &mut Streams, fleet: Arc<Fleet>) {
        let mut before = std::mem::take(&mut streams.nodes);
        for node in fleet.nodes() {
            let address = node.address();
            let known = before.iter().position(|it| it.address == *address);
            let followed = match known {
                Some(place) => before.swap_remove(place),
                None => {
                    streams.last += 1;
                    self.follow_node(address.clone(), SourceId(streams.last))
                }
            };
            streams.nodes.push(followed);
        }
        streams.fleet = fleet;
        for gone in before {
            gone.task.abort();
            self.state.lock().remove_source(gone.source);
        }
    }

    fn follow_node(self: &Arc<Self>, address: Address, source: SourceId) -> NodeStream {
        self.state.lock().add_source(source);
        let task = tokio::spawn(follow_node(Arc::downgrade(self), address.clone(), source));
        NodeStream { address, source, task: task.abort_handle() }
    }

    /// A server is about to be asked for a key.
    pub(super) fn begin(&self, key: &[u8], now: std::time::Instant) -> Token {
        // Held until there is a token: a map that changes from here on makes it worthless.
        let streams = self.streams.lock();
        self.state.lock().begin(key, &self.sources_of(key, &streams), now)
    }

    /// All who could tell of a change of this key; none where that is not known.
    fn sources_of(&self, key: &[u8], streams: &Streams) -> Vec<SourceId> {
        let fleet = self.client.inner.fleet();
        if !Arc::ptr_eq(&fleet, &streams.fleet) {
            return Vec::new();
        }
        let holders = fleet.holders(key);
        let mut sources: Vec<_> =
            holders.iter().filter_map(|&holder| Some(streams.nodes.get(holder)?.source)).collect();
        if !sources.is_empty() && self.map_age_max().is_some() {
            sources.push(SourceId::MAP);
        }
        sources
    }

    /// A cluster's map was looked at.
    fn map_checked(self: &Arc<Self>, at: Instant, map_age_max: Duration) {
        let fleet = self.client.inner.fleet();
        let mut streams = self.streams.lock();
        if !Arc::ptr_eq(&fleet, &streams.fleet) {
            self.follow_fleet(&mut streams, fleet);
            self.state.lock().flush();
        }
        self.state.lock().heard(SourceId::MAP, at.into_std(), map_age_max);
    }
}

/// Follows the looks at a cluster's map, until client or cache are gone.
async fn follow_map(shared: Weak<Shared>, map_age_max: Duration) {
    let Some(mut checks) = shared.upgrade().map(|it| it.client.inner.map_checks.subscribe()) else {
        return;
    };
    loop {
        let checked = *checks.borrow_and_update();
        let Some(shared) = shared.upgrade() else { return };
        if let Some(at) = checked {
            shared.map_checked(at, map_age_max);
        }
        drop(shared);
        if checks.changed().await.is_err() {
            return;
        }
    }
}

/// Follows one server's changes, until it is stopped.
async fn follow_node(shared: Weak<Shared>, address: Address, source: SourceId) {
    let mut random = Random::new(random_number());
    let mut failures = 0;
    loop {
        let Some((config, near)) =
            shared.upgrade().map(|it| (Arc::clone(&it.client.inner.config), it.config.clone()))
        else {
            return;
        };
        let Err(ended) =
            follow_stream(&shared, &address, &config, &near, source, &mut failures).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.state.lock().lost(source);
        drop(shared);
        let delay = match ended {
            Ended::Lost(Lost::Refused(_)) => REFUSED_DELAY,
            _ => delay_after(failures, &config),
        };
        tracing::debug!(%address, %ended, ?delay, "no stream of changes");
        failures += 1;
        sleep(delay.mul_f64(0.5 + random.unit() / 2.0)).await;
    }
}

/// Doubled with each failure.
fn delay_after(failures: u32, config: &Config) -> Duration {
    let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
    let connection = &config.connection;
    connection.reconnect_delay.saturating_mul(factor).min(connection.reconnect_delay_max)
}

/// Why a server's changes are not known at present.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connecting(#[from] ConnectError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the connection was lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server's name has other addresses")]
    Moved,
    #[error("nobody needs it any more")]
    Unneeded,
}

/// Follows one stream to its end.
async fn follow_stream(
    shared: &Weak<Shared>,
    address: &Address,
    config: &Config,
    near: &NearConfig,
    source: SourceId,
    failures: &mut u32,
) -> Result<Infallible, Ended> {
    let attempt = *failures as usize;
    let connecting = Transport::connect(address, &config.connection, &*config.resolver, attempt);
    let (transport, lookup) = connecting.await?;
    let mut moved = pin!(until_moved(config, lookup));
    let (mut read, mut write) = tokio::io::split(transport);
    let mut stream = Stream::new(near.pace(), Instant::now().into_std());
    let mut output = Output::default();
    encode_request(near.prefixes.iter().map(Vec::as_slice), &mut output.bytes);
    let mut input = vec![0; INPUT_BYTES];
    loop {
        let wakes_at = Instant::from_std(stream.wakes_at());
        tokio::select! {
            count = read.read(&mut input) => {
                let count = count?;
                if count == 0 {
                    return Err(Ended::Closed);
                }
                let shared = shared.upgrade().ok_or(Ended::Unneeded)?;
                let mut state = shared.state.lock();
                stream.input(&input[..count], |told| match told {
                    Told::Open { through } => {
                        *failures = 0;
                        state.heard(source, through, near.silence_max);
                    }
                    Told::Alive { through } => state.heard(source, through, near.silence_max),
                    Told::Key(key) => state.changed(key),
                    Told::All => state.flush(),
                })?;
            }
            step = write_step(&mut write, &output), if output.is_left() => output.done(step?)?,
            () = sleep_until(wakes_at) => {}
            () = &mut moved => return Err(Ended::Moved),
        }
        if stream.tick(Instant::now().into_std())? {
            output.bytes.push(PING);
        }
    }
}

/// Waits until the server's name has other addresses.
async fn until_moved(config: &Config, lookup: Option<Lookup>) {
    match lookup.zip(config.resolve) {
        Some((lookup, refresh)) => {
            lookup.until_moved(Arc::clone(&config.resolver), refresh, random_number()).await;
        }
        None => pending().await,
    }
}

/// What is to be said to a server.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// Whether some of it may not have left yet.
    is_unflushed: bool,
}

/// A step on its way there.
enum Step {
    Written(usize),
    Flushed,
}

impl Output {
    fn is_left(&self) -> bool {
        !self.bytes.is_empty() || self.is_unflushed
    }

    fn done(&mut self, step: Step) -> Result<(), Ended> {
        match step {
            Step::Written(0) => return Err(Ended::Closed),
            Step::Written(count) => {
                self.bytes.drain(..count);
                self.is_unflushed = true;
            }
            Step::Flushed => self.is_unflushed = false,
        }
        Ok(())
    }
}

/// One step, which may be given up before it is done and then has done nothing.
async fn write_step(write: &mut WriteHalf<Transport>, output: &Output) -> std::io::Result<Step> {
    if output.bytes.is_empty() {
        write.flush().await?;
        return Ok(Step::Flushed);
    }
    write.write(&output.bytes).await.map(Step::Written)
}
