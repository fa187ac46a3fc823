//! Business logic for tariffs.

use kernel::auth::Caller;
use kernel::core::Core;
use kernel::db::{self, is_foreign_key_violation, is_unique_violation};
use kernel::error::{Code, Error, Result};
use kernel::idempotency::Once;

use super::model::{NewTariff, Tariff, UpdateTariff};
use super::store;
use crate::ids::TariffId;

fn name_taken() -> Error {
    Error::new(Code::AlreadyExists, "A tariff with this name already exists.")
}

/// The tariffs that the caller may see: all for a provider, those that can be ordered for others.
pub async fn visible(core: &Core, caller: &Caller) -> Result<Vec<Tariff>> {
    Ok(store::tariffs(&core.db, !caller.sees_everything()).await?)
}

/// All tariffs.
pub async fn all(core: &Core) -> Result<Vec<Tariff>> {
    Ok(store::tariffs(&core.db, false).await?)
}

/// One of the tariffs that the caller may see.
pub async fn find(core: &Core, caller: &Caller, id: TariffId) -> Result<Tariff> {
    let found = store::tariff(&core.db, id).await?;
    found.filter(|t| t.enabled || caller.sees_everything()).ok_or_else(|| Error::not_found("tariff"))
}

/// Creates a tariff. The caller has validated `new`.
pub async fn create(core: &Core, once: &Once, new: NewTariff) -> Result<Tariff> {
    once.run(core, async |tx| store::insert(tx, &new).await?.ok_or_else(name_taken)).await
}

/// Changes only the fields that `update` has. Servers keep the size they were ordered with.
pub async fn update(core: &Core, id: TariffId, update: UpdateTariff) -> Result<Tariff> {
    let mut tx = db::begin(&core.db).await?;
    let old = store::lock(&mut tx, id).await?.ok_or_else(|| Error::not_found("tariff"))?;
    let new = Tariff {
        name: update.name.map_or(old.name, |name| name.trim().to_owned()),
        kind: update.kind.unwrap_or(old.kind),
        cores: update.cores.unwrap_or(old.cores),
        memory: update.memory.unwrap_or(old.memory),
        disk: update.disk.unwrap_or(old.disk),
        traffic: update.traffic.apply(old.traffic),
        bandwidth: update.bandwidth.apply(old.bandwidth),
        price: update.price.unwrap_or(old.price),
        currency: update.currency.unwrap_or(old.currency),
        enabled: update.enabled.unwrap_or(old.enabled),
        max_cores: update.max_cores.apply(old.max_cores),
        max_memory: update.max_memory.apply(old.max_memory),
        max_disk: update.max_disk.apply(old.max_disk),
        snapshots: update.snapshots.unwrap_or(old.snapshots),
        ..old
    };
    let new = store::update(&mut *tx, &new)
        .await
        .map_err(|e| if is_unique_violation(&e) { name_taken() } else { e.into() })?;
    tx.commit().await?;
    Ok(new)
}

/// Deletes a tariff that no server has or ever had: the history of servers needs the others.
pub async fn delete(core: &Core, id: TariffId) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    match store::delete(&mut *tx, id).await {
        Ok(true) => tx.commit().await,
        Ok(false) => Err(Error::not_found("tariff")),
        Err(error) if is_foreign_key_violation(&error) => {
            let message = match store::live_servers(&core.db, id).await? {
                0 => "The history of deleted servers needs this tariff: disable it instead.".to_owned(),
                n => format!("Servers have this tariff ({n}): disable it instead; they will keep it."),
            };
            Err(Error::new(Code::Conflict, message))
        }
        Err(error) => Err(error.into()),
    }
}
