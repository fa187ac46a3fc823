//! One cycle of the live view: 500 servers of a host have been swept, and 5,000 Socket.IO clients watch them, ten each;
//! next to Node's `socket.io`, which is given the same messages and broadcasts them to the same clients.
//!
//! Ours is `innkeeper serve` with its database: hearing of the sweep, reading the stats and building the messages is
//! part of its time. The peer has the messages in memory and is told to send. Both run in processes of their own.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use accounts::model::NewApiToken;
use accounts::service::create_api_token;
use anyhow::Context;
use compute::ids::{AccountId, UserId};
use kernel::idempotency::Once;
use serde_json::{Map, Value};
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::crowd::{Crowd, Watcher, figures};
use crate::house::{House, KEY};
use crate::list::{TENANTS, fill};
use crate::proc;
use crate::report::{Report, Row, say};
use crate::stats::quantile;

const SERVERS_EACH: i32 = 5;
const WATCHERS_EACH: usize = 10;
const CYCLES: u64 = 10;
/// Cycles that are not counted, to warm everything up.
const WARM_UP: u64 = 2;
/// Pause between two cycles.
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_mins(1);
/// A third of the CPU time.
const AIM: f64 = 0.33;
const PEER: &str = "socket.io 4.8.4 in Node, messages at hand";

/// Results of one side.
#[derive(Debug, Default)]
struct Measured {
    /// Milliseconds from the sweep's commit to each client.
    latencies: Vec<f64>,
    /// CPU time per cycle in milliseconds, and the kernel's part of it.
    cpu: f64,
    kernel: f64,
    /// Peak memory in bytes.
    memory: u64,
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let house = House::open(None).await?;
    let measured = both(&house, report).await;
    house.close().await.and(measured)
}

async fn both(house: &House, report: &mut Report) -> anyhow::Result<()> {
    let db = &house.app.core.db;
    let watchers = watchers(house).await?;
    let (count, rooms) = (watchers.len(), watchers.len() / WATCHERS_EACH);

    let service = Service::start(house).await?;
    let mut crowd = Crowd::gather(service.address, &watchers).await?;
    let messages = greetings(&mut crowd, count).await?;
    let length = messages.values().map(|m| m.to_string().len()).sum::<usize>() / messages.len();
    say(&format!("{count} clients in {rooms} rooms, {length} bytes a message"));
    let ours = cycles("ours", service.pid()?, &mut crowd, count, async |cycle| sweep(db, cycle).await).await?;
    drop((crowd, service));

    let mut node = Node::start(&messages).await?;
    let mut crowd = Crowd::gather(node.address, &watchers).await?;
    let pid = node.process.id().context("node has exited")?;
    let peer = cycles("socket.io", pid, &mut crowd, count, async |cycle| node.send(cycle).await).await?;

    let name = |what: &str| format!("a cycle to {count} clients in {rooms} rooms: {what}");
    let remark = format!("{length} bytes a message; ours also reads the database");
    let p99 = |measured: &Measured| quantile(&measured.latencies, 0.99);
    report.add(Row {
        remark: remark.clone(),
        aim: Some(AIM),
        ..Row::cost(&name("CPU"), "ms", ours.cpu, peer.cpu, PEER)
    });
    let own = |measured: &Measured| measured.cpu - measured.kernel;
    report.add(Row {
        remark: format!("the kernel's sends: {:.0} and {:.0} ms", ours.kernel, peer.kernel),
        ..Row::cost(&name("CPU without the kernel's"), "ms", own(&ours), own(&peer), PEER)
    });
    report.add(Row::cost(&name("p99, sweep to client"), "ms", p99(&ours), p99(&peer), PEER));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report.add(Row::cost(&name("peak memory"), "MiB", mib(ours.memory), mib(peer.memory), PEER));
    Ok(())
}

/// Creates 500 servers with an hour of history, and picks their watchers: at most 50 sockets per login.
async fn watchers(house: &House) -> anyhow::Result<Vec<Watcher>> {
    let db = &house.app.core.db;
    let first = fill(db, SERVERS_EACH).await?;
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out)
         select s.id, now() - make_interval(secs => 30 * n), 'running', 60, random() * 0.5,
                (random() * 400000000)::bigint, 536870912, (random() * 4000000000)::bigint, 10737418240,
                100000000 - n * 100000 + (random() * 90000)::bigint,
                200000000 - n * 200000 + (random() * 190000)::bigint
         from servers s, generate_series(1, 120) n",
    )
    .execute(db)
    .await?;
    sqlx::query("vacuum analyze").execute(db).await?;
    let mut watchers = Vec::new();
    for tenant in first..first + i64::from(TENANTS) {
        let new = NewApiToken { name: "bench".into(), scopes: vec!["read".into()], expires_at: None };
        let token = create_api_token(
            &house.app.features.accounts,
            &Once::default(),
            (UserId(tenant), AccountId(tenant)),
            None,
            new,
        )
        .await?
        .token;
        let servers: Vec<i64> =
            sqlx::query_scalar("select id from servers where account_id = $1").bind(tenant).fetch_all(db).await?;
        for server in servers {
            watchers.extend((0..WATCHERS_EACH).map(|_| Watcher { token: token.clone(), server }));
        }
    }
    Ok(watchers)
}

