//! The map of a cluster as its clients know it: who holds which shard, and whom to ask.
//!
//! It is what a node answers to `config get shards`. The frame is that of `config get cluster`, so that the first
//! line inside is the revision in both, and polling the short one says whether the long one has changed:
//!
//! ```text
//! CONFIG shards 0 <bytes>\r\n
//! <revision>\n
//! cluster <id, 16 hexadecimal digits> shards <count> reads <confirm|lease|any>\n
//! node <id> <up|draining|down> <weight> <host:port> [<zone>]\n        ascending, data nodes alone
//! shard <number> <epoch> <primary, or 0> [<backup> ...]\n             ascending, every one of them
//! \r\nEND\r\n
//! ```
//!
//! A client that goes by an old map is never wrong, only slower by a hop: a node passes on what is not its own.
//! That its map is old it learns
//!
//! - by polling, of the revision ([`Map::revision_in`]);
//! - from any cas that it is given: its top 24 bits are the epoch in which the shard's primary ordered the write, and
//!   an epoch above the map's means a primary that the map does not know ([`Map::is_outdated_by`]);
//! - when a node that the map calls up cannot be reached.

use std::collections::BTreeMap;
use std::str::{FromStr, SplitWhitespace};

use cluster::hash::{SHARD_COUNT_MAX, SHARD_COUNT_MIN, shard_of_key};
use cluster::pool::Reads;
use cluster::{ClusterId, Epoch, NodeId, ShardId, Version};
use thiserror::Error;

/// Who holds which shard, in one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Grows with every change of anything.
    pub revision: u64,
    /// What reads wait for. Only with [`Reads::Any`] does a backup answer by itself.
    pub reads: Reads,
    /// The nodes that hold shards or may.
    pub nodes: BTreeMap<NodeId, MapNode>,
    /// By [`ShardId`]; a power of two.
    shards: Vec<MapShard>,
}

/// A node that holds shards or may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapNode {
    /// `host:port` for clients.
    pub address: String,
    /// Its failure domain; may be empty.
    pub zone: String,
    /// Its share of the shards, in proportion.
    pub weight: u16,
    /// What it is said to be doing.
    pub state: NodeState,
}

/// What a node is said to be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It takes its share.
    Up,
    /// It serves what it still has, and is about to have nothing.
    Draining,
    /// It said that it ends, and has not come back.
    Down,
}

/// Who holds a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapShard {
    /// Grows with every change of what follows.
    pub epoch: Epoch,
    /// Who orders writes; `None` while there is nobody.
    pub primary: Option<NodeId>,
    /// Who else holds every committed write.
    pub backups: Vec<NodeId>,
}

/// Which copies a read may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// The primary.
    #[default]
    Primary,
    /// Any copy, all alike.
    Any,
    /// Any copy, those in the reader's own zone first.
    Nearest,
}

/// Why an answer is no map. The map before stays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// The server is no node of a cluster, or of a build that has no such map.
    #[error("the server has no map of a cluster")]
    NoCluster,
    /// The bytes stop short, or are no text.
    #[error("the map ends after {found} of its bytes")]
    Cut {
        /// Bytes that there are.
        found: usize,
    },
    /// A line that does not read as it should.
    #[error("line {line} of the map is no {expected}: `{found}`")]
    Line {
        /// From 1, after the one that begins with `CONFIG`.
        line: usize,
        /// What should stand there.
        expected: &'static str,
        /// What does, or its beginning.
        found: String,
    },
    /// The number of shards is none that a cluster can have.
    #[error("{found} shards are none of the powers of two from 64 to 16384")]
    ShardCount {
        /// What the map says.
        found: usize,
    },
    /// Shards are missing.
    #[error("the map names {found} shards of {expected}")]
    ShardsMissing {
        /// Lines there are.
        found: usize,
        /// Lines there should be.
        expected: usize,
    },
    /// A shard is with a node that the map does not list.
    #[error("shard {shard} is with node {node}, which the map does not list")]
    NodeUnknown {
        /// Which shard.
        shard: u16,
        /// Which node.
        node: u32,
    },
}

/// An answer came from a node of another cluster, so that the address is somebody else's by now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this is a map of cluster {found}, not of {expected}")]
pub struct OtherCluster {
    /// Whose map the client has.
    pub expected: ClusterId,
    /// Whose it was given.
    pub found: ClusterId,
}

