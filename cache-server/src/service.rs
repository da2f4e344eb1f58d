//! A request to a shard and its outcome to a response; where protocol meets store.
//!
//! Each worker has a [`CacheService`] of its own: the shards are shared, the counters are not. One
//! method per command, in the order of [`Request`]; what `noreply` and quiet mode leave out is left
//! out at the end of each. The binary ones, in `service/binary.rs`, do the same with other words.

mod binary;

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;
use protocol::backup::encode_records_line;
use protocol::binary::{REQUEST_MAGIC, key_in_request};
use protocol::meta::request::{
    KeyScratch, MetaArithmetic, MetaDebug, MetaDelete, MetaGet, MetaKey, MetaSet,
};
use protocol::meta::response::{ItemFacts, MetaCommand, MetaStatus, encode_line};
use protocol::request::{
    AdminCommand, Arithmetic, Delete, Direction, FlushAll, Get, ShutdownMode, StoreMode, Touch,
};
use protocol::text::response::encode_value_line;
use protocol::token::Tokens;
use protocol::{Credentials, Exptime, ProtocolError, Refusal, Request, Response};
use store::arena::bus_error::bus_errors;
use store::{
    Deadline, DeleteOutcome, Delta, DeltaOutcome, End, Invalidation, Item, Key, NewItem,
    Precondition, PutOutcome, Shard, Timestamp,
};

use crate::administration::{Administration, Outcome};
use crate::authentication::Guard;
use crate::backup::Backups;
use crate::clock::Now;
use crate::commands::CommandCounters;
use crate::config::PROTOCOL_VERSION;
use crate::dump::{self, DumpKind};
use crate::net::registry::ConnectionRecord;
use crate::net::side_stream::SideStream;
use crate::net::ticket::Hold;
use crate::net::{Ahead, Apart, Call, CloseReason, Flow, Service, WorkerHandle};
use crate::observe::{Observation, Observer};
use crate::replication::WorkerMessage;
use crate::routing::{Routing, Seat, discovery};
use crate::shards::hot::HotItems;
use crate::shards::{Batch, Shards};
use crate::signal::{Orders, StopReason};
use crate::stats::Statistics;

/// Keys whose items are fetched from memory at once: as many misses as a core keeps under way.
pub(crate) const PREFETCHED_KEYS_MAX: usize = 16;

/// Of what arrives from many clients at once, the items of so many are fetched before they are served. Those of
/// more would push each other out of the processor's cache.
const FORESEEN_KEYS_MAX: usize = 128;

pub(crate) type Keys<'a> = ArrayVec<Key<'a>, PREFETCHED_KEYS_MAX>;

const LINE_END: &[u8] = b"\r\n";

/// The shortest value that leaves from where it is stored: copying 10 KB costs no more than pinning it.
const APART_BYTES_MIN: usize = 16 << 10;

/// Spelled as memcached spells it: an error of no kind that another one has.
const SHUTDOWN_NOT_ENABLED: &[u8] = b"SERVER_ERROR: shutdown not enabled\r\n";

/// Answers requests from the shards.
pub struct CacheService {
    pub(crate) shards: Arc<Shards>,
    pub(crate) counters: Arc<CachePadded<CommandCounters>>,
    statistics: Arc<Statistics>,
    backups: Arc<Backups>,
    guard: Arc<Guard>,
    administration: Arc<Administration>,
    /// Who looks on.
    pub(crate) observer: Observer,
    /// What the client is to be sent that asked for it just now.
    side_stream: Option<Arc<dyn SideStream>>,
    /// Pages of the memory file that failed so far.
    bus_errors: u64,
    /// Copies of items whose shards others had locked.
    hot_items: RefCell<HotItems>,
    /// On a node of a cluster: where keys belong, and what waits.
    pub(crate) routing: Option<Box<Routing>>,
    /// What requests may be like.
    pub(crate) protocol_limits: protocol::Limits,
    /// Whether `flush_all` is obeyed.
    pub(crate) allows_flush: bool,
    /// Whether `shutdown` is.
    allows_shutdown: bool,
    /// Who hears that the server is to stop.
    orders: Orders,
}

impl CacheService {
    /// The service of one worker, on its thread.
    pub fn new(parts: ServiceParts) -> Self {
        let ServiceParts { shards, counters, statistics, backups, guard, .. } = parts;
        let ServiceParts { protocol_limits, allows_flush, allows_shutdown, orders, seat, .. } =
            parts;
        let routing = seat.map(|seat| Box::new(Routing::new(seat)));
        Self {
            shards,
            counters,
            statistics,
            backups,
            guard,
            administration: parts.administration,
            observer: Observer::new(parts.observation),
            side_stream: None,
            bus_errors: bus_errors(),
            routing,
            hot_items: RefCell::default(),
            protocol_limits,
            allows_flush,
            allows_shutdown,
            orders,
        }
    }
}

/// What a worker's service is made of.
pub struct ServiceParts {
    /// The items.
    pub shards: Arc<Shards>,
    /// Where this worker alone counts.
    pub counters: Arc<CachePadded<CommandCounters>>,
    /// What `stats` answers from.
    pub statistics: Arc<Statistics>,
    /// What `backup` and `restore` answer from.
    pub backups: Arc<Backups>,
    /// Who lets clients in.
    pub guard: Arc<Guard>,
    /// What clients administer.
    pub administration: Arc<Administration>,
    /// Where it is told what happens.
    pub observation: Arc<Observation>,
    /// What requests may be like.
    pub protocol_limits: protocol::Limits,
    /// Whether `flush_all` is obeyed (`-F` forbids it).
    pub allows_flush: bool,
    /// Whether `shutdown` is (`-A`).
    pub allows_shutdown: bool,
    /// Who hears that the server is to stop.
    pub orders: Orders,
    /// The worker's place in a cluster, on a node of one.
    pub(crate) seat: Option<Seat>,
}

impl Service for CacheService {
    type Message = WorkerMessage;