/// The first message to each client, by server.
async fn greetings(crowd: &mut Crowd, count: usize) -> anyhow::Result<Map<String, Value>> {
    let mut messages = Map::new();
    for _ in 0..count {
        let seen = timeout(PATIENCE, crowd.next()).await.context("not every client got its first message")??;
        if let Some(text) = seen.text
            && !messages.contains_key(&seen.server.to_string())
        {
            messages.insert(seen.server.to_string(), figures(&text)?);
        }
    }
    Ok(messages)
}

/// Stores a sweep as the service does; returns the time at which its commit was requested.
async fn sweep(db: &PgPool, cycle: u64) -> anyhow::Result<Instant> {
    let mut tx = kernel::db::begin(db).await?;
    sqlx::query(
        "insert into samples (server_id, taken_at, power, uptime_s, cpu, memory_used, memory_max, disk_used, disk_max,
                              net_in, net_out)
         select id, now(), 'running', $1, random() * 0.5, (random() * 400000000)::bigint, 536870912,
                (random() * 4000000000)::bigint, 10737418240, 100000000 + $1, 200000000 + $1 from servers",
    )
    .bind(i64::try_from(cycle)?)
    .execute(&mut *tx)
    .await?;
    sqlx::query("select pg_notify('sampled', id::text) from hosts").execute(&mut *tx).await?;
    let at = Instant::now();
    tx.commit().await?;
    Ok(at)
}

/// Runs the cycles that `send` starts; every client must receive each one.
async fn cycles(
    who: &str,
    pid: u32,
    crowd: &mut Crowd,
    count: usize,
    mut send: impl AsyncFnMut(u64) -> anyhow::Result<Instant>,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let mut before = (0.0, 0.0);
    // Uptimes that no server has shown before.
    for cycle in 1_000_000..1_000_000 + WARM_UP + CYCLES {
        let is_counted = cycle >= 1_000_000 + WARM_UP;
        if cycle == 1_000_000 + WARM_UP {
            before = proc::cpu_seconds(pid)?;
        }
        let start = send(cycle).await?;
        let mut latencies = Vec::with_capacity(count);
        while latencies.len() < count {
            let seen = timeout(PATIENCE, crowd.next()).await.context("a cycle did not reach every client")??;
            if seen.uptime == cycle {
                latencies.push(seen.at.saturating_duration_since(start).as_secs_f64() * 1000.0);
            }
        }
        let (p50, p99) = (quantile(&latencies, 0.5), quantile(&latencies, 0.99));
        say(&format!("{who}: p50 {p50:.0} ms, p99 {p99:.0} ms"));
        if is_counted {
            measured.latencies.extend(latencies);
        }
        tokio::time::sleep(PAUSE).await;
    }
    let (own, kernel) = proc::cpu_seconds(pid)?;
    measured.kernel = (kernel - before.1) * 1000.0 / CYCLES as f64;
    measured.cpu = (own - before.0) * 1000.0 / CYCLES as f64 + measured.kernel;
    measured.memory = proc::peak_memory(pid)?;
    say(&format!("{who}: {:.0} ms of CPU time per cycle, {:.0} of them in the kernel", measured.cpu, measured.kernel));
    Ok(measured)
}

/// The `innkeeper serve` built alongside this program.
#[derive(Debug)]
struct Service {
    process: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Service {
    async fn start(house: &House) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("innkeeper");
        let data = tempfile::tempdir()?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(data.path().join("log"))?;
        let process = Command::new(&program)
            .arg("serve")
            .env("DATABASE_URL", &house.database_url)
            .env("INNKEEPER_SECRET_KEY", KEY)
            .env("INNKEEPER_LISTEN", address.to_string())
            .env("INNKEEPER_DATA", data.path())
            .env("INNKEEPER_MAX_CONNECTIONS", "10000")
            .env("INNKEEPER_RATE_LIMIT_TOKEN", "1000000000")
            .current_dir(data.path())
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("running {}", program.display()))?;
        let until = Instant::now() + PATIENCE;
        while let Err(error) = tokio::net::TcpStream::connect(address).await {
            anyhow::ensure!(Instant::now() < until, "the service does not respond: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { process, address, _data: data })
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.process.id().context("the service has exited")
    }
}

/// Node running `bench/js/server.mjs`.
#[derive(Debug)]
struct Node {
    process: Child,
    stdin: ChildStdin,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start(messages: &Map<String, Value>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("messages.json");
        tokio::fs::write(&file, serde_json::to_vec(messages)?).await?;
        let mut process = Command::new("node")
            .arg("server.mjs")
            .arg(&file)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("running node")?;
        let stdin = process.stdin.take().context("piped")?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let port = timeout(PATIENCE, lines.next_line()).await??.context("node printed no port")?;
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse()?));
        Ok(Self { process, stdin, address, _folder: folder })
    }

    async fn send(&mut self, cycle: u64) -> anyhow::Result<Instant> {
        let at = Instant::now();
        self.stdin.write_all(format!("{cycle}\n").as_bytes()).await?;
        Ok(at)
    }
}
