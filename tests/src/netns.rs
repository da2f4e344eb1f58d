//! Machines that are network namespaces, on a network of the test's own that it can cut.
//!
//! ```text
//!   namespace 0          namespace 1          namespace 2        the test
//!   10.213.K.1           10.213.K.2           10.213.K.3         10.213.K.254
//!       │ veth               │ veth               │ veth             │
//!       └────────────────────┴─────── bridge ─────┴──────────────────┘
//! ```
//!
//! A direction from one namespace to another is cut by telling the sender that the other has a hardware
//! address that nobody has: what it sends is lost on the way, without a word to it, as on a broken network,
//! and it takes neither packet filters nor modules of the kernel. Every partition is made of such cuts:
//! full (both directions between two sides), half (one node from some), one-way, and bridge (two nodes cut
//! from each other that both reach a third). The test itself reaches every namespace all the time, so
//! clients still reach a node that is cut off from the others.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// Networks at a time on one machine, each with an octet of its own.
const NETWORKS_MAX: u8 = 200;
/// Inside of every namespace.
const INTERFACE: &str = "eth0";
/// A unicast address, locally administered, that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";

/// A network with its namespaces; gone when dropped.
#[derive(Debug)]
pub struct Network {
    /// Names of everything begin with it.
    prefix: String,
    octet: u8,
    hosts: usize,
    /// Keeps the octet ours.
    _claim: File,
}

impl Network {
    /// A network of `hosts` namespaces, or why there is none: it takes root and `ip netns`.
    ///
    /// # Errors
    /// In words for the person who runs the tests.
    pub fn build(hosts: usize) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("network namespaces take root".into());
        }
        let (claim, octet) = claim()?;
        let prefix = format!("cc{octet}");
        let mut network = Self { prefix, octet, hosts: 0, _claim: claim };
        // Of a test that was killed and had this octet before.
        network.hosts = usize::from(u8::MAX).min(hosts.max(16));
        network.remove();
        network.hosts = hosts;
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", network.address_of_test()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in 0..hosts {
            let (name, link) = (network.namespace(host), network.link(host));
            ip(&["netns", "add", &name])?;
            let peer = ["peer", "name", INTERFACE, "netns", &name];
            ip(&[&["link", "add", &link, "type", "veth"][..], &peer].concat())?;
            ip(&["link", "set", &link, "master", &bridge, "up"])?;
            let address = format!("{}/24", network.address(host));
            network.ip_in(host, &["address", "add", &address, "dev", INTERFACE])?;
            network.ip_in(host, &["link", "set", INTERFACE, "up"])?;
            network.ip_in(host, &["link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// Where `host` is found.
    #[must_use]
    pub fn address(&self, host: usize) -> Ipv4Addr {
        let last = u8::try_from(host + 1).expect("a network has few hosts");
        Ipv4Addr::new(10, 213, self.octet, last)
    }

    /// Where the test itself is found.
    #[must_use]
    pub fn address_of_test(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.octet, 254)
    }

    /// The beginning of a command line that runs the rest of it in `host`'s namespace, in the same process.
    #[must_use]
    pub fn command_in(&self, host: usize) -> Vec<String> {
        let words = ["ip", "netns", "exec", &self.namespace(host)];
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// Runs `task` on a thread inside of `host`'s namespace: sockets that it opens are there for good.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `task` does.
    pub fn inside<T: Send>(&self, host: usize, task: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from("/var/run/netns").join(self.namespace(host));
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace = File::open(path).expect("the namespace exists");
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("root may enter it");
                task()
            });
            thread.join().expect("the task ends in order")
        })
    }

    /// Loses all that `from` sends to `to`; the other direction stays.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn cut(&self, from: usize, to: usize) {
        self.cut_from(from, self.address(to));
    }

    /// Loses everything between the hosts of `one` and those of `other`.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        for (&left, &right) in
            one.iter().flat_map(|left| other.iter().map(move |right| (left, right)))
        {
            self.cut(left, right);
            self.cut(right, left);
        }
    }

    /// Loses all that `host` sends to the test, answers to its clients included.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn cut_from_test(&self, host: usize) {
        self.cut_from(host, self.address_of_test());
    }

    fn cut_from(&self, host: usize, to: Ipv4Addr) {
        let to = to.to_string();
        let wrong = ["lladdr", NOBODY, "dev", INTERFACE, "nud", "permanent"];
        let arguments = [&["neighbour", "replace", &to][..], &wrong].concat();
        self.ip_in(host, &arguments).unwrap_or_else(|error| panic!("{host} to {to}: {error}"));
    }

    /// Undoes all cuts.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            // What is learned anew takes one question on the wire.
            self.ip_in(host, &["neighbour", "flush", "dev", INTERFACE, "nud", "all"])
                .unwrap_or_else(|error| panic!("cannot heal {host}: {error}"));
        }
    }

    fn ip_in(&self, host: usize, arguments: &[&str]) -> Result<(), String> {
        ip(&[&["-n", &self.namespace(host)], arguments].concat())
    }

    fn namespace(&self, host: usize) -> String {
        format!("{}n{host}", self.prefix)
    }

    fn link(&self, host: usize) -> String {
        format!("{}v{host}", self.prefix)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.prefix)
    }

    fn remove(&self) {
        // What is not there need not go.
        for host in 0..self.hosts {
            let _ = ip(&["link", "delete", &self.link(host)]);
            let _ = ip(&["netns", "delete", &self.namespace(host)]);
        }
        let _ = ip(&["link", "delete", &self.bridge()]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

/// An octet that no other test has as long as the file is open.
fn claim() -> Result<(File, u8), String> {
    (1..=NETWORKS_MAX)
        .find_map(|octet| {
            let path = std::env::temp_dir().join(format!("cache-test-network-{octet}.lock"));
            let file = File::options().create(true).append(true).open(path).ok()?;
            file.try_lock().is_ok().then_some((file, octet))
        })
        .ok_or_else(|| "every network of the tests is in use".into())
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), said.trim())),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_cut_is_lost_until_it_heals() {
        let network = match Network::build(3) {
            Ok(network) => network,
            #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let listeners: Vec<TcpListener> = (0..3)
            .map(|host| {
                let address = (network.address(host), 7000);
                network.inside(host, || TcpListener::bind(address)).unwrap()
            })
            .collect();
        assert_eq!(listeners.len(), 3);
        let connects = |from: Option<usize>, to: usize| {
            let address = SocketAddr::from((network.address(to), 7000));
            let connect =
                || TcpStream::connect_timeout(&address, Duration::from_millis(400)).is_ok();
            match from {
                Some(from) => network.inside(from, connect),
                None => connect(),
            }
        };
        assert!(connects(Some(0), 1) && connects(Some(1), 2) && connects(None, 0));
        network.part(&[0], &[1]);
        assert!(!connects(Some(0), 1) && !connects(Some(1), 0), "a bridge: both reach 2");
        assert!(connects(Some(0), 2) && connects(Some(2), 1) && connects(None, 0));
        network.cut_from_test(0);
        assert!(!connects(None, 0) && connects(None, 1));
        network.heal();
        assert!(connects(Some(0), 1) && connects(Some(1), 0) && connects(None, 0));
    }
}
