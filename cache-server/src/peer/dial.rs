//! The side that connects: to a node by its address, as a node or as a process that wants to become one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use cluster::{Incarnation, Member, NodeId};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::HANDSHAKE_DEADLINE;
use crate::peer::connection::{PeerConnection, set_up};
use crate::peer::counters::PeerCounters;
use crate::peer::frame::{FrameDecoder, FrameEncoder};
use crate::peer::handshake::{
    Answer, HEAD_BYTES, HandshakeError, Head, Hello, Identity, Purpose, Refused, Salts, Welcome,
};
use crate::peer::join::JoinToken;
use crate::peer::tls::{self, PeerStream, Security};

/// Whom a connection is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whichever node is at the address.
    Anybody,
    /// This node, in whichever life.
    Node(NodeId),
    /// This node in this life.
    Member(Member),
}

impl Target {
    fn node(self) -> Option<NodeId> {
        match self {
            Self::Anybody => None,
            Self::Node(node) => Some(node),
            Self::Member(member) => Some(member.node),
        }
    }

    fn incarnation(self) -> Option<Incarnation> {
        match self {
            Self::Anybody | Self::Node(_) => None,
            Self::Member(member) => Some(member.incarnation),
        }
    }

    fn is(self, found: Member) -> bool {
        self.node().is_none_or(|node| node == found.node)
            && self.incarnation().is_none_or(|incarnation| incarnation == found.incarnation)
    }
}

/// Why a connection was not made. Nothing has changed on either side.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody is there, or TLS did not come about.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {HANDSHAKE_DEADLINE:?}")]
    TimedOut,
    /// The other side does not speak this protocol.
    #[error("the other side sent {0}")]
    Handshake(#[from] HandshakeError),
    /// The other side said no.
    #[error("refused by the peer: {0}")]
    RefusedByPeer(Refused),
    /// The other side is not who it should be.
    #[error("not the peer that was meant: {0}")]
    OtherPeer(String),
    /// The address, or the target, is this node's own.
    #[error("a node does not connect to itself")]
    Itself,
    /// Not encrypted, where it would have to be.
    #[error(
        "a plain connection to {0} is allowed only on the loopback or with plaintext between peers switched on"
    )]
    Plaintext(SocketAddr),
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Makes connections in the name of a node. Cheap to clone; any thread may use it.
#[derive(Clone, Debug)]
pub struct Dialler {
    identity: Identity,
    security: Arc<Security>,
    counters: Arc<PeerCounters>,
}

impl Dialler {
    /// In the name of `identity`.
    pub fn new(identity: Identity, security: Arc<Security>, counters: Arc<PeerCounters>) -> Self {
        Self { identity, security, counters }
    }

    /// Connects to `address` (`host:port`) and shakes hands; on the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// When that does not come about within [`HANDSHAKE_DEADLINE`], and with whom was meant.
    pub async fn connect(
        &self,
        address: &str,
        purpose: Purpose,
        target: Target,
    ) -> Result<PeerConnection, ConnectError> {
        let connected =
            timeout(HANDSHAKE_DEADLINE, self.connect_patiently(address, purpose, target));
        let connected = connected.await.unwrap_or(Err(ConnectError::TimedOut));
        match &connected {
            Ok(_) => self.counters.connected.increment(),
            Err(error) => {
                self.counters.connect_failures.increment();
                if matches!(error, ConnectError::RefusedByPeer(_)) {
                    self.counters.refused_by_peers.increment();
                }
            }
        }
        connected
    }

    async fn connect_patiently(
        &self,
        address: &str,
        purpose: Purpose,
        target: Target,
    ) -> Result<PeerConnection, ConnectError> {
        let Identity { cluster, member } = self.identity;
        if target.node() == Some(member.node) {
            return Err(ConnectError::Itself);
        }
        let tcp = connect_tcp(address).await?;
        let stream = match &self.security.tls {
            Some(tls) => tls.connect(tcp).await?,
            None => plain(&self.security, tcp)?,
        };
        let hello = Hello {
            cluster: Some(cluster),
            from: Some(member),
            to: target.node(),
            to_incarnation: target.incarnation(),
            nonce: nonce()?,
            purpose,
        };
        let (connection, found) = introduce(stream, &hello).await?;
        if found.cluster != cluster || !target.is(found.member) {
            let Identity { cluster, member: Member { node, .. } } = found;
            return Err(ConnectError::OtherPeer(format!("node {node} of cluster {cluster}")));
        }
        if found.member.node == member.node {
            return Err(ConnectError::Itself);
        }
        Ok(connection)
    }
}

