//! The simulated fleet as a program; see the library.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fleet::{Fleet, Kind, Options};
use tokio::net::TcpListener;

/// Printed at the end of `--help`.
const HELP: &str = r#"Prints one line of JSON per host (its address, and its settings for POST /api/hosts) and one for
the control port. On that port, GET / describes the hosts, GET /<host> lists its guests, and POST / changes them:

  {"hosts": [3], "behaviour": "dead"}           or "well", "hung", {"slow": <ms>}, {"failing": <status>}
  {"hosts": [0], "guests": [1], "power": "stopped", "present": false, "load": {"cpu": 0.99, "memory": 0.5, "disk": 0.2}}

Fields that are left out keep their values; without "hosts" or "guests" the change applies to all of them."#;

/// Serves a simulated fleet of hosts on this machine, speaking the hosts' own APIs, until it is stopped
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Arguments {
    /// The API that the hosts speak
    #[arg(long, value_enum)]
    kind: Kind,
    /// Number of hosts
    #[arg(long, default_value_t = 1)]
    hosts: usize,
    /// Number of guests per host
    #[arg(long, default_value_t = 10)]
    guests: usize,
    /// Number of nodes per host (proxmox)
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Seed of all simulated values: the same seed gives the same fleet
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first guest
    #[arg(long, default_value_t = 100_000)]
    first_number: i64,
    /// How long a list is cached, in milliseconds; 0: every read sees new values
    #[arg(long, default_value_t = 0)]
    fresh_for: u64,
    /// Folder for unix sockets (incus); a temporary one by default
    #[arg(long)]
    sockets: Option<PathBuf>,
    /// Address of the control port; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { kind, hosts, guests, nodes, seed, first_number, fresh_for, sockets, control } = Arguments::parse();
    let fresh_for = Duration::from_millis(fresh_for);
    let options = Options { kind, hosts, guests, nodes, seed, first_number, fresh_for, sockets };
    let fleet = Arc::new(Fleet::start(options).await?);
    let listener = TcpListener::bind(control).await.with_context(|| format!("listening on {control}"))?;
    {
        let mut out = std::io::stdout().lock();
        for host in fleet.describe() {
            writeln!(out, "{host}")?;
        }
        writeln!(out, "{}", serde_json::json!({ "control": format!("http://{}/", listener.local_addr()?) }))?;
        out.flush()?;
    }
    tokio::select! {
        ended = fleet::control(Arc::clone(&fleet), listener) => ended.context("the control port"),
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = terminated() => Ok(()),
    }
}

async fn terminated() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}
