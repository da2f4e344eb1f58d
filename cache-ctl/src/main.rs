//! `cache-ctl`: parse the arguments, run, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use cache_ctl::cli;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => return answer.print(),
    };
    match cli.run() {
        Ok(exit_code) => exit_code,
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "cache-ctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}
