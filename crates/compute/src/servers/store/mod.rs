//! SQL for servers.

mod found;
mod list;
mod orders;
pub(crate) mod snapshot_room;

use std::collections::HashMap;

use kernel::auth::Owner;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use super::labels::Labels;
use super::model::{ServerRecord, ServerState};
use crate::ids::{AccountId, HostId, ImageId, ServerId, TariffId};
use crate::images::model::RootLogin;

pub use found::update_statuses;
pub(crate) use found::{pin_guest, set_size};
pub(super) use list::{Filter, ListedServer, Whose, list};
pub use orders::{AdoptedGuest, adopt, lock_active_account, number_holder};
pub(super) use orders::{
    NewServer, OrderableTariff, ServerQuota, image_kind, insert, lock_quotas, lock_suspension, offer, renumber,
};

type Result<T> = sqlx::Result<T>;

/// The owner of a server; deleted ones count, because their history stays theirs.
pub(super) async fn owner(db: &PgPool, id: ServerId) -> Result<Option<Owner>> {
    Ok(owners(db, &[id]).await?.remove(&id))
}

/// All servers that an account has or had.
pub(super) async fn owned_by(db: &PgPool, account: AccountId) -> Result<Vec<ServerId>> {
    sqlx::query_scalar!(r#"select id as "id: ServerId" from servers where account_id = $1"#, account.0)
        .fetch_all(db)
        .await
}

/// The owners of these servers, deleted ones included.
pub(super) async fn owners(db: &PgPool, ids: &[ServerId]) -> Result<HashMap<ServerId, Owner>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"select s.id as "id: ServerId", a.id as "account: AccountId", a.parent_id as "reseller: AccountId"
           from servers s join accounts a on a.id = s.account_id where s.id = any($1)"#,
        &ids
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, Owner { account: r.account, reseller: r.reseller })).collect())
}

/// The number of live servers of an account.
pub(super) async fn count_of(tx: &mut PgConnection, account: AccountId) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from servers where account_id = $1 and deleted_at is null"#,
        account.0
    )
    .fetch_one(tx)
    .await
}

/// A query for servers that are not deleted.
macro_rules! records {
    ($rest:literal, $argument:expr) => {
        sqlx::query_as!(
            ServerRecord,
            r#"select id as "id: ServerId", uuid, account_id as "account_id: AccountId",
                      tariff_id as "tariff_id: TariffId", host_id as "host_id: HostId", node,
                      guest_number, kind, name, status as "status: ServerState", cores, memory_mib, disk_gib,
                      bandwidth_mbps, ssh_keys, reserved,
                      protected, suspend_reason, suspended_with_account,
                      (select parent_id from accounts where accounts.id = account_id) as "reseller_id: AccountId"
               from servers where deleted_at is null and "#
                + $rest,
            $argument
        )
    };
}

/// A server that is not deleted.
pub async fn live(db: &PgPool, id: ServerId) -> Result<Option<ServerRecord>> {
    records!("id = $1", id.0).fetch_optional(db).await
}

/// A server that is not deleted, by its guest's number.
pub(super) async fn by_number(db: &PgPool, number: i64) -> Result<Option<ServerRecord>> {
    records!("guest_number = $1", number).fetch_optional(db).await
}

/// A server's row, locked until the transaction ends.
pub async fn lock(tx: &mut PgConnection, id: ServerId) -> Result<Option<ServerRecord>> {
    records!("id = $1 for no key update", id.0).fetch_optional(tx).await
}

/// The servers of an account, locked by id until the transaction ends.
pub(super) async fn lock_all_of(tx: &mut PgConnection, account: AccountId) -> Result<Vec<ServerRecord>> {
    records!("account_id = $1 order by id for no key update", account.0).fetch_all(tx).await
}

/// Moves a new server to another node before its operation begins.
pub(super) async fn place(tx: &mut PgConnection, id: ServerId, host: HostId, node: &str) -> Result<()> {
    sqlx::query!("update servers set host_id = $2, node = $3 where id = $1", id.0, host.0, node)
        .execute(tx)
        .await
        .map(drop)
}

