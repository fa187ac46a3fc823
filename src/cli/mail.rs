//! `innkeeper mail …`: listing and retrying emails.

use clap::Subcommand;
use innkeeper::run::Service;
use kernel::audit;
use kernel::idempotency::Once;
use kernel::listing::Window;
use kernel::mail::model::{ListMails, MailState};
use kernel::mail::service;
use uuid::Uuid;

use super::checked;
use super::output::{plain, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the latest emails: recipient, subject and delivery state
    List {
        /// Only emails in this state
        #[arg(long, value_enum)]
        state: Option<MailState>,
        /// Only emails that are held until the mail server accepts them
        #[arg(long)]
        held: bool,
        /// Only emails to this address
        #[arg(long)]
        to: Option<String>,
        /// Maximum number of emails
        #[arg(long, default_value_t = 20)]
        limit: i64,
    },
    /// Send an email again that failed or may have been sent, or send a queued one at once
    Retry {
        /// Id of the email
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
            let (mails, _) = service::list(&service.core, &checked(query)?, Window::first(limit)).await?;
            table(
                ["ID", "QUEUED", "TO", "SUBJECT", "STATE", "ATTEMPTS", "ERROR"],
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
            println!("The email to {} has been queued again.", plain(&mail.recipient));
        }
    }
    Ok(())
}
