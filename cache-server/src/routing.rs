//! Where requests go on a node of a cluster: carried out here, passed on, or kept for a while.
//!
//! ```text
//!            this node leads the key's shard ──> carried out; an answer that saw a write which is not
//! request ──┤                                    committed yet waits for that
//!            another leads it ──> one hop to that node (links.rs); the answer takes its place in order
//!            nobody does      ──> parked, for a second at most, while a new primary is found
//! ```
//!
//! - Requests of one worker on one cluster shard are carried out in the order of their arrival: while one is
//!   parked, those behind it park as well.
//! - What was carried out, or may have been, is never carried out a second time: when a primary is lost with
//!   a request on its way, a read is asked again elsewhere, and a write is answered with an unknown outcome.
//! - A get of many keys is split by who leads them, and answered in the order of the keys (assembly.rs). What has
//!   not come in time is left out of the answer.

mod assembly;
pub(crate) mod discovery;
mod links;
mod under_way;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use cluster::map::ClusterMap;
use cluster::shard::Grants as _;
use cluster::{NodeId, ShardId};
use eviction::KeyHash;
use protocol::binary::request::{BinaryRequest, Command};
use protocol::binary::response::{
    BinaryResponse, BinaryResponseStep, Status, encode_success, encode_worded_error,
};
use protocol::binary::{Head, Opcode};
use protocol::meta::flags::Returns;
use protocol::meta::request::{KeyScratch, MetaDelete, MetaKey};
use protocol::request::{FlushAll, Get};
use protocol::{Decoder, Exptime, Request, Response, Step};
use smallvec::SmallVec;
use store::{Key, Look};
use tokio::sync::Notify;
use tokio::time::sleep;

use self::assembly::Assembly;
pub(crate) use self::links::{Answer, Links};
use self::under_way::UnderWay;
use crate::clock::{Now, boot_ns};
use crate::net::ticket::{Hold, Resolution, Ticket};
use crate::net::waiting_room::WaitingRoom;
use crate::net::{Call, Flow, WeakWorker, WorkerHandle};
use crate::peer::dial::Dialler;
use crate::replication::replicas::{Access, Context};
use crate::replication::{Agenda, Replication, ReplicationCounters, Token, Waiter, WorkerMessage};
use crate::service::{
    CacheService, Keys, On, PREFETCHED_KEYS_MAX, key_of, keys, keys_foreseen, timestamp,
};

/// How long a request waits for somebody to lead its shard, in milliseconds: design, §5.
const PARKED_MS_MAX: u64 = 1_000;
/// How long a request that was passed on may take.
const FORWARDED_MS_MAX: u64 = 5_000;
/// How long the answer to a write is awaited from a node that leads the shard no more.
const IN_DOUBT_MS_MAX: u64 = 100;
/// How long a request waits that another node has turned away which leads its shard as far as this one knows: one
/// of the two is about to hear otherwise. Asked at once, over and over, both would do nothing else, and be late to
/// hear it.
const TURNED_AWAY: Duration = Duration::from_millis(2);
/// Requests that one worker keeps parked, in bytes.
const PARKED_BYTES_MAX: usize = 16 << 20;

/// The write may have been carried out, or not.
const UNKNOWN: &[u8] = b"SERVER_ERROR outcome unknown: the primary was lost\r\n";
/// Nobody leads the shard.
const NO_PRIMARY: &[u8] = b"SERVER_ERROR no primary for this key at present\r\n";
/// The pool does not take writes with so few copies.
const TOO_FEW_COPIES: &[u8] = b"SERVER_ERROR too few copies are in sync\r\n";
/// Too much is parked already.
const BUSY: &[u8] = b"SERVER_ERROR busy\r\n";
const NOT_IN_A_CLUSTER: &[u8] = b"SERVER_ERROR not available on a node of a cluster\r\n";
const END: &[u8] = b"END\r\n";
const REMOVED: &[u8] = b"HD\r\n";
const NOT_THERE: &[u8] = b"NF\r\n";

/// One worker's part in the cluster.
pub(crate) struct Routing {
    replication: Arc<Replication>,
    worker: u16,
    room: Option<Rc<WaitingRoom>>,
    links: Links,
    agenda: Agenda,
    holds: Vec<Hold>,
    /// What decisions of other threads are about, by token.
    awaited: AHashMap<u64, Awaited>,
    /// What was passed on, by the number it has on its link.
    passed_on: UnderWay<PassedOn>,
    /// Answers to gets that other nodes have parts of.
    assemblies: AHashMap<u64, Assembly>,
    next_token: u64,
    /// By cluster shard, in the order of their arrival.
    parked: BTreeMap<u16, VecDeque<Parked>>,
    parked_bytes: usize,
    /// Told when a request was turned away by a node that is to be asked again.
    turned_away: Rc<Notify>,
    /// Whether one was turned away that another node leads by now.
    is_led_elsewhere: bool,
    /// The clock of grants, as this turn read it; 0 before it did.
    boot_ns: u64,
    /// Whether the request at hand was passed on by another node: it goes no further.
    is_passed_on: bool,
    /// Whether the request at hand belongs elsewhere, or nowhere yet.
    was_elsewhere: bool,
}

/// A worker's place in a cluster: what its routing is made of, on its own thread.
pub(crate) struct Seat {
    pub(crate) replication: Arc<Replication>,
    pub(crate) dialler: Dialler,
    pub(crate) worker: u16,
}

/// What a write is awaited for.
enum Awaited {
    /// What is held for a client of the binary protocol, and what names it.
    Framed { ticket: Ticket, head: Head },
    /// The answer to a job that was parked, until when it was.
    Kept { job: Job, answer: Bytes, until_ms: u64 },
    /// One of several that an answer waits for.
    Gathered(u64),
    /// All of several.
    Gathering { ticket: Ticket, head: Option<Head>, left: u32, failed: bool },
}

/// A request on its way to another node.
struct PassedOn {
    node: NodeId,
    job: Job,
    until_ms: u64,
}

/// What one of the other nodes is asked of a get.
struct Errand {
    line: Vec<u8>,
    part: usize,
    /// Of the first key.
    ticket: Ticket,
    hash: KeyHash,
}

/// A request that waits until somebody leads its shard.
struct Parked {
    job: Job,
    until_ms: u64,
}

