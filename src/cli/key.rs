//! `innkeeper key …`: the master key.

use clap::Subcommand;
use innkeeper::run::Service;
use kernel::keyring::{SealCounts, service};

use super::output::table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List how many secrets each key opens
    List,
    /// Reseal with the current key what old keys sealed, while the service runs
    Rotate,
    /// Use a new key because the old one is lost: all settings of the hosts must then be entered again
    Replace {
        /// Confirm that the old key can't be recovered
        #[arg(long, required = true)]
        lost: bool,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    let all = match command {
        Command::List => service::status(&service.core, service.features.all()).await?,
        Command::Rotate => service::rotate(&service.core, service.features.all()).await?,
        Command::Replace { lost: _ } => service::replace(&service.core, service.features.all()).await?,
    };
    table(
        ["SECRETS", "MASTER KEY", "RESEALED NOW", "OLD KEYS", "LOST"],
        all.iter().map(|(what, n)| {
            [(*what).to_owned(), n.master.to_string(), n.resealed.to_string(), n.old.to_string(), n.lost.to_string()]
        }),
    );
    let sum = |take: fn(&SealCounts) -> u64| all.iter().map(|(_, n)| take(n)).sum::<u64>();
    match command {
        Command::List => {}
        Command::Rotate if sum(|n| n.old) > 0 => anyhow::bail!(
            "some operations in progress use secrets of an old key: leave INNKEEPER_OLD_SECRET_KEYS unchanged, and \
             run this command again later"
        ),
        Command::Rotate => println!(
            "Only stored responses to requests repeated within a day still need the old keys: remove them from \
             INNKEEPER_OLD_SECRET_KEYS tomorrow."
        ),
        Command::Replace { .. } if sum(|n| n.lost) > 0 => println!(
            "Start the service, and enter all settings of each host again: PUT /api/hosts/ID. Servers, addresses, \
             accounts and logins are unchanged."
        ),
        Command::Replace { .. } => println!("The key is in use; nothing was lost."),
    }
    Ok(())
}
