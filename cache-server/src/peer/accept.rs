//! The side that is connected to: one listener for every purpose, each handshake in a task of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::peer::HANDSHAKE_DEADLINE;
use crate::peer::connection::{PeerConnection, set_up};
use crate::peer::counters::PeerCounters;
use crate::peer::dial::nonce;
use crate::peer::frame::{FrameDecoder, FrameEncoder};
use crate::peer::handshake::{
    Answer, HEAD_BYTES, HandshakeError, Head, Hello, Identity, PROTOCOL, Reason, Refused, Salts,
    Welcome,
};
use crate::peer::tls::{self, PeerStream, Security};

/// Handshakes under way at once; more wait in the kernel's backlog.
const HANDSHAKES_MAX: usize = 256;

/// How long nothing is accepted after the operating system had no descriptor or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How long a refused caller has to read why.
const FAREWELL: Duration = Duration::from_millis(500);

/// The same address refused for the same reason is told of in the log once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Addresses and reasons remembered for that.
const LOGGED_MAX: usize = 256;

/// What a client of another protocol reads.
const NOT_FOR_CLIENTS: &[u8] = b"SERVER_ERROR this port is for the nodes of a cache cluster\r\n";

/// Says whether a caller that is who it says may connect, or why not.
pub type Admit = Box<dyn Fn(&Hello) -> Result<(), Refused>>;

/// Takes in the connections that others make.
pub struct Acceptor {
    /// Who is connected to.
    pub identity: Identity,
    /// How connections are protected.
    pub security: Arc<Security>,
    /// What is counted.
    pub counters: Arc<PeerCounters>,
    /// What is known of the caller beyond the handshake: such as that it was removed.
    pub admit: Admit,
    /// Takes a connection that has shaken hands.
    pub deliver: Box<dyn Fn(PeerConnection)>,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Binds the peer port, and listens. `address` may have port 0 for any that is free.
///
/// # Errors
///
/// When the address is another process's or no address of this machine.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for the last process's connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Why no connection came of an accepted one.
#[derive(Debug, thiserror::Error)]
enum AcceptError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("refused: {0}")]
    Refused(Refused),
    #[error("TLS, and this node has no certificate")]
    NoCertificate,
    #[error("no random numbers")]
    Random,
}