/// A request whose answer is held under a ticket.
struct Job {
    ticket: Ticket,
    raw: Raw,
    shard: ShardId,
    kind: JobKind,
    /// Of the binary request that is answered, if it is one.
    head: Option<Head>,
    /// When it was parked first, by the clock of grants, if it was.
    parked_ns: Option<u64>,
}

/// A request as it was sent: that of nearly every get, in place.
type Raw = SmallVec<[u8; 64]>;

impl Job {
    fn new(ticket: Ticket, raw: Raw, shard: ShardId, kind: JobKind, head: Option<Head>) -> Self {
        Self { ticket, raw, shard, kind, head, parked_ns: None }
    }
}

/// What is special about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobKind {
    /// A whole request that may change something.
    Write,
    /// A whole request that changes nothing.
    Read,
    /// One key of a get, which has a hold of its own: the answer's end is not the client's.
    Part,
    /// Some keys of a get.
    PartOf { assembly: u64, part: usize },
    /// A flush on one of the nodes: it counts for this gathering.
    Flush(u64),
    /// A delete in the wake of a write that was refused: what is held is the refusal, and stays unless the
    /// item may be there still.
    Removal,
}

impl JobKind {
    /// Whether it may be carried out any number of times.
    fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::Part | Self::PartOf { .. })
    }
}

impl Routing {
    /// Of the worker that has this place.
    pub(crate) fn new(seat: Seat) -> Self {
        let Seat { replication, dialler, worker } = seat;
        Self {
            links: Links::new(Arc::clone(&replication), dialler),
            replication,
            worker,
            room: None,
            agenda: Agenda::default(),
            holds: Vec::new(),
            awaited: AHashMap::new(),
            passed_on: UnderWay::default(),
            assemblies: AHashMap::new(),
            next_token: 0,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            turned_away: Rc::default(),
            is_led_elsewhere: false,
            boot_ns: 0,
            is_passed_on: false,
            was_elsewhere: false,
        }
    }

    pub(crate) fn started(&mut self, worker: &WorkerHandle<CacheService>) {
        self.room = Some(Rc::clone(worker.waiting_room()));
        self.links.started(worker);
        worker.spawn(ask_again(Rc::clone(&self.turned_away), worker.downgrade()));
    }

