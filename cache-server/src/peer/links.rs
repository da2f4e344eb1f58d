//! Control connections: one to every other node, kept alive, and one from each.
//!
//! ```text
//! this node                                     another node
//!   outgoing | -- messages, calls ------------> | incoming
//!            | <- replies --------------------- |
//!   incoming | <- messages, calls ------------- | outgoing
//!            | -- replies --------------------> |
//! ```
//!
//! The payload of a frame:
//!
//! ```text
//! | 0, u8 | message |             one way
//! | 1, u8 | id, u64 LE | call |   answered by one of the two below, in any order
//! | 2, u8 | id, u64 LE | reply |
//! | 3, u8 | id, u64 LE |          too many calls at once
//! ```
//!
//! - A message is sent once if the link is up, and otherwise dropped and counted: what matters is said again.
//! - A call ends with its reply or for a stated reason, within its deadline. Only [`CallError::NoLink`],
//!   [`CallError::Busy`] and [`CallError::TooLong`] mean that it was not carried out.
//! - Nothing is carried over from one connection to the next: what was queued when a link goes down is gone.
//!
//! All of it belongs to the thread of the control plane: a current-thread runtime and a `LocalSet`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Member, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::peer::accept::Acceptor;
use crate::peer::connection::{self, ConnectionError, PeerConnection};
use crate::peer::counters::PeerCounters;
use crate::peer::dial::{ConnectError, Dialler, Target};
use crate::peer::frame::{FrameDecoder, FrameEncoder, FrameError};
use crate::peer::handshake::{Hello, Identity, Purpose, Reason, Refused};
use crate::peer::tls::Security;

/// The pause after the first failure to connect; doubled with each until [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause between two attempts. A link that held for as long begins anew at [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Frames that may wait for a peer.
const QUEUED_MAX: usize = 4096;

/// Bytes that may wait for a peer; several of the longest frames.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Frames are written together up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Calls of one peer that are carried out at once.
const CALLS_MAX: usize = 1024;

/// The bytes before a call.
const CALL_HEAD_BYTES: usize = 9;

const MESSAGE: u8 = 0;
const CALL: u8 = 1;
const REPLY: u8 = 2;
const BUSY: u8 = 3;

/// The answer to a call, to come; on the thread of the control plane.
pub type Reply = Pin<Box<dyn Future<Output = Bytes>>>;

/// Hears what other nodes say. Called on the thread of the control plane, between other things: quick.
pub trait Handler {
    /// `from` sent a message. In the order in which they were sent, some may be missing.
    fn on_message(&self, from: Member, payload: Bytes);
    /// `from` calls. The reply is awaited in a task of its own, even if the link goes down meanwhile.
    fn on_call(&self, from: Member, payload: Bytes) -> Reply;
    /// The link to another node changed.
    fn on_link(&self, event: LinkEvent);
}

/// What happened to the link to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Messages and calls reach it, in this life of it.
    Up(Member),
    /// They do no longer.
    Down(Member),
    /// It refuses this node; told once until the reason changes.
    Refused(NodeId, Refused),
}

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no link to the node: it was not called.
    #[error("no link to the node")]
    NoLink,
    /// Too much is queued for the node or it has too much to do: it did not carry the call out.
    #[error("too many calls at once")]
    Busy,
    /// No frame holds it: the node was not called.
    #[error("a call that is too long")]
    TooLong,
    /// The link went down; whether the call was carried out is not known.
    #[error("the link went down before the reply")]
    LinkLost,
    /// The deadline passed; whether the call was carried out, or will be, is not known.
    #[error("no reply in time")]
    TimedOut,
}

/// What links are made from.
#[derive(Debug)]
pub struct LinksConfig {
    /// Who this node is.
    pub identity: Identity,
    /// How connections are protected.
    pub security: Arc<Security>,
    /// What is counted.
    pub counters: Arc<PeerCounters>,
    /// Draws the pauses between attempts to connect.
    pub seed: u64,
}

/// Who else there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The nodes to be linked to, with their peer addresses (`host:port`). This node is ignored.
    pub peers: BTreeMap<NodeId, String>,
    /// Nodes whose connections are refused, for they left.
    pub removed: BTreeSet<NodeId>,
}

