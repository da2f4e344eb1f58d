//! `-o`: memcached's extended options, comma separated.
//!
//! Each is read and checked as memcached 1.6.45 does, down to the exit code: 1 for a value that is
//! missing or out of range and for an option that is not known, 64 for values that do not go together.
//! What has no meaning here is kept for `stats settings` ([`Knobs`]) and told once in the log.

use std::time::Duration;

use super::number::{decimal, integer};
use super::refused::Refused;
use super::tls::TlsOptions;
use crate::config::{FlashKnobs, Inspection, Knobs, Limits, TlsConfig};

const NO_SLABS: &str = "memory is one log of segments, not slab classes";
const NO_LRU_SEGMENTS: &str = "what leaves is decided by --eviction";
const SWEEP: &str = "expired items are swept out all the time, a bounded slice at a time";
const INDEX: &str = "the index fits itself to the items";
const NO_FLASH: &str = "items live in memory alone; -e keeps them in a file across restarts";

/// What `-o` asks for, all of them together.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    /// What connections may hold, and for how long.
    pub(super) limits: Limits,
    /// What watchers may be behind.
    pub(super) inspection: Inspection,
    /// What has no meaning here.
    pub(super) knobs: Knobs,
    /// How TLS is spoken, with `-Z`.
    tls: TlsOptions,
    /// Options that have none, and why: each once.
    pub(super) meaningless: Vec<(String, &'static str)>,
    /// `slab_chunk_max`, if given, in bytes.
    slab_chunk_bytes: Option<u32>,
    slab_sizes: Option<String>,
}

impl Extended {
    /// Obeys one `-o`; what it says wins over what earlier ones said.
    pub(super) fn take(&mut self, list: &str) -> Result<(), Refused> {
        let mut rest = list.trim_start();
        while !rest.is_empty() {
            let (option, after) = rest.split_once(',').unwrap_or((rest, ""));
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            self.take_one(name, value)?;
            rest = after;
        }
        Ok(())
    }

