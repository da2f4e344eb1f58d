//! Values of flags as people write them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::size::{parse_bytes, parse_bytes_range};

/// Largest value a workload may write, in bytes.
const VALUE_BYTES_MAX: u64 = 1 << 30;
/// Highest rate of an open loop, in requests a second; no machine comes near it.
const RATE_MAX: f64 = 1e8;

pub(super) fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; expected HOST:PORT, such as 127.0.0.1:11211"))?;
    addresses.next().ok_or_else(|| "the host has no address".to_owned())
}

pub(super) fn parse_value_bytes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let range = parse_bytes_range(text).map_err(|error| error.to_string())?;
    if *range.end() > VALUE_BYTES_MAX {
        return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"));
    }
    let bound = |bytes: u64| usize::try_from(bytes).map_err(|error| error.to_string());
    Ok(bound(*range.start())?..=bound(*range.end())?)
}

/// `GETS:SETS` into the share of gets.
pub(super) fn parse_get_share(text: &str) -> Result<f64, String> {
    let expected = "expected two numbers from 0 up and a colon between them, such as 95:5";
    let parse =
        |part: &str| part.parse::<f64>().ok().filter(|part| part.is_finite() && *part >= 0.0);
    let (gets, sets) = text.split_once(':').ok_or(expected)?;
    let (gets, sets) = (parse(gets).ok_or(expected)?, parse(sets).ok_or(expected)?);
    if gets + sets > 0.0 { Ok(gets / (gets + sets)) } else { Err(expected.to_owned()) }
}

/// A share of the whole.
pub(super) fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.1".to_owned())
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=RATE_MAX).contains(rate))
        .ok_or_else(|| format!("expected requests a second, from 0.001 to {RATE_MAX}"))
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = "expected a number and ms, s, m or h, such as 500ms or 10s";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale_s = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| expected.to_owned())?;
    let seconds = number * scale_s;
    // A year: far beyond any run, far below where adding to a moment overflows.
    if seconds > 366.0 * 86_400.0 {
        return Err("that is longer than a year".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

pub(super) fn parse_items_bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

pub(super) fn parse_memory_mib(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let mib = bytes >> 20;
    if mib == 0 || mib << 20 != bytes {
        return Err("memory is given to servers in whole MiB: use 64m, 1g".to_owned());
    }
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_gets_are_read() {
        assert_eq!(parse_get_share("1:0"), Ok(1.0));
        assert_eq!(parse_get_share("95:5"), Ok(0.95));
        for text in ["95", "0:0", "-1:2", "a:b", "1:2:3", "NaN:1"] {
            assert!(parse_get_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_part_of_the_whole() {
        assert_eq!(parse_share("0.25"), Ok(0.25));
        for text in ["-0.1", "1.1", "NaN", "half"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "1.2.3s", "10parsec", "99999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_in_whole_mebibytes() {
        assert_eq!(parse_memory_mib("256m"), Ok(256));
        assert_eq!(parse_memory_mib("1g"), Ok(1024));
        assert!(parse_memory_mib("100").is_err());
        assert!(parse_memory_mib("0m").is_err());
    }
}
