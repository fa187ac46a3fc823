//! One cycle of the whole fleet: 10,000 guests on 50 hosts are swept at the same time, stored, evaluated, and sent to
//! 500 clients that each watch a server; next to `prometheus-pve-exporter`, which scrapes the same hosts and stores
//! nothing.
//!
//! The hosts run in a process of their own, and so does the service.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use accounts::model::NewApiToken;
use accounts::service::create_api_token;
use anyhow::Context;
use compute::hosts;
use compute::ids::{AccountId, UserId};
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use kernel::config::Config;
use kernel::idempotency::Once;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use uuid::Uuid;
use watch::monitoring::MonitoringSettings;
use watch::sweep;

use crate::crowd::{Crowd, Watcher};
use crate::house::{House, KEY};
use crate::proc;
use crate::report::{Report, Row, say};
use crate::stats::median;
use crate::sweep::{EXPORTER, Exporter, NOT_RESOURCES};

const HOSTS: usize = 50;
const GUESTS: usize = 10_000;
/// One in this many servers is watched.
const WATCHED: usize = 20;
/// Most sockets per login.
const SEATS: usize = 50;
const CYCLES: usize = 10;
/// Cycles that are not counted.
const WARM_UP: usize = 2;
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_mins(1);
/// Concurrent scrapes: the exporter's number of threads.
const SCRAPES: usize = 2;
/// Targets: milliseconds, and MB.
const WALL: f64 = 1000.0;
const MEMORY: f64 = 200.0;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let house = House::open(None).await?;
    let measured = both(&house, report).await;
    house.close().await.and(measured)
}

async fn both(house: &House, report: &mut Report) -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    let watchers = fill(house, &fleet).await?;
    let mut service = Service::start(house).await?;
    let mut crowd = Crowd::gather(service.address, &watchers).await?;
    for _ in 0..watchers.len() {
        timeout(PATIENCE, crowd.next()).await.context("not every client got its first message")??;
    }
    let pid = service.process.id().context("the service has exited")?;
    let (mut stored, mut sent, mut before) = (Vec::new(), Vec::new(), 0.0);
    for cycle in 0..WARM_UP + CYCLES {
        if cycle == WARM_UP {
            before = cpu(pid)?;
            (stored, sent) = (Vec::new(), Vec::new());
        }
        let start = Instant::now();
        service.stdin.write_all(b"\n").await?;
        timeout(PATIENCE, service.lines.next_line()).await??.context("the service has exited")?;
        stored.push(start.elapsed().as_secs_f64() * 1000.0);
        let (mut last, mut reached) = (start, HashSet::new());
        while reached.len() < watchers.len() {
            let seen = timeout(PATIENCE, crowd.next()).await.context("a cycle did not reach every client")??;
            if seen.at > start && reached.insert(seen.server) {
                last = seen.at;
            }
        }
        sent.push(last.duration_since(start).as_secs_f64() * 1000.0);
        if let (Some(stored), Some(sent)) = (stored.last(), sent.last()) {
            say(&format!("cycle: stored after {stored:.0} ms, sent after {sent:.0} ms"));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let ours = (cpu(pid)? - before) / CYCLES as f64;
    let memory = proc::peak_memory(pid)?;
    let samples: i64 = sqlx::query_scalar("select count(*) from samples").fetch_one(&house.app.core.db).await?;
    // The service's own first sweeps, plus each cycle.
    let least = i64::try_from(GUESTS * (WARM_UP + CYCLES))?;
    anyhow::ensure!(samples >= least, "only {samples} samples were stored");
    drop((crowd, service));

    let exporter = Exporter::start(NOT_RESOURCES).await?;
    let pid = exporter.worker()?;
    let (mut times, mut before) = (Vec::new(), 0.0);
    for cycle in 0..=3 {
        if cycle == 1 {
            before = cpu(pid)?;
            times.clear();
        }
        let start = Instant::now();
        let scrapes = stream::iter(&fleet.hosts).map(|host| exporter.scrape(host.target(), GUESTS / HOSTS));
        scrapes.buffer_unordered(SCRAPES).try_collect::<Vec<_>>().await?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let peer = (cpu(pid)? - before) / times.len() as f64;
    let (wall, peak) = (median(&times), proc::peak_memory(pid)?);
    say(&format!("{EXPORTER}: {wall:.0} ms"));

    let name = |what: &str| format!("{GUESTS} guests on {HOSTS} hosts swept, stored, evaluated, sent: {what}");
    let remark = "the peer keeps nothing";
    let row = |what: &str, unit, ours: f64, peer: f64| Row::cost(&name(what), unit, ours, peer, EXPORTER);
    let (sent, mb) = (median(&sent), |bytes: u64| bytes as f64 / 1e6);
    report.add(Row {
        aim: Some(WALL / wall),
        remark: format!("aim: {WALL} ms; stored after {:.0} ms; {remark}", median(&stored)),
        ..row("wall", "ms", sent, wall)
    });
    report.add(Row { remark: remark.into(), ..row("CPU", "ms", ours, peer) });
    let aim = Some(MEMORY / mb(peak));
    report.add(Row { aim, remark: format!("aim: {MEMORY} MB"), ..row("peak memory", "MB", mb(memory), mb(peak)) });
    Ok(())
}

/// CPU time so far in milliseconds.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    proc::cpu_seconds(pid).map(|(own, kernel)| (own + kernel) * 1000.0)
}

/// Fills the database with the hosts and their guests, each a server of a tenant, and picks the watchers.
async fn fill(house: &House, fleet: &Fleet) -> anyhow::Result<Vec<Watcher>> {
    let db = &house.app.core.db;
    let one = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await;
    let image = one("insert into images (name, kind) values ('Debian 12', 'lxc') returning id").await?;
    let tariff = one("insert into tariffs (name, kind, cores, memory_mib, disk_gib, price)
                      values ('S', 'lxc', 1, 512, 10, 300) returning id")
    .await?;
    let mut watchers = Vec::new();
    for (n, host) in fleet.hosts.iter().enumerate() {
        // Enabled, and so swept, once all of them have their guests.
        let new = json!({ "name": format!("host{n}"), "kind": "proxmox", "config": host.settings, "enabled": false });
        let id = hosts::service::add(&house.app.core, &Once::default(), serde_json::from_value(new)?).await?.host.id.0;
        let guests = fleet.guests(n).await?;
        let (markers, numbers): (Vec<Uuid>, Vec<i64>) = guests.iter().map(|g| (g.marker, g.number)).unzip();
        let user: i64 = sqlx::query_scalar(
            "with u as (insert into users (email, name, password_hash)
                        values ('tenant' || $1 || '@example.com', 'Tenant', '-') returning id, name)
             insert into accounts (id, name, owner_id) select id, name, id from u returning id",
        )
        .bind(i64::try_from(n)?)
        .fetch_one(db)
        .await?;
        let servers: Vec<i64> = sqlx::query_scalar(
            "insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name,
                                  status, cores, memory_mib, disk_gib)
             select g.uuid, $1, $2, $3, $4, 'pve1', g.number, 'lxc', 'server-' || g.number, 'running', 1, 512, 10
             from unnest($5::uuid[], $6::bigint[]) g (uuid, number) returning id",
        )
        .bind(user)
        .bind(tariff)
        .bind(image)
        .bind(id)
        .bind(&markers)
        .bind(&numbers)
        .fetch_all(db)
        .await?;
        anyhow::ensure!(servers.len() / WATCHED <= SEATS, "too many watchers for one token");
        let new = NewApiToken { name: "bench".into(), scopes: vec!["read".into()], expires_at: None };
        let token = create_api_token(
            &house.app.features.accounts,
            &Once::default(),
            (UserId(user), AccountId(user)),
            None,
            new,
        )
        .await?
        .token;
        let watched = servers.into_iter().step_by(WATCHED);
        watchers.extend(watched.map(|server| Watcher { token: token.clone(), server }));
    }
    sqlx::query("update hosts set enabled = true").execute(db).await?;
    sqlx::query("vacuum analyze").execute(db).await?;
    Ok(watchers)
}

