//! (tests) What seldom happens to a ring: sends that fall short, buffers that run out, operations that
//! nobody cancelled and are, completions for which the queue has no room.
//!
//! [`Faults`] are the seam: the next ring that a thread opens has those that it was given. What comes
//! after it is a conversation, in which answers must be right and in order whatever happens.

use std::cell::Cell;
use std::io;

use super::ring::Shape;

thread_local! {
    static ARRANGED: Cell<Option<(Shape, Faults)>> = const { Cell::new(None) };
}

/// What is to happen to a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Every send of which this is not zero goes so far, in sevenths; by turns.
    pub(super) sends_cut: bool,
    /// One receive in so many is cancelled while it goes on; none, if zero.
    pub(super) receives_cancelled: u32,
    /// What the kernel says instead of opening a ring; it does not, if zero.
    pub(super) refusal: i32,
    sends: usize,
    receives: u32,
}

impl Faults {
    /// Those that were arranged for this thread, and how large its ring is to be.
    pub(super) fn arranged(otherwise: &Shape) -> io::Result<(Shape, Self)> {
        let (shape, faults) = ARRANGED.take().unwrap_or_else(|| (*otherwise, Self::default()));
        match faults.refusal {
            0 => Ok((shape, faults)),
            refusal => Err(io::Error::from_raw_os_error(refusal)),
        }
    }

    /// The next ring of this thread is to be like this.
    fn arrange(self, shape: Shape) {
        ARRANGED.set(Some((shape, self)));
    }

    /// How far a send of `len` bytes goes.
    pub(super) fn cut(&mut self, len: usize) -> usize {
        self.sends += 1;
        if self.sends_cut { len * (self.sends % 8) / 7 } else { len }
    }

    /// Whether the receive that has just brought something ends there.
    pub(super) fn cancels_receive(&mut self) -> bool {
        self.receives += 1;
        self.receives_cancelled > 0 && self.receives.is_multiple_of(self.receives_cancelled)
    }
}

mod tests {
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::thread;
    use std::time::Duration;

    use nix::libc;
    use protocol::Request;
    use protocol::meta::request::MetaKey;

    use super::*;
    use crate::config::{IoChoice, Limits};
    use crate::net::worker::tests::Running;
    use crate::net::{Call, Flow, Service, uring};

    const CLIENTS: usize = 6;
    const REQUESTS: usize = 400;

    /// Answers `mg KEY` with the key and a run of dots as long as its last digits say.
    struct Dots;

    impl Service for Dots {
        type Message = Infallible;

        fn handle(&mut self, request: &Request<'_>, _: Call<'_>, out: &mut Vec<u8>) -> Flow {
            match request {
                Request::MetaGet(get) => answer(get.key.written(), out),
                _ => out.extend_from_slice(b"MN\r\n"),
            }
            Flow::Continue
        }

        fn invalidate(&mut self, _: &MetaKey<'_>, _: &[u8], _: Call<'_>, _: &mut Vec<u8>) {}
    }

    fn answer(key: &[u8], out: &mut Vec<u8>) {
        let digits = key.rsplit(|&byte| byte == b'-').next().unwrap();
        let dots: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
        out.extend_from_slice(key);
        out.resize(out.len() + dots, b'.');
        out.extend_from_slice(b"\r\n");
    }

    /// Lengths of all kinds: none, small ones, and now and then more than is copied to be sent.
    fn key(client: usize, request: usize) -> String {
        let dots = match request % 40 {
            7 => 20_000,
            23 => 9_000,
            rest => rest * rest,
        };
        format!("c{client}-r{request}-{dots}")
    }

    fn worker(shape: Shape, faults: Faults) -> Option<Running> {
        // Whoever comes while those before it have not gone waits for room.
        let limits = Limits { refuses_fast: false, ..Limits::default() };
        uring::is_there().then(|| {
            Running::start_service(IoChoice::Uring, limits, move || {
                faults.arrange(shape);
                Dots
            })
        })
    }

