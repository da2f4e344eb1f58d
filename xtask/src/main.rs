//! The project's own chores: `cargo xtask test | ci | fmt | fuzz | bench | soak`.
//!
//! A chore is a list of steps, a step is a command that a person could type; each is printed before
//! it runs. A failed step does not keep the next one from running: one run tells everything that is
//! wrong. What cannot be run because a tool is missing is skipped and said so at the end; under
//! `CI=true` it counts as a failure, so a green run there has run everything.

#![expect(clippy::print_stdout, reason = "a chore talks to the person who runs it")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: cargo xtask <chore>

  test                 everything that must pass: unit and integration tests, doc tests, client scripts,
                       the simulator's pages in a browser
  ci                   all that CI asks: formatting, lints, test, docs, dependencies, spelling, smoke runs, the
                       example of sessions in its short form
  fmt [--check]        format; imports too where a nightly rustfmt is installed
  fuzz [--seconds N]   each fuzz target for N seconds (default 60), from the inputs that are kept
  corpus               keep of the inputs that fuzzing has found here those that reach what no other does
  bench [ARGS...]      the criterion benches; ARGS go to cargo bench
  soak [--seconds N]   a real server against a model of it, under random operations (default 3600), and
                       each fuzz target as long; then the campaigns: of restarts, 200 kills, a million
                       flipped bits; of clusters, 10,000 simulated ones, 10,000 simulated control
                       planes, and hours of faults done to real ones";

/// What `cargo xtask fmt` adds to `rustfmt.toml`: options that only a nightly rustfmt knows.
const NIGHTLY_FORMAT: &str = "group_imports=StdExternalCrate,imports_granularity=Module";
/// How long the database of advisories may take to arrive.
const ADVISORIES_LIMIT_S: &str = "60";
/// How many commit messages are spell-checked: what a branch may add, and more.
const COMMITS_SPELLED: &str = "500";

/// How often the campaign of restarts ends the server.
const KILLS: &str = "200";
/// How many simulated clusters a campaign has, and how many control planes.
const SIMULATIONS: &str = "10000";
/// Campaigns of faults done to clusters of processes, and how many faults each has.
const FAILOVERS: [(&str, &str); 5] = [
    ("failover::a_hundred_kills", "100"),
    ("failover::a_hundred_kills_of_a_strict_cluster", "100"),
    ("failover::pauses_of_half_a_minute", "12"),
    ("failover::partitions_of_every_kind", "60"),
    ("failover::every_fault_in_turn", "60"),
];

/// What a person asks for.
#[derive(Debug, PartialEq, Eq)]
enum Chore {
    Test,
    Ci,
    Format { check: bool },
    Fuzz { seconds: u64 },
    Corpus,
    Bench { arguments: Vec<String> },
    Soak { seconds: u64 },
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(chore) = Chore::parse(&arguments) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut run = Run::new();
    if let Err(error) = std::env::set_current_dir(&run.root) {
        run.fail("cannot enter the workspace", &error.to_string());
    }
    match chore {
        Chore::Test => test(&mut run),
        Chore::Ci => ci(&mut run),
        Chore::Format { check } => format(&mut run, check),
        Chore::Fuzz { seconds } => fuzz(&mut run, seconds, &[]),
        Chore::Corpus => corpus(&mut run),
        Chore::Bench { arguments } => {
            run.step("bench", cargo("bench -p benches").args(arguments));
        }
        Chore::Soak { seconds } => {
            soak(&mut run, seconds);
            fuzz(&mut run, seconds, &[]);
            restarts(&mut run);
            clusters(&mut run);
        }
    }
    run.report()
}

impl Chore {
    fn parse(arguments: &[String]) -> Option<Self> {
        let (chore, rest) = arguments.split_first()?;
        let rest_str: Vec<&str> = rest.iter().map(String::as_str).collect();
        match (chore.as_str(), rest_str.as_slice()) {
            ("test", []) => Some(Self::Test),
            ("ci", []) => Some(Self::Ci),
            ("fmt", []) => Some(Self::Format { check: false }),
            ("fmt", ["--check"]) => Some(Self::Format { check: true }),
            ("fuzz", []) => Some(Self::Fuzz { seconds: 60 }),
            ("fuzz", ["--seconds", n]) => Some(Self::Fuzz { seconds: n.parse().ok()? }),
            ("corpus", []) => Some(Self::Corpus),
            ("bench", _) => Some(Self::Bench { arguments: rest.to_vec() }),
            ("soak", []) => Some(Self::Soak { seconds: 3600 }),
            ("soak", ["--seconds", n]) => Some(Self::Soak { seconds: n.parse().ok()? }),
            _ => None,
        }
    }
}