    fn take_one(&mut self, name: &str, value: Option<&str>) -> Result<(), Refused> {
        if let Some(taken) = self.tls.take(name, value) {
            return taken.map_err(Refused::failure);
        }
        let knobs = &mut self.knobs;
        let reason = match name {
            "maxconns_fast" | "no_maxconns_fast" => {
                self.limits.refuses_fast = name == "maxconns_fast";
                None
            }
            "idle_timeout" => {
                // A time of none, or a negative one, is no timeout.
                let secs = u64::try_from(whole(name, value)?).unwrap_or(0);
                self.limits.idle_timeout = (secs > 0).then(|| Duration::from_secs(secs));
                None
            }
            "read_buf_mem_limit" => {
                let bytes = unsigned(name, value)? as usize * (1 << 20);
                knobs.read_buffer_bytes_max = bytes as u64;
                let default = Limits::default().buffer_bytes_max;
                self.limits.buffer_bytes_max = if bytes == 0 { default } else { bytes };
                None
            }
            "watcher_logbuf_size" => {
                self.inspection.watcher_buffer_bytes = kib(name, value)?;
                None
            }
            "worker_logbuf_size" => {
                self.inspection.worker_buffer_bytes = kib(name, value)?;
                None
            }
            // Nothing in memcached either, or what is so here anyway.
            "modern"
            | "inline_ascii_resp"
            | "no_inline_ascii_resp"
            | "no_drop_privileges"
            | "relaxed_privileges" => None,
            "track_sizes" => {
                self.inspection.tracks_sizes = true;
                None
            }
            "no_modern" => {
                self.limits.refuses_fast = false;
                knobs.slab_reassign = false;
                knobs.slab_automove = 0;
                knobs.lru_segmented = false;
                knobs.lru_crawler = false;
                knobs.lru_maintainer = false;
                Some("nothing here is older or newer; only maxconns_fast is switched off by it")
            }
            "hashpower" => {
                let power = whole(name, value)?;
                knobs.hash_power = in_range(name, power, 12, 32)?;
                Some(INDEX)
            }
            "no_hashexpand" => Some(INDEX),
            "hash_algorithm" => {
                let wanted = needed(name, value)?;
                let known = ["jenkins", "murmur3", "xxh3"];
                let Some(algorithm) = known.into_iter().find(|it| *it == wanted) else {
                    let known = known.join(", ");
                    let reason = format!("-o {name}: known are {known}, not {wanted:?}");
                    return Err(Refused::failure(reason));
                };
                knobs.hash_algorithm = algorithm;
                Some("the index has a hash function of its own")
            }
            "slab_reassign" | "no_slab_reassign" => {
                knobs.slab_reassign = name == "slab_reassign";
                Some(NO_SLABS)
            }
            "slab_automove" => {
                let level = value.map_or(Ok(1), |_| whole_or_zero(name, value))?;
                knobs.slab_automove = in_range(name, level, 0, 2)?;
                Some(NO_SLABS)
            }
            "no_slab_automove" => {
                knobs.slab_automove = 0;
                Some(NO_SLABS)
            }
            "slab_automove_ratio" => {
                let ratio = decimal(needed(name, value)?);
                if !(ratio > 0.0 && ratio <= 1.0) {
                    return Err(out_of_range(name, ratio, "more than 0 and at most 1"));
                }
                knobs.slab_automove_ratio = ratio;
                Some(NO_SLABS)
            }
            "slab_automove_window" => {
                knobs.slab_automove_window_s = in_range(name, whole(name, value)?, 3, 1800)?;
                Some(NO_SLABS)
            }
            "slab_automove_freeratio" => {
                knobs.slab_automove_free_ratio = decimal(needed(name, value)?);
                Some(NO_SLABS)
            }
            "slab_sizes" => {
                self.slab_sizes = Some(needed(name, value)?.to_owned());
                Some(NO_SLABS)
            }
            "slab_chunk_max" => {
                let kib: u32 = in_range(name, exact(name, value)?, 1, 1024)?;
                self.slab_chunk_bytes = Some(kib << 10);
                knobs.slab_chunk_bytes_max = kib << 10;
                Some(NO_SLABS)
            }
            "no_chunked_items" => {
                knobs.slab_chunk_bytes_max = 1 << 20;
                Some(NO_SLABS)
            }
            "tail_repair_time" => {
                let secs = whole_or_zero(name, value)?;
                knobs.tail_repair_s = in_range(name, secs, 10, i64::from(i32::MAX))?;
                Some("no item can be stuck at a tail")
            }
            "lru_crawler" | "no_lru_crawler" => {
                knobs.lru_crawler = name == "lru_crawler";
                Some(SWEEP)
            }
            "lru_crawler_sleep" => {
                knobs.lru_crawler_sleep_us =
                    in_range(name, whole_or_zero(name, value)?, 0, 1_000_000)?;
                Some(SWEEP)
            }
            "lru_crawler_tocrawl" => {
                knobs.lru_crawler_tocrawl = unsigned(name, value)?;
                Some(SWEEP)
            }
            "lru_maintainer" | "no_lru_maintainer" => {
                knobs.lru_maintainer = name == "lru_maintainer";
                knobs.lru_segmented = knobs.lru_maintainer;
                Some(NO_LRU_SEGMENTS)
            }
            "hot_lru_pct" => {
                knobs.hot_lru_percent = in_range(name, whole_or_zero(name, value)?, 1, 79)?;
                Some(NO_LRU_SEGMENTS)
            }
            "warm_lru_pct" => {
                knobs.warm_lru_percent = in_range(name, whole_or_zero(name, value)?, 1, 79)?;
                Some(NO_LRU_SEGMENTS)
            }
            "hot_max_factor" => {
                knobs.hot_max_factor = above_zero(name, value)?;
                Some(NO_LRU_SEGMENTS)
            }
            "warm_max_factor" => {
                knobs.warm_max_factor = above_zero(name, value)?;
                Some(NO_LRU_SEGMENTS)
            }
            "temporary_ttl" => {
                let secs = whole_or_zero(name, value)?;
                knobs.temp_lru = true;
                knobs.temporary_ttl_s = u32::try_from(secs).unwrap_or(knobs.temporary_ttl_s);
                Some(NO_LRU_SEGMENTS)
            }
            "drop_privileges" => {
                Some("system calls are not restricted; the service manager can do that")
            }
            "resp_obj_mem_limit" => Some("memcached has replaced it by read_buf_mem_limit"),
            "sock_cookie_id" => {
                needed(name, value)?;
                Some("sockets are not marked for a firewall")
            }
            "ext_path" => {
                check_flash_path(needed(name, value)?)?;
                Some(NO_FLASH)
            }
            _ if name.starts_with("ext_") => {
                take_flash(&mut knobs.flash, name, value)?;
                Some(NO_FLASH)
            }
            _ => return Err(unknown(name)),
        };
        if let Some(reason) = reason
            && !self.meaningless.iter().any(|(told, _)| told == name)
        {
            self.meaningless.push((name.to_owned(), reason));
        }
        Ok(())
    }

