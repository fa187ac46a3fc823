//! Business logic for the master key: the service does not start with a wrong one, an old one can be replaced while it
//! runs, and a lost one costs only the secrets it sealed.

use std::sync::Arc;
use std::time::Duration;

use super::{SealCounts, store};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::feature::Feature;
use crate::secrets::SealedBy;

/// The purpose that the check value is sealed for.
const PURPOSE: &str = "key-check";
/// Content of the check value.
const WORDS: &[u8] = b"innkeeper";
/// How often secrets in use are retried, a second apart.
const TRIES: u32 = 60;

fn wrong_key() -> Error {
    Error::new(
        Code::Conflict,
        "INNKEEPER_SECRET_KEY is not the key that this database's secrets were sealed with. Restore that key, or add \
         it to INNKEEPER_OLD_SECRET_KEYS. If it is lost, see `innkeeper key replace --help`.",
    )
}

/// Seals with the master key what old keys sealed, of every feature; or, without `change`, only looks.
async fn reseal(features: &[Arc<dyn Feature>], change: bool) -> Result<Vec<(&'static str, SealCounts)>> {
    let mut all = vec![];
    for feature in features {
        all.extend(feature.reseal(change).await?);
    }
    Ok(all)
}

/// Refuses to work with a key that the database's secrets were not sealed with. The first process stores the check
/// value for all others.
pub async fn check(core: &Core, features: &[Arc<dyn Feature>]) -> Result<()> {
    let sealed = match store::get(&core.db).await? {
        Some(sealed) => sealed,
        None => first(core, features).await?,
    };
    match core.sealer.sealed_by(PURPOSE, &sealed)? {
        SealedBy::Unknown => Err(wrong_key()),
        _ => Ok(()),
    }
}

/// Stores the check value. A database older than the check has secrets that reveal a wrong key.
async fn first(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<u8>> {
    let all = reseal(features, false).await?;
    if all.iter().any(|(_, n)| n.lost > 0) && all.iter().all(|(_, n)| n.lost == n.all()) {
        return Err(wrong_key());
    }
    store::insert(&core.db, &core.sealer.seal(PURPOSE, WORDS)?).await?;
    // Another process may have been faster.
    store::get(&core.db).await?.ok_or_else(|| Error::internal(anyhow::anyhow!("the check value is missing")))
}

/// Number of secrets of each kind, by key.
pub async fn status(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, SealCounts)>> {
    check(core, features).await?;
    reseal(features, false).await
}

/// Reseals with the master key everything that an old key sealed, while the service runs. Secrets in use are retried
/// for up to a minute: those left after that are counted as `old`.
pub async fn rotate(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, SealCounts)>> {
    check(core, features).await?;
    let mut all = reseal(features, true).await?;
    for _ in 0..TRIES {
        if all.iter().all(|(_, n)| n.old == 0) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = reseal(features, true).await?;
        for ((_, before), (_, now)) in all.iter_mut().zip(again) {
            // Secrets resealed in an earlier pass open with the master key now, unless their operations have ended.
            let (resealed, master) = (before.resealed + now.resealed, now.master.saturating_sub(before.resealed));
            *before = SealCounts { master, resealed, ..now };
        }
    }
    if all.iter().all(|(_, n)| n.old == 0)
        && let Some(sealed) = store::get(&core.db).await?
        && let SealedBy::Old(new) = core.sealer.sealed_by(PURPOSE, &sealed)?
        && !store::replace(&core.db, &sealed, &new).await?
    {
        return Err(Error::new(
            Code::Conflict,
            "Another process changed the key's check value; run the command again.",
        ));
    }
    Ok(all)
}

/// Accepts the master key although its predecessor is lost, and returns how many secrets are lost with it. Refused if
/// none is lost.
pub async fn replace(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, SealCounts)>> {
    let sealed = store::get(&core.db).await?;
    if check(core, features).await.is_ok() {
        return Err(Error::new(
            Code::Conflict,
            "INNKEEPER_SECRET_KEY is the right key, or the right one is among INNKEEPER_OLD_SECRET_KEYS: nothing is \
             lost. To seal everything with the first key, use `innkeeper key rotate`.",
        ));
    }
    let new = core.sealer.seal(PURPOSE, WORDS)?;
    match sealed {
        Some(before) => {
            if !store::replace(&core.db, &before, &new).await? {
                return Err(Error::new(Code::Conflict, "Another process changed the key's check value; check again."));
            }
        }
        None => store::insert(&core.db, &new).await?,
    }
    reseal(features, false).await
}
