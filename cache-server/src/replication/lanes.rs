//! Lanes: the data connections to other nodes, one way each, that any thread may send on.
//!
//! ```text
//! under a shard's lock:  push ──> | frame in the making |        after the turn:  flush
//!                                        │ whole            ──> socket, tried at once
//!                                 | frames not yet sent |   ──> the lane's task, when the socket is full
//! ```
//!
//! - A store shard always uses the same lane to a node. What is pushed under its lock leaves in that order,
//!   so a shard's messages to a node never overtake each other.
//! - What is pushed while a lane is down is dropped: the shard protocol says again what matters.
//! - A peer that does not take what it is sent holds up nobody: beyond a limit the lane is cut, and its
//!   shards go on without that node.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use cluster::NodeId;
use parking_lot::{Mutex, RwLock};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::peer::frame::{FrameEncoder, FrameStart};

/// A frame is closed when its payload comes to this many bytes.
const FRAME_BYTES: usize = 64 << 10;
/// A lane is cut when this many bytes wait for its peer.
const BACKLOG_BYTES_MAX: usize = 256 << 20;
/// Room that an idle lane keeps.
const KEPT_BYTES: usize = 1 << 20;

/// Where a lane's bytes go.
pub(crate) trait Sink: Send + Sync {
    /// Writes what can be written at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when that is nothing; else the connection is lost.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl Sink for OwnedWriteHalf {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}

/// One data connection to one node.
pub(crate) struct Lane {
    node: NodeId,
    index: u16,
    state: Mutex<State>,
    /// Told when the lane's task has something to write, or to end.
    attention: Notify,
    backlog_bytes: AtomicUsize,
    sent_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Frames, of which the first `sent` bytes are gone.
    frames: Vec<u8>,
    sent: usize,
    /// The last of them, while it is in the making.
    open: Option<OpenFrame>,
    /// The connection, if it is up. Without a sink it is written by its task alone.
    link: Option<Link>,
}

struct Link {
    encoder: FrameEncoder,
    sink: Option<Arc<dyn Sink>>,
    is_blocked: bool,
}

struct OpenFrame {
    start: FrameStart,
    at: usize,
}

/// What the lane's task is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Wait for [`Lane::attention`].
    Nothing,
    /// The socket is full: wait until it can be written, then [`Lane::unblock`].
    AwaitWritable,
    /// Write this, all of it.
    Write(Vec<u8>),
    /// Give the connection up.
    Close,
}

impl Lane {
    /// A lane that is down.
    pub(crate) fn new(node: NodeId, index: u16) -> Self {
        Self {
            node,
            index,
            state: Mutex::default(),
            attention: Notify::new(),
            backlog_bytes: AtomicUsize::new(0),
            sent_bytes: AtomicU64::new(0),
        }
    }

    /// The node at its end.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Which of that node's lanes.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Bytes that wait for the peer.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes.load(Ordering::Relaxed)
    }

    /// Whether messages are taken.
    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().link.is_some()
    }

    /// Lets `write` append a message. False when the lane is down: it is dropped then.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.state.lock();
        let State { frames, open, link: Some(link), .. } = &mut *state else { return false };
        let at = frames.len();
        let at = open.get_or_insert_with(|| OpenFrame { start: link.encoder.begin(frames), at }).at;
        write(frames);
        if frames.len() - at >= FRAME_BYTES {
            state.close_frame();
        }
        true
    }

    /// Sends what was pushed, as far as the socket takes it.
    pub(crate) fn flush(&self) {
        let mut state = self.state.lock();
        let before = state.sent;
        let outcome = state.flush();
        let sent = state.sent.saturating_sub(before);
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        state.tidy();
        self.backlog_bytes.store(state.backlog(), Ordering::Relaxed);
        let is_over = outcome.is_err() || state.backlog() > BACKLOG_BYTES_MAX;
        if is_over {
            state.cut();
        }
        let needs_task = is_over || state.link.as_ref().is_some_and(Link::needs_task);
        drop(state);
        if needs_task {
            self.attention.notify_one();
        }
    }

    /// The connection is up: what is pushed from now on is sent. `sink` is where any thread may write;
    /// without one the lane's task alone does.
    pub(crate) fn connect(&self, encoder: FrameEncoder, sink: Option<Arc<dyn Sink>>) {
        let link = Some(Link { encoder, sink, is_blocked: false });
        *self.state.lock() = State { link, ..State::default() };
        self.backlog_bytes.store(0, Ordering::Relaxed);
    }

    /// The connection is lost.
    pub(crate) fn disconnect(&self) {
        self.state.lock().cut();
        self.backlog_bytes.store(0, Ordering::Relaxed);
    }

    /// Waits until [`Lane::work`] may say something new.
    pub(crate) async fn attention(&self) {
        self.attention.notified().await;
    }

    /// Has the lane's task look at what there is to do.
    pub(crate) fn call_attention(&self) {
        self.attention.notify_one();
    }

    /// What the lane's task is to do.
    pub(crate) fn work(&self) -> Work {
        let mut state = self.state.lock();
        let Some(link) = &state.link else { return Work::Close };
        if link.sink.is_some() {
            return if link.is_blocked { Work::AwaitWritable } else { Work::Nothing };
        }
        state.close_frame();
        let frames = std::mem::take(&mut state.frames);
        self.backlog_bytes.store(0, Ordering::Relaxed);
        if frames.is_empty() { Work::Nothing } else { Work::Write(frames) }
    }

    /// The socket can be written again.
    pub(crate) fn unblock(&self) {
        if let Some(link) = &mut self.state.lock().link {
            link.is_blocked = false;
        }
        self.flush();
    }
}