    /// The map as this node has applied it.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        self.replication.map()
    }

    pub(crate) fn holds(&mut self) -> &mut Vec<Hold> {
        &mut self.holds
    }

    pub(crate) fn wants_ticks(&self) -> bool {
        !self.parked.is_empty() || !self.passed_on.is_empty()
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// Whether this node leads the shard of the key with this hash, as far as it knows.
    pub(crate) fn leads(&self, hash: KeyHash) -> bool {
        self.replication.leader_of(hash.0) == Some(self.replication.me().node)
    }

    fn shard_of(&self, hash: KeyHash) -> ShardId {
        cluster::hash::shard_of_hash(hash.0, self.replication.shard_count())
    }

    fn resolve(&self, ticket: Ticket, resolution: Resolution) {
        if let Some(room) = &self.room {
            room.resolve(ticket, resolution);
        }
    }

    /// The clock of grants, read once a turn, by the first of its requests that has to know.
    ///
    /// A read may be answered by the grants as they stood then, though a grant runs out meanwhile: the bytes of
    /// all requests of a turn were received before, and their answers leave after, so that moment is one between
    /// request and answer. Nobody else had been appointed by then; what this node has of the key since is its own
    /// writes, and an answer that sees one which is not committed waits for it. So what the read finds is what was
    /// the newest at that moment, or newer.
    #[inline]
    fn boot_ns(&mut self) -> u64 {
        if self.boot_ns == 0 {
            self.boot_ns = boot_ns();
        }
        self.boot_ns
    }

    /// What is told whether what is held under `ticket`, which is noted there, may leave.
    fn held(&mut self, ticket: Ticket, head: Option<Head>, noted: &mut Option<Ticket>) -> Token {
        *noted = Some(ticket);
        let Some(head) = head else { return Token::Held(ticket) };
        let token = self.token();
        self.awaited.insert(token, Awaited::Framed { ticket, head });
        Token::Noted(token)
    }

    /// Has a job that is not for this node, or not now, done by whoever may.
    fn entrust(&mut self, access: Access, job: Job, now: Now) {
        match access {
            Access::Elsewhere(node) if !self.is_parked(job.shard) => self.pass_on(node, job, now),
            Access::TooFewCopies => self.refuse_job(&job, TOO_FEW_COPIES),
            _ => self.park(job, now.unix_ms + PARKED_MS_MAX),
        }
    }

    /// Sends a job to the node that leads its shard, if that is another.
    fn pass_on(&mut self, node: NodeId, job: Job, now: Now) {
        let until_ms = now.unix_ms + FORWARDED_MS_MAX;
        match self.send(PassedOn { node, job, until_ms }) {
            None => ReplicationCounters::add(&self.replication.counters.forwarded, 1),
            Some(job) => self.park(job, now.unix_ms + PARKED_MS_MAX),
        }
    }

    /// Sends a job on its way; gives it back where there is no connection.
    fn send(&mut self, passed_on: PassedOn) -> Option<Job> {
        let number = self.passed_on.insert(passed_on);
        let PassedOn { node, job, .. } = self.passed_on.get_mut(number)?;
        if self.links.send(*node, number, &job.raw) {
            return None;
        }
        self.passed_on.remove(number).map(|passed_on| passed_on.job)
    }

    /// Keeps a job until somebody leads its shard; the keys of a get each for itself, as each may have another
    /// primary by then.
    fn park(&mut self, mut job: Job, until_ms: u64) {
        // Not the turn's time: that it began to wait for something long ago would be news to nobody.
        job.parked_ns.get_or_insert_with(boot_ns);
        if let JobKind::PartOf { assembly, part } = job.kind
            && keys_in(&job.raw).nth(1).is_some()
        {
            return self.split(&job, assembly, part, until_ms);
        }
        if self.parked_bytes + job.raw.len() > PARKED_BYTES_MAX {
            return self.refuse_job(&job, BUSY);
        }
        ReplicationCounters::add(&self.replication.counters.parked, 1);
        self.parked_bytes += job.raw.len();
        let queue = self.parked.entry(job.shard.0).or_default();
        // Jobs come back from other nodes in any order; their tickets say how they arrived.
        let at = queue.partition_point(|other| other.job.ticket < job.ticket);
        queue.insert(at, Parked { job, until_ms });
    }

    /// Parks some keys of a get as jobs of one key each.
    fn split(&mut self, job: &Job, assembly: u64, part: usize, until_ms: u64) {
        let Step::Request { request: Request::Get(get), .. } =
            Decoder::new(protocol::Limits::default()).decode(&job.raw)
        else {
            return self.answer_job(job, Bytes::new());
        };
        let Some(parts) = self.assemblies.get_mut(&assembly).map(|whole| whole.split(part)) else {
            return;
        };
        for (asked, part) in get.keys.clone().zip(parts) {
            let raw = get_of_one(&get, &job.raw, asked.as_bytes()).into();
            let shard = self.shard_of(Key::new(asked.as_bytes()).hash());
            let kind = JobKind::PartOf { assembly, part };
            let parked_ns = job.parked_ns;
            self.park(
                Job { parked_ns, ..Job::new(job.ticket, raw, shard, kind, job.head) },
                until_ms,
            );
        }
    }

    /// Whether a key of a get can go along with others: nothing is parked that it has to stay behind.
    fn may_overtake(&self, hash: KeyHash) -> bool {
        !self.is_passed_on && !self.is_parked(self.shard_of(hash))
    }

    fn is_parked(&self, shard: ShardId) -> bool {
        !self.parked.is_empty() && self.parked.contains_key(&shard.0)
    }

    /// Answers a job with an error.
    fn refuse_job(&mut self, job: &Job, error: &'static [u8]) {
        self.answer_job(job, worded(job.head, error));
    }

    /// Answers a job with what another node answered, or with an error.
    fn answer_job(&mut self, job: &Job, answer: Bytes) {
        if let Some(since_ns) = job.parked_ns {
            self.replication.pauses.parked.add_ns(boot_ns().saturating_sub(since_ns));
        }
        match job.kind {
            JobKind::Write | JobKind::Read => {
                self.resolve(job.ticket, Resolution::Replace(answer));
            }
            JobKind::Part => {
                self.resolve(job.ticket, Resolution::Replace(without_end(&answer)));
            }
            JobKind::PartOf { assembly, part } => {
                let Some(parts) = self.assemblies.get_mut(&assembly) else { return };
                let whole = parts.answer(part, keys_in(&job.raw), &answer);
                if parts.is_whole() {
                    self.assemblies.remove(&assembly);
                }
                for (ticket, values) in whole {
                    self.resolve(ticket, Resolution::Replace(values));
                }
            }
            JobKind::Flush(gathering) => self.gathered(gathering, answer.starts_with(b"OK")),
            JobKind::Removal => {
                let resolution = match is_removed(&answer) {
                    true => Resolution::Keep,
                    // In words that the client of the write that was refused can read.
                    false if job.head.is_some() => Resolution::Replace(worded(job.head, UNKNOWN)),
                    false => Resolution::Replace(answer),
                };
                self.resolve(job.ticket, resolution);
            }
        }
    }

    /// One of several that an answer waits for is decided.
    fn gathered(&mut self, gathering: u64, is_done: bool) {
        let awaited = self.awaited.get_mut(&gathering);
        let Some(Awaited::Gathering { ticket, head, left, failed }) = awaited else { return };
        *left -= 1;
        *failed |= !is_done;
        if *left > 0 {
            return;
        }
        let (ticket, head, failed) = (*ticket, *head, *failed);
        self.awaited.remove(&gathering);
        let resolution = if failed { unknown(head) } else { Resolution::Keep };
        self.resolve(ticket, resolution);
    }

    /// A write is committed, or will never be known to be.
    fn decided(&mut self, token: Token, is_committed: bool) {
        if !is_committed {
            ReplicationCounters::add(&self.replication.counters.unknown_outcomes, 1);
        }
        let token = match token {
            Token::Held(ticket) => {
                let resolution = if is_committed { Resolution::Keep } else { unknown(None) };
                return self.resolve(ticket, resolution);
            }
            Token::Noted(token) => token,
        };
        match self.awaited.remove(&token) {
            // What it found may never have been, and it changes nothing: once more, in the time that is left.
            Some(Awaited::Kept { job, until_ms, .. }) if !is_committed && job.kind.is_read() => {
                self.park(job, until_ms);
            }
            Some(Awaited::Kept { job, answer, .. }) if is_committed => {
                self.answer_job(&job, answer);
            }
            Some(Awaited::Kept { job, .. }) => self.refuse_job(&job, UNKNOWN),
            Some(Awaited::Framed { ticket, head }) => {
                let resolution = if is_committed { Resolution::Keep } else { unknown(Some(head)) };
                self.resolve(ticket, resolution);
            }
            Some(Awaited::Gathered(gathering)) => self.gathered(gathering, is_committed),
            Some(gathering @ Awaited::Gathering { .. }) => {
                debug_assert!(false, "a gathering has no write of its own");
                self.awaited.insert(token, gathering);
            }
            None => {}
        }
    }
}

/// Has requests tried again that were turned away, a while after the first of them was, as long as the worker runs.
async fn ask_again(turned_away: Rc<Notify>, worker: WeakWorker<CacheService>) {
    loop {
        turned_away.notified().await;
        sleep(TURNED_AWAY).await;
        let Some(worker) = worker.upgrade() else { return };
        let now = worker.now();
        worker.with_service(|service| service.retry_parked(now));
        // What was read for others leaves with its own turn, if at all.
        let _ = worker.end_turn();
    }
}

/// The values of a get's answer. Of an answer that is an error nothing: what has not come is left out.
fn without_end(answer: &Bytes) -> Bytes {
    answer.strip_suffix(END).map_or_else(Bytes::new, |values| answer.slice(..values.len()))
}

fn unknown(head: Option<Head>) -> Resolution {
    Resolution::Replace(worded(head, UNKNOWN))
}

/// An error of this file as the client reads it: a line, or a frame that answers the request of `head`.
fn worded(head: Option<Head>, error: &'static [u8]) -> Bytes {
    let Some(head) = head else { return Bytes::from_static(error) };
    let status = match error {
        UNKNOWN => Status::InternalError,
        BUSY => Status::Busy,
        _ => Status::TemporaryFailure,
    };
    let words = error.strip_prefix(b"SERVER_ERROR ").unwrap_or(error).trim_ascii_end();
    let mut frame = Vec::new();
    encode_worded_error(&mut frame, head, status, words);
    frame.into()
}

