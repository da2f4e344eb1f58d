//! What crosses a crate boundary, as one test binary.
//!
//! - `authentication`: clients that have to say who they are, by text and over SASL.
//! - `backup`: what one server gives out, another one takes.
//! - `cluster_map`: the map that a cluster gives its clients, as the client library reads it.
//! - `client`: cache-client against servers and a cluster, whatever happens to them.
//! - `command_line`: what flags do to a real process, and what it is refused with.
//! - `compute`: values computed once, over a real server.
//! - `dump`: keys listed beside clients, whole, bounded and at the reader's pace.
//! - `failover`: a cluster of processes, killed, paused and cut off under load, and what its clients saw.
//! - `hostile`: what no client should do, done.
//! - `large_values`: values that leave from where they are stored, read slowly while they are written anew.
//! - `layering`: the arrows between the crates, and what every source file must say of itself.
//! - `live_curve`: what a server says it would hit with other memory, beside the simulator.
//! - `near`: the near cache with writers elsewhere, while its streams are cut and stalled and nodes fail.
//! - `protocol`: the dialogues in `scripts/`, each with a server of its own.
//! - `process`: how the program starts, stops and is told what to do.
//! - `reference`: the simulator's miss ratios, compared with another simulator's.
//! - `sessions`: the client's session kit: tower-sessions' store, and locks that processes contend for.
//! - `residency`: what is protected stays while anything else can go.
//! - `tls`: TLS to clients, datagrams and UNIX sockets.
//! - `sizing`: the simulator's advice, beside what it measures and what the server says of itself.
//! - `soak`: a full server under random operations, against a model that may forget.
//! - `statistics`: memcached's lines and no others, and what they count.
//! - `warm_restart`: a server with a memory file, killed and stopped, and what its successor holds.
//! - `watch`: what watchers are told, and `cache-sim capture` of a server of this project.

// `cfg(test)` holds anyway; it tells clippy that helpers here may unwrap as tests do.
#[cfg(test)]
mod authentication;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod client;
#[cfg(test)]
mod cluster_map;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod compute;
#[cfg(test)]
mod dump;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod large_values;
#[cfg(test)]
mod layering;
#[cfg(test)]
mod live_curve;
#[cfg(test)]
mod near;
#[cfg(test)]
mod process;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod residency;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod sizing;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod statistics;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod warm_restart;
#[cfg(test)]
mod watch;
