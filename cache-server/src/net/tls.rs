//! The same under TLS: a state machine between a client's socket and its connection.
//!
//! ```text
//!          take_in                                   appended to
//! socket ──────────> | Session: handshake, records | ────────────> Connection's input
//!        <────────── |        rustls's buffers     | <──────────── Connection's output
//!          put_out                                     give
//! ```
//!
//! [`Session`] knows no socket; [`TlsStream`] moves its bytes. Neither leaves anything behind that the
//! connection could have had: what was decrypted is handed over at once, and a write counts as done
//! when its last encrypted byte is with the kernel. So a client that does not read is noticed as it is
//! without TLS.
//!
//! What rustls keeps between turns is bounded. Half a record or half a message of a handshake is at
//! most 64 KiB, an answer on its way one output buffer (`ssl_wbuf_size`). Both are leased from the
//! gauge once they are more than a trifle, so many clients that each send half a record run into the
//! same bound as many that send half a value. A handshake has a limit of its own in time, whoever
//! drags it out.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::config::Protection;
use crate::net::Network;
use crate::net::buffers::Lease;
use crate::net::counters::Counters;
use crate::tls::Certificates;

/// What one read of the socket takes at most.
const WIRE_BYTES_MAX: usize = 64 << 10;

/// What one read takes even if the connection expects less: records do not end where values do.
const WIRE_BYTES_MIN: usize = 4 << 10;

/// What rustls keeps of messages that are not complete, at most.
const INCOMPLETE_BYTES_MAX: usize = 64 << 10;

/// Up to here what a session keeps counts as part of the connection itself, not of its buffers.
const TRIFLE_BYTES: usize = 4 << 10;

/// What the encryption of one output buffer adds at most: 22 bytes a record of 16 KiB, and tickets.
const OVERHEAD_BYTES: usize = 2 << 10;

/// One client's TLS, without its socket.
pub(crate) struct Session {
    tls: ServerConnection,
    /// Bytes taken in since plain ones last came of it: no more than that is incomplete.
    silent_bytes: usize,
    /// rustls's buffer for input has grown.
    is_swollen: bool,
    /// What the client did wrong: nothing that it sends counts any more.
    failure: Option<rustls::Error>,
    /// What is encrypted at a time, in bytes.
    output_bytes: usize,
    has_ended: bool,
}