    fn started(&mut self, worker: &WorkerHandle<Self>) {
        if let Some(routing) = &mut self.routing {
            routing.started(worker);
        }
    }

    fn handle(&mut self, request: &Request<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
        if self.routing.is_some() {
            return self.handle_in_cluster(request, call, out);
        }
        if let Request::Get(get) = request {
            return self.get(get, call, out);
        }
        let now = timestamp(call.now);
        let mut scratch = KeyScratch::default();
        match key_of(request, &mut scratch) {
            Some(key) => {
                let mut shard = self.shards.lock(&key);
                let mut on = On::new(&mut shard, key, None, now);
                on.sends_apart = call.sends_apart;
                self.on_key(request, &mut on, out);
                on.apart.map_or(Flow::Continue, Flow::Apart)
            }
            None => self.without_key(request, &call, out),
        }
    }

    fn holds(&mut self) -> Option<&mut Vec<Hold>> {
        self.routing.as_mut().map(|routing| routing.holds())
    }

    #[inline]
    fn turn_begins(&mut self, client: RawFd) {
        self.observer.begin_turn(client);
    }

    fn turn_ended(&mut self) {
        self.end_turn_in_cluster();
        self.observer.end_turn();
    }

    fn client_came(&mut self, client: &ConnectionRecord, now: Now) {
        self.observer.connection(client, None, now);
    }

    fn client_left(&mut self, client: &ConnectionRecord, reason: CloseReason, now: Now) {
        self.observer.connection(client, Some(reason), now);
    }

    fn refused(&mut self, refusal: &Refusal<'_>, now: Now) {
        if refusal.error == ProtocolError::TooLarge {
            self.counters.store_too_large.add(1);
        }
        if self.observer.is_on() {
            self.observer.refuses(refusal, now);
        }
    }

    fn take_side_stream(&mut self) -> Option<Arc<dyn SideStream>> {
        self.side_stream.take()
    }

    fn post(&mut self, message: WorkerMessage, now: Now) {
        self.observer.begin_turn_of_other_node();
        self.hear(message, now);
    }

    fn wants_ticks(&self) -> bool {
        self.routing.as_ref().is_some_and(|routing| routing.wants_ticks())
    }

    fn tick(&mut self, now: Now) {
        self.tick_in_cluster(now);
    }

    fn is_watched(&self) -> bool {
        self.routing.is_some()
    }

    fn handle_ahead(
        &mut self,
        requests: &[Ahead<'_>],
        now: Now,
        output_bytes_high: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        if self.routing.is_some() {
            // What another node leads is not read here.
            self.prefetch_led(requests.iter().filter_map(|ahead| key_ahead(&ahead.request)));
            return 0;
        }
        let now = timestamp(now);
        let mut batch = self.shards.batch();
        batch.prefetch(&keys(requests.iter().filter_map(|ahead| key_ahead(&ahead.request))));
        for (index, Ahead { request, .. }) in requests.iter().enumerate() {
            if out.len() >= output_bytes_high {
                return index;
            }
            if let Request::Get(get) = request {
                let Some(asked) = only_key(get) else { return index };
                let key = Key::new(asked.as_bytes());
                self.get_one_of_batch(get, asked, &mut batch, &key, now, out);
                Response::End.encode(out);
                continue;
            }
            let mut scratch = KeyScratch::default();
            let Some(key) = key_of(request, &mut scratch) else { return index };
            let mut shard = batch.lock(&key);
            self.on_key(request, &mut On::new(&mut shard, key, None, now), out);
        }
        requests.len()
    }

    fn foresee(&self, arrived: &[&[u8]]) {
        let keys: ArrayVec<_, FORESEEN_KEYS_MAX> = keys_foreseen(arrived.iter().copied())
            .take(FORESEEN_KEYS_MAX)
            .map(|key| Key::new(key.as_bytes()))
            .collect();
        self.shards.prefetch(&keys);
    }

    fn authenticate(&mut self, credentials: Option<Credentials<'_>>) -> bool {
        let is_known = credentials.is_some_and(|credentials| self.guard.knows(credentials));
        self.counters.auth_cmds.add(1);
        if !is_known {
            self.counters.auth_errors.add(1);
        }
        is_known
    }

    fn is_sound(&mut self) -> bool {
        let bus_errors = bus_errors();
        if bus_errors == self.bus_errors {
            return true;
        }
        // What was read from the memory file may be zeros that nobody wrote.
        self.bus_errors = bus_errors;
        self.side_stream = None;
        self.shards.abandon_file();
        false
    }

    fn invalidate(&mut self, key: &MetaKey<'_>, line: &[u8], call: Call<'_>, out: &mut Vec<u8>) {
        if self.routing.is_some() {
            return self.invalidate_in_cluster(key, line, &call, out);
        }
        out.extend_from_slice(line);
        let mut scratch = KeyScratch::default();
        let key = Key::new(key.key(&mut scratch).as_bytes());
        self.shards.lock(&key).delete(&key, None, timestamp(call.now));
    }
}

impl CacheService {
    /// Carries out a request that concerns no key of its own.
    pub(crate) fn without_key(
        &mut self,
        request: &Request<'_>,
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let now = timestamp(call.now);
        match request {
            Request::FlushAll(flush) => self.flush_all(flush, now, out),
            Request::Verbosity(verbosity) => {
                self.administration.set_verbosity(verbosity.level);
                answer(out, verbosity.noreply, &Response::Ok);
            }
            Request::MemoryLimit(limit) => {
                match self.shards.set_memory(u64::from(limit.mebibytes) << 20, now) {
                    Ok(()) => answer(out, limit.noreply, &Response::Ok),
                    Err(error) => {
                        tracing::warn!("the memory limit stays as it is: {error}");
                        refuse(out, limit.noreply, ProtocolError::OutOfMemory);
                    }
                }
            }
            Request::Shutdown { mode } => return self.shutdown(*mode, out),
            Request::Stats { arguments } => {
                self.statistics.answer(arguments.clone(), call.now, out);
            }
            Request::Administer { command, arguments } => {
                return self.administer(*command, arguments.clone(), call, out);
            }
            Request::Version => {
                Response::Version { version: PROTOCOL_VERSION.as_bytes() }.encode(out);
            }
            Request::RefreshCerts => self.statistics.refresh_certificates(call.now, out),
            Request::ConfigGetCluster => match &self.routing {
                Some(routing) => discovery::encode(&routing.map(), out),
                None => refuse(out, false, ProtocolError::UnknownCommand),
            },
            Request::ConfigGetShards => match &self.routing {
                Some(routing) => discovery::encode_shards(&routing.map(), out),
                None => refuse(out, false, ProtocolError::UnknownCommand),
            },
            Request::Backup(backup) => self.backup(backup, now, out),
            Request::Restore(restore) => {
                Response::Restored(self.backups.restore(restore, now)).encode(out);
            }
            Request::Quit => return Flow::Close,
            Request::MetaNoop => Response::MetaNoop.encode(out),
            Request::Binary(binary) => return self.binary_without_key(binary, call, out),
            _ => debug_assert!(false, "a request with a key"),
        }
        Flow::Continue
    }

