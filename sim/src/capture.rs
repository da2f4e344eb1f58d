//! `cache-sim capture`: what a running memcached is asked for, into a log that the rest of `cache-sim` reads.
//!
//! ```text
//! memcached ──`watch fetchers mutations deletions evictions`──▶ whole lines ──▶ blocks ──▶ FILE
//!             lines, and skipped=N where it was faster           each a zstd frame of its own
//! ```
//!
//! - The lines are kept as they come ([`crate::trace`]'s `memcached-watch`), so nothing is lost that the
//!   server said, and what it says it lost stands among them.
//! - A frame is written whole, every second or every megabyte: whatever ends the recording, a signal, a full
//!   disk, a server that is gone or a `kill -9`, what was written until then can be read.
//! - A server writes for a watcher what it has time for, and skips the rest. That slows no client down.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use socket2::{SockRef, TcpKeepalive};

/// The streams that are asked for. Versions that tell of no deletions, 1.6.18 among them, take the second.
const WATCHES: [&[u8]; 2] = [
    b"watch fetchers mutations deletions evictions\r\n",
    b"watch fetchers mutations evictions\r\n",
];

/// The port of an address that names none.
const PORT_DEFAULT: u16 = 11211;

/// How long a server may take to let itself be reached, and to agree to be watched.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits, before it is looked whether the recording is to end.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// When a connection that nothing comes from is asked for a sign of life, and again.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Bytes of lines that make a block, and the time after which a smaller one is written.
const BLOCK_BYTES: usize = 1 << 20;
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// The longest line: a key has 250 bytes, each encoded as three.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Beyond this speed little is gained, and a recorder must keep up.
const COMPRESSION_LEVEL: i32 = 3;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The server: HOST:PORT, HOST, or the path of its UNIX socket, which has a slash in it.
    pub server: String,
    /// Where to. It must not exist.
    pub output: PathBuf,
    /// How long, at most.
    pub time_max: Option<Duration>,
    /// How many requests, at most.
    pub requests_max: Option<u64>,
}

/// What was recorded by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Gets, writes and deletes; the lookup that a write begins with is one more.
    pub requests: u64,
    /// Lines, among them evictions.
    pub lines: u64,
    /// Lines that the server says it left out, because they were more than it could send.
    pub skipped: u64,
    /// Bytes of the file.
    pub packed_bytes: u64,
    /// How long it took.
    pub time: Duration,
}

/// Why a recording ended that was begun. What was recorded is in the file in any case.
#[derive(Debug)]
pub enum End {
    /// After the time it was to take.
    Time,
    /// After as many requests as wanted.
    Requests,
    /// Somebody wanted it to.
    Stopped,
    /// The server closed the connection.
    Closed,
    /// The connection failed.
    Failed(io::Error),
    /// The file could not be written further. It ends with the last block that could.
    Full(io::Error),
}

