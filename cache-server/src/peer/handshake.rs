//! How a connection between nodes begins: one says who it is and what for, the other agrees or says why not.
//!
//! ```text
//! both:    | magic, 8 B | protocol, u16 LE | body bytes, u16 LE | crc32c of these two and the body, u32 LE | body |
//! hello:   | cluster, u64 | from node, u32 | from incarnation, u64 | to node, u32 | to incarnation, u64
//!            | nonce, u64 | purpose, u8 | lane, u16 |
//! welcome: | 0, u8 | cluster, u64 | node, u32 | incarnation, u64 | nonce, u64 |
//! refused: | reason, u8, not 0 | text |
//! ```
//!
//! - The head and `refused` are the same in every version of the protocol, so that nodes of different
//!   versions can tell each other so. A node is 0 when it has no id yet (it joins), or when any will do;
//!   likewise an incarnation.
//! - A refusal changes nothing on either side. Its text is for people, and logged on both sides.
//! - The two nonces make the salts of the connection's frames (see `frame.rs`): frames recorded on another
//!   connection are not taken, because neither side draws the same nonce again.
//!
//! Bytes in, values out: no socket here.

use std::fmt;

use cluster::{ClusterId, Incarnation, Member, NodeId};

use super::frame::Salt;

/// What a connection between nodes begins with: no letter, so no client of another protocol sends it.
pub const MAGIC: [u8; 8] = *b"\xcacache\r\n";

/// The version that this build speaks.
pub const PROTOCOL: u16 = 1;

/// The bytes before a body.
pub const HEAD_BYTES: usize = 16;

/// The longest body.
pub const BODY_BYTES_MAX: usize = 1024;

const HELLO_BYTES: usize = 43;
const WELCOME_BYTES: usize = 29;
const WELCOME: u8 = 0;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Messages and calls between control planes; one per ordered pair of nodes.
    Control,
    /// Writes of shards to their backups, acknowledgements back.
    Data {
        /// One of several connections, each with its share of the shards.
        lane: u16,
    },
    /// Requests of clients to the node that serves their keys, answers back.
    Forward,
    /// A process that is no node yet asks to become one.
    Join,
}

impl Purpose {
    /// The longest payload of a frame.
    pub fn payload_bytes_max(self) -> usize {
        match self {
            Self::Control => 16 << 20,
            Self::Data { .. } | Self::Forward => 64 << 20,
            Self::Join => 64 << 10,
        }
    }

    fn encode(self) -> (u8, u16) {
        match self {
            Self::Control => (0, 0),
            Self::Data { lane } => (1, lane),
            Self::Forward => (2, 0),
            Self::Join => (3, 0),
        }
    }

    fn decode(purpose: u8, lane: u16) -> Option<Self> {
        match (purpose, lane) {
            (0, 0) => Some(Self::Control),
            (1, lane) => Some(Self::Data { lane }),
            (2, 0) => Some(Self::Forward),
            (3, 0) => Some(Self::Join),
            _ => None,
        }
    }
}

/// Who a process is among the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node id, and which life of it.
    pub member: Member,
}

/// What the side that connects says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster it believes both to be of; `None` if it joins and does not know.
    pub cluster: Option<ClusterId>,
    /// Who it is; `None` if it joins.
    pub from: Option<Member>,
    /// Whom it wants to speak to; `None` if any node will do.
    pub to: Option<NodeId>,
    /// In which life; `None` if any will do.
    pub to_incarnation: Option<Incarnation>,
    /// Drawn anew for every connection.
    pub nonce: u64,
    /// What for.
    pub purpose: Purpose,
}

/// What the side that was connected to says if it agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who it is.
    pub identity: Identity,
    /// Drawn anew for every connection.
    pub nonce: u64,
}

/// Why a connection is refused, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Another version of this protocol.
    OtherProtocol = 1,
    /// A node of another cluster.
    OtherCluster = 2,
    /// The caller wants a node that is not this one.
    OtherNode = 3,
    /// The caller wants another life of this node.
    OtherLife = 4,
    /// The caller was removed from the cluster.
    RemovedNode = 5,
    /// The caller says it is this very node.
    OwnId = 6,
    /// The caller's certificate is missing or another node's.
    Certificate = 7,
    /// TLS is required here.
    Plaintext = 8,
    /// A later life of the caller is connected.
    Superseded = 9,
    /// Nothing that can be understood.
    Malformed = 10,
    /// A reason that a later version knows.
    Other = 255,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OtherProtocol,
        Self::OtherCluster,
        Self::OtherNode,
        Self::OtherLife,
        Self::RemovedNode,
        Self::OwnId,
        Self::Certificate,
        Self::Plaintext,
        Self::Superseded,
        Self::Malformed,
        Self::Other,
    ];

    /// Its name among the counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherProtocol => "other_protocol",
            Self::OtherCluster => "other_cluster",
            Self::OtherNode => "other_node",
            Self::OtherLife => "other_life",
            Self::RemovedNode => "removed_node",
            Self::OwnId => "own_id",
            Self::Certificate => "certificate",
            Self::Plaintext => "plaintext",
            Self::Superseded => "superseded",
            Self::Malformed => "malformed",
            Self::Other => "other",
        }
    }

    fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|&reason| reason as u8 == code).unwrap_or(Self::Other)
    }
}

