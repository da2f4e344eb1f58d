//! The workload of a session store: users who log in, look at pages, change their sessions and log out, and what became
//! of what was acknowledged to them.
//!
//! ```text
//! a page:   [lock] ─> read and touch ─> is it what was acknowledged last? ─> now and then change it ─> [unlock]
//! ```
//!
//! - A user belongs to one caller, so that pages of one user follow each other; a page is served by any of the replicas of
//!   the application, each of which is a client of its own.
//! - What a session holds is a function of user and version ([`crate::value`]), so that each read tells which write it
//!   saw: the last that was acknowledged, one whose outcome is unknown, or an older one.
//! - A call that fails is tried again until it succeeds, as a user reloads a page; how long that takes is counted.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_client::{Client, Error, Fate, Put, StoreMode, Ttl, Written};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::callers::{self, Caller, Errand, Plan};
use crate::clock;
use crate::interrupt::Interrupt;
use crate::load::{LoadError, Usage};
use crate::tally::Tally;
use crate::value::{Values, mix};
use crate::workload::Ask;

/// The shortest session: its version, and a few bytes to check.
pub const SESSION_BYTES_MIN: usize = VERSION_BYTES + 16;
const VERSION_BYTES: usize = 16;
/// Servers count lives in whole seconds, and may end them so much before the client's clock says so.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);
/// For how long a lock holds others off if nobody takes it away.
const LOCK_LIFE: Duration = Duration::from_secs(30);

/// Users and what they do.
#[derive(Clone, Debug)]
pub struct Users {
    /// How many there are.
    pub count: u32,
    /// How long a session lives after the last page.
    pub ttl: Duration,
    /// Lengths of sessions, in bytes, of which each user has one; at least [`SESSION_BYTES_MIN`].
    pub session_bytes: RangeInclusive<usize>,
    /// The share of pages that change the session.
    pub write_share: f64,
    /// The share of pages that end it; the user's next one begins another.
    pub logout_share: f64,
    /// How long a caller pauses between two pages, on average.
    pub think: Duration,
    /// Whether a page that changes a session has it for itself meanwhile, by a lock beside it.
    pub locks: bool,
    /// Where all chance comes from.
    pub seed: u64,
}

/// What became of users.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Latencies of reads and writes, values that are nobody's, and the first failures, word for word.
    pub calls: Tally,
    /// Pages served.
    pub pages: u64,
    /// Sessions begun.
    pub logins: u64,
    /// Sessions ended by their users.
    pub logouts: u64,
    /// Sessions that were not there although they were acknowledged and their life had not ended.
    pub lost: u64,
    /// Sessions that were older than what was acknowledged.
    pub stale: u64,
    /// Sessions whose life ended between two pages.
    pub expired: u64,
    /// The longest that a user had to try until a call succeeded.
    pub outage_max: Duration,
}

/// What became of all users.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of all threads together, over the whole run; latencies and pages of the time measured.
    pub count: Count,
    /// How long was measured.
    pub elapsed: Duration,
    /// What the servers used meanwhile, if their processes were named.
    pub usage: Option<Usage>,
}

/// Has users look at pages as `plan` says; `progress` hears now and then how many calls have been answered.
///
/// # Errors
/// As [`callers::run`]. What becomes of sessions is counted.
pub fn run(
    plan: &Plan,
    users: &Users,
    interrupt: &Interrupt,
    progress: impl FnMut(u64),
) -> Result<Outcome, LoadError> {
    let errand = Pages { users: users.clone(), callers: plan.callers, values: Values::new() };
    let counted = callers::run(plan, &Arc::new(errand), interrupt, progress)?;
    let mut count = Count::default();
    counted.counts.into_iter().for_each(|other| count.merge(other));
    let end = counted.until.or(count.calls.last_answer).unwrap_or(counted.from);
    let elapsed = end.saturating_duration_since(counted.from);
    Ok(Outcome { count, elapsed, usage: counted.usage })
}

impl Count {
    fn merge(&mut self, other: Self) {
        self.calls.merge(other.calls);
        self.pages += other.pages;
        self.logins += other.logins;
        self.logouts += other.logouts;
        self.lost += other.lost;
        self.stale += other.stale;
        self.expired += other.expired;
        self.outage_max = self.outage_max.max(other.outage_max);
    }
}

/// What callers do.
struct Pages {
    users: Users,
    callers: usize,
    values: Values,
}

impl Errand for Pages {
    type Count = Count;