/// What carrying out a request on the spot came to.
enum Here {
    /// Its answer was appended, and may leave.
    Done,
    /// It was appended, and the token is told when it may leave.
    Awaits(Token),
    /// It is not to be carried out here, or not now.
    Not(Access),
}

impl CacheService {
    fn routing(&mut self) -> &mut Routing {
        self.routing.as_mut().expect("called on a node of a cluster")
    }

    /// Carries out, passes on or parks a request.
    pub(crate) fn handle_in_cluster(
        &mut self,
        request: &Request<'_>,
        call: Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        if let Request::Get(get) = request {
            return self.get_in_cluster(get, call, out);
        }
        let head = match request {
            Request::Binary(binary) => Some(binary.head),
            _ => None,
        };
        let mut scratch = KeyScratch::default();
        let Some(key) = key_of(request, &mut scratch) else {
            return match request {
                Request::FlushAll(flush) if self.allows_flush => {
                    self.flush_all_in_cluster(flush, None, &call, out)
                }
                Request::Binary(BinaryRequest { command: Command::Flush { delay }, .. })
                    if self.allows_flush =>
                {
                    let flush = FlushAll { delay: *delay, noreply: false };
                    self.flush_all_in_cluster(&flush, head, &call, out)
                }
                Request::Restore(_) => {
                    out.extend_from_slice(NOT_IN_A_CLUSTER);
                    Flow::Continue
                }
                _ => self.without_key(request, &call, out),
            };
        };
        let from = out.len();
        let mut ticket = None;
        let held = |routing: &mut Routing| routing.held(call.issue_ticket(), head, &mut ticket);
        match self.try_here(request, &key, call.now, out, held) {
            Here::Done => {}
            // Nobody waits for what is not answered.
            Here::Awaits(_) if out.len() == from && is_noreply(request) => {}
            Here::Awaits(_) => self.hold(ticket, from, out),
            Here::Not(access) => {
                let kind = if may_write(request) { JobKind::Write } else { JobKind::Read };
                let no_answer = is_noreply(request);
                self.send_away(access, key.hash(), kind, no_answer, &call, call.raw, out);
            }
        }
        Flow::Continue
    }

    /// Holds back the answer from `from` on, if there is a ticket for it.
    fn hold(&mut self, ticket: Option<Ticket>, from: usize, out: &[u8]) {
        let Some(ticket) = ticket else { return };
        self.routing().holds.push(Hold { ticket, from, to: out.len() });
    }

    /// Has a request answered by whoever may, later.
    #[expect(clippy::too_many_arguments, reason = "what a request is, and where its answer goes")]
    fn send_away(
        &mut self,
        access: Access,
        hash: KeyHash,
        kind: JobKind,
        no_answer: bool,
        call: &Call<'_>,
        raw: &[u8],
        out: &[u8],
    ) {
        let routing = self.routing();
        if routing.is_passed_on {
            routing.was_elsewhere = true;
            return;
        }
        let shard = routing.shard_of(hash);
        let ticket = call.issue_ticket();
        let at = out.len();
        if !no_answer {
            routing.holds.push(Hold { ticket, from: at, to: at });
        }
        let head = Head::of_request(raw);
        routing.entrust(access, Job::new(ticket, raw.into(), shard, kind, head), call.now);
    }

    /// Carries a request out if this node leads the shard of its key.
    fn try_here(
        &mut self,
        request: &Request<'_>,
        key: &Key<'_>,
        now: Now,
        out: &mut Vec<u8>,
        token: impl FnOnce(&mut Routing) -> Token,
    ) -> Here {
        let writes = may_write(request);
        let stays = leaves_value(request);
        self.on_shard(key, writes, stays, now, out, token, |service, on, out| {
            service.on_key(request, on, out);
        })
    }