    fn administer(
        &mut self,
        command: AdminCommand,
        arguments: Tokens<'_>,
        call: &Call<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let administration = &self.administration;
        let line = match command {
            AdminCommand::Watch if is_behind(out) => {
                "ERROR cannot pipeline other commands before watch\r\n"
            }
            AdminCommand::Watch => match self.observer.shared().watch(arguments) {
                Ok(side_stream) => {
                    self.side_stream = Some(side_stream);
                    return Flow::Listen;
                }
                Err(refused) => refused.line(),
            },
            // While it goes on there is nothing before it but what it said itself.
            AdminCommand::LruCrawler => {
                match administration.lru_crawler(arguments, call.done == 0 && is_behind(out)) {
                    Outcome::Line(line) => line,
                    Outcome::Dump { kind, has_items } => {
                        return self.dump(kind, has_items, call, out);
                    }
                }
            }
            AdminCommand::Lru => administration.lru(arguments),
            AdminCommand::Slabs => administration.slabs(arguments),
            AdminCommand::DebugTime => administration.debug_time(arguments),
        };
        out.extend_from_slice(line.as_bytes());
        Flow::Continue
    }

    fn dump(&self, kind: DumpKind, has_items: bool, call: &Call<'_>, out: &mut Vec<u8>) -> Flow {
        if call.done == 0 {
            self.administration.note_dump();
        }
        let done = if has_items { call.done } else { dump::NO_ITEMS };
        let high = call.output_bytes_high;
        match dump::go_on(&self.shards, kind, done, high, timestamp(call.now), out) {
            Some(done) => Flow::Pause { done },
            None => Flow::Continue,
        }
    }

    /// Carries out a request on the item of its key.
    #[inline]
    pub(crate) fn on_key(&self, request: &Request<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        if self.observer.is_on() {
            return self.on_key_observed(request, on, out);
        }
        self.carry_out(request, on, out);
    }

    /// The same, and tells who looks on.
    #[cold]
    fn on_key_observed(&self, request: &Request<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let look = on.shard.look(&on.key, on.now);
        self.observer.begins(request, &on.key, look, on.now);
        self.carry_out(request, on, out);
        self.observer.ended(request, &on.key, look, on.shard, on.now);
    }

    fn carry_out(&self, request: &Request<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        match request {
            Request::Store(store) => self.store(store, on, out),
            Request::Arithmetic(arithmetic) => self.arithmetic(arithmetic, on, out),
            Request::Touch(touch) => self.touch(touch, on, out),
            Request::Delete(delete) => self.delete(delete, on, out),
            Request::MetaGet(get) => self.meta_get(get, on, out),
            Request::MetaSet(set) => self.meta_set(set, on, out),
            Request::MetaDelete(delete) => self.meta_delete(delete, on, out),
            Request::MetaArithmetic(arithmetic) => self.meta_arithmetic(arithmetic, on, out),
            Request::MetaDebug(debug) => self.meta_debug(debug, on, out),
            Request::Binary(binary) => self.binary_on_key(binary, on, out),
            _ => debug_assert!(false, "a request without a key"),
        }
    }

    fn get(&self, get: &Get<'_>, call: Call<'_>, out: &mut Vec<u8>) -> Flow {
        let now = timestamp(call.now);
        if let Some(asked) = only_key(get) {
            let key = Key::new(asked.as_bytes());
            let apart = self.get_alone(get, asked, &key, now, call.sends_apart, out);
            Response::End.encode(out);
            return apart.map_or(Flow::Continue, Flow::Apart);
        }
        let mut left = get.keys.clone().enumerate().skip(call.done);
        loop {
            let next: ArrayVec<_, PREFETCHED_KEYS_MAX> =
                left.by_ref().take(PREFETCHED_KEYS_MAX).collect();
            if next.is_empty() {
                break;
            }
            let mut batch = self.shards.batch();
            let keys = keys(next.iter().map(|&(_, asked)| asked));
            if keys.len() > 1 {
                batch.prefetch(&keys);
            }
            for (&(index, asked), key) in next.iter().zip(&keys) {
                // At least one key a call, or a get would never end.
                if index > call.done && out.len() > call.output_bytes_high {
                    return Flow::Pause { done: index };
                }
                self.get_one_of_batch(get, asked, &mut batch, key, now, out);
            }
        }
        Response::End.encode(out);
        Flow::Continue
    }