impl Link {
    fn needs_task(&self) -> bool {
        self.is_blocked || self.sink.is_none()
    }
}

impl State {
    fn backlog(&self) -> usize {
        self.frames.len() - self.sent
    }

    fn close_frame(&mut self) {
        let (Some(open), Some(link)) = (self.open.take(), &mut self.link) else { return };
        if let Err(error) = link.encoder.finish(open.start, &mut self.frames) {
            // One message is never as long as that.
            tracing::error!("what was to be sent to another node is dropped: {error}");
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.close_frame();
        let Some(link) = &mut self.link else { return Ok(()) };
        let Some(sink) = &link.sink else { return Ok(()) };
        while !link.is_blocked && self.sent < self.frames.len() {
            match sink.try_write(&self.frames[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.is_blocked = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn tidy(&mut self) {
        if self.sent == self.frames.len() {
            self.frames.clear();
            self.frames.shrink_to(KEPT_BYTES);
            self.sent = 0;
        } else if self.sent > KEPT_BYTES {
            self.frames.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn cut(&mut self) {
        *self = Self::default();
    }
}

/// The lanes to all nodes.
pub(crate) struct Lanes {
    per_node: u16,
    by_node: RwLock<BTreeMap<NodeId, Arc<[Arc<Lane>]>>>,
    /// How often a node came or went.
    changes: AtomicU64,
}

/// The lanes of one store shard, as it used them last.
#[derive(Default)]
pub(crate) struct KnownLanes {
    changes: u64,
    lanes: Vec<(NodeId, Arc<Lane>)>,
}

impl KnownLanes {
    /// The lane to `node` of store shard `store_shard`, which is the same with every call.
    #[inline]
    pub(crate) fn get(
        &mut self,
        all: &Lanes,
        node: NodeId,
        store_shard: u32,
    ) -> Option<&Arc<Lane>> {
        let changes = all.changes.load(Ordering::Acquire);
        if changes != self.changes {
            self.lanes.clear();
            self.changes = changes;
        }
        let known = self.lanes.iter().position(|&(other, _)| other == node);
        let index = match known {
            Some(index) => index,
            None => {
                self.lanes.push((node, all.get(node, store_shard)?));
                self.lanes.len() - 1
            }
        };
        Some(&self.lanes[index].1)
    }
}

impl Lanes {
    /// `per_node` lanes to each node, none of them up.
    pub(crate) fn new(per_node: u16) -> Self {
        Self { per_node, by_node: RwLock::default(), changes: AtomicU64::new(0) }
    }

    /// How many there are to each node.
    pub(crate) fn per_node(&self) -> u16 {
        self.per_node
    }

    /// The lane to `node` of store shard `store_shard`.
    pub(crate) fn get(&self, node: NodeId, store_shard: u32) -> Option<Arc<Lane>> {
        let lane = store_shard as usize % usize::from(self.per_node);
        self.by_node.read().get(&node).map(|lanes| Arc::clone(&lanes[lane]))
    }

    /// The lanes to `node`, made if it is new.
    pub(crate) fn open(&self, node: NodeId) -> Arc<[Arc<Lane>]> {
        if let Some(lanes) = self.by_node.read().get(&node) {
            return Arc::clone(lanes);
        }
        let lanes = || (0..self.per_node).map(|index| Arc::new(Lane::new(node, index))).collect();
        let lanes = Arc::clone(self.by_node.write().entry(node).or_insert_with(lanes));
        self.changes.fetch_add(1, Ordering::AcqRel);
        lanes
    }

    /// Forgets a node that left.
    pub(crate) fn close(&self, node: NodeId) {
        if let Some(lanes) = self.by_node.write().remove(&node) {
            self.changes.fetch_add(1, Ordering::AcqRel);
            for lane in lanes.iter() {
                lane.disconnect();
                lane.call_attention();
            }
        }
    }

    /// The nodes to which there are lanes.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.by_node.read().keys().copied().collect()
    }

    /// Bytes that wait for `node`.
    pub(crate) fn backlog_bytes(&self, node: NodeId) -> usize {
        let by_node = self.by_node.read();
        by_node.get(&node).map_or(0, |lanes| lanes.iter().map(|lane| lane.backlog_bytes()).sum())
    }

    /// Bytes sent to all nodes so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let by_node = self.by_node.read();
        let lanes = by_node.values().flat_map(|lanes| lanes.iter());
        lanes.map(|lane| lane.sent_bytes.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    #[test]
    fn known_lane_is_the_one_that_there_is_now() {
        let all = Lanes::new(3);
        let mut known = KnownLanes::default();
        assert!(known.get(&all, NODE, 7).is_none(), "nobody is there yet");
        let first = all.open(NODE);
        assert!(Arc::ptr_eq(known.get(&all, NODE, 7).unwrap(), &first[1]));
        all.close(NODE);
        assert!(known.get(&all, NODE, 7).is_none(), "it left");
        let second = all.open(NODE);
        assert!(
            Arc::ptr_eq(known.get(&all, NODE, 7).unwrap(), &second[1]),
            "another, of the same id"
        );
    }
}
