//! `innkeeper token …`: API tokens.

use accounts::model::NewApiToken;
use accounts::service;
use chrono::{Duration, Utc};
use clap::Subcommand;
use innkeeper::run::Service;
use kernel::audit;
use kernel::idempotency::Once;
use kernel::ids::AccountId;
use uuid::Uuid;

use super::checked;
use super::output::{or_none, table, time};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an API token; its secret is shown only once
    Create {
        /// Email address of the user
        #[arg(long)]
        user: String,
        /// Id of the account that the token acts for, of which the user is a member; by default the user's own
        #[arg(long)]
        account: Option<AccountId>,
        /// What the token is for
        #[arg(long)]
        name: String,
        /// read or write, or either for one thing, such as read:server:12; may be repeated
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// Days until it expires; it never does by default
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: Option<u16>,
    },
    /// List a user's API tokens
    List {
        /// Email address of the user
        #[arg(long)]
        user: String,
    },
    /// Revoke an API token
    Revoke {
        /// Email address of the user
        #[arg(long)]
        user: String,
        /// Id of the token
        id: Uuid,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Create { user, account, name, scopes, days } => {
            let user = service::find_user(&service.features.accounts, &user).await?;
            let account = account.unwrap_or(user.account_id);
            audit::account(account);
            let expires_at = days.map(|days| Utc::now() + Duration::days(days.into()));
            let new = checked(NewApiToken { name, scopes, expires_at })?;
            let (accounts, who) = (&service.features.accounts, (user.id, account));
            let made = service::create_api_token(accounts, &Once::default(), who, None, new).await?;
            audit::subject(made.details.id);
            println!("{} has the API token {} with the id {}.", user.email, made.details.name, made.details.id);
            println!("Secret (shown only once): {}", made.token);
        }
        Command::List { user } => {
            let user = service::find_user(&service.features.accounts, &user).await?;
            audit::account(user.account_id);
            let tokens = service::api_tokens(&service.features.accounts, user.id).await?;
            table(
                ["ID", "NAME", "ACCOUNT", "SCOPES", "CREATED", "EXPIRES", "LAST USED"],
                tokens.into_iter().map(|t| {
                    [
                        t.id.to_string(),
                        t.name,
                        t.account_id.to_string(),
                        t.scopes.join(" "),
                        time(t.created_at),
                        or_none(t.expires_at.map(time)),
                        or_none(t.last_used_at.map(time)),
                    ]
                }),
            );
        }
        Command::Revoke { user, id } => {
            let user = service::find_user(&service.features.accounts, &user).await?;
            audit::account(user.account_id);
            audit::subject(id);
            service::revoke_api_token(&service.features.accounts, user.id, id).await?;
            println!("The token {id} has been revoked.");
        }
    }
    Ok(())
}