/// Updates a server's name, labels and protection; `None` leaves a value unchanged.
pub(super) async fn update(
    tx: &mut PgConnection,
    id: ServerId,
    name: Option<&str>,
    labels: Option<&Labels>,
    protected: Option<bool>,
) -> Result<()> {
    sqlx::query!(
        "update servers set name = coalesce($2, name), labels = coalesce($3, labels),
             protected = coalesce($4, protected), updated_at = now()
         where id = $1",
        id.0,
        name,
        labels.map(Json) as Option<Json<&Labels>>,
        protected
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Suspends a server, or changes the reason of a suspension.
/// `with_account`: it ends with its account's suspension.
pub(super) async fn suspend(
    tx: &mut PgConnection,
    id: ServerId,
    reason: &str,
    running: bool,
    with_account: bool,
) -> Result<()> {
    sqlx::query!(
        "update servers set suspend_reason = $2, suspended_at = coalesce(suspended_at, now()),
             suspended_running = suspended_running or $3, suspended_with_account = $4, updated_at = now()
         where id = $1",
        id.0,
        reason,
        running,
        with_account
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Ends a suspension; returns whether the server was running before.
pub(super) async fn unsuspend(tx: &mut PgConnection, id: ServerId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"update servers s set suspended_at = null, suspend_reason = null, suspended_running = false,
               suspended_with_account = false, updated_at = now()
           from servers old where s.id = $1 and old.id = s.id returning old.suspended_running"#,
        id.0
    )
    .fetch_one(tx)
    .await
}

/// Sets a server's new image and keys once its old guest is gone.
pub(super) async fn set_image(tx: &mut PgConnection, id: ServerId, image: ImageId, ssh_keys: &[String]) -> Result<()> {
    sqlx::query!(
        "update servers set image_id = $2, ssh_keys = $3, ssh_host_key = null, updated_at = now() where id = $1",
        id.0,
        image.0,
        ssh_keys
    )
    .execute(tx)
    .await
    .map(drop)
}

pub(super) async fn image_of(tx: &mut PgConnection, id: ServerId) -> Result<ImageId> {
    sqlx::query_scalar!(r#"select image_id as "image: ImageId" from servers where id = $1"#, id.0).fetch_one(tx).await
}

/// An image's source on a host.
pub(super) async fn source_on(tx: &mut PgConnection, image: ImageId, host: HostId) -> Result<Option<String>> {
    sqlx::query_scalar!("select source from image_sources where image_id = $1 and host_id = $2", image.0, host.0)
        .fetch_optional(tx)
        .await
}

pub(crate) async fn set_status(tx: &mut PgConnection, id: ServerId, status: ServerState) -> Result<()> {
    sqlx::query!("update servers set status = $2, updated_at = now() where id = $1", id.0, status.as_str())
        .execute(tx)
        .await
        .map(drop)
}

/// Leaves the status of a server that had an operation in progress to the next sweep.
pub(super) async fn let_show(tx: &mut PgConnection, id: ServerId) -> Result<()> {
    sqlx::query!(
        "update servers set status = 'unknown', updated_at = now()
         where id = $1 and status in ('creating', 'starting', 'stopping', 'restarting', 'resizing', 'restoring',
                                      'reinstalling', 'deleting')",
        id.0
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Whether a server should be running.
pub(super) async fn wanted_up(tx: &mut PgConnection, id: ServerId) -> Result<bool> {
    sqlx::query_scalar!("select wanted_up from servers where id = $1", id.0).fetch_one(tx).await
}

/// Restores whether it should be running, after a request that came to nothing.
pub async fn set_wanted_up(tx: &mut PgConnection, id: ServerId, up: bool) -> Result<()> {
    sqlx::query!("update servers set wanted_up = $2 where id = $1", id.0, up).execute(tx).await.map(drop)
}

/// Releases the server's share of its node: nothing of it is on the host.
pub(super) async fn release_room(tx: &mut PgConnection, id: ServerId, status: ServerState) -> Result<()> {
    sqlx::query!(
        "update servers set reserved = false, status = $2, updated_at = now(),
             deleted_at = case when $2 = 'deleted' then now() end
         where id = $1 and reserved",
        id.0,
        status.as_str()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Marks a failed server as deleted; one that is deleted already stays unchanged.
pub(super) async fn mark_deleted(tx: &mut PgConnection, id: ServerId) -> Result<()> {
    sqlx::query!(
        "update servers set status = 'deleted', deleted_at = now(), updated_at = now() where id = $1 and not reserved
             and deleted_at is null",
        id.0
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The source of a server's image on its host.
pub(super) async fn image_source(db: &PgPool, id: ServerId) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "select i.source from servers s join image_sources i on i.image_id = s.image_id and i.host_id = s.host_id
         where s.id = $1",
        id.0
    )
    .fetch_optional(db)
    .await
}

/// The contents of the "server is ready" email.
#[derive(Debug)]
pub(super) struct ReadyMailValues {
    /// `None` if the owner has not confirmed the address, or wants no such email.
    pub email: Option<String>,
    pub name: String,
    pub tariff: String,
    pub os: String,
    pub root_login: RootLogin,
    pub has_keys: bool,
}

pub(super) async fn ready_mail(tx: &mut PgConnection, id: ServerId) -> Result<ReadyMailValues> {
    sqlx::query_as!(
        ReadyMailValues,
        r#"select case when u.confirmed_at is not null and u.server_mails then u.email end as email, s.name, t.name as tariff,
                  i.name as os, i.root_login as "root_login: RootLogin",
                cardinality(s.ssh_keys) > 0 as "has_keys!"
         from servers s join accounts a on a.id = s.account_id join users u on u.id = a.owner_id
         join tariffs t on t.id = s.tariff_id
              join images i on i.id = s.image_id where s.id = $1"#,
        id.0
    )
    .fetch_one(tx)
    .await
}
