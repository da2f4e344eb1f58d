//! Callers: tasks that ask through `cache-client`, one call after the other, as an application does.
//!
//! ```text
//! per thread    a client, a runtime, its share of the callers:  ask ─> wait ─> check and count ─> ask again ...
//! main thread   warm-up ──|──── measured ────|── the last answers
//! servers       CPU time: ^                  ^
//! ```
//!
//! `load.rs` measures servers under requests that cost the load next to nothing. Here the client is a part of what is
//! measured: where it sends a key, how it follows a cluster, how it joins the requests of its callers. A call that fails is
//! counted, and its caller goes on, so that a node may be lost meanwhile.
//!
//! What callers do is an [`Errand`]: the [`Workload`](crate::workload::Workload) of a cache ([`load`]), or the pages of a
//! session store ([`sessions`](crate::sessions)).

pub mod load;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use cache_client::{Client, Config};
use tokio::runtime;
use tokio::task::LocalSet;

use crate::interrupt::Interrupt;
use crate::load::{LoadError, Usage, watch};
use crate::server_process::{cpu_time, resident_bytes};
use crate::tally::Window;
use crate::{clock, cores};

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long a caller waits after a call that failed: long enough not to be busy with failing.
const FAILED_PAUSE: Duration = Duration::from_millis(1);

/// Who calls, whom, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which servers, and how their client treats them.
    pub config: Config,
    /// Callers, of all threads together.
    pub callers: usize,
    /// Threads, each with clients of its own.
    pub threads: usize,
    /// Clients of each thread.
    pub clients: usize,
    /// How long the servers are loaded before anything counts.
    pub warm_up: Duration,
    /// How long is measured; `None` until every caller has done what it has to do.
    pub duration: Option<Duration>,
    /// The cores the threads may run on; none named means any.
    pub cores: Vec<usize>,
    /// The servers' processes to be watched, if any.
    pub server_pids: Vec<u32>,
}

/// What callers do.
pub trait Errand: Send + Sync + 'static {
    /// What the callers of a thread count in.
    type Count: Default + Send + 'static;

    /// Calls until [`Caller::goes_on`] says no, or there is nothing left to do.
    fn call(self: Arc<Self>, caller: Caller<Self::Count>) -> impl Future<Output = ()> + 'static;
}

/// One of the callers.
#[derive(Debug)]
pub struct Caller<C> {
    /// Which, from 0.
    pub number: usize,
    /// The clients of its thread; one at least.
    pub clients: Rc<[Client]>,
    /// What its thread has counted.
    pub count: Rc<RefCell<C>>,
    /// What is measured.
    pub window: Window,
    run: Arc<Run>,
}

/// What all threads share.
#[derive(Debug)]
struct Run {
    interrupt: Interrupt,
    answered: AtomicU64,
}

/// What all callers came to.
#[derive(Debug)]
pub struct Counted<C> {
    /// By thread.
    pub counts: Vec<C>,
    /// When the measured time began.
    pub from: Instant,
    /// When it ended, if time ends it.
    pub until: Option<Instant>,
    /// What the servers used meanwhile, if their processes were named.
    pub usage: Option<Usage>,
}

impl<C> Caller<C> {
    /// The first of its clients.
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Whether there is time for another call.
    pub fn goes_on(&self, now: Instant) -> bool {
        self.window.until.is_none_or(|until| now < until) && self.run.interrupt.check().is_ok()
    }

    /// A call was answered.
    pub fn answered(&self) {
        self.run.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A call failed: a while passes before the next.
    pub async fn pause(&self) {
        tokio::time::sleep(FAILED_PAUSE).await;
    }
}

/// Has `errand` done as `plan` says; `progress` hears now and then how many calls have been answered, warm-up included.
///
/// # Errors
/// When a thread cannot be started as it should be, a server's process not be watched, or the user wants an end. Calls
/// that fail are for the errand to count.
pub fn run<E: Errand>(
    plan: &Plan,
    errand: &Arc<E>,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Counted<E::Count>, LoadError> {
    assert!(plan.threads > 0 && plan.callers >= plan.threads, "every thread has callers");
    assert!(plan.clients > 0, "and they have a client");
    watch(&plan.server_pids, cpu_time)?;
    let from = clock::now() + plan.warm_up;
    let window = Window { from, until: plan.duration.map(|duration| from + duration) };
    let shared = Arc::new(Run { interrupt: interrupt.clone(), answered: AtomicU64::new(0) });
    thread::scope(|scope| {
        let (done, all_done) = mpsc::channel::<()>();
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let (done, shared) = (done.clone(), Arc::clone(&shared));
                scope.spawn(move || {
                    // Dropped at the end, however it comes: the main thread waits for that.
                    let _done = done;
                    run_thread(plan, thread, errand, window, &shared)
                })
            })
            .collect();
        drop(done);
        let mut wait_until = |moment: Option<Instant>| {
            loop {
                progress(shared.answered.load(Ordering::Relaxed));
                let left = moment.map(|moment| moment.saturating_duration_since(clock::now()));
                if left == Some(Duration::ZERO) {
                    break;
                }
                let nap = left.unwrap_or(PROGRESS_INTERVAL).min(PROGRESS_INTERVAL);
                if all_done.recv_timeout(nap) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
            }
        };
        wait_until(Some(from));
        let cpu_before = watch(&plan.server_pids, cpu_time)?;
        wait_until(window.until);
        let cpu_after = watch(&plan.server_pids, cpu_time)?;
        let resident_bytes = watch(&plan.server_pids, resident_bytes)?;
        let mut counts = Vec::with_capacity(plan.threads);
        for thread in threads {
            let counted = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            counts.push(counted?);
        }
        interrupt.check()?;
        let usage = Usage::between(cpu_before, cpu_after, resident_bytes);
        Ok(Counted { counts, from, until: window.until, usage })
    })
}

/// The callers of one thread, until the last of them has come to its end.
fn run_thread<E: Errand>(
    plan: &Plan,
    thread: usize,
    errand: &Arc<E>,
    window: Window,
    shared: &Arc<Run>,
) -> Result<E::Count, LoadError> {
    let pinned = cores::pin(&plan.cores);
    pinned.map_err(|source| LoadError::Cores { cores: plan.cores.clone(), source })?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LoadError::Runtime)?;
    let count = Rc::new(RefCell::new(E::Count::default()));
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let clients: Rc<[Client]> =
            (0..plan.clients).map(|_| Client::new(plan.config.clone())).collect();
        // Each thread has every so-many-th.
        for number in (thread..plan.callers).step_by(plan.threads) {
            let caller = Caller {
                number,
                clients: Rc::clone(&clients),
                count: Rc::clone(&count),
                window,
                run: Arc::clone(shared),
            };
            tokio::task::spawn_local(Arc::clone(errand).call(caller));
        }
    });
    runtime.block_on(tasks);
    Ok(count.take())
}
