//! The rules: same key and request, same answer; same key and another request, 422. Keys are kept for a day. A request
//! that failed has changed nothing, so nothing is kept of it: sent again, it is tried again.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use super::{HEADER, Named, Once, store};
use crate::core::Core;
use crate::db::{self, Tx, is_lock_timeout};
use crate::error::{Code, Error, Result};
use crate::keyring::Resealed;
use crate::secrets::SealedBy;

/// What the answers are sealed for.
const PURPOSE: &str = "idempotent-answer";

/// Keys of an account that are kept for their day. Whoever takes more loses the oldest sooner: they are rows, and no
/// client that means well comes near it.
const MOST: i64 = 20_000;

/// What beginning a request comes to.
#[derive(Debug)]
pub enum Begun<T> {
    /// It is to be done, in this transaction.
    New(Doing),
    /// It was done before, and this was kept of it.
    Done(T),
}

/// What looking before a request's transaction comes to.
#[derive(Debug)]
pub enum Checked<T, C> {
    /// It may be done, and this was found.
    New(C),
    /// It was done before, and this was kept of it.
    Done(T),
}

/// The transaction of a request. [`Self::finish`] is the only way to commit it.
#[derive(Debug)]
pub struct Doing {
    tx: Tx,
    once: Once,
}

impl Once {
    /// Opens the transaction that will do the request. The same request under way elsewhere is waited for.
    pub async fn begin<T: DeserializeOwned>(&self, core: &Core) -> Result<Begun<T>> {
        let mut tx = db::begin(&core.db).await?;
        if let Some(named) = &self.0 {
            let taken = store::insert(&mut tx, named).await.map_err(|error| match is_lock_timeout(&error) {
                true => Error {
                    retry_after: Some(Duration::from_secs(2)),
                    ..Error::new(Code::Conflict, "This very request is being worked on; send it again for its answer.")
                },
                false => error.into(),
            })?;
            if !taken {
                // It was forgotten in this very moment, a day old.
                let gone = || Error::new(Code::Conflict, "This key has just been forgotten; take a new one.");
                return named.kept(core, &mut tx).await?.ok_or_else(gone).map(Begun::Done);
            }
        }
        Ok(Begun::New(Doing { tx, once: self.clone() }))
    }

    /// Looks, before the transaction begins, whether the request may be done: for what has to be asked elsewhere. A
    /// refusal counts only where the request was not done before, nor meanwhile: the same one, sent twice at one time,
    /// may find what its twin has made.
    pub async fn check<T: DeserializeOwned, C>(
        &self,
        core: &Core,
        check: impl Future<Output = Result<C>>,
    ) -> Result<Checked<T, C>> {
        if let Some(done) = self.look(core).await? {
            return Ok(Checked::Done(done));
        }
        match check.await {
            Ok(found) => Ok(Checked::New(found)),
            Err(refused) => self.look(core).await?.map(Checked::Done).ok_or(refused),
        }
    }

    async fn look<T: DeserializeOwned>(&self, core: &Core) -> Result<Option<T>> {
        match &self.0 {
            Some(named) => named.kept(core, &mut *core.db.acquire().await?).await,
            None => Ok(None),
        }
    }

    /// Keeps more of the answer, where it is known only after the transaction. Of two that say different things the
    /// first is believed, by both: returns what is kept now.
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

impl Named {
    async fn kept<T: DeserializeOwned>(&self, core: &Core, db: &mut PgConnection) -> Result<Option<T>> {
        match store::get(db, self).await? {
            Some((known, _)) if !self.fingerprint.matches(&known) => {
                Err(Error::field(HEADER, "This key was used for another request; take a new one."))
            }
            Some((_, Some(sealed))) => {
                let answer = core.sealer.open(PURPOSE, &sealed)?;
                serde_json::from_slice(&answer).map(Some).map_err(Error::internal)
            }
            Some((_, None)) | None => Ok(None),
        }
    }

    async fn keep(&self, core: &Core, tx: &mut PgConnection, answer: &impl Serialize) -> Result<()> {
        let answer = serde_json::to_vec(answer).map_err(Error::internal)?;
        Ok(store::set_answer(tx, self, &core.sealer.seal(PURPOSE, &answer)?).await?)
    }
}

impl Doing {
    /// Commits what was done, with what answers for it from now on.
    pub async fn finish<T: Serialize>(mut self, core: &Core, answer: T) -> Result<T> {
        if let Some(named) = &self.once.0 {
            named.keep(core, &mut self.tx, &answer).await?;
        }
        match self.tx.commit().await {
            Ok(()) => Ok(answer),
            Err(error) if error.code == Code::OutcomeUnknown && self.once.0.is_some() => Err(Error {
                message: "Our database went away at the last moment, so this may have been done or not. Send it again \
                          with the same Idempotency-Key: it is done once."
                    .to_owned(),
                retry_after: Some(Duration::from_secs(5)),
                ..error
            }),
            Err(error) => Err(error),
        }
    }
}

impl Deref for Doing {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for Doing {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// How many answers are looked at with one statement.
const BATCH: i64 = 500;

/// Seals the answers that an old key sealed with the master key. One that no key opens is lost: the request, sent
/// again, fails instead of being done twice.
pub(super) async fn reseal(core: &Core, change: bool) -> Result<Resealed> {
    let (mut count, mut after) = (Resealed::default(), (0, String::new()));
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

/// Forgets keys of more than a day ago, and those that are too many.
pub(super) async fn purge(core: &Core) -> Result<()> {
    Ok(store::purge(&core.db, MOST).await?)
}