/// Connects to the node at `address` as a process that holds `token` and wants to become a node.
///
/// Encrypted if the token vouches for a CA; otherwise plain, where `security` allows that.
///
/// # Errors
///
/// When no connection comes about within [`HANDSHAKE_DEADLINE`].
pub async fn connect_to_join(
    address: &str,
    token: &JoinToken,
    security: &Security,
) -> Result<(PeerConnection, Identity), ConnectError> {
    let connect = async {
        let tcp = connect_tcp(address).await?;
        let stream = match token.fingerprint() {
            Some(fingerprint) => tls::connect_to_join(fingerprint, tcp).await?,
            None => plain(security, tcp)?,
        };
        let (cluster, nonce) = (stream.proven_cluster(), nonce()?);
        let purpose = Purpose::Join;
        let hello = Hello { cluster, from: None, to: None, to_incarnation: None, nonce, purpose };
        introduce(stream, &hello).await
    };
    timeout(HANDSHAKE_DEADLINE, connect).await.unwrap_or(Err(ConnectError::TimedOut))
}

async fn connect_tcp(address: &str) -> Result<TcpStream, ConnectError> {
    let tcp = TcpStream::connect(address).await?;
    // A port that nobody serves may be given to this very connection as its own, and then answers it.
    if tcp.local_addr()? == tcp.peer_addr()? {
        return Err(ConnectError::Itself);
    }
    set_up(&tcp)?;
    Ok(tcp)
}

fn plain(security: &Security, tcp: TcpStream) -> Result<PeerStream, ConnectError> {
    let remote = tcp.peer_addr()?;
    if security.allows_plaintext(tcp.local_addr()?, remote) {
        Ok(PeerStream::Plain(tcp))
    } else {
        Err(ConnectError::Plaintext(remote))
    }
}

/// A number that is drawn anew for every connection.
pub(super) fn nonce() -> Result<u64, ConnectError> {
    let mut nonce = [0; 8];
    SystemRandom::new().fill(&mut nonce).map_err(|_| ConnectError::Random)?;
    Ok(u64::from_le_bytes(nonce))
}

/// Says hello, and makes of a welcome what the connection needs.
async fn introduce(
    mut stream: PeerStream,
    hello: &Hello,
) -> Result<(PeerConnection, Identity), ConnectError> {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let head = Head::decode(&head)?;
    let mut body = vec![0; head.body_bytes];
    stream.read_exact(&mut body).await?;
    let welcome = match Answer::decode(head, &body)? {
        Answer::Welcome(welcome) => welcome,
        Answer::Refused(refused) => return Err(ConnectError::RefusedByPeer(refused)),
    };
    let Welcome { identity, .. } = welcome;
    check_proof(&stream, &identity)?;
    let Salts { forth, back } = Salts::new(hello, &welcome);
    let payload_bytes_max = hello.purpose.payload_bytes_max();
    let connection = PeerConnection {
        address: stream.tcp().peer_addr()?,
        peer: Some(identity.member),
        purpose: hello.purpose,
        encoder: FrameEncoder::new(forth, payload_bytes_max),
        decoder: FrameDecoder::new(back, payload_bytes_max),
        stream,
    };
    Ok((connection, identity))
}

/// Whether the other side's certificate is that of the node it says it is.
fn check_proof(stream: &PeerStream, identity: &Identity) -> Result<(), ConnectError> {
    let Some(proven) = stream.proven() else { return Ok(()) };
    let checked = proven.check(identity.cluster, identity.member.node);
    checked.map_err(|refused| ConnectError::OtherPeer(refused.text))
}
