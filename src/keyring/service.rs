//! The rules of the master key: a wrong one starts nothing, an old one can be replaced while the service runs, and a
//! lost one costs what it sealed and no more.

use std::sync::Arc;
use std::time::Duration;

use super::{Resealed, store};
use crate::core::Core;
use crate::error::{Code, Error, Result};
use crate::feature::Feature;
use crate::secrets::SealedBy;

/// What the check value is sealed for.
const PURPOSE: &str = "key-check";
/// What is in it.
const WORDS: &[u8] = b"innkeeper";
/// How often secrets that somebody is at work with are looked at again, a second apart.
const TRIES: u32 = 60;

fn wrong_key() -> Error {
    Error::new(
        Code::Conflict,
        "INNKEEPER_SECRET_KEY is not the key that this database's secrets were sealed with. Put that key back, or add it \
         to INNKEEPER_OLD_SECRET_KEYS. If it is lost, see `innkeeper key replace --help`.",
    )
}

/// Seals with the master key what old keys sealed, of every feature; or, without `change`, only looks.
async fn reseal(features: &[Arc<dyn Feature>], change: bool) -> Result<Vec<(&'static str, Resealed)>> {
    let mut all = vec![];
    for feature in features {
        all.extend(feature.reseal(change).await?);
    }
    Ok(all)
}

/// Refuses to work with a key that the database's secrets were not sealed with. The first process that comes leaves the
/// check value for all others.
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

/// Leaves the check value. A database from before there was one has secrets that tell a wrong key.
async fn first(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<u8>> {
    let all = reseal(features, false).await?;
    if all.iter().any(|(_, n)| n.lost > 0) && all.iter().all(|(_, n)| n.lost == n.all()) {
        return Err(wrong_key());
    }
    store::insert(&core.db, &core.sealer.seal(PURPOSE, WORDS)?).await?;
    // Another process may have been faster.
    store::get(&core.db).await?.ok_or_else(|| Error::internal(anyhow::anyhow!("there is no check value")))
}

/// How many secrets of each kind there are, by key.
pub async fn status(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, Resealed)>> {
    check(core, features).await?;
    reseal(features, false).await
}

/// Seals everything that an old key sealed with the master key, while processes work. What somebody is at work with is
/// waited for, up to a minute: what is left then is in the answer, as `old`.
pub async fn rotate(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, Resealed)>> {
    check(core, features).await?;
    let mut all = reseal(features, true).await?;
    for _ in 0..TRIES {
        if all.iter().all(|(_, n)| n.old == 0) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = reseal(features, true).await?;
        for ((_, before), (_, now)) in all.iter_mut().zip(again) {
            // What was resealed before opens by the master key now, unless its operation has ended.
            let (resealed, master) = (before.resealed + now.resealed, now.master.saturating_sub(before.resealed));
            *before = Resealed { master, resealed, ..now };
        }
    }
    if all.iter().all(|(_, n)| n.old == 0)
        && let Some(sealed) = store::get(&core.db).await?
        && let SealedBy::Old(new) = core.sealer.sealed_by(PURPOSE, &sealed)?
        && !store::replace(&core.db, &sealed, &new).await?
    {
        return Err(Error::new(Code::Conflict, "Another process changed the key's check value; run this again."));
    }
    Ok(all)
}

/// Takes the master key for right although the one before it is lost, and says how many secrets are lost with that.
/// Where nothing is lost it is refused.
pub async fn replace(core: &Core, features: &[Arc<dyn Feature>]) -> Result<Vec<(&'static str, Resealed)>> {
    let sealed = store::get(&core.db).await?;
    if check(core, features).await.is_ok() {
        return Err(Error::new(
            Code::Conflict,
            "INNKEEPER_SECRET_KEY is the right key, or the right one is among INNKEEPER_OLD_SECRET_KEYS: nothing is lost. \
             To seal everything with the first key, use `innkeeper key rotate`.",
        ));
    }
    let new = core.sealer.seal(PURPOSE, WORDS)?;
    match sealed {
        Some(before) => {
            if !store::replace(&core.db, &before, &new).await? {
                return Err(Error::new(Code::Conflict, "Another process changed the key's check value; look again."));
            }
        }
        None => store::insert(&core.db, &new).await?,
    }
    reseal(features, false).await
}
