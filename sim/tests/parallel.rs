//! Parts of a log played by processes of their own, as GNU parallel and Spark start them, and put together.
//!
//! The command lines are those of `docs/sizing.md`, with `xargs -P` in the place of `parallel`, and a shell
//! that is handed its part on standard input in the place of a Spark task.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Runs a line of shell in `folder`, where `$SIM` is the simulator, and returns what it printed.
fn sh(folder: &Path, line: &str) -> String {
    let output = Command::new("sh")
        .args(["-e", "-c", line])
        .current_dir(folder)
        .env("SIM", env!("CARGO_BIN_EXE_cache-sim"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with a log of reads, `log.csv`: time, id, size.
fn folder_with_log() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut log = String::new();
    for n in 0..60_000 {
        let id = draw(120).pow(2) + draw(60);
        log += &format!("{},{id},{}\n", n / 100, 200 + id * 7 % 3000);
    }
    std::fs::write(folder.path().join("log.csv"), log).unwrap();
    folder
}

/// Miss ratios by policy and size.
fn miss_ratios(csv: &str) -> BTreeMap<(String, u64), f64> {
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let column = |name: &str| names.iter().position(|known| *known == name).unwrap();
    let (policy, size, ratio) = (column("policy"), column("cache_size"), column("miss_ratio"));
    let row = |row: Vec<&str>| {
        ((row[policy].to_owned(), row[size].parse().unwrap()), row[ratio].parse().unwrap())
    };
    lines.map(row).collect()
}

#[test]
fn a_server_played_in_parts_is_the_server_to_the_last_hit() {
    let folder = folder_with_log();
    let flags = "--format csv --policy all --as-server 4MiB,9MiB --threads 1 --item-size-max 64KiB";
    let whole = sh(folder.path(), &format!("\"$SIM\" run --trace log.csv {flags} --output csv"));
    let merged = sh(
        folder.path(),
        &format!(
            "seq 3 | xargs -P 3 -I{{}} sh -c 'cat log.csv | \"$SIM\" run --trace - {flags} \
             --part {{}}/3 --save part{{}}.json > part{{}}.txt'
             \"$SIM\" merge part1.json part2.json part3.json --output csv"
        ),
    );
    assert_eq!(merged, whole);
    assert_eq!(whole.lines().count(), 1 + 9 * 2);
    let hits = |line: &str| line.split(',').nth(3).unwrap().parse::<u64>().unwrap();
    assert!(whole.lines().skip(1).all(|line| hits(line) > 10_000), "{whole}");
}

#[test]
fn tasks_that_are_told_their_part_and_print_their_figures_are_the_whole_too() {
    let folder = folder_with_log();
    let flags =
        "--format csv --policy lru,s3fifo --as-server 4MiB --threads 1 --item-size-max 64KiB";
    let whole = sh(folder.path(), &format!("\"$SIM\" run --trace log.csv {flags} --output csv"));
    let task =
        format!("read part; cat log.csv | \"$SIM\" run --trace - {flags} --part $part/5 --save -");
    let merged = sh(
        folder.path(),
        &format!(
            "for part in 1 2 3 4 5; do echo $part | sh -c '{task}'; done > lines.json
             \"$SIM\" merge - --output csv < lines.json"
        ),
    );
    assert_eq!(merged, whole);
}

#[test]
fn what_others_dealt_is_close_to_the_whole() {
    let folder = folder_with_log();
    sh(folder.path(), "awk -F, '{ print > (\"dealt\" $2 % 4 + 1 \".csv\") }' log.csv");
    let flags = "--format csv --unit objects --size 600,2400";
    for (command, policies, within) in
        [("run", "--policy lru,arc,sieve", 0.01), ("curve", "", 0.02)]
    {
        let flags = format!("{flags} {policies}");
        let whole =
            sh(folder.path(), &format!("\"$SIM\" {command} --trace log.csv {flags} --output csv"));
        let merged = sh(
            folder.path(),
            &format!(
                "for part in 1 2 3 4; do
                   {{ echo $part; cat dealt$part.csv; }} | sh -c 'read part; exec \"$SIM\" {command} \
                   --trace - {flags} --part $part/4 --dealt --save -'
                 done | \"$SIM\" merge - --size 600,2400 --output csv"
            ),
        );
        let (whole, merged) = (miss_ratios(&whole), miss_ratios(&merged));
        assert_eq!(whole.len(), merged.len());
        for (of, whole) in &whole {
            let apart = (whole - merged[of]).abs();
            assert!(apart <= within, "{command}: {of:?} is {apart} apart");
            assert!(*whole > 0.05 && *whole < 0.95, "{of:?} is {whole}");
        }
    }
}

#[test]
fn parts_that_do_not_go_together_are_refused_by_name() {
    let folder = folder_with_log();
    let error = sh(
        folder.path(),
        "for size in 4MiB 5MiB; do
           \"$SIM\" run --trace log.csv --policy lru --as-server $size --part 1/2 --save $size.json > out.txt
         done
         ! \"$SIM\" merge 4MiB.json 5MiB.json 2>&1",
    );
    assert!(error.contains("5MiB.json: part 1/2 is there twice"), "{error}");
}