    /// The one key of a get, as [`Self::get_one_of_batch`] has it. A large value may go apart, unless the item is touched:
    /// that writes, and might wait for what is pinned.
    #[inline]
    fn get_alone(
        &self,
        get: &Get<'_>,
        asked: protocol::Key<'_>,
        key: &Key<'_>,
        now: Timestamp,
        sends_apart: bool,
        out: &mut Vec<u8>,
    ) -> Option<Apart> {
        let mut batch = self.shards.batch();
        let Some(mut shard) = batch.try_lock(key) else {
            self.get_one_contended(get, asked, &mut batch, key, now, out);
            return None;
        };
        let sends_apart = sends_apart && get.touch.is_none();
        let mut apart = None;
        self.fetch(get.touch, &mut shard, key, now, |item| {
            if let Some(item) = item {
                apart = encode_value_apart(asked, item, get.with_cas, sends_apart, out);
            }
        });
        apart
    }

    /// One key of a get, from its shard, or from a copy while another worker has that.
    #[inline]
    fn get_one_of_batch(
        &self,
        get: &Get<'_>,
        asked: protocol::Key<'_>,
        batch: &mut Batch<'_>,
        key: &Key<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        if let Some(mut shard) = batch.try_lock(key) {
            return self.get_one(get, asked, &mut shard, key, now, out);
        }
        self.get_one_contended(get, asked, batch, key, now, out);
    }

    #[cold]
    fn get_one_contended(
        &self,
        get: &Get<'_>,
        asked: protocol::Key<'_>,
        batch: &mut Batch<'_>,
        key: &Key<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let is_plain = get.touch.is_none() && !self.observer.is_on();
        let mut hot = self.hot_items.borrow_mut();
        if is_plain && let Some(answer) = hot.answer(&self.shards, key, get.with_cas, now) {
            self.count_get(true);
            return out.extend_from_slice(answer);
        }
        let from = out.len();
        let mut shard = batch.lock(key);
        self.get_one(get, asked, &mut shard, key, now, out);
        if is_plain && out.len() > from {
            hot.keep(&self.shards, &mut shard, key, get.with_cas, now, &out[from..]);
        }
    }

    /// One key of a get: its value, if it has any.
    #[inline]
    pub(crate) fn get_one(
        &self,
        get: &Get<'_>,
        asked: protocol::Key<'_>,
        shard: &mut Shard,
        key: &Key<'_>,
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        self.fetch(get.touch, shard, key, now, |item| {
            if let Some(item) = item {
                encode_value(asked, item, get.with_cas, out);
            }
        });
    }

    /// Reads an item, and gives it the expiry `touch` if there is one.
    #[inline]
    fn fetch(
        &self,
        touch: Option<Exptime>,
        shard: &mut Shard,
        key: &Key<'_>,
        now: Timestamp,
        answer: impl FnOnce(Option<&Item<'_>>),
    ) {
        if self.observer.is_on() {
            self.observer.fetches(key, shard.look(key, now), now);
        }
        let touched = touch.map(|exptime| deadline(exptime, now));
        if let Some(deadline) = touched.filter(|deadline| !deadline.is_due(now)) {
            shard.touch(key, deadline, now);
        }
        let found = shard.get(key, now);
        // As in memcached, a gat counts as a touch alone.
        match (touched, &found) {
            (Some(_), found) => self.count_touch(found.is_some()),
            (None, found) => self.count_get(found.is_some()),
        }
        let is_found = found.is_some();
        answer(found.as_ref());
        // An expiry in the past comes after the value: the last read of it.
        if is_found && let Some(deadline) = touched.filter(|deadline| deadline.is_due(now)) {
            shard.touch(key, deadline, now);
        }
    }

    fn store(&self, store: &protocol::request::Store<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let response = match self.write(store, on) {
            PutOutcome::Stored { .. } => Response::Stored,
            PutOutcome::NotStored => Response::NotStored,
            PutOutcome::Exists => Response::Exists,
            PutOutcome::NotFound => Response::NotFound,
            PutOutcome::TooLarge => return refuse(out, store.noreply, ProtocolError::TooLarge),
            PutOutcome::OutOfMemory => {
                return refuse(out, store.noreply, ProtocolError::OutOfMemoryStoring);
            }
        };
        answer(out, store.noreply, &response);
    }

    /// Writes a value.
    #[inline]
    fn write(&self, store: &protocol::request::Store<'_>, on: &mut On<'_, '_>) -> PutOutcome {
        let On { shard, key, own_cas, now, .. } = on.parts();
        let new = NewItem {
            client_flags: store.client_flags,
            deadline: deadline(store.exptime, now),
            value: &[store.data],
            own_cas,
        };
        let outcome = match precondition(store.mode, store.compare_cas, false) {
            Write::Put(precondition) => shard.put(&key, &new, precondition, now),
            Write::Concat(end) => {
                shard.concat(&key, end, store.data, store.compare_cas, own_cas, now)
            }
        };
        self.count_store(outcome, store.compare_cas.is_some());
        outcome
    }

    fn arithmetic(&self, arithmetic: &Arithmetic<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        let delta = delta(arithmetic.direction, arithmetic.delta);
        let outcome = shard.add_delta(&key, delta, None, None, own_cas, now);
        self.count_arithmetic(outcome, arithmetic.direction);
        let noreply = arithmetic.noreply;
        match outcome {
            DeltaOutcome::Changed { value, .. } => answer(out, noreply, &Response::Number(value)),
            DeltaOutcome::NotFound => answer(out, noreply, &Response::NotFound),
            DeltaOutcome::NotANumber => refuse(out, noreply, ProtocolError::NonNumericValue),
            DeltaOutcome::Exists => answer(out, noreply, &Response::Exists),
            DeltaOutcome::OutOfMemory => refuse(out, noreply, ProtocolError::OutOfMemory),
        }
    }

    fn touch(&self, touch: &Touch<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, .. } = on.parts();
        let touched = shard.touch(&key, deadline(touch.exptime, now), now);
        self.count_touch(touched);
        let response = if touched { Response::Touched } else { Response::NotFound };
        answer(out, touch.noreply, &response);
    }

