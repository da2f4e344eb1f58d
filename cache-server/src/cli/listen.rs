//! One address of `-l`, in memcached's grammar.
//!
//! ```text
//! address = [protection ":"] ["proto[" name "]:"] [tag ":"] host [":" port]
//! protection = "notls" | "btls" | "mtls"      name = "ascii" | "binary" | "negotiating"
//! tag = "tag[" 1 to 8 characters "]" | "tag_" 1 to 8 characters "_"
//! host = "*" | name | IPv4 address | "[" IPv6 address "]" | IPv6 address without a port
//! ```
//!
//! `-l` holds a list of them, separated by commas or semicolons. memcached finds a prefix wherever a name
//! begins like one, so that it loses the first letters of a host `tags.example`; here a prefix ends
//! where the grammar says. See memcached.c, `server_sockets`.

use super::PortAsked;
use super::number::{Number, integer};
use super::refused::Refused;
use crate::config::{Dialect, Listen, Protection};

/// An address of `-l`, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) listen: Listen,
    /// It has a tag, which only memcached's proxy reads.
    pub(super) is_tagged: bool,
}

/// The addresses of one `-l`. An empty one between separators is passed over.
pub(super) fn parse_list(list: &str, port_default: u16) -> Result<Vec<Address>, Refused> {
    let words = list.split([',', ';']).map(str::trim).filter(|word| !word.is_empty());
    let addresses = words.map(|word| parse(word, port_default)).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(Refused::address(format!("-l: {list:?} names no address")));
    }
    Ok(addresses)
}

fn parse(word: &str, port_default: u16) -> Result<Address, Refused> {
    let mut rest = word;
    let mut protection = Protection::Usual;
    for (prefix, asked) in
        [("notls:", Protection::Plain), ("btls:", Protection::Basic), ("mtls:", Protection::Mutual)]
    {
        if let Some(after) = rest.strip_prefix(prefix) {
            (protection, rest) = (asked, after);
            break;
        }
    }
    let mut dialect = None;
    if let Some(after) = rest.strip_prefix("proto[") {
        let (name, after) = after
            .split_once("]:")
            .ok_or_else(|| Refused::address(format!("-l: {word:?} has no end of its protocol")))?;
        (dialect, rest) = (Some(parse_protocol(name)?), after);
    }
    let mut is_tagged = false;
    for (begin, end) in [("tag[", "]:"), ("tag_", "_:")] {
        if let Some(after) = rest.strip_prefix(begin) {
            let (tag, after) = after
                .split_once(end)
                .ok_or_else(|| Refused::address(format!("-l: {word:?} has no end of its tag")))?;
            if !(1..=8).contains(&tag.len()) {
                let reason = format!("-l: a tag has 1 to 8 characters, not {tag:?}");
                return Err(Refused::address(reason));
            }
            (is_tagged, rest) = (true, after);
            break;
        }
    }
    let listen = parse_place(rest, port_default).map_err(Refused::address)?;
    Ok(Address { listen: Listen { protection, dialect, ..listen }, is_tagged })
}

fn parse_protocol(name: &str) -> Result<Dialect, Refused> {
    match name {
        "ascii" => Ok(Dialect::Text),
        "binary" => Ok(Dialect::Binary),
        "negotiating" => Ok(Dialect::Auto),
        "proxy" => Err(Refused::address("-l: there is no proxy in this server")),
        _ => Err(Refused::address(format!(
            "-l: known protocols are ascii, binary and negotiating, not {name:?}"
        ))),
    }
}

