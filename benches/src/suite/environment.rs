//! Where a suite was run: what a reader of its figures must know of the machine.

use std::{fs, io};

use nix::sys::sysinfo::sysinfo;

use super::figures::Environment;
use super::{Plan, Rules};
use crate::clock;

/// The machine, and how `plan` uses it.
pub(super) fn of(plan: &Plan) -> io::Result<Environment> {
    let mut cores = [plan.rules.server_cores.as_slice(), &plan.rules.load_cores].concat();
    cores.sort_unstable();
    cores.dedup();
    let Rules { rounds, round, warm_up, noise_max, noise_allowed, .. } = plan.rules;
    Ok(Environment {
        date: clock::date()?,
        command: plan.command.clone(),
        version: env!("CARGO_PKG_VERSION"),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpu: cpu_name(&fs::read_to_string("/proc/cpuinfo")?),
        cores: cores.len(),
        memory_bytes: sysinfo()?.ram_total(),
        server_cores: plan.rules.server_cores.clone(),
        load_cores: plan.rules.load_cores.clone(),
        rounds,
        round_s: round.as_secs_f64(),
        warm_up_s: warm_up.as_secs_f64(),
        noise_max,
        noise_allowed,
        syscalls: None,
    })
}

/// The first core's name; not every architecture has names.
fn cpu_name(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_has_a_name_or_at_least_an_architecture() {
        assert_eq!(cpu_name("processor : 0\nmodel name\t: Some CPU\n"), "Some CPU");
        assert_eq!(cpu_name("processor : 0\n"), std::env::consts::ARCH);
    }
}
