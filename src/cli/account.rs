//! `innkeeper account …`: accounts and their members.

use accounts::members::model::{AccountKind, AccountRow, NewAccount, NewMember, NewOwner, SuspendAccount};
use accounts::members::service;
use clap::{Args, Subcommand};
use compute::addresses::reverse;
use innkeeper::run::Service;
use kernel::audit;
use kernel::auth::MemberRole;
use kernel::http::patch::Patch;
use kernel::ids::AccountId;

use super::output::{or_none, plain, table, time};
use super::{checked, password};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List all accounts
    List,
    /// Create an account for a user, or for a new one
    Add(Add),
    /// Set how many servers an account may have
    Limit {
        /// Id of the account
        id: AccountId,
        /// Maximum number of servers, or none; existing ones stay
        #[arg(value_parser = limit)]
        servers: ServerLimit,
    },
    /// Suspend an account: everything that it or its customers own is stopped
    Suspend {
        /// Id of the account
        id: AccountId,
        /// The reason, which its members see
        #[arg(long)]
        reason: String,
    },
    /// End the suspension of an account
    Unsuspend {
        /// Id of the account
        id: AccountId,
    },
    /// List the members of an account
    Members {
        /// Id of the account
        id: AccountId,
    },
    /// Add a user to an account
    AddMember {
        /// Id of the account
        id: AccountId,
        /// Email address of the user
        email: String,
        /// Their role in the account
        #[arg(long, value_enum, default_value_t = MemberRole::Member)]
        role: MemberRole,
    },
    /// Remove a user from an account; their API tokens for it are revoked
    RemoveMember {
        /// Id of the account
        id: AccountId,
        /// Email address of the user
        email: String,
    },
    /// Show or change the domains in which an account may choose reverse DNS names
    Reverse {
        /// Id of the account
        id: AccountId,
        /// A domain that the account has proved it owns; may be repeated
        #[arg(long)]
        allow: Vec<String>,
        /// A domain to remove; existing names stay
        #[arg(long)]
        forbid: Vec<String>,
    },
    /// Delete an account that has nothing in use, and its owner if they own nothing else
    Delete {
        /// Id of the account
        id: AccountId,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Name of the account
    #[arg(long)]
    name: String,
    /// Make it a reseller, which has customers of its own
    #[arg(long, conflicts_with = "parent")]
    reseller: bool,
    /// Id of the reseller whose customer it is
    #[arg(long)]
    parent: Option<AccountId>,
    /// Maximum number of servers, or none; 100 by default
    #[arg(long, value_parser = limit)]
    limit: Option<ServerLimit>,
    /// Email address of the user who owns it
    #[arg(long, required_unless_present = "new_owner", conflicts_with = "new_owner")]
    owner: Option<String>,
    /// Email address of a new user who owns it, and nothing else; without --password-stdin the password is generated
    /// and shown only once
    #[arg(long)]
    new_owner: Option<String>,
    /// Name of the new user
    #[arg(long, default_value = "", requires = "new_owner")]
    owner_name: String,
    /// Read the new user's password from the first line of standard input
    #[arg(long, requires = "new_owner")]
    password_stdin: bool,
}

/// How many servers an account may have: a number, or `none` for no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLimit(Option<i32>);

fn limit(text: &str) -> Result<ServerLimit, String> {
    let number = text.parse().ok().filter(|number| (0..=1_000_000).contains(number));
    match (text, number) {
        ("none", _) => Ok(ServerLimit(None)),
        (_, Some(number)) => Ok(ServerLimit(Some(number))),
        (_, None) => Err("must be a number up to 1000000, or none".to_owned()),
    }
}

