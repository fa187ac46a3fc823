//! What processes have used, from /proc.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

/// A process's largest resident memory so far, in bytes.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Processor time that a process has used, its ended threads included, in seconds: its own and the kernel's for it.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold anything, the 12th and 13th field, in hundredths.
    let (_, fields) = stat.rsplit_once(')').context("an odd /proc/<pid>/stat")?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<u32>().map(|n| f64::from(n) / 100.0));
    let mut next = || ticks.next().context("a short /proc/<pid>/stat")?.context("an odd /proc/<pid>/stat");
    Ok((next()?, next()?))
}

/// The processes that a process has started.
pub(crate) fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// This program itself, to do something alone: `argument` says what.
pub(crate) fn this(argument: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// A program that `make bench` has installed below the checkout's own `target`.
pub(crate) fn installed(path: &str) -> anyhow::Result<std::path::PathBuf> {
    let program = Path::new("target").join(path);
    anyhow::ensure!(program.exists(), "{} is not there; `make bench` installs it", program.display());
    Ok(program)
}
