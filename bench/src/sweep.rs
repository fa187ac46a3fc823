//! One sweep of a cluster of 50 nodes with 10,000 guests, next to `prometheus-pve-exporter` scraping the same server.
//!
//! Each sweep uses a new connection, as it does every 30 s, and so does each scrape. The server's list is rendered
//! beforehand and stays the same, so neither side waits for it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use fleet::{Fleet, Kind, Options};
use hypervisor::Inventory;
use proxmox::{Proxmox, ProxmoxConfig};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::proc;
use crate::report::{Report, Row, say};
use crate::stats::median;

const NODES: usize = 50;
const GUESTS: usize = 10_000;
/// Rounds per side.
const ROUNDS: usize = 5;
/// Sweeps per round of ours; the first of a new process is not counted.
const SWEEPS: usize = 4;
/// At least 20 times as fast.
const AIM: f64 = 0.05;
/// The version that `scripts/bench.sh` installs.
pub(crate) const EXPORTER: &str = "prometheus-pve-exporter 3.10.2";
/// The collectors that make one request for everything (`cluster=1&node=0`): the one that covers what a sweep does
/// (except which guests are running), and all of them.
const ONE: &str = "collector.resources alone";
/// Collectors to switch off for that.
pub(crate) const NOT_RESOURCES: &[&str] = &["status", "version", "node", "cluster", "backup-info", "qdevice"];
const ALL: &str = "cluster collectors";

/// Results of a process that only sweeps.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    milliseconds: Vec<f64>,
    guests: usize,
    peak_memory: u64,
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let forever = Duration::from_hours(1);
    let options = Options { nodes: NODES, fresh_for: forever, ..Options::new(Kind::Proxmox, 1, GUESTS) };
    let fleet = Fleet::start(options).await?;
    let host = fleet.host(0);
    let settings = host.driver_settings().to_string();
    let target = host.url().replace("https://", "");
    // Not counted: the server renders its lists, and both sides load what they need.
    sweeps(&settings).await?;
    let (mut ours, mut memory) = (Vec::new(), 0);
    let mut peers = Vec::new();
    for (collectors, flags) in [(ONE, NOT_RESOURCES), (ALL, &[])] {
        let exporter = Exporter::start(flags).await?;
        exporter.scrape(&target, GUESTS).await?;
        let mut times = Vec::new();
        for round in 1..=ROUNDS {
            let mine = sweeps(&settings).await?;
            let peer = exporter.scrape(&target, GUESTS).await?;
            let middle = median(&mine.milliseconds);
            say(&format!("sweep {round}/{ROUNDS}: {middle:.1} ms; {EXPORTER}, {collectors}: {peer:.0} ms"));
            ours.extend(mine.milliseconds);
            memory = memory.max(mine.peak_memory);
            times.push(peer);
        }
        peers.push((collectors, median(&times), proc::peak_memory(exporter.worker()?)?));
    }
    let ours = median(&ours);
    for (collectors, time, peak) in peers {
        let name = |what: &str| format!("sweep of {GUESTS} guests on {NODES} nodes, beside {collectors}: {what}");
        let who = EXPORTER;
        report.add(Row { aim: Some(AIM), ..Row::cost(&name("time"), "ms", ours, time, who) });
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        report.add(Row {
            remark: "ours: a process that only sweeps; peer: the worker that scrapes".to_owned(),
            ..Row::cost(&name("peak memory"), "MiB", mib(memory), mib(peak), who)
        });
    }
    Ok(())
}

/// Runs some sweeps in a process of their own.
async fn sweeps(settings: &str) -> anyhow::Result<Seen> {
    let mut child = proc::this("only-sweep")?.spawn()?;
    child.stdin.take().context("piped")?.write_all(settings.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "the sweeping process failed: {}", output.status);
    let seen: Seen = serde_json::from_slice(&output.stdout)?;
    anyhow::ensure!(seen.guests == GUESTS, "{} guests were seen", seen.guests);
    Ok(seen)
}

/// Body of that process: settings on stdin, results on stdout.
pub(crate) async fn only_sweep() -> anyhow::Result<()> {
    let config: ProxmoxConfig = serde_json::from_reader(std::io::stdin().lock())?;
    let mut seen = Seen { milliseconds: Vec::new(), guests: 0, peak_memory: 0 };
    for sweep in 0..SWEEPS {
        let driver = Proxmox::new(config.clone())?;
        let start = Instant::now();
        seen.guests = driver.sweep().await?.guests.len();
        if sweep > 0 {
            seen.milliseconds.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    seen.peak_memory = proc::peak_memory(std::process::id())?;
    Ok(serde_json::to_writer(std::io::stdout().lock(), &seen)?)
}

#[derive(Debug)]
pub(crate) struct Exporter {
    process: Child,
    url: String,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Exporter {
    pub(crate) async fn start(without: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("pve.yml");
        // The fleet accepts any token.
        let token = "user: innkeeper@pve, token_name: fleet, token_value: fleet";
        tokio::fs::write(&config, format!("default: {{{token}, verify_ssl: false, timeout: 60}}\n")).await?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new(proc::installed("pve-exporter/bin/pve_exporter")?)
            .arg("--config.file")
            .arg(&config)
            .args(["--web.listen-address", &format!("127.0.0.1:{port}")])
            .args(without.iter().map(|collector| format!("--no-collector.{collector}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(2)).build()?;
        let url = format!("http://127.0.0.1:{port}/");
        let exporter = Self { process, url, http, _folder: folder };
        let until = Instant::now() + Duration::from_mins(1);
        while let Err(error) = exporter.http.get(&exporter.url).send().await {
            anyhow::ensure!(Instant::now() < until, "{EXPORTER} does not respond: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(exporter)
    }

    /// One scrape of a host with this many guests, in milliseconds.
    pub(crate) async fn scrape(&self, target: &str, guests: usize) -> anyhow::Result<f64> {
        let start = Instant::now();
        let url = format!("{}pve?target={target}&cluster=1&node=0", self.url);
        let text = self.http.get(url).send().await?.error_for_status()?.text().await?;
        let time = start.elapsed().as_secs_f64() * 1000.0;
        let seen = text.lines().filter(|line| line.starts_with("pve_guest_info{")).count();
        anyhow::ensure!(seen == guests, "{EXPORTER} reports {seen} guests");
        Ok(time)
    }

    /// The process that scrapes; the exporter itself only supervises it.
    pub(crate) fn worker(&self) -> anyhow::Result<u32> {
        let pid = self.process.id().with_context(|| format!("{EXPORTER} has exited"))?;
        proc::children(pid)?.first().copied().context("the exporter has no worker process")
    }
}