    fn delete(&self, delete: &Delete<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, .. } = on.parts();
        let outcome = shard.delete(&key, None, now);
        self.count_delete(outcome);
        let response = match outcome {
            DeleteOutcome::Deleted => Response::Deleted,
            DeleteOutcome::NotFound => Response::NotFound,
            DeleteOutcome::Exists => Response::Exists,
        };
        answer(out, delete.noreply, &response);
    }

    /// Has the process stop, and closes the connection without an answer, as memcached does. Either way
    /// to ask for it is an orderly stop here.
    fn shutdown(&self, mode: Option<ShutdownMode>, out: &mut Vec<u8>) -> Flow {
        if !self.allows_shutdown {
            out.extend_from_slice(SHUTDOWN_NOT_ENABLED);
            return Flow::Continue;
        }
        if mode.is_none() {
            refuse(out, false, ProtocolError::InvalidShutdownMode);
            return Flow::Continue;
        }
        self.orders.stop(StopReason::Command);
        Flow::Close
    }

    fn flush_all(&self, flush: &FlushAll, now: Timestamp, out: &mut Vec<u8>) {
        if !self.allows_flush {
            // Counted all the same, as in memcached.
            self.counters.cmd_flush.add(1);
            return refuse(out, flush.noreply, ProtocolError::FlushNotAllowed);
        }
        let at = match flush.delay {
            Exptime::Never | Exptime::Immediate => now,
            delay => deadline(delay, now).timestamp().unwrap_or(now),
        };
        for mut shard in self.shards.each() {
            shard.flush_all(at, now);
        }
        self.counters.cmd_flush.add(1);
        answer(out, flush.noreply, &Response::Ok);
    }

    fn backup(&self, backup: &protocol::backup::Backup<'_>, now: Timestamp, out: &mut Vec<u8>) {
        let start = out.len();
        let Some(slice) = self.backups.slice(backup.cursor, backup.prefix, now, out) else {
            return Response::End.encode(out);
        };
        // How long the slice is shows when it is there.
        let mut line = Vec::new();
        encode_records_line(&mut line, slice.next, out.len() - start);
        out.splice(start..start, line);
        out.extend_from_slice(LINE_END);
    }

