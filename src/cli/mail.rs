//! `innkeeper mail …`: what became of mails, and sending them again.

use clap::Subcommand;
use innkeeper::audit;
use innkeeper::idempotency::Once;
use innkeeper::mail::model::{ListMails, MailState};
use innkeeper::mail::service;
use innkeeper::run::Service;
use uuid::Uuid;

use super::checked;
use super::output::{plain, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the latest mails: to whom, about what, and what became of them
    List {
        /// Those that stand so
        #[arg(long, value_enum)]
        state: Option<MailState>,
        /// Those that wait for the mail server
        #[arg(long)]
        held: bool,
        /// Those to this address
        #[arg(long)]
        to: Option<String>,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
    /// Send a mail again that failed or may be out, or one that waits at once
    Retry {
        /// The mail's id
        id: Uuid,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { state, held, to, limit } => {
            let query = ListMails {
                limit: Some(limit),
                state,
                recipient: to,
                held: held.then_some(true),
                ..Default::default()
            };
            let mails = service::list(&service.core, &checked(query)?).await?.data;
            table(
                ["ID", "QUEUED", "TO", "ABOUT", "STATE", "TRIES", "WHY"],
                mails.into_iter().map(|mail| {
                    let state = if mail.held { "held" } else { mail.state.as_str() };
                    [
                        mail.id.to_string(),
                        time(mail.created_at),
                        plain(&mail.recipient),
                        plain(&mail.subject),
                        state.to_owned(),
                        mail.attempts.to_string(),
                        plain(&mail.error.unwrap_or_default()),
                    ]
                }),
            );
        }
        Command::Retry { id } => {
            audit::subject(id);
            let mail = service::retry(&service.core, &Once::default(), id).await?;
            println!("The mail to {} is sent again.", plain(&mail.recipient));
        }
    }
    Ok(())
}