/// The whole of CI. Cheap steps come first.
fn ci(run: &mut Run) {
    format(run, true);
    spelling(run);
    dependencies(run);
    run.cargo("clippy", "clippy --workspace --all-targets -- -D warnings");
    test(run);
    sessions(run);
    // What users run is optimized further than what was tested, and a compiler can be wrong about just that.
    // Without Parquet, whose crates take longer to build than all that is tested here.
    let mut released = cargo(
        "test --release --no-default-features --lib -p cluster -p eviction -p protocol -p sim -p store",
    );
    released
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    run.step("tests, as released", &mut released);
    let mut docs = cargo("doc --workspace --no-deps --document-private-items");
    run.step("docs", docs.env("RUSTDOCFLAGS", "-D warnings"));
    // Criterion runs each bench once and measures nothing when it is not called by `cargo bench`.
    // Of the workspace, so that nothing is built anew with other features.
    run.cargo("benches, once each", "test --workspace --bench *");
    fuzz(run, 10, &[WHOLE_SERVER]);
    soak(run, 60);
}

/// Everything that must pass before a change is one. The README names this command.
fn test(run: &mut Run) {
    let built = run.binaries.clone();
    // With the tests: what is built with them has their features, and would be built twice otherwise.
    run.cargo("build", "build --workspace --bins --tests");
    let mut tests = if !run.has("nextest", &mut cargo("nextest --version")) {
        cargo("test --workspace --lib --bins --tests")
    } else if run.is_ci {
        cargo("nextest run --workspace --profile ci")
    } else {
        cargo("nextest run --workspace")
    };
    run.is_built = true;
    run.name_binaries(&mut tests);
    run.step_by("tests", &mut tests, |tests| failures_of(tests, failed_test));
    let elsewhere = run.root.join("../shared/data");
    let traces = std::env::var_os("CACHE_TRACES").map_or(elsewhere, PathBuf::from);
    if !traces.join("arc-OLTP.oracleGeneral.zst").is_file() {
        run.notice("arc-OLTP was not replayed: CACHE_TRACES names no folder that holds the trace");
    }
    client_elsewhere(run);
    run.cargo("doc tests", "test --workspace --doc");
    clients(run, &built.join("cache-server"));
    pages(run, &built.join("cache-sim"));
}

/// Our client with memcached, as far as its tests need no server of ours.
fn client_elsewhere(run: &mut Run) {
    let name = "client with memcached";
    let mut version = Command::new("memcached");
    if !run.tool(name, "memcached (Debian: memcached)", version.arg("-V")) {
        return;
    }
    let found = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("memcached")).collect::<Vec<_>>()
    });
    let Some(memcached) = found.into_iter().find(|path| path.is_file()) else { return };
    let mut tests = cargo("test --workspace --test it -- client:: compute::");
    run.name_binaries(&mut tests);
    run.step(name, tests.env("CACHE_TEST_SERVER", memcached));
}

/// The simulator's pages, as a browser paints them. No machine that can test the rest must have one.
fn pages(run: &mut Run, sim: &Path) {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    let named = std::env::var("CHROMIUM").ok();
    let is_there = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|it| it.status.success())
    };
    let Some(browser) = named.as_deref().into_iter().chain(names).find(is_there) else {
        run.notice(
            "the simulator's pages were not looked at: no Chromium runs here (Debian: chromium)",
        );
        return;
    };
    if !run.tool("pages", "python3", Command::new("python3").arg("--version")) {
        return;
    }
    let mut look = Command::new("python3");
    look.arg(run.root.join("tests/pages/look.py")).arg("--sim-bin").arg(sim);
    run.step("pages", look.env("CHROMIUM", browser));
}

