//! SQL for orders and adoptions: what is available, and new rows.

use accounts::store::{lock_accounts, suspension};
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::Result;
use crate::ids::{AccountId, HostId, ImageId, ServerId, TariffId};
use crate::servers::labels::Labels;

/// What an order needs to know of a tariff.
#[derive(Debug)]
pub(in crate::servers) struct OrderableTariff {
    pub kind: String,
    pub cores: i32,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub bandwidth_mbps: Option<i32>,
}

/// A tariff that is available.
pub(in crate::servers) async fn offer(tx: &mut PgConnection, tariff: TariffId) -> Result<Option<OrderableTariff>> {
    sqlx::query_as!(
        OrderableTariff,
        "select kind, cores, memory_mib, disk_gib, bandwidth_mbps from tariffs where id = $1 and enabled",
        tariff.0
    )
    .fetch_optional(tx)
    .await
}

/// The kind of an image that is available.
pub(in crate::servers) async fn image_kind(tx: &mut PgConnection, image: ImageId) -> Result<Option<String>> {
    sqlx::query_scalar!("select kind from images where id = $1 and enabled", image.0).fetch_optional(tx).await
}

/// The limit of servers of an account that is ordering one, and how many count against it.
#[derive(Debug)]
pub(in crate::servers) struct ServerQuota {
    /// Whether it is the reseller's whose customer orders.
    pub of_reseller: bool,
    /// None: no limit.
    pub limit: Option<i32>,
    pub count: i64,
    pub suspend_reason: Option<String>,
    pub is_deleted: bool,
    /// False: the account has become this reseller's customer after the locks were taken.
    pub is_locked: bool,
}

/// Locks an account, and says why it is suspended, if it is.
pub(in crate::servers) async fn lock_suspension(tx: &mut PgConnection, account: AccountId) -> Result<Option<String>> {
    lock_accounts(tx, &[account]).await?;
    suspension(tx, account).await
}

/// Locks an account that is to get a guest; false if there is none that is neither deleted nor suspended.
pub async fn lock_active_account(tx: &mut PgConnection, account: AccountId) -> Result<bool> {
    lock_accounts(tx, &[account]).await?;
    sqlx::query_scalar!(
        r#"select exists (select from accounts where id = $1 and deleted_at is null and suspension_of(id) is null)
           as "active!""#,
        account.0
    )
    .fetch_one(tx)
    .await
}

/// Locks an account against its other orders, and its reseller against those of its customers, and returns their
/// limits. Not `for update`: each order has by then written rows that refer to the account, so they would deadlock.
pub(in crate::servers) async fn lock_quotas(tx: &mut PgConnection, account: AccountId) -> Result<Vec<ServerQuota>> {
    let locked: Vec<i64> = lock_accounts(tx, &[account]).await?.iter().map(|id| id.0).collect();
    sqlx::query_as!(
        ServerQuota,
        r#"select a.id <> $1 as "of_reseller!", a.server_limit as "limit", a.id = any($2) as "is_locked!",
                  case when a.id = $1 then suspension_of(a.id) end as suspend_reason,
                  a.deleted_at is not null as "is_deleted!",
                  (select count(*) from servers s join accounts c on c.id = s.account_id
                   where s.deleted_at is null and (c.id = a.id or c.parent_id = a.id)) as "count!"
           from accounts a where a.id = $1 or a.id = (select parent_id from accounts where id = $1)
           order by a.id <> $1"#,
        account.0,
        &locked
    )
    .fetch_all(tx)
    .await
}

#[derive(Debug)]
pub(in crate::servers) struct NewServer<'a> {
    pub account: AccountId,
    pub tariff: TariffId,
    pub image: ImageId,
    pub host: HostId,
    pub node: &'a str,
    pub name: Option<&'a str>,
    pub offer: &'a OrderableTariff,
    pub ssh_keys: &'a [String],
    pub labels: &'a Labels,
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
pub(in crate::servers) async fn insert(tx: &mut PgConnection, new: &NewServer<'_>) -> Result<(ServerId, i64)> {
    let number = next_number(tx).await?;
    let row = sqlx::query!(
        r#"insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                                cores, memory_mib, disk_gib, ssh_keys, bandwidth_mbps, labels)
           values ($1, $2, $3, $4, $5, $6, $14, $7, coalesce($8, 'server-' || $14::bigint), 'creating',
                   $9, $10, $11, $12, $13, $15)
           returning id as "id: ServerId", guest_number"#,
        Uuid::new_v4(),
        new.account.0,
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
        number,
        Json(new.labels) as _
    )
    .fetch_one(tx)
    .await?;
    Ok((row.id, row.guest_number))
}

/// Gives a server that is not on its host the next guest number; a name derived from the old number is changed with it.
pub(in crate::servers) async fn renumber(tx: &mut PgConnection, id: ServerId) -> Result<()> {
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
pub struct AdoptedGuest<'a> {
    pub(crate) marker: Uuid,
    pub(crate) account: AccountId,
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
/// size is taken from the tariff. `None` if there is no such tariff or image of its kind.
pub async fn adopt(tx: &mut PgConnection, new: &AdoptedGuest<'_>) -> Result<Option<ServerId>> {
    sqlx::query_scalar!(
        r#"insert into servers (uuid, account_id, tariff_id, image_id, host_id, node, guest_number, kind, name, status,
                                cores, memory_mib, disk_gib, bandwidth_mbps)
           select $1, $2, t.id, i.id, $5, $6, $7, $8, $9, 'unknown', coalesce($10, t.cores),
                  coalesce($11, t.memory_mib), coalesce($12, t.disk_gib), t.bandwidth_mbps
           from tariffs t, images i where t.id = $3 and i.id = $4 and t.kind = $8 and i.kind = $8
           on conflict (uuid) do update set account_id = excluded.account_id, tariff_id = excluded.tariff_id,
               image_id = excluded.image_id, host_id = excluded.host_id, node = excluded.node, name = excluded.name,
               guest_number = excluded.guest_number, status = 'unknown', cores = excluded.cores,
               memory_mib = excluded.memory_mib, disk_gib = excluded.disk_gib, reserved = true, deleted_at = null,
               wanted_up = true, updated_at = now(), suspended_with_account = false,
               suspended_running = servers.suspended_running and not servers.suspended_with_account,
               suspended_at = case when not servers.suspended_with_account then servers.suspended_at end,
               suspend_reason = case when not servers.suspended_with_account then servers.suspend_reason end
               where not servers.reserved
           returning id as "id: ServerId""#,
        new.marker,
        new.account.0,
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