/// A connection refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// In a word.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

impl Refused {
    /// For `reason`, as `text` explains.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Why bytes are no part of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// They begin otherwise.
    #[error("not a node's handshake")]
    NotAPeer,
    /// The body is longer than any.
    #[error("a handshake of {body_bytes} bytes, where {BODY_BYTES_MAX} are the most")]
    TooLong {
        /// What the head says.
        body_bytes: usize,
    },
    /// Damaged.
    #[error("a handshake that does not match its checksum")]
    Checksum,
    /// Another version of this protocol.
    #[error("protocol {theirs}, and this build speaks {PROTOCOL}")]
    OtherProtocol {
        /// Which.
        theirs: u16,
    },
    /// A body that is none.
    #[error("a handshake that makes no sense")]
    Malformed,
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The version of what follows.
    pub protocol: u16,
    /// The length of what follows: no more than [`BODY_BYTES_MAX`].
    pub body_bytes: usize,
    checksum: u32,
}

impl Head {
    /// Whether a head may begin with `bytes`, of which there may be fewer than a head has: a client of
    /// another protocol is told at its first byte.
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        let known = bytes.len().min(MAGIC.len());
        bytes[..known] == MAGIC[..known]
    }

    /// Reads a head.
    ///
    /// # Errors
    ///
    /// When it is none, or its body would be too long.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, HandshakeError> {
        if !Self::may_begin_with(bytes) {
            return Err(HandshakeError::NotAPeer);
        }
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let head = (|| Some((fields.u16()?, usize::from(fields.u16()?), fields.u32()?)))();
        let (protocol, body_bytes, checksum) = head.ok_or(HandshakeError::Malformed)?;
        if body_bytes > BODY_BYTES_MAX {
            return Err(HandshakeError::TooLong { body_bytes });
        }
        Ok(Self { protocol, body_bytes, checksum })
    }

    fn check(self, body: &[u8]) -> Result<(), HandshakeError> {
        let whole = body.len() == self.body_bytes && checksum(self.protocol, body) == self.checksum;
        if whole { Ok(()) } else { Err(HandshakeError::Checksum) }
    }
}

impl Hello {
    /// Appends it, head and all.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (purpose, lane) = self.purpose.encode();
        let mut body = Vec::with_capacity(HELLO_BYTES);
        body.extend_from_slice(&self.cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
        body.extend_from_slice(&self.from.map_or(0, |from| from.node.0).to_le_bytes());
        body.extend_from_slice(&self.from.map_or(0, |from| from.incarnation.0).to_le_bytes());
        body.extend_from_slice(&self.to.map_or(0, |to| to.0).to_le_bytes());
        body.extend_from_slice(&self.to_incarnation.map_or(0, |life| life.0).to_le_bytes());
        body.extend_from_slice(&self.nonce.to_le_bytes());
        body.push(purpose);
        body.extend_from_slice(&lane.to_le_bytes());
        encode(PROTOCOL, &body, out);
    }

    /// Reads the body that `head` announced.
    ///
    /// # Errors
    ///
    /// When it is damaged, of another version, or no hello.
    pub fn decode(head: Head, body: &[u8]) -> Result<Self, HandshakeError> {
        head.check(body)?;
        if head.protocol != PROTOCOL {
            return Err(HandshakeError::OtherProtocol { theirs: head.protocol });
        }
        Self::decode_body(body).ok_or(HandshakeError::Malformed)
    }

    fn decode_body(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let cluster = fields.u64()?;
        let (node, incarnation) = (fields.u32()?, fields.u64()?);
        let (to, to_incarnation) = (fields.u32()?, fields.u64()?);
        let nonce = fields.u64()?;
        let purpose = Purpose::decode(fields.u8()?, fields.u16()?)?;
        // One way to say it: nobody has no life.
        let whole = fields.0.is_empty() && (node != 0 || incarnation == 0);
        whole.then_some(Self {
            cluster: (cluster != 0).then_some(ClusterId(cluster)),
            from: (node != 0)
                .then_some(Member { node: NodeId(node), incarnation: Incarnation(incarnation) }),
            to: (to != 0).then_some(NodeId(to)),
            to_incarnation: (to_incarnation != 0).then_some(Incarnation(to_incarnation)),
            nonce,
            purpose,
        })
    }

