//! The arrows between the crates, compared with the manifests, and what every source file says of
//! itself.
//!
//! Adding an arrow is a change of its own: to a manifest, to this table, and to the one in
//! `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates of the workspace each crate may use, from the lowest level to the highest.
const ARROWS: &[(&str, &[&str])] = &[
    ("eviction", &[]),
    ("protocol", &[]),
    ("cluster", &[]),
    ("store", &["eviction"]),
    ("sim", &["eviction", "store"]),
    ("cache-client", &["protocol", "cluster", "eviction"]),
    ("cache-server", &["store", "eviction", "protocol", "cluster"]),
    ("cache-ctl", &["cache-client", "protocol"]),
    ("tests", ANY),
    ("benches", ANY),
    ("xtask", &[]),
    ("axum-shop", &["cache-client"]),
];

/// The top level sees everything, except that nothing sees the top level.
const ANY: &[&str] = &[
    "eviction",
    "protocol",
    "cluster",
    "store",
    "sim",
    "cache-client",
    "cache-server",
    "cache-ctl",
];

/// Crates without any `unsafe`, which say so to the compiler.
const SAFE: &[&str] = &["eviction", "protocol", "cluster"];

/// One crate of the workspace, as its manifest has it.
struct Crate {
    name: String,
    folder: PathBuf,
    /// The crates of the workspace it names, under whatever kind of dependency.
    uses: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn crates() -> Vec<Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| Crate {
            name: text(&package["name"]),
            folder: Path::new(&text(&package["manifest_path"])).parent().unwrap().to_path_buf(),
            uses: package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["path"].is_string())
                .map(|dependency| text(&dependency["name"]))
                .collect(),
        })
        .collect()
}

/// The `.rs` files below `folder`, in order.
fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_arrow_between_crates_is_in_the_table() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for found in crates() {
        let may_use = allowed.get(found.name.as_str());
        let may_use = may_use.unwrap_or_else(|| panic!("{} is not in the table", found.name));
        for used in &found.uses {
            assert!(may_use.contains(&used.as_str()), "{} may not use {used}", found.name);
        }
    }
}

#[test]
fn the_arrows_of_the_table_only_point_down() {
    let position = |name: &str| ARROWS.iter().position(|(known, _)| *known == name);
    for (name, uses) in ARROWS {
        for used in *uses {
            assert!(position(used) < position(name), "{name} uses {used}, which stands above it");
        }
    }
}

#[test]
fn every_source_file_opens_by_saying_what_it_is() {
    let folders = crates().into_iter().map(|found| found.folder);
    let mut silent = Vec::new();
    for folder in folders.chain([root().join("fuzz/fuzz_targets")]).filter(|folder| folder.is_dir())
    {
        for file in source_files(&folder) {
            let text = std::fs::read_to_string(&file).unwrap();
            let first = text.lines().find(|line| !line.is_empty() && !line.starts_with("#!"));
            if !first.is_some_and(|line| line.starts_with("//! ") && line.len() > 10) {
                silent.push(file);
            }
        }
    }
    assert!(silent.is_empty(), "without a header: {silent:#?}");
}

#[test]
fn module_files_stand_beside_their_folder() {
    for found in crates() {
        let strays: Vec<PathBuf> = source_files(&found.folder)
            .into_iter()
            .filter(|file| file.ends_with("mod.rs"))
            .collect();
        assert!(strays.is_empty(), "write name.rs beside name/: {strays:#?}");
    }
}

#[test]
fn the_pure_crates_forbid_unsafe() {
    for found in crates().iter().filter(|found| SAFE.contains(&found.name.as_str())) {
        let library = std::fs::read_to_string(found.folder.join("src/lib.rs")).unwrap();
        assert!(library.contains("#![forbid(unsafe_code)]"), "{} allows unsafe", found.name);
    }
}

#[test]
fn every_crate_follows_the_lints_of_the_workspace() {
    for found in crates() {
        let manifest = std::fs::read_to_string(found.folder.join("Cargo.toml")).unwrap();
        let follows = manifest.contains("[lints]\nworkspace = true")
            || manifest.contains("lints.workspace = true");
        assert!(follows, "{} has lints of its own", found.name);
    }
}
