//! Who of a worker waits for what: the holds of all its connections, and what is decided of each.
//!
//! ```text
//!            a connection's own                              its slot in the room
//! output:  | may leave |
//! held:                | hold 7 | answers | hold 9 | ... |   7: Keep, 9: -, 12: Replace(..)
//!                      ^ the front: while it is unresolved, nothing moves
//! ```
//!
//! - A holder's tickets ascend in the order of their ranges, so a resolution finds its hold by a
//!   binary search, however many wait before it.
//! - A holder is woken when its front hold is resolved and so are all others: what a client has asked at once is
//!   answered at once, with one write, and it asks the next at once as well. It is woken before that when there
//!   is much to take already, when nothing else can happen to it, or when a while has passed; and not again until
//!   it has looked.
//! - Resolving is allowed at any time on the worker's thread, also from within a request: the room
//!   is never borrowed while a service runs, and the bytes are with the connection.
//! - What arrives in place of a hold is leased from the gauge until it leaves.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::net::buffers::{Gauge, Lease};
use crate::net::ticket::{Hold, HolderId, Resolution, Ticket};

/// Vectors kept for the next holder, at most.
const SPARES_MAX: usize = 256;

/// The largest that is kept, in bytes: a few hundred short answers.
const SPARE_BYTES_MAX: usize = 4096;

/// The same for a queue of holds.
const SPARE_HOLDS_MAX: usize = 64;

/// Holds that are resolved and that are not kept waiting for those behind them.
const PATIENCE_HOLDS_MAX: usize = 64;

/// How long those wait that are resolved before others of the same client are.
const PATIENCE: Duration = Duration::from_millis(1);

/// What is leased from the gauge at once: most resolutions need not ask it.
const LEASE_STEP_BYTES: usize = 64 << 10;

/// Takes an answer that was not ready when its request was carried out, and no client waits for.
pub trait Finished {
    /// The answer to the request that was handed in with `token` is complete.
    ///
    /// Called from within [`WaitingRoom::resolve`], thus often while the service is in use: it can
    /// pass the answer on, and not call the service.
    fn finished(&self, token: u64, answer: &[u8]);
}

impl<F: Fn(u64, &[u8])> Finished for F {
    fn finished(&self, token: u64, answer: &[u8]) {
        self(token, answer);
    }
}

/// The holds of one worker.
pub struct WaitingRoom {
    inner: RefCell<Inner>,
    next_number: Cell<u64>,
    /// Whose turn it is: its holds may be resolved before they are known here.
    in_turn: Cell<Option<HolderId>>,
    /// Such resolutions. Empty between turns.
    early: RefCell<Vec<(Ticket, Resolution)>>,
    /// Told when the first of those comes that are to be woken after a while.
    has_patient: Notify,
}

struct Inner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    spare_holds: Vec<VecDeque<Held>>,
    spare_bytes: Vec<Vec<u8>>,
    /// What has arrived in place of connections' holds and has not left.
    replacement_bytes: usize,
    lease: Lease,
    /// Those that could take something, and that wait for more.
    patient: Vec<HolderId>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    is_open: bool,
    holds: VecDeque<Held>,
    /// How many of them are resolved.
    resolved: usize,
    /// It is listed as waiting for more.
    is_patient: bool,
    /// It takes what there is: it has waited for more, or cannot go on without.
    is_urgent: bool,
    replacement_bytes: usize,
    /// A replacement was dropped because buffers are used up: the connection must close.
    is_out_of_memory: bool,
    /// Whether the task is to be woken when the front hold is resolved.
    is_armed: bool,
    waker: Option<Waker>,
    detached: Option<Detached>,
}

/// One hold, its place counted in bytes since the holder began to hold.
struct Held {
    number: u64,
    from: usize,
    to: usize,
    resolution: Option<Resolution>,
}

/// A response without a connection.
struct Detached {
    finished: Rc<dyn Finished>,
    token: u64,
    bytes: HeldBytes,
    unresolved: usize,
}

/// Answers from a holder's first hold on, in order. A prefix may be gone already.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes {
    bytes: Vec<u8>,
    /// The bytes before this index are gone.
    start: usize,
    /// How many went before `bytes[0]`.
    base: usize,
}

