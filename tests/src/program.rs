//! Where the workspace's own binaries are, built as the tests themselves are built.
//!
//! Cargo names a binary in `CARGO_BIN_EXE_…` only to the tests of its own package. A test here asks
//! cargo to build it, which costs a moment when nothing changed and can never run a stale binary.
//! `cargo xtask test` builds them once and names them in `CACHE_SERVER_BIN`, `CACHE_CTL_BIN` and
//! `CACHE_SIM_BIN`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A binary of this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `cache-server`, of the package of that name.
    Server,
    /// `cache-ctl`.
    Ctl,
    /// `cache-sim`, of the package `sim`.
    Sim,
}

impl Program {
    /// The binary's path, after building it unless the environment names one.
    ///
    /// # Panics
    /// When it does not build: no test that needs it can say anything then.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let (package, binary, variable) = match self {
            Self::Server => ("cache-server", "cache-server", "CACHE_SERVER_BIN"),
            Self::Ctl => ("cache-ctl", "cache-ctl", "CACHE_CTL_BIN"),
            Self::Sim => ("sim", "cache-sim", "CACHE_SIM_BIN"),
        };
        match std::env::var_os(variable) {
            Some(path) => PathBuf::from(path),
            None => build(package, binary),
        }
    }
}

fn build(package: &str, binary: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--message-format=json", "--package", package]);
    cargo.args(["--bin", binary]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo could not build {binary}");
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == binary)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built {binary} without naming it"))
}
