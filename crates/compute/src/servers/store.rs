//! SQL for servers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::labels::{Labels, Selector};
use super::model::{ListServers, Os, ServerRecord, ServerView, Status, TariffBrief};
use crate::ids::{HostId, ImageId, ServerId, TariffId, UserId};
use crate::images::model::RootLogin;
use kernel::http::page::Order;

type Result<T> = sqlx::Result<T>;

/// The owner of a server; deleted ones count, because their history stays theirs.
pub(super) async fn owner(db: &PgPool, id: ServerId) -> Result<Option<UserId>> {
    sqlx::query_scalar!(r#"select user_id as "user: UserId" from servers where id = $1"#, id.0).fetch_optional(db).await
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

/// The filter for a list of servers.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    /// Only this server, whatever the other fields are.
    pub id: Option<ServerId>,
    /// Only this account's.
    pub user: Option<UserId>,
    /// Only those that the token's scopes include.
    pub only: Option<&'a [i64]>,
    pub limit: Option<i64>,
    pub offset: i64,
    /// The query's own filters and sorting, if it has any.
    pub query: Option<&'a ListServers>,
    /// The query's label selector, if it has one.
    pub selector: &'a Selector,
}

/// Servers that are not deleted and meet a condition, whose parameters follow those of the page (`$1` and `$2`).
macro_rules! servers {
    ($db:expr, $filter:expr, $condition:literal $(, $parameter:expr)*) => {
        servers!(@ $db, $filter, "", ($condition), " order by s.id limit $1 offset $2" $(, $parameter)*)
    };
    // With the query's filters in `$3` to `$12`; the condition's own parameters follow.
    (asked $query:expr, $selector:expr, $db:expr, $filter:expr, $condition:literal $(, $parameter:expr)*) => {
        servers!(
            @ $db, $filter,
            r#" cross join lateral (select case $7 when 'name' then s.name when 'status' then s.status
                    when 'createdAt' then to_char(s.created_at at time zone 'UTC', 'YYYYMMDDHH24MISSUS')
                    when 'updatedAt' then to_char(s.updated_at at time zone 'UTC', 'YYYYMMDDHH24MISSUS') end as key) k"#,
            ("($3::text is null or s.status = $3) and ($4::bigint is null or s.tariff_id = $4)
             and ($5::bigint is null or s.image_id = $5)
             and ($6::text is null or strpos(lower(s.name), lower($6)) > 0)
             and s.labels @> $9 and s.labels ?& $10 and not s.labels ?| $11
             and not exists (select from jsonb_array_elements($12) u where s.labels @> u) and ", $condition),
            " order by case when not $8 then k.key end, case when $8 then k.key end desc,
              case when $8 then -s.id else s.id end limit $1 offset $2",
            $query.status.map(Status::as_str), $query.tariff_id.map(|id| id.0), $query.os_id.map(|id| id.0),
            $query.name, $query.sort.unwrap_or_default().as_str(), $query.order == Some(Order::Desc),
            Json(&$selector.equal) as _, &$selector.present, &$selector.absent, Json(&$selector.unequal) as _
            $(, $parameter)*
        )
    };
    (@ $db:expr, $filter:expr, $join:literal, ($($condition:literal),+), $order:literal $(, $parameter:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"select s.id as "id: ServerId", s.user_id as "user_id: UserId", s.tariff_id as "tariff_id: TariffId",
                      s.image_id as "image_id: ImageId", s.name, s.status as "status: Status", s.guest_number, s.cores,
                      s.memory_mib, s.disk_gib, s.created_at, s.updated_at, s.labels as "labels: Json<Labels>",
                      s.protected, s.suspended_at, s.suspend_reason,
                      i.name as image_name, i.type as image_type, t.name as tariff_name, t.price, t.currency,
                      array(select host(a.address) from addresses a where a.server_id = s.id
                            order by family(a.address), a.address) as "addresses!: Vec<String>",
                      count(*) over () as "total!"
               from servers s join images i on i.id = s.image_id join tariffs t on t.id = s.tariff_id"# + $join + "
               where s.deleted_at is null and " $(+ $condition)+ + $order,
            $filter.limit,
            $filter.offset
            $(, $parameter)*
        )
        .fetch_all($db)
        .await?
    };
}

/// Servers that are not deleted, oldest first, with the total number of matches.
///
/// One statement per kind of query: a single one with `$1 is null or …` for everything would read every server there
/// is, since a prepared statement's plan is made for any parameter.
pub(super) async fn list(db: impl PgExecutor<'_>, filter: &Filter<'_>) -> Result<Vec<(ServerView, i64)>> {
    let only = filter.only as Option<&[i64]>;
    let rows: Vec<Row> = match (filter.id, filter.user, filter.query) {
        (_, Some(user), Some(query)) => {
            servers!(asked query, filter.selector, db, filter,
                "s.user_id = $13 and ($14::bigint[] is null or s.id = any($14))", user.0, only)
        }
        (_, None, Some(query)) => {
            servers!(asked query, filter.selector, db, filter, "($13::bigint[] is null or s.id = any($13))", only)
        }
        (Some(id), _, None) => servers!(db, filter, "s.id = $3", id.0),
        (None, Some(user), None) => {
            servers!(db, filter, "s.user_id = $3 and ($4::bigint[] is null or s.id = any($4))", user.0, only)
        }
        (None, None, None) => servers!(db, filter, "($3::bigint[] is null or s.id = any($3))", only),
    };
    Ok(rows.into_iter().map(|row| (row.total, row)).map(|(total, row)| (row.into(), total)).collect())
}

struct Row {
    id: ServerId,
    user_id: UserId,
    tariff_id: TariffId,
    image_id: ImageId,
    name: String,
    status: Status,
    guest_number: i64,
    cores: i32,
    memory_mib: i64,
    disk_gib: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    labels: Json<Labels>,
    protected: bool,
    suspended_at: Option<DateTime<Utc>>,
    suspend_reason: Option<String>,
    image_name: String,
    image_type: String,
    tariff_name: String,
    price: i64,
    currency: String,
    addresses: Vec<String>,
    total: i64,
}

impl From<Row> for ServerView {
    fn from(r: Row) -> Self {
        // Nothing answers at these addresses until the server has been created.
        let addresses = if r.status == Status::Creating { Vec::new() } else { r.addresses };
        Self {
            id: r.id,
            user_id: r.user_id,
            tariff_id: r.tariff_id,
            os_id: r.image_id,
            name: r.name,
            status: r.status,
            proxmox_id: r.guest_number,
            ip_address: addresses.first().cloned(),
            ip_addresses: addresses,
            root_password: None,
            cores: r.cores,
            memory: r.memory_mib,
            disk: r.disk_gib,
            created_at: r.created_at,
            updated_at: r.updated_at,
            labels: r.labels.0,
            deletion_protection: r.protected,
            suspended_at: r.suspended_at,
            suspend_reason: r.suspend_reason,
            os: Os { id: r.image_id, name: r.image_name, r#type: r.image_type },
            tariff: TariffBrief { id: r.tariff_id, name: r.tariff_name, price: r.price, currency: r.currency },
        }
    }
}

/// What an order needs to know of a tariff.
#[derive(Debug)]
pub(super) struct Offer {
    pub kind: String,
    pub cores: i32,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub bandwidth_mbps: Option<i32>,
}

/// A tariff that is available.
pub(super) async fn offer(tx: &mut PgConnection, tariff: TariffId) -> Result<Option<Offer>> {
    sqlx::query_as!(
        Offer,
        "select kind, cores, memory_mib, disk_gib, bandwidth_mbps from tariffs where id = $1 and enabled",
        tariff.0
    )
    .fetch_optional(tx)
    .await
}

/// The kind of an image that is available.
pub(super) async fn image_kind(tx: &mut PgConnection, image: ImageId) -> Result<Option<String>> {
    sqlx::query_scalar!("select kind from images where id = $1 and enabled", image.0).fetch_optional(tx).await
}

/// Locks an account against its other orders, and returns its number of servers and its limit. Not `for update`: each
/// order has by then written rows that refer to the account, so they would deadlock.
pub(super) async fn lock_limit(tx: &mut PgConnection, user: UserId) -> Result<(i64, i64)> {
    let limit = sqlx::query_scalar!("select server_limit from users where id = $1 for no key update", user.0)
        .fetch_one(&mut *tx)
        .await?;
    let count = sqlx::query_scalar!(
        r#"select count(*) as "n!" from servers where user_id = $1 and deleted_at is null"#,
        user.0
    )
    .fetch_one(tx)
    .await?;
    Ok((count, limit.into()))
}

#[derive(Debug)]
pub(super) struct NewServer<'a> {
    pub user: UserId,
    pub tariff: TariffId,
    pub image: ImageId,
    pub host: HostId,
    pub node: &'a str,
    pub name: Option<&'a str>,
    pub offer: &'a Offer,
    pub ssh_keys: &'a [String],
}

/// The next guest number that no server, adopted ones included, and no unknown guest has.
async fn next_number(tx: &mut PgConnection) -> Result<i64> {
    loop {
        let next = sqlx::query!(
            r#"with n as materialized (select nextval('guest_numbers') as number)
               select n.number as "number!",
                      exists (select from unknown_guests u where u.guest_number = n.number)
                          or exists (select from servers s where s.guest_number = n.number) as "taken!" from n"#
        )
        .fetch_one(&mut *tx)
        .await?;
        if !next.taken {
            return Ok(next.number);
        }
    }
}

/// Adds a server with the next guest number.
pub(super) async fn insert(tx: &mut PgConnection, new: &NewServer<'_>) -> Result<(ServerId, i64)> {
    let number = next_number(tx).await?;
    let row = sqlx::query!(
        r#"insert into servers (uuid, user_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                                cores, memory_mib, disk_gib, ssh_keys, bandwidth_mbps)
           values ($1, $2, $3, $4, $5, $6, $14, $7, coalesce($8, 'server-' || $14::bigint), 'creating',
                   $9, $10, $11, $12, $13)
           returning id as "id: ServerId", guest_number"#,
        Uuid::new_v4(),
        new.user.0,
        new.tariff.0,
        new.image.0,
        new.host.0,
        new.node,
        new.offer.kind,
        new.name,
        new.offer.cores,
        new.offer.memory_mib,
        new.offer.disk_gib,
        new.ssh_keys,
        new.offer.bandwidth_mbps,
        number
    )
    .fetch_one(tx)
    .await?;
    Ok((row.id, row.guest_number))
}

/// Gives a server that is not on its host the next guest number; a name derived from the old number is changed with it.
pub(super) async fn renumber(tx: &mut PgConnection, id: ServerId) -> Result<()> {
    let number = next_number(tx).await?;
    sqlx::query!(
        "update servers set guest_number = $2, updated_at = now(),
             name = case when name = 'server-' || guest_number then 'server-' || $2::bigint else name end
         where id = $1",
        id.0,
        number
    )
    .execute(tx)
    .await
    .map(drop)
}

/// A guest that is to become a server.
#[derive(Debug)]
pub struct Adopted<'a> {
    pub(crate) marker: Uuid,
    pub(crate) user: UserId,
    pub(crate) tariff: TariffId,
    pub(crate) image: ImageId,
    pub(crate) host: HostId,
    pub(crate) node: &'a str,
    pub(crate) number: i64,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) cores: Option<i32>,
    pub(crate) memory_mib: Option<i64>,
    pub(crate) disk_gib: Option<i64>,
}