    /// Calls `act` with the shard of `key` if this node leads it, and has what it changes replicated. `token`
    /// says what is told should the answer have to wait.
    #[expect(clippy::too_many_arguments, reason = "what is done, and where its answer goes")]
    fn on_shard(
        &mut self,
        key: &Key<'_>,
        writes: bool,
        value_stays: bool,
        now: Now,
        out: &mut Vec<u8>,
        token: impl FnOnce(&mut Routing) -> Token,
        act: impl FnOnce(&Self, &mut On<'_, '_>, &mut Vec<u8>),
    ) -> Here {
        let hash = key.hash();
        let Some(mut routing) = self.routing.take() else { return Here::Done };
        let here = 'here: {
            let me = routing.replication.me().node;
            match routing.replication.leader_of(hash.0) {
                Some(node) if node != me => break 'here Here::Not(Access::Elsewhere(node)),
                None => break 'here Here::Not(Access::Nobody),
                Some(_) => {}
            }
            if routing.is_parked(routing.shard_of(hash)) && !routing.is_passed_on {
                break 'here Here::Not(Access::Nobody);
            }
            let boot_ns = routing.boot_ns();
            let mut locked = self.shards.lock(key);
            let (shard, Some(replicas)) = locked.parts() else { break 'here Here::Done };
            let mut context = Context {
                replication: &routing.replication,
                agenda: &mut routing.agenda,
                now: timestamp(now),
                boot_ns,
            };
            match replicas.access(hash, writes, &context) {
                Access::Granted => {}
                access => break 'here Here::Not(access),
            }
            // A mere read may change something too: the first who meets a stale item wins it.
            let own_cas = Some(replicas.next_cas(hash));
            shard.take_changed();
            act(self, &mut On::new(shard, *key, own_cas, context.now), out);
            let changed = shard.take_changed();
            replicas.pass_departures_on(shard, &mut context);
            let awaited = if changed {
                replicas.changed(shard, key, value_stays, &mut context)
            } else if context.replication.reads_are_confirmed() {
                replicas.confirm(shard, hash, &mut context)
            } else {
                replicas.awaited(hash)
            };
            let Some(sequence) = awaited else { break 'here Here::Done };
            let token = token(&mut routing);
            replicas.wait(hash, sequence, Waiter { worker: routing.worker, token });
            Here::Awaits(token)
        };
        self.routing = Some(routing);
        here
    }

    fn get_in_cluster(&mut self, get: &Get<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
        let writes = get.touch.is_some();
        let is_one = get.keys.len() == 1;
        if is_one && !writes && self.get_at_once(get, call.now, out) {
            return Flow::Continue;
        }
        let mut errands: BTreeMap<NodeId, Errand> = BTreeMap::new();
        let mut assembly = Assembly::default();
        // Of the keys just before, if those are elsewhere.
        let mut run = None;
        let mut holds = 0;
        let mut flow = Flow::Continue;
        let mut to_prefetch = get.keys.clone().skip(call.done);
        let mut prefetched = call.done;
        for (index, asked) in get.keys.clone().enumerate().skip(call.done) {
            let is_full = out.len() > call.output_bytes_high || holds >= call.holds_max;
            if index > call.done && is_full {
                flow = Flow::Pause { done: index };
                break;
            }
            if index == prefetched && !is_one {
                self.prefetch_led(to_prefetch.by_ref().take(PREFETCHED_KEYS_MAX));
                prefetched += PREFETCHED_KEYS_MAX;
            }
            let key = Key::new(asked.as_bytes());
            let from = out.len();
            if !writes && self.get_from_copy(get, asked, &key, call.now, out) {
                if out.len() > from {
                    run = None;
                }
                continue;
            }
            let mut ticket = None;
            let awaits = |routing: &mut Routing| match is_one {
                true => routing.held(call.issue_ticket(), None, &mut ticket),
                false => Token::Noted(routing.token()),
            };
            let here =
                self.on_shard(&key, writes, true, call.now, out, awaits, |service, on, out| {
                    service.get_one(get, asked, on.shard, &on.key, on.now, out);
                });
            match here {
                // A miss has no place in the answer.
                Here::Done if out.len() == from => {}
                Here::Done => run = None,
                Here::Awaits(Token::Held(_)) => {
                    // The end too: should the write not be known of, an error stands for all of it.
                    Response::End.encode(out);
                    self.hold(ticket, from, out);
                    return Flow::Continue;
                }
                Here::Awaits(Token::Noted(token)) => {
                    // An error cannot stand among values, and a miss would be a lie: it is asked again then.
                    holds += 1;
                    run = None;
                    let mut answer = out.split_off(from);
                    answer.extend_from_slice(END);
                    let raw = get_of_one(get, call.raw, asked.as_bytes());
                    let ticket = call.issue_ticket();
                    self.hold(Some(ticket), from, out);
                    let routing = self.routing();
                    let shard = routing.shard_of(key.hash());
                    let kind = JobKind::Part;
                    let job = Job::new(ticket, raw.into(), shard, kind, None);
                    let until_ms = call.now.unix_ms + PARKED_MS_MAX;
                    let kept = Awaited::Kept { job, answer: answer.into(), until_ms };
                    routing.awaited.insert(token, kept);
                }
                Here::Not(access) if is_one => {
                    let kind = if writes { JobKind::Write } else { JobKind::Read };
                    self.send_away(access, key.hash(), kind, false, &call, call.raw, out);
                    return Flow::Continue;
                }
                Here::Not(Access::Elsewhere(node)) if self.routing().may_overtake(key.hash()) => {
                    let ticket = *run.get_or_insert_with(|| {
                        holds += 1;
                        let ticket = call.issue_ticket();
                        assembly.begin_run(ticket);
                        self.hold(Some(ticket), out.len(), out);
                        ticket
                    });
                    let errand = errands.entry(node).or_insert_with(|| Errand {
                        line: get_head(get, call.raw),
                        part: assembly.begin_part(),
                        ticket,
                        hash: key.hash(),
                    });
                    errand.line.push(b' ');
                    errand.line.extend_from_slice(asked.as_bytes());
                    assembly.push(errand.part);
                }
                Here::Not(access) => {
                    holds += 1;
                    run = None;
                    let line = get_of_one(get, call.raw, asked.as_bytes());
                    self.send_away(access, key.hash(), JobKind::Part, false, &call, &line, out);
                }
            }
        }
        if !errands.is_empty() {
            self.run_errands(errands, assembly, call.now);
        }
        if matches!(flow, Flow::Continue) {
            Response::End.encode(out);
        }
        flow
    }

    /// Answers a get of one key where nothing stands in the way, as nearly always: this node serves the shard
    /// under a lease that was found before, and nothing of the shard waits to be committed. False when there is
    /// more to it; nothing was done then.
    ///
    /// What it asks is what [`Replicas::access`](crate::replication::replicas::Replicas::access) and
    /// [`Replicas::awaited`](crate::replication::replicas::Replicas::awaited) ask, under the same lock, of the one
    /// line that has it all.
    #[inline]
    fn get_at_once(&mut self, get: &Get<'_>, now: Now, out: &mut Vec<u8>) -> bool {
        let (Some(routing), Some(asked)) = (&mut self.routing, get.keys.clone().next()) else {
            return false;
        };
        let key = Key::new(asked.as_bytes());
        if !routing.parked.is_empty() || !routing.leads(key.hash()) {
            return false;
        }
        let boot_ns = routing.boot_ns();
        let mut locked = self.shards.lock(&key);
        let (shard, Some(replicas)) = locked.parts() else { return false };
        if !replicas.answers_at_once(key.hash(), &routing.replication, boot_ns) {
            return false;
        }
        let at = timestamp(now);
        self.get_one(get, asked, shard, &key, at, out);
        if shard.has_departures()
            && let Some(routing) = &mut self.routing
        {
            // It had expired: that goes into the stream.
            let (replication, agenda) = (&*routing.replication, &mut routing.agenda);
            let mut context = Context { replication, agenda, now: at, boot_ns };
            replicas.pass_departures_on(shard, &mut context);
        }
        Response::End.encode(out);
        true
    }

    /// Answers from a copy of a shard that another node leads, where any copy may answer; false where it may not, or
    /// this node has none in sync.
    fn get_from_copy(
        &mut self,
        get: &Get<'_>,
        asked: protocol::Key<'_>,
        key: &Key<'_>,
        now: Now,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(routing) = &self.routing else { return false };
        if !routing.replication.copies_answer() || routing.leads(key.hash()) {
            return false;
        }
        let mut locked = self.shards.lock(key);
        let (shard, Some(replicas)) = locked.parts() else { return false };
        if !replicas.is_in_sync(key.hash()) {
            return false;
        }
        let now = timestamp(now);
        match shard.look(key, now) {
            Look::Nothing | Look::Item { .. } => self.get_one(get, asked, shard, key, now, out),
            // A touch may be on its way that the primary carried out in time: the item must be there for it.
            Look::Expired => self.count_get(false),
        }
        true
    }

    /// Asks the other nodes for their parts of a get.
    fn run_errands(&mut self, errands: BTreeMap<NodeId, Errand>, parts: Assembly, now: Now) {
        let routing = self.routing();
        let assembly = routing.token();
        routing.assemblies.insert(assembly, parts);
        for (node, Errand { mut line, part, ticket, hash }) in errands {
            line.extend_from_slice(b"\r\n");
            let shard = routing.shard_of(hash);
            let kind = JobKind::PartOf { assembly, part };
            let job = Job::new(ticket, line.into(), shard, kind, None);
            routing.entrust(Access::Elsewhere(node), job, now);
        }
    }

    /// Flushes what this node leads, and has the others do the same.
    fn flush_all_in_cluster(
        &mut self,
        flush: &FlushAll,
        head: Option<Head>,
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let from = out.len();
        match head {
            Some(head) if head.is_quiet() => {}
            Some(head) => encode_success(out, head, 0, b""),
            None if flush.noreply => {}
            None => Response::Ok.encode(out),
        }
        self.counters.cmd_flush.add(1);
        let ticket = call.issue_ticket();
        let Some(mut routing) = self.routing.take() else { return Flow::Continue };
        let gathering = routing.token();
        let mut left = 1;
        let delay_ms = delay_ms(flush.delay, call.now);
        let boot_ns = routing.boot_ns();
        if delay_ms > 0 {
            routing.replication.flush_later(call.now.unix_ms + delay_ms);
        } else {
            let worker = routing.worker;
            let mut tokens = Vec::new();
            for index in 0..self.shards.geometry().shard_count {
                let next_token = &mut routing.next_token;
                self.shards.with_replicas(
                    index,
                    &mut routing.agenda,
                    call.now,
                    boot_ns,
                    |shard, replicas, context| {
                        replicas.flush_led(shard, context, || {
                            *next_token += 1;
                            tokens.push(*next_token);
                            Waiter { worker, token: Token::Noted(*next_token) }
                        });
                    },
                );
            }
            left += u32::try_from(tokens.len()).unwrap_or(u32::MAX);
            for token in tokens {
                routing.awaited.insert(token, Awaited::Gathered(gathering));
            }
        }
        if !routing.is_passed_on {
            let mut raw = b"flush_all".to_vec();
            if delay_ms > 0 {
                raw.extend_from_slice(format!(" {}", delay_ms.div_ceil(1000)).as_bytes());
            }
            raw.extend_from_slice(b"\r\n");
            for node in routing.links.nodes() {
                left += 1;
                let kind = JobKind::Flush(gathering);
                let shard = ShardId(0);
                let job = Job::new(ticket, raw.as_slice().into(), shard, kind, None);
                let until_ms = call.now.unix_ms + FORWARDED_MS_MAX;
                if routing.send(PassedOn { node, job, until_ms }).is_some() {
                    // A node that is not there leads nothing, or its shards have no primary just now.
                    left -= 1;
                }
            }
        }
        let awaited = Awaited::Gathering { ticket, head, left, failed: false };
        routing.awaited.insert(gathering, awaited);
        if !flush.noreply {
            routing.holds.push(Hold { ticket, from, to: out.len() });
        }
        routing.gathered(gathering, true);
        self.routing = Some(routing);
        Flow::Continue
    }

    /// Removes an item whose replacement was refused with `line`, wherever it is. The line is held until then:
    /// what the client writes once it has read it must not be removed.
    pub(crate) fn invalidate_in_cluster(
        &mut self,
        written: &MetaKey<'_>,
        line: &[u8],
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) {
        let mut scratch = KeyScratch::default();
        let key = Key::new(written.key(&mut scratch).as_bytes());
        let head = Head::of_response(line);
        let mut ticket = None;
        let held = |routing: &mut Routing| routing.held(call.issue_ticket(), head, &mut ticket);
        let here = self.on_shard(&key, true, false, call.now, out, held, |_, on, _| {
            on.shard.delete(&on.key, None, on.now);
        });
        let from = out.len();
        out.extend_from_slice(line);
        let awaited = match here {
            Here::Done => return,
            Here::Awaits(_) => ticket,
            Here::Not(access) => {
                let routing = self.routing();
                if routing.is_passed_on {
                    routing.was_elsewhere = true;
                    return;
                }
                let ticket = call.issue_ticket();
                let (raw, shard) = (removal_of(*written).into(), routing.shard_of(key.hash()));
                let job = Job::new(ticket, raw, shard, JobKind::Removal, head);
                routing.entrust(access, job, call.now);
                Some(ticket)
            }
        };
        // Nobody waits for what is not answered.
        if !line.is_empty() {
            self.hold(awaited, from, out);
        }
    }

    /// Ends a turn: what was ordered and passed on in it is sent, together with what other turns of the
    /// worker that are due have for the same nodes.
    pub(crate) fn end_turn_in_cluster(&mut self) {
        let Some(routing) = &mut self.routing else { return };
        routing.boot_ns = 0;
        if !routing.agenda.is_empty() {
            let mut agenda = std::mem::take(&mut routing.agenda);
            let replication = Arc::clone(&routing.replication);
            let own = Some(routing.worker);
            routing.links.send_soon(agenda.take_lanes());
            agenda.carry_out(&replication, own, |token, outcome| routing.decided(token, outcome));
            routing.agenda = agenda;
        }
    }

    /// Another thread sent something.
    pub(crate) fn hear(&mut self, message: WorkerMessage, now: Now) {
        match message {
            WorkerMessage::Decided(decided) => {
                for (token, is_committed) in decided {
                    self.routing().decided(token, is_committed);
                }
            }
            WorkerMessage::News => {
                self.routing().links.map_changed();
                self.take_back_what_is_lost(now);
                self.retry_parked(now);
            }
            WorkerMessage::Accepted(connection) => self.routing().links.accept(*connection),
        }
    }

    /// The answer of another node, to what was passed on to it.
    pub(crate) fn hear_answer(&mut self, token: u64, answer: Answer, now: Now) {
        let passed_on = self.routing().passed_on.remove(token);
        let Some(PassedOn { node, job, until_ms }) = passed_on else { return };
        match answer {
            // What it found there may never have been, and it changes nothing: once more.
            Answer::Done(bytes) if is_unknown(job.head, &bytes) => match job.kind.is_read() {
                true => {
                    self.routing().turned_away.notify_one();
                    self.routing().park(job, until_ms);
                }
                false => self.routing().refuse_job(&job, UNKNOWN),
            },
            Answer::Done(bytes) => self.routing().answer_job(&job, bytes),
            Answer::Elsewhere => {
                let routing = self.routing();
                match routing.replication.leader_of_shard(job.shard) == Some(node) {
                    true => routing.turned_away.notify_one(),
                    false => routing.is_led_elsewhere = true,
                }
                routing.park(job, now.unix_ms + PARKED_MS_MAX);
            }
        }
    }

    /// All that arrived at once of another node's answers is heard.
    pub(crate) fn heard_answers(&mut self, now: Now) {
        if std::mem::take(&mut self.routing().is_led_elsewhere) {
            self.retry_parked(now);
        }
    }

    /// The link to a node is gone, and with it what was on its way.
    pub(crate) fn lost_link(&mut self, node: NodeId, now: Now) {
        let routing = self.routing();
        let lost: Vec<u64> = routing
            .passed_on
            .iter()
            .filter(|(_, passed_on)| passed_on.node == node)
            .map(|(number, _)| number)
            .collect();
        self.give_up(lost, now);
    }

    /// What was passed on to a node that does not lead the shard any more gets no answer that counts.
    fn take_back_what_is_lost(&mut self, now: Now) {
        let routing = self.routing();
        let leads = |passed_on: &PassedOn| {
            matches!(passed_on.job.kind, JobKind::Flush(_))
                || routing.replication.leader_of_shard(passed_on.job.shard) == Some(passed_on.node)
        };
        let (map, grants) = (routing.map(), routing.replication.leases().at(boot_ns()));
        // One that ends in order has no life any more, as far as the map goes, and still answers.
        let may_answer = |node| map.current(node).is_none_or(|member| grants.holds_from(member));
        let (mut lost, mut in_doubt) = (Vec::new(), Vec::new());
        for (token, passed_on) in routing.passed_on.iter() {
            match passed_on.job.kind {
                _ if leads(passed_on) => {}
                JobKind::Write | JobKind::Removal if may_answer(passed_on.node) => {
                    in_doubt.push(token);
                }
                _ => lost.push(token),
            }
        }
        // Where the node lives and has handed the shard over its answer is about to come.
        for token in in_doubt {
            if let Some(passed_on) = routing.passed_on.get_mut(token) {
                passed_on.until_ms = passed_on.until_ms.min(now.unix_ms + IN_DOUBT_MS_MAX);
            }
        }
        self.give_up(lost, now);
    }

    fn give_up(&mut self, mut lost: Vec<u64>, now: Now) {
        lost.sort_unstable();
        for token in lost {
            let Some(PassedOn { job, .. }) = self.routing().passed_on.remove(token) else {
                continue;
            };
            match job.kind {
                kind if kind.is_read() => self.routing().park(job, now.unix_ms + PARKED_MS_MAX),
                _ => {
                    let routing = self.routing();
                    ReplicationCounters::add(&routing.replication.counters.unknown_outcomes, 1);
                    routing.refuse_job(&job, UNKNOWN);
                }
            }
        }
    }

    /// Whatever is overdue is answered as such; the rest has another try.
    pub(crate) fn tick_in_cluster(&mut self, now: Now) {
        if self.routing.is_none() {
            return;
        }
        let overdue: Vec<u64> = self
            .routing()
            .passed_on
            .iter()
            .filter(|(_, passed_on)| passed_on.until_ms <= now.unix_ms)
            .map(|(number, _)| number)
            .collect();
        for token in overdue {
            let routing = self.routing();
            if let Some(passed_on) = routing.passed_on.remove(token) {
                let answer = if passed_on.job.kind.is_read() { NO_PRIMARY } else { UNKNOWN };
                routing.refuse_job(&passed_on.job, answer);
            }
        }
        self.retry_parked(now);
    }

    /// Has what is parked tried again, in its order.
    fn retry_parked(&mut self, now: Now) {
        if self.routing().parked.is_empty() {
            return;
        }
        for (shard, mut queue) in std::mem::take(&mut self.routing().parked) {
            while let Some(parked) = queue.pop_front() {
                self.routing().parked_bytes -= parked.job.raw.len();
                if let Some(parked) = self.retry(parked, now) {
                    let routing = self.routing();
                    routing.parked_bytes += parked.job.raw.len();
                    queue.push_front(parked);
                    break;
                }
            }
            let routing = self.routing();
            // Those that are overdue behind the first are answered as well.
            let (overdue, rest): (VecDeque<_>, VecDeque<_>) =
                queue.into_iter().partition(|parked| parked.until_ms <= now.unix_ms);
            for parked in overdue {
                routing.parked_bytes -= parked.job.raw.len();
                ReplicationCounters::add(&routing.replication.counters.parked_too_long, 1);
                routing.refuse_job(&parked.job, NO_PRIMARY);
            }
            if !rest.is_empty() {
                let queue = routing.parked.entry(shard).or_default();
                let newer = std::mem::replace(queue, rest);
                queue.extend(newer);
            }
        }
    }

    /// Tries a parked job; gives it back when it has to wait on.
    fn retry(&mut self, parked: Parked, now: Now) -> Option<Parked> {
        let Parked { job, until_ms } = parked;
        let mut decoder = Decoder::new(self.protocol_limits);
        let Step::Request { request, .. } = decoder.decode(&job.raw) else {
            self.routing().refuse_job(&job, NO_PRIMARY);
            return None;
        };
        let mut scratch = KeyScratch::default();
        let mut out = Vec::new();
        let noted = |routing: &mut Routing| Token::Noted(routing.token());
        let here = match &request {
            Request::Get(get) => {
                debug_assert_eq!(get.keys.len(), 1, "the keys of a get are parked each for itself");
                let asked = get.keys.clone().next()?;
                let key = Key::new(asked.as_bytes());
                let writes = get.touch.is_some();
                let here =
                    self.on_shard(&key, writes, true, now, &mut out, noted, |service, on, out| {
                        service.get_one(get, asked, on.shard, &on.key, on.now, out);
                    });
                out.extend_from_slice(END);
                here
            }
            request => match key_of(request, &mut scratch) {
                Some(key) => self.try_here(request, &key, now, &mut out, noted),
                None => return None,
            },
        };
        let routing = self.routing();
        match here {
            Here::Done => routing.answer_job(&job, out.into()),
            Here::Awaits(Token::Noted(token)) => {
                let kept = Awaited::Kept { job, answer: out.into(), until_ms };
                routing.awaited.insert(token, kept);
            }
            Here::Awaits(Token::Held(_)) => debug_assert!(false, "a parked job is noted"),
            Here::Not(Access::Elsewhere(node)) if routing.links.is_up(node) => {
                routing.pass_on(node, job, now);
            }
            Here::Not(Access::TooFewCopies) => {
                routing.refuse_job(&job, TOO_FEW_COPIES);
            }
            Here::Not(_) => return Some(Parked { job, until_ms }),
        }
        None
    }

    /// Has the items of those keys fetched from memory that this node leads.
    pub(crate) fn prefetch_led<'a>(&self, keys: impl Iterator<Item = protocol::Key<'a>>) {
        let keys = keys.map(|key| Key::new(key.as_bytes()));
        let led = keys
            .filter(|key| self.routing.as_ref().is_none_or(|routing| routing.leads(key.hash())));
        self.shards.prefetch(&led.take(PREFETCHED_KEYS_MAX).collect::<Keys<'_>>());
    }

    /// Has the items fetched from memory that requests of other nodes are about to read.
    pub(crate) fn prefetch_ahead<'a>(&self, requests: impl Iterator<Item = &'a [u8]>) {
        self.shards.prefetch(&keys(keys_foreseen(requests)));
    }