/// The links of one node. Clones are the same links; they end with [`Links::stop`] or the `LocalSet`.
#[derive(Clone)]
pub struct Links {
    shared: Rc<Shared>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

struct Shared {
    identity: Identity,
    dialler: Dialler,
    counters: Arc<PeerCounters>,
    seed: u64,
    handler: Rc<dyn Handler>,
    roster: RefCell<Roster>,
    outgoing: RefCell<BTreeMap<NodeId, Outgoing>>,
    incoming: RefCell<BTreeMap<NodeId, Incoming>>,
    accepting: RefCell<Option<Task>>,
    local_address: SocketAddr,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A peer that is to be linked to.
struct Outgoing {
    address: String,
    link: Rc<Link>,
    _task: Task,
}

/// A peer that is linked to this node.
struct Incoming {
    member: Member,
    /// Told apart from an earlier connection of the same member by where it comes from.
    address: SocketAddr,
    _task: Task,
}

impl Links {
    /// Listens on `listener` (see [`crate::peer::accept::bind`]) and connects to nobody until
    /// [`Links::set_roster`]. Connections that are no links are sent to `handed_on`, and dropped if
    /// it is full.
    ///
    /// Within a `LocalSet` of the runtime of the control plane.
    ///
    /// # Errors
    ///
    /// When the listener cannot be registered with the runtime.
    pub fn start(
        config: LinksConfig,
        listener: std::net::TcpListener,
        handler: Rc<dyn Handler>,
        handed_on: Sender<PeerConnection>,
    ) -> io::Result<Self> {
        let LinksConfig { identity, security, counters, seed } = config;
        let listener = TcpListener::from_std(listener)?;
        let shared = Rc::new(Shared {
            identity,
            dialler: Dialler::new(identity, Arc::clone(&security), Arc::clone(&counters)),
            counters: Arc::clone(&counters),
            seed,
            handler,
            roster: RefCell::default(),
            outgoing: RefCell::default(),
            incoming: RefCell::default(),
            accepting: RefCell::default(),
            local_address: listener.local_addr()?,
        });
        let (admitting, delivering) = (Rc::downgrade(&shared), Rc::downgrade(&shared));
        let acceptor = Acceptor {
            identity,
            security,
            counters,
            admit: Box::new(move |hello| match admitting.upgrade() {
                Some(shared) => shared.admit(hello),
                None => Err(Refused::new(Reason::Other, "this node is stopping")),
            }),
            deliver: Box::new(move |connection| {
                let Some(shared) = delivering.upgrade() else { return };
                match (connection.purpose, connection.peer) {
                    (Purpose::Control, Some(member)) => shared.serve(member, connection),
                    _ if handed_on.try_send(connection).is_err() => {
                        shared.counters.not_taken.increment();
                    }
                    _ => {}
                }
            }),
        };
        let accepting = Task(spawn_local(acceptor.run(listener)));
        *shared.accepting.borrow_mut() = Some(accepting);
        Ok(Self { shared })
    }

    /// Says who else there is. Links to nodes whose address is unchanged stay as they are; links to nodes
    /// that are no longer named end, and so do those from nodes that were removed.
    pub fn set_roster(&self, mut roster: Roster) {
        let shared = &self.shared;
        roster.peers.remove(&shared.identity.member.node);
        roster.peers.retain(|node, _| !roster.removed.contains(node));
        let mut ended = Vec::new();
        {
            let mut outgoing = shared.outgoing.borrow_mut();
            outgoing.retain(|node, peer| {
                let stays = roster.peers.get(node) == Some(&peer.address);
                if !stays {
                    ended.push(Rc::clone(&peer.link));
                }
                stays
            });
            for (&node, address) in &roster.peers {
                let connect = || shared.keep_connected(node, address.clone());
                outgoing.entry(node).or_insert_with(connect);
            }
            shared.incoming.borrow_mut().retain(|node, _| !roster.removed.contains(node));
            *shared.roster.borrow_mut() = roster;
        }
        for link in ended {
            shared.go_down(&link);
        }
    }

    /// Sends a message; says whether it was queued. It is not if the link is down or it is too long. When
    /// the queue is full the oldest messages in it make room.
    pub fn send(&self, to: NodeId, payload: Bytes) -> bool {
        let link = self.shared.link(to);
        let link = link.filter(|link| link.up.get().is_some() && fits(&payload));
        let queued = link.is_some_and(|link| {
            link.outbox.push(Envelope { kind: MESSAGE, id: 0, payload }, &self.shared.counters)
        });
        if !queued {
            self.shared.counters.messages_dropped.increment();
        }
        queued
    }

    /// Calls a node and awaits its reply, for as long as `deadline` at the most. Dropping the future gives
    /// the call up; one that was not sent by then never is.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call(
        &self,
        to: NodeId,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        self.shared.counters.calls.increment();
        let reply = self.call_uncounted(to, payload, deadline).await;
        if reply.is_err() {
            self.shared.counters.calls_failed.increment();
        }
        reply
    }

    async fn call_uncounted(
        &self,
        to: NodeId,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        if !fits(&payload) {
            return Err(CallError::TooLong);
        }
        let link = self.shared.link(to).filter(|link| link.up.get().is_some());
        let link = link.ok_or(CallError::NoLink)?;
        let (mut call, reply) = PendingCall::new(&link);
        if !link.outbox.push(Envelope { kind: CALL, id: call.id, payload }, &self.shared.counters) {
            return Err(CallError::Busy);
        }
        let reply = timeout(deadline, reply).await;
        call.is_over = reply.is_ok();
        match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(CallError::LinkLost),
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// The life of `node` that is linked to; `None` if the link is down.
    pub fn linked(&self, node: NodeId) -> Option<Member> {
        self.shared.link(node)?.up.get()
    }

    /// All nodes that are linked to.
    pub fn all_linked(&self) -> Vec<Member> {
        let outgoing = self.shared.outgoing.borrow();
        outgoing.values().filter_map(|peer| peer.link.up.get()).collect()
    }

    /// Where this node is connected to, its port resolved.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local_address
    }

    /// What makes connections for other purposes in this node's name.
    pub fn dialler(&self) -> &Dialler {
        &self.shared.dialler
    }