    async fn call(self: Arc<Self>, caller: Caller<Count>) {
        let mine = (0..self.users.count).skip(caller.number).step_by(self.callers);
        let mut mine: Vec<_> = mine.map(|number| User::new(number, &self.users)).collect();
        if mine.is_empty() {
            return;
        }
        let seed = self.users.seed.wrapping_mul(1_000_003).wrapping_add(caller.number as u64);
        let mut random = StdRng::seed_from_u64(seed);
        while caller.goes_on(clock::now()) {
            let index = random.random_range(0..mine.len());
            let page = Page { pages: &self, caller: &caller };
            page.serve(&mut mine[index], &mut random).await;
            if !self.users.think.is_zero() {
                // As if pages came independently of each other.
                let pause = self.users.think.mul_f64(-(1.0 - random.random::<f64>()).ln());
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// A user, and what was promised to them.
#[derive(Debug)]
struct User {
    key: String,
    bytes: usize,
    /// Of the last write that was acknowledged.
    version: u64,
    /// Of a write of which nobody knows whether it happened.
    maybe: Option<u64>,
    /// `None` while they are logged out.
    touched_at: Option<Instant>,
    /// Of a removal nobody knows whether it happened.
    may_be_removed: bool,
}

impl User {
    fn new(number: u32, users: &Users) -> Self {
        let (low, high) = (*users.session_bytes.start(), *users.session_bytes.end());
        let above = mix(u64::from(number)) % (high - low + 1) as u64;
        Self {
            key: format!("session:{:016x}", mix(u64::from(number) ^ users.seed.rotate_left(32))),
            bytes: low + usize::try_from(above).expect("no more than the range's width"),
            version: 0,
            maybe: None,
            touched_at: None,
            may_be_removed: false,
        }
    }

    /// The next version; never one that was written before, also not by a write that may not have happened.
    fn next_version(&self) -> u64 {
        self.version.max(self.maybe.unwrap_or_default()) + 1
    }

    fn written(&mut self, version: u64, now: Instant) {
        self.version = version;
        self.maybe = None;
        self.may_be_removed = false;
        self.touched_at = Some(now);
    }
}

/// What a read of a session tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Current,
    /// The write whose outcome was unknown has happened.
    Resolved(u64),
    Stale,
    /// Nothing that was ever written for this user.
    Wrong,
}

/// One page of one user.
struct Page<'a> {
    pages: &'a Pages,
    caller: &'a Caller<Count>,
}

impl Page<'_> {
    async fn serve(&self, user: &mut User, random: &mut StdRng) {
        let users = &self.pages.users;
        let replica = random.random_range(0..self.caller.clients.len());
        let client = &self.caller.clients[replica];
        let (writes, leaves) =
            (random.random_bool(users.write_share), random.random_bool(users.logout_share));
        let is_locked = users.locks && (writes || leaves);
        if is_locked && !self.lock(client, user).await {
            return;
        }
        if user.touched_at.is_some() {
            self.read(client, user).await;
        }
        if user.touched_at.is_none() {
            self.login(client, user).await;
        } else if leaves {
            self.logout(client, user).await;
        } else if writes {
            self.write(client, user).await;
        }
        if is_locked {
            let key = lock_key(user);
            self.until_answered(Ask::Set, || client.delete(&key), |_| ()).await;
        }
        let now = clock::now();
        self.caller.count.borrow_mut().pages += u64::from(self.caller.window.contains(now));
    }

    /// Whether the lock was had: it is not once the run is over.
    async fn lock(&self, client: &Client, user: &User) -> bool {
        let key = lock_key(user);
        loop {
            let add = || client.add(&key, "1", LOCK_LIFE);
            match self.until_answered(Ask::Set, add, |_| ()).await {
                Some((Written::Stored, _)) => return true,
                Some(_) => self.caller.pause().await,
                None => return false,
            }
        }
    }

    async fn read(&self, client: &Client, user: &mut User) {
        let ttl = self.pages.users.ttl;
        let touched_at = user.touched_at;
        let read = || client.gat(&user.key, ttl);
        let Some((found, now)) = self.until_answered(Ask::Get, read, |_| ()).await else { return };
        let mut count = self.caller.count.borrow_mut();
        let Some(value) = found else {
            let ends = touched_at.map(|touched| touched + ttl.saturating_sub(EXPIRY_SLACK));
            if !user.may_be_removed {
                if ends.is_some_and(|ends| now < ends) {
                    count.lost += 1;
                } else {
                    count.expired += 1;
                }
            }
            user.touched_at = None;
            return;
        };
        match self.pages.judge(user, &value.data) {
            Seen::Current => {}
            Seen::Resolved(version) => (user.version, user.maybe) = (version, None),
            Seen::Stale => count.stale += 1,
            Seen::Wrong => {
                count.calls.wrong(|| format!("'{}' is no session of its user", user.key));
            }
        }
        user.may_be_removed = false;
        user.touched_at = Some(now);
    }

    async fn login(&self, client: &Client, user: &mut User) {
        if self.write(client, user).await {
            self.caller.count.borrow_mut().logins += 1;
        }
    }

    async fn write(&self, client: &Client, user: &mut User) -> bool {
        let version = user.next_version();
        let data = self.pages.session(user, version);
        let put = Put::new(StoreMode::Set, &data, Ttl::from(self.pages.users.ttl));
        let key = user.key.clone();
        let maybe = &mut user.maybe;
        let write = || client.put(&key, put);
        let done = self.until_answered(Ask::Set, write, |error| {
            if error.fate() == Fate::Unknown {
                *maybe = Some(version);
            }
        });
        let Some((written, now)) = done.await else { return false };
        if written == Written::Stored {
            user.written(version, now);
        }
        written == Written::Stored
    }

    async fn logout(&self, client: &Client, user: &mut User) {
        user.may_be_removed = true;
        let key = user.key.clone();
        if self.until_answered(Ask::Set, || client.delete(&key), |_| ()).await.is_some() {
            user.touched_at = None;
            self.caller.count.borrow_mut().logouts += 1;
        }
    }

    /// Calls until it succeeds, with the time when it did; `None` once the run is over. `failed` hears of each failure.
    async fn until_answered<T>(
        &self,
        ask: Ask,
        mut call: impl AsyncFnMut() -> Result<T, Error>,
        mut failed: impl FnMut(&Error),
    ) -> Option<(T, Instant)> {
        let began = clock::now();
        let mut attempt_began = began;
        loop {
            let answer = call().await;
            let now = clock::now();
            {
                let mut count = self.caller.count.borrow_mut();
                match answer {
                    Ok(answer) => {
                        count.calls.answered(ask, attempt_began, now, &self.caller.window);
                        if attempt_began > began {
                            count.outage_max = count.outage_max.max(now - began);
                        }
                        self.caller.answered();
                        return Some((answer, now));
                    }
                    Err(error) => {
                        failed(&error);
                        count.calls.refused(|| error.to_string());
                    }
                }
            }
            if !self.caller.goes_on(now) {
                return None;
            }
            self.caller.pause().await;
            attempt_began = clock::now();
        }
    }
}

impl Pages {
    /// What the session of `user` holds in `version`.
    fn session(&self, user: &User, version: u64) -> Vec<u8> {
        let mut data = format!("{version:0width$x}", width = VERSION_BYTES).into_bytes();
        self.values.append(&versioned(user, version), user.bytes - VERSION_BYTES, &mut data);
        data
    }

