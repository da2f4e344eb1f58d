//! A worker's connections with other nodes: what it passes on to them, what they pass on to it, and its
//! share of the lanes.
//!
//! ```text
//! passed on:  token u64 | len u32 | request          as a client would send it
//! answered:   token u64 | status u8 | len u32 | answer
//! ```
//!
//! Numbers are little-endian; a frame holds any number of these. Answers come in any order.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::{Buf, BufMut, Bytes};
use cluster::shard::Input;
use cluster::{Member, NodeId};
use store::Key;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::clock::Now;
use crate::net::detached::{Addressee, Served, Spare};
use crate::net::waiting_room::Finished;
use crate::net::{WeakWorker, WorkerHandle};
use crate::peer::connection::{ConnectionError, PeerConnection};
use crate::peer::dial::{Dialler, Target};
use crate::peer::frame::FrameDecoder;
use crate::peer::handshake::Purpose;
use crate::peer::tls::PeerStream;
use crate::replication::lanes::{Lane, Sink, Work};
use crate::replication::op::Ops;
use crate::replication::wire::LaneMessage;
use crate::replication::{Incoming, Replication, ReplicationCounters};
use crate::service::CacheService;

/// How long to wait before a node is tried again, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_millis(500);

/// Messages and requests of a frame whose items are fetched from memory together.
const AHEAD_MAX: usize = 16;
/// How often a worker looks for more to send along before it sends. Two gained a sixth on sets without pipelines,
/// four no more than that.
const LOOKS_MAX: u32 = 2;

const DONE: u8 = 0;
const ELSEWHERE: u8 = 1;

/// What another node says to a request that was passed on to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was carried out; this is for the client.
    Done(Bytes),
    /// It was not: the node does not lead the shard.
    Elsewhere,
}

/// A worker's connections with other nodes.
pub(crate) struct Links {
    replication: Arc<Replication>,
    dialler: Dialler,
    worker: Option<WeakWorker<CacheService>>,
    /// To pass requests on.
    out: BTreeMap<NodeId, Arc<Lane>>,
    tasks: BTreeMap<NodeId, Vec<JoinHandle<()>>>,
    outbox: Rc<Outbox>,
}

impl Links {
    /// Of a worker that has not started.
    pub(crate) fn new(replication: Arc<Replication>, dialler: Dialler) -> Self {
        Self {
            replication,
            dialler,
            worker: None,
            out: BTreeMap::new(),
            tasks: BTreeMap::new(),
            outbox: Rc::default(),
        }
    }

    pub(crate) fn started(&mut self, worker: &WorkerHandle<CacheService>) {
        self.worker = Some(worker.downgrade());
        worker.spawn(Rc::clone(&self.outbox).keep_empty());
        self.map_changed();
    }

    /// Connects to nodes that are new, and lets go of those that left.
    pub(crate) fn map_changed(&mut self) {
        let Some(worker) = self.worker.as_ref().and_then(WeakWorker::upgrade) else { return };
        let wanted: BTreeSet<NodeId> = self.replication.other_nodes().into_iter().collect();
        let gone: Vec<NodeId> =
            self.out.keys().copied().filter(|node| !wanted.contains(node)).collect();
        for node in gone {
            self.out.remove(&node);
            self.replication.lanes().close(node);
            self.tasks.remove(&node).into_iter().flatten().for_each(|task| task.abort());
        }
        for node in wanted {
            if self.out.contains_key(&node) {
                continue;
            }
            let link = Arc::new(Lane::new(node, 0));
            self.out.insert(node, Arc::clone(&link));
            let keep = |lane, purpose| {
                let keeper = Keeper {
                    worker: worker.downgrade(),
                    replication: Arc::clone(&self.replication),
                    dialler: self.dialler.clone(),
                    lane,
                    purpose,
                };
                worker.spawn(keeper.keep())
            };
            let mut tasks = vec![keep(link, Purpose::Forward)];
            for lane in self.replication.lanes().open(node).iter() {
                if usize::from(lane.index()) % self.replication.workers() == worker.index() {
                    let purpose = Purpose::Data { lane: lane.index() };
                    tasks.push(keep(Arc::clone(lane), purpose));
                }
            }
            self.tasks.insert(node, tasks);
        }
    }

