//! Resource usage of processes, from /proc.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

/// A process's peak resident memory in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// CPU seconds of a process, ended threads included: in user mode and in the kernel.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The 12th and 13th fields after the name, which may contain anything, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').context("malformed /proc/<pid>/stat")?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<u32>().map(|n| f64::from(n) / 100.0));
    let mut next = || ticks.next().context("truncated /proc/<pid>/stat")?.context("malformed /proc/<pid>/stat");
    Ok((next()?, next()?))
}

/// The direct children of a process.
pub(crate) fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// This program itself, started to do one thing in isolation, named by `argument`.
pub(crate) fn this(argument: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// A program that `make bench` has installed below the checkout's `target`.
pub(crate) fn installed(path: &str) -> anyhow::Result<std::path::PathBuf> {
    let program = Path::new("target").join(path);
    anyhow::ensure!(program.exists(), "{} does not exist; `make bench` installs it", program.display());
    Ok(program)
}