/// What a holder still waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Holds, resolved or not.
    pub(crate) holds: usize,
    /// What has arrived in place of some of them.
    pub(crate) replacement_bytes: usize,
    /// Something that had arrived could not be kept.
    pub(crate) is_out_of_memory: bool,
}

impl HeldBytes {
    /// A copy of `bytes`, all of it waiting.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), start: 0, base: 0 }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Where waiting answers are appended, and from which index on nothing has left.
    pub(crate) fn out(&mut self) -> (&mut Vec<u8>, usize) {
        (&mut self.bytes, self.start)
    }

    /// The memory it takes, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Moves what is before `position` to `out`.
    fn leave(&mut self, position: usize, out: &mut Vec<u8>) {
        let end = position - self.base;
        out.extend_from_slice(&self.bytes[self.start..end]);
        self.start = end;
    }

    /// Drops what is before `position`.
    fn drop_before(&mut self, position: usize) {
        self.start = position - self.base;
    }

    /// Gives up the room of what is gone, once that is the larger part.
    pub(crate) fn compact(&mut self) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.base += self.start;
            self.start = 0;
        }
    }
}

impl Default for WaitingRoom {
    /// A room whose memory is not bounded.
    fn default() -> Self {
        Self::new(Arc::new(Gauge::new(usize::MAX)))
    }
}

impl fmt::Debug for WaitingRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingRoom").field("holders", &self.holders()).finish_non_exhaustive()
    }
}

impl WaitingRoom {
    /// An empty room; what it keeps is leased from `gauge`.
    pub fn new(gauge: Arc<Gauge>) -> Self {
        Self {
            inner: RefCell::new(Inner {
                slots: Vec::new(),
                free: Vec::new(),
                spare_holds: Vec::new(),
                spare_bytes: Vec::new(),
                replacement_bytes: 0,
                lease: Lease::new(gauge),
                patient: Vec::new(),
            }),
            next_number: Cell::new(0),
            in_turn: Cell::new(None),
            early: RefCell::default(),
            has_patient: Notify::new(),
        }
    }

    /// Wakes those that have waited long enough for the rest of their answers, as long as the worker runs.
    pub(crate) async fn end_patience(self: Rc<Self>) {
        loop {
            self.has_patient.notified().await;
            sleep(PATIENCE).await;
            self.wake_patient();
        }
    }

    /// A while has passed.
    pub(crate) fn wake_patient(&self) {
        let mut inner = self.inner.borrow_mut();
        let mut patient = std::mem::take(&mut inner.patient);
        for holder in patient.drain(..) {
            if let Some(slot) = inner.slot(holder) {
                slot.is_patient = false;
                if slot.is_armed && slot.can_take() {
                    slot.is_urgent = true;
                    slot.wake();
                }
            }
        }
        inner.patient = patient;
    }

    /// How many connections and detached responses there are.
    pub fn holders(&self) -> usize {
        let inner = self.inner.borrow();
        inner.slots.len() - inner.free.len()
    }

    /// A new ticket for something that `holder` waits for.
    pub fn issue(&self, holder: HolderId) -> Ticket {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        Ticket { number, holder }
    }

    /// Decides what becomes of the answer held under `ticket`, and wakes its connection if that was
    /// what it waited for. Without effect when the connection is gone, when nothing is held under
    /// the ticket, or when it was resolved before.
    pub fn resolve(&self, ticket: Ticket, resolution: Resolution) {
        let outcome = self.inner.borrow_mut().resolve(ticket, resolution);
        match outcome {
            Resolved::Noted => {}
            Resolved::Patient => self.has_patient.notify_one(),
            Resolved::Unknown(resolution) => {
                if self.in_turn.get() == Some(ticket.holder) {
                    self.early.borrow_mut().push((ticket, resolution));
                }
            }
            Resolved::Last => self.finish(ticket.holder),
        }
    }

    /// Hands a detached response over that nothing holds back any more.
    fn finish(&self, holder: HolderId) {
        let mut answer = self.inner.borrow_mut().spare_bytes.pop().unwrap_or_default();
        if let Some((finished, token)) = self.finish_detached(holder, &mut answer) {
            finished.finished(token, &answer);
        }
        self.inner.borrow_mut().recycle_bytes(answer);
    }

    /// A connection that waits for nothing yet.
    pub(crate) fn open(&self) -> HolderId {
        self.inner.borrow_mut().open()
    }