    /// The other nodes to which this one can pass requests on.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.out.iter().filter(|(_, link)| link.is_up()).map(|(&node, _)| node).collect()
    }

    /// Whether requests can be passed on to `node`.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.out.get(&node).is_some_and(|link| link.is_up())
    }

    /// Passes a request on. False when there is no connection.
    pub(super) fn send(&self, node: NodeId, token: u64, raw: &[u8]) -> bool {
        let Some(link) = self.out.get(&node) else { return false };
        let sent = link.push(|to| {
            to.put_u64_le(token);
            put_bytes(to, raw);
        });
        if sent {
            self.outbox.add(link);
        }
        sent
    }

    /// Has sent what was pushed to `lanes`, together with what is about to be.
    pub(crate) fn send_soon(&self, lanes: impl Iterator<Item = Arc<Lane>>) {
        lanes.for_each(|lane| self.outbox.add(&lane));
    }

    /// Another node has connected to this worker.
    pub(crate) fn accept(&mut self, incoming: Incoming) {
        let Some(worker) = self.worker.as_ref().and_then(WeakWorker::upgrade) else { return };
        let guest = Guest {
            worker: worker.downgrade(),
            replication: Arc::clone(&self.replication),
            outbox: Rc::clone(&self.outbox),
        };
        worker.spawn(guest.attend(incoming));
    }
}

/// The lanes that a worker's turns have pushed to and that are not flushed yet.
///
/// One write to a node for each client that has asked something would be as dear as the answer to the client
/// is. So the first of them calls a task that writes, whose turn comes behind those of all clients who are to
/// be served already, and who have something for the same nodes more often than not.
#[derive(Default)]
struct Outbox {
    lanes: RefCell<Vec<Arc<Lane>>>,
    /// How often something was added.
    additions: Cell<u64>,
    /// Told when the first lane comes.
    filled: Notify,
}

impl Outbox {
    fn add(&self, lane: &Arc<Lane>) {
        self.additions.set(self.additions.get() + 1);
        let mut lanes = self.lanes.borrow_mut();
        if lanes.iter().any(|other| Arc::ptr_eq(other, lane)) {
            return;
        }
        if lanes.is_empty() {
            self.filled.notify_one();
        }
        lanes.push(Arc::clone(lane));
    }

