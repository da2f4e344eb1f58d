//! `cache-bench echo`: flags into an echo server.

use anyhow::Context;
use clap::Args;

use super::Verdict;
use crate::echo::{Frames, serve};
use crate::interrupt::Interrupt;
use crate::workload::KEYS_PER_GET_MAX;

/// A server that only moves bytes: the limit of what a server can reach.
///
/// It takes gets and sets of memcached's protocol for keys and values of one length, and answers each
/// with as many bytes as a cache would that holds everything. It keeps nothing, and what it answers is
/// no key's value. One thread, epoll.
#[derive(Debug, Args)]
pub(super) struct EchoArgs {
    /// Where it listens, on loopback.
    #[arg(long, value_name = "PORT")]
    port: u16,
    /// Length of each key, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 24)]
    key_bytes: usize,
    /// Length of each value, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_bytes: usize,
    /// Keys that every get asks for.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=KEYS_PER_GET_MAX as u64))]
    keys_per_get: u64,
}

impl EchoArgs {
    pub(super) fn execute(&self, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        let keys_per_get = usize::try_from(self.keys_per_get)?;
        let frames = Frames::new(self.key_bytes, self.value_bytes, keys_per_get)?;
        serve(self.port, &frames, interrupt)
            .with_context(|| format!("cannot serve port {}", self.port))?;
        Ok(Verdict::Sound)
    }
}
