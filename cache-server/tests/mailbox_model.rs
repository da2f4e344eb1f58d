//! The mailbox in every interleaving of its threads: no message is lost, none comes twice, and the
//! worker never sleeps on one.
//!
//! The file under test is compiled once more here, with loom's lock and a notification made of
//! loom's parts in place of the real ones.

#[path = "../src/net/mailbox.rs"]
#[expect(unreachable_pub, reason = "public in the crate that it belongs to")]
mod mailbox;

/// What `mailbox.rs` finds beside it.
mod sync {
    use loom::sync::{Condvar, MutexGuard};

    /// A lock like the real one, which is not poisoned.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics while holding it")
        }
    }

    /// As the real one: a permit, at most one, that outlasts a notification nobody waits for.
    #[derive(Debug)]
    pub(crate) struct Notify {
        permit: loom::sync::Mutex<bool>,
        changed: Condvar,
    }

    impl Notify {
        pub(crate) fn new() -> Self {
            Self { permit: loom::sync::Mutex::new(false), changed: Condvar::new() }
        }

        pub(crate) fn notify_one(&self) {
            *self.permit.lock().expect("nobody panics while holding it") = true;
            self.changed.notify_one();
        }

        /// Blocks where the real one would suspend.
        pub(crate) async fn notified(&self) {
            let mut permit = self.permit.lock().expect("nobody panics while holding it");
            while !*permit {
                permit = self.changed.wait(permit).expect("nobody panics while holding it");
            }
            *permit = false;
        }
    }
}

use loom::future::block_on;
use loom::thread;

use crate::mailbox::mailbox;

/// Runs `act` in every interleaving with up to this many preemptions: a lost wake-up takes two.
fn model(act: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(act);
}

#[test]
fn every_message_arrives_once_and_in_the_order_of_its_thread() {
    model(|| {
        let (postbox, mailbox) = mailbox();
        let other = postbox.clone();
        let threads = [
            thread::spawn(move || {
                postbox.post(0);
                postbox.post(1);
            }),
            thread::spawn(move || other.post(10)),
        ];
        let mut received = Vec::new();
        // A lost wake-up leaves the worker asleep here; loom reports that as a deadlock.
        while received.len() < 3 {
            let mut batch = Vec::new();
            block_on(mailbox.receive(&mut batch));
            received.append(&mut batch);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        received.sort_by_key(|message| message / 10);
        assert_eq!(received, [0, 1, 10], "sorting keeps the order of each thread's own");
    });
}

#[test]
fn batch_posted_at_once_arrives_beside_single_messages() {
    model(|| {
        let (postbox, mailbox) = mailbox();
        let other = postbox.clone();
        let thread = thread::spawn(move || other.post_all([1, 2]));
        postbox.post_all([]);
        postbox.post(3);
        let mut sum = 0;
        while sum < 6 {
            let mut batch = Vec::new();
            block_on(mailbox.receive(&mut batch));
            sum += batch.iter().sum::<i32>();
        }
        assert_eq!(sum, 6);
        thread.join().unwrap();
    });
}