    /// Flushes what comes, as long as the worker runs: not before the worker has looked for more, as every
    /// send costs both nodes a system call, and a node that waits a wake-up.
    async fn keep_empty(self: Rc<Self>) {
        loop {
            self.filled.notified().await;
            for _ in 0..LOOKS_MAX {
                let before = self.additions.get();
                tokio::task::yield_now().await;
                if self.additions.get() == before {
                    break;
                }
            }
            self.lanes.borrow_mut().drain(..).for_each(|lane| lane.flush());
        }
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.put_u32_le(u32::try_from(bytes.len()).expect("a request is far shorter"));
    to.put_slice(bytes);
}

/// Keeps one connection to another node.
struct Keeper {
    worker: WeakWorker<CacheService>,
    replication: Arc<Replication>,
    dialler: Dialler,
    lane: Arc<Lane>,
    purpose: Purpose,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = RETRY_FIRST;
        let node = self.lane.node();
        while let Some(address) = self.replication.address_of(node) {
            match self.dialler.connect(&address, self.purpose, Target::Node(node)).await {
                Ok(connection) => {
                    pause = RETRY_FIRST;
                    let ended = self.hold(connection).await;
                    self.lane.disconnect();
                    tracing::debug!(%node, purpose = ?self.purpose, "connection lost: {ended}");
                    self.lost();
                }
                Err(error) => {
                    tracing::debug!(%node, purpose = ?self.purpose, "{error}");
                }
            }
            if self.worker.upgrade().is_none() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    async fn hold(&self, connection: PeerConnection) -> ConnectionError {
        let PeerConnection { stream, encoder, decoder, .. } = connection;
        let (halves, sink) = Halves::of(stream);
        self.lane.connect(encoder, sink);
        self.connected();
        let is_forward = self.purpose == Purpose::Forward;
        carry(
            halves,
            decoder,
            &self.lane,
            |payload| {
                // Nothing comes back on a lane.
                if is_forward {
                    self.hear_answers(payload)
                } else {
                    Err(ConnectionError::Malformed)
                }
            },
            || self.end_turn(),
        )
        .await
    }

    /// The lane is up: whatever was under way when it went down has to be asked after.
    fn connected(&self) {
        let Some(worker) = self.worker.upgrade() else { return };
        if self.purpose == Purpose::Forward {
            let now = worker.now();
            worker
                .with_service(|service| service.hear(crate::replication::WorkerMessage::News, now));
        } else {
            let (node, index) = (self.lane.node(), u32::from(self.lane.index()));
            let step = u32::from(self.replication.lanes().per_node());
            let now = worker.now();
            worker.with_service(|service| {
                service.with_agenda(|shards, agenda, boot_ns| {
                    for slot in (index..shards.geometry().shard_count).step_by(step as usize) {
                        shards.with_replicas(
                            slot,
                            agenda,
                            now,
                            boot_ns,
                            |shard, replicas, context| {
                                for id in replicas.ids() {
                                    replicas.step(shard, id, Input::Connected(node), context);
                                }
                            },
                        );
                    }
                });
            });
        }
        self.end_turn();
    }

    fn lost(&self) {
        if self.purpose != Purpose::Forward {
            return;
        }
        let Some(worker) = self.worker.upgrade() else { return };
        let (node, now) = (self.lane.node(), worker.now());
        worker.with_service(|service| service.lost_link(node, now));
        self.end_turn();
    }

    fn hear_answers(&self, payload: &[u8]) -> Result<(), ConnectionError> {
        let Some(worker) = self.worker.upgrade() else { return Err(ConnectionError::Closed) };
        let mut from = Bytes::copy_from_slice(payload);
        let now = worker.now();
        worker.with_service(|service| {
            while !from.is_empty() {
                let (token, answer) = decode_answer(&mut from).ok_or(ConnectionError::Malformed)?;
                service.hear_answer(token, answer, now);
            }
            service.heard_answers(now);
            Ok(())
        })
    }

    fn end_turn(&self) {
        if let Some(worker) = self.worker.upgrade() {
            // What another node answered was not read from this one's memory.
            let _ = worker.end_turn();
        }
    }
}

fn decode_request<'a>(from: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let token = from.try_get_u64_le().ok()?;
    let len = from.try_get_u32_le().ok()? as usize;
    let (request, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some((token, request))
}

fn decode_answer(from: &mut Bytes) -> Option<(u64, Answer)> {
    let token = from.try_get_u64_le().ok()?;
    let status = from.try_get_u8().ok()?;
    let bytes = decode_bytes(from)?;
    match status {
        DONE => Some((token, Answer::Done(bytes))),
        ELSEWHERE => Some((token, Answer::Elsewhere)),
        _ => None,
    }
}

fn decode_bytes(from: &mut Bytes) -> Option<Bytes> {
    let len = from.try_get_u32_le().ok()? as usize;
    (len <= from.len()).then(|| from.split_to(len))
}

/// Attends to a connection that another node has made.
struct Guest {
    worker: WeakWorker<CacheService>,
    replication: Arc<Replication>,
    outbox: Rc<Outbox>,
}

impl Guest {
    async fn attend(self, incoming: Incoming) {
        let Incoming { from, mut connection, is_current } = incoming;
        let purpose = connection.purpose;
        if connection.stream.move_to_this_runtime().is_err() {
            return;
        }
        let PeerConnection { stream, encoder, decoder, .. } = connection;
        let (halves, sink) = Halves::of(stream);
        let lane = Arc::new(Lane::new(from.node, 0));
        lane.connect(encoder, sink);
        let end_turn = || {
            if let Some(worker) = self.worker.upgrade()
                && !worker.end_turn()
            {
                tracing::error!("what was read for another node may be damaged");
            }
        };
        let ended = if purpose == Purpose::Forward {
            let mut desk = Desk::new(Answers {
                lane: Arc::clone(&lane),
                outbox: Rc::clone(&self.outbox),
                cancelled: RefCell::default(),
            });
            let serve = |payload: &[u8]| self.serve(payload, &mut desk);
            let ended = carry(halves, decoder, &lane, serve, end_turn).await;
            if let Some(worker) = self.worker.upgrade() {
                desk.spare.close(worker.waiting_room());
            }
            ended
        } else {
            carry(
                halves,
                decoder,
                &lane,
                |payload| {
                    let is_current = || is_current.load(Ordering::Acquire);
                    self.hear(from, payload, is_current)
                },
                end_turn,
            )
            .await
        };
        lane.disconnect();
        if ended.is_peers_fault() {
            ReplicationCounters::add(&self.replication.counters.frames_refused, 1);
            tracing::warn!(node = %from.node, ?purpose, "connection dropped: {ended}");
        }
    }

