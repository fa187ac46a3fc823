//! `innkeeper host …`: hosts.

use anyhow::Context;
use clap::{Args, Subcommand};
use compute::hosts::build_driver;
use compute::hosts::kinds::KindFlags;
use compute::hosts::kinds::proxmox::pveum::PveumCommands;
use compute::hosts::model::{HostNode, NewHost};
use compute::hosts::service;
use compute::hosts::settings::HostSettings;
use compute::unknown_guests::model::{AdoptGuest, UnknownGuest};
use compute::{images, tariffs, unknown_guests};
use hypervisor::Driver;
use innkeeper::run::Service;
use kernel::audit;
use kernel::error::Code;
use kernel::idempotency::Once;

use super::output::{or_none, plain, table, time, yes};
use super::{checked, find_host, secret};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a host, after checking it
    Add(Box<Add>),
    /// List all hosts
    List,
    /// Check a host now: its version, its nodes, and anything that is missing
    Check {
        /// Name or id of the host
        host: String,
    },
    /// List the guests on a host that carry our marker but belong to no server
    Unknown {
        /// Name or id of the host
        host: String,
    },
    /// Adopt such a guest as a server; the guest itself is not changed
    Adopt(Adopt),
    /// Print the commands that grant Innkeeper exactly the permissions it needs on a Proxmox VE cluster
    Pveum(PveumCommands),
    /// Remove a host that has no servers and no address pools
    Remove {
        /// Name or id of the host
        host: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Adopt {
    /// Name or id of the host
    host: String,
    /// Number of the guest
    number: i64,
    /// Email address of the account that will own the server
    #[arg(long)]
    user: String,
    /// Name or id of the tariff that the server is billed by
    #[arg(long)]
    tariff: String,
    /// Name or id of the image to record for the server; by default the first one that this host has for such guests
    #[arg(long)]
    image: Option<String>,
    /// Name of the server; by default the guest's own host name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name of the host
    #[arg(long)]
    name: String,
    #[command(flatten)]
    kind: KindFlags,
    /// CPU overcommit factor
    #[arg(long, default_value_t = 4.0)]
    cpu_overcommit: f64,
    /// Memory overcommit factor
    #[arg(long, default_value_t = 1.0)]
    memory_overcommit: f64,
    /// Disk overcommit factor
    #[arg(long, default_value_t = 1.0)]
    disk_overcommit: f64,
    /// Save the host even if it is unreachable, lacks something, or has already been added under another name
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
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
            let added = match service::add(&service.core, &Once::default(), new).await {
                Ok(added) => added,
                Err(error) => {
                    // The error may come from missing permissions, or from what the host hides because of them.
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
                println!("Add this line to /root/.ssh/authorized_keys on every node:");
                println!("{}", added.host.management_key.unwrap_or_default());
            }
            print_problems(&added.problems);
            if lacks_rights(&added.problems) {
                let driver = service.features.hosts.driver(added.host.id).await.ok();
                explain(&settings, driver.as_deref()).await;
            }
        }
        Command::List => list(service).await?,
        Command::Check { host } => {
            let host = find_host(service, &host).await?;
            audit::subject(host.id);
            let found = service::check(&service.features.hosts, &Once::default(), host.id).await?;
            println!("The host {} runs {}.", host.name, plain(&found.version));
            for node in &found.nodes {
                let state = if node.online { "" } else { ", offline" };
                let (cores, memory, disk) = (node.cores, node.memory, node.disk);
                println!("{}: {cores} cores, {memory} MiB memory, {disk} GiB disk{state}", plain(&node.name));
            }
            print_problems(&found.problems);
            if lacks_rights(&found.problems) {
                let driver = service.features.hosts.driver(host.id).await.ok();
                if let Some(config) = &host.config {
                    explain(config, driver.as_deref()).await;
                }
            }
        }
        Command::Unknown { host } => {
            let host = find_host(service, &host).await?;
            unknown(unknown_guests::service::of_host(&service.core, host.id).await?);
        }
        Command::Adopt(wish) => adopt(service, wish).await?,
        Command::Pveum(rights) => pveum(&rights),
        Command::Remove { host } => {
            let host = find_host(service, &host).await?;
            audit::subject(host.id);
            service::delete(&service.features.hosts, host.id).await?;
            println!("The host {} has been removed; nothing on it was changed.", host.name);
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
                addresses.unwrap_or_else(|| "not known yet".to_owned()),
                or_none(guest.cores),
                or_none(guest.memory),
                or_none(guest.disk),
                time(guest.first_seen_at),
                others.join(" "),
            ]
        }),
    );
}

async fn adopt(service: &Service, wish: Adopt) -> anyhow::Result<()> {
    let host = find_host(service, &wish.host).await?;
    let guests = unknown_guests::service::of_host(&service.core, host.id).await?;
    let guest = guests.iter().find(|guest| guest.proxmox_id == wish.number).with_context(|| {
        format!("there is no such guest on {}; see `innkeeper host unknown {}`", host.name, host.name)
    })?;
    let user = accounts::service::find_user(&service.features.accounts, &wish.user).await?;
    let tariffs = tariffs::service::all(&service.core).await?;
    let tariff = tariffs
        .iter()
        .find(|t| t.name == wish.tariff || t.id.to_string() == wish.tariff)
        .with_context(|| format!("there is no tariff called {}; see `innkeeper tariff list`", wish.tariff))?;
    let images = images::service::all(&service.core).await?;
    let image = images
        .iter()
        .find(|view| {
            let sources = || view.sources.iter().flatten();
            let fits = || view.image.kind.to_string() == guest.kind && sources().any(|s| s.host_id == host.id);
            let called = |wanted: &String| view.image.name == *wanted || view.image.id.to_string() == *wanted;
            wish.image.as_ref().map_or_else(fits, called)
        })
        .context("there is no such image; see `innkeeper image list`")?;
    let asked = checked(AdoptGuest {
        account_id: user.account_id,
        tariff_id: tariff.id,
        os_id: image.image.id,
        name: wish.name,
    })?;
    let server = unknown_guests::service::adopt(&service.core, &Once::default(), host.id, wish.number, asked).await?;
    audit::account(user.account_id);
    audit::subject(server);
    println!("The guest {} is now the server {server} of {}.", wish.number, user.email);
    Ok(())
}

fn lacks_rights(problems: &[String]) -> bool {
    problems.iter().any(|problem| problem.contains(" lacks "))
}

/// Prints the commands that grant the permissions, for the version and the storages that the host reports.
async fn explain(settings: &HostSettings, driver: Option<&dyn Driver>) {
    let found = match driver {
        Some(driver) => driver.info().await.ok(),
        None => None,
    };
    settings.advice(found.as_ref()).iter().for_each(|line| eprintln!("{line}"));
}

/// Prints the commands that grant the permissions.
pub(super) fn pveum(rights: &PveumCommands) {
    rights.commands().iter().for_each(|line| println!("{line}"));
}

async fn list(service: &Service) -> anyhow::Result<()> {
    let hosts = service::all(&service.core).await?;
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

fn print_problems(problems: &[String]) {
    for problem in problems {
        eprintln!("warning: {}", plain(problem));
    }
}
