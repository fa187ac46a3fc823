//! Innkeeper next to comparable programs ("peers"), in one run on one machine. `make bench` starts what this needs and
//! passes it in the environment (`INNKEEPER_TEST_…` as for the tests, and `PGBENCH`).
//!
//!   innkeeper-bench [console] [create] [cycle] [edits] [fanout] [history] [list] [reads] [sweep]
//!
//! Without arguments it runs all of them.

#![allow(clippy::disallowed_methods, reason = "benchmarks create and inspect databases with ad-hoc SQL")]

mod console;
mod create;
mod crowd;
mod cycle;
mod edits;
mod fanout;
mod history;
mod house;
mod lab;
mod list;
mod load;
mod pgbench;
mod proc;
mod reads;
mod report;
mod stats;
mod sweep;

use std::path::PathBuf;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Report;

/// In the order in which they run.
const ALL: &[&str] = &["list", "console", "reads", "sweep", "cycle", "fanout", "history", "create", "edits"];

/// The same runtime as the service's: one thread per CPU.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    // Arguments with which a benchmark starts this program to measure one thing in isolation.
    match wanted.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["only-sweep"] => return sweep::only_sweep().await,
        ["only-cycle"] => return cycle::only_cycle().await,
        _ => {}
    }
    if let Some(unknown) = wanted.iter().find(|w| !ALL.contains(&w.as_str())) {
        anyhow::bail!("unknown benchmark {unknown:?}; available: {}", ALL.join(", "));
    }
    // An error means that it is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let target = PathBuf::from(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into()));
    std::fs::create_dir_all(&target).context("creating the folder for the results")?;
    log(&target)?;
    let mut report = Report::new(house::cluster_words().await?);
    let interrupted = tokio::select! {
        () = measure(&mut report, |name| wanted.is_empty() || wanted.iter().any(|w| w == name)) => false,
        () = interrupted()? => true,
    };
    if interrupted {
        report.keep("what was still to come", Err(anyhow::anyhow!("interrupted")));
    }
    // Cleans up after an interrupted benchmark; finished ones have done so themselves.
    house::tidy_all().await;
    report.print()?;
    report.write(&target.join("bench.json"))?;
    report.verdict()
}

/// Runs them one after another. If one fails, the others still run.
async fn measure(report: &mut Report, is_wanted: impl Fn(&str) -> bool) {
    for name in ALL.iter().copied().filter(|name| is_wanted(name)) {
        let measured = match name {
            "list" => list::measure(report).await,
            "console" => console::measure(report).await,
            "reads" => reads::measure(report).await,
            "sweep" => sweep::measure(report).await,
            "cycle" => cycle::measure(report).await,
            "fanout" => fanout::measure(report).await,
            "history" => history::measure(report).await,
            "create" => create::measure(report).await,
            "edits" => edits::measure(report).await,
            _ => Err(anyhow::anyhow!("listed but not implemented")),
        };
        if !report.keep(name, measured) {
            house::tidy_all().await;
        }
    }
}

fn interrupted() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Logs as the service does by default, one line per request: that is part of a request's cost.
fn log(target: &std::path::Path) -> anyhow::Result<()> {
    let path = target.join("bench.log");
    let file = std::fs::File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    let filter = std::env::var("INNKEEPER_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_new(filter).context("INNKEEPER_LOG is not a valid filter")?)
        .with_ansi(false)
        .with_writer(file)
        .try_init()
        .map_err(|e| anyhow::anyhow!("starting the log: {e}"))
}