    /// The next request comes from another node, which has passed it on.
    pub(crate) fn set_passed_on(&mut self) {
        self.observer.begin_turn_of_other_node();
        let routing = self.routing();
        routing.is_passed_on = true;
        routing.was_elsewhere = false;
        ReplicationCounters::add(&routing.replication.counters.served_for_others, 1);
    }

    /// The next request comes from a client of this node.
    pub(crate) fn set_not_passed_on(&mut self) {
        self.routing().is_passed_on = false;
    }

    /// Whether the last request that was passed on to this node belongs elsewhere.
    pub(crate) fn was_elsewhere(&mut self) -> bool {
        std::mem::take(&mut self.routing().was_elsewhere)
    }

    /// Calls `act` with the shards and the agenda of this turn: for messages of other nodes.
    pub(crate) fn with_agenda<T>(
        &mut self,
        act: impl FnOnce(&crate::shards::Shards, &mut Agenda, u64) -> T,
    ) -> T {
        let shards = Arc::clone(&self.shards);
        let routing = self.routing();
        // A message is newer than the turn: a grant may have run out since.
        act(&shards, &mut routing.agenda, boot_ns())
    }
}

/// Whether a request may change the item of its key.
fn may_write(request: &Request<'_>) -> bool {
    match request {
        Request::MetaGet(get) => {
            get.touch.is_some() || get.vivify.is_some() || get.recache.is_some()
        }
        Request::MetaDebug(_) => false,
        Request::Binary(BinaryRequest { command: Command::Get(get), .. }) => get.touch.is_some(),
        _ => true,
    }
}