    /// `holder` is gone; what comes for it is dropped.
    pub(crate) fn close(&self, holder: HolderId) {
        self.inner.borrow_mut().close(holder);
    }

    /// The turn of `holder` begins: what is resolved for it before [`WaitingRoom::end_turn`] may be
    /// a hold that comes to be known later in this turn.
    pub(crate) fn begin_turn(&self, holder: HolderId) {
        self.in_turn.set(Some(holder));
        // What a turn that crashed has left behind.
        self.early.borrow_mut().clear();
    }

    /// The turn ends: the holds of all its requests are known.
    pub(crate) fn end_turn(&self) {
        self.in_turn.set(None);
        self.early.borrow_mut().clear();
    }

    /// The connection `holder` holds back `holds`, which are places in the output `out`. On the
    /// first call that is the output that leaves (`held` is empty then): everything from the first
    /// hold on moves to `held`. Afterwards it is `held` itself, and `out` is `None`.
    pub(crate) fn hold(
        &self,
        holder: HolderId,
        holds: &mut Vec<Hold>,
        held: &mut HeldBytes,
        out: Option<&mut Vec<u8>>,
    ) -> usize {
        let count = holds.len();
        let mut inner = self.inner.borrow_mut();
        let mut before = 0;
        if let Some(out) = out {
            debug_assert!(held.bytes.is_empty(), "nothing was held before");
            before = holds.first().map_or(out.len(), |first| first.from);
            held.bytes = inner.spare_bytes.pop().unwrap_or_default();
            held.bytes.extend_from_slice(&out[before..]);
            out.truncate(before);
        }
        let offset = held.base;
        let len = held.bytes.len();
        let mut early = self.early.borrow_mut();
        for hold in holds.drain(..) {
            debug_assert!(hold.ticket.holder == holder, "a ticket of this very request");
            let (from, to) = (hold.from - before, hold.to - before);
            debug_assert!(from <= to && to <= len, "a range of the output");
            let number = hold.ticket.number;
            inner.push(
                holder,
                Held { number, from: offset + from, to: offset + to, resolution: None },
            );
            if let Some(index) = early.iter().position(|(ticket, _)| *ticket == hold.ticket) {
                let (ticket, resolution) = early.swap_remove(index);
                inner.resolve(ticket, resolution);
            }
        }
        count
    }

    /// Moves to `out` what waits for nothing any more, until `out_bytes_high` are there.
    pub(crate) fn release(
        &self,
        holder: HolderId,
        held: &mut HeldBytes,
        out: &mut Vec<u8>,
        out_bytes_high: usize,
    ) -> Left {
        self.inner.borrow_mut().release(holder, held, out, out_bytes_high)
    }

    /// Ready once [`WaitingRoom::release`] can move something for `holder`: as much as it should wait for, or,
    /// where it is in need, anything.
    pub(crate) fn poll_released(
        &self,
        holder: HolderId,
        is_in_need: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut inner = self.inner.borrow_mut();
        let Some(slot) = inner.slot(holder) else { return Poll::Ready(()) };
        slot.is_urgent |= is_in_need;
        if slot.is_due() {
            return Poll::Ready(());
        }
        slot.is_armed = true;
        match &mut slot.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => slot.waker = Some(context.waker().clone()),
        }
        if inner.note_patient(holder) {
            self.has_patient.notify_one();
        }
        Poll::Pending
    }

    /// Takes over the answer of `holder`, which is no connection: `bytes` with `holds` in it. `finished` gets
    /// it, with `token`, once nothing of it is held any more; `true` if that is so already, and nobody gets it.
    pub(crate) fn hold_detached(
        &self,
        holder: HolderId,
        finished: Rc<dyn Finished>,
        token: u64,
        holds: &mut Vec<Hold>,
        mut bytes: HeldBytes,
    ) -> bool {
        if let Some(slot) = self.inner.borrow_mut().slot(holder) {
            let (bytes, unresolved) = (HeldBytes::default(), holds.len());
            slot.detached = Some(Detached { finished, token, bytes, unresolved });
        }
        self.hold(holder, holds, &mut bytes, None);
        let mut inner = self.inner.borrow_mut();
        let Some(detached) = inner.detached(holder) else { return false };
        detached.bytes = bytes;
        detached.unresolved == 0
    }

    /// Closes a detached response and appends its answer to `answer`.
    pub(crate) fn finish_detached(
        &self,
        holder: HolderId,
        answer: &mut Vec<u8>,
    ) -> Option<(Rc<dyn Finished>, u64)> {
        let mut inner = self.inner.borrow_mut();
        let mut bytes = std::mem::take(&mut inner.detached(holder)?.bytes);
        inner.release(holder, &mut bytes, answer, usize::MAX);
        let Detached { finished, token, .. } = inner.slot(holder)?.detached.take()?;
        inner.close(holder);
        Some((finished, token))
    }
}