    /// Ends all links and listens no more. Calls under way end with [`CallError::LinkLost`].
    pub fn stop(&self) {
        self.shared.accepting.borrow_mut().take();
        self.shared.incoming.borrow_mut().clear();
        self.set_roster(Roster::default());
    }
}

fn fits(payload: &Bytes) -> bool {
    payload.len() + CALL_HEAD_BYTES <= Purpose::Control.payload_bytes_max()
}

impl Shared {
    fn link(&self, node: NodeId) -> Option<Rc<Link>> {
        self.outgoing.borrow().get(&node).map(|peer| Rc::clone(&peer.link))
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refused> {
        let Some(from) = hello.from else { return Ok(()) };
        if self.roster.borrow().removed.contains(&from.node) {
            let text = format!(
                "node {} was removed from the cluster, and its id is not used again",
                from.node
            );
            return Err(Refused::new(Reason::RemovedNode, text));
        }
        let incoming = self.incoming.borrow();
        let superseded = incoming
            .get(&from.node)
            .is_some_and(|known| known.member.incarnation > from.incarnation);
        if superseded && hello.purpose == Purpose::Control {
            let text = format!("node {} is connected in a later life", from.node);
            return Err(Refused::new(Reason::Superseded, text));
        }
        Ok(())
    }

    fn keep_connected(self: &Rc<Self>, node: NodeId, address: String) -> Outgoing {
        let link = Rc::new(Link::default());
        let (shared, kept, to) = (Rc::clone(self), Rc::clone(&link), address.clone());
        let task =
            Task(spawn_local(async move { shared.connect_for_ever(node, &to, &kept).await }));
        Outgoing { address, link, _task: task }
    }

    async fn connect_for_ever(&self, node: NodeId, address: &str, link: &Link) {
        let mut pauses = Pauses::new(self.seed ^ u64::from(node.0));
        let mut said = String::new();
        loop {
            let connected =
                self.dialler.connect(address, Purpose::Control, Target::Node(node)).await;
            match connected {
                Ok(PeerConnection { stream, peer: Some(member), encoder, decoder, .. }) => {
                    said.clear();
                    tracing::info!(node = node.0, address, "link up");
                    let since = Instant::now();
                    link.up.set(Some(member));
                    self.handler.on_link(LinkEvent::Up(member));
                    let (reader, writer) = tokio::io::split(stream);
                    let outbox = &link.outbox;
                    let end = tokio::select! {
                        end = self.read_replies(reader, decoder, link) => end,
                        end = self.write(writer, encoder, outbox, |id| link.is_pending(id)) => end,
                    };
                    self.count_end(&end);
                    tracing::info!(node = node.0, address, "link down: {end}");
                    self.go_down(link);
                    if since.elapsed() >= PAUSE_MAX {
                        pauses.start_anew();
                    }
                }
                // A welcome names its node.
                Ok(_) => {}
                Err(error) => {
                    let text = error.to_string();
                    if text == said {
                        tracing::debug!(node = node.0, address, "no link: {text}");
                    } else {
                        tracing::warn!(node = node.0, address, "no link: {text}");
                        if let ConnectError::RefusedByPeer(refused) = error {
                            self.handler.on_link(LinkEvent::Refused(node, refused));
                        }
                        said = text;
                    }
                }
            }
            sleep(pauses.next()).await;
        }
    }

    /// Forgets what was under way on a link, and tells of it, if it was up.
    fn go_down(&self, link: &Link) {
        let was_up = link.up.take();
        link.outbox.clear();
        link.calls.take();
        if let Some(member) = was_up {
            self.handler.on_link(LinkEvent::Down(member));
        }
    }

    fn count_end(&self, end: &ConnectionError) {
        if end.is_peers_fault() {
            self.counters.malformed.increment();
        }
    }

    async fn read_replies(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut decoder: FrameDecoder,
        link: &Link,
    ) -> ConnectionError {
        loop {
            let frames = self.each_frame(&mut decoder, |kind, id, body| match kind {
                REPLY => link.end_call(id, Ok(body)),
                BUSY => link.end_call(id, Err(CallError::Busy)),
                _ => Err(ConnectionError::Malformed),
            });
            if let Err(end) = frames {
                return end;
            }
            if let Err(end) = self.read(&mut reader, &mut decoder).await {
                return end;
            }
        }
    }

    /// Takes in a link that another node made, instead of an earlier one of the same node.
    fn serve(self: &Rc<Self>, member: Member, connection: PeerConnection) {
        let (shared, address) = (Rc::clone(self), connection.address);
        let task = Task(spawn_local(async move {
            let PeerConnection { stream, encoder, decoder, .. } = connection;
            let (reader, writer) = tokio::io::split(stream);
            let replies = Rc::new(Outbox::default());
            let end = tokio::select! {
                end = shared.read_calls(member, reader, decoder, &replies) => end,
                end = shared.write(writer, encoder, &replies, |_| true) => end,
            };
            shared.count_end(&end);
            tracing::info!(node = member.node.0, peer = %address, "connection from a peer ended: {end}");
            let mut incoming = shared.incoming.borrow_mut();
            if incoming.get(&member.node).is_some_and(|known| known.address == address) {
                incoming.remove(&member.node);
            }
        }));
        self.incoming.borrow_mut().insert(member.node, Incoming { member, address, _task: task });
    }

    async fn read_calls(
        self: &Rc<Self>,
        from: Member,
        mut reader: impl AsyncRead + Unpin,
        mut decoder: FrameDecoder,
        replies: &Rc<Outbox>,
    ) -> ConnectionError {
        let under_way = Rc::new(Cell::new(0));
        loop {
            let frames = self.each_frame(&mut decoder, |kind, id, body| {
                match kind {
                    MESSAGE => self.handler.on_message(from, body),
                    CALL if under_way.get() < CALLS_MAX => {
                        self.carry_out(from, id, body, replies, &under_way);
                    }
                    CALL => {
                        let busy = Envelope { kind: BUSY, id, payload: Bytes::new() };
                        replies.push(busy, &self.counters);
                    }
                    _ => return Err(ConnectionError::Malformed),
                }
                Ok(())
            });
            if let Err(end) = frames {
                return end;
            }
            if let Err(end) = self.read(&mut reader, &mut decoder).await {
                return end;
            }
        }
    }

    fn carry_out(
        self: &Rc<Self>,
        from: Member,
        id: u64,
        call: Bytes,
        replies: &Rc<Outbox>,
        under_way: &Rc<Cell<usize>>,
    ) {
        let one = UnderWay::new(under_way);
        let (shared, replies) = (Rc::clone(self), Rc::clone(replies));
        let reply = self.handler.on_call(from, call);
        spawn_local(async move {
            let payload = reply.await;
            drop(one);
            assert!(fits(&payload), "a reply fits a frame");
            replies.push(Envelope { kind: REPLY, id, payload }, &shared.counters);
        });
    }

    /// Calls `take` with kind, id and body of every frame that has arrived.
    fn each_frame(
        &self,
        decoder: &mut FrameDecoder,
        mut take: impl FnMut(u8, u64, Bytes) -> Result<(), ConnectionError>,
    ) -> Result<(), ConnectionError> {
        while let Some(payload) = decoder.next_frame()? {
            self.counters.frames_received.increment();
            let (kind, id, body) = decode(payload).ok_or(ConnectionError::Malformed)?;
            take(kind, id, Bytes::copy_from_slice(body))?;
        }
        Ok(())
    }

    async fn read(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        decoder: &mut FrameDecoder,
    ) -> Result<(), ConnectionError> {
        let bytes = connection::read(reader, decoder).await?;
        self.counters.bytes_received.add(bytes as u64);
        Ok(())
    }

    /// Writes what is queued, for ever; a call only if it `is_pending` still.
    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut encoder: FrameEncoder,
        outbox: &Outbox,
        is_pending: impl Fn(u64) -> bool,
    ) -> ConnectionError {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            bytes.shrink_to(BATCH_BYTES);
            let mut frames = 0;
            while bytes.len() < BATCH_BYTES
                && let Some(envelope) = outbox.pop()
            {
                if envelope.kind == CALL && !is_pending(envelope.id) {
                    continue;
                }
                if let Err(error) = envelope.encode(&mut encoder, &mut bytes) {
                    return error.into();
                }
                frames += 1;
            }
            if bytes.is_empty() {
                outbox.wake.notified().await;
                continue;
            }
            if let Err(end) = connection::write(&mut writer, &bytes).await {
                return end;
            }
            self.counters.frames_sent.add(frames);
            self.counters.bytes_sent.add(bytes.len() as u64);
        }
    }
}

