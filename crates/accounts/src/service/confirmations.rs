//! Confirmation of email addresses: proof that the user reads what is sent there. Until then only
//! confirmation emails are sent to the address.

use std::time::Duration;

use kernel::auth::ClientAddress;
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;
use kernel::ids::UserId;
use kernel::{audit, db};
use kernel::{mail, secrets};
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::mail::ConfirmAddress;
use crate::model::User;
use crate::{Accounts, store};

/// How long a code is valid.
const LIFE: Duration = Duration::from_hours(72);
/// Maximum number of confirmation emails to a user per hour.
const MOST: i64 = 3;

/// Queues the email that asks the owner to confirm the address.
pub(crate) async fn send(accounts: &Accounts, tx: &mut PgConnection, user: &User) -> Result<()> {
    let (code, hash) = secrets::new_token("ink_e_");
    store::confirmations::insert(tx, &hash, user.id, &user.email, LIFE).await?;
    // In the fragment, which never reaches a server's log.
    let base = accounts.settings.public_url.trim_end_matches('/');
    let url = format!("{base}/confirm/#{}", code.expose_secret());
    let mail = ConfirmAddress { url: &url, code: code.expose_secret(), service: base };
    mail::service::queue(tx, &format!("confirm:{}", Uuid::now_v7()), &user.email, &mail).await
}

/// Sends the confirmation email again.
pub async fn resend(accounts: &Accounts, once: &Once, user: UserId) -> Result<()> {
    once.run(&accounts.core, async |tx| {
        store::lock_user(tx, user).await?;
        let user = store::user(&mut *tx, user).await?.ok_or_else(|| Error::not_found("user"))?;
        if user.email_confirmed_at.is_some() {
            return Err(Error::new(Code::Conflict, "This address is already confirmed."));
        }
        if store::confirmations::count_recent(tx, user.id).await? >= MOST {
            return Err(Error {
                retry_after: Some(Duration::from_mins(20)),
                ..Error::new(
                    Code::RateLimited,
                    "Several confirmation emails were already sent; check your inbox first.",
                )
            });
        }
        send(accounts, tx, &user).await
    })
    .await
}

/// Confirms the address that this code was sent to; needs no authentication.
pub async fn confirm(accounts: &Accounts, code: &SecretString, from: ClientAddress) -> Result<()> {
    accounts.core.limits.guess(&accounts.core, from).await?;
    let mut tx = db::begin(&accounts.core.db).await?;
    let confirmed = store::confirmations::confirm(&mut tx, &secrets::hash_token(code.expose_secret())).await;
    if !matches!(confirmed, Ok(None)) {
        accounts.core.limits.uncount_lookup(from).await;
    }
    let words = "This code is invalid or has expired; sign in and request a new one.";
    let account = confirmed?.ok_or_else(|| Error::field("code", words))?;
    audit::account(account);
    tx.commit().await
}
