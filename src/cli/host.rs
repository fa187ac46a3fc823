//! `innkeeper host …`: hosts.

use anyhow::Context;
use clap::{Args, Subcommand};
use hypervisor::Driver;
use innkeeper::app::App;
use innkeeper::error::Code;
use innkeeper::hosts::build_driver;
use innkeeper::hosts::kinds::KindFlags;
use innkeeper::hosts::kinds::proxmox::pveum::Rights;
use innkeeper::hosts::model::{HostNode, NewHost};
use innkeeper::hosts::service;
use innkeeper::hosts::settings::HostSettings;
use innkeeper::idempotency::Once;
use innkeeper::unknown_guests::model::{AdoptGuest, UnknownGuest};
use innkeeper::{accounts, audit, images, tariffs, unknown_guests};

use super::output::{or_none, plain, table, time, yes};
use super::{checked, host_called, secret};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a host, after a look at it
    Add(Box<Add>),
    /// Show all hosts
    List,
    /// Look at a host now: its version, its machines, what is missing
    Check {
        /// Its name or id
        host: String,
    },
    /// Show the guests on a host that carry our marker and that no server goes with
    Unknown {
        /// Its name or id
        host: String,
    },
    /// Make a server of such a guest; the guest itself is not changed
    Adopt(Adopt),
    /// Show the commands that give Innkeeper its rights on a Proxmox VE cluster, and no more
    Pveum(Rights),
    /// Remove a host that has no servers and no address pools
    Remove {
        /// Its name or id
        host: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Adopt {
    /// The host's name or id
    host: String,
    /// The guest's number
    number: i64,
    /// Mail address of the account whose server it is to be
    #[arg(long)]
    user: String,
    /// Name or id of the tariff that it is charged by
    #[arg(long)]
    tariff: String,
    /// Name or id of the image that it is said to be made from; without it, the first that the host has for such guests
    #[arg(long)]
    image: Option<String>,
    /// What the server is called; without it, the guest's own host name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name
    #[arg(long)]
    name: String,
    #[command(flatten)]
    kind: KindFlags,
    /// How many times its cores may be sold
    #[arg(long, default_value_t = 4.0)]
    cpu_overcommit: f64,
    /// How many times its memory may be sold
    #[arg(long, default_value_t = 1.0)]
    memory_overcommit: f64,
    /// How many times its disk may be sold
    #[arg(long, default_value_t = 1.0)]
    disk_overcommit: f64,
    /// Save it even though it can't be reached, lacks something, or is there already as another host
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let settings = add.kind.settings(&secret)?;
            let new = checked(NewHost {
                cpu_overcommit: add.cpu_overcommit,
                memory_overcommit: add.memory_overcommit,
                disk_overcommit: add.disk_overcommit,
                force: add.force,
                ..NewHost::new(add.name, &settings)?
            })?;
            let added = match service::add(app, &Once::default(), new).await {
                Ok(added) => added,
                Err(error) => {
                    // What the host says of our rights, or of what it does not show us for lack of them.
                    if matches!(error.code, Code::HostError | Code::Invalid) {
                        let driver = build_driver(&settings).ok();
                        explain(&settings, driver.as_deref()).await;
                    }
                    return Err(error.into());
                }
            };
            audit::subject(added.host.id);
            println!("The host {} has the id {}.", added.host.name, added.host.id);
            added.host.nodes.iter().for_each(show);
            if settings.ways().is_some_and(|ways| ways.nodes.is_some()) {
                println!("Put this line into /root/.ssh/authorized_keys of every node:");
                println!("{}", added.host.management_key.unwrap_or_default());
            }
            complain(&added.problems);
            if lacks_rights(&added.problems) {
                let driver = service::driver(app, added.host.id).await.ok();
                explain(&settings, driver.as_deref()).await;
            }
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
            if lacks_rights(&found.problems) {
                let driver = service::driver(app, host.id).await.ok();
                if let Some(config) = &host.config {
                    explain(config, driver.as_deref()).await;
                }
            }
        }
        Command::Unknown { host } => {
            let host = host_called(app, &host).await?;
            unknown(unknown_guests::service::of_host(app, host.id).await?);
        }
        Command::Adopt(wish) => adopt(app, wish).await?,
        Command::Pveum(rights) => pveum(&rights),
        Command::Remove { host } => {
            let host = host_called(app, &host).await?;
            audit::subject(host.id);
            service::delete(app, host.id).await?;
            println!("The host {} is removed; nothing on it was touched.", host.name);
        }
    }
    Ok(())
}

fn unknown(guests: Vec<UnknownGuest>) {
    table(
        ["NUMBER", "NAME", "KIND", "NODE", "ADDRESSES", "CORES", "MIB", "GIB", "SINCE", "SAME ADDRESS AS"],
        guests.into_iter().map(|guest| {
            let addresses =
                guest.addresses.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            let others: Vec<_> = guest.conflicts.iter().map(|server| format!("server {server}")).collect();
            [
                guest.proxmox_id.to_string(),
                or_none(guest.name),
                guest.kind,
                guest.node,
                addresses.unwrap_or_else(|| "not asked yet".to_owned()),
                or_none(guest.cores),
                or_none(guest.memory),
                or_none(guest.disk),
                time(guest.first_seen_at),
                others.join(" "),
            ]
        }),
    );
}

async fn adopt(app: &App, wish: Adopt) -> anyhow::Result<()> {
    let host = host_called(app, &wish.host).await?;
    let guests = unknown_guests::service::of_host(app, host.id).await?;
    let guest = guests.iter().find(|guest| guest.proxmox_id == wish.number).with_context(|| {
        format!("there is no such guest on {}; `innkeeper host unknown {}` shows those there are", host.name, host.name)
    })?;
    let user = accounts::service::find_user(app, &wish.user).await?;
    let tariffs = tariffs::service::all(app).await?;
    let tariff =
        tariffs.iter().find(|t| t.name == wish.tariff || t.id.to_string() == wish.tariff).with_context(|| {
            format!("there is no tariff called {}; `innkeeper tariff list` shows those there are", wish.tariff)
        })?;
    let images = images::service::all(app).await?;
    let image = images
        .iter()
        .find(|view| {
            let sources = || view.sources.iter().flatten();
            let fits = || view.image.kind.to_string() == guest.kind && sources().any(|s| s.host_id == host.id);
            let called = |wanted: &String| view.image.name == *wanted || view.image.id.to_string() == *wanted;
            wish.image.as_ref().map_or_else(fits, called)
        })
        .context("there is no such image; `innkeeper image list` shows those there are")?;
    let asked = checked(AdoptGuest { user_id: user.id, tariff_id: tariff.id, os_id: image.image.id, name: wish.name })?;
    let server = unknown_guests::service::adopt(app, &Once::default(), host.id, wish.number, asked).await?;
    audit::account(user.id);
    audit::subject(server.id);
    println!("The guest {} is the server {} of {} now.", wish.number, server.id, user.email);
    Ok(())
}

fn lacks_rights(problems: &[String]) -> bool {
    problems.iter().any(|problem| problem.contains(" lacks "))
}

/// Shows the commands that give the rights, for the version that the host has and the storages that are seen there.
async fn explain(settings: &HostSettings, driver: Option<&dyn Driver>) {
    let found = match driver {
        Some(driver) => driver.info().await.ok(),
        None => None,
    };
    settings.advice(found.as_ref()).iter().for_each(|line| eprintln!("{line}"));
}

/// Shows the commands that give the rights, to be pasted.
pub(super) fn pveum(rights: &Rights) {
    rights.commands().iter().for_each(|line| println!("{line}"));
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