    /// Whether `me` may take this connection: its fields against ours, and against what the certificate of
    /// the other side proves, `None` where the connection is not encrypted.
    ///
    /// # Errors
    ///
    /// The refusal to send.
    pub fn check(&self, me: &Identity, proven: Option<&Proven>) -> Result<(), Refused> {
        let Member { node, incarnation } = me.member;
        if self.to.is_some_and(|to| to != node) {
            let text = format!("this is node {node}, not the one that was meant");
            return Err(Refused::new(Reason::OtherNode, text));
        }
        if self.to_incarnation.is_some_and(|wanted| wanted != incarnation) {
            let text = format!("node {node} was restarted: this is not the life that was meant");
            return Err(Refused::new(Reason::OtherLife, text));
        }
        let of_this_cluster = self.cluster.is_none_or(|cluster| cluster == me.cluster);
        if !of_this_cluster || (self.cluster.is_none() && self.purpose != Purpose::Join) {
            let text = format!("node {node} is of cluster {}", me.cluster);
            return Err(Refused::new(Reason::OtherCluster, text));
        }
        match (self.from, self.purpose) {
            (None, Purpose::Join) => Ok(()),
            (None, _) | (Some(_), Purpose::Join) => {
                Err(Refused::new(Reason::Malformed, "whoever joins has no id, and only they"))
            }
            (Some(from), _) if from.node == node => {
                let text = format!("node {node} is this one: two processes have its identity");
                Err(Refused::new(Reason::OwnId, text))
            }
            (Some(from), _) => match proven {
                None => Ok(()),
                Some(proven) => proven.check(me.cluster, from.node),
            },
        }
    }
}

/// A node as its certificate names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertifiedNode {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id.
    pub node: NodeId,
}

impl fmt::Display for CertifiedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

/// What the other side of an encrypted connection has proven to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proven {
    /// Nothing: it showed no certificate, or one of no node.
    Nobody,
    /// This node.
    Node(CertifiedNode),
}

impl Proven {
    /// Whether that is `node` of `cluster`.
    ///
    /// # Errors
    ///
    /// The refusal to send.
    pub fn check(&self, cluster: ClusterId, node: NodeId) -> Result<(), Refused> {
        let claimed = CertifiedNode { cluster, node };
        match self {
            Self::Node(proven) if *proven == claimed => Ok(()),
            Self::Node(proven) => {
                let text = format!("{claimed} came with the certificate of {proven}");
                Err(Refused::new(Reason::Certificate, text))
            }
            Self::Nobody => {
                let text = format!("{claimed} came without a node's certificate");
                Err(Refused::new(Reason::Certificate, text))
            }
        }
    }
}

/// What the side that was connected to says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It agrees.
    Welcome(Welcome),
    /// It does not.
    Refused(Refused),
}

impl Answer {
    /// Appends it, head and all.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(WELCOME_BYTES);
        match self {
            Self::Welcome(Welcome { identity: Identity { cluster, member }, nonce }) => {
                body.push(WELCOME);
                body.extend_from_slice(&cluster.0.to_le_bytes());
                body.extend_from_slice(&member.node.0.to_le_bytes());
                body.extend_from_slice(&member.incarnation.0.to_le_bytes());
                body.extend_from_slice(&nonce.to_le_bytes());
            }
            Self::Refused(Refused { reason, text }) => {
                body.push(*reason as u8);
                body.extend_from_slice(
                    &text.as_bytes()[..text.floor_char_boundary(BODY_BYTES_MAX - 1)],
                );
            }
        }
        encode(PROTOCOL, &body, out);
    }

    /// Reads the body that `head` announced.
    ///
    /// # Errors
    ///
    /// When it is damaged or no answer; when it agrees in another version of the protocol.
    pub fn decode(head: Head, body: &[u8]) -> Result<Self, HandshakeError> {
        head.check(body)?;
        match body.split_first() {
            Some((&WELCOME, _)) if head.protocol != PROTOCOL => {
                Err(HandshakeError::OtherProtocol { theirs: head.protocol })
            }
            Some((&WELCOME, rest)) => {
                decode_welcome(rest).map(Self::Welcome).ok_or(HandshakeError::Malformed)
            }
            Some((&code, text)) => Ok(Self::Refused(Refused {
                reason: Reason::from_code(code),
                text: printable(text),
            })),
            None => Err(HandshakeError::Malformed),
        }
    }
}