    /// How TLS is to be spoken.
    pub(super) fn tls(&self) -> TlsConfig {
        self.tls.clone().into_config()
    }

    /// Whether what was asked for goes together, with a largest item of this size (`-I`).
    pub(super) fn check(&self, item_bytes_max: usize) -> Result<(), Refused> {
        if let Some(chunk_bytes) = self.slab_chunk_bytes {
            let chunk = chunk_bytes as usize;
            let divides = |bytes: usize| bytes.is_multiple_of(chunk);
            if chunk > item_bytes_max || !divides(item_bytes_max) || !divides(1 << 20) {
                return Err(Refused::usage(format!(
                    "-o slab_chunk_max: {chunk} bytes do not divide a page of 1 MiB and an item of \
                     {item_bytes_max} bytes evenly"
                )));
            }
        }
        if let Some(sizes) = &self.slab_sizes {
            check_slab_sizes(sizes, &self.knobs)?;
        }
        if self.knobs.hot_lru_percent + self.knobs.warm_lru_percent > 80 {
            let reason = "-o: hot_lru_pct and warm_lru_pct cannot be more than 80 together";
            return Err(Refused::usage(reason));
        }
        if self.knobs.temp_lru && !self.knobs.lru_maintainer {
            let reason = "-o: temporary_ttl and no_lru_maintainer do not go together";
            return Err(Refused::usage(reason));
        }
        Ok(())
    }
}

/// Checks a `-o` by itself, before it is known what the others say.
pub(super) fn check_list(list: &str) -> Result<String, Refused> {
    Extended::default().take(list).map(|()| list.to_owned())
}

fn needed<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, Refused> {
    value.ok_or_else(|| Refused::failure(format!("-o {name} needs a value: {name}=...")))
}

/// A number, with whatever follows it passed over.
fn whole(name: &str, value: Option<&str>) -> Result<i64, Refused> {
    let value = needed(name, value)?;
    match integer(value) {
        Ok(number) => Ok(number.value()),
        Err(_) => Err(Refused::failure(format!("-o {name}: {value:?} is no number"))),
    }
}

/// The same, and 0 for what is none: an option that does nothing need not be stricter than memcached.
fn whole_or_zero(name: &str, value: Option<&str>) -> Result<i64, Refused> {
    needed(name, value)?;
    Ok(whole(name, value).unwrap_or(0))
}

/// A number and nothing else, where memcached insists on that too.
fn exact(name: &str, value: Option<&str>) -> Result<i64, Refused> {
    let value = needed(name, value)?;
    let refused = |_| Refused::failure(format!("-o {name}: {value:?} is no number"));
    value.trim().parse().map_err(refused)
}

fn unsigned(name: &str, value: Option<&str>) -> Result<u32, Refused> {
    let number = exact(name, value)?;
    u32::try_from(number).map_err(|_| out_of_range(name, number, "0 to 4294967295"))
}

/// A size in KiB, in bytes.
fn kib(name: &str, value: Option<&str>) -> Result<usize, Refused> {
    Ok(unsigned(name, value)? as usize * 1024)
}

fn in_range<N: TryFrom<i64>>(name: &str, value: i64, low: i64, high: i64) -> Result<N, Refused> {
    let bounds = || out_of_range(name, value, &format!("{low} to {high}"));
    if !(low..=high).contains(&value) {
        return Err(bounds());
    }
    N::try_from(value).map_err(|_| bounds())
}

fn above_zero(name: &str, value: Option<&str>) -> Result<f64, Refused> {
    let factor = decimal(needed(name, value)?);
    if factor > 0.0 { Ok(factor) } else { Err(out_of_range(name, factor, "more than 0")) }
}

fn out_of_range(name: &str, value: impl std::fmt::Display, bounds: &str) -> Refused {
    Refused::failure(format!("-o {name}: {value} is out of range, {bounds}"))
}