/// Why nothing was recorded. There is no file then.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// What is there is not written over.
    #[error("{} is there already, and is left as it is", .0.display())]
    Exists(PathBuf),
    /// There can be no such file.
    #[error("cannot write {}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody can be reached.
    #[error("cannot connect to {server}")]
    Connect {
        /// The address.
        server: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not answer, or not in time.
    #[error("{server} does not say whether it may be watched")]
    Silent {
        /// The address.
        server: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It cannot be watched.
    #[error("{server} has no `watch`: it is no memcached, or one before 1.4.26")]
    NoWatch {
        /// The address.
        server: String,
    },
    /// It does not let itself be watched.
    #[error("{server} refuses to be watched: {line}")]
    Refused {
        /// The address.
        server: String,
        /// Its words.
        line: String,
    },
}

impl Capture {
    /// Records until it is to end, or cannot go on; `stop` set ends it in order. `advance` hears how far
    /// it is, some times a second.
    ///
    /// # Errors
    ///
    /// When nothing could be recorded at all.
    pub fn run(
        &self,
        stop: &AtomicBool,
        mut advance: impl FnMut(&Recorded),
    ) -> Result<(Recorded, End), CaptureError> {
        let file = create(&self.output)?;
        let watched = self.watch();
        let (stream, first) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // It is empty, and was not there before.
                let _ = std::fs::remove_file(&self.output);
                return Err(error);
            }
        };
        let begun = now();
        let mut log = Log::new(file, self.requests_max, begun);
        let end = self.record(stream, first, &mut log, begun, stop, &mut advance);
        let end = match log.end_block() {
            Ok(()) => end,
            Err(error) => End::Full(error),
        };
        let recorded = Recorded { time: begun.elapsed(), ..log.recorded };
        Ok((recorded, end))
    }

    /// Takes what the server says, the first of it being `pending`, into `log`.
    fn record(
        &self,
        mut stream: Box<dyn Stream>,
        mut pending: Vec<u8>,
        log: &mut Log<File>,
        begun: Instant,
        stop: &AtomicBool,
        advance: &mut impl FnMut(&Recorded),
    ) -> End {
        let mut buffer = vec![0; 256 << 10];
        loop {
            match log.take(&mut pending) {
                Ok(Progress::More) => {}
                Ok(Progress::Enough) => return End::Requests,
                Err(error) => return End::Full(error),
            }
            advance(&Recorded { time: begun.elapsed(), ..log.recorded });
            if stop.load(Ordering::Relaxed) {
                return End::Stopped;
            }
            if self.time_max.is_some_and(|time_max| begun.elapsed() >= time_max) {
                return End::Time;
            }
            match stream.read(&mut buffer) {
                Ok(0) => return End::Closed,
                Ok(count) => pending.extend_from_slice(&buffer[..count]),
                Err(error) if is_only_late(&error) => {}
                Err(error) => return End::Failed(error),
            }
        }
    }

    /// Connects, and has the server agree to be watched. Returns what it said after that already.
    fn watch(&self) -> Result<(Box<dyn Stream>, Vec<u8>), CaptureError> {
        let server = || self.server.clone();
        let mut stream = connect(&self.server)
            .map_err(|source| CaptureError::Connect { server: server(), source })?;
        for request in WATCHES {
            let answered = answer(&mut *stream, request);
            let (line, rest) =
                answered.map_err(|source| CaptureError::Silent { server: server(), source })?;
            match line.as_str() {
                "OK" => {
                    stream
                        .set_timeout(READ_TIMEOUT)
                        .map_err(|source| CaptureError::Connect { server: server(), source })?;
                    return Ok((stream, rest));
                }
                "ERROR" => {}
                _ => return Err(CaptureError::Refused { server: server(), line }),
            }
        }
        Err(CaptureError::NoWatch { server: server() })
    }
}

/// Whether more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Enough,
}

/// Lines on their way to a file.
struct Log<W> {
    out: W,
    /// Whole lines that are not written yet.
    block: Vec<u8>,
    begun: Instant,
    requests_max: Option<u64>,
    recorded: Recorded,
}

impl<W: Write + Shorten> Log<W> {
    fn new(out: W, requests_max: Option<u64>, now: Instant) -> Self {
        let recorded = Recorded::default();
        Self { out, block: Vec::new(), begun: now, requests_max, recorded }
    }

    /// Takes whole lines out of `pending`, and writes a block where it is time to.
    fn take(&mut self, pending: &mut Vec<u8>) -> io::Result<Progress> {
        let mut done = 0;
        let mut progress = Progress::More;
        for end in memchr::memchr_iter(b'\n', pending) {
            if self.requests_max.is_some_and(|max| self.recorded.requests >= max) {
                break;
            }
            let line = &pending[done..=end];
            self.count(line);
            self.block.extend_from_slice(line);
            done = end + 1;
        }
        if self.requests_max.is_some_and(|max| self.recorded.requests >= max) {
            progress = Progress::Enough;
        }
        pending.drain(..done);
        if pending.len() > LINE_BYTES_MAX {
            // Nothing that memcached says is so long. It is told as the malformed record that it is.
            self.block.append(pending);
            self.block.push(b'\n');
        }
        if self.block.len() >= BLOCK_BYTES || self.begun.elapsed() >= BLOCK_TIME {
            self.end_block()?;
        }
        Ok(progress)
    }

    fn count(&mut self, line: &[u8]) {
        self.recorded.lines += 1;
        if let Some(count) = line.strip_prefix(b"skipped=") {
            let count = std::str::from_utf8(count.trim_ascii()).ok();
            self.recorded.skipped += count.and_then(|it| it.parse().ok()).unwrap_or(0);
        } else if [&b" type=item_get "[..], b" type=item_store ", b" type=deleted "]
            .iter()
            .any(|kind| memmem::find(line, kind).is_some())
        {
            self.recorded.requests += 1;
        }
    }

    /// Writes what is there as a frame. What of it could not be written is taken back.
    fn end_block(&mut self) -> io::Result<()> {
        self.begun = now();
        if self.block.is_empty() {
            return Ok(());
        }
        let frame = zstd::bulk::compress(&self.block, COMPRESSION_LEVEL)?;
        self.block.clear();
        let written = self.out.write_all(&frame).and_then(|()| self.out.flush());
        if written.is_err() {
            // Should that fail too, the reader says where the file breaks off.
            let _ = self.out.shorten(self.recorded.packed_bytes);
            return written;
        }
        self.recorded.packed_bytes += frame.len() as u64;
        Ok(())
    }
}

/// What can be cut off.
trait Shorten {
    fn shorten(&mut self, bytes: u64) -> io::Result<()>;
}