/// Whether a request, if it changes an item, leaves its value as it was.
fn leaves_value(request: &Request<'_>) -> bool {
    match request {
        Request::Touch(_) => true,
        Request::MetaGet(get) => get.vivify.is_none(),
        Request::Binary(binary) => {
            matches!(binary.command, Command::Get(_) | Command::Touch { .. })
        }
        _ => false,
    }
}

/// Whether the client waits for no answer. A quiet binary request has one when it fails.
fn is_noreply(request: &Request<'_>) -> bool {
    match request {
        Request::Store(store) => store.noreply,
        Request::Arithmetic(arithmetic) => arithmetic.noreply,
        Request::Touch(touch) => touch.noreply,
        Request::Delete(delete) => delete.noreply,
        _ => false,
    }
}

/// How long until a flush, in milliseconds.
fn delay_ms(delay: Exptime, now: Now) -> u64 {
    match delay {
        Exptime::Never | Exptime::Immediate => 0,
        Exptime::After { seconds } => u64::from(seconds) * 1000,
        Exptime::At { unix_s } => (u64::from(unix_s) * 1000).saturating_sub(now.unix_ms),
    }
}

/// The command of a get, with its expiry if it has one: what comes before the keys.
fn get_head(get: &Get<'_>, raw: &[u8]) -> Vec<u8> {
    let words = if get.touch.is_some() { 2 } else { 1 };
    let mut head = Vec::new();
    for word in raw.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).take(words) {
        if !head.is_empty() {
            head.push(b' ');
        }
        head.extend_from_slice(word);
    }
    head
}