    fn judge(&self, user: &User, data: &[u8]) -> Seen {
        let Some((version, rest)) = data.split_at_checked(VERSION_BYTES) else {
            return Seen::Wrong;
        };
        let version = std::str::from_utf8(version).ok();
        let Some(version) = version.and_then(|hex| u64::from_str_radix(hex, 16).ok()) else {
            return Seen::Wrong;
        };
        if !self.values.matches(&versioned(user, version), rest) {
            return Seen::Wrong;
        }
        match version {
            version if version == user.version => Seen::Current,
            version if Some(version) == user.maybe => Seen::Resolved(version),
            version if version < user.version => Seen::Stale,
            _ => Seen::Wrong,
        }
    }
}

fn versioned(user: &User, version: u64) -> Vec<u8> {
    format!("{}#{version}", user.key).into_bytes()
}

fn lock_key(user: &User) -> String {
    format!("lock:{}", user.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        let users = Users {
            count: 2,
            ttl: Duration::from_secs(60),
            session_bytes: 40..=300,
            write_share: 0.0,
            logout_share: 0.0,
            think: Duration::ZERO,
            locks: false,
            seed: 1,
        };
        Pages { users, callers: 1, values: Values::new() }
    }

    #[test]
    fn a_read_tells_which_write_it_saw() {
        let pages = pages();
        let user = User { version: 5, maybe: Some(6), ..User::new(0, &pages.users) };
        let seen = |version| pages.judge(&user, &pages.session(&user, version));
        assert_eq!(seen(5), Seen::Current);
        assert_eq!(seen(6), Seen::Resolved(6));
        assert_eq!(seen(4), Seen::Stale);
        assert_eq!(seen(7), Seen::Wrong);
    }

    #[test]
    fn a_version_is_never_written_twice() {
        let pages = pages();
        let user = User { version: 5, maybe: Some(6), ..User::new(0, &pages.users) };
        assert_eq!(user.next_version(), 7);
    }

    #[test]
    fn what_is_anybody_elses_or_damaged_is_wrong() {
        let pages = pages();
        let (user, other) = (User::new(0, &pages.users), User::new(1, &pages.users));
        assert_eq!(pages.judge(&user, &pages.session(&other, 0)), Seen::Wrong);
        let session = pages.session(&user, 0);
        assert_eq!(pages.judge(&user, &session), Seen::Current);
        for place in 0..session.len() {
            let mut damaged = session.clone();
            damaged[place] ^= 1;
            assert_eq!(pages.judge(&user, &damaged), Seen::Wrong, "byte {place}");
        }
        assert_eq!(pages.judge(&user, &session[..20]), Seen::Wrong);
    }
}
