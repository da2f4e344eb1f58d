//! Parse the arguments, run, exit code.

use std::process::ExitCode;

use cache_server::{cli, logging, process};

fn main() -> ExitCode {
    let config = match cli::parse(std::env::args_os()) {
        Ok(config) => config,
        Err(answer) => return answer.print(),
    };
    logging::start(config.verbosity);
    match process::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit_code = ExitCode::from(error.exit_code());
            tracing::error!("{:#}", anyhow::Error::new(error));
            exit_code
        }
    }
}