    /// Writes, acknowledgements and the like.
    fn hear(
        &self,
        from: Member,
        payload: &[u8],
        is_current: impl Fn() -> bool,
    ) -> Result<(), ConnectionError> {
        let worker = self.worker.upgrade().ok_or(ConnectionError::Closed)?;
        let mut payload = payload;
        let now = worker.now();
        worker.with_service(|service| {
            service.with_agenda(|shards, agenda, boot_ns| {
                let mut messages = ArrayVec::<LaneMessage, AHEAD_MAX>::new();
                while !payload.is_empty() {
                    while !payload.is_empty() && !messages.is_full() {
                        messages.push(self.decode(from, &mut payload, &mut agenda.ops)?);
                    }
                    let keys = messages.iter().filter_map(LaneMessage::first_key);
                    shards.prefetch(&keys.map(Key::new).collect::<ArrayVec<_, AHEAD_MAX>>());
                    for message in messages.drain(..) {
                        if let LaneMessage::IHave { .. } = message {
                            self.replication.joiner_has(from, message);
                            continue;
                        }
                        let shard_count = self.replication.shard_count();
                        let slot = shards.of_cluster_shard(message.shard(), shard_count);
                        let heard = shards.with_replicas(
                            slot,
                            agenda,
                            now,
                            boot_ns,
                            |shard, replicas, context| {
                                // Asked under the lock: a newer connection's messages come after.
                                if !is_current() {
                                    return Err(ConnectionError::Closed);
                                }
                                replicas.hear(shard, from, message, context);
                                Ok(())
                            },
                        );
                        heard.unwrap_or(Ok(()))?;
                    }
                }
                Ok(())
            })
        })
    }

    /// The next message of a frame, if it is one that can be carried out.
    fn decode(
        &self,
        from: Member,
        payload: &mut &[u8],
        ops: &mut Ops,
    ) -> Result<LaneMessage, ConnectionError> {
        let message = LaneMessage::decode(payload, ops).map_err(|error| {
            tracing::warn!(node = %from.node, "{error}");
            ConnectionError::Malformed
        })?;
        if !message.is_sound() || message.shard().0 >= self.replication.shard_count() {
            return Err(ConnectionError::Malformed);
        }
        Ok(message)
    }

    /// Requests that the other node passes on.
    fn serve(&self, payload: &[u8], desk: &mut Desk) -> Result<(), ConnectionError> {
        let worker = self.worker.upgrade().ok_or(ConnectionError::Closed)?;
        let now = worker.now();
        let mut from = payload;
        let mut requests = ArrayVec::<(u64, &[u8]), AHEAD_MAX>::new();
        while !from.is_empty() {
            requests.clear();
            while !from.is_empty() && !requests.is_full() {
                requests.push(decode_request(&mut from).ok_or(ConnectionError::Malformed)?);
            }
            let ahead = requests.iter().map(|&(_, request)| request);
            worker.with_service(|service| service.prefetch_ahead(ahead));
            for &(token, request) in &requests {
                desk.serve_one(&worker, now, token, request)?;
            }
        }
        Ok(())
    }
}

/// Where requests of one other node are served.
struct Desk {
    answers: Rc<Answers>,
    finished: Rc<dyn Finished>,
    /// For the next request whose answer has to wait.
    spare: Spare,
    /// For the answer to the request at hand.
    out: Vec<u8>,
}

impl Desk {
    fn new(answers: Answers) -> Self {
        let answers = Rc::new(answers);
        let finished: Rc<dyn Finished> = Rc::<Answers>::clone(&answers);
        Self { answers, finished, spare: Spare::default(), out: Vec::new() }
    }

