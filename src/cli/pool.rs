//! `innkeeper pool …`: address pools.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use compute::addresses::model::{NewPool, Pool};
use compute::addresses::service;
use innkeeper::run::Service;
use ipnet::IpNet;
use kernel::audit;
use kernel::idempotency::Once;

use super::output::{or_none, plain, table, yes};
use super::{checked, find_host};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an address pool
    Add(Add),
    /// List all address pools and their free addresses
    List,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name of the pool
    #[arg(long)]
    name: String,
    /// Name or id of the host whose servers get addresses from it
    #[arg(long)]
    host: String,
    /// The network, such as 10.0.0.0/24
    #[arg(long)]
    cidr: IpNet,
    /// Gateway of the network, inside it or elsewhere on the link (including link-local); inside the range it is
    /// reserved
    #[arg(long)]
    gateway: Option<IpAddr>,
    /// First address that may be assigned; by default the network's first
    #[arg(long)]
    first: Option<IpAddr>,
    /// Last address that may be assigned; by default the network's last
    #[arg(long)]
    last: Option<IpAddr>,
    /// Bridge or managed network of the host
    #[arg(long)]
    bridge: String,
    /// VLAN tag
    #[arg(long)]
    vlan: Option<i32>,
    /// Name server for the guests; may be repeated
    #[arg(long)]
    dns: Vec<IpAddr>,
    /// Don't assign its addresses to servers yet
    #[arg(long)]
    disabled: bool,
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let new = checked(NewPool {
                name: add.name,
                host_id: find_host(service, &add.host).await?.id,
                cidr: add.cidr,
                gateway: add.gateway,
                first: add.first,
                last: add.last,
                bridge: add.bridge,
                vlan: add.vlan,
                dns: add.dns,
                enabled: !add.disabled,
            })?;
            let made = service::create(&service.features.addresses, &Once::default(), new).await?;
            audit::subject(made.id);
            println!("The address pool {} has the id {} and {} free addresses.", made.name, made.id, made.free);
            warn(service, &[made]);
        }
        Command::List => {
            let pools = service::all(&service.core.db, service.features.addresses.settings.rest()).await?;
            table(
                [
                    "ID", "NAME", "HOST", "NETWORK", "GATEWAY", "FIRST", "LAST", "BRIDGE", "VLAN", "RESERVED",
                    "RESTING", "FREE", "ENABLED",
                ],
                pools.clone().into_iter().map(|p| {
                    [
                        p.id.to_string(),
                        p.name,
                        p.host_id.to_string(),
                        p.cidr.to_string(),
                        or_none(p.gateway),
                        p.first.to_string(),
                        p.last.to_string(),
                        p.bridge,
                        or_none(p.vlan),
                        p.held_back.to_string(),
                        p.resting.to_string(),
                        p.free.to_string(),
                        yes(p.enabled),
                    ]
                }),
            );
            warn(service, &pools);
        }
    }
    Ok(())
}

/// Prints warnings about each pool.
fn warn(service: &Service, pools: &[Pool]) {
    for pool in pools {
        if let Some(problem) = service::overlap(pool) {
            eprintln!("warning: {}", plain(&problem));
        }
        if pool.free == 0 && pool.resting > 0 {
            eprintln!(
                "warning: All free addresses of the address pool {} are resting ({}): for {} hours only the \
                 accounts that had them can get them (INNKEEPER_ADDRESS_REST_HOURS).",
                plain(&pool.name),
                pool.resting,
                service.features.addresses.settings.address_rest_hours
            );
        }
    }
}