    fn meta_get(&self, get: &MetaGet<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, sends_apart, apart, .. } = on;
        let (key, now) = (*key, *now);
        self.counters.cmd_meta.add(1);
        let found = if get.no_bump { shard.peek(&key, now) } else { shard.get(&key, now) };
        let Some(item) = found else {
            self.count_get(false);
            return self.meta_get_miss(get, on, out);
        };
        if get.touch.is_some() {
            self.count_touch(true);
        } else {
            self.count_get(true);
        }
        let mut facts = facts(&item, now);
        if get.touch.is_none() && get.recache.is_none() && !facts.stale {
            *apart = encode_hit(get, &facts, &item, *sends_apart, out);
            return;
        }
        let touched = get.touch.map(|exptime| deadline(exptime, now));
        // How much time is left is asked by `R` and by `t`, each before or behind `T`.
        let ttl_at = |flag| match touched {
            Some(deadline) if !get.returns.stands_before(flag, b'T') => ttl_s(deadline, now),
            _ => facts.ttl_s,
        };
        let recache = get.recache.is_some_and(|within| needs_recache(ttl_at(b'R'), within, now));
        facts.ttl_s = ttl_at(b't');
        facts.won = (recache || facts.stale) && !facts.win_sent && shard.win(&key, now);
        if let Some(item) = shard.peek(&key, now) {
            encode_hit(get, &facts, &item, false, out);
        }
        // Last, since an expiry in the past removes what is being read.
        if let Some(deadline) = touched {
            shard.touch(&key, deadline, now);
        }
    }

    /// A miss, or the creation of an empty item whose value this client has won the right to compute.
    fn meta_get_miss(&self, get: &MetaGet<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        let created = get.vivify.map(|exptime| {
            let deadline = deadline(exptime, now);
            let own_cas = get.new_cas.or(own_cas);
            let new = NewItem { client_flags: 0, deadline, value: &[], own_cas };
            (deadline, shard.put(&key, &new, Precondition::None, now))
        });
        match created {
            Some((deadline, PutOutcome::Stored { cas })) => {
                shard.win(&key, now);
                let is_told_before = get.returns.stands_before(b't', b'N');
                let ttl_s = if is_told_before { None } else { ttl_s(deadline, now) };
                let facts = ItemFacts { cas, ttl_s, won: true, ..ItemFacts::default() };
                let status =
                    if get.value { MetaStatus::Value { bytes: 0 } } else { MetaStatus::Done };
                encode_line(out, status, &get.key, get.returns.clone(), Some(&facts));
                if get.value {
                    out.extend_from_slice(LINE_END);
                }
            }
            Some(_) => refuse(out, false, ProtocolError::OutOfMemory),
            None if get.quiet => {}
            None => encode_line(out, MetaStatus::Miss, &get.key, get.returns.clone(), None),
        }
    }

    fn meta_set(&self, set: &MetaSet<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        let own_cas = set.new_cas.or(own_cas);
        let new = |exptime| NewItem {
            client_flags: set.client_flags,
            deadline: deadline(exptime, now),
            value: &[],
            own_cas,
        };
        self.counters.cmd_meta.add(1);
        let mut value_bytes = set.data.len();
        let outcome = match precondition(set.mode, set.compare_cas, set.invalidate) {
            Write::Put(precondition) => {
                let new = NewItem { value: &[set.data], ..new(set.exptime) };
                shard.put(&key, &new, precondition, now)
            }
            Write::Concat(end) => {
                let joined = shard.concat(&key, end, set.data, set.compare_cas, own_cas, now);
                match (joined, set.vivify) {
                    (PutOutcome::NotStored, Some(exptime)) => {
                        let new = NewItem { value: &[set.data], ..new(exptime) };
                        shard.put(&key, &new, Precondition::Absent, now)
                    }
                    (outcome @ PutOutcome::Stored { .. }, _) => {
                        let joined = shard.peek(&key, now).map(|item| item.value.len());
                        value_bytes = joined.unwrap_or(value_bytes);
                        outcome
                    }
                    (outcome, _) => outcome,
                }
            }
        };
        self.count_store(outcome, set.compare_cas.is_some());
        let status = match outcome {
            PutOutcome::Stored { .. } => MetaStatus::Done,
            PutOutcome::NotStored => MetaStatus::NotStored,
            PutOutcome::Exists => MetaStatus::Exists,
            PutOutcome::NotFound => MetaStatus::NotFound,
            PutOutcome::TooLarge => return refuse(out, false, ProtocolError::TooLarge),
            PutOutcome::OutOfMemory => {
                return refuse(out, false, ProtocolError::OutOfMemoryStoring);
            }
        };
        if set.quiet && status.is_quiet(MetaCommand::Set) {
            return;
        }
        let cas = if let PutOutcome::Stored { cas } = outcome { cas } else { 0 };
        let facts = ItemFacts {
            cas,
            client_flags: set.client_flags,
            value_bytes,
            ttl_s: ttl_s(deadline(set.exptime, now), now),
            ..ItemFacts::default()
        };
        encode_line(out, status, &set.key, set.returns.clone(), Some(&facts));
    }

    fn meta_delete(&self, delete: &MetaDelete<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        self.counters.cmd_meta.add(1);
        let outcome = if delete.invalidate || delete.remove_value {
            let change = Invalidation {
                mark_stale: delete.invalidate,
                drop_value: delete.remove_value,
                deadline: delete.touch.map(|exptime| deadline(exptime, now)),
                own_cas: delete.new_cas.or(own_cas),
            };
            shard.invalidate(&key, delete.compare_cas, change, now)
        } else {
            shard.delete(&key, delete.compare_cas, now)
        };
        match outcome {
            // As in memcached: what is marked stale is not deleted, and another cas is a miss.
            DeleteOutcome::Deleted if delete.invalidate => {}
            DeleteOutcome::Exists => self.counters.delete_misses.add(1),
            _ => self.count_delete(outcome),
        }
        let status = match outcome {
            DeleteOutcome::Deleted => MetaStatus::Done,
            DeleteOutcome::NotFound => MetaStatus::NotFound,
            DeleteOutcome::Exists => MetaStatus::Exists,
        };
        if !(delete.quiet && status.is_quiet(MetaCommand::Delete)) {
            encode_line(out, status, &delete.key, delete.returns.clone(), None);
        }
    }

    fn meta_arithmetic(&self, wanted: &MetaArithmetic<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, own_cas, now, .. } = on.parts();
        self.counters.cmd_meta.add(1);
        let change = delta(wanted.direction, wanted.delta);
        let touch = wanted.touch.map(|exptime| deadline(exptime, now));
        let (cas, own_cas) = (wanted.compare_cas, wanted.new_cas.or(own_cas));
        // Where `t` stands before the flag that sets the lifetime, it tells what was left, or that a number
        // which is made has none yet.
        let mut told_before = None;
        if wanted.touch.is_some() || wanted.vivify.is_some() {
            told_before = match shard.peek(&key, now).map(|item| item.deadline) {
                Some(deadline) if wanted.returns.stands_before(b't', b'T') => Some(deadline),
                None if wanted.returns.stands_before(b't', b'N') => Some(Deadline::NEVER),
                _ => None,
            };
        }
        let mut outcome = shard.add_delta(&key, change, touch, cas, own_cas, now);
        match (outcome, wanted.vivify) {
            // As in memcached, a number that is created counts as nothing.
            (DeltaOutcome::NotFound, Some(exptime)) => {
                outcome = create_counter(shard, wanted.initial, &key, exptime, own_cas, now);
            }
            _ => self.count_arithmetic(outcome, wanted.direction),
        }
        let deadline = told_before
            .unwrap_or_else(|| shard.peek(&key, now).map_or(Deadline::NEVER, |item| item.deadline));

        let mut digits = Vec::new();
        let (status, facts) = match outcome {
            DeltaOutcome::Changed { value, cas } => {
                Response::Number(value).encode(&mut digits);
                let value_bytes = digits.len() - LINE_END.len();
                let ttl_s = ttl_s(deadline, now);
                let facts = ItemFacts { cas, value_bytes, ttl_s, ..ItemFacts::default() };
                let bytes = value_bytes;
                let status =
                    if wanted.value { MetaStatus::Value { bytes } } else { MetaStatus::Done };
                (status, Some(facts))
            }
            DeltaOutcome::NotFound => (MetaStatus::NotFound, None),
            DeltaOutcome::Exists => (MetaStatus::Exists, None),
            DeltaOutcome::NotANumber => return refuse(out, false, ProtocolError::NonNumericValue),
            DeltaOutcome::OutOfMemory => return refuse(out, false, ProtocolError::OutOfMemory),
        };
        if wanted.quiet && status.is_quiet(MetaCommand::Arithmetic) {
            return;
        }
        encode_line(out, status, &wanted.key, wanted.returns.clone(), facts.as_ref());
        if matches!(status, MetaStatus::Value { .. }) {
            out.extend_from_slice(&digits);
        }
    }

    fn meta_debug(&self, debug: &MetaDebug<'_>, on: &mut On<'_, '_>, out: &mut Vec<u8>) {
        let On { shard, key, now, .. } = on.parts();
        self.counters.cmd_meta.add(1);
        let size = shard.footprint_bytes(&key, now).unwrap_or_default();
        let Some(item) = shard.peek(&key, now) else {
            let returns = protocol::meta::flags::Returns::new(b"");
            return encode_line(out, MetaStatus::Miss, &debug.key, returns, None);
        };
        let exp = ttl_s(item.deadline, now).map_or(-1, i64::from);
        let fetch = if item.fetched { "yes" } else { "no" };
        let facts = format!(
            "exp={exp} la={} cas={} fetch={fetch} cls=1 size={size}",
            item.idle_secs, item.cas
        );
        Response::MetaDebug { key: debug.key.written(), facts: facts.as_bytes() }.encode(out);
    }

    fn count_store(&self, outcome: PutOutcome, compared: bool) {
        self.observer.puts(outcome);
        let counters = &self.counters;
        counters.cmd_set.add(1);
        match outcome {
            PutOutcome::Stored { .. } if compared => counters.cas_hits.add(1),
            PutOutcome::Exists => counters.cas_badval.add(1),
            PutOutcome::NotFound => counters.cas_misses.add(1),
            PutOutcome::TooLarge => counters.store_too_large.add(1),
            PutOutcome::OutOfMemory => counters.store_no_memory.add(1),
            PutOutcome::Stored { .. } | PutOutcome::NotStored => {}
        }
    }

    pub(crate) fn count_get(&self, found: bool) {
        self.counters.cmd_get.add(1);
        if found { &self.counters.get_hits } else { &self.counters.get_misses }.add(1);
    }

    fn count_touch(&self, touched: bool) {
        self.counters.cmd_touch.add(1);
        if touched { &self.counters.touch_hits } else { &self.counters.touch_misses }.add(1);
    }

    fn count_delete(&self, outcome: DeleteOutcome) {
        match outcome {
            DeleteOutcome::Deleted => self.counters.delete_hits.add(1),
            DeleteOutcome::NotFound => self.counters.delete_misses.add(1),
            DeleteOutcome::Exists => {}
        }
    }

    fn count_arithmetic(&self, outcome: DeltaOutcome, direction: Direction) {
        let counters = &self.counters;
        match (outcome, direction) {
            (DeltaOutcome::Changed { .. }, Direction::Increment) => counters.incr_hits.add(1),
            (DeltaOutcome::Changed { .. }, Direction::Decrement) => counters.decr_hits.add(1),
            (DeltaOutcome::NotFound, Direction::Increment) => counters.incr_misses.add(1),
            (DeltaOutcome::NotFound, Direction::Decrement) => counters.decr_misses.add(1),
            _ => {}
        }
    }
}

