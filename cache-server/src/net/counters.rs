//! What a worker counts of its connections, and the sum over all workers.
//!
//! Each worker alone writes its own counters, so counting is a plain load and store; any thread may
//! read them. A sum is of one moment per counter, not of one moment for all.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`. Called by the worker that owns the counter alone.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares counters of one worker, their snapshot and their sum from one list.
macro_rules! counters {
    ($Counters:ident, $Snapshot:ident: $($(#[$doc:meta])* $name:ident,)*) => {
        /// What one worker counts.
        #[derive(Debug, Default)]
        pub struct $Counters {
            $($(#[$doc])* pub $name: $crate::net::counters::Counter,)*
        }

        /// The counters of all workers, added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $Counters {
            pub(crate) fn reset(&self) {
                $(self.$name.reset();)*
            }

            /// Goes on from what the counter of this name came to; an unknown one is passed over.
            pub(crate) fn go_on_from(&self, name: &str, count: u64) {
                match name {
                    $(stringify!($name) => self.$name.add(count),)*
                    _ => {}
                }
            }
        }

        impl $Snapshot {
            pub(crate) fn add(&mut self, worker: &$Counters) {
                $(self.$name = self.$name.wrapping_add(worker.$name.get());)*
            }

            /// Every counter with its name.
            pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

pub(crate) use counters;

counters! { Counters, CountersSnapshot:
    /// Clients accepted and served (memcached's `total_connections`).
    connections_accepted,
    /// Clients refused because `-c` were connected (`rejected_connections`).
    connections_rejected,
    /// Clients dropped because they did not take their answers.
    connections_dropped_slow,
    /// Clients dropped because buffers were used up.
    connections_dropped_for_memory,
    /// Connections closed by a bug met while serving a request. Zero, or someone must act.
    connections_crashed,
    /// Clients closed because they were silent for too long (`idle_kicks`).
    idle_kicks,
    /// Failed accepts: out of file descriptors or memory.
    accept_failures,
    /// Bytes received (`bytes_read`).
    bytes_read,
    /// Bytes sent (`bytes_written`).
    bytes_written,
    /// Turns that ended with requests left because `-R` were answered (`conn_yields`).
    yields,
    /// Requests decoded, well-formed or not.
    requests,
    /// Values refused because buffers were used up.
    values_refused_for_memory,
    /// Datagrams that held no request, or half of one.
    datagrams_dropped,
    /// Answers that were not sent in datagrams because they were too long.
    datagram_answers_refused,
    /// TLS handshakes that failed, or took too long (`ssl_handshake_errors`).
    ssl_handshake_errors,
    /// Connections closed because their TLS went wrong after the handshake (`ssl_proto_errors`).
    ssl_proto_errors,
    /// TLS sessions that are no earlier one's resumption, where that is possible (`ssl_new_sessions`).
    ssl_new_sessions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_adds_workers_up() {
        let workers = [Counters::default(), Counters::default()];
        workers[0].bytes_read.add(2);
        workers[1].bytes_read.add(3);
        workers[1].yields.add(1);
        let mut sum = CountersSnapshot::default();
        workers.iter().for_each(|worker| sum.add(worker));
        assert_eq!(sum, CountersSnapshot { bytes_read: 5, yields: 1, ..Default::default() });
    }
}