impl Shorten for File {
    fn shorten(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Bytes in both directions.
trait Stream: Read + Write {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

impl Stream for UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

/// Creates the file, unless there is one.
fn create(path: &Path) -> Result<File, CaptureError> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(|source| {
        match source.kind() {
            io::ErrorKind::AlreadyExists => CaptureError::Exists(path.to_owned()),
            _ => CaptureError::Create { path: path.to_owned(), source },
        }
    })
}

fn connect(server: &str) -> io::Result<Box<dyn Stream>> {
    if server.contains('/') {
        let stream = UnixStream::connect(server)?;
        stream.set_timeout(ANSWER_TIMEOUT)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        return Ok(Box::new(stream));
    }
    // An address without a port is one of IPv6, or a name.
    let has_port = server.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (host.ends_with(']') || !host.contains(':'))
    });
    let resolved: Vec<_> = if has_port {
        server.to_socket_addrs()?.collect()
    } else {
        let host = server.trim_start_matches('[').trim_end_matches(']');
        (host, PORT_DEFAULT).to_socket_addrs()?.collect()
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in resolved {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => {
                stream.set_timeout(ANSWER_TIMEOUT)?;
                stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
                // A quiet server and one that lost its power look the same otherwise.
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends `request`; the first line of the answer without its end, and what came behind it.
fn answer(stream: &mut dyn Stream, request: &[u8]) -> io::Result<(String, Vec<u8>)> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = memchr::memchr(b'\n', &answer) {
            let rest = answer.split_off(end + 1);
            let line = String::from_utf8_lossy(&answer).trim_end().to_owned();
            return Ok((line, rest));
        }
        if answer.len() > LINE_BYTES_MAX {
            return Err(io::Error::other("it answers with what is no line"));
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether nothing came within the time for a read.
fn is_only_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "how long a server is watched is real time")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that has no room for more than so many bytes.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room - self.bytes.len());
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shorten for Disk {
        fn shorten(&mut self, bytes: u64) -> io::Result<()> {
            self.bytes.truncate(usize::try_from(bytes).unwrap());
            Ok(())
        }
    }

    fn log(room: usize, requests_max: Option<u64>) -> Log<Disk> {
        Log::new(Disk { bytes: Vec::new(), room }, requests_max, now())
    }

    fn get(number: u32) -> String {
        format!(
            "ts=1.5 gid={number} type=item_get key=k{number} status=not_found clsid=0 cfd=1 size=0\n"
        )
    }

    fn unpacked(disk: &Disk) -> String {
        String::from_utf8(zstd::decode_all(&disk.bytes[..]).unwrap()).unwrap()
    }

    #[test]
    fn lines_come_whole_in_whatever_pieces_they_arrive() {
        let text = [get(1), get(2), "skipped=7\n".into(), get(3)].concat();
        for piece in [1, 3, 50, 1000] {
            let (mut log, mut pending) = (log(1 << 20, None), Vec::new());
            for bytes in text.as_bytes().chunks(piece) {
                pending.extend_from_slice(bytes);
                assert_eq!(log.take(&mut pending).unwrap(), Progress::More);
            }
            pending.extend_from_slice(b"ts=1.5 gid=4 ty");
            log.take(&mut pending).unwrap();
            log.end_block().unwrap();
            assert_eq!(unpacked(&log.out), text, "the line that broke off is left out");
            let Recorded { requests, lines, skipped, .. } = log.recorded;
            assert_eq!((requests, lines, skipped), (3, 4, 7));
        }
    }

    #[test]
    fn no_more_requests_are_kept_than_wanted() {
        let (mut log, mut pending) = (log(1 << 20, Some(2)), Vec::new());
        (0..5).for_each(|number| pending.extend_from_slice(get(number).as_bytes()));
        assert_eq!(log.take(&mut pending).unwrap(), Progress::Enough);
        log.end_block().unwrap();
        assert_eq!(unpacked(&log.out), [get(0), get(1)].concat());
    }

    #[test]
    fn a_full_disk_keeps_the_blocks_before() {
        let mut log = log(150, None);
        log.take(&mut get(1).into_bytes()).unwrap();
        log.end_block().unwrap();
        log.take(&mut get(2).into_bytes()).unwrap();
        let full = log.end_block().unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(unpacked(&log.out), get(1));
    }

    #[test]
    fn what_is_no_line_is_kept_as_one() {
        let (mut log, mut pending) = (log(1 << 20, None), vec![b'x'; LINE_BYTES_MAX + 1]);
        log.take(&mut pending).unwrap();
        log.end_block().unwrap();
        assert_eq!((pending.len(), unpacked(&log.out).len()), (0, LINE_BYTES_MAX + 2));
    }
}