/// The client scripts: other people's clients against a real server process.
fn clients(run: &mut Run, server: &Path) {
    let folder = run.root.join("tests/clients");
    let Some(python) = python_with(run, "client scripts", "clients", &folder) else { return };
    let modules = node_with(run, "client scripts in JavaScript", "clients", &folder.join("node"));
    let is_ci = run.is_ci;
    let scripts = |how: Option<&str>| {
        let mut scripts = Command::new(&python);
        scripts.arg(folder.join("run.py")).arg("--server-bin").arg(server).args(how);
        if let Some(modules) = &modules {
            scripts.env("CACHE_NODE_MODULES", modules);
        }
        if is_ci {
            scripts.arg("--nothing-skipped");
        }
        scripts
    };
    let (mut alone, mut as_cluster) = (scripts(None), scripts(Some("--cluster")));
    // Both at a time: most of it is waiting for items to expire.
    let said = run.target().join("clients-cluster.log");
    let beside = started_aside(&mut as_cluster, &said);
    run.step_by("client scripts", &mut alone, |scripts| failures_of(scripts, failed_script));
    run.step_by("client scripts, a cluster", &mut as_cluster, |_| {
        let status = beside?.wait()?;
        let said = std::fs::read_to_string(&said)?;
        print!("{said}");
        let failed = said.lines().filter_map(failed_script).map(str::to_owned).collect();
        Ok((status, failed))
    });
}

/// The example of sessions in its short form: users of applications whose replicas and cache nodes are killed.
fn sessions(run: &mut Run) {
    let (name, folder) = ("sessions example", run.root.join("examples/sessions"));
    let Some(python) = python_with(run, name, "sessions", &folder) else { return };
    let Some(modules) = node_with(run, name, "sessions", &folder.join("express")) else { return };
    let drive = |flag: &str| {
        let mut drive = Command::new(&python);
        drive.arg(folder.join("drive.py")).arg(flag).env("CACHE_NODE_MODULES", &modules);
        drive
    };
    let programs = "HAProxy, php-fpm and PHP's Memcached (Debian: haproxy php-fpm php-memcached)";
    if !run.tool(name, programs, &mut drive("--can-run")) {
        return;
    }
    let mut short = drive("--short");
    short.arg("--bin").arg(&run.binaries);
    run.step_by(name, &mut short, |short| failures_of(short, failed_script));
}

/// An interpreter with what the `requirements.txt` of `folder` pins, made once under the target directory and
/// named after `whose` it is.
fn python_with(run: &mut Run, step: &str, whose: &str, folder: &Path) -> Option<PathBuf> {
    let home = run.target().join(format!("{whose}-venv"));
    let python = home.join("bin/python");
    let installed = home.join("installed.txt");
    let requirements = folder.join("requirements.txt");
    let wanted = std::fs::read(&requirements).ok()?;
    if std::fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Some(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&home);
    if !run.tool(step, "python3 with venv (Debian: python3-venv)", &mut make) {
        return None;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    if !run.tool(step, "the Python package index", install.arg(requirements)) {
        return None;
    }
    // Written last: an installation cut short is made again.
    std::fs::write(&installed, wanted).ok()?;
    Some(python)
}

/// Modules for Node.js, those that the `package-lock.json` of `folder` pins; as [`python_with`].
fn node_with(run: &mut Run, step: &str, whose: &str, folder: &Path) -> Option<PathBuf> {
    let home = run.target().join(format!("{whose}-node"));
    let modules = home.join("node_modules");
    let installed = home.join("installed.json");
    let wanted = std::fs::read(folder.join("package-lock.json")).ok()?;
    if std::fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Some(modules);
    }
    std::fs::create_dir_all(&home).ok()?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(folder.join(file), home.join(file)).ok()?;
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&home);
    let needs = "npm and its registry (Debian: nodejs and npm)";
    if !run.tool(step, needs, &mut install) {
        return None;
    }
    // Written last, as above.
    std::fs::write(&installed, wanted).ok()?;
    Some(modules)
}

fn format(run: &mut Run, check: bool) {
    let check: &[&str] = if check { &["--check"] } else { &[] };
    let nightly = ["run", "nightly", "cargo", "fmt"];
    let has_nightly =
        run.has("nightly rustfmt", Command::new("rustup").args(nightly).arg("--version"));
    for manifest in run.manifests() {
        let mut step = if has_nightly {
            let mut rustup = Command::new("rustup");
            rustup.args(nightly);
            rustup
        } else {
            cargo("fmt")
        };
        step.args(["--all", "--manifest-path"]).arg(manifest).args(check);
        if has_nightly {
            step.args(["--", "--config", NIGHTLY_FORMAT]);
        }
        run.step("formatting", &mut step);
    }
    if !has_nightly {
        run.notice("the grouping of imports was not looked at: that takes a nightly rustfmt");
    }
}