/// What a resolution came to.
enum Resolved {
    /// All is done, or there was nothing to do.
    Noted,
    /// The first of those that wait for more.
    Patient,
    /// No such hold is known.
    Unknown(Resolution),
    /// It was the last that a detached response waited for.
    Last,
}

impl Inner {
    fn open(&mut self) -> HolderId {
        let Some(index) = self.free.pop() else {
            let index = u32::try_from(self.slots.len()).expect("fewer holders than descriptors");
            self.slots.push(Slot { is_open: true, ..Slot::default() });
            return HolderId { slot: index, generation: 0 };
        };
        let slot = &mut self.slots[index as usize];
        slot.is_open = true;
        HolderId { slot: index, generation: slot.generation }
    }

    fn close(&mut self, holder: HolderId) {
        let Some(slot) = self.slot(holder) else { return };
        let generation = slot.generation.wrapping_add(1);
        let closed = std::mem::replace(slot, Slot { generation, ..Slot::default() });
        self.free.push(holder.slot);
        self.forget_replacements(closed.replacement_bytes);
        self.recycle_holds(closed.holds);
        if let Some(detached) = closed.detached {
            self.recycle_bytes(detached.bytes.bytes);
        }
    }

    fn slot(&mut self, holder: HolderId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(holder.slot as usize)?;
        (slot.is_open && slot.generation == holder.generation).then_some(slot)
    }

    fn detached(&mut self, holder: HolderId) -> Option<&mut Detached> {
        self.slot(holder)?.detached.as_mut()
    }

    fn push(&mut self, holder: HolderId, held: Held) {
        let Some(slot) = self.slots.get_mut(holder.slot as usize) else { return };
        if slot.generation != holder.generation {
            return;
        }
        if slot.holds.capacity() == 0 {
            slot.holds = self.spare_holds.pop().unwrap_or_default();
        }
        debug_assert!(
            slot.holds.back().is_none_or(|last| last.number < held.number && last.to <= held.from),
            "holds come in the order of their tickets and of their ranges"
        );
        slot.holds.push_back(held);
    }

    fn resolve(&mut self, ticket: Ticket, resolution: Resolution) -> Resolved {
        let Some(slot) = self.slots.get_mut(ticket.holder.slot as usize) else {
            return Resolved::Noted;
        };
        if slot.generation != ticket.holder.generation {
            return Resolved::Noted;
        }
        let Some(index) = slot.index_of(ticket.number) else {
            return Resolved::Unknown(resolution);
        };
        let held = &mut slot.holds[index];
        if held.resolution.is_some() {
            return Resolved::Noted;
        }
        if let Some(detached) = &mut slot.detached {
            held.resolution = Some(resolution);
            detached.unresolved -= 1;
            return if detached.unresolved == 0 { Resolved::Last } else { Resolved::Noted };
        }
        if let Resolution::Replace(bytes) = &resolution {
            let arrived = self.replacement_bytes + bytes.len();
            let is_kept = arrived <= self.lease.bytes()
                || self.lease.resize(arrived.next_multiple_of(LEASE_STEP_BYTES))
                || self.lease.resize(arrived);
            if !is_kept {
                // The hold stays unresolved, so nothing behind it leaves before the connection
                // closes.
                slot.is_out_of_memory = true;
                slot.wake();
                return Resolved::Noted;
            }
            self.replacement_bytes = arrived;
            slot.replacement_bytes += bytes.len();
        }
        held.resolution = Some(resolution);
        slot.resolved += 1;
        slot.wake_if_due();
        if self.note_patient(ticket.holder) { Resolved::Patient } else { Resolved::Noted }
    }