    fn serve_one(
        &mut self,
        worker: &WorkerHandle<CacheService>,
        now: Now,
        token: u64,
        request: &[u8],
    ) -> Result<(), ConnectionError> {
        let Self { answers, finished, spare, out } = self;
        out.clear();
        let addressee = Addressee { finished: Rc::clone(finished), token };
        worker.with_service(|service| service.set_passed_on());
        let served = worker.serve(now, request, out, &addressee, spare);
        let elsewhere = worker.with_service(|service| {
            service.set_not_passed_on();
            service.was_elsewhere()
        });
        if elsewhere {
            if served == Served::Held {
                answers.cancelled.borrow_mut().insert(token);
            }
            answers.answer(token, ELSEWHERE, &[]);
            return Ok(());
        }
        match served {
            Served::Answered => answers.answer(token, DONE, out),
            Served::Held => {}
            Served::Malformed => return Err(ConnectionError::Malformed),
            Served::Crashed => answers.answer(token, DONE, super::UNKNOWN),
        }
        Ok(())
    }
}

/// Takes answers back to the node that has passed the requests on.
struct Answers {
    lane: Arc<Lane>,
    outbox: Rc<Outbox>,
    /// Answered already, though something of them was still held.
    cancelled: RefCell<BTreeSet<u64>>,
}

impl Answers {
    fn answer(&self, token: u64, status: u8, answer: &[u8]) {
        self.lane.push(|to| {
            to.put_u64_le(token);
            to.put_u8(status);
            put_bytes(to, answer);
        });
        self.outbox.add(&self.lane);
    }
}

impl Finished for Answers {
    fn finished(&self, token: u64, answer: &[u8]) {
        if !self.cancelled.borrow_mut().remove(&token) {
            self.answer(token, DONE, answer);
        }
    }
}

/// A connection, cut in two so that reading and writing do not wait for each other.
enum Halves {
    Plain(OwnedReadHalf, Arc<OwnedWriteHalf>),
    Tls(tokio::io::ReadHalf<PeerStream>, tokio::io::WriteHalf<PeerStream>),
}

impl Halves {
    /// The halves, and where any thread may write, if it may.
    fn of(stream: PeerStream) -> (Self, Option<Arc<dyn Sink>>) {
        match stream {
            PeerStream::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                let writer = Arc::new(writer);
                (Self::Plain(reader, Arc::clone(&writer)), Some(writer))
            }
            stream @ PeerStream::Tls(_) => {
                let (reader, writer) = tokio::io::split(stream);
                (Self::Tls(reader, writer), None)
            }
        }
    }
}

/// Hands frames to `hear` and sends what the lane has, until the connection ends. Calls `end_turn` after the
/// frames of one read.
async fn carry(
    halves: Halves,
    decoder: FrameDecoder,
    lane: &Lane,
    hear: impl FnMut(&[u8]) -> Result<(), ConnectionError>,
    end_turn: impl Fn(),
) -> ConnectionError {
    let ended = match halves {
        Halves::Plain(reader, writer) => tokio::select! {
            ended = read(reader, decoder, hear, end_turn) => ended,
            ended = write_plain(&writer, lane) => ended,
        },
        Halves::Tls(reader, writer) => tokio::select! {
            ended = read(reader, decoder, hear, end_turn) => ended,
            ended = write_tls(writer, lane) => ended,
        },
    };
    let Err(error) = ended;
    error
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    mut decoder: FrameDecoder,
    mut hear: impl FnMut(&[u8]) -> Result<(), ConnectionError>,
    end_turn: impl Fn(),
) -> Result<std::convert::Infallible, ConnectionError> {
    loop {
        let count = reader.read(decoder.space()).await?;
        if count == 0 {
            return Err(ConnectionError::Closed);
        }
        decoder.received(count);
        let heard = hear_frames(&mut decoder, &mut hear);
        end_turn();
        heard?;
        // Whoever sends without pause does not keep clients waiting.
        tokio::task::yield_now().await;
    }
}

fn hear_frames(
    decoder: &mut FrameDecoder,
    hear: &mut impl FnMut(&[u8]) -> Result<(), ConnectionError>,
) -> Result<(), ConnectionError> {
    while let Some(payload) = decoder.next_frame()? {
        hear(payload)?;
    }
    Ok(())
}

async fn write_plain(
    writer: &OwnedWriteHalf,
    lane: &Lane,
) -> Result<std::convert::Infallible, ConnectionError> {
    loop {
        match lane.work() {
            Work::Nothing => lane.attention().await,
            Work::AwaitWritable => {
                writer.writable().await?;
                lane.unblock();
            }
            Work::Close | Work::Write(_) => return Err(ConnectionError::Stalled),
        }
    }
}

async fn write_tls(
    mut writer: tokio::io::WriteHalf<PeerStream>,
    lane: &Lane,
) -> Result<std::convert::Infallible, ConnectionError> {
    loop {
        match lane.work() {
            Work::Nothing => lane.attention().await,
            Work::Write(frames) => {
                writer.write_all(&frames).await?;
                writer.flush().await?;
            }
            Work::Close | Work::AwaitWritable => return Err(ConnectionError::Stalled),
        }
    }
}
