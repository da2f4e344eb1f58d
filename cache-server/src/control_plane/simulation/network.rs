//! The network between the nodes: calls and their answers are letters, which may be late, lost, doubled and
//! overtaken, and which nobody carries between nodes that do not hear each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster::NodeId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::random::Random;
use crate::control_plane::{Called, Transport, TransportError};

pub(super) const MS: u64 = 1_000;

/// What a call comes to.
pub(super) type Answer = Result<Vec<u8>, TransportError>;

/// What a node wants sent.
pub(super) enum Outgoing {
    Call { to: NodeId, request: Vec<u8>, answered: oneshot::Sender<Answer> },
    Answer { call: u64, to: NodeId, response: Option<Vec<u8>> },
}

/// What a node has heard.
pub(super) struct Incoming {
    pub(super) call: u64,
    pub(super) from: NodeId,
    pub(super) request: Vec<u8>,
}

/// What waits on a node for the network to fetch it.
pub(super) type Outbox = Arc<Mutex<Vec<Outgoing>>>;

/// A node's end of the network.
pub(super) struct Port(pub(super) Outbox);

impl Transport for Port {
    fn call(&self, to: NodeId, request: Vec<u8>) -> Called<'_> {
        Box::pin(async move {
            let (answered, answer) = oneshot::channel();
            self.0.lock().push(Outgoing::Call { to, request, answered });
            match answer.await {
                Ok(answer) => answer,
                // What is lost on the way is not reported.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

/// A letter on its way.
pub(super) enum Letter {
    Call {
        call: u64,
        from: NodeId,
        to: NodeId,
        request: Vec<u8>,
    },
    Answer {
        call: u64,
        from: NodeId,
        to: NodeId,
        response: Option<Vec<u8>>,
    },
    /// There is no process at the other end.
    NobodyThere {
        call: u64,
        to: NodeId,
    },
}

/// How bad the network is, for a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    delay_min_us: u64,
    delay_max_us: u64,
    lost_permille: u64,
    doubled_permille: u64,
}

impl Weather {
    pub(super) const FAIR: Self =
        Self { delay_min_us: 100, delay_max_us: 1_500, lost_permille: 0, doubled_permille: 0 };
    pub(super) const FOUL: Self =
        Self { delay_min_us: 200, delay_max_us: 60_000, lost_permille: 150, doubled_permille: 100 };
}

pub(super) struct Network {
    pub(super) weather: Weather,
    /// From and to of what is not heard.
    deaf: BTreeSet<(NodeId, NodeId)>,
    letters: BTreeMap<(u64, u64), Letter>,
    /// Who waits for an answer, and where.
    calls: BTreeMap<u64, (NodeId, NodeId, oneshot::Sender<Answer>)>,
    number: u64,
    /// What was lost or doubled.
    pub(super) harm: u64,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            weather: Weather::FAIR,
            deaf: BTreeSet::new(),
            letters: BTreeMap::new(),
            calls: BTreeMap::new(),
            number: 0,
            harm: 0,
        }
    }

    /// Nothing that `from` sends arrives at `to`, until healed.
    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.deaf.insert((from, to));
    }

    /// Neither hears the other.
    pub(super) fn part(&mut self, a: NodeId, b: NodeId) {
        self.cut(a, b);
        self.cut(b, a);
    }

    pub(super) fn heal(&mut self) {
        self.deaf.clear();
        self.weather = Weather::FAIR;
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Takes what `from` wants sent.
    pub(super) fn post(
        &mut self,
        now_us: u64,
        from: NodeId,
        outgoing: Outgoing,
        random: &mut Random,
    ) {
        match outgoing {
            Outgoing::Call { to, request, answered } => {
                let call = self.next();
                self.calls.insert(call, (from, to, answered));
                if random.permille(self.weather.doubled_permille) {
                    self.harm += 1;
                    let request = request.clone();
                    self.send(now_us, Letter::Call { call, from, to, request }, random);
                }
                self.send(now_us, Letter::Call { call, from, to, request }, random);
            }
            Outgoing::Answer { call, to, response } => {
                self.send(now_us, Letter::Answer { call, from, to, response }, random);
            }
        }
    }

    fn send(&mut self, now_us: u64, letter: Letter, random: &mut Random) {
        if self.is_cut(&letter) || random.permille(self.weather.lost_permille) {
            self.harm += 1;
            return;
        }
        let Weather { delay_min_us, delay_max_us, .. } = self.weather;
        let at_us = now_us + random.between(delay_min_us, delay_max_us);
        let number = self.next();
        self.letters.insert((at_us, number), letter);
    }

    fn is_cut(&self, letter: &Letter) -> bool {
        match letter {
            Letter::Call { from, to, .. } | Letter::Answer { from, to, .. } => {
                self.deaf.contains(&(*from, *to))
            }
            Letter::NobodyThere { .. } => false,
        }
    }

    /// The next letter that has arrived by now.
    pub(super) fn arrival(&mut self, now_us: u64) -> Option<Letter> {
        loop {
            let entry = self.letters.first_entry()?;
            if entry.key().0 > now_us {
                return None;
            }
            let letter = entry.remove();
            if !self.is_cut(&letter) {
                return Some(letter);
            }
            self.harm += 1;
        }
    }

    /// Nobody took this call: the caller is told so, a moment later.
    pub(super) fn refuse(&mut self, now_us: u64, call: u64, to: NodeId) {
        let number = self.next();
        self.letters.insert((now_us + MS, number), Letter::NobodyThere { call, to });
    }

    /// Hands an answer to whoever waits for it. Whether somebody did.
    pub(super) fn complete(&mut self, call: u64, answer: Option<Vec<u8>>) -> bool {
        let Some((_, to, answered)) = self.calls.remove(&call) else { return false };
        let unreachable = || TransportError::Unreachable { to, reason: "nobody is there".into() };
        answered.send(answer.ok_or_else(unreachable)).is_ok()
    }

    /// Who waited on a node that is gone waits no longer.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.calls.retain(|_, (from, _, _)| *from != node);
    }
}