/// Spelling of code, documents and commit messages.
fn spelling(run: &mut Run) {
    if !run.tool(
        "spelling",
        "typos (on PyPI and crates.io)",
        Command::new("typos").arg("--version"),
    ) {
        return;
    }
    run.step("spelling", Command::new("typos").arg(run.root.clone()));
    let log = Command::new("git").args(["log", "--format=%B", "-n", COMMITS_SPELLED]).output();
    let Ok(log) = log.map(|output| output.stdout) else { return };
    let messages = run.target().join("commit-messages.txt");
    if std::fs::write(&messages, log).is_ok() {
        run.step("spelling of commit messages", Command::new("typos").arg(messages));
    }
}

/// Licences, sources and duplicates of all dependencies; advisories where their database is reached.
fn dependencies(run: &mut Run) {
    let install = "cargo-deny (cargo install --locked cargo-deny)";
    if !run.tool("dependencies", install, &mut cargo("deny --version")) {
        return;
    }
    run.cargo("dependencies", "deny check -A unused-wrapper licenses bans sources");
    let mut fetch = Command::new("timeout");
    fetch.arg(ADVISORIES_LIMIT_S).arg(cargo("").get_program()).args(["deny", "fetch", "db"]);
    if run.has("advisories", &mut fetch) {
        run.cargo("advisories", "deny check --disable-fetch advisories");
    } else {
        run.notice("advisories were not looked at: their database cannot be reached from here");
    }
}

/// The fuzz target that runs a whole server. To build that with a sanitizer takes longer than CI would run it.
const WHOLE_SERVER: &str = "connection_against_model";

/// Every fuzz target but those `left_out`, for `seconds`.
fn fuzz(run: &mut Run, seconds: u64, left_out: &[&str]) {
    for target in fuzz_targets(run).iter().filter(|target| !left_out.contains(&target.as_str())) {
        let kept = kept_inputs(run, target);
        if kept.is_file() {
            let mut unpack = Command::new("tar");
            unpack.arg("-xzf").arg(&kept).arg("-C").arg(run.root.join("fuzz/corpus"));
            run.step(&format!("inputs of {target}"), &mut unpack);
        }
        let mut step = fuzz_run(target);
        step.args(["--", "-timeout=10"]).arg(format!("-max_total_time={seconds}"));
        run.step(&format!("fuzz {target}"), &mut step);
    }
}

/// Of the inputs that each target has by now, the few that reach all that they reach together, packed.
fn corpus(run: &mut Run) {
    let all = run.root.join("fuzz/corpus");
    for target in fuzz_targets(run) {
        let found = all.join(&target);
        if !found.is_dir() {
            continue;
        }
        // In a folder of the same name, which the archive gives to the folder it is unpacked to.
        let apart = run.target().join("corpus");
        let few = apart.join(&target);
        let _none_before = std::fs::remove_dir_all(&few);
        if let Err(error) = std::fs::create_dir_all(&few) {
            return run.fail("corpus", &error.to_string());
        }
        let mut merge = fuzz_run(&target);
        merge.arg(&few).arg(&found).args(["--", "-set_cover_merge=1"]);
        run.step(&format!("inputs of {target}"), &mut merge);
        // Nothing but the inputs is in the archive: the same make the same.
        let mut pack = Command::new("tar");
        pack.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
        pack.arg("--use-compress-program=gzip -9n").arg("-cf").arg(kept_inputs(run, &target));
        run.step(&format!("pack {target}"), pack.arg("-C").arg(apart).arg(&target));
    }
}

/// Inputs of a fuzz target that are kept: an archive, since thousands of files are a burden to every clone.
fn kept_inputs(run: &Run, target: &str) -> PathBuf {
    run.root.join(format!("fuzz/corpus/{target}.tar.gz"))
}

