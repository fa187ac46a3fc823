//! `innkeeper user …`: users.

use accounts::model::{ChangePassword, User};
use accounts::service;
use accounts::users::model::{NewLoginLink, NewUser, UpdateUser};
use accounts::users::{self, links};
use clap::Subcommand;
use innkeeper::run::Service;
use kernel::audit;
use kernel::auth::StaffRole;
use kernel::idempotency::Once;
use secrecy::ExposeSecret;

use super::output::{or_none, table, time, yes};
use super::{checked, password};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a user with an account of their own; without --password-stdin the password is generated and shown only
    /// once
    Add {
        /// Email address, used to sign in
        #[arg(long)]
        email: String,
        /// Name of the user
        #[arg(long, default_value = "")]
        name: String,
        /// The user's role on the provider's staff: admins run the installation, support sees everything, billing sees
        /// users and accounts
        #[arg(long, value_enum)]
        staff: Option<StaffRole>,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all users
    List,
    /// Disable a user: their sessions and tokens stop working at once
    Disable {
        /// Email address of the user
        email: String,
    },
    /// Let a disabled user sign in again; their API tokens work again
    Enable {
        /// Email address of the user
        email: String,
    },
    /// Delete a user and the accounts that they own
    Delete {
        /// Email address of the user
        email: String,
    },
    /// End all sessions of a user; their API tokens remain valid
    EndSessions {
        /// Email address of the user
        email: String,
    },
    /// Print a one-time link for signing in as a user, valid for half a minute
    Link {
        /// Email address of the user
        email: String,
        /// Why the link is needed; the user can see it
        #[arg(long)]
        reason: String,
        /// Email address of the admin or support member who will use it
        #[arg(long = "as")]
        staff: String,
    },
    /// Set a new password for a user; their sessions end and their API tokens are revoked. Without --password-stdin the
    /// password is generated and shown only once
    Password {
        /// Email address of the user
        email: String,
        /// Keep their API tokens
        #[arg(long)]
        keep_tokens: bool,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    let accounts = &service.features.accounts;
    match command {
        Command::Add { email, name, staff, password_stdin } => {
            let password = if password_stdin { Some(password(true)?.0) } else { None };
            let new = checked(NewUser { email, name, password, staff_role: staff })?;
            let made = users::service::create(accounts, &Once::default(), new).await?;
            let user = made.user;
            println!("{} has the id {}, and the account {}.", user.email, user.id, user.account_id);
            if let Some(password) = made.password {
                println!("Password (shown only once): {password}");
            }
        }
        Command::List => list(service).await?,
        Command::Disable { email } => {
            switch(service, &email, true).await?;
            println!("{email} has been disabled.");
        }
        Command::Enable { email } => {
            switch(service, &email, false).await?;
            println!("{email} can sign in again.");
        }
        Command::Delete { email } => {
            let user = service::find_user(accounts, &email).await?;
            users::service::delete(accounts, None, user.id).await?;
            println!("{} has been deleted.", user.email);
        }
        Command::EndSessions { email } => {
            let user = service::find_user(accounts, &email).await?;
            users::service::end_sessions(accounts, user.id).await?;
            println!("The sessions of {} have ended.", user.email);
        }
        Command::Link { email, reason, staff } => {
            let user = service::find_user(accounts, &email).await?;
            let opener = service::find_user(accounts, &staff).await?;
            let new = checked(NewLoginLink { reason })?;
            let link = links::create(accounts, &Once::default(), opener.id, user.id, new).await?;
            println!("{}", link.url);
        }
        Command::Password { email, keep_tokens, password_stdin } => {
            reset(service, &email, keep_tokens, password_stdin).await?;
        }
    }
    Ok(())
}

/// The user with this address, whose own account the command is about.
async fn found(service: &Service, email: &str) -> anyhow::Result<User> {
    let user = service::find_user(&service.features.accounts, email).await?;
    audit::account(user.account_id);
    Ok(user)
}

async fn list(service: &Service) -> anyhow::Result<()> {
    let users = users::service::all(&service.features.accounts).await?;
    table(
        ["ID", "EMAIL", "NAME", "STAFF", "ACCOUNT", "ENABLED", "SINCE"],
        users.into_iter().map(|user| {
            [
                user.id.to_string(),
                user.email,
                user.name,
                or_none(user.staff_role.map(StaffRole::as_str)),
                user.account_id.to_string(),
                yes(user.disabled_at.is_none()),
                time(user.created_at),
            ]
        }),
    );
    Ok(())
}

/// Disables a user, or ends that.
async fn switch(service: &Service, email: &str, disabled: bool) -> anyhow::Result<()> {
    let user = service::find_user(&service.features.accounts, email).await?;
    let update = UpdateUser { disabled: Some(disabled), ..UpdateUser::default() };
    users::service::update(&service.features.accounts, None, user.id, &update).await?;
    Ok(())
}

async fn reset(service: &Service, email: &str, keep_tokens: bool, password_stdin: bool) -> anyhow::Result<()> {
    let user = found(service, email).await?;
    let (password, new) = password(password_stdin)?;
    let wanted = checked(ChangePassword {
        current_password: password.clone(),
        new_password: password,
        revoke_tokens: !keep_tokens,
    })?;
    let password = wanted.new_password.clone();
    let revoked =
        service::reset_password(&service.features.accounts, user.id, wanted.new_password, keep_tokens).await?;
    println!("{} has a new password; their sessions have ended.", user.email);
    match (keep_tokens, revoked) {
        (true, _) => println!("Their API tokens are unchanged."),
        (false, 0) => {}
        (false, 1) => println!("Their API token was revoked."),
        (false, _) => println!("Their {revoked} API tokens were revoked."),
    }
    if new {
        println!("Password (shown only once): {}", password.expose_secret());
    }
    Ok(())
}