pub(super) async fn run(service: &Service, command: Command) -> anyhow::Result<()> {
    let accounts = &service.features.accounts;
    match command {
        Command::List => list(service).await?,
        Command::Add(new) => add(service, new).await?,
        Command::Limit { id, servers: ServerLimit(limit) } => {
            let account = service::find(accounts, id).await?;
            service::set_limit(accounts, &account, limit).await?;
            match limit {
                Some(limit) => println!("{} may have at most {limit} servers.", plain(&account.name)),
                None => println!("{} may have any number of servers.", plain(&account.name)),
            }
        }
        Command::Suspend { id, reason } => {
            let account = service::find(accounts, id).await?;
            let suspension = checked(SuspendAccount { reason })?;
            service::set_suspension_of(accounts, &account, Some(&suspension.reason)).await?;
            println!("{} has been suspended.", plain(&account.name));
        }
        Command::Unsuspend { id } => {
            let account = service::find(accounts, id).await?;
            service::set_suspension_of(accounts, &account, None).await?;
            println!("{} is no longer suspended.", plain(&account.name));
        }
        Command::Members { id } => members(service, &service::find(accounts, id).await?).await?,
        Command::AddMember { id, email, role } => {
            let account = service::find(accounts, id).await?;
            let member = service::put_member(accounts, &account, checked(NewMember { email, role })?).await?;
            println!("{} is now {} in {}.", member.email, member.role.as_str(), plain(&account.name));
        }
        Command::RemoveMember { id, email } => {
            let account = service::find(accounts, id).await?;
            let user = accounts::service::find_user(accounts, &email).await?;
            service::remove_member(accounts, &account, user.id).await?;
            println!("{} is no longer a member of {}.", user.email, plain(&account.name));
        }
        Command::Reverse { id, allow, forbid } => {
            let account = service::find(accounts, id).await?;
            audit::account(account.id);
            for (names, is_allowed) in [(allow, true), (forbid, false)] {
                for name in names {
                    reverse::allow(&service.core, account.id, &name, is_allowed).await?;
                }
            }
            for name in reverse::allowed(&service.core, account.id).await? {
                println!("{name}");
            }
        }
        Command::Delete { id } => {
            let account = service::find(accounts, id).await?;
            service::delete_unused(accounts, &account, true).await?;
            println!("{} has been deleted.", plain(&account.name));
        }
    }
    Ok(())
}

async fn list(service: &Service) -> anyhow::Result<()> {
    let accounts = service::all(&service.features.accounts).await?;
    table(
        ["ID", "KIND", "NAME", "OWNER", "RESELLER", "SERVER LIMIT", "SUSPENDED", "SINCE"],
        accounts.into_iter().map(|account| {
            [
                account.id.to_string(),
                account.kind.as_str().to_owned(),
                account.name,
                account.owner_email,
                or_none(account.parent_id),
                or_none(account.server_limit),
                or_none(account.suspend_reason.as_deref().map(plain)),
                time(account.created_at),
            ]
        }),
    );
    Ok(())
}

async fn members(service: &Service, account: &AccountRow) -> anyhow::Result<()> {
    let members = service::all_members(&service.features.accounts, account).await?;
    table(
        ["USER", "EMAIL", "NAME", "ROLE", "SINCE"],
        members.into_iter().map(|member| {
            [member.user_id.to_string(), member.email, member.name, member.role.as_str().to_owned(), time(member.since)]
        }),
    );
    Ok(())
}

async fn add(service: &Service, new: Add) -> anyhow::Result<()> {
    let accounts = &service.features.accounts;
    let owner_id = match &new.owner {
        Some(email) => Some(accounts::service::find_user(accounts, email).await?.id),
        None => None,
    };
    let owner = match new.new_owner {
        Some(email) => {
            let password = if new.password_stdin { Some(password(true)?.0) } else { None };
            Some(NewOwner { email, name: new.owner_name, password })
        }
        None => None,
    };
    let server_limit = match new.limit {
        None => Patch::Keep,
        Some(ServerLimit(None)) => Patch::Clear,
        Some(ServerLimit(Some(limit))) => Patch::Set(limit),
    };
    let kind = new.reseller.then_some(AccountKind::Reseller);
    let wanted = NewAccount { name: new.name, kind, parent_id: new.parent, server_limit, owner, owner_id };
    let (account, password) = service::add(accounts, checked(wanted)?).await?;
    println!("{} has the id {}; {} owns it.", plain(&account.name), account.id, account.owner_email);
    if let Some(password) = password {
        println!("Password (shown only once): {password}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!((limit("7").unwrap().0, limit("0").unwrap().0, limit("none").unwrap().0), (Some(7), Some(0), None));
        for bad in ["", "-1", "many", "1000001", "None"] {
            assert!(limit(bad).is_err(), "{bad:?}");
        }
    }
}