fn decode_welcome(body: &[u8]) -> Option<Welcome> {
    let mut fields = Fields(body);
    let cluster = ClusterId(fields.u64()?);
    let member = Member { node: NodeId(fields.u32()?), incarnation: Incarnation(fields.u64()?) };
    let nonce = fields.u64()?;
    let whole = fields.0.is_empty() && member.node.0 != 0;
    whole.then_some(Welcome { identity: Identity { cluster, member }, nonce })
}

/// The salts of a connection's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salts {
    /// Of what the side that connected sends.
    pub forth: Salt,
    /// Of what the other side sends.
    pub back: Salt,
}

impl Salts {
    /// Those that follow from both sides' nonces.
    pub fn new(hello: &Hello, welcome: &Welcome) -> Self {
        let mut nonces = [0; 16];
        nonces[..8].copy_from_slice(&hello.nonce.to_le_bytes());
        nonces[8..].copy_from_slice(&welcome.nonce.to_le_bytes());
        let salt =
            |direction: &[u8]| Salt(crc32c::crc32c_append(crc32c::crc32c(&nonces), direction));
        Self { forth: salt(b">"), back: salt(b"<") }
    }
}

fn encode(protocol: u16, body: &[u8], out: &mut Vec<u8>) {
    assert!(body.len() <= BODY_BYTES_MAX, "a handshake is short");
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&protocol.to_le_bytes());
    out.extend_from_slice(&body_length(body).to_le_bytes());
    out.extend_from_slice(&checksum(protocol, body).to_le_bytes());
    out.extend_from_slice(body);
}

fn checksum(protocol: u16, body: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(&protocol.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &body_length(body).to_le_bytes());
    crc32c::crc32c_append(checksum, body)
}

fn body_length(body: &[u8]) -> u16 {
    u16::try_from(body.len()).unwrap_or(u16::MAX)
}

/// What somebody else wrote, fit for a line of our log.
fn printable(text: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(text).chars().map(printable).collect()
}