fn decode(payload: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (&kind, rest) = payload.split_first()?;
    if kind == MESSAGE {
        return Some((kind, 0, rest));
    }
    let (id, body) = rest.split_first_chunk()?;
    Some((kind, u64::from_le_bytes(*id), body))
}

/// One direction of a control connection: what is queued, and who waits for replies.
#[derive(Default)]
struct Link {
    up: Cell<Option<Member>>,
    outbox: Outbox,
    calls: RefCell<BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>>,
    calls_made: Cell<u64>,
}

impl Link {
    fn is_pending(&self, id: u64) -> bool {
        self.calls.borrow().contains_key(&id)
    }

    /// A reply to a call that was given up is no error.
    fn end_call(&self, id: u64, reply: Result<Bytes, CallError>) -> Result<(), ConnectionError> {
        if id >= self.calls_made.get() {
            return Err(ConnectionError::Malformed);
        }
        let waiting = self.calls.borrow_mut().remove(&id);
        if let Some(waiting) = waiting {
            // The caller may have gone at this very moment.
            let _ = waiting.send(reply);
        }
        Ok(())
    }
}

/// A call that awaits its reply.
struct PendingCall {
    link: Rc<Link>,
    id: u64,
    is_over: bool,
}

impl PendingCall {
    fn new(link: &Rc<Link>) -> (Self, oneshot::Receiver<Result<Bytes, CallError>>) {
        let id = link.calls_made.get();
        link.calls_made.set(id + 1);
        let (sender, reply) = oneshot::channel();
        link.calls.borrow_mut().insert(id, sender);
        (Self { link: Rc::clone(link), id, is_over: false }, reply)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.is_over {
            self.link.calls.borrow_mut().remove(&self.id);
        }
    }
}

/// Counts a call for as long as it is carried out, however that ends.
struct UnderWay(Rc<Cell<usize>>);