    /// Asks everything at once, in pieces that end anywhere, and takes what comes.
    fn ask_all(mut stream: TcpStream, client: usize) {
        let (mut requests, mut expected) = (String::new(), Vec::new());
        for request in 0..REQUESTS {
            let key = key(client, request);
            answer(key.as_bytes(), &mut expected);
            requests.push_str(&format!("mg {key}\r\n"));
        }
        let mut writer = stream.try_clone().unwrap();
        let writes = thread::spawn(move || {
            for piece in requests.as_bytes().chunks(37 + 61 * client) {
                writer.write_all(piece).unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        writes.join().unwrap();
        let differs = answers.iter().zip(&expected).position(|(got, wanted)| got != wanted);
        assert_eq!(differs, None, "client {client}");
        assert_eq!(answers.len(), expected.len(), "client {client}");
    }

    /// Several clients at once, after each of which nothing is left.
    fn converse(shape: Shape, faults: Faults) {
        let Some(mut worker) = worker(shape, faults) else { return };
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let stream = worker.connect();
                scope.spawn(move || ask_all(stream, client));
            }
        });
        worker.join();
        assert_eq!(worker.network.buffers().bytes(), 0);
        assert_eq!(worker.network.connections(), 0);
    }

    #[test]
    fn answers_are_right_and_in_order() {
        converse(Shape::default(), Faults::default());
    }

    #[test]
    fn answers_are_right_without_bundles() {
        let small = Shape { buffers: 8, buffers_max: 8, buffer_bytes: 32, ..Shape::default() };
        converse(Shape { bundles: false, ..small }, Faults::default());
    }

    #[test]
    fn answers_are_right_when_sends_fall_short() {
        converse(Shape::default(), Faults { sends_cut: true, ..Faults::default() });
    }

    #[test]
    fn answers_are_right_when_buffers_run_out() {
        let shape = Shape { buffers: 2, buffers_max: 2, buffer_bytes: 16, ..Shape::default() };
        converse(shape, Faults::default());
    }

    #[test]
    fn answers_are_right_when_receives_are_cancelled() {
        converse(Shape::default(), Faults { receives_cancelled: 2, ..Faults::default() });
    }

    #[test]
    fn answers_are_right_when_completions_overflow() {
        converse(Shape { submissions: 1, completions: 2, ..Shape::default() }, Faults::default());
    }

    #[test]
    fn answers_are_right_when_the_outbox_is_small() {
        converse(Shape { outbox_bytes: 9_000, ..Shape::default() }, Faults::default());
    }

    #[test]
    fn answers_are_right_when_everything_goes_wrong() {
        let shape = Shape {
            submissions: 2,
            completions: 4,
            buffers: 2,
            buffers_max: 4,
            buffer_bytes: 64,
            outbox_bytes: 9_000,
            ..Shape::default()
        };
        converse(shape, Faults { sends_cut: true, receives_cancelled: 3, ..Faults::default() });
    }

    /// A worker of which the kernel wants to know nothing.
    fn refused(io: IoChoice, refusal: i32) -> Running {
        Running::start_service(io, Limits::default(), move || {
            Faults { refusal, ..Faults::default() }.arrange(Shape::default());
            Dots
        })
    }

    #[test]
    fn epoll_serves_where_the_kernel_refuses_a_ring() {
        for refusal in [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ENOMEM, libc::EMFILE] {
            let worker = refused(IoChoice::Auto, refusal);
            ask_all(worker.connect(), 0);
            assert_eq!(worker.network.io_driver(), "epoll");
        }
    }

    #[test]
    fn worker_that_is_to_have_a_ring_does_not_start_without() {
        let mut worker = refused(IoChoice::Uring, libc::ENOMEM);
        let error = worker.outcome().unwrap_err();
        assert!(error.to_string().contains("ulimit -l"), "{error}");
    }

    #[test]
    fn client_that_takes_nothing_keeps_no_other_from_its_buffers() {
        let shape = Shape { buffers: 4, buffers_max: 4, ..Shape::default() };
        let Some(worker) = worker(shape, Faults::default()) else { return };
        let mut slow = worker.connect();
        slow.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let requests = "mg greedy-20000\r\n".repeat(1000);
        // Until the server reads no more.
        while slow.write(requests.as_bytes()).is_ok() {}
        for client in 0..3 {
            ask_all(worker.connect(), client);
        }
    }

    #[test]
    fn clients_that_go_in_the_middle_of_everything_leave_nothing_behind() {
        let faults = Faults { sends_cut: true, receives_cancelled: 2, ..Faults::default() };
        let Some(mut worker) = worker(Shape::default(), faults) else { return };
        for round in 0..100 {
            let mut client = worker.connect();
            let requests = format!("mg left-{}\r\n", round * 300).repeat(round);
            client.write_all(requests.as_bytes()).unwrap();
        }
        ask_all(worker.connect(), 0);
        worker.join();
        assert_eq!(worker.network.buffers().bytes(), 0);
        assert_eq!(worker.network.connections(), 0);
    }
}
