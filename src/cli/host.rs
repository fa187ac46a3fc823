//! `innkeeper host …`: hosts.

use clap::{Args, Subcommand};
use innkeeper::app::App;
use innkeeper::audit;
use innkeeper::hosts::model::{HostKind, HostNode, IncusSettings, NewHost};
use innkeeper::hosts::service;
use innkeeper::idempotency::Once;

use super::output::{or_none, plain, table, time, yes};
use super::{checked, host_called};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a host, after a look at it
    Add(Add),
    /// Show all hosts
    List,
    /// Look at a host now: its version, its machines, what is missing
    Check {
        /// Its name or id
        host: String,
    },
    /// Remove a host that has no servers and no address pools
    Remove {
        /// Its name or id
        host: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// What drives it
    #[arg(long, value_enum, default_value_t = HostKind::Incus)]
    kind: HostKind,
    /// Its name
    #[arg(long)]
    name: String,
    /// The Incus daemon's unix socket
    #[arg(long, default_value = "/var/lib/incus/unix.socket")]
    socket: String,
    /// The Incus project that our guests live in
    #[arg(long, default_value = "default")]
    project: String,
    /// The storage pool of the guests' root disks
    #[arg(long, default_value = "default")]
    pool: String,
    /// Don't let Incus filter the guests' addresses: for kernels that can't
    #[arg(long)]
    no_address_filters: bool,
    /// How many times its cores may be sold
    #[arg(long, default_value_t = 4.0)]
    cpu_overcommit: f64,
    /// How many times its memory may be sold
    #[arg(long, default_value_t = 1.0)]
    memory_overcommit: f64,
    /// How many times its disk may be sold
    #[arg(long, default_value_t = 1.0)]
    disk_overcommit: f64,
    /// Save it even though it can't be reached or lacks something
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let config = IncusSettings {
                socket: add.socket,
                project: add.project,
                storage_pool: add.pool,
                address_filters: !add.no_address_filters,
            };
            let new = checked(NewHost {
                kind: add.kind,
                cpu_overcommit: add.cpu_overcommit,
                memory_overcommit: add.memory_overcommit,
                disk_overcommit: add.disk_overcommit,
                force: add.force,
                ..NewHost::incus(add.name, config)
            })?;
            let added = service::add(app, &Once::default(), new).await?;
            audit::subject(added.host.id);
            println!("The host {} has the id {}.", added.host.name, added.host.id);
            added.host.nodes.iter().for_each(show);
            complain(&added.problems);
        }
        Command::List => list(app).await?,
        Command::Check { host } => {
            let host = host_called(app, &host).await?;
            audit::subject(host.id);
            let found = service::check(app, &Once::default(), host.id).await?;
            println!("The host {} runs {}.", host.name, plain(&found.version));
            for node in &found.nodes {
                let state = if node.online { "" } else { ", offline" };
                let (cores, memory, disk) = (node.cores, node.memory, node.disk);
                println!("{}: {cores} cores, {memory} MiB memory, {disk} GiB disk{state}", plain(&node.name));
            }
            complain(&found.problems);
        }
        Command::Remove { host } => {
            let host = host_called(app, &host).await?;
            audit::subject(host.id);
            service::delete(app, host.id).await?;
            println!("The host {} is removed; nothing on it was touched.", host.name);
        }
    }
    Ok(())
}

async fn list(app: &App) -> anyhow::Result<()> {
    let hosts = service::all(app).await?;
    let rows = hosts.into_iter().flat_map(|host| {
        let told = |node: Option<&HostNode>| {
            let reserved =
                |take: fn(&HostNode) -> (i64, i64)| or_none(node.map(take).map(|(held, all)| format!("{held}/{all}")));
            [
                host.id.to_string(),
                host.name.clone(),
                host.kind.as_str().to_owned(),
                yes(host.enabled),
                or_none(node.map(|n| n.name.clone())),
                reserved(|n| (n.reserved.cores, n.cores.into())),
                reserved(|n| (n.reserved.memory, n.memory)),
                reserved(|n| (n.reserved.disk, n.disk)),
                or_none(host.seen_at.map(time)),
                host.last_error.clone().unwrap_or_default(),
            ]
        };
        if host.nodes.is_empty() { vec![told(None)] } else { host.nodes.iter().map(|n| told(Some(n))).collect() }
    });
    let heading = ["ID", "NAME", "KIND", "ENABLED", "NODE", "CORES SOLD", "MIB SOLD", "GIB SOLD", "SEEN", "LAST ERROR"];
    table(heading, rows.collect::<Vec<_>>());
    Ok(())
}

fn show(node: &HostNode) {
    println!("{}: {} cores, {} MiB memory, {} GiB disk", plain(&node.name), node.cores, node.memory, node.disk);
}

fn complain(problems: &[String]) {
    for problem in problems {
        eprintln!("warning: {}", plain(problem));
    }
}
