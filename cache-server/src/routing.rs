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
//! - A get of many keys is split by who leads them. What has not come in time is left out of the answer.

pub(crate) mod discovery;
mod links;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use cluster::map::ClusterMap;
use cluster::shard::Grants as _;
use cluster::{NodeId, ShardId};
use eviction::KeyHash;
use protocol::meta::request::{KeyScratch, MetaKey};
use protocol::request::{FlushAll, Get};
use protocol::{Decoder, Exptime, Request, Response, Step};
use store::Key;

pub(crate) use self::links::{Answer, Links};
use crate::clock::{Now, boot_ns};
use crate::net::ticket::{Hold, Resolution, Ticket};
use crate::net::waiting_room::WaitingRoom;
use crate::net::{Call, Flow, WorkerHandle};
use crate::peer::dial::Dialler;
use crate::replication::replicas::{Access, Context};
use crate::replication::{Agenda, Replication, ReplicationCounters, Token, Waiter, WorkerMessage};
use crate::service::{CacheService, Keys, On, PREFETCHED_KEYS_MAX, key_of, timestamp};

/// How long a request waits for somebody to lead its shard, in milliseconds: design, §5.
const PARKED_MS_MAX: u64 = 1_000;
/// How long a request that was passed on may take.
const FORWARDED_MS_MAX: u64 = 5_000;
/// How long the answer to a write is awaited from a node that leads the shard no more.
const IN_DOUBT_MS_MAX: u64 = 100;
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
    passed_on: AHashMap<u64, PassedOn>,
    /// Parts of answers to gets that come together again.
    parts: AHashMap<u64, Parts>,
    next_token: u64,
    /// By cluster shard, in the order of their arrival.
    parked: BTreeMap<u16, VecDeque<Parked>>,
    parked_bytes: usize,
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
    /// The answer to a job that was parked, until when it was.
    Kept { job: Job, answer: Bytes, until_ms: u64 },
    /// One of several that an answer waits for.
    Gathered(u64),
    /// All of several.
    Gathering { ticket: Ticket, left: u32, failed: bool },
}

/// A request on its way to another node.
struct PassedOn {
    node: NodeId,
    job: Job,
    until_ms: u64,
}

/// Values of some keys of a get.
struct Parts {
    left: usize,
    bytes: Vec<u8>,
}

/// A request that waits until somebody leads its shard.
struct Parked {
    job: Job,
    until_ms: u64,
}

/// A request whose answer is held under a ticket.
struct Job {
    ticket: Ticket,
    raw: Box<[u8]>,
    shard: ShardId,
    kind: JobKind,
}

/// What is special about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobKind {
    /// A whole request that may change something.
    Write,
    /// A whole request that changes nothing.
    Read,
    /// Some keys of a get: the answer's end is not the client's.
    Part,
    /// One of the keys of a part.
    PartOf(u64),
    /// A flush on one of the nodes: it counts for this gathering.
    Flush(u64),
}