/// The `innkeeper-fleet` built alongside this program.
struct Fleet {
    hosts: Vec<FleetHost>,
    control: String,
    _process: Child,
}

#[derive(Debug, Deserialize)]
struct FleetHost {
    url: String,
    settings: Value,
}

impl FleetHost {
    fn target(&self) -> &str {
        self.url.trim_start_matches("https://")
    }
}

#[derive(Debug, Deserialize)]
struct FleetGuest {
    marker: Uuid,
    number: i64,
}

impl Fleet {
    async fn start() -> anyhow::Result<Self> {
        let program = beside("innkeeper-fleet")?;
        let mut process = Command::new(&program)
            .args(["--kind", "proxmox", "--hosts", &HOSTS.to_string(), "--guests", &(GUESTS / HOSTS).to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("running {}", program.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let mut line = async || timeout(PATIENCE, lines.next_line()).await??.context("the fleet has exited");
        let mut hosts = Vec::new();
        for _ in 0..HOSTS {
            hosts.push(serde_json::from_str(&line().await?)?);
        }
        let control: Value = serde_json::from_str(&line().await?)?;
        let control = control["control"].as_str().context("no control port")?.to_owned();
        Ok(Self { hosts, control, _process: process })
    }

    async fn guests(&self, host: usize) -> anyhow::Result<Vec<FleetGuest>> {
        Ok(reqwest::get(format!("{}{host}", self.control)).await?.json().await?)
    }
}

/// A program built alongside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(program.exists(), "{} does not exist; `make bench` builds it", program.display());
    Ok(program)
}

/// The service in a process of its own, which starts a cycle on request.
struct Service {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Service {
    async fn start(house: &House) -> anyhow::Result<Self> {
        let mut process = proc::this("only-cycle")?.env("DATABASE_URL", &house.database_url).spawn()?;
        let stdin = process.stdin.take().context("piped")?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let address = timeout(PATIENCE, lines.next_line()).await??.context("the service has exited")?.parse()?;
        Ok(Self { process, stdin, lines, address })
    }
}

/// Body of that process: like `innkeeper serve`, but it runs one cycle per line on stdin. Its own sweeps run once, at
/// the start.
pub(crate) async fn only_cycle() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let mut config = Config {
        database_url: SecretString::from(std::env::var("DATABASE_URL")?),
        secret_key: SecretString::from(KEY),
        data: data.path().to_owned(),
        rate_limit_token: 1_000_000_000,
        rate_limit_account: 1_000_000_000,
        ..Config::default()
    };
    config.of::<MonitoringSettings>().sweep_seconds = 3600;
    let app = innkeeper::run::Service::new(config)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(std::sync::Arc::clone(&app).serve(listener, async move { drop(stopped.await) }));
    // The first cycle of a process, since all hosts are due.
    let until = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>("select count(*) from samples").fetch_one(&app.core.db).await?
        < i64::try_from(GUESTS)?
    {
        anyhow::ensure!(Instant::now() < until, "the hosts were not swept in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tell(&address.to_string())?;
    while tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?.transpose()?.is_some() {
        sweep::sweep_now(&app.features.sweeps).await?;
        tell("stored")?;
    }
    drop(stop);
    served.await?
}

fn tell(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