/// A get of one of the keys.
fn get_of_one(get: &Get<'_>, raw: &[u8], key: &[u8]) -> Vec<u8> {
    let mut line = get_head(get, raw);
    line.push(b' ');
    line.extend_from_slice(key);
    line.extend_from_slice(b"\r\n");
    line
}

/// Removes an item, and says so as [`is_removed`] reads it.
fn removal_of(key: MetaKey<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    if let Some(key) = protocol::Key::new(key.written()).filter(|key| !key.is_token()) {
        // Only a frame had it.
        let head = Head { opcode: Opcode::Delete as u8, opaque: 0 };
        let command = Command::Delete { key, compare_cas: None };
        BinaryRequest { head, command }.encode(&mut raw);
        return raw;
    }
    Request::MetaDelete(MetaDelete::plain(key, Returns::new(b""))).encode(&mut raw);
    raw
}

/// Whether an item is gone that [`removal_of`] was to remove.
fn is_removed(answer: &[u8]) -> bool {
    match BinaryResponse::decode(answer, answer.len()) {
        BinaryResponseStep::Response { response, .. } => {
            let gone = [Status::Success as u16, Status::NotFound as u16];
            gone.contains(&response.status)
        }
        _ => answer == REMOVED || answer == NOT_THERE,
    }
}

/// Whether this is what another node says whose outcome is not known.
fn is_unknown(head: Option<Head>, answer: &[u8]) -> bool {
    answer == UNKNOWN || head.is_some() && answer == worded(head, UNKNOWN)
}

/// The keys of a get that this file wrote.
fn keys_in(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = raw.trim_ascii_end().split(|&byte| byte == b' ');
    words.skip(if raw.starts_with(b"gat") { 2 } else { 1 })
}