/// The names of all fuzz targets; none where they cannot be built.
fn fuzz_targets(run: &mut Run) -> Vec<String> {
    let install = "cargo-fuzz (cargo install --locked cargo-fuzz)";
    if !run.tool("fuzz targets", install, &mut cargo("fuzz --version")) {
        return Vec::new();
    }
    let list = cargo("fuzz list").output().map(|output| output.stdout).unwrap_or_default();
    let targets: Vec<_> = String::from_utf8_lossy(&list).lines().map(str::to_owned).collect();
    if targets.is_empty() {
        run.skip("fuzz targets", "there are none in fuzz/");
    }
    targets
}

/// `cargo fuzz run` of a target.
fn fuzz_run(target: &str) -> Command {
    let mut step = cargo("fuzz run");
    // The sanitizer's flag is unstable; this variable lets the stable compiler take it.
    step.env("RUSTC_BOOTSTRAP", "1");
    if target == WHOLE_SERVER {
        step.args(["--features", "server"]);
    }
    step.arg(target);
    step
}

/// A real server against a model of it; see `tests/it/soak.rs`.
fn soak(run: &mut Run, seconds: u64) {
    // Of the workspace, so that nothing is built anew with other features.
    let soak = "test --workspace --test it -- --ignored soak::";
    if run.is_any_test("soak", soak, "soak::") {
        let seconds = seconds.to_string();
        let mut step = cargo(soak);
        run.name_binaries(&mut step);
        run.step("soak", step.arg("--nocapture").env("SOAK_SECONDS", seconds));
    }
}

/// A server killed over and over, and its file damaged everywhere; see `tests/it/warm_restart.rs` and
/// `store/tests/damage.rs`. Both have short forms among the tests.
fn restarts(run: &mut Run) {
    let kills = "test -p tests --test it -- warm_restart::a_killed_server";
    if run.is_any_test("kills", kills, "warm_restart::") {
        run.step("kills", cargo(kills).arg("--nocapture").env("KILL_COUNT", KILLS));
    }
    let damage = "test --release -p store --test damage -- --ignored";
    if run.is_any_test("damage", damage, "a") {
        run.step("damage", cargo(damage).args(["--nocapture", "--test-threads=1"]));
    }
}

/// Clusters and their control planes, simulated from many seeds, and clusters of real processes; see
/// `cluster/tests/simulation`, `cache-server/src/control_plane/simulation.rs` and `tests/it/failover.rs`. All have
/// short forms among the tests.
fn clusters(run: &mut Run) {
    for (name, simulation, prefix) in [
        ("simulated clusters", "test --release -p cluster --test simulation -- no_seed", "no_seed"),
        (
            "simulated control planes",
            "test --release -p cache-server --lib -- simulation::no_seed",
            "control_plane::simulation::no_seed",
        ),
    ] {
        if run.is_any_test(name, simulation, prefix) {
            let mut step = cargo(simulation);
            run.step(name, step.arg("--nocapture").env("SIM_SEEDS", SIMULATIONS));
        }
    }
    for (campaign, rounds) in FAILOVERS {
        let tests = format!("test --workspace --test it -- --ignored --exact {campaign}");
        if run.is_any_test(campaign, &tests, "failover::") {
            run.step(campaign, cargo(&tests).arg("--nocapture").env("FAILOVER_ROUNDS", rounds));
        }
    }
}

/// One call of a chore: where it runs, and what came of its steps.
struct Run {
    /// The workspace's folder.
    root: PathBuf,
    /// Where cargo puts binaries of the profile this program was built in.
    binaries: PathBuf,
    is_ci: bool,
    /// Whether the workspace's programs have been built by this call.
    is_built: bool,
    failed: Vec<String>,
    skipped: Vec<String>,
    notices: Vec<String>,
    timings: Vec<(String, Duration)>,
}

