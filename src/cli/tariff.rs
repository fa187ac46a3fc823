//! `innkeeper tariff …`: tariffs.

use clap::{Args, Subcommand};
use innkeeper::audit;
use innkeeper::idempotency::Once;
use innkeeper::run::Service;
use innkeeper::tariffs::model::{Kind, NewTariff};
use innkeeper::tariffs::service;

use super::checked;
use super::output::{or_none, table, yes};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a tariff
    Add(Add),
    /// Show all tariffs
    List,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name, in any script
    #[arg(long)]
    name: String,
    /// What its servers are
    #[arg(long, value_enum, default_value_t = Kind::Lxc)]
    kind: Kind,
    /// Processor cores
    #[arg(long)]
    cores: i32,
    /// Memory in MiB
    #[arg(long)]
    memory: i64,
    /// Disk in GiB
    #[arg(long)]
    disk: i64,
    /// Traffic a month in GiB; without it, it is not limited
    #[arg(long)]
    traffic: Option<i64>,
    /// Rate of the network in Mbit/s, each way; without it, it is not limited
    #[arg(long)]
    bandwidth: Option<i32>,
    /// Price a month in minor units of the currency (cents, kopeks)
    #[arg(long)]
    price: i64,
    /// Three letters of ISO 4217
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// How many cores a customer may resize a server to; without it, not more than the tariff has
    #[arg(long)]
    max_cores: Option<i32>,
    /// How much memory a customer may resize a server to, in MiB; without it, not more than the tariff has
    #[arg(long)]
    max_memory: Option<i64>,
    /// How much disk a customer may resize a server to, in GiB; without it, not more than the tariff has
    #[arg(long)]
    max_disk: Option<i64>,
    /// How many snapshots a server may have at one time
    #[arg(long, default_value_t = 5)]
    snapshots: i32,
    /// Don't sell it yet
    #[arg(long)]
    disabled: bool,
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => {
            let new = checked(NewTariff {
                name: add.name,
                kind: add.kind,
                cores: add.cores,
                memory: add.memory,
                disk: add.disk,
                traffic: add.traffic,
                bandwidth: add.bandwidth,
                price: add.price,
                currency: add.currency,
                enabled: !add.disabled,
                max_cores: add.max_cores,
                max_memory: add.max_memory,
                max_disk: add.max_disk,
                snapshots: add.snapshots,
            })?;
            let made = service::create(&service.core, &Once::default(), new).await?;
            audit::subject(made.id);
            println!("The tariff {} has the id {}.", made.name, made.id);
        }
        Command::List => {
            let tariffs = service::all(&service.core).await?;
            table(
                ["ID", "NAME", "KIND", "CORES", "MIB", "GIB", "TRAFFIC", "PRICE", "ENABLED"],
                tariffs.into_iter().map(|t| {
                    [
                        t.id.to_string(),
                        t.name,
                        t.kind.to_string(),
                        t.cores.to_string(),
                        t.memory.to_string(),
                        t.disk.to_string(),
                        or_none(t.traffic),
                        format!("{} {}", t.price, t.currency),
                        yes(t.enabled),
                    ]
                }),
            );
        }
    }
    Ok(())
}