/// Fixed-size fields, little-endian, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterId = ClusterId(0xc1);

    fn member(node: u32, incarnation: u64) -> Member {
        Member { node: NodeId(node), incarnation: Incarnation(incarnation) }
    }

    fn me() -> Identity {
        Identity { cluster: CLUSTER, member: member(2, 20) }
    }

    fn hello() -> Hello {
        Hello {
            cluster: Some(CLUSTER),
            from: Some(member(1, 10)),
            to: Some(NodeId(2)),
            to_incarnation: None,
            nonce: 7,
            purpose: Purpose::Data { lane: 3 },
        }
    }

    fn join() -> Hello {
        Hello { cluster: None, from: None, to: None, purpose: Purpose::Join, ..hello() }
    }

    fn split(bytes: &[u8]) -> (Head, &[u8]) {
        let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap();
        (Head::decode(head).unwrap(), body)
    }

    fn refusal_of(hello: &Hello, proven: Option<&Proven>) -> Reason {
        hello.check(&me(), proven).unwrap_err().reason
    }

    proptest! {
        #[test]
        fn a_hello_reads_as_it_was_written(
            cluster: u64, node: u32, incarnation: u64, to: u32, life: u64, nonce: u64, purpose in 0_u8..4, lane: u16,
        ) {
            let lane = if purpose == 1 { lane } else { 0 };
            let hello = Hello {
                cluster: (cluster != 0).then_some(ClusterId(cluster)),
                from: (node != 0).then_some(member(node, incarnation)),
                to: (to != 0).then_some(NodeId(to)),
                to_incarnation: (life != 0).then_some(Incarnation(life)),
                nonce,
                purpose: Purpose::decode(purpose, lane).unwrap(),
            };
            let mut bytes = Vec::new();
            hello.encode(&mut bytes);
            let (head, body) = split(&bytes);
            prop_assert_eq!(body.len(), HELLO_BYTES);
            prop_assert_eq!(Hello::decode(head, body), Ok(hello));
        }

        #[test]
        fn a_refusal_of_any_text_reads_as_a_line(text in ".{0,2000}") {
            let refused = Refused::new(Reason::OtherCluster, text.clone());
            let mut bytes = Vec::new();
            Answer::Refused(refused).encode(&mut bytes);
            let (head, body) = split(&bytes);
            let Ok(Answer::Refused(read)) = Answer::decode(head, body) else { panic!("no refusal") };
            prop_assert_eq!(read.reason, Reason::OtherCluster);
            prop_assert!(!read.text.contains(char::is_control));
            prop_assert!(text.len() >= BODY_BYTES_MAX || read.text.chars().count() == text.chars().count());
        }

        #[test]
        fn no_flipped_bit_of_a_handshake_goes_unnoticed(bit in 0..(HEAD_BYTES + HELLO_BYTES) * 8) {
            let mut bytes = Vec::new();
            hello().encode(&mut bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap();
            prop_assert!(Head::decode(head).and_then(|head| Hello::decode(head, body)).is_err());
        }
    }

    #[test]
    fn a_welcome_reads_as_it_was_written() {
        let answer = Answer::Welcome(Welcome { identity: me(), nonce: 9 });
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        let (head, body) = split(&bytes);
        assert_eq!(Answer::decode(head, body), Ok(answer));
    }

    #[test]
    fn clients_of_other_protocols_are_told_at_their_first_byte() {
        for first in [b'g', b'G', 0x80, 0x16, 0] {
            assert!(!Head::may_begin_with(&[first]));
        }
        assert!((0..MAGIC.len()).all(|known| Head::may_begin_with(&MAGIC[..known])));
    }

    #[test]
    fn another_version_is_named_and_its_refusal_understood() {
        let mut bytes = Vec::new();
        encode(PROTOCOL + 1, b"whatever a later hello holds", &mut bytes);
        let (head, body) = split(&bytes);
        let theirs = PROTOCOL + 1;
        assert_eq!(Hello::decode(head, body), Err(HandshakeError::OtherProtocol { theirs }));
        let mut bytes = Vec::new();
        encode(PROTOCOL + 1, b"\x01too old", &mut bytes);
        let (head, body) = split(&bytes);
        let refused = Refused::new(Reason::OtherProtocol, "too old");
        assert_eq!(Answer::decode(head, body), Ok(Answer::Refused(refused)));
    }

    #[test]
    fn a_node_of_this_cluster_that_means_this_node_is_welcome() {
        assert_eq!(hello().check(&me(), None), Ok(()));
        assert_eq!(Hello { to: None, ..hello() }.check(&me(), None), Ok(()));
        let this_life = Hello { to_incarnation: Some(Incarnation(20)), ..hello() };
        assert_eq!(this_life.check(&me(), None), Ok(()));
        assert_eq!(join().check(&me(), None), Ok(()));
    }

    #[test]
    fn whoever_means_somebody_else_is_refused() {
        let refusals = [
            (Hello { cluster: Some(ClusterId(9)), ..hello() }, Reason::OtherCluster),
            (Hello { cluster: None, ..hello() }, Reason::OtherCluster),
            (Hello { cluster: Some(ClusterId(9)), ..join() }, Reason::OtherCluster),
            (Hello { to: Some(NodeId(3)), ..hello() }, Reason::OtherNode),
            (Hello { to_incarnation: Some(Incarnation(19)), ..hello() }, Reason::OtherLife),
            (Hello { from: Some(member(2, 19)), ..hello() }, Reason::OwnId),
            (Hello { from: None, ..hello() }, Reason::Malformed),
            (Hello { from: Some(member(1, 1)), ..join() }, Reason::Malformed),
        ];
        for (hello, reason) in refusals {
            assert_eq!(refusal_of(&hello, None), reason, "{hello:?}");
        }
    }

    #[test]
    fn a_certificate_must_be_that_of_the_node_and_cluster_that_is_claimed() {
        let certified = |cluster, node| Proven::Node(CertifiedNode { cluster, node: NodeId(node) });
        assert_eq!(hello().check(&me(), Some(&certified(CLUSTER, 1))), Ok(()));
        assert_eq!(join().check(&me(), Some(&Proven::Nobody)), Ok(()));
        for proven in [certified(CLUSTER, 3), certified(ClusterId(9), 1), Proven::Nobody] {
            assert_eq!(refusal_of(&hello(), Some(&proven)), Reason::Certificate);
        }
    }

    #[test]
    fn salts_differ_by_direction_and_by_either_nonce() {
        let welcome = Welcome { identity: me(), nonce: 9 };
        let salts = Salts::new(&hello(), &welcome);
        assert_ne!(salts.forth, salts.back);
        let again = Salts::new(&hello(), &Welcome { nonce: 10, ..welcome });
        assert!(again.forth != salts.forth && again.back != salts.back);
        let again = Salts::new(&Hello { nonce: 8, ..hello() }, &welcome);
        assert!(again.forth != salts.forth && again.back != salts.back);
    }
}
