//! The file that tells which ports are served, where `MEMCACHED_PORT_FILENAME` names one.
//!
//! Harnesses that ask for any free port (`-p -1`) read it: `TCP INET: 34567`, a line for each address. It is
//! written aside and renamed, so that whoever waits for it finds it whole.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{env, fs, io};

use crate::net::ListeningAddress;

/// The environment variable that names the file.
const VARIABLE: &str = "MEMCACHED_PORT_FILENAME";

/// Writes the file, if one is wanted. As in memcached, it is no reason not to serve if that fails.
pub fn write(listening: &[ListeningAddress]) {
    let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
    if let Err(error) = write_to(&path, &lines(listening)) {
        tracing::warn!("cannot write the file of ports {}: {error}", PathBuf::from(path).display());
    }
}

fn write_to(path: &OsString, lines: &str) -> io::Result<()> {
    let mut aside = path.clone();
    aside.push(".lck");
    fs::write(&aside, lines)?;
    fs::rename(&aside, path)
}

fn lines(listening: &[ListeningAddress]) -> String {
    let mut lines = String::new();
    for address in listening {
        let (protocol, address) = match address {
            ListeningAddress::Tcp(address) => ("TCP", address),
            ListeningAddress::Udp(address) => ("UDP", address),
            ListeningAddress::Unix(_) => continue,
        };
        let family = if address.is_ipv6() { "INET6" } else { "INET" };
        lines.push_str(&format!("{protocol} {family}: {}\n", address.port()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_a_line() {
        let listening = [
            ListeningAddress::Tcp(([127, 0, 0, 1], 7).into()),
            ListeningAddress::Tcp(([0_u16; 8], 8).into()),
            ListeningAddress::Udp(([127, 0, 0, 1], 9).into()),
            ListeningAddress::Unix("/run/sock".into()),
        ];
        assert_eq!(lines(&listening), "TCP INET: 7\nTCP INET6: 8\nUDP INET: 9\n");
    }

    #[test]
    fn the_file_appears_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ports");
        write_to(&path.clone().into_os_string(), "TCP INET: 7\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "TCP INET: 7\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
