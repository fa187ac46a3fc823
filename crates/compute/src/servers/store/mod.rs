//! SQL for servers.

mod found;
mod list;
mod orders;

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use super::labels::Labels;
use super::model::{ServerRecord, Status};
use crate::ids::{HostId, ImageId, ServerId, TariffId, UserId};
use crate::images::model::RootLogin;

pub use found::update_statuses;
pub(crate) use found::{pin_guest, set_size};
pub(super) use list::{Filter, list};
pub use orders::{AdoptedGuest, adopt, number_holder};
pub(super) use orders::{NewServer, OrderableTariff, image_kind, insert, lock_limit, offer, renumber};

type Result<T> = sqlx::Result<T>;

/// The owner of a server; deleted ones count, because their history stays theirs.
pub(super) async fn owner(db: &PgPool, id: ServerId) -> Result<Option<UserId>> {
    sqlx::query_scalar!(r#"select user_id as "user: UserId" from servers where id = $1"#, id.0).fetch_optional(db).await
}

/// All servers that an account has or had.
pub(super) async fn owned_by(db: &PgPool, account: UserId) -> Result<Vec<ServerId>> {
    sqlx::query_scalar!(r#"select id as "id: ServerId" from servers where user_id = $1"#, account.0).fetch_all(db).await
}

/// The owners of these servers, deleted ones included.
pub(super) async fn owners(db: &PgPool, ids: &[ServerId]) -> Result<HashMap<ServerId, UserId>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows =
        sqlx::query!(r#"select id as "id: ServerId", user_id as "user: UserId" from servers where id = any($1)"#, &ids)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.user)).collect())
}

/// A server that is not deleted.
pub async fn live(db: &PgPool, id: ServerId) -> Result<Option<ServerRecord>> {
    sqlx::query_as!(
        ServerRecord,
        r#"select id as "id: ServerId", uuid, user_id as "user_id: UserId", tariff_id as "tariff_id: TariffId",
                  host_id as "host_id: HostId", node,
                  guest_number, kind, name, status as "status: Status", cores, memory_mib, disk_gib,
                  bandwidth_mbps, ssh_keys, reserved,
                  protected, suspend_reason
           from servers where id = $1 and deleted_at is null"#,
        id.0
    )
    .fetch_optional(db)
    .await
}

/// A server that is not deleted, by its guest's number.
pub(super) async fn by_number(db: &PgPool, number: i64) -> Result<Option<ServerRecord>> {
    sqlx::query_as!(
        ServerRecord,
        r#"select id as "id: ServerId", uuid, user_id as "user_id: UserId", tariff_id as "tariff_id: TariffId",
                  host_id as "host_id: HostId", node,
                  guest_number, kind, name, status as "status: Status", cores, memory_mib, disk_gib,
                  bandwidth_mbps, ssh_keys, reserved,
                  protected, suspend_reason
           from servers where guest_number = $1 and deleted_at is null"#,
        number
    )
    .fetch_optional(db)
    .await
}

/// A server's row, locked until the transaction ends.
pub async fn lock(tx: &mut PgConnection, id: ServerId) -> Result<Option<ServerRecord>> {
    sqlx::query_as!(
        ServerRecord,
        r#"select id as "id: ServerId", uuid, user_id as "user_id: UserId", tariff_id as "tariff_id: TariffId",
                  host_id as "host_id: HostId", node,
                  guest_number, kind, name, status as "status: Status", cores, memory_mib, disk_gib,
                  bandwidth_mbps, ssh_keys, reserved,
                  protected, suspend_reason
           from servers where id = $1 and deleted_at is null for no key update"#,
        id.0
    )
    .fetch_optional(tx)
    .await
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
pub(super) async fn suspend(tx: &mut PgConnection, id: ServerId, reason: &str, running: bool) -> Result<()> {
    sqlx::query!(
        "update servers set suspend_reason = $2, suspended_at = coalesce(suspended_at, now()),
             suspended_running = suspended_running or $3, updated_at = now()
         where id = $1",
        id.0,
        reason,
        running
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Ends a suspension; returns whether the server was running before.
pub(super) async fn unsuspend(tx: &mut PgConnection, id: ServerId) -> Result<bool> {
    sqlx::query_scalar!(
        r#"update servers s set suspended_at = null, suspend_reason = null, suspended_running = false, updated_at = now()
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

pub(crate) async fn set_status(tx: &mut PgConnection, id: ServerId, status: Status) -> Result<()> {
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
pub(super) async fn release_room(tx: &mut PgConnection, id: ServerId, status: Status) -> Result<()> {
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
    /// `None` if the owner has not confirmed the address.
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
        r#"select case when u.confirmed_at is not null then u.email end as email, s.name, t.name as tariff, i.name as os, i.root_login as "root_login: RootLogin",
                cardinality(s.ssh_keys) > 0 as "has_keys!"
         from servers s join users u on u.id = s.user_id join tariffs t on t.id = s.tariff_id
              join images i on i.id = s.image_id where s.id = $1"#,
        id.0
    )
    .fetch_one(tx)
    .await
}
