//! `innkeeper user …`: accounts.

use accounts::model::{ChangePassword, Register};
use accounts::service;
use clap::Subcommand;
use compute::addresses::reverse;
use innkeeper::run::Service;
use kernel::audit;
use kernel::auth::Role;
use secrecy::{ExposeSecret, SecretString};

use super::output::{table, time, yes};
use super::{checked, password};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an account; without --password-stdin its password is generated and shown only once
    Add {
        /// Email address, used to sign in
        #[arg(long)]
        email: String,
        /// Name of the user
        #[arg(long, default_value = "")]
        name: String,
        /// Role of the account
        #[arg(long, value_enum, default_value_t = Role::Customer)]
        role: Role,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all accounts
    List,
    /// Disable an account: its sessions and tokens stop working at once
    Disable {
        /// Email address of the account
        email: String,
    },
    /// Set the maximum number of servers of an account
    Limit {
        /// Email address of the account
        email: String,
        /// Maximum number of servers; existing ones stay
        servers: u16,
    },
    /// Show or change the domains in which an account may choose reverse DNS names
    Reverse {
        /// Email address of the account
        email: String,
        /// A domain that the account has proved to own; may be repeated
        #[arg(long)]
        allow: Vec<String>,
        /// A domain to remove; existing names stay
        #[arg(long)]
        forbid: Vec<String>,
    },
    /// Set a new password for an account; its sessions end and its API tokens are revoked. Without --password-stdin the
    /// password is generated and shown only once
    Password {
        /// Email address of the account
        email: String,
        /// Keep its API tokens
        #[arg(long)]
        keep_tokens: bool,
        /// Read the password from the first line of standard input
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
                ["ID", "EMAIL", "NAME", "ROLE", "SERVER LIMIT", "ENABLED", "SINCE"],
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
            println!("{} has been disabled.", user.email);
        }
        Command::Limit { email, servers } => {
            let user = service::find_user(&service.features.accounts, &email).await?;
            audit::account(user.id);
            service::set_server_limit(&service.features.accounts, user.id, servers).await?;
            println!("{} may have at most {servers} servers.", user.email);
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
            println!("{} has a new password; its sessions have ended.", user.email);
            match (keep_tokens, revoked) {
                (true, _) => println!("Its API tokens are unchanged."),
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
        println!("Password (shown only once): {}", password.expose_secret());
    }
}