/// A host and a port: `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`, a bare IPv6 address, or every address
/// of this machine as `*`, `*:PORT` or `INADDR_ANY`.
pub(super) fn parse_place(text: &str, port_default: u16) -> Result<Listen, String> {
    let text = text.trim();
    let wrong = || format!("-l: {text:?} is no address");
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or_else(wrong)?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':').ok_or_else(wrong)?)),
        }
    } else {
        match text.split_once(':') {
            // A second colon: an IPv6 address, which without brackets can have no port.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(port) => parse_port(port).ok_or_else(wrong)?,
        None => port_default,
    };
    match host {
        "" => Err(wrong()),
        "*" | "INADDR_ANY" => Ok(Listen::new(None, port)),
        host => Ok(Listen::new(Some(host.to_owned()), port)),
    }
}

/// A port behind a host; 0, or memcached's -1, is any free one.
fn parse_port(text: &str) -> Option<u16> {
    match text.trim() {
        "-1" => Some(0),
        text => text.parse().ok(),
    }
}

/// Checks a `-l` by itself, before it is known what the others say.
pub(super) fn check_list(list: &str) -> Result<String, Refused> {
    // The port is one that any address may have.
    parse_list(list, 1).map(|_| list.to_owned())
}

/// What `-p` and `-U` ask for: no port, any free one, or one.
pub(super) fn parse_port_flag(text: &str) -> Result<Number<PortAsked>, Refused> {
    let number = integer(text)?;
    let asked = match number.value() {
        0 => PortAsked::None,
        -1 => PortAsked::AnyFree,
        port => match u16::try_from(port) {
            Ok(port) => PortAsked::One(port),
            Err(_) if port > 0 => {
                return Err(Refused::usage(format!("{port} is no port: there are 65535")));
            }
            Err(_) => return Err(Refused::address(format!("{port} is no port"))),
        },
    };
    Ok(number.map(|_| asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str) -> Address {
        parse(word, 11211).unwrap_or_else(|refused| panic!("{word:?}: {refused}"))
    }

    #[test]
    fn prefixes_come_in_their_order_and_each_may_be_missing() {
        let whole = parsed("mtls:proto[binary]:tag[tools]:127.0.0.1:7");
        assert_eq!(whole.listen.protection, Protection::Mutual);
        assert_eq!(whole.listen.dialect, Some(Dialect::Binary));
        assert!(whole.is_tagged);
        assert_eq!(whole.listen.host.as_deref(), Some("127.0.0.1"));
        assert_eq!(whole.listen.port, 7);
        let tagged = parsed("proto[ascii]:tag_ab_:[::1]:8");
        assert_eq!((tagged.listen.host.as_deref(), tagged.listen.port), (Some("::1"), 8));
        assert_eq!(parsed("notls:localhost").listen.protection, Protection::Plain);
        assert_eq!(parsed("proto[negotiating]:*").listen.host, None);
    }

    #[test]
    fn a_host_may_begin_like_a_prefix() {
        for host in ["tags.example", "protocol", "notls", "mtlserver", "tag.example"] {
            assert_eq!(parsed(host).listen.host.as_deref(), Some(host));
        }
    }

    #[test]
    fn what_no_address_is_written_like_is_refused_with_memcacheds_code() {
        for wrong in [
            "",
            ",",
            ":7",
            "[::1",
            "[::1]8",
            "host:port",
            "host:",
            "127.0.0.1:70000",
            "proto[:127.0.0.1",
            "proto[http]:127.0.0.1",
            "proto[proxy]:127.0.0.1",
            "tag[]:127.0.0.1",
            "tag[123456789]:127.0.0.1",
            "tag[ab:127.0.0.1",
        ] {
            assert_eq!(
                parse_list(wrong, 1).map_err(|refused| refused.exit_code),
                Err(71),
                "{wrong}"
            );
        }
    }

    #[test]
    fn lists_are_separated_by_commas_or_semicolons() {
        for list in ["a,b", "a;b", "a, b", ",a,,b,"] {
            let hosts: Vec<_> = parse_list(list, 1)
                .unwrap()
                .into_iter()
                .map(|address| address.listen.host)
                .collect();
            assert_eq!(hosts, [Some("a".to_owned()), Some("b".to_owned())], "{list}");
        }
    }
}
