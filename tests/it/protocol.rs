//! The dialogues in `scripts/`, each played with a server of its own.
//!
//! `scripts/*.txt` hold for memcached 1.6.18 as well, which `CACHE_TEST_SERVER=/usr/bin/memcached`
//! shows. `scripts/ours/*.txt` say where this server differs from it, and why: what later versions
//! of the protocol's text define, and the few places where memcached's answer helps nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::script::Script;
use tests::server::{Server, Subject};

/// Declares one test per script, so that each runs, fails and is timed by itself.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { play("", stringify!($name)); })*

        const COMMON: &[&str] = &[$(stringify!($name)),*];
    };
}

scripts! {
    add_replace
    admin
    append_prepend
    bad_data
    bad_keys
    bad_lengths
    bad_lines
    bare_newline
    cache_memlimit
    cas
    connections
    delete
    expiry
    exptime
    flush_all
    get_set
    incr_decr
    item_size_max
    large_values
    long_lines
    meta_arithmetic
    meta_bad
    meta_base64
    meta_cas
    meta_debug
    meta_delete
    meta_get
    meta_noop
    meta_quiet
    meta_recache
    meta_set
    meta_stale
    meta_vivify
    noreply
    pieces
    stats
    touch_gat
}

/// The scripts that memcached 1.6.18 answers otherwise.
mod ours {
    macro_rules! scripts {
        ($($name:ident)*) => {
            $(#[test] fn $name() { super::play_ours(stringify!($name)); })*

            pub(super) const ALL: &[&str] = &[$(stringify!($name)),*];
        };
    }

    scripts! {
        backup
        malformed_writes
        meta_newer
        numbers
    }
}

fn play_ours(name: &str) {
    if Subject::from_environment() == Subject::Ours {
        play("ours", name);
    }
}

fn play(folder: &str, name: &str) {
    let script = Script::open(&scripts().join(folder).join(name).with_extension("txt"))
        .unwrap_or_else(|error| panic!("{error}"));
    let flags: Vec<&str> = script.launch.iter().map(String::as_str).collect();
    let server = Server::start(&flags);
    script
        .play(server.address(), &mut |duration| server.advance(duration))
        .unwrap_or_else(|disagreement| panic!("{disagreement}"));
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_script_is_played() {
    let listed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (common, ours): (BTreeSet<String>, BTreeSet<String>) = (listed(COMMON), listed(ours::ALL));
    assert_eq!(names_in(&scripts()), common);
    assert_eq!(names_in(&scripts().join("ours")), ours);
}
