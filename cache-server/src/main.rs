//! Parse the arguments, run, exit code.

use std::process::ExitCode;

use cache_server::cli::Command;
use cache_server::local_cluster::{self, Plan};
use cache_server::{Config, cli, logging, process};

fn main() -> ExitCode {
    match cli::parse_command(std::env::args_os()) {
        Ok(Command::Serve(config)) => serve(&config),
        Ok(Command::LocalCluster(plan)) => try_out(&plan),
        Err(answer) => answer.print(),
    }
}

fn serve(config: &Config) -> ExitCode {
    logging::start(config.verbosity);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match process::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit_code = ExitCode::from(error.exit_code());
            tracing::error!("{:#}", anyhow::Error::new(error));
            exit_code
        }
    }
}

fn try_out(plan: &Plan) -> ExitCode {
    logging::start(0);
    match local_cluster::run(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