/// An option of storage on flash.
fn take_flash(flash: &mut FlashKnobs, name: &str, value: Option<&str>) -> Result<(), Refused> {
    let place = match name {
        "ext_item_size" => &mut flash.item_bytes,
        "ext_item_age" => &mut flash.item_age_s,
        "ext_low_ttl" => &mut flash.low_ttl_s,
        "ext_recache_rate" => &mut flash.recache_rate,
        "ext_compact_under" => &mut flash.compact_under,
        "ext_drop_under" => &mut flash.drop_under,
        "ext_max_sleep" => &mut flash.sleep_us_max,
        "ext_page_size" | "ext_threads" | "ext_io_depth" => {
            return unsigned(name, value).map(|_| ());
        }
        "ext_wbuf_size" => {
            // As there, what goes beyond 32 bits is lost.
            flash.write_buffer_bytes = unsigned(name, value)?.wrapping_mul(1 << 20);
            return Ok(());
        }
        "ext_max_frag" => {
            flash.fragmentation_max = decimal(needed(name, value)?);
            return Ok(());
        }
        "ext_drop_unread" => {
            flash.drops_unread = true;
            return Ok(());
        }
        _ => return Err(unknown(name)),
    };
    *place = unsigned(name, value)?;
    Ok(())
}

fn unknown(name: &str) -> Refused {
    Refused::failure(format!("-o: there is no option {name:?}"))
}

/// `FILE:SIZE`, perhaps with a bucket behind: what memcached insists on.
fn check_flash_path(path: &str) -> Result<(), Refused> {
    let mut words = path.split(':');
    let (file, size) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let unit = size.chars().last().unwrap_or(' ').to_ascii_lowercase();
    let digits = &size[..size.len() - size.chars().last().map_or(0, char::len_utf8)];
    if !file.is_empty() && "mgtp".contains(unit) && digits.parse::<u64>().is_ok() {
        return Ok(());
    }
    Err(Refused::failure(format!(
        "-o ext_path: {path:?} is not a file and a size, such as /d/f:5G"
    )))
}