impl Map {
    /// Reads an answer to `config get shards`, its first and its last line included.
    pub fn parse(answer: &[u8]) -> Result<Self, MapError> {
        let body = body(answer, "shards")?;
        let mut lines = Lines { lines: body.split('\n'), line: 0 };
        let revision = lines.read("revision", |words| words.number())?;
        let (cluster, count, reads) = lines.read("cluster", |words| {
            words.literal("cluster")?;
            let id = u64::from_str_radix(words.next()?, 16).ok().map(ClusterId)?;
            words.literal("shards")?;
            let count = words.number()?;
            words.literal("reads")?;
            let name = words.next()?;
            let reads = Reads::ALL.into_iter().find(|reads| reads.name() == name)?;
            Some((id, count, reads))
        })?;
        let bounds = usize::from(SHARD_COUNT_MIN)..=usize::from(SHARD_COUNT_MAX);
        if !bounds.contains(&count) || !count.is_power_of_two() {
            return Err(MapError::ShardCount { found: count });
        }
        let mut nodes = BTreeMap::new();
        while lines.is_next("node ") {
            let (id, node) = lines.read("node", MapNode::parse)?;
            nodes.insert(id, node);
        }
        let mut shards = Vec::with_capacity(count);
        while lines.is_next("shard ") && shards.len() < count {
            let expected = shards.len();
            let shard = lines.read("next shard", |words| MapShard::parse(words, expected))?;
            let unknown = shard.copies().find(|node| !nodes.contains_key(node));
            if let (Some(NodeId(node)), Ok(shard)) = (unknown, u16::try_from(expected)) {
                return Err(MapError::NodeUnknown { shard, node });
            }
            shards.push(shard);
        }
        if shards.len() < count {
            return Err(MapError::ShardsMissing { found: shards.len(), expected: count });
        }
        lines.end()?;
        Ok(Self { cluster, revision, reads, nodes, shards })
    }

    /// The revision in an answer to `config get cluster`, which is short.
    pub fn revision_in(answer: &[u8]) -> Result<u64, MapError> {
        let mut lines = Lines { lines: body(answer, "cluster")?.split('\n'), line: 0 };
        lines.read("revision", |words| words.number())
    }

    /// Takes over a map that is later than this one; tells whether it was.
    ///
    /// Nodes learn of a change at different times, so that an answer may be older than what is known.
    pub fn update(&mut self, found: Self) -> Result<bool, OtherCluster> {
        if found.cluster != self.cluster {
            return Err(OtherCluster { expected: self.cluster, found: found.cluster });
        }
        let is_later = found.revision > self.revision;
        if is_later {
            *self = found;
        }
        Ok(is_later)
    }

    /// How many shards keys are divided into.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// The shard of a key.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        shard_of_key(key, self.shard_count())
    }

    /// Who holds a shard; one that [`Map::shard_of`] gave is there.
    pub fn shard(&self, shard: ShardId) -> Option<&MapShard> {
        self.shards.get(usize::from(shard.0))
    }

    /// Who takes writes of a key.
    pub fn primary_of(&self, key: &[u8]) -> Option<NodeId> {
        self.shard(self.shard_of(key))?.primary
    }

    /// Whom a read of a key may be sent to, in the order of preference, nodes that are down left out.
    ///
    /// Where the cluster's reads are not [`Reads::Any`], a backup asks the primary: there is nothing to prefer but that,
    /// and the backups follow for when it cannot be reached. Where they are, [`ReadFrom::Primary`] is the primary
    /// alone, for a backup would answer with what it has.
    pub fn readers<'a>(
        &'a self,
        key: &[u8],
        from: ReadFrom,
        own_zone: &'a str,
    ) -> impl Iterator<Item = NodeId> + 'a {
        let shard = self.shard(self.shard_of(key));
        let is_strict = self.reads != Reads::Any;
        let copies = move || {
            let copies = shard.into_iter().flat_map(MapShard::copies);
            let copies = copies.filter_map(|id| Some((id, self.nodes.get(&id)?)));
            copies.filter(|(_, node)| node.state != NodeState::Down)
        };
        let may_read = move |id| {
            is_strict || from != ReadFrom::Primary || shard.is_some_and(|s| s.primary == Some(id))
        };
        let is_near =
            move |node: &MapNode| is_strict || from != ReadFrom::Nearest || node.zone == own_zone;
        let near = copies().filter(move |(_, node)| is_near(node));
        let far = copies().filter(move |(_, node)| !is_near(node));
        near.chain(far).map(|(id, _)| id).filter(move |&id| may_read(id))
    }

    /// Whether a cas, in an answer about `key`, is of an epoch that the map does not know: it is old then, and to be
    /// asked for again.
    pub fn is_outdated_by(&self, key: &[u8], cas: u64) -> bool {
        let known = self.shard(self.shard_of(key));
        known.is_some_and(|shard| Version::from_cas(cas).epoch() > shard.epoch)
    }
}