impl UnderWay {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What waits to be framed.
struct Envelope {
    kind: u8,
    id: u64,
    payload: Bytes,
}

impl Envelope {
    fn encode(&self, encoder: &mut FrameEncoder, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let start = encoder.begin(out);
        out.push(self.kind);
        if self.kind != MESSAGE {
            out.extend_from_slice(&self.id.to_le_bytes());
        }
        out.extend_from_slice(&self.payload);
        encoder.finish(start, out)
    }
}

/// A bounded queue of what is to be sent.
#[derive(Default)]
struct Outbox {
    queue: RefCell<VecDeque<Envelope>>,
    bytes: Cell<usize>,
    wake: Notify,
}

impl Outbox {
    /// Queues `envelope`, at the cost of older messages if need be; `false` if there is no room even so.
    fn push(&self, envelope: Envelope, counters: &PeerCounters) -> bool {
        let mut queue = self.queue.borrow_mut();
        let bytes = envelope.payload.len();
        while queue.len() >= QUEUED_MAX || self.bytes.get() + bytes > QUEUED_BYTES_MAX {
            let oldest = queue.iter().position(|queued| queued.kind == MESSAGE);
            let Some(dropped) = oldest.and_then(|index| queue.remove(index)) else { return false };
            self.bytes.set(self.bytes.get() - dropped.payload.len());
            counters.messages_dropped.increment();
        }
        self.bytes.set(self.bytes.get() + bytes);
        queue.push_back(envelope);
        self.wake.notify_one();
        true
    }

    fn pop(&self) -> Option<Envelope> {
        let envelope = self.queue.borrow_mut().pop_front()?;
        self.bytes.set(self.bytes.get() - envelope.payload.len());
        Some(envelope)
    }

    fn clear(&self) {
        self.queue.borrow_mut().clear();
        self.bytes.set(0);
    }
}

/// The pauses between attempts to connect: ever longer, and drawn, so that nodes do not come all at once.
struct Pauses {
    longest: Duration,
    state: u64,
}

impl Pauses {
    fn new(seed: u64) -> Self {
        Self { longest: PAUSE_MIN, state: seed }
    }

    fn start_anew(&mut self) {
        self.longest = PAUSE_MIN;
    }

