//! A worker's mailbox: other threads post, the worker takes everything there is at once.
//!
//! ```text
//! threads -- post --> | queue | -- swap --> | batch | -> Service::post
//!              `---- first into an empty queue ----> wakes the worker
//! ```
//!
//! - Whether the queue is empty is the wake flag, and changes under its lock alone: who finds it
//!   empty wakes the worker, everybody else's message goes along. Thus however many are posted
//!   between two batches, there is one wake-up, and none is lost (`tests/mailbox_model.rs`).
//! - A lock held for one push or one swap. A lock-free queue was not needed: posts come in batches
//!   from a handful of threads.
//! - Nothing is refused. What is under way is bounded by whoever posts: one message per request,
//!   frame or connection that is open.

use std::sync::Arc;

use super::sync::{Mutex, Notify};

/// The room that is kept from one batch to the next, in messages.
const KEPT_MESSAGES_MAX: usize = 1024;

/// Where messages for one worker are posted; any thread may, and clones post to the same worker.
#[derive(Debug)]
pub struct Postbox<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Clone for Postbox<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

/// Where the worker takes them from.
#[derive(Debug)]
pub struct Mailbox<M> {
    shared: Arc<Shared<M>>,
}

#[derive(Debug)]
struct Shared<M> {
    queue: Mutex<Vec<M>>,
    /// Has a permit, or will be notified, whenever the queue is not empty and the worker does not
    /// know it yet.
    posted: Notify,
}

/// A mailbox and its first postbox.
pub fn mailbox<M>() -> (Postbox<M>, Mailbox<M>) {
    let shared = Arc::new(Shared { queue: Mutex::new(Vec::new()), posted: Notify::new() });
    (Postbox { shared: Arc::clone(&shared) }, Mailbox { shared })
}

impl<M> Postbox<M> {
    /// Posts `message`. Messages of one thread arrive in their order. One for a worker that has
    /// stopped is dropped with it.
    pub fn post(&self, message: M) {
        let was_empty = {
            let mut queue = self.shared.queue.lock();
            queue.push(message);
            queue.len() == 1
        };
        if was_empty {
            self.shared.posted.notify_one();
        }
    }

    /// Posts all of `messages` under one lock, with one wake-up at most.
    pub fn post_all(&self, messages: impl IntoIterator<Item = M>) {
        let is_first = {
            let mut queue = self.shared.queue.lock();
            let was_empty = queue.is_empty();
            queue.extend(messages);
            was_empty && !queue.is_empty()
        };
        if is_first {
            self.shared.posted.notify_one();
        }
    }
}

impl<M> Mailbox<M> {
    /// Waits for messages and swaps them with `batch`, which must be empty.
    pub async fn receive(&self, batch: &mut Vec<M>) {
        debug_assert!(batch.is_empty(), "what was received is dealt with");
        batch.shrink_to(KEPT_MESSAGES_MAX);
        loop {
            std::mem::swap(&mut *self.shared.queue.lock(), batch);
            if !batch.is_empty() {
                return;
            }
            self.shared.posted.notified().await;
        }
    }
}