impl JobKind {
    /// Whether it may be carried out any number of times.
    fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::Part | Self::PartOf(_))
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
            passed_on: AHashMap::new(),
            parts: AHashMap::new(),
            next_token: 0,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            boot_ns: 0,
            is_passed_on: false,
            was_elsewhere: false,
        }
    }

    pub(crate) fn started(&mut self, worker: &WorkerHandle<CacheService>) {
        self.room = Some(Rc::clone(worker.waiting_room()));
        self.links.started(worker);
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

    fn boot_ns(&mut self) -> u64 {
        if self.boot_ns == 0 {
            self.boot_ns = boot_ns();
        }
        self.boot_ns
    }

    /// Sends a job to the node that leads its shard, if that is another.
    fn pass_on(&mut self, node: NodeId, job: Job, now: Now) {
        let token = self.token();
        if self.links.send(node, token, &job.raw) {
            ReplicationCounters::add(&self.replication.counters.forwarded, 1);
            let until_ms = now.unix_ms + FORWARDED_MS_MAX;
            self.passed_on.insert(token, PassedOn { node, job, until_ms });
        } else {
            self.park(job, now.unix_ms + PARKED_MS_MAX);
        }
    }

    /// Keeps a job until somebody leads its shard; the keys of a get each for itself, as each may have another
    /// primary by then.
    fn park(&mut self, job: Job, until_ms: u64) {
        if job.kind == JobKind::Part && count_keys(&job.raw) > 1 {
            return self.split(&job, until_ms);
        }
        if self.parked_bytes + job.raw.len() > PARKED_BYTES_MAX {
            return self.answer_job(&job, Bytes::from_static(BUSY));
        }
        ReplicationCounters::add(&self.replication.counters.parked, 1);
        self.parked_bytes += job.raw.len();
        let queue = self.parked.entry(job.shard.0).or_default();
        // Jobs come back from other nodes in any order; their tickets say how they arrived.
        let at = queue.partition_point(|other| other.job.ticket < job.ticket);
        queue.insert(at, Parked { job, until_ms });
    }

    /// Parks some keys of a get as jobs of one key each, whose answers come together again.
    fn split(&mut self, job: &Job, until_ms: u64) {
        let Step::Request { request: Request::Get(get), .. } =
            Decoder::new(protocol::Limits::default()).decode(&job.raw)
        else {
            return self.answer_job(job, Bytes::new());
        };
        let lines: Vec<(KeyHash, Vec<u8>)> = get
            .keys
            .clone()
            .map(|key| {
                let line = get_of_one(&get, &job.raw, key.as_bytes());
                (Key::new(key.as_bytes()).hash(), line)
            })
            .collect();
        let parts = self.token();
        self.parts.insert(parts, Parts { left: lines.len(), bytes: Vec::new() });
        for (hash, raw) in lines {
            let (shard, kind) = (self.shard_of(hash), JobKind::PartOf(parts));
            self.park(Job { ticket: job.ticket, raw: raw.into(), shard, kind }, until_ms);
        }
    }

    /// Whether a key of a get can go along with others: nothing is parked that it has to stay behind.
    fn may_overtake(&self, hash: KeyHash) -> bool {
        !self.is_passed_on && !self.is_parked(self.shard_of(hash))
    }

    fn is_parked(&self, shard: ShardId) -> bool {
        !self.parked.is_empty() && self.parked.contains_key(&shard.0)
    }

    /// Answers a job with what another node answered, or with an error.
    fn answer_job(&mut self, job: &Job, answer: Bytes) {
        match job.kind {
            JobKind::Write | JobKind::Read => {
                self.resolve(job.ticket, Resolution::Replace(answer));
            }
            JobKind::Part => {
                self.resolve(job.ticket, Resolution::Replace(without_end(&answer)));
            }
            JobKind::PartOf(parts) => {
                let Some(gathered) = self.parts.get_mut(&parts) else { return };
                gathered.bytes.extend_from_slice(&without_end(&answer));
                gathered.left -= 1;
                if gathered.left == 0
                    && let Some(gathered) = self.parts.remove(&parts)
                {
                    self.resolve(job.ticket, Resolution::Replace(gathered.bytes.into()));
                }
            }
            JobKind::Flush(gathering) => self.gathered(gathering, answer.starts_with(b"OK")),
        }
    }

    /// One of several that an answer waits for is decided.
    fn gathered(&mut self, gathering: u64, is_done: bool) {
        let awaited = self.awaited.get_mut(&gathering);
        let Some(Awaited::Gathering { ticket, left, failed }) = awaited else { return };
        *left -= 1;
        *failed |= !is_done;
        if *left > 0 {
            return;
        }
        let (ticket, failed) = (*ticket, *failed);
        self.awaited.remove(&gathering);
        let resolution = if failed { unknown() } else { Resolution::Keep };
        self.resolve(ticket, resolution);
    }

    /// A write is committed, or will never be known to be.
    fn decided(&mut self, token: Token, is_committed: bool) {
        if !is_committed {
            ReplicationCounters::add(&self.replication.counters.unknown_outcomes, 1);
        }
        let token = match token {
            Token::Held(ticket) => {
                let resolution = if is_committed { Resolution::Keep } else { unknown() };
                return self.resolve(ticket, resolution);
            }
            Token::Noted(token) => token,
        };
        match self.awaited.remove(&token) {
            // What it found may never have been, and it changes nothing: once more, in the time that is left.
            Some(Awaited::Kept { job, until_ms, .. }) if !is_committed && job.kind.is_read() => {
                self.park(job, until_ms);
            }
            Some(Awaited::Kept { job, answer, .. }) => {
                let unknown = Bytes::from_static(UNKNOWN);
                self.answer_job(&job, if is_committed { answer } else { unknown });
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

/// The values of a get's answer. Of an answer that is an error nothing: what has not come is left out.
fn without_end(answer: &Bytes) -> Bytes {
    answer.strip_suffix(END).map_or_else(Bytes::new, |values| answer.slice(..values.len()))
}

fn unknown() -> Resolution {
    Resolution::Replace(Bytes::from_static(UNKNOWN))
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
        let mut scratch = KeyScratch::default();
        let Some(key) = key_of(request, &mut scratch) else {
            return match request {
                Request::FlushAll(flush) => self.flush_all_in_cluster(flush, &call, out),
                Request::Restore(_) => {
                    out.extend_from_slice(NOT_IN_A_CLUSTER);
                    Flow::Continue
                }
                _ => self.without_key(request, &call, out),
            };
        };
        let from = out.len();
        let held = |_: &mut Routing| Token::Held(call.issue_ticket());
        match self.try_here(request, &key, call.now, out, held) {
            Here::Done => {}
            // Nobody waits for what is not answered.
            Here::Awaits(_) if out.len() == from && is_noreply(request) => {}
            Here::Awaits(token) => self.hold(token, from, out),
            Here::Not(access) => {
                let kind = if may_write(request) { JobKind::Write } else { JobKind::Read };
                let no_answer = is_noreply(request);
                self.send_away(access, key.hash(), kind, no_answer, &call, call.raw, out);
            }
        }
        Flow::Continue
    }

    /// Holds back the answer from `from` on.
    fn hold(&mut self, token: Token, from: usize, out: &[u8]) {
        let Token::Held(ticket) = token else { return };
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
        let job = Job { ticket, raw: raw.into(), shard, kind };
        match access {
            Access::Elsewhere(node) if !routing.is_parked(shard) => {
                routing.pass_on(node, job, call.now);
            }
            Access::TooFewCopies => routing.answer_job(&job, Bytes::from_static(TOO_FEW_COPIES)),
            _ => routing.park(job, call.now.unix_ms + PARKED_MS_MAX),
        }
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
            act(self, &mut On { shard, key: *key, own_cas, now: context.now }, out);
            let changed = shard.take_changed();
            replicas.pass_departures_on(shard, &mut context);
            let awaited = if changed {
                replicas.changed(shard, key, value_stays, &mut context)
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
        let mut elsewhere: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut first_hash: BTreeMap<NodeId, KeyHash> = BTreeMap::new();
        let mut holds = 0;
        let mut flow = Flow::Continue;
        let mut to_prefetch = get.keys.clone().skip(call.done);
        let mut prefetched = call.done;
        for (index, asked) in get.keys.clone().enumerate().skip(call.done) {
            let is_full = out.len() > call.output_bytes_high || holds + 8 > call.holds_max;
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
            let awaits = |routing: &mut Routing| match is_one {
                true => Token::Held(call.issue_ticket()),
                false => Token::Noted(routing.token()),
            };
            let here =
                self.on_shard(&key, writes, true, call.now, out, awaits, |service, on, out| {
                    service.get_one(get, asked, on.shard, &on.key, on.now, out);
                });
            match here {
                Here::Done => {}
                Here::Awaits(token @ Token::Held(_)) => {
                    // The end too: should the write not be known of, an error stands for all of it.
                    Response::End.encode(out);
                    self.hold(token, from, out);
                    return Flow::Continue;
                }
                Here::Awaits(Token::Noted(token)) => {
                    // An error cannot stand among values, and a miss would be a lie: it is asked again then.
                    holds += 1;
                    let mut answer = out.split_off(from);
                    answer.extend_from_slice(END);
                    let raw = get_of_one(get, call.raw, asked.as_bytes());
                    let ticket = call.issue_ticket();
                    self.hold(Token::Held(ticket), from, out);
                    let routing = self.routing();
                    let shard = routing.shard_of(key.hash());
                    let job = Job { ticket, raw: raw.into(), shard, kind: JobKind::Part };
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
                    let line = elsewhere.entry(node).or_insert_with(|| get_head(get, call.raw));
                    first_hash.entry(node).or_insert_with(|| key.hash());
                    line.push(b' ');
                    line.extend_from_slice(asked.as_bytes());
                }
                Here::Not(access) => {
                    holds += 1;
                    let line = get_of_one(get, call.raw, asked.as_bytes());
                    self.send_away(access, key.hash(), JobKind::Part, false, &call, &line, out);
                }
            }
        }
        for (node, mut line) in elsewhere {
            line.extend_from_slice(b"\r\n");
            let access = Access::Elsewhere(node);
            self.send_away(access, first_hash[&node], JobKind::Part, false, &call, &line, out);
        }
        if flow == Flow::Continue {
            Response::End.encode(out);
        }
        flow
    }

    /// Flushes what this node leads, and has the others do the same.
    fn flush_all_in_cluster(
        &mut self,
        flush: &FlushAll,
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let from = out.len();
        if !flush.noreply {
            Response::Ok.encode(out);
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
                let job = Job { ticket, raw: raw.clone().into(), shard: ShardId(0), kind };
                let token = routing.token();
                if routing.links.send(node, token, &job.raw) {
                    let until_ms = call.now.unix_ms + FORWARDED_MS_MAX;
                    routing.passed_on.insert(token, PassedOn { node, job, until_ms });
                } else {
                    // A node that is not there leads nothing, or its shards have no primary just now.
                    left -= 1;
                }
            }
        }
        routing.awaited.insert(gathering, Awaited::Gathering { ticket, left, failed: false });
        if !flush.noreply {
            routing.holds.push(Hold { ticket, from, to: out.len() });
        }
        routing.gathered(gathering, true);
        self.routing = Some(routing);
        Flow::Continue
    }

    /// Removes an item whose replacement was refused, wherever it is.
    pub(crate) fn invalidate_in_cluster(&mut self, key: &MetaKey<'_>, now: Now) {
        let mut scratch = KeyScratch::default();
        let key = Key::new(key.key(&mut scratch).as_bytes());
        let nobody = |routing: &mut Routing| Token::Noted(routing.token());
        let here = self.on_shard(&key, true, false, now, &mut Vec::new(), nobody, |_, on, _| {
            on.shard.delete(&on.key, None, on.now);
        });
        let Here::Not(access) = here else { return };
        let routing = self.routing();
        if let Access::Elsewhere(node) = access
            && !routing.is_passed_on
        {
            let raw = [b"delete ", key.bytes(), b" noreply\r\n"].concat();
            let token = routing.token();
            routing.links.send(node, token, &raw);
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
        let passed_on = self.routing().passed_on.remove(&token);
        let Some(PassedOn { job, until_ms, .. }) = passed_on else { return };
        match answer {
            // What it found there may never have been, and it changes nothing: once more.
            Answer::Done(bytes) if bytes == UNKNOWN && job.kind.is_read() => {
                self.routing().park(job, until_ms);
            }
            Answer::Done(bytes) => self.routing().answer_job(&job, bytes),
            Answer::Elsewhere => self.routing().park(job, now.unix_ms + PARKED_MS_MAX),
        }
    }

    /// All that arrived at once of another node's answers is heard.
    pub(crate) fn heard_answers(&mut self, now: Now) {
        self.retry_parked(now);
    }

    /// The link to a node is gone, and with it what was on its way.
    pub(crate) fn lost_link(&mut self, node: NodeId, now: Now) {
        let routing = self.routing();
        let lost: Vec<u64> = routing
            .passed_on
            .iter()
            .filter(|(_, passed_on)| passed_on.node == node)
            .map(|(&token, _)| token)
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
        for (&token, passed_on) in &routing.passed_on {
            match passed_on.job.kind {
                _ if leads(passed_on) => {}
                JobKind::Write if may_answer(passed_on.node) => in_doubt.push(token),
                _ => lost.push(token),
            }
        }
        // Where the node lives and has handed the shard over its answer is about to come.
        for token in in_doubt {
            if let Some(passed_on) = routing.passed_on.get_mut(&token) {
                passed_on.until_ms = passed_on.until_ms.min(now.unix_ms + IN_DOUBT_MS_MAX);
            }
        }
        self.give_up(lost, now);
    }

    fn give_up(&mut self, mut lost: Vec<u64>, now: Now) {
        lost.sort_unstable();
        for token in lost {
            let Some(PassedOn { job, .. }) = self.routing().passed_on.remove(&token) else {
                continue;
            };
            match job.kind {
                kind if kind.is_read() => self.routing().park(job, now.unix_ms + PARKED_MS_MAX),
                _ => {
                    let routing = self.routing();
                    ReplicationCounters::add(&routing.replication.counters.unknown_outcomes, 1);
                    routing.answer_job(&job, Bytes::from_static(UNKNOWN));
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
            .map(|(&token, _)| token)
            .collect();
        for token in overdue {
            let routing = self.routing();
            if let Some(passed_on) = routing.passed_on.remove(&token) {
                let answer =
                    if passed_on.job.kind == JobKind::Write { UNKNOWN } else { NO_PRIMARY };
                routing.answer_job(&passed_on.job, Bytes::from_static(answer));
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
                routing.answer_job(&parked.job, Bytes::from_static(NO_PRIMARY));
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
            self.routing().answer_job(&job, Bytes::from_static(NO_PRIMARY));
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
                routing.answer_job(&job, Bytes::from_static(TOO_FEW_COPIES));
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
        // The second word is the key of nearly every command. To be wrong costs a prefetch, nothing else.
        let words = requests
            .filter_map(|request| request.split(|byte| matches!(byte, b' ' | b'\r')).nth(1));
        let keys = words.filter_map(protocol::Key::new).map(|key| Key::new(key.as_bytes()));
        self.shards.prefetch(&keys.take(PREFETCHED_KEYS_MAX).collect::<Keys<'_>>());
    }

    /// The next request comes from another node, which has passed it on.
    pub(crate) fn set_passed_on(&mut self) {
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
        _ => true,
    }
}

/// Whether a request, if it changes an item, leaves its value as it was.
fn leaves_value(request: &Request<'_>) -> bool {
    match request {
        Request::Touch(_) => true,
        Request::MetaGet(get) => get.vivify.is_none(),
        _ => false,
    }
}

/// Whether the client waits for no answer.
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

/// How many keys a get that this file wrote has.
fn count_keys(raw: &[u8]) -> usize {
    let words = raw.split(|&byte| byte == b' ').count();
    words - if raw.starts_with(b"gat") { 2 } else { 1 }
}
