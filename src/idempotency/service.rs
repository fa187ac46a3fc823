//! The rules: same key and request, same answer; same key and another request, 422. Keys are kept for a day.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{HEADER, IdempotencyKey, store};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::ids::UserId;

/// What the answers are sealed for.
const PURPOSE: &str = "idempotent-answer";

/// Begins a request in the transaction that will do it. An answer: it was done before, and this was it.
pub async fn begin<T: DeserializeOwned>(
    app: &App,
    tx: &mut PgConnection,
    user: UserId,
    key: &IdempotencyKey,
    request: &(&str, impl Serialize),
) -> Result<Option<T>> {
    let Some(key) = &key.0 else { return Ok(None) };
    let hash: [u8; 32] = Sha256::digest(serde_json::to_vec(request).map_err(Error::internal)?).into();
    if store::insert(tx, user, key, &hash).await? {
        return Ok(None);
    }
    match store::get(tx, user, key).await? {
        Some((known, _)) if known != hash => {
            Err(Error::field(HEADER, "This key was used for another request; take a new one."))
        }
        Some((_, Some(sealed))) => {
            let answer = app.sealer.open(PURPOSE, &sealed)?;
            serde_json::from_slice(&answer).map(Some).map_err(Error::internal)
        }
        // It was forgotten in this very moment, a day old.
        _ => Err(Error::new(Code::Conflict, "This key has just been forgotten; take a new one.")),
    }
}

/// Keeps the answer with what was done, in its transaction.
pub async fn finish(
    app: &App,
    tx: &mut PgConnection,
    user: UserId,
    key: &IdempotencyKey,
    answer: &impl Serialize,
) -> Result<()> {
    let Some(key) = &key.0 else { return Ok(()) };
    let answer = serde_json::to_vec(answer).map_err(Error::internal)?;
    Ok(store::set_answer(tx, user, key, &app.sealer.seal(PURPOSE, &answer)?).await?)
}

/// Forgets keys of more than a day ago.
pub async fn purge(app: &App) -> Result<()> {
    Ok(store::purge(&app.db).await?)
}