/// The server that has this guest number but another marker.
pub async fn number_holder(tx: &mut PgConnection, number: i64, marker: Uuid) -> Result<Option<ServerId>> {
    sqlx::query_scalar!(
        r#"select id as "id: ServerId" from servers where guest_number = $1 and uuid <> $2"#,
        number,
        marker
    )
    .fetch_optional(tx)
    .await
}

/// Adds a server for an existing guest, or restores the server that was deleted without it; anything unknown of its
/// size is taken from the tariff. `None` if there is no such tariff or image of its kind. Returns the database's own
/// error, so that the caller can recognise a missing account.
pub async fn adopt(tx: &mut PgConnection, new: &Adopted<'_>) -> Result<Option<ServerId>> {
    sqlx::query_scalar!(
        r#"insert into servers (uuid, user_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                                cores, memory_mib, disk_gib, bandwidth_mbps)
           select $1, $2, t.id, i.id, $5, $6, $7, $8, $9, 'unknown', coalesce($10, t.cores),
                  coalesce($11, t.memory_mib), coalesce($12, t.disk_gib), t.bandwidth_mbps
           from tariffs t, images i where t.id = $3 and i.id = $4 and t.kind = $8 and i.kind = $8
           on conflict (uuid) do update set user_id = excluded.user_id, tariff_id = excluded.tariff_id,
               image_id = excluded.image_id, host_id = excluded.host_id, node = excluded.node, name = excluded.name,
               guest_number = excluded.guest_number, status = 'unknown', cores = excluded.cores,
               memory_mib = excluded.memory_mib, disk_gib = excluded.disk_gib, reserved = true, deleted_at = null,
               wanted_up = true, updated_at = now()
               where not servers.reserved
           returning id as "id: ServerId""#,
        new.marker,
        new.user.0,
        new.tariff.0,
        new.image.0,
        new.host.0,
        new.node,
        new.number,
        new.kind,
        new.name,
        new.cores,
        new.memory_mib,
        new.disk_gib
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
pub(super) async fn unreserve(tx: &mut PgConnection, id: ServerId, status: Status) -> Result<()> {
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
pub(super) async fn bury(tx: &mut PgConnection, id: ServerId) -> Result<()> {
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
pub(super) struct Ready {
    /// `None` if the owner has not confirmed the address.
    pub email: Option<String>,
    pub name: String,
    pub tariff: String,
    pub os: String,
    pub root_login: RootLogin,
    pub has_keys: bool,
}

pub(super) async fn ready(tx: &mut PgConnection, id: ServerId) -> Result<Ready> {
    sqlx::query_as!(
        Ready,
        r#"select case when u.confirmed_at is not null then u.email end as email, s.name, t.name as tariff, i.name as os, i.root_login as "root_login: RootLogin",
                cardinality(s.ssh_keys) > 0 as "has_keys!"
         from servers s join users u on u.id = s.user_id join tariffs t on t.id = s.tariff_id
              join images i on i.id = s.image_id where s.id = $1"#,
        id.0
    )
    .fetch_one(tx)
    .await
}
