//! `innkeeper key …`: the master key.

use clap::Subcommand;
use innkeeper::keyring::{Resealed, service};
use innkeeper::run::Service;

use super::output::table;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how many secrets each key opens
    List,
    /// Seal with the present key what old ones sealed, while the service runs
    Rotate,
    /// Go on with another key because the old one is lost: hosts' settings must then be given again, whole
    Replace {
        /// Say that the old key can't be found any more
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
    let sum = |take: fn(&Resealed) -> u64| all.iter().map(|(_, n)| take(n)).sum::<u64>();
    match command {
        Command::List => {}
        Command::Rotate if sum(|n| n.old) > 0 => anyhow::bail!(
            "some operations are at work with secrets of an old key: leave INNKEEPER_OLD_SECRET_KEYS as it is, and run \
             this again later"
        ),
        Command::Rotate => println!(
            "Nothing needs the old keys any more, but answers to requests that are sent again within a day: take them out \
             of INNKEEPER_OLD_SECRET_KEYS tomorrow."
        ),
        Command::Replace { .. } if sum(|n| n.lost) > 0 => println!(
            "Start the service, and give the settings of each host again, whole: PUT /api/hosts/ID. Servers, addresses, \
             accounts and logins are as they were."
        ),
        Command::Replace { .. } => println!("The key is in use; nothing was lost."),
    }
    Ok(())
}
