//! What the nodes' Raft halves say to each other, and openraft's way of saying it.
//!
//! A [`Request`] and its [`Response`] are encoded with postcard and travel over a [`Transport`], which is
//! somebody else's: the control connections in production, a table of nodes in a test. The transport
//! knows who is at the other end; here only node ids are.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::NodeId;
use cluster::map::{Command, Outcome};
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, RaftNetwork, RaftNetworkFactory};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Change;
use super::storage::Types;

/// What a [`Transport`] answers with, later.
pub type Called<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, TransportError>> + Send + 'a>>;

/// Carries a request to another node and its response back.
///
/// The caller bounds every call in time, by dropping it: an implementation forgets a call that was
/// dropped. Calls to one node may be answered in any order, and a call must not wait for another's
/// answer. A failed or dropped call may have been carried out.
pub trait Transport: Send + Sync + 'static {
    /// Calls `to`, which is never this node, with bytes for its [`RaftControlPlane::handle`].
    ///
    /// [`RaftControlPlane::handle`]: super::RaftControlPlane::handle
    fn call(&self, to: NodeId, request: Vec<u8>) -> Called<'_>;
}

/// Why a call got no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// There is no connection to the node, or it broke.
    #[error("node {to} cannot be reached: {reason}")]
    Unreachable {
        /// Which node.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// It did not answer in time.
    #[error("node {to} did not answer within {} ms", within.as_millis())]
    Late {
        /// Which node.
        to: NodeId,
        /// How long was waited.
        within: Duration,
    },
    /// It answered with something else.
    #[error("node {to} answered with what this build does not understand")]
    Garbled {
        /// Which node.
        to: NodeId,
    },
    /// A node does not connect to itself.
    #[error("node {0} called itself")]
    Oneself(NodeId),
}

/// What one node asks of another. A variant is added at the end: nodes of two versions run side by side.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Request {
    /// Raft's own.
    Append(AppendEntriesRequest<Types>),
    /// Raft's own.
    Vote(VoteRequest<u64>),
    /// Raft's own, a piece at a time.
    Snapshot(InstallSnapshotRequest<Types>),
    /// To the leader: apply this.
    Propose(Command),
    /// To the leader: which entry has a reader to wait for?
    ReadIndex,
    /// To the leader: change who votes and learns.
    Change(Change),
}

/// The answer to the [`Request`] of the same name, or a [`Refusal`].
#[derive(Serialize, Deserialize)]
pub(super) enum Response {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(Result<InstallSnapshotResponse<u64>, InstallSnapshotError>),
    Proposed(Outcome),
    ReadIndex(Option<u64>),
    Changed,
    Refused(Refusal),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(super) enum Refusal {
    #[error("node {by} does not lead")]
    NotLeader { by: NodeId, leader: Option<NodeId> },
    #[error("{0}")]
    NotNow(String),
    #[error("{0}")]
    Never(String),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Types of ours and of openraft's, into memory: there is nothing in them that postcard cannot write.
    postcard::to_stdvec(value).expect("requests and responses can be encoded")
}

/// The other nodes, over a transport.
#[derive(Clone)]
pub(super) struct Peers {
    pub(super) me: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    /// How long openraft leaves a node alone that could not be reached.
    pub(super) pause: Duration,
}

impl Peers {
    pub(super) async fn call(
        &self,
        to: NodeId,
        request: &Request,
        within: Duration,
    ) -> Result<Response, TransportError> {
        if to == self.me {
            return Err(TransportError::Oneself(to));
        }
        let bytes = timeout(within, self.transport.call(to, encode(request)))
            .await
            .map_err(|_| TransportError::Late { to, within })??;
        postcard::from_bytes(&bytes).map_err(|_| TransportError::Garbled { to })
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer { target, peers: self.clone() }
    }
}

/// One other node, as openraft sees it.
pub(super) struct Peer {
    target: u64,
    peers: Peers,
}

type CallError<E> = RPCError<u64, EmptyNode, E>;

impl Peer {
    async fn call<E: std::error::Error>(
        &self,
        request: &Request,
        option: &RPCOption,
    ) -> Result<Response, CallError<E>> {
        let to = super::raft::node_id(self.target);
        self.peers.call(to, request, option.hard_ttl()).await.map_err(|error| unreachable(&error))
    }

    /// A refusal is a node whose Raft has stopped, or does not know us: as good as one that is down.
    fn other_than_asked<E: std::error::Error>(&self, response: &Response) -> CallError<E> {
        let to = super::raft::node_id(self.target);
        unreachable(&match response {
            Response::Refused(refusal) => {
                TransportError::Unreachable { to, reason: refusal.to_string() }
            }
            _ => TransportError::Garbled { to },
        })
    }
}

/// Openraft pauses before it calls an unreachable node again, and does not after its other errors.
fn unreachable<E: std::error::Error>(error: &TransportError) -> CallError<E> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError<RaftError<u64>>> {
        match self.call(&Request::Append(request), &option).await? {
            Response::Append(response) => Ok(response),
            other => Err(self.other_than_asked(&other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError<RaftError<u64>>> {
        match self.call(&Request::Vote(request), &option).await? {
            Response::Vote(response) => Ok(response),
            other => Err(self.other_than_asked(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, CallError<RaftError<u64, InstallSnapshotError>>> {
        match self.call(&Request::Snapshot(request), &option).await? {
            Response::Snapshot(Ok(response)) => Ok(response),
            // The receiver lost the pieces before this one; openraft starts over.
            Response::Snapshot(Err(mismatch)) => Err(RPCError::RemoteError(RemoteError::new(
                self.target,
                RaftError::APIError(mismatch),
            ))),
            other => Err(self.other_than_asked(&other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.peers.pause))
    }
}