/// What a request works on: the shard of its key, locked.
pub(crate) struct On<'a, 'k> {
    pub(crate) shard: &'a mut Shard,
    pub(crate) key: Key<'k>,
    /// The cas that a write leaves, unless the client chooses it; `None` lets the shard count on.
    pub(crate) own_cas: Option<u64>,
    pub(crate) now: Timestamp,
    /// See [`Call::sends_apart`].
    sends_apart: bool,
    /// The value of the answer, if it is to leave so.
    apart: Option<Apart>,
}

impl<'a, 'k> On<'a, 'k> {
    pub(crate) fn new(
        shard: &'a mut Shard,
        key: Key<'k>,
        own_cas: Option<u64>,
        now: Timestamp,
    ) -> Self {
        Self { shard, key, own_cas, now, sends_apart: false, apart: None }
    }

    fn parts(&mut self) -> On<'_, 'k> {
        On::new(self.shard, self.key, self.own_cas, self.now)
    }
}

/// The key of a request that has just one, and is no get.
pub(crate) fn key_of<'a>(request: &Request<'a>, scratch: &'a mut KeyScratch) -> Option<Key<'a>> {
    let key = match request {
        Request::Store(store) => store.key,
        Request::Arithmetic(arithmetic) => arithmetic.key,
        Request::Touch(touch) => touch.key,
        Request::Delete(delete) => delete.key,
        Request::MetaGet(get) => get.key.key(scratch),
        Request::MetaSet(set) => set.key.key(scratch),
        Request::MetaDelete(delete) => delete.key.key(scratch),
        Request::MetaArithmetic(arithmetic) => arithmetic.key.key(scratch),
        Request::MetaDebug(debug) => debug.key.key(scratch),
        Request::Binary(binary) => binary.command.key()?,
        _ => return None,
    };
    Some(Key::new(key.as_bytes()))
}

/// The key whose item a request reads, or one of them, where it stands as it is in what was sent.
fn key_ahead<'a>(request: &Request<'a>) -> Option<protocol::Key<'a>> {
    match request {
        Request::Get(get) => get.keys.clone().next(),
        Request::Store(store) => Some(store.key),
        Request::Arithmetic(arithmetic) => Some(arithmetic.key),
        Request::Touch(touch) => Some(touch.key),
        Request::Delete(delete) => Some(delete.key),
        Request::MetaGet(get) if !get.key.is_base64() => protocol::Key::new(get.key.written()),
        Request::MetaSet(set) if !set.key.is_base64() => protocol::Key::new(set.key.written()),
        Request::Binary(binary) => binary.command.key(),
        _ => None,
    }
}

/// The key of a get that asks for one alone.
#[inline]
fn only_key<'a>(get: &Get<'a>) -> Option<protocol::Key<'a>> {
    let mut asked = get.keys.clone();
    asked.next().filter(|_| asked.next().is_none())
}

/// What are likely the keys of requests that begin so. To be wrong costs a prefetch, nothing else.
pub(crate) fn keys_foreseen<'a>(
    requests: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = protocol::Key<'a>> {
    let words = requests.filter_map(|request| match request.first() {
        Some(&REQUEST_MAGIC) => key_in_request(request),
        // The second word is the key of nearly every command.
        _ => request.split(|byte| matches!(byte, b' ' | b'\r')).nth(1),
    });
    words.filter_map(protocol::Key::new)
}

/// The first of these keys, hashed, as many as are fetched at once.
pub(crate) fn keys<'a>(keys: impl Iterator<Item = protocol::Key<'a>>) -> Keys<'a> {
    keys.take(PREFETCHED_KEYS_MAX).map(|key| Key::new(key.as_bytes())).collect()
}

/// Appends the `VALUE` block of a hit, with the item's cas or without.
#[inline]
pub fn encode_value(asked: protocol::Key<'_>, item: &Item<'_>, with_cas: bool, out: &mut Vec<u8>) {
    let apart = encode_value_apart(asked, item, with_cas, false, out);
    debug_assert!(apart.is_none(), "it may not go apart");
}

