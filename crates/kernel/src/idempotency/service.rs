//! Business logic for idempotency keys: a repeated key with the same request gets the same response, with another
//! request a 422. Keys are stored for a day. A failed request has changed nothing and stores nothing: if it is
//! repeated, it runs again.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use super::{HEADER, Once, RequestKey, store};
use crate::core::Core;
use crate::db::{self, is_lock_timeout};
use crate::error::{Code, Error, Result};
use crate::keyring::SealCounts;
use crate::secrets::SealedBy;

/// The purpose that responses are sealed for.
const PURPOSE: &str = "idempotent-answer";

/// Maximum number of keys stored per account. Beyond that the oldest are deleted early: they are rows, and no
/// well-behaved client gets near this limit.
const MOST: i64 = 20_000;

/// Outcome of checking a request before its transaction.
#[derive(Debug)]
pub enum OnceCheck<T, C> {
    /// May be done; this is the result of the check.
    New(C),
    /// Already done; this is the stored response.
    Done(T),
}

impl Once {
    /// Makes a change in the request's transaction, which is committed together with the response to replay from now
    /// on. If the request was done before, nothing is changed, and the response of that time is returned. Waits for the
    /// same request if it is in progress elsewhere.
    pub async fn run<T: Serialize + DeserializeOwned>(
        &self,
        core: &Core,
        change: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        let mut tx = db::begin(&core.db).await?;
        let Some(named) = &self.0 else {
            let answer = change(&mut tx).await?;
            return tx.commit().await.map(|()| answer);
        };
        let taken = store::insert(&mut tx, named).await.map_err(|error| match is_lock_timeout(&error) {
            true => Error {
                retry_after: Some(Duration::from_secs(2)),
                ..Error::new(Code::Conflict, "This request is already in progress; send it again for its result.")
            },
            false => error.into(),
        })?;
        if !taken {
            // It was deleted just now, a day old.
            let gone = || Error::new(Code::Conflict, "This key has just expired; use a new one.");
            return named.kept(core, &mut tx).await?.ok_or_else(gone);
        }
        let answer = change(&mut tx).await?;
        named.keep(core, &mut tx, &answer).await?;
        match tx.commit().await {
            Ok(()) => Ok(answer),
            Err(error) if error.code == Code::OutcomeUnknown => Err(Error {
                message: "The database connection was lost at the last moment, so this may or may not have been done. \
                          Send it again with the same Idempotency-Key: it will not be done twice."
                    .to_owned(),
                retry_after: Some(Duration::from_secs(5)),
                ..error
            }),
            Err(error) => Err(error),
        }
    }

    /// Checks, before the transaction begins, whether the request may be done: for checks that call other systems. A
    /// refusal counts only if the request was not done before or meanwhile: of two identical concurrent requests, one
    /// may be refused because of what the other has created.
    pub async fn check<T: DeserializeOwned, C>(
        &self,
        core: &Core,
        check: impl Future<Output = Result<C>>,
    ) -> Result<OnceCheck<T, C>> {
        if let Some(done) = self.look(core).await? {
            return Ok(OnceCheck::Done(done));
        }
        match check.await {
            Ok(found) => Ok(OnceCheck::New(found)),
            Err(refused) => self.look(core).await?.map(OnceCheck::Done).ok_or(refused),
        }
    }

    async fn look<T: DeserializeOwned>(&self, core: &Core) -> Result<Option<T>> {
        match &self.0 {
            Some(named) => named.kept(core, &mut *core.db.acquire().await?).await,
            None => Ok(None),
        }
    }

    /// Updates the stored response with facts known only after the transaction. If two callers disagree, the first one
    /// wins for both: returns the response that is stored now.
    pub async fn settle<T: Serialize + DeserializeOwned>(&self, core: &Core, before: &T, answer: T) -> Result<T> {
        let Some(named) = &self.0 else { return Ok(answer) };
        let mut tx = db::begin(&core.db).await?;
        store::lock(&mut tx, named).await?;
        match named.kept(core, &mut tx).await? {
            Some(kept) if serde_json::to_vec::<T>(&kept).ok() != serde_json::to_vec(before).ok() => Ok(kept),
            _ => {
                named.keep(core, &mut tx, &answer).await?;
                tx.commit().await?;
                Ok(answer)
            }
        }
    }
}

impl RequestKey {
    async fn kept<T: DeserializeOwned>(&self, core: &Core, db: &mut PgConnection) -> Result<Option<T>> {
        match store::get(db, self).await? {
            Some((known, _)) if !self.fingerprint.matches(&known) => {
                Err(Error::field(HEADER, "This key was used for another request; use a new one."))
            }
            Some((_, Some(sealed))) => {
                let answer = core.sealer.open(PURPOSE, &sealed)?;
                serde_json::from_slice(&answer).map(Some).map_err(|error| {
                    tracing::warn!(%error, "a stored response can't be read");
                    Error::new(
                        Code::Conflict,
                        "This request was done, but another version of the service stored its response, which can't be \
                         shown again.",
                    )
                })
            }
            Some((_, None)) | None => Ok(None),
        }
    }

    async fn keep(&self, core: &Core, tx: &mut PgConnection, answer: &impl Serialize) -> Result<()> {
        let answer = serde_json::to_vec(answer).map_err(Error::internal)?;
        Ok(store::set_answer(tx, self, &core.sealer.seal(PURPOSE, &answer)?).await?)
    }
}

/// The number of responses read with one query.
const BATCH: i64 = 500;

/// Reseals responses that were sealed with an old key. One that no key opens is lost: if the request is repeated, it
/// fails instead of being done twice.
pub(super) async fn reseal(core: &Core, change: bool) -> Result<SealCounts> {
    let (mut count, mut after) = (SealCounts::default(), (0, String::new()));
    loop {
        let answers = store::answers(&core.db, &after, BATCH).await?;
        let Some((user, key, _)) = answers.last() else { return Ok(count) };
        after = (*user, key.clone());
        for (user, key, sealed) in &answers {
            let by = core.sealer.sealed_by(PURPOSE, sealed)?;
            let done = match &by {
                SealedBy::Old(new) if change => store::replace_answer(&core.db, *user, key, sealed, new).await?,
                _ => false,
            };
            count.add(&by, done);
        }
    }
}

/// Deletes keys older than a day, and those over the limit.
pub(super) async fn purge(core: &Core) -> Result<()> {
    Ok(store::purge(&core.db, MOST).await?)
}