impl Acceptor {
    /// Accepts until it is dropped. On a `LocalSet` of the runtime that `listener` belongs to.
    pub async fn run(self, listener: TcpListener) {
        let acceptor = Rc::new(self);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let logged = Rc::new(RefCell::new(Logged::default()));
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!("cannot accept a peer: {error}");
                    sleep(EXHAUSTED_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, logged) = (Rc::clone(&acceptor), Rc::clone(&logged));
            spawn_local(async move {
                let shaken = timeout(HANDSHAKE_DEADLINE, acceptor.shake_hands(tcp, address)).await;
                drop(permit);
                let late = || Err(io::Error::from(io::ErrorKind::TimedOut).into());
                match shaken.unwrap_or_else(|_| late()) {
                    Ok(connection) => {
                        acceptor.counters.accepted.increment();
                        (acceptor.deliver)(connection);
                    }
                    Err(error) => acceptor.count_and_log(&error, address, &logged),
                }
            });
        }
    }

    async fn shake_hands(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
    ) -> Result<PeerConnection, AcceptError> {
        set_up(&tcp)?;
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let stream = match (&self.security.tls, first) {
            (Some(tls), [tls::FIRST_BYTE]) => tls.accept(tcp).await?,
            (None, [tls::FIRST_BYTE]) => return Err(AcceptError::NoCertificate),
            _ => PeerStream::Plain(tcp),
        };
        self.answer(stream, address).await
    }

    /// Reads a hello and answers it.
    async fn answer(
        &self,
        mut stream: PeerStream,
        address: SocketAddr,
    ) -> Result<PeerConnection, AcceptError> {
        let hello = match read_hello(&mut stream).await {
            Ok(hello) => hello,
            Err(AcceptError::Handshake(error)) => {
                let farewell = match error {
                    HandshakeError::NotAPeer => NOT_FOR_CLIENTS.to_vec(),
                    HandshakeError::OtherProtocol { theirs } => encode_refusal(Refused::new(
                        Reason::OtherProtocol,
                        format!("this node speaks protocol {PROTOCOL}, the caller {theirs}"),
                    )),
                    _ => encode_refusal(Refused::new(Reason::Malformed, error.to_string())),
                };
                spawn_local(say_farewell(stream, farewell));
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        if let Err(refused) = self.check(&hello, &stream) {
            spawn_local(say_farewell(stream, encode_refusal(refused.clone())));
            return Err(AcceptError::Refused(refused));
        }
        let nonce = nonce().map_err(|_| AcceptError::Random)?;
        let welcome = Welcome { identity: self.identity, nonce };
        let mut bytes = Vec::new();
        Answer::Welcome(welcome).encode(&mut bytes);
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        let Salts { forth, back } = Salts::new(&hello, &welcome);
        let payload_bytes_max = hello.purpose.payload_bytes_max();
        Ok(PeerConnection {
            stream,
            address,
            peer: hello.from,
            purpose: hello.purpose,
            encoder: FrameEncoder::new(back, payload_bytes_max),
            decoder: FrameDecoder::new(forth, payload_bytes_max),
        })
    }

    fn check(&self, hello: &Hello, stream: &PeerStream) -> Result<(), Refused> {
        let proven = stream.proven();
        if proven.is_none() {
            let tcp = stream.tcp();
            let ends = tcp.local_addr().and_then(|local| Ok((local, tcp.peer_addr()?)));
            if !ends.is_ok_and(|(local, remote)| self.security.allows_plaintext(local, remote)) {
                let text = "plain connections are not taken here, only TLS";
                return Err(Refused::new(Reason::Plaintext, text));
            }
        }
        hello.check(&self.identity, proven.as_ref())?;
        (self.admit)(hello)
    }

    fn count_and_log(&self, error: &AcceptError, address: SocketAddr, logged: &RefCell<Logged>) {
        let reason = match error {
            AcceptError::Refused(refused) => Some(refused.reason),
            AcceptError::Handshake(HandshakeError::OtherProtocol { .. }) => {
                Some(Reason::OtherProtocol)
            }
            AcceptError::Handshake(HandshakeError::NotAPeer) => None,
            AcceptError::Handshake(_) => Some(Reason::Malformed),
            AcceptError::Io(_) | AcceptError::NoCertificate | AcceptError::Random => None,
        };
        match reason {
            Some(reason) => self.counters.refused(reason).increment(),
            None => self.counters.handshake_failures.increment(),
        }
        // Whoever is refused comes again every second.
        if logged.borrow_mut().is_due(address.ip(), reason, Instant::now()) {
            tracing::warn!(peer = %address, "no connection with a peer: {error}");
        } else {
            tracing::debug!(peer = %address, "no connection with a peer: {error}");
        }
    }
}

async fn read_hello(stream: &mut PeerStream) -> Result<Hello, AcceptError> {
    let (mut head, mut filled) = ([0; HEAD_BYTES], 0);
    while filled < HEAD_BYTES {
        let read = stream.read(&mut head[filled..]).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        filled += read;
        // At once, rather than when the deadline is over: a client may wait for an answer to very little.
        if !Head::may_begin_with(&head[..filled]) {
            return Err(HandshakeError::NotAPeer.into());
        }
    }
    let head = Head::decode(&head)?;
    let mut body = vec![0; head.body_bytes];
    stream.read_exact(&mut body).await?;
    Ok(Hello::decode(head, &body)?)
}

fn encode_refusal(refused: Refused) -> Vec<u8> {
    let mut bytes = Vec::new();
    Answer::Refused(refused).encode(&mut bytes);
    bytes
}

/// Sends the last bytes of a connection, and lets the other side read them: closing a socket with unread
/// input would take them back. What goes wrong here changes nothing.
async fn say_farewell(mut stream: PeerStream, bytes: Vec<u8>) {
    let farewell = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let (mut unread, mut left) = ([0; 1024], 64);
        while left > 0 && stream.read(&mut unread).await? > 0 {
            left -= 1;
        }
        io::Result::Ok(())
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Who was refused lately and why, so that the log says it once.
#[derive(Default)]
struct Logged(BTreeMap<(IpAddr, Option<Reason>), Instant>);

impl Logged {
    /// Whether this is worth a line.
    fn is_due(&mut self, address: IpAddr, reason: Option<Reason>, now: Instant) -> bool {
        self.0.retain(|_, logged| now.duration_since(*logged) < LOG_INTERVAL);
        if self.0.contains_key(&(address, reason)) || self.0.len() >= LOGGED_MAX {
            return false;
        }
        self.0.insert((address, reason), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use cluster::{ClusterId, NodeId};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::peer::certificates::{CertificateAuthority, ClusterFiles, LIFETIME, NodeKey};
    use crate::peer::dial::{ConnectError, Dialler, Target, connect_to_join};
    use crate::peer::fixtures::{
        CLUSTER, authority, encrypted, files_of, identity, listener, member, now, on_one_thread,
        plain, write_files,
    };
    use crate::peer::handshake::{MAGIC, Purpose};
    use crate::peer::join::{self, JoinAnswer, JoinCertificates, JoinRequest, JoinToken};
    use crate::peer::tls::Tls;

    /// Node 2, listening.
    struct Node {
        address: SocketAddr,
        counters: Arc<PeerCounters>,
        delivered: UnboundedReceiver<PeerConnection>,
    }

    /// Node 2, which admits nobody whose id is 9.
    fn listen(security: &Arc<Security>) -> Node {
        let (listener, address) = listener();
        let (sender, delivered) = unbounded_channel();
        let counters = Arc::new(PeerCounters::default());
        let acceptor = Acceptor {
            identity: identity(2),
            security: Arc::clone(security),
            counters: Arc::clone(&counters),
            admit: Box::new(|hello| match hello.from {
                Some(from) if from.node == NodeId(9) => {
                    Err(Refused::new(Reason::RemovedNode, "node 9 was removed"))
                }
                _ => Ok(()),
            }),
            deliver: Box::new(move |connection| sender.send(connection).unwrap()),
        };
        spawn_local(acceptor.run(TcpListener::from_std(listener).unwrap()));
        Node { address, counters, delivered }
    }

    fn dialler(identity: Identity, security: &Arc<Security>) -> Dialler {
        Dialler::new(identity, Arc::clone(security), Arc::default())
    }

    async fn dial(
        node: &Node,
        identity: Identity,
        security: &Arc<Security>,
    ) -> Result<PeerConnection, ConnectError> {
        let dialler = dialler(identity, security);
        let target = Target::Node(NodeId(2));
        dialler.connect(&node.address.to_string(), Purpose::Forward, target).await
    }

    /// That the node refuses this, and goes on.
    async fn assert_refused(
        node: &Node,
        connect: impl Future<Output = Result<PeerConnection, ConnectError>>,
        reason: Reason,
    ) {
        let before = node.counters.refused(reason).get();
        let Err(ConnectError::RefusedByPeer(refused)) = connect.await else {
            panic!("not refused for {reason:?}")
        };
        assert_eq!(refused.reason, reason, "{refused}");
        assert_eq!(node.counters.refused(reason).get(), before + 1);
    }

    /// What the node answers to these bytes, until it closes the connection.
    async fn answer_to(node: &Node, bytes: &[u8]) -> Vec<u8> {
        let mut client = TcpStream::connect(node.address).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    }

    async fn assert_frames_pass(near: &mut PeerConnection, far: &mut PeerConnection) {
        for (from, to) in [(0, 1), (1, 0)] {
            let ends = [&mut *near, &mut *far];
            ends[from].send(b"hello").await.unwrap();
            assert_eq!(ends[to].receive(FAREWELL).await.unwrap(), "hello");
        }
    }

    #[test]
    fn plain_nodes_on_the_loopback_connect_for_every_purpose() {
        on_one_thread(async {
            let mut node = listen(&plain());
            let dialler = dialler(identity(1), &plain());
            for purpose in [Purpose::Control, Purpose::Data { lane: 7 }, Purpose::Forward] {
                for target in [Target::Anybody, Target::Node(NodeId(2)), Target::Member(member(2))]
                {
                    let address = node.address.to_string();
                    let mut near = dialler.connect(&address, purpose, target).await.unwrap();
                    let mut far = node.delivered.recv().await.unwrap();
                    assert_eq!((near.peer, far.peer), (Some(member(2)), Some(member(1))));
                    assert_eq!(far.purpose, purpose);
                    assert_frames_pass(&mut near, &mut far).await;
                }
            }
        });
    }

    #[test]
    fn nodes_with_certificates_of_one_authority_connect() {
        on_one_thread(async {
            let authority = authority();
            let mut node = listen(&encrypted(&authority, 2));
            let mut near = dial(&node, identity(1), &encrypted(&authority, 1)).await.unwrap();
            let mut far = node.delivered.recv().await.unwrap();
            assert!(matches!(near.stream, PeerStream::Tls(_)));
            assert_frames_pass(&mut near, &mut far).await;
        });
    }

    #[test]
    fn whoever_is_or_means_somebody_else_is_refused_and_told() {
        on_one_thread(async {
            let node = listen(&plain());
            let address = node.address.to_string();
            let foreign = Identity { cluster: ClusterId(5), ..identity(1) };
            assert_refused(&node, dial(&node, foreign, &plain()), Reason::OtherCluster).await;
            assert_refused(&node, dial(&node, identity(9), &plain()), Reason::RemovedNode).await;
            let dialler = dialler(identity(1), &plain());
            let connect = |target| dialler.connect(&address, Purpose::Control, target);
            assert_refused(&node, connect(Target::Node(NodeId(3))), Reason::OtherNode).await;
            let mut earlier = member(2);
            earlier.incarnation.0 -= 1;
            assert_refused(&node, connect(Target::Member(earlier)), Reason::OtherLife).await;
            let twin = self::dialler(identity(2), &plain());
            let connect = twin.connect(&address, Purpose::Control, Target::Anybody);
            assert_refused(&node, connect, Reason::OwnId).await;
            assert!(connect_as_usual(&node).await);
        });
    }

    async fn connect_as_usual(node: &Node) -> bool {
        dial(node, identity(1), &plain()).await.is_ok()
    }

    #[test]
    fn a_node_does_not_connect_to_itself() {
        on_one_thread(async {
            let node = listen(&plain());
            let error = dial(&node, identity(2), &plain()).await.unwrap_err();
            assert!(matches!(error, ConnectError::Itself), "{error}");
        });
    }

    #[test]
    fn a_certificate_of_another_authority_connects_neither_way() {
        on_one_thread(async {
            let node = listen(&encrypted(&authority(), 2));
            let error = dial(&node, identity(1), &encrypted(&authority(), 1)).await.unwrap_err();
            assert!(matches!(error, ConnectError::Io(_)), "{error}");
            // The one that connects may be the one that trusts too much.
            let careless = connect_tls_blindly(node.address).await;
            assert!(careless.is_err(), "accepted");
            assert_eq!(node.counters.accepted.get(), 0);
        });
    }

    /// TLS to `address` with a certificate of an authority that nobody knows, believing anything.
    async fn connect_tls_blindly(address: SocketAddr) -> io::Result<u8> {
        let stranger = authority();
        let (_folder, files) = files_of(&stranger, 1);
        let ours = std::fs::read(files.node()).unwrap();
        let tls = Tls::load(files, now()).unwrap();
        assert!(!ours.is_empty());
        let mut stream = tls.connect(TcpStream::connect(address).await?).await?;
        stream.read_u8().await
    }

    #[test]
    fn the_certificate_of_another_node_or_cluster_is_refused() {
        on_one_thread(async {
            let authority = authority();
            let node = listen(&encrypted(&authority, 2));
            let as_node_3 = encrypted(&authority, 3);
            assert_refused(&node, dial(&node, identity(1), &as_node_3), Reason::Certificate).await;
        });
    }

    #[test]
    fn a_node_that_shows_the_certificate_of_another_is_not_believed() {
        on_one_thread(async {
            let authority = authority();
            // It says that it is node 2.
            let node = listen(&encrypted(&authority, 3));
            let error = dial(&node, identity(1), &encrypted(&authority, 1)).await.unwrap_err();
            assert!(matches!(error, ConnectError::OtherPeer(_)), "{error}");
        });
    }

    #[test]
    fn no_certificate_is_enough_to_ask_to_join_and_for_nothing_else() {
        on_one_thread(async {
            let authority = authority();
            let mut node = listen(&encrypted(&authority, 2));
            let fingerprint = authority.fingerprint();
            let tcp = TcpStream::connect(node.address).await.unwrap();
            let mut stream = tls::connect_to_join(fingerprint, tcp).await.unwrap();
            let hello = Hello {
                cluster: Some(CLUSTER),
                from: Some(member(1)),
                to: None,
                to_incarnation: None,
                nonce: 1,
                purpose: Purpose::Control,
            };
            let mut bytes = Vec::new();
            hello.encode(&mut bytes);
            stream.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(node.counters.refused(Reason::Certificate).get(), 1);
            let token = JoinToken::generate(Some(fingerprint)).unwrap();
            let joined = connect_to_join(&node.address.to_string(), &token, &plain()).await;
            assert_eq!(joined.unwrap().1, identity(2));
            assert_eq!(node.delivered.recv().await.unwrap().purpose, Purpose::Join);
        });
    }

    #[test]
    fn plain_connections_are_not_taken_by_a_node_with_certificates() {
        on_one_thread(async {
            let node = listen(&encrypted(&authority(), 2));
            assert_refused(&node, dial(&node, identity(1), &plain()), Reason::Plaintext).await;
        });
    }

    #[test]
    fn tls_with_a_node_without_certificates_fails_at_once() {
        on_one_thread(async {
            let node = listen(&plain());
            let error = dial(&node, identity(1), &encrypted(&authority(), 1)).await.unwrap_err();
            assert!(matches!(error, ConnectError::Io(_)), "{error}");
        });
    }

    #[test]
    fn an_expired_certificate_is_not_loaded_and_one_that_expires_later_is_refused() {
        on_one_thread(async {
            let authority = authority();
            let (_folder, files) = files_of(&authority, 1);
            let mut long_ago = now();
            long_ago.unix_ms -= 3_600_000;
            write_files(&authority, 1, &files, long_ago, Duration::from_mins(1));
            let error = Tls::load(files.clone(), now()).unwrap_err();
            assert!(error.to_string().contains("xpired"), "{error}");
            // As good as new when it was loaded.
            let tls = Tls::load(files, long_ago).unwrap();
            let expired = Arc::new(Security { tls: Some(tls), plaintext_anywhere: false });
            let node = listen(&encrypted(&authority, 2));
            assert!(dial(&node, identity(1), &expired).await.is_err());
            assert_eq!(node.counters.accepted.get(), 0);
            let expired_node = listen(&expired);
            let error = dial(&expired_node, identity(1), &encrypted(&authority, 1)).await;
            assert!(error.is_err(), "an expired node was believed");
        });
    }

    #[test]
    fn replaced_certificates_hold_for_connections_made_after_a_reload() {
        on_one_thread(async {
            let (old, new) = (authority(), authority());
            let (_folder, files) = files_of(&old, 2);
            let tls = Tls::load(files.clone(), now()).unwrap();
            let security = Arc::new(Security { tls: Some(tls), plaintext_anywhere: false });
            let tls = security.tls.as_ref().unwrap();
            let mut node = listen(&security);
            let mut near = dial(&node, identity(1), &encrypted(&old, 1)).await.unwrap();
            let mut far = node.delivered.recv().await.unwrap();
            assert!(!tls.reload(now()).unwrap(), "nothing was replaced");

            write_files(&new, 2, &files, now(), LIFETIME);
            assert!(tls.reload(now()).unwrap());
            assert_eq!(tls.fingerprint(), new.fingerprint());
            assert!(dial(&node, identity(1), &encrypted(&old, 1)).await.is_err());
            assert!(dial(&node, identity(1), &encrypted(&new, 1)).await.is_ok());
            assert_frames_pass(&mut near, &mut far).await;
        });
    }

    #[test]
    fn files_that_do_not_fit_change_nothing() {
        let authority = authority();
        let (_folder, files) = files_of(&authority, 2);
        let tls = Tls::load(files.clone(), now()).unwrap();
        let before = tls.named();
        write_files(&authority, 3, &files, now(), LIFETIME);
        assert!(tls.reload(now()).unwrap_err().to_string().contains("node 3"));
        std::fs::write(files.node(), "no certificate").unwrap();
        assert!(tls.reload(now()).is_err());
        write_files(&authority, 2, &files, now(), LIFETIME);
        let (_other_folder, other) = files_of(&authority, 2);
        std::fs::copy(other.node_key(), files.node_key()).unwrap();
        let error = tls.reload(now()).unwrap_err();
        assert!(error.to_string().contains("key"), "{error}");
        assert_eq!((tls.named(), tls.fingerprint()), (before, authority.fingerprint()));
    }

    #[test]
    fn plain_is_for_both_ends_on_the_loopback_or_by_explicit_wish() {
        let [inside, inside_mapped, outside]: [SocketAddr; 3] =
            ["127.0.0.1:1", "[::ffff:127.0.0.1]:1", "192.0.2.1:1"]
                .map(|text| text.parse().unwrap());
        let plain = plain();
        assert!(plain.allows_plaintext(inside, inside_mapped));
        assert!(!plain.allows_plaintext(inside, outside));
        assert!(!plain.allows_plaintext(outside, inside));
        let anywhere = Security { tls: None, plaintext_anywhere: true };
        assert!(anywhere.allows_plaintext(outside, outside));
        assert!(!encrypted(&authority(), 1).allows_plaintext(inside, inside));
    }

    #[test]
    fn clients_of_other_protocols_are_told_at_once() {
        on_one_thread(async {
            let node = listen(&plain());
            let began = Instant::now();
            for request in [&b"get a\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", &[0x80; 24], &[0]] {
                assert_eq!(answer_to(&node, request).await, NOT_FOR_CLIENTS);
            }
            assert!(began.elapsed() < HANDSHAKE_DEADLINE);
            assert_eq!(node.counters.handshake_failures.get(), 4);
            assert!(connect_as_usual(&node).await);
        });
    }

    #[test]
    fn handshakes_that_are_malformed_too_long_or_cut_short_are_refused() {
        on_one_thread(async {
            let node = listen(&plain());
            let mut other_version = Vec::new();
            other_version.extend_from_slice(&MAGIC);
            other_version.extend_from_slice(&[2, 0, 0, 0]);
            let checksum = crc32c::crc32c(&[2, 0, 0, 0]);
            other_version.extend_from_slice(&checksum.to_le_bytes());
            let mut too_long = other_version.clone();
            too_long[10..12].copy_from_slice(&[0xff, 0xff]);
            let mut damaged = other_version.clone();
            damaged[12] ^= 1;
            for (bytes, reason) in [
                (&other_version, Reason::OtherProtocol),
                (&too_long, Reason::Malformed),
                (&damaged, Reason::Malformed),
            ] {
                let answer = answer_to(&node, bytes).await;
                let (head, body) = answer.split_first_chunk().unwrap();
                let answer = Answer::decode(Head::decode(head).unwrap(), body).unwrap();
                let Answer::Refused(refused) = answer else { panic!("welcome") };
                assert_eq!(refused.reason, reason, "{refused}");
            }
            let cut_short = other_version[..HEAD_BYTES - 1].to_vec();
            let mut client = TcpStream::connect(node.address).await.unwrap();
            client.write_all(&cut_short).await.unwrap();
            let began = Instant::now();
            let closed = client.read_u8().await;
            assert!(closed.is_err(), "the deadline ends it");
            assert!(began.elapsed() >= HANDSHAKE_DEADLINE - FAREWELL);
            assert!(connect_as_usual(&node).await);
        });
    }

    #[test]
    fn a_handshake_recorded_elsewhere_brings_no_frame() {
        on_one_thread(async {
            let mut node = listen(&plain());
            let hello = Hello {
                cluster: Some(CLUSTER),
                from: Some(member(1)),
                to: None,
                to_incarnation: None,
                nonce: 1,
                purpose: Purpose::Forward,
            };
            let mut recorded = Vec::new();
            hello.encode(&mut recorded);
            let mut first = TcpStream::connect(node.address).await.unwrap();
            first.write_all(&recorded).await.unwrap();
            let mut answer = [0; 45];
            first.read_exact(&mut answer).await.unwrap();
            let (head, body) = answer.split_first_chunk().unwrap();
            let answer = Answer::decode(Head::decode(head).unwrap(), body).unwrap();
            let Answer::Welcome(welcome) = answer else { panic!("refused") };
            let mut encoder = FrameEncoder::new(Salts::new(&hello, &welcome).forth, 1024);
            let mut frame = Vec::new();
            encoder.encode(b"a write", &mut frame).unwrap();
            first.write_all(&frame).await.unwrap();
            let mut far = node.delivered.recv().await.unwrap();
            assert_eq!(far.receive(FAREWELL).await.unwrap(), "a write");

            let mut second = TcpStream::connect(node.address).await.unwrap();
            second.write_all(&recorded).await.unwrap();
            second.write_all(&frame).await.unwrap();
            let mut far = node.delivered.recv().await.unwrap();
            let error = far.receive(FAREWELL).await.unwrap_err();
            assert!(error.is_peers_fault(), "{error}");
        });
    }

    #[test]
    fn a_stream_moves_to_the_runtime_of_another_thread() {
        on_one_thread(async {
            let authority = authority();
            for (here, there) in
                [(plain(), plain()), (encrypted(&authority, 1), encrypted(&authority, 2))]
            {
                let mut node = listen(&there);
                let mut near = dial(&node, identity(1), &here).await.unwrap();
                let mut far = node.delivered.recv().await.unwrap();
                let worker = std::thread::spawn(move || {
                    on_one_thread(async move {
                        far.stream.move_to_this_runtime().unwrap();
                        let heard = far.receive(HANDSHAKE_DEADLINE).await.unwrap();
                        far.send(&heard).await.unwrap();
                    });
                });
                near.send(b"echo").await.unwrap();
                assert_eq!(near.receive(HANDSHAKE_DEADLINE).await.unwrap(), "echo");
                worker.join().unwrap();
            }
        });
    }

    /// Answers one process that wants to join, as the node that holds the authority's key would.
    async fn admit_one(node: &mut Node, authority: Option<&CertificateAuthority>, hash: [u8; 32]) {
        let mut connection = node.delivered.recv().await.unwrap();
        let request = join::hear(&mut connection).await.unwrap();
        let admitted = |certificates| JoinAnswer::Admitted {
            cluster: CLUSTER,
            node: NodeId(7),
            certificates,
            details: request.details.clone(),
        };
        let answer = if request.secret.hash() == hash {
            admitted(authority.map(|authority| JoinCertificates {
                authority_pem: authority.pem().to_owned(),
                node_pem:
                    authority.issue(NodeId(7), &request.public_key(), now(), LIFETIME).unwrap(),
            }))
        } else {
            JoinAnswer::Refused("the token was used, or never given out".to_owned())
        };
        join::answer(&mut connection, &answer).await.unwrap();
    }

    async fn join_with(address: SocketAddr, token: &JoinToken, key: &NodeKey) -> JoinAnswer {
        let (mut connection, _) =
            connect_to_join(&address.to_string(), token, &plain()).await.unwrap();
        let public_key = key.public_key().0;
        let request = JoinRequest { secret: token.secret(), public_key, details: b"zone".to_vec() };
        join::ask(&mut connection, &request).await.unwrap()
    }

    #[test]
    fn a_process_with_a_token_becomes_a_node_that_others_believe() {
        on_one_thread(async {
            let authority = authority();
            let mut node = listen(&encrypted(&authority, 2));
            let token = JoinToken::generate(Some(authority.fingerprint())).unwrap();
            let key = NodeKey::generate().unwrap();
            let (address, hash) = (node.address, token.hash());
            let (answer, ()) = tokio::join!(
                join_with(address, &token, &key),
                admit_one(&mut node, Some(&authority), hash)
            );
            let JoinAnswer::Admitted { certificates: Some(certificates), details, .. } = answer
            else {
                panic!("not admitted: {answer:?}")
            };
            assert_eq!(details, b"zone");
            let folder = tempfile::tempdir().unwrap();
            let files = ClusterFiles::new(folder.path());
            files.save_node(&certificates.authority_pem, &certificates.node_pem, &key).unwrap();
            let tls = Tls::load(files, now()).unwrap();
            let joined = Arc::new(Security { tls: Some(tls), plaintext_anywhere: false });
            assert!(dial(&node, identity(7), &joined).await.is_ok());
        });
    }

    #[test]
    fn a_wrong_token_admits_nobody() {
        on_one_thread(async {
            let mut node = listen(&plain());
            let [given_out, made_up] = [(); 2].map(|()| JoinToken::generate(None).unwrap());
            let key = NodeKey::generate().unwrap();
            let address = node.address;
            let (answer, ()) = tokio::join!(
                join_with(address, &made_up, &key),
                admit_one(&mut node, None, given_out.hash())
            );
            assert!(matches!(answer, JoinAnswer::Refused(_)), "{answer:?}");
        });
    }

    #[test]
    fn a_token_vouches_for_one_authority_and_is_shown_to_no_other() {
        on_one_thread(async {
            let node = listen(&encrypted(&authority(), 2));
            let token = JoinToken::generate(Some(authority().fingerprint())).unwrap();
            let error = connect_to_join(&node.address.to_string(), &token, &plain()).await;
            assert!(matches!(error, Err(ConnectError::Io(_))));
            let node = listen(&plain());
            let error = connect_to_join(&node.address.to_string(), &token, &plain()).await;
            assert!(error.is_err(), "shown on a plain connection");
        });
    }

    #[test]
    fn a_joiner_whose_request_makes_no_sense_is_dropped() {
        on_one_thread(async {
            let mut node = listen(&plain());
            let token = JoinToken::generate(None).unwrap();
            let address = node.address.to_string();
            let (mut near, _) = connect_to_join(&address, &token, &plain()).await.unwrap();
            let mut far = node.delivered.recv().await.unwrap();
            near.send(&[0xff; 100]).await.unwrap();
            assert!(join::hear(&mut far).await.unwrap_err().is_peers_fault());
            assert!(connect_as_usual(&node).await);
        });
    }
}