/// The same, but for a large value that may go apart.
#[inline]
fn encode_value_apart(
    asked: protocol::Key<'_>,
    item: &Item<'_>,
    with_cas: bool,
    sends_apart: bool,
    out: &mut Vec<u8>,
) -> Option<Apart> {
    let cas = with_cas.then_some(item.cas);
    encode_value_line(out, asked, item.client_flags, item.value.len(), cas);
    let apart = append_value(item, sends_apart, out);
    out.extend_from_slice(LINE_END);
    apart
}

/// Answers a hit of `mg`.
fn encode_hit(
    get: &MetaGet<'_>,
    facts: &ItemFacts,
    item: &Item<'_>,
    sends_apart: bool,
    out: &mut Vec<u8>,
) -> Option<Apart> {
    let bytes = item.value.len();
    let wants_value = get.value && get.known_cas != Some(item.cas);
    let status = if wants_value { MetaStatus::Value { bytes } } else { MetaStatus::Done };
    encode_line(out, status, &get.key, get.returns.clone(), Some(facts));
    if !wants_value {
        return None;
    }
    let apart = append_value(item, sends_apart, out);
    out.extend_from_slice(LINE_END);
    apart
}

/// Appends the value of a hit, unless it is large and may go apart.
#[inline]
fn append_value(item: &Item<'_>, sends_apart: bool, out: &mut Vec<u8>) -> Option<Apart> {
    if sends_apart
        && item.value.len() >= APART_BYTES_MIN
        && let Some(value) = item.value.pin()
    {
        return Some(Apart { at: out.len(), value });
    }
    item.value.append_to(out);
    None
}

/// The two ways a value is written.
enum Write {
    Put(Precondition),
    Concat(End),
}

/// What a mode means, with the cas to compare. With one, set and replace are the same; add stays add
/// and join stays join, as in memcached.
fn precondition(mode: StoreMode, compare_cas: Option<u64>, or_stale: bool) -> Write {
    match (mode, compare_cas) {
        (StoreMode::Set | StoreMode::Replace, Some(cas)) if or_stale => {
            Write::Put(Precondition::CasOrStale(cas))
        }
        (StoreMode::Set | StoreMode::Replace, Some(cas)) => Write::Put(Precondition::Cas(cas)),
        (StoreMode::Set, None) => Write::Put(Precondition::None),
        (StoreMode::Replace, None) => Write::Put(Precondition::Present),
        (StoreMode::Add, _) => Write::Put(Precondition::Absent),
        (StoreMode::Append, _) => Write::Concat(End::Back),
        (StoreMode::Prepend, _) => Write::Concat(End::Front),
    }
}

fn delta(direction: Direction, by: u64) -> Delta {
    match direction {
        Direction::Increment => Delta::Increment(by),
        Direction::Decrement => Delta::Decrement(by),
    }
}

fn create_counter(
    shard: &mut Shard,
    initial: u64,
    key: &Key<'_>,
    exptime: Exptime,
    own_cas: Option<u64>,
    now: Timestamp,
) -> DeltaOutcome {
    let digits = initial.to_string();
    let new = NewItem {
        client_flags: 0,
        deadline: deadline(exptime, now),
        value: &[digits.as_bytes()],
        own_cas,
    };
    match shard.put(key, &new, Precondition::Absent, now) {
        PutOutcome::Stored { cas } => DeltaOutcome::Changed { value: initial, cas },
        _ => DeltaOutcome::OutOfMemory,
    }
}

/// What an item tells a meta command, before that command changes it.
fn facts(item: &Item<'_>, now: Timestamp) -> ItemFacts {
    ItemFacts {
        cas: item.cas,
        client_flags: item.client_flags,
        hit_before: item.fetched,
        last_access_s: item.idle_secs,
        value_bytes: item.value.len(),
        ttl_s: ttl_s(item.deadline, now),
        won: false,
        stale: item.stale,
        win_sent: item.win_sent,
    }
}

/// Whether an item that expires has less time left than `within`.
fn needs_recache(ttl_s: Option<u32>, within: Exptime, now: Timestamp) -> bool {
    let limit_s = match within {
        Exptime::Never | Exptime::Immediate => 0,
        Exptime::After { seconds } => seconds,
        Exptime::At { unix_s } => unix_s.saturating_sub(now.as_secs()),
    };
    ttl_s.is_some_and(|left_s| left_s < limit_s)
}

/// When an item with this expiry, written now, expires.
fn deadline(exptime: Exptime, now: Timestamp) -> Deadline {
    match exptime {
        Exptime::Never => Deadline::NEVER,
        Exptime::Immediate => Deadline::at(now),
        Exptime::After { seconds } => Deadline::at(now.plus_millis(u64::from(seconds) * 1000)),
        Exptime::At { unix_s } => Deadline::at(Timestamp::from_secs(u64::from(unix_s))),
    }
}

/// Seconds that are left, rounded up: an item just written with 10 seconds has 10.
fn ttl_s(deadline: Deadline, now: Timestamp) -> Option<u32> {
    let left_ms = deadline.timestamp()?.0.saturating_sub(now.0);
    Some(u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX))
}

pub(crate) fn timestamp(now: Now) -> Timestamp {
    Timestamp(now.unix_ms)
}

/// Whether there are answers before this one that memcached would not have sent: those of all commands but gets
/// and `mn` wait there for what is pipelined behind them.
fn is_behind(out: &[u8]) -> bool {
    !out.is_empty() && !out.ends_with(b"END\r\n") && !out.ends_with(b"MN\r\n")
}

fn answer(out: &mut Vec<u8>, noreply: bool, response: &Response<'_>) {
    if !noreply {
        response.encode(out);
    }
}

fn refuse(out: &mut Vec<u8>, noreply: bool, error: ProtocolError) {
    if !noreply {
        out.extend_from_slice(error.line().as_bytes());
    }
}
