//! `innkeeper tariff …`: tariffs.

use clap::{Args, Subcommand};
use compute::tariffs::model::{NewTariff, ServerKind};
use compute::tariffs::service;
use innkeeper::run::Service;
use kernel::audit;
use kernel::idempotency::Once;

use super::checked;
use super::output::{or_none, table, yes};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tariff
    Add(Add),
    /// List all tariffs
    List,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name, in any script
    #[arg(long)]
    name: String,
    /// Kind of its servers
    #[arg(long, value_enum, default_value_t = ServerKind::Lxc)]
    kind: ServerKind,
    /// CPU cores
    #[arg(long)]
    cores: i32,
    /// Memory in MiB
    #[arg(long)]
    memory: i64,
    /// Disk in GiB
    #[arg(long)]
    disk: i64,
    /// Traffic per month in GiB; unlimited by default
    #[arg(long)]
    traffic: Option<i64>,
    /// Network bandwidth in Mbit/s, in each direction; unlimited by default
    #[arg(long)]
    bandwidth: Option<i32>,
    /// Price per month in minor units of the currency (cents, kopeks)
    #[arg(long)]
    price: i64,
    /// Currency, as three letters of ISO 4217
    #[arg(long, default_value = "EUR")]
    currency: String,
    /// Maximum number of cores that customers may resize to; by default the tariff's own
    #[arg(long)]
    max_cores: Option<i32>,
    /// Maximum memory that customers may resize to, in MiB; by default the tariff's own
    #[arg(long)]
    max_memory: Option<i64>,
    /// Maximum disk that customers may resize to, in GiB; by default the tariff's own
    #[arg(long)]
    max_disk: Option<i64>,
    /// Maximum number of snapshots per server
    #[arg(long, default_value_t = 5)]
    snapshots: i32,
    /// Don't make it available yet
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