impl Session {
    /// A client that has said nothing yet.
    ///
    /// # Errors
    ///
    /// When the operating system has no randomness to give.
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        output_bytes: usize,
    ) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        // Bounded by `output_bytes`: nothing is given before the last of it has left.
        tls.set_buffer_limit(None);
        Ok(Self {
            tls,
            silent_bytes: 0,
            is_swollen: false,
            failure: None,
            output_bytes,
            has_ended: false,
        })
    }

    /// Takes in what came from the client, and appends to `plain` what it says.
    pub(crate) fn take_in(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) {
        while !wire.is_empty() && self.failure.is_none() {
            // In pieces: what is left of the last one is then a trifle.
            let mut piece = &wire[..wire.len().min(TRIFLE_BYTES)];
            let before = piece.len();
            match self.tls.read_tls(&mut piece) {
                // After the client's last word.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    self.failure = Some(rustls::Error::General(error.to_string()));
                    break;
                }
            }
            match self.tls.process_new_packets() {
                Ok(state) => self.has_ended = state.peer_has_closed(),
                Err(error) => self.failure = Some(error),
            }
            let taken = before - piece.len();
            wire = &wire[taken..];
            let said = self.hand_over(plain);
            self.silent_bytes = if said { taken } else { self.silent_bytes.saturating_add(taken) };
            self.is_swollen |= self.silent_bytes > TRIFLE_BYTES;
        }
    }

    /// Appends everything that is decrypted to `plain`; says whether that was anything.
    fn hand_over(&mut self, plain: &mut Vec<u8>) -> bool {
        let before = plain.len();
        let mut reader = self.tls.reader();
        // An error means that there is nothing now.
        while let Ok(chunk) = reader.fill_buf()
            && !chunk.is_empty()
        {
            let count = chunk.len();
            // A value's buffer is as large as the value: doubling it for a few bytes more is too much.
            if plain.capacity() - plain.len() < count {
                plain.reserve_exact(count);
            }
            plain.extend_from_slice(chunk);
            reader.consume(count);
        }
        plain.len() > before
    }

    /// Encrypts the beginning of `plain`; says how much. To be called again once that is put out.
    pub(crate) fn give(&mut self, plain: &[u8]) -> io::Result<usize> {
        let count = plain.len().min(self.output_bytes);
        self.tls.writer().write(&plain[..count])
    }

    /// Whether there is anything for the client.
    pub(crate) fn has_output(&self) -> bool {
        self.tls.wants_write()
    }

    /// Writes to `wire` what there is for the client, as much as it takes.
    pub(crate) fn put_out(&mut self, wire: &mut dyn Write) -> io::Result<()> {
        while self.has_output() {
            if self.tls.write_tls(wire)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Says goodbye: appends the alert that tells the client that nothing was cut off.
    pub(crate) fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
    }

    /// Whether no request can be made yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the client went on with an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the client has said goodbye.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What the client did wrong, if it did.
    pub(crate) fn failure(&self) -> Option<&rustls::Error> {
        self.failure.as_ref()
    }

    /// What the session keeps at most, in bytes, beyond what each takes anyway.
    pub(crate) fn kept_bytes(&self) -> usize {
        let incomplete = match self.silent_bytes {
            trifle if trifle <= TRIFLE_BYTES => 0,
            silent => silent.min(INCOMPLETE_BYTES_MAX),
        };
        let output = if self.has_output() { self.output_bytes + OVERHEAD_BYTES } else { 0 };
        incomplete + output
    }

    /// Gives back what rustls's buffer for input has grown by, when nothing is in it.
    pub(crate) fn shrink(&mut self) {
        if std::mem::take(&mut self.is_swollen) {
            // Before it reads rustls makes its buffer as large as it needs to be; nothing is read.
            let _ = self.tls.read_tls(&mut Nothing);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("tls", &self.tls)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// A source that has nothing now, and has not ended either.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// What the sessions of one worker share.
#[derive(Debug)]
pub(crate) struct TlsWorker {
    network: Arc<Network>,
    index: usize,
    certificates: Arc<Certificates>,
    /// What is read from a socket, between the read and its decryption.
    wire: RefCell<Vec<u8>>,
    output_bytes: usize,
    counts_sessions: bool,
    handshake_timeout: Duration,
}

impl TlsWorker {
    /// For worker `index` of `network`, which shows `certificates`.
    pub(crate) fn new(
        network: Arc<Network>,
        index: usize,
        certificates: Arc<Certificates>,
        handshake_timeout: Duration,
    ) -> Self {
        let config = certificates.config();
        Self {
            network,
            index,
            output_bytes: config.output_bytes,
            counts_sessions: config.resumes_sessions,
            certificates,
            wire: RefCell::new(vec![0; WIRE_BYTES_MAX]),
            handshake_timeout,
        }
    }

    fn counters(&self) -> &Counters {
        &self.network.worker(self.index).counters
    }
}

/// A socket under TLS.
#[derive(Debug)]
pub(crate) struct TlsStream<T> {
    socket: T,
    session: Box<Session>,
    worker: Rc<TlsWorker>,
    lease: Lease,
    /// When the handshake is over, done or not; `None` when it is done.
    handshake: Option<Pin<Box<Sleep>>>,
    /// Plain bytes that are encrypted and not all with the kernel.
    encrypted_bytes: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// Begins a handshake with the client behind `socket`, which came in by an address protected as
    /// `protection`, and not a plain one.
    ///
    /// # Errors
    ///
    /// As [`Session::new`]: for this client alone.
    pub(crate) fn new(
        socket: T,
        protection: Protection,
        worker: Rc<TlsWorker>,
    ) -> io::Result<Self> {
        let lost = |_| io::Error::from(io::ErrorKind::ConnectionAborted);
        let config = worker.certificates.server_config(protection);
        let config = config.ok_or(io::ErrorKind::ConnectionAborted)?;
        let session = Session::new(config, worker.output_bytes).map_err(lost)?;
        let session = Box::new(session);
        let lease = Lease::new(worker.network.share_buffers());
        let handshake = Some(Box::pin(sleep(worker.handshake_timeout)));
        Ok(Self { socket, session, worker, lease, handshake, encrypted_bytes: 0 })
    }

    /// What is under it.
    pub(crate) fn socket(&self) -> &T {
        &self.socket
    }

    /// The same, to be used.
    pub(crate) fn socket_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// Appends to `plain` what the client says, and tells how much that is; 0 when it has ended.
    pub(crate) fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        plain: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        let before = plain.len();
        loop {
            // Messages of the handshake, tickets, alerts. A client that does not take them may still
            // have something to say.
            if let Poll::Ready(Err(error)) = self.poll_put_out(context) {
                return Poll::Ready(Err(error));
            }
            if let Some(failure) = self.session.failure() {
                return Poll::Ready(Err(self.count_failure(failure)));
            }
            if self.session.has_ended() {
                return Poll::Ready(Ok(0));
            }
            if let Some(timeout) = &mut self.handshake
                && timeout.as_mut().poll(context).is_ready()
            {
                self.worker.counters().ssl_handshake_errors.add(1);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let worker = Rc::clone(&self.worker);
            let mut wire = worker.wire.borrow_mut();
            let wanted = plain.capacity() - plain.len();
            let mut read = ReadBuf::new(&mut wire[..wanted.clamp(WIRE_BYTES_MIN, WIRE_BYTES_MAX)]);
            match Pin::new(&mut self.socket).poll_read(context, &mut read) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    self.session.shrink();
                    self.lease_kept()?;
                    return Poll::Pending;
                }
            }
            if read.filled().is_empty() {
                return Poll::Ready(Ok(0));
            }
            self.session.take_in(read.filled(), plain);
            self.note_established();
            if plain.len() > before {
                return Poll::Ready(Ok(plain.len() - before));
            }
        }
    }

    /// Sends the beginning of `plain`, and tells how much of it is with the kernel.
    ///
    /// Until then what was begun with must be handed in again, at the start of whatever is handed in.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut sent = 0;
        loop {
            if self.encrypted_bytes == 0 {
                if sent == plain.len() {
                    return Poll::Ready(Ok(sent));
                }
                self.encrypted_bytes = self.session.give(&plain[sent..])?;
            }
            debug_assert!(self.encrypted_bytes <= plain.len() - sent, "handed in again");
            match self.poll_put_out(context) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => {
                    self.lease_kept()?;
                    return if sent > 0 { Poll::Ready(Ok(sent)) } else { Poll::Pending };
                }
            }
            sent += std::mem::take(&mut self.encrypted_bytes);
        }
    }

    /// Says goodbye, if that is possible at once.
    pub(crate) fn part(&mut self) {
        self.session.say_goodbye();
        // Whether it arrives or not, the connection is over.
        let _ = self.poll_put_out(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_put_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.session.has_output() {
            return Poll::Ready(Ok(()));
        }
        let mut wire = Wire { socket: &mut self.socket, context };
        match self.session.put_out(&mut wire) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }

    /// Leases what the session keeps while the client is waited for.
    fn lease_kept(&mut self) -> io::Result<()> {
        let kept_bytes = self.session.kept_bytes();
        if kept_bytes == self.lease.bytes() || self.lease.resize(kept_bytes) {
            Ok(())
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    fn note_established(&mut self) {
        if self.handshake.is_none() || self.session.is_handshaking() {
            return;
        }
        self.handshake = None;
        if self.worker.counts_sessions && !self.session.is_resumed() {
            self.worker.counters().ssl_new_sessions.add(1);
        }
    }

    fn count_failure(&self, failure: &rustls::Error) -> io::Error {
        let counters = self.worker.counters();
        if self.handshake.is_some() {
            counters.ssl_handshake_errors.add(1);
        } else {
            counters.ssl_proto_errors.add(1);
        }
        tracing::debug!("a client's TLS is wrong: {failure}");
        io::Error::new(io::ErrorKind::InvalidData, failure.clone())
    }
}

impl<T: AsRawFd> AsRawFd for TlsStream<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A socket as rustls writes to it: what cannot be written at once would block.
struct Wire<'a, 'c, T> {
    socket: &'a mut T,
    context: &'a mut Context<'c>,
}

impl<T: AsyncWrite + Unpin> Wire<'_, '_, T> {
    fn at_once(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
        match poll {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<T: AsyncWrite + Unpin> Write for Wire<'_, '_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::at_once(Pin::new(&mut *self.socket).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Self::at_once(Pin::new(&mut *self.socket).poll_write_vectored(self.context, pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection};
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::clock::Now;
    use crate::config::TlsConfig;
    use crate::tls::tests::Office;

    /// A client and the server's session, without anything between them.
    struct Pair {
        client: ClientConnection,
        session: Session,
        said: Vec<u8>,
    }

    impl Pair {
        fn new(config: impl FnOnce(TlsConfig) -> TlsConfig) -> Self {
            let office = Office::new();
            let now = Now { unix_ms: 0 };
            let certificates = Certificates::load(config(office.config()), now).unwrap();
            let output_bytes = certificates.config().output_bytes;
            let server = certificates.server_config(Protection::Usual).unwrap();
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let client = ClientConfig::builder_with_provider(ring)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(office.roots())
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            Self {
                client: ClientConnection::new(Arc::new(client), name).unwrap(),
                session: Session::new(server, output_bytes).unwrap(),
                said: Vec::new(),
            }
        }

        fn established() -> Self {
            let mut pair = Self::new(|config| config);
            while pair.session.is_handshaking() || pair.client.is_handshaking() {
                pair.exchange();
            }
            pair.session.silent_bytes = 0;
            pair
        }

        /// Everything that the client has for the server.
        fn out_of_client(&mut self) -> Vec<u8> {
            let mut wire = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut wire).unwrap();
            }
            wire
        }

        fn exchange(&mut self) {
            let wire = self.out_of_client();
            self.session.take_in(&wire, &mut self.said);
            let mut wire = Vec::new();
            self.session.put_out(&mut wire).unwrap();
            let mut wire = &wire[..];
            while !wire.is_empty() {
                self.client.read_tls(&mut wire).unwrap();
                self.client.process_new_packets().unwrap();
            }
        }

        fn say(&mut self, plain: &[u8]) -> Vec<u8> {
            self.client.writer().write_all(plain).unwrap();
            self.out_of_client()
        }
    }

    #[test]
    fn what_is_said_does_not_depend_on_where_the_bytes_are_split() {
        let mut pair = Pair::established();
        let wire = pair.say(b"get a\r\n");
        for byte in &wire[..wire.len() - 1] {
            pair.session.take_in(std::slice::from_ref(byte), &mut pair.said);
            assert_eq!(pair.said, b"");
        }
        pair.session.take_in(&wire[wire.len() - 1..], &mut pair.said);
        assert_eq!(pair.said, b"get a\r\n");
    }

    #[test]
    fn large_input_comes_out_whole_and_its_buffer_is_given_back() {
        let mut pair = Pair::established();
        let mut said = Vec::new();
        for _ in 0..8 {
            let wire = pair.say(&[b'x'; 60_000]);
            pair.session.take_in(&wire, &mut said);
        }
        assert_eq!(said.len(), 8 * 60_000);
        pair.session.shrink();
        assert_eq!(pair.session.kept_bytes(), 0);
    }

    #[test]
    fn half_a_record_is_counted() {
        let mut pair = Pair::established();
        let wire = pair.say(&[b'x'; 16_000]);
        pair.session.take_in(&wire[..12_000], &mut pair.said);
        assert_eq!((pair.said.len(), pair.session.kept_bytes()), (0, 12_000));
        pair.session.take_in(&wire[12_000..], &mut pair.said);
        assert_eq!((pair.said.len(), pair.session.kept_bytes()), (16_000, 0));
    }

    #[test]
    fn answer_is_encrypted_one_output_buffer_at_a_time() {
        let mut pair = Pair::established();
        let given = pair.session.give(&[b'y'; 100_000]).unwrap();
        assert_eq!(given, crate::config::TLS_OUTPUT_BYTES_DEFAULT);
        let mut wire = Vec::new();
        assert!(pair.session.kept_bytes() >= given);
        pair.session.put_out(&mut wire).unwrap();
        assert!(wire.len() > given && wire.len() <= given + OVERHEAD_BYTES);
        assert_eq!(pair.session.kept_bytes(), 0);
    }

    #[test]
    fn what_came_before_a_wrong_record_is_heard() {
        let mut pair = Pair::established();
        let mut wire = pair.say(b"set k 0 0 1\r\nv\r\n");
        wire.extend_from_slice(b"\x17\x03\x03\x00\x20 and this is not what a record is like");
        pair.session.take_in(&wire, &mut pair.said);
        assert_eq!(pair.said, b"set k 0 0 1\r\nv\r\n");
        assert!(pair.session.failure().is_some());
        assert!(pair.session.has_output(), "the client is told what is wrong");
    }

    #[test]
    fn plain_requests_are_no_handshake() {
        let mut pair = Pair::new(|config| config);
        pair.session.take_in(b"version\r\n", &mut pair.said);
        assert!(pair.session.failure().is_some());
        assert!(pair.session.is_handshaking());
    }

    #[test]
    fn goodbye_of_the_client_ends_its_input() {
        let mut pair = Pair::established();
        let mut wire = pair.say(b"mn\r\n");
        pair.client.send_close_notify();
        wire.extend(pair.out_of_client());
        wire.extend_from_slice(b"and whatever follows");
        pair.session.take_in(&wire, &mut pair.said);
        assert_eq!(pair.said, b"mn\r\n");
        assert!(pair.session.has_ended() && pair.session.failure().is_none());
    }

    #[test]
    fn handshake_without_end_is_refused_before_it_takes_memory() {
        let mut pair = Pair::new(|config| config);
        // A message of a handshake that announces 16 MiB, and records that go on and on with it.
        let mut record = vec![22, 3, 3, 0x40, 0];
        record.resize(5 + 0x4000, 0);
        record[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        let mut taken = 0;
        while pair.session.failure().is_none() {
            pair.session.take_in(&record, &mut pair.said);
            taken += record.len();
            assert!(taken <= 2 * INCOMPLETE_BYTES_MAX, "it is refused");
        }
    }
}