/// Sizes of slab classes, each larger than the one before.
fn check_slab_sizes(sizes: &str, knobs: &Knobs) -> Result<(), Refused> {
    let mut last = 0;
    let wrong = |size: &str| {
        Refused::usage(format!("-o slab_sizes: {size:?} does not follow a smaller size as a size"))
    };
    if sizes.is_empty() {
        return Err(wrong(sizes));
    }
    for word in sizes.split('-').filter(|word| !word.is_empty()) {
        let size: u32 = word.parse().map_err(|_| wrong(word))?;
        let range = knobs.chunk_bytes..=knobs.slab_chunk_bytes_max;
        // Chunks are cut on boundaries of 8 bytes.
        if !range.contains(&size) || (last > 0 && size <= last + 8) {
            return Err(wrong(word));
        }
        last = size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lists: &[&str]) -> Result<Extended, u8> {
        let mut extended = Extended::default();
        let checked = lists.iter().try_for_each(|list| extended.take(list));
        checked
            .and_then(|()| extended.check(1 << 20))
            .map(|()| extended)
            .map_err(|refused| refused.exit_code)
    }

    /// What memcached 1.6.45 was seen to exit with; 0 where it serves.
    const EXIT_CODES: &[(&str, u8)] = &[
        ("", 0),
        (",", 1),
        ("foo", 1),
        ("foo=1", 1),
        ("modern", 0),
        ("modern,", 0),
        ("modern,foo", 1),
        ("MODERN", 1),
        (" modern", 0),
        ("modern, maxconns_fast", 1),
        ("no_modern", 0),
        ("maxconns_fast=1", 0),
        ("no_maxconns_fast", 0),
        ("hashpower", 1),
        ("hashpower=11", 1),
        ("hashpower=20", 0),
        ("hashpower=33", 1),
        ("hashpower=x", 1),
        ("no_hashexpand", 0),
        ("slab_reassign,no_slab_reassign,slab_automove,no_slab_automove", 0),
        ("slab_automove=2", 0),
        ("slab_automove=3", 1),
        ("slab_automove=-1", 1),
        ("slab_automove=x", 0),
        ("slab_automove_ratio", 1),
        ("slab_automove_ratio=0", 1),
        ("slab_automove_ratio=1", 0),
        ("slab_automove_ratio=1.1", 1),
        ("slab_automove_window", 1),
        ("slab_automove_window=2", 1),
        ("slab_automove_window=3", 0),
        ("slab_automove_window=1801", 1),
        ("slab_automove_freeratio", 1),
        ("slab_automove_freeratio=0.1", 0),
        ("tail_repair_time", 1),
        ("tail_repair_time=9", 1),
        ("tail_repair_time=10", 0),
        ("hash_algorithm", 1),
        ("hash_algorithm=md5", 1),
        ("hash_algorithm=jenkins", 0),
        ("lru_crawler,no_lru_crawler", 0),
        ("lru_crawler_sleep", 1),
        ("lru_crawler_sleep=-1", 1),
        ("lru_crawler_sleep=1000000", 0),
        ("lru_crawler_sleep=1000001", 1),
        ("lru_crawler_tocrawl", 1),
        ("lru_crawler_tocrawl=x", 1),
        ("lru_crawler_tocrawl=100", 0),
        ("lru_maintainer,no_lru_maintainer", 0),
        ("hot_lru_pct", 1),
        ("hot_lru_pct=0", 1),
        ("hot_lru_pct=80", 1),
        ("hot_lru_pct=79", 64),
        ("hot_lru_pct=41,warm_lru_pct=40", 64),
        ("warm_lru_pct=0", 1),
        ("hot_max_factor=0", 1),
        ("hot_max_factor=x", 1),
        ("warm_max_factor", 1),
        ("warm_max_factor=0", 1),
        ("temporary_ttl", 1),
        ("temporary_ttl=61", 0),
        ("temporary_ttl=61,no_lru_maintainer", 64),
        ("idle_timeout", 1),
        ("idle_timeout=5", 0),
        ("idle_timeout=-1", 0),
        ("watcher_logbuf_size", 1),
        ("watcher_logbuf_size=x", 1),
        ("watcher_logbuf_size=64,worker_logbuf_size=64", 0),
        ("worker_logbuf_size=x", 1),
        ("slab_sizes=", 64),
        ("slab_sizes=100-200-300", 0),
        ("slab_sizes=100-200-x", 64),
        ("slab_sizes=200-100", 64),
        ("slab_sizes=100", 0),
        ("slab_chunk_max", 1),
        ("slab_chunk_max=x", 1),
        ("slab_chunk_max=0", 1),
        ("slab_chunk_max=-5", 1),
        ("slab_chunk_max=16", 0),
        ("slab_chunk_max=17", 64),
        ("slab_chunk_max=1024", 0),
        ("slab_chunk_max=1025", 1),
        ("track_sizes,no_inline_ascii_resp,inline_ascii_resp,no_chunked_items", 0),
        ("no_drop_privileges,drop_privileges", 0),
        ("resp_obj_mem_limit", 0),
        ("read_buf_mem_limit", 1),
        ("read_buf_mem_limit=x", 1),
        ("read_buf_mem_limit=1", 0),
        ("read_obj_mem_limit=5", 1),
        ("sock_cookie_id=5", 0),
        ("ssl_chain_cert", 1),
        ("ssl_verify_mode=4", 1),
        ("ssl_verify_mode=3,ssl_min_version=3,ssl_session_cache,ssl_kernel_tls", 0),
        ("ssl_keyformat=x", 1),
        ("ssl_min_version=9", 1),
        ("ssl_wbuf_size=x", 1),
        ("proxy_config=/x", 1),
        ("ext_path", 1),
        ("ext_path=/d/file", 1),
        ("ext_path=/d/file:64m", 0),
        ("ext_page_size", 1),
        ("ext_page_size=x", 1),
        ("ext_page_size=4,ext_threads=1,ext_max_frag=0.5,ext_drop_unread", 0),
        ("no_ext_drop_unread", 1),
        ("ext_foo", 1),
    ];

    #[test]
    fn exit_codes_are_those_of_memcached() {
        for (list, code) in EXIT_CODES {
            assert_eq!(taken(&[list]).err().unwrap_or(0), *code, "-o {list}");
        }
    }

    #[test]
    fn what_memcached_obeys_here_is_obeyed() {
        let extended = taken(&["no_maxconns_fast,idle_timeout=5", "read_buf_mem_limit=7"]).unwrap();
        assert!(!extended.limits.refuses_fast);
        assert_eq!(extended.limits.idle_timeout, Some(Duration::from_secs(5)));
        assert_eq!(extended.limits.buffer_bytes_max, 7 << 20);
        assert_eq!(extended.meaningless, []);
    }

    #[test]
    fn the_last_of_a_repeated_option_counts() {
        let extended = taken(&["no_maxconns_fast,idle_timeout=5", "maxconns_fast,idle_timeout=0"]);
        let extended = extended.unwrap();
        assert!(extended.limits.refuses_fast);
        assert_eq!(extended.limits.idle_timeout, None);
    }

    #[test]
    fn what_has_no_meaning_is_told_once_with_its_reason() {
        let extended = taken(&["hashpower=20,modern,hashpower=21", "hashpower=22"]).unwrap();
        assert_eq!(extended.meaningless, [("hashpower".to_owned(), INDEX)]);
        assert_eq!(extended.knobs.hash_power, 22);
    }
}