    /// Lists a holder that could take something and waits for more. Whether it is the first.
    fn note_patient(&mut self, holder: HolderId) -> bool {
        let Some(slot) = self.slot(holder) else { return false };
        if !slot.is_armed || slot.is_patient || !slot.can_take() {
            return false;
        }
        slot.is_patient = true;
        self.patient.push(holder);
        self.patient.len() == 1
    }

    fn release(
        &mut self,
        holder: HolderId,
        held: &mut HeldBytes,
        out: &mut Vec<u8>,
        out_bytes_high: usize,
    ) -> Left {
        let Some(slot) = self.slot(holder) else { return Left::default() };
        slot.is_armed = false;
        slot.is_urgent = false;
        let is_leased = slot.detached.is_none();
        let mut gone_bytes = 0;
        while out.len() < out_bytes_high {
            let Some(front) = slot.holds.front() else { break };
            held.leave(front.from, out);
            if front.resolution.is_none() {
                break;
            }
            let Some(Held { to, resolution, .. }) = slot.holds.pop_front() else { break };
            slot.resolved = slot.resolved.saturating_sub(1);
            if let Some(Resolution::Replace(bytes)) = resolution {
                out.extend_from_slice(&bytes);
                held.drop_before(to);
                gone_bytes += bytes.len();
            } else {
                held.leave(to, out);
            }
        }
        if is_leased {
            slot.replacement_bytes -= gone_bytes;
        }
        let left = Left {
            holds: slot.holds.len(),
            replacement_bytes: slot.replacement_bytes,
            is_out_of_memory: slot.is_out_of_memory,
        };
        if left.holds == 0 {
            let holds = std::mem::take(&mut slot.holds);
            self.recycle_holds(holds);
            let HeldBytes { bytes, start, .. } = std::mem::take(held);
            out.extend_from_slice(&bytes[start..]);
            self.recycle_bytes(bytes);
        }
        if is_leased && gone_bytes > 0 {
            self.forget_replacements(gone_bytes);
        }
        left
    }

    /// Replacements of `bytes` together have left, or will not.
    fn forget_replacements(&mut self, bytes: usize) {
        self.replacement_bytes -= bytes;
        let wanted = self.replacement_bytes.next_multiple_of(LEASE_STEP_BYTES);
        // With one step to spare, so that a size between two steps does not go back and forth; and
        // nothing when there is nothing.
        if self.replacement_bytes == 0 || wanted + LEASE_STEP_BYTES < self.lease.bytes() {
            let smaller = wanted.min(self.lease.bytes());
            let is_smaller = self.lease.resize(smaller);
            debug_assert!(is_smaller, "a lease can always become smaller");
        }
    }

    fn recycle_holds(&mut self, mut holds: VecDeque<Held>) {
        let fits = (1..=SPARE_HOLDS_MAX).contains(&holds.capacity());
        if fits && self.spare_holds.len() < SPARES_MAX {
            holds.clear();
            self.spare_holds.push(holds);
        }
    }

    fn recycle_bytes(&mut self, mut bytes: Vec<u8>) {
        let fits = (1..=SPARE_BYTES_MAX).contains(&bytes.capacity());
        if fits && self.spare_bytes.len() < SPARES_MAX {
            bytes.clear();
            self.spare_bytes.push(bytes);
        }
    }
}

impl Slot {
    /// Where the hold of this number is.
    #[inline]
    fn index_of(&self, number: u64) -> Option<usize> {
        // What a client asks at once gets numbers in a row: a guess is nearly always right.
        let ahead = number.checked_sub(self.holds.front()?.number)?;
        let guess = usize::try_from(ahead).ok()?;
        if self.holds.get(guess).is_some_and(|held| held.number == number) {
            return Some(guess);
        }
        self.holds.binary_search_by_key(&number, |held| held.number).ok()
    }

    /// Whether something would leave.
    fn can_take(&self) -> bool {
        self.holds.front().is_none_or(|front| front.resolution.is_some()) || self.is_out_of_memory
    }

    /// Whether enough would leave.
    fn is_due(&self) -> bool {
        self.can_take()
            && (self.is_urgent
                || self.is_out_of_memory
                || self.resolved == self.holds.len()
                || self.resolved >= PATIENCE_HOLDS_MAX)
    }

    fn wake_if_due(&mut self) {
        if self.is_due() {
            self.wake();
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.is_armed)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}