impl MapNode {
    fn parse(words: &mut Words<'_>) -> Option<(NodeId, Self)> {
        words.literal("node")?;
        let id = words.node()?;
        let state = match words.next()? {
            "up" => NodeState::Up,
            "draining" => NodeState::Draining,
            "down" => NodeState::Down,
            _ => return None,
        };
        let weight = words.number()?;
        let address = words.next()?.to_owned();
        let (host, port) = address.rsplit_once(':')?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return None;
        }
        let zone = words.next().unwrap_or_default().to_owned();
        Some((id, Self { address, zone, weight, state }))
    }
}

impl MapShard {
    /// The primary and the backups.
    pub fn copies(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.primary.into_iter().chain(self.backups.iter().copied())
    }

    fn parse(words: &mut Words<'_>, expected: usize) -> Option<Self> {
        words.literal("shard")?;
        if words.number::<usize>()? != expected {
            return None;
        }
        let epoch = words.number().map(Epoch)?;
        let primary = words.number().map(|id| (id > 0).then_some(NodeId(id)))?;
        let mut backups = Vec::new();
        while !words.is_empty() {
            backups.push(words.node()?);
        }
        Some(Self { epoch, primary, backups })
    }
}

/// What stands between the line `CONFIG <name> <flags> <bytes>` and the end, if all of it is there.
fn body<'a>(answer: &'a [u8], name: &str) -> Result<&'a str, MapError> {
    let cut = || MapError::Cut { found: answer.len() };
    let Ok(text) = std::str::from_utf8(answer) else { return Err(cut()) };
    let (head, rest) = text.split_once("\r\n").ok_or_else(cut)?;
    if head == "ERROR" {
        return Err(MapError::NoCluster);
    }
    let bytes = parse_words(head, |words| {
        words.literal("CONFIG")?;
        words.literal(name)?;
        words.number::<u32>()?;
        words.number::<usize>()
    });
    let bytes = bytes.ok_or_else(|| wrong_line(0, "first line of a map", head))?;
    match rest.split_at_checked(bytes) {
        Some((body, "\r\nEND\r\n")) => Ok(body),
        _ => Err(cut()),
    }
}

fn wrong_line(line: usize, expected: &'static str, found: &str) -> MapError {
    MapError::Line { line, expected, found: found.chars().take(80).collect() }
}

struct Lines<'a> {
    lines: std::str::Split<'a, char>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn read<T>(
        &mut self,
        expected: &'static str,
        parse: impl FnOnce(&mut Words<'a>) -> Option<T>,
    ) -> Result<T, MapError> {
        self.line += 1;
        let line = self.lines.next().unwrap_or_default();
        parse_words(line, parse).ok_or_else(|| wrong_line(self.line, expected, line))
    }

    fn is_next(&self, start: &str) -> bool {
        self.lines.clone().next().is_some_and(|line| line.starts_with(start))
    }

    /// That nothing follows the last line.
    fn end(&mut self) -> Result<(), MapError> {
        self.line += 1;
        match (self.lines.next(), self.lines.next()) {
            (Some(""), None) => Ok(()),
            (found, _) => Err(wrong_line(self.line, "end of the map", found.unwrap_or_default())),
        }
    }
}

/// `None` also if a word is left over.
fn parse_words<'a, T>(line: &'a str, parse: impl FnOnce(&mut Words<'a>) -> Option<T>) -> Option<T> {
    let mut words = Words(line.split_whitespace());
    let parsed = parse(&mut words)?;
    words.next().is_none().then_some(parsed)
}

struct Words<'a>(SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn number<T: FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn literal(&mut self, expected: &str) -> Option<()> {
        (self.next()? == expected).then_some(())
    }

    /// A node's id; 0 is nobody's.
    fn node(&mut self) -> Option<NodeId> {
        self.number().filter(|&id| id > 0).map(NodeId)
    }

    fn is_empty(&self) -> bool {
        self.0.clone().next().is_none()
    }
}

#[cfg(test)]
mod tests;
