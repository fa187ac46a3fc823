//! Confirmed addresses: an account's own word that it reads what is mailed to its address. Until then nothing is mailed
//! there but the question.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::accounts::mail::ConfirmAddress;
use crate::accounts::model::User;
use crate::accounts::{Accounts, store};
use crate::db;
use crate::error::{Code, Error, Result};
use crate::http::ClientAddress;
use crate::idempotency::{Begun, Once};
use crate::ids::UserId;
use crate::{audit, mail, secrets};

/// How long the answer may take.
const LIFE: Duration = Duration::from_hours(72);
/// Questions that are mailed to an account in an hour.
const MOST: i64 = 3;

/// Queues the mail that asks whether an address is its owner's.
pub(super) async fn ask(accounts: &Accounts, tx: &mut PgConnection, user: &User) -> Result<()> {
    let (code, hash) = secrets::new_token("ink_e_");
    store::confirmations::insert(tx, &hash, user.id, &user.email, LIFE).await?;
    // Behind the #, where no server's log gets to see it.
    let base = accounts.core.config.public_url.trim_end_matches('/');
    let url = format!("{base}/confirm/#{}", code.expose_secret());
    let mail = ConfirmAddress { url: &url, code: code.expose_secret(), service: base };
    mail::service::queue(tx, &format!("confirm:{}", Uuid::now_v7()), &user.email, &mail).await
}

/// Asks once more, for whoever has lost the mail.
pub async fn ask_again(accounts: &Accounts, once: &Once, user: UserId) -> Result<()> {
    let mut tx = match once.begin(&accounts.core).await? {
        Begun::New(tx) => tx,
        Begun::Done(answer) => return Ok(answer),
    };
    store::lock_account(&mut tx, user).await?;
    let user = store::user(&mut *tx, user).await?.ok_or_else(|| Error::not_found("account"))?;
    if user.email_confirmed_at.is_some() {
        return Err(Error::new(Code::Conflict, "This address is confirmed already."));
    }
    if store::confirmations::count_of_late(&mut tx, user.id).await? >= MOST {
        return Err(Error {
            retry_after: Some(Duration::from_mins(20)),
            ..Error::new(Code::RateLimited, "Several mails are on their way to you already; look for them first.")
        });
    }
    ask(accounts, &mut tx, &user).await?;
    tx.finish(&accounts.core, ()).await
}

/// Confirms the address that this code was mailed to, whoever shows it.
pub async fn confirm(accounts: &Accounts, code: &SecretString, from: ClientAddress) -> Result<()> {
    accounts.core.limits.guess(&accounts.core, from).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let confirmed = store::confirmations::confirm(&mut tx, &secrets::hash_token(code.expose_secret())).await;
    if !matches!(confirmed, Ok(None)) {
        accounts.core.limits.was_right(from).await;
    }
    let words = "This code is not good (any more); sign in and have another one mailed.";
    let user = confirmed?.ok_or_else(|| Error::field("code", words))?;
    audit::account(user);
    tx.commit().await
}
