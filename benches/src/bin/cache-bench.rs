//! Loads memcached-protocol servers, replays traces against them, and compares them.

use std::io::{self, Write};
use std::process::ExitCode;

use benches::cli::{Cli, Verdict};
use clap::Parser;

fn main() -> ExitCode {
    let complain = |text: &dyn std::fmt::Display| {
        // Without standard error there is nobody left to tell.
        let _ = writeln!(io::stderr(), "cache-bench: {text}");
        ExitCode::FAILURE
    };
    match Cli::parse().execute() {
        Ok(Verdict::Sound) => ExitCode::SUCCESS,
        Ok(Verdict::WrongValues) => complain(&"the server gave values that are not their keys'"),
        Err(error) => complain(&format_args!("{error:#}")),
    }
}
