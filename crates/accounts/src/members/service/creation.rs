//! New accounts.

use kernel::audit;
use kernel::auth::{Caller, ClientAddress, account_suspended, role_forbids};
use kernel::db;
use kernel::error::{Error, Result};
use kernel::http::patch::Patch;
use kernel::idempotency::{Once, OnceCheck};
use kernel::ids::{AccountId, UserId};
use sqlx::PgConnection;

use super::{check_reseller, no_parent};
use crate::Accounts;
use crate::members::model::{AccountKind, AccountRow, CreatedAccount, NewAccount, NewOwner};
use crate::members::store::{self, InsertedAccount};
use crate::service::attempts::{limit_address, uncount_address};
use crate::service::{address_taken, confirmations};
use crate::store::accounts;
use crate::users::service::InitialPassword;

/// How many servers a new account may have, if nothing is said.
const SERVERS: i32 = 100;

/// Who is to own a new account.
#[derive(Debug)]
enum WantedOwner {
    /// This user.
    Known(UserId),
    /// A new user.
    New { email: String, name: String, password: InitialPassword },
}

/// Creates an account: any for the provider, and customers for those who manage the reseller that they act for.
pub async fn create(
    accounts: &Accounts,
    once: &Once,
    caller: &Caller,
    from: ClientAddress,
    mut new: NewAccount,
) -> Result<CreatedAccount> {
    let by_provider = caller.is_provider();
    if !by_provider {
        new.parent_id = Some(place_of_customer(caller, &new)?);
    }
    let owner = (new.owner.take(), new.owner_id);
    let prepared = async {
        // An address that is taken can be seen, so this counts like a registration.
        if !by_provider {
            limit_address(accounts, from).await?;
        }
        wanted_owner(owner).await
    };
    let owner = match once.check(&accounts.core, prepared).await? {
        OnceCheck::New(owner) => owner,
        OnceCheck::Done(answer) => return Ok(answer),
    };
    let created = once.run(&accounts.core, async |tx| {
        let (id, password) = insert(accounts, tx, &new, owner, by_provider).await?;
        let reach = store::reach(&mut *tx, caller, id).await?.ok_or_else(super::not_found)?;
        let account = accounts::find(tx, id).await?.ok_or_else(super::not_found)?.seen_as(reach.role);
        Ok(CreatedAccount { account, password })
    });
    let created = created.await?;
    if !by_provider {
        uncount_address(accounts, from).await?;
    }
    audit::account(created.account.id);
    Ok(created)
}

/// The reseller whose customer a new account becomes. Its members can't create anything else.
fn place_of_customer(caller: &Caller, new: &NewAccount) -> Result<AccountId> {
    let is_fine = caller.is_reseller
        && caller.role.manages()
        && new.kind.is_none_or(|kind| kind == AccountKind::Customer)
        && new.parent_id.is_none_or(|parent| parent == caller.account);
    if !is_fine {
        return Err(role_forbids());
    }
    if let Some(reason) = &caller.suspended {
        return Err(account_suspended(reason));
    }
    match new.owner_id {
        Some(_) => Err(Error::field("ownerId", "The owner of a new customer must be a new user: use owner.")),
        None => Ok(caller.account),
    }
}

async fn wanted_owner(owner: (Option<NewOwner>, Option<UserId>)) -> Result<WantedOwner> {
    match owner {
        (None, Some(id)) => Ok(WantedOwner::Known(id)),
        (Some(NewOwner { email, name, password }), None) => {
            Ok(WantedOwner::New { email, name, password: InitialPassword::of(password).await? })
        }
        _ => Err(Error::field("owner", "Specify either a new user as owner, or an existing user's id as ownerId.")),
    }
}

/// Adds an account for the provider; returns a new owner's generated password with it.
pub async fn add(accounts: &Accounts, mut new: NewAccount) -> Result<(AccountRow, Option<String>)> {
    let owner = wanted_owner((new.owner.take(), new.owner_id)).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let (id, password) = insert(accounts, &mut tx, &new, owner, true).await?;
    audit::account(id);
    let account = accounts::find(&mut *tx, id).await?.ok_or_else(super::not_found)?;
    tx.commit().await?;
    Ok((account, password))
}

/// Adds an account. A new owner's address counts as confirmed if the provider gives it.
async fn insert(
    accounts: &Accounts,
    tx: &mut PgConnection,
    new: &NewAccount,
    owner: WantedOwner,
    by_provider: bool,
) -> Result<(AccountId, Option<String>)> {
    let (owner, password, is_new) = match owner {
        WantedOwner::Known(id) => {
            // Locked, so that they are not deleted meanwhile.
            let found = crate::store::lock_users(tx, &[id]).await?;
            if found.is_empty() {
                return Err(Error::field("ownerId", format!("There is no user {id}.")));
            }
            (id, None, false)
        }
        WantedOwner::New { email, name, password } => {
            let hash = &password.hash;
            let added = crate::store::insert_user(tx, &email, name.trim(), None, hash, by_provider).await?;
            (added.ok_or_else(address_taken)?, password.shown, true)
        }
    };
    let kind = new.kind.unwrap_or(AccountKind::Customer);
    if let Some(parent) = new.parent_id {
        if kind == AccountKind::Reseller {
            return Err(no_parent());
        }
        accounts::lock(tx, &[parent]).await?;
        check_reseller(tx, parent).await?;
    }
    let server_limit = match new.server_limit {
        Patch::Keep => Some(SERVERS),
        given => given.apply(None),
    };
    let inserted = InsertedAccount { kind, name: new.name.trim(), owner, parent: new.parent_id, server_limit };
    let id = store::insert(tx, &inserted).await?;
    if is_new {
        accounts::set_own(tx, owner, id).await?;
    }
    if is_new && !by_provider {
        let user = crate::store::user(&mut *tx, owner).await?.ok_or_else(|| Error::not_found("user"))?;
        confirmations::send(accounts, tx, &user).await?;
    }
    Ok((id, password))
}