    /// Between half of the longest and the longest.
    fn next(&mut self) -> Duration {
        let half = self.longest / 2;
        self.longest = (self.longest * 2).min(PAUSE_MAX);
        // SplitMix64 (Steele, Lea and Flood, 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.state;
        drawn = (drawn ^ drawn >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ drawn >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        half + half.mul_f64(drawn as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use cluster::Incarnation;
    use tokio::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::peer::fixtures::{
        authority, encrypted, identity, listener, member, on_one_thread, plain,
    };
    use crate::peer::frame::{HEADER_BYTES, Salt};
    use crate::peer::{STALL_DEADLINE, accept};

    /// Longer than anything takes here.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Keeps what it hears; replies to a call with the call, at once unless the call says otherwise.
    #[derive(Default)]
    struct Recorder {
        messages: RefCell<Vec<(Member, Bytes)>>,
        events: RefCell<Vec<LinkEvent>>,
    }

    impl Handler for Recorder {
        fn on_message(&self, from: Member, payload: Bytes) {
            self.messages.borrow_mut().push((from, payload));
        }

        fn on_call(&self, _from: Member, payload: Bytes) -> Reply {
            Box::pin(async move {
                match &payload[..] {
                    b"never" => future::pending().await,
                    b"later" => sleep(Duration::from_millis(50)).await,
                    _ => {}
                }
                payload
            })
        }

        fn on_link(&self, event: LinkEvent) {
            self.events.borrow_mut().push(event);
        }
    }

    struct Node {
        links: Links,
        heard: Rc<Recorder>,
        counters: Arc<PeerCounters>,
        handed_on: Receiver<PeerConnection>,
    }

    impl Node {
        fn start(identity: Identity, security: Arc<Security>) -> Self {
            Self::start_on(identity, security, listener().0)
        }

        fn start_on(
            identity: Identity,
            security: Arc<Security>,
            listener: std::net::TcpListener,
        ) -> Self {
            let (heard, counters) = (Rc::new(Recorder::default()), Arc::default());
            let (sender, handed_on) = channel(1);
            let config =
                LinksConfig { identity, security, counters: Arc::clone(&counters), seed: 1 };
            let handler: Rc<dyn Handler> = Rc::<Recorder>::clone(&heard);
            let links = Links::start(config, listener, handler, sender).unwrap();
            Self { links, heard, counters, handed_on }
        }

        fn address(&self) -> String {
            self.links.local_address().to_string()
        }

        fn knows(&self, peers: &[(u32, &Self)]) {
            let peers = peers.iter().map(|(node, peer)| (NodeId(*node), peer.address())).collect();
            self.links.set_roster(Roster { peers, removed: BTreeSet::new() });
        }

        async fn is_linked(&self, node: u32) {
            wait_until(|| self.links.linked(NodeId(node)).is_some()).await;
        }

        async fn call(&self, node: u32, payload: &'static [u8]) -> Result<Bytes, CallError> {
            self.links.call(NodeId(node), Bytes::from_static(payload), PATIENCE).await
        }

        fn send(&self, node: u32, payload: &'static [u8]) -> bool {
            self.links.send(NodeId(node), Bytes::from_static(payload))
        }

        /// Shakes hands with this node as node 3, to send whatever comes to mind.
        async fn taken_in(&self) -> PeerConnection {
            let dialler = Dialler::new(identity(3), plain(), Arc::default());
            dialler.connect(&self.address(), Purpose::Control, Target::Anybody).await.unwrap()
        }
    }

    async fn wait_until(mut holds: impl FnMut() -> bool) {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Nodes 1 and 2, linked both ways.
    async fn pair() -> (Node, Node) {
        pair_of(plain(), plain()).await
    }

    async fn pair_of(first: Arc<Security>, second: Arc<Security>) -> (Node, Node) {
        let (a, b) = (Node::start(identity(1), first), Node::start(identity(2), second));
        // Each is told of itself as well, as the map has it.
        a.knows(&[(1, &a), (2, &b)]);
        b.knows(&[(1, &a), (2, &b)]);
        a.is_linked(2).await;
        b.is_linked(1).await;
        (a, b)
    }

    #[test]
    fn messages_and_calls_pass_both_ways_plain_and_encrypted() {
        on_one_thread(async {
            let authority = authority();
            let plain = (plain(), plain());
            let encrypted = (encrypted(&authority, 1), encrypted(&authority, 2));
            for (first, second) in [plain, encrypted] {
                let (a, b) = pair_of(first, second).await;
                assert!(a.send(2, b"one") && a.send(2, b"two") && b.send(1, b"three"));
                assert_eq!(a.call(2, b"four").await.unwrap(), "four");
                assert_eq!(b.call(1, b"").await.unwrap(), "");
                let one = (member(1), Bytes::from("one"));
                let two = (member(1), Bytes::from("two"));
                assert_eq!(*b.heard.messages.borrow(), [one, two]);
                wait_until(|| a.heard.messages.borrow().len() == 1).await;
            }
        });
    }

    #[test]
    fn a_node_is_linked_to_others_and_not_to_itself() {
        on_one_thread(async {
            let (a, b) = pair().await;
            assert_eq!(a.links.all_linked(), [member(2)]);
            assert_eq!(*a.heard.events.borrow(), [LinkEvent::Up(member(2))]);
            assert_eq!((a.counters.accepted.get(), b.counters.accepted.get()), (1, 1));
        });
    }

    #[test]
    fn calls_are_answered_in_the_order_in_which_they_are_done() {
        on_one_thread(async {
            let (a, _b) = pair().await;
            let order = RefCell::new(Vec::new());
            let call = async |payload| {
                let reply = a.call(2, payload).await.unwrap();
                order.borrow_mut().push(reply);
            };
            tokio::join!(call(b"later"), call(b"at once"));
            assert_eq!(*order.borrow(), ["at once", "later"]);
        });
    }

    #[test]
    fn the_longest_payload_passes_and_a_longer_one_is_not_sent() {
        on_one_thread(async {
            let (a, _b) = pair().await;
            let longest = Purpose::Control.payload_bytes_max() - CALL_HEAD_BYTES;
            let payload = Bytes::from(vec![7; longest]);
            let reply = a.links.call(NodeId(2), payload.clone(), PATIENCE).await;
            assert!(reply.unwrap() == payload);
            let payload = Bytes::from(vec![7; longest + 1]);
            let reply = a.links.call(NodeId(2), payload.clone(), PATIENCE).await;
            assert_eq!(reply, Err(CallError::TooLong));
            assert!(!a.links.send(NodeId(2), payload));
            assert_eq!(a.call(2, b"and on").await.unwrap(), "and on");
        });
    }

    #[test]
    fn without_a_link_nothing_is_sent() {
        on_one_thread(async {
            let a = Node::start(identity(1), plain());
            assert_eq!(a.call(2, b"").await, Err(CallError::NoLink));
            assert!(!a.send(2, b""));
            assert_eq!(a.counters.messages_dropped.get(), 1);
        });
    }

    #[test]
    fn a_call_ends_at_its_deadline_or_with_its_link() {
        on_one_thread(async {
            let (a, b) = pair().await;
            let never = Bytes::from("never");
            let soon = Duration::from_millis(20);
            let late = a.links.call(NodeId(2), never, soon).await;
            assert_eq!(late, Err(CallError::TimedOut));
            let stop = async {
                sleep(soon).await;
                b.links.stop();
            };
            let (lost, ()) = tokio::join!(a.call(2, b"never"), stop);
            assert_eq!(lost, Err(CallError::LinkLost));
            assert_eq!(a.counters.calls_failed.get(), 2);
            let link = a.links.shared.link(NodeId(2)).unwrap();
            assert!(link.calls.borrow().is_empty());
        });
    }

    #[test]
    fn a_restarted_node_is_linked_again_in_its_new_life() {
        on_one_thread(async {
            let (a, b) = pair().await;
            let address = b.links.local_address();
            b.links.stop();
            wait_until(|| a.links.linked(NodeId(2)).is_none()).await;
            sleep(PAUSE_MIN * 3).await;
            let mut next_life = member(2);
            next_life.incarnation = Incarnation(21);
            let restarted = Identity { member: next_life, ..identity(2) };
            let _b = Node::start_on(restarted, plain(), accept::bind(address).unwrap());
            wait_until(|| a.links.linked(NodeId(2)) == Some(next_life)).await;
            let events = a.heard.events.borrow();
            let expected =
                [LinkEvent::Up(member(2)), LinkEvent::Down(member(2)), LinkEvent::Up(next_life)];
            assert_eq!(*events, expected);
        });
    }

    #[test]
    fn a_node_that_moved_is_linked_at_its_new_address_and_a_forgotten_one_is_not() {
        on_one_thread(async {
            let (a, _b) = pair().await;
            let moved = Node::start(Identity { member: member(2), ..identity(2) }, plain());
            a.knows(&[(2, &moved)]);
            assert_eq!(a.links.linked(NodeId(2)), None);
            a.is_linked(2).await;
            assert_eq!(moved.counters.accepted.get(), 1);
            a.knows(&[]);
            assert_eq!(a.call(2, b"").await, Err(CallError::NoLink));
            assert_eq!(a.heard.events.borrow().len(), 4);
        });
    }

    #[test]
    fn a_removed_node_is_cut_off_and_told_why_once() {
        on_one_thread(async {
            let (a, b) = pair().await;
            let removed = BTreeSet::from([NodeId(1)]);
            b.links.set_roster(Roster { peers: BTreeMap::new(), removed });
            wait_until(|| a.heard.events.borrow().len() >= 3).await;
            wait_until(|| b.counters.refused(Reason::RemovedNode).get() >= 3).await;
            let events = a.heard.events.borrow();
            let [_, LinkEvent::Down(_), LinkEvent::Refused(NodeId(2), refused)] = &events[..]
            else {
                panic!("{events:?}")
            };
            assert_eq!(refused.reason, Reason::RemovedNode);
            assert!(refused.text.contains("node 1 was removed"));
        });
    }

    #[test]
    fn an_earlier_life_does_not_take_the_place_of_a_later_one() {
        on_one_thread(async {
            let (_a, b) = pair().await;
            let mut earlier = identity(1);
            earlier.member.incarnation = Incarnation(9);
            let dialler = Dialler::new(earlier, plain(), Arc::default());
            let error = dialler.connect(&b.address(), Purpose::Control, Target::Anybody).await;
            let Err(ConnectError::RefusedByPeer(refused)) = error else { panic!("taken in") };
            assert_eq!(refused.reason, Reason::Superseded);
        });
    }

    #[test]
    fn what_is_no_link_is_handed_on_and_dropped_if_nobody_takes_it() {
        on_one_thread(async {
            let (a, mut b) = pair().await;
            let address = b.address();
            let connect =
                |lane| a.links.dialler().connect(&address, Purpose::Data { lane }, Target::Anybody);
            let (_first, mut second) = (connect(1).await.unwrap(), connect(2).await.unwrap());
            assert!(second.receive(PATIENCE).await.is_err(), "the channel holds one");
            assert_eq!(b.counters.not_taken.get(), 1);
            let taken = b.handed_on.recv().await.unwrap();
            assert_eq!((taken.purpose, taken.peer), (Purpose::Data { lane: 1 }, Some(member(1))));
        });
    }

    /// That `bytes`, sent as node 3, end that connection and nothing else.
    async fn assert_ends_the_connection(
        a: &Node,
        b: &Node,
        bytes: impl FnOnce(&mut PeerConnection) -> Vec<u8>,
    ) {
        let before = b.counters.malformed.get();
        let mut connection = b.taken_in().await;
        let bytes = bytes(&mut connection);
        connection::write(&mut connection.stream, &bytes).await.unwrap();
        assert!(connection.receive(PATIENCE).await.is_err(), "the node hangs up");
        wait_until(|| b.counters.malformed.get() == before + 1).await;
        assert_eq!(a.call(2, b"still here").await.unwrap(), "still here");
    }

    fn framed(connection: &mut PeerConnection, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        connection.encoder.encode(payload, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_peer_that_sends_nonsense_is_dropped_and_nobody_else() {
        on_one_thread(async {
            let (a, b) = pair().await;
            // Nothing at all, half an id, a reply to no call, a kind that there is not.
            for payload in [&[][..], &[CALL, 1, 2], &[REPLY, 0, 0, 0, 0, 0, 0, 0, 0], &[9; 9]] {
                assert_ends_the_connection(&a, &b, |node| framed(node, payload)).await;
            }
        });
    }

    #[test]
    fn frames_that_are_damaged_oversized_or_replayed_drop_the_peer_and_nobody_else() {
        on_one_thread(async {
            let (a, b) = pair().await;
            assert_ends_the_connection(&a, &b, |node| {
                let mut bytes = framed(node, &[MESSAGE, 1]);
                bytes[HEADER_BYTES + 1] ^= 1;
                bytes
            })
            .await;
            assert_ends_the_connection(&a, &b, |_| vec![0xff; HEADER_BYTES]).await;
            let replayed = framed(&mut b.taken_in().await, &[MESSAGE, 2]);
            assert_ends_the_connection(&a, &b, |_| replayed).await;
            assert_ends_the_connection(&a, &b, |node| framed(node, &[MESSAGE, 3]).repeat(2)).await;
            let heard = b.heard.messages.borrow();
            assert_eq!(*heard, [(member(3), Bytes::from_static(&[3]))], "once, of two");
        });
    }

    #[test]
    fn a_peer_that_answers_what_was_not_asked_is_dropped() {
        on_one_thread(async {
            let a = Node::start(identity(1), plain());
            let mut b = liar().await;
            a.links.set_roster(Roster {
                peers: BTreeMap::from([(NodeId(2), b.address.to_string())]),
                removed: BTreeSet::new(),
            });
            let mut far = b.connections.recv().await.unwrap();
            far.send(&[REPLY, 9, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
            wait_until(|| a.counters.malformed.get() == 1).await;
        });
    }

    /// Node 2, whose connections belong to the test.
    struct Liar {
        address: SocketAddr,
        connections: tokio::sync::mpsc::UnboundedReceiver<PeerConnection>,
    }

    async fn liar() -> Liar {
        let (listener, address) = listener();
        let (sender, connections) = tokio::sync::mpsc::unbounded_channel();
        let acceptor = Acceptor {
            identity: identity(2),
            security: plain(),
            counters: Arc::default(),
            admit: Box::new(|_| Ok(())),
            deliver: Box::new(move |connection| sender.send(connection).unwrap()),
        };
        spawn_local(acceptor.run(TcpListener::from_std(listener).unwrap()));
        Liar { address, connections }
    }

    #[test]
    fn a_frame_that_is_left_half_sent_ends_the_connection_in_time() {
        on_one_thread(async {
            let (a, b) = pair().await;
            let mut connection = b.taken_in().await;
            let bytes = framed(&mut connection, &[MESSAGE, 1]);
            let half = &bytes[..bytes.len() - 1];
            let began = Instant::now();
            connection::write(&mut connection.stream, half).await.unwrap();
            let ended = connection.receive(PATIENCE).await.unwrap_err();
            assert!(!matches!(ended, ConnectionError::Stalled), "the node hangs up first");
            assert!(began.elapsed() >= STALL_DEADLINE);
            assert_eq!(a.call(2, b"still here").await.unwrap(), "still here");
        });
    }

    #[test]
    fn more_calls_than_can_be_carried_out_are_turned_away() {
        on_one_thread(async {
            let (a, _b) = pair().await;
            let calls: Vec<_> = (0..CALLS_MAX)
                .map(|_| {
                    let links = a.links.clone();
                    let never = Bytes::from("never");
                    spawn_local(async move { links.call(NodeId(2), never, PATIENCE).await })
                })
                .collect();
            wait_until(|| a.counters.frames_sent.get() >= CALLS_MAX as u64).await;
            assert_eq!(a.call(2, b"one more").await, Err(CallError::Busy));
            calls.iter().for_each(JoinHandle::abort);
        });
    }

    #[test]
    fn a_full_queue_drops_its_oldest_messages_and_no_call() {
        let (outbox, counters) = (Outbox::default(), PeerCounters::default());
        let envelope = |kind, id| Envelope { kind, id, payload: Bytes::from(vec![0; 1 << 20]) };
        assert!(outbox.push(envelope(CALL, 0), &counters));
        let mut id = 1;
        while counters.messages_dropped.get() < 3 {
            assert!(outbox.push(envelope(MESSAGE, id), &counters));
            assert!(outbox.bytes.get() <= QUEUED_BYTES_MAX);
            id += 1;
        }
        assert_eq!(outbox.pop().map(|first| first.kind), Some(CALL));
        assert_eq!(outbox.pop().map(|oldest| oldest.id), Some(4));
    }

    #[test]
    fn a_queue_full_of_calls_takes_no_more() {
        let (outbox, counters) = (Outbox::default(), PeerCounters::default());
        let call = |id| Envelope { kind: CALL, id, payload: Bytes::new() };
        assert!((0..QUEUED_MAX as u64).all(|id| outbox.push(call(id), &counters)));
        assert!(!outbox.push(call(0), &counters));
        assert!(!outbox.push(Envelope { kind: MESSAGE, ..call(0) }, &counters));
        assert!(outbox.pop().is_some());
        assert!(outbox.push(call(0), &counters));
    }

    #[test]
    fn a_call_given_up_before_it_was_sent_never_is() {
        on_one_thread(async {
            let (a, b) = pair().await;
            tokio::select! {
                biased;
                reply = a.call(2, b"x") => panic!("replied before anything was sent: {reply:?}"),
                () = future::ready(()) => {}
            }
            assert_eq!(a.call(2, b"y").await.unwrap(), "y");
            assert_eq!(b.counters.frames_received.get(), 1);
        });
    }

    #[test]
    fn pauses_grow_to_their_bound_and_follow_from_the_seed() {
        let drawn = |seed| {
            let mut pauses = Pauses::new(seed);
            (0..8).map(|_| pauses.next()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        for (index, pause) in (0..).zip(drawn(3)) {
            let longest = (PAUSE_MIN * 2_u32.pow(index)).min(PAUSE_MAX);
            assert!(pause >= longest / 2 && pause <= longest, "{index}: {pause:?}");
        }
    }

    #[test]
    fn a_salt_is_drawn_anew_for_every_connection() {
        on_one_thread(async {
            let b = Node::start(identity(2), plain());
            let frames = [b.taken_in().await, b.taken_in().await]
                .map(|mut connection| framed(&mut connection, b"same"));
            assert_ne!(frames[0], frames[1]);
            let mut unsalted = FrameDecoder::new(Salt(0), 64);
            let space = unsalted.space();
            space[..frames[0].len()].copy_from_slice(&frames[0]);
            unsalted.received(frames[0].len());
            assert!(unsalted.next_frame().is_err());
        });
    }
}