impl Run {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf);
        let program = std::env::current_exe().ok();
        let binaries = program.as_deref().and_then(Path::parent).map(Path::to_path_buf);
        Self {
            root: root.expect("xtask lies in the workspace"),
            binaries: binaries.expect("a program lies in a folder"),
            is_ci: std::env::var_os("CI").is_some_and(|value| value == "true"),
            is_built: false,
            failed: Vec::new(),
            skipped: Vec::new(),
            notices: Vec::new(),
            timings: Vec::new(),
        }
    }

    fn target(&self) -> PathBuf {
        self.binaries.parent().map_or_else(|| self.root.join("target"), Path::to_path_buf)
    }

    /// The workspace, and the fuzz targets, which are one of their own.
    fn manifests(&self) -> Vec<PathBuf> {
        let all = [self.root.join("Cargo.toml"), self.root.join("fuzz/Cargo.toml")];
        all.into_iter().filter(|manifest| manifest.is_file()).collect()
    }

    /// A step that is cargo with the words of `line`.
    fn cargo(&mut self, name: &str, line: &str) {
        self.step(name, &mut cargo(line));
    }

    /// Runs `command`, and remembers how it ended and how long it took.
    fn step(&mut self, name: &str, command: &mut Command) {
        self.step_by(name, command, |command| Ok((command.status()?, BTreeSet::new())));
    }

    /// As [`Run::step`]; `run` does it, and says what failed in it besides.
    fn step_by(
        &mut self,
        name: &str,
        command: &mut Command,
        run: impl FnOnce(&mut Command) -> io::Result<(ExitStatus, BTreeSet<String>)>,
    ) {
        println!("\n==> {name}: {}", shown(command));
        let start = now();
        let ended = run(command.stdin(Stdio::null()));
        self.timings.push((name.to_owned(), now() - start));
        match ended {
            Ok((status, _)) if status.success() => {}
            Ok((status, failed)) => {
                self.fail(name, &status.to_string());
                failed.iter().for_each(|one| self.fail(name, one));
            }
            Err(error) => self.fail(name, &error.to_string()),
        }
    }

    /// Names the programs to tests that would have them built otherwise, if they have just been built.
    fn name_binaries(&self, tests: &mut Command) {
        if self.is_built {
            tests.env("CACHE_SERVER_BIN", self.binaries.join("cache-server"));
            tests.env("CACHE_CTL_BIN", self.binaries.join("cache-ctl"));
            tests.env("CACHE_SIM_BIN", self.binaries.join("cache-sim"));
        }
    }

    /// Whether `command`, which finds out if something is installed, succeeds.
    fn has(&self, name: &str, command: &mut Command) -> bool {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let found = silent.status().is_ok_and(|status| status.success());
        if !found {
            println!("\n==> {name}: not found here");
        }
        found
    }

    /// Whether `tests` are any at all, whose names begin with `prefix`; if not, the step is skipped. A
    /// filter that fits nothing passes; that must not look like tests that ran.
    fn is_any_test(&mut self, name: &str, tests: &str, prefix: &str) -> bool {
        let listed = cargo(tests).arg("--list").stderr(Stdio::null()).output();
        let is_any = listed.is_ok_and(|output| output.stdout.starts_with(prefix.as_bytes()));
        if !is_any {
            self.skip(name, &format!("`cargo {tests}` finds no test"));
        }
        is_any
    }

    /// As [`Run::has`]; without it the step `name` is skipped, and `needs` says what is missing.
    fn tool(&mut self, name: &str, needs: &str, command: &mut Command) -> bool {
        let found = self.has(name, command);
        if !found {
            self.skip(name, &format!("needs {needs}"));
        }
        found
    }

    fn fail(&mut self, name: &str, why: &str) {
        println!("FAILED: {name}: {why}");
        self.failed.push(format!("{name}: {why}"));
    }

    fn skip(&mut self, name: &str, why: &str) {
        println!("SKIPPED: {name}: {why}");
        self.skipped.push(format!("{name}: {why}"));
    }

    /// Something that could not be looked at and no machine of ours can change.
    fn notice(&mut self, text: &str) {
        println!("NOTICE: {text}");
        self.notices.push(text.to_owned());
    }

    fn report(self) -> ExitCode {
        println!();
        for (name, duration) in &self.timings {
            println!("{:8.1} s  {name}", duration.as_secs_f64());
        }
        let lists =
            [("NOTICE", &self.notices), ("SKIPPED", &self.skipped), ("FAILED", &self.failed)];
        for (mark, lines) in lists {
            lines.iter().for_each(|line| println!("{mark}: {line}"));
        }
        let may_skip = !self.is_ci;
        let green = self.failed.is_empty() && (may_skip || self.skipped.is_empty());
        println!("{}", if green { "passed" } else { "FAILED" });
        if green { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Runs tests, passes on what they say, and returns which failed or took too long, by the lines that `named`
/// finds a name in: what they said is followed by pages of other steps, so the report names them again.
fn failures_of(
    command: &mut Command,
    named: impl Fn(&str) -> Option<&str>,
) -> io::Result<(ExitStatus, BTreeSet<String>)> {
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut failed = BTreeSet::new();
    for line in child.stderr.take().into_iter().flat_map(|said| BufReader::new(said).lines()) {
        let line = line?;
        let _unread = writeln!(io::stderr(), "{line}");
        failed.extend(named(&line).map(str::to_owned));
    }
    Ok((child.wait()?, failed))
}

/// Starts a program that says all it says to the file `said`.
fn started_aside(command: &mut Command, said: &Path) -> io::Result<Child> {
    let file = std::fs::File::create(said)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()
}

/// The test that one of nextest's lines calls failed: `FAIL [   0.358s] (846/944) tests::it some::name`.
fn failed_test(line: &str) -> Option<&str> {
    let (mark, rest) = line.trim_start().split_once(" [")?;
    let test = rest.split_once(")").map(|(_, test)| test.trim());
    test.filter(|_| ["FAIL", "TIMEOUT", "ABORT", "SIGSEGV", "SIGABRT"].contains(&mark))
}

/// The test and the reason in a line of the client scripts' runner, `FAILED: test_node.Node.test_a: ...`, or what
/// happened to whom in one of the example of sessions.
fn failed_script(line: &str) -> Option<&str> {
    line.strip_prefix("FAILED: ")
}

/// The cargo that runs this program, with the words of `line`.
fn cargo(line: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(line.split_whitespace());
    cargo
}

/// `command` as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[expect(clippy::disallowed_methods, reason = "how long a step took is all it is asked for")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Chore> {
        Chore::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_chore_is_known_by_its_name() {
        assert_eq!(parsed("ci"), Some(Chore::Ci));
        assert_eq!(parsed("corpus"), Some(Chore::Corpus));
        assert_eq!(parsed("fmt --check"), Some(Chore::Format { check: true }));
        assert_eq!(parsed("soak --seconds 60"), Some(Chore::Soak { seconds: 60 }));
        let arguments = vec!["--bench".to_owned(), "decode".to_owned()];
        assert_eq!(parsed("bench --bench decode"), Some(Chore::Bench { arguments }));
    }

    #[test]
    fn what_is_no_chore_gets_the_usage() {
        for line in ["", "deploy", "ci --quick", "soak --seconds", "soak --seconds long"] {
            assert_eq!(parsed(line), None, "{line}");
        }
    }

    #[test]
    fn a_skipped_step_fails_only_where_nothing_may_be_skipped() {
        for is_ci in [false, true] {
            let mut run = Run::new();
            run.is_ci = is_ci;
            run.skip("a step", "its tool is missing");
            let expected = if is_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            assert_eq!(run.report(), expected);
        }
    }

    #[test]
    fn a_failed_test_is_known_by_its_line() {
        let line = "        FAIL [   0.358s] (846/944) tests::it backup::half_is_none";
        assert_eq!(failed_test(line), Some("tests::it backup::half_is_none"));
        let line = "     TIMEOUT [ 300.000s] (1/9) sim curve";
        assert_eq!(failed_test(line), Some("sim curve"));
        for line in ["", "        SLOW [> 60.000s] (1/9) sim curve", "Summary [ 1s] 9 tests"] {
            assert_eq!(failed_test(line), None, "{line}");
        }
    }

    #[test]
    fn a_failed_script_is_known_by_its_line() {
        let line = "FAILED: test_node.Node.test_a: AssertionError: 1 != 2";
        assert_eq!(failed_script(line), Some("test_node.Node.test_a: AssertionError: 1 != 2"));
        assert_eq!(failed_script("FAILED (failures=1)"), None);
    }

    #[test]
    fn a_failed_step_fails_the_run_and_the_next_still_runs() {
        let mut run = Run::new();
        run.step("fails", &mut Command::new("false"));
        run.step("runs", &mut Command::new("true"));
        assert_eq!((run.failed.len(), run.timings.len()), (1, 2));
        assert_eq!(run.report(), ExitCode::FAILURE);
    }
}
