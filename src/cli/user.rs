//! `innkeeper user …`: accounts.

use clap::Subcommand;
use innkeeper::accounts::model::{ChangePassword, Register};
use innkeeper::accounts::service;
use innkeeper::addresses::reverse;
use innkeeper::audit;
use innkeeper::auth::Role;
use innkeeper::run::Service;
use secrecy::{ExposeSecret, SecretString};

use super::output::{table, time, yes};
use super::{checked, password};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account; without --password-stdin its password is made up and shown once
    Add {
        /// Mail address, with which one signs in
        #[arg(long)]
        email: String,
        /// The person's name
        #[arg(long, default_value = "")]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value_t = Role::Customer)]
        role: Role,
        /// Take the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Show all accounts
    List,
    /// Shut an account out: its logins and tokens stop working at once
    Disable {
        /// Its mail address
        email: String,
    },
    /// Say how many servers an account may have at most
    Limit {
        /// Its mail address
        email: String,
        /// How many; those that are there already stay
        servers: u16,
    },
    /// Show in which domains an account may give its addresses reverse names, or change that
    Reverse {
        /// Its mail address
        email: String,
        /// A domain that the account has shown to own; may be repeated
        #[arg(long)]
        allow: Vec<String>,
        /// A domain that was allowed before; names that were given stay
        #[arg(long)]
        forbid: Vec<String>,
    },
    /// Give an account a new password; its logins end and its API tokens are revoked. Without --password-stdin the password
    /// is made up and shown once
    Password {
        /// Its mail address
        email: String,
        /// Leave its API tokens as they are
        #[arg(long)]
        keep_tokens: bool,
        /// Take the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Add { email, name, role, password_stdin } => {
            let (password, new) = password(password_stdin)?;
            let wanted = checked(Register { email, password, name })?;
            let password = wanted.password.clone();
            let user =
                service::add_user(&service.features.accounts, &wanted.email, wanted.name.trim(), role, wanted.password)
                    .await?;
            audit::account(user.id);
            println!("{} {} has the id {}.", role.as_str(), user.email, user.id);
            show(&password, new);
        }
        Command::List => {
            let users = service::users(&service.features.accounts).await?;
            table(
                ["ID", "EMAIL", "NAME", "ROLE", "SERVERS AT MOST", "ENABLED", "SINCE"],
                users.into_iter().map(|account| {
                    let user = account.user;
                    [
                        user.id.to_string(),
                        user.email,
                        user.name,
                        user.role.as_str().to_owned(),
                        user.server_limit.to_string(),
                        yes(account.disabled_at.is_none()),
                        time(user.created_at),
                    ]
                }),
            );
        }
        Command::Disable { email } => {
            let user = service::find_user(&service.features.accounts, &email).await?;
            audit::account(user.id);
            service::disable_user(&service.features.accounts, user.id).await?;
            println!("{} is shut out.", user.email);
        }
        Command::Limit { email, servers } => {
            let user = service::find_user(&service.features.accounts, &email).await?;
            audit::account(user.id);
            service::set_server_limit(&service.features.accounts, user.id, servers).await?;
            println!("{} may have {servers} servers at most.", user.email);
        }
        Command::Reverse { email, allow, forbid } => {
            let user = service::find_user(&service.features.accounts, &email).await?;
            audit::account(user.id);
            for (names, is_allowed) in [(allow, true), (forbid, false)] {
                for name in names {
                    reverse::allow(&service.core, user.id, &name, is_allowed).await?;
                }
            }
            for name in reverse::allowed(&service.core, user.id).await? {
                println!("{name}");
            }
        }
        Command::Password { email, keep_tokens, password_stdin } => {
            let user = service::find_user(&service.features.accounts, &email).await?;
            audit::account(user.id);
            let (password, new) = password(password_stdin)?;
            let wanted = checked(ChangePassword {
                current_password: password.clone(),
                new_password: password,
                revoke_tokens: !keep_tokens,
            })?;
            let revoked =
                service::reset_password(&service.features.accounts, user.id, wanted.new_password.clone(), keep_tokens)
                    .await?;
            println!("{} has a new password; its logins have ended.", user.email);
            match (keep_tokens, revoked) {
                (true, _) => println!("Its API tokens are as they were."),
                (false, 0) => {}
                (false, 1) => println!("Its API token was revoked."),
                (false, _) => println!("Its {revoked} API tokens were revoked."),
            }
            show(&wanted.new_password, new);
        }
    }
    Ok(())
}

fn show(password: &SecretString, new: bool) {
    if new {
        println!("Password (shown this once): {}", password.expose_secret());
    }
}
