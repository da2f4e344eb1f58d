//! The dialogues in `scripts/`, each played with a server of its own.
//!
//! `scripts/*.txt` hold for memcached 1.6.45 as well, which `CACHE_TEST_SERVER=path/to/memcached` shows.
//! (Debian 12 has 1.6.18, which had another parser.) `scripts/ours/*.txt` say where this server differs
//! from it, and why.

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
    admin_more
    append_prepend
    authentication
    bad_data
    bad_keys
    bad_lengths
    bad_lines
    bare_newline
    binary_admin
    binary_arithmetic
    binary_bad
    binary_get_set
    binary_store
    binary_touch
    cache_memlimit
    cas
    connections
    delete
    detail
    dumps
    expiry
    exptime
    flush_all
    get_set
    http
    incr_decr
    item_size_max
    knobs
    large_values
    long_lines
    malformed_writes
    meta_arithmetic
    meta_bad
    meta_base64
    meta_cas
    meta_debug
    meta_delete
    meta_get
    meta_hints
    meta_more
    meta_noop
    meta_quiet
    meta_recache
    meta_set
    meta_stale
    meta_vivify
    no_evictions
    noreply
    only_binary
    only_text
    pieces
    sizes
    stats
    stats_counts
    stats_groups
    stats_settings
    touch_gat
    watch
}

/// The scripts that memcached answers otherwise.
mod ours {
    macro_rules! scripts {
        ($($name:ident)*) => {
            $(#[test] fn $name() { super::play_ours(stringify!($name)); })*

            pub(super) const ALL: &[&str] = &[$(stringify!($name)),*];
        };
    }

    scripts! {
        administration
        backup
        bad_keys
        binary
        meta_delete
        meta_vivify
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
    // Ours over either driver: without the second flag it takes the one that this kernel lets it have.
    let drivers: &[&[&str]] = match Subject::from_environment() {
        Subject::Ours => &[&["--io", "epoll"], &["--io", "auto"]],
        Subject::Program(_) | Subject::Running(_) => &[&[]],
    };
    for driver in drivers {
        let server = Server::start(&[&flags, *driver].concat());
        script
            .play(server.address(), &mut |duration| server.advance(duration))
            .unwrap_or_else(|disagreement| panic!("{driver:?}: {disagreement}"));
    }
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
