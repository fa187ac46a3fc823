//! SQL for lists of servers.

use chrono::{DateTime, Utc};
use kernel::auth::{Caller, Owner};
use kernel::listing::{SortOrder, Window};
use kernel::operations::model::OperationView;
use sqlx::PgExecutor;
use sqlx::types::Json;

use super::Result;
use crate::ids::{AccountId, HostId, ImageId, ServerId, TariffId, UserId};
use crate::servers::actions::{ServerActions, ServerCondition};
use crate::servers::figures::ServerStats;
use crate::servers::labels::{Labels, Selector};
use crate::servers::model::{ListServers, ServerImage, ServerState, ServerView, TariffBrief};

/// The filter for a list of servers.
#[derive(Debug)]
pub(in crate::servers) struct Filter<'a> {
    /// Only this server, whatever the other fields are.
    pub id: Option<ServerId>,
    /// Whose.
    pub of: Whose,
    /// Only those that the token's scopes include.
    pub only: Option<&'a [i64]>,
    /// Only those that follow this one in a list sorted by id, which needs a query.
    pub after: Option<ServerId>,
    /// Only these of them.
    pub window: Option<Window>,
    /// The query's own filters and sorting, if it has any.
    pub query: Option<&'a ListServers>,
    /// The query's label selector, if it has one.
    pub selector: &'a Selector,
}

/// Whose servers a list shows.
#[derive(Debug, Clone, Copy)]
pub(in crate::servers) enum Whose {
    /// An account's.
    Account(AccountId),
    /// A reseller's and its customers'.
    Reseller(AccountId),
    /// Everybody's.
    All,
}

/// Servers that are not deleted and meet a condition, whose parameters follow those of the page (`$1` and `$2`). The page
/// is chosen first, so that what belongs to a server is looked up for its rows only.
macro_rules! servers {
    ($db:expr, $filter:expr, $condition:literal $(, $parameter:expr)*) => {
        servers!(@ $db, $filter, "", ($condition), "s.id" $(, $parameter)*)
    };
    // With the query's filters in `$3` to `$19`; the condition's own parameters follow.
    (asked $query:expr, $selector:expr, $db:expr, $filter:expr, $condition:literal $(, $parameter:expr)*) => {
        servers!(
            @ $db, $filter,
            r#" cross join lateral (select case $7 when 'name' then s.name when 'status' then s.status
                    when 'createdAt' then to_char(s.created_at at time zone 'UTC', 'YYYYMMDDHH24MISSUS')
                    when 'updatedAt' then to_char(s.updated_at at time zone 'UTC', 'YYYYMMDDHH24MISSUS')
                    end as key) k"#,
            ("($3::text is null or s.status = $3) and ($4::bigint is null or s.tariff_id = $4)
             and ($5::bigint is null or s.image_id = $5)
             and ($6::text is null or strpos(lower(s.name), lower($6)) > 0)
             and s.labels @> $9 and s.labels ?& $10 and not s.labels ?| $11
             and not exists (select from jsonb_array_elements($12) u where s.labels @> u)
             and ($13::bigint is null or case when $8 then s.id < $13 else s.id > $13 end)
             and ($14::text is null or strpos(lower(s.name), lower($14)) > 0
                  or $14 in (s.id::text, s.guest_number::text)
                  or exists (select from accounts o join users u on u.id = o.owner_id
                             where o.id = s.account_id and strpos(lower(u.email), lower($14)) > 0)
                  or exists (select from addresses a where a.server_id = s.id
                             and (host(a.address) = $15 or starts_with(host(a.address), $16))))
             and ($17::bigint is null or s.host_id = $17) and ($18::text is null or s.node = $18)
             and ($19::bigint is null or s.account_id = $19) and ", $condition),
            "case when not $8 then k.key end, case when $8 then k.key end desc, case when $8 then -s.id else s.id end",
            $query.status.map(ServerState::as_str), $query.tariff_id.map(|id| id.0), $query.os_id.map(|id| id.0),
            $query.name, $query.sort.unwrap_or_default().as_str(), $query.order == Some(SortOrder::Desc),
            Json(&$selector.equal) as _, &$selector.present, &$selector.absent, Json(&$selector.unequal) as _,
            $filter.after.map(|id| id.0), $query.q, $query.address(), $query.start_of_address(),
            $query.host_id.map(|id| id.0), $query.node, $query.account_id.map(|id| id.0)
            $(, $parameter)*
        )
    };
    (@ $db:expr, $filter:expr, $join:literal, ($($condition:literal),+), $order:literal $(, $parameter:expr)*) => {
        sqlx::query_as!(
            ListedServer,
            "with page as (
                 select s.id, count(*) over () as total, row_number() over (order by " + $order + ") as place
                 from servers s" + $join + "
                 where s.deleted_at is null and " $(+ $condition)+ + "
                 order by place limit $1 offset $2) "
            + r#"select s.id as "id: ServerId", s.account_id as "account_id: AccountId", c.parent_id as "reseller_id: AccountId", c.owner_id as "user_id: UserId",
                      u.email as owner_email, s.tariff_id as "tariff_id: TariffId", s.image_id as "image_id: ImageId",
                      s.name, s.status as "status: ServerState", s.guest_number, s.host_id as "host_id: HostId", s.node,
                      s.cores, s.memory_mib, s.disk_gib, s.created_at, s.updated_at, s.labels as "labels: Json<Labels>",
                      s.reserved, s.protected, s.suspended_at, s.suspend_reason,
                      i.name as image_name, i.type as image_type, t.name as tariff_name, t.price, t.currency,
                      array(select host(a.address) from addresses a where a.server_id = s.id
                            order by family(a.address), a.address) as "addresses!: Vec<String>",
                      page.total as "total!"
               from page join servers s on s.id = page.id join accounts c on c.id = s.account_id
                    join users u on u.id = c.owner_id join images i on i.id = s.image_id
                    join tariffs t on t.id = s.tariff_id
               order by page.place"#,
            $filter.window.map(|window| window.limit),
            $filter.window.map_or(0, |window| window.offset)
            $(, $parameter)*
        )
        .fetch_all($db)
        .await?
    };
}

/// Servers that are not deleted, oldest first, with the total number of matches after `after`.
///
/// One statement per kind of query: a single one with `$1 is null or …` for everything would read every server there
/// is, since a prepared statement's plan is made for any parameter.
pub(in crate::servers) async fn list(db: impl PgExecutor<'_>, filter: &Filter<'_>) -> Result<Vec<ListedServer>> {
    let only = filter.only as Option<&[i64]>;
    Ok(match (filter.id, filter.of, filter.query) {
        (_, Whose::Account(account), Some(query)) => {
            servers!(asked query, filter.selector, db, filter,
                "s.account_id = $20 and ($21::bigint[] is null or s.id = any($21))", account.0, only)
        }
        (_, Whose::Reseller(account), Some(query)) => {
            servers!(asked query, filter.selector, db, filter,
                "s.account_id in (select id from accounts where id = $20 or parent_id = $20)
                 and ($21::bigint[] is null or s.id = any($21))", account.0, only)
        }
        (_, Whose::All, Some(query)) => {
            servers!(asked query, filter.selector, db, filter, "($20::bigint[] is null or s.id = any($20))", only)
        }
        (Some(id), _, None) => servers!(db, filter, "s.id = $3", id.0),
        (None, Whose::Account(account), None) => {
            servers!(db, filter, "s.account_id = $3 and ($4::bigint[] is null or s.id = any($4))", account.0, only)
        }
        (None, Whose::Reseller(account), None) => {
            servers!(
                db,
                filter,
                "s.account_id in (select id from accounts where id = $3 or parent_id = $3)
                 and ($4::bigint[] is null or s.id = any($4))",
                account.0,
                only
            )
        }
        (None, Whose::All, None) => servers!(db, filter, "($3::bigint[] is null or s.id = any($3))", only),
    })
}

/// A server of a list.
#[derive(Debug)]
pub(in crate::servers) struct ListedServer {
    pub id: ServerId,
    account_id: AccountId,
    reseller_id: Option<AccountId>,
    user_id: UserId,
    owner_email: String,
    tariff_id: TariffId,
    image_id: ImageId,
    name: String,
    status: ServerState,
    guest_number: i64,
    host_id: HostId,
    node: String,
    cores: i32,
    memory_mib: i64,
    disk_gib: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    labels: Json<Labels>,
    reserved: bool,
    protected: bool,
    suspended_at: Option<DateTime<Utc>>,
    suspend_reason: Option<String>,
    image_name: String,
    image_type: String,
    tariff_name: String,
    price: i64,
    currency: String,
    addresses: Vec<String>,
    /// How many servers meet the list's condition.
    pub total: i64,
}

impl ListedServer {
    /// As this caller sees it, with its operation of now, the number of its open alerts and, if asked for, its figures.
    /// Where it is, is the provider's business.
    pub(in crate::servers) fn view(
        self,
        caller: &Caller,
        current_operation: Option<OperationView>,
        open_alerts: i64,
        stats: Option<ServerStats>,
    ) -> ServerView {
        let r = self;
        let condition = ServerCondition {
            status: r.status,
            reserved: r.reserved,
            protected: r.protected,
            suspend_reason: r.suspend_reason.as_deref(),
        };
        let owner = Owner { account: r.account_id, reseller: r.reseller_id };
        let actions = ServerActions::of(caller, (r.id, owner), condition, current_operation.as_ref());
        let is_staff = caller.sees_everything();
        // Nothing answers at these addresses until the server has been created.
        let addresses = if r.status == ServerState::Creating { Vec::new() } else { r.addresses };
        ServerView {
            id: r.id,
            account_id: r.account_id,
            user_id: r.user_id,
            owner_email: r.owner_email,
            tariff_id: r.tariff_id,
            os_id: r.image_id,
            name: r.name,
            status: r.status,
            proxmox_id: r.guest_number,
            host_id: Some(r.host_id).filter(|_| is_staff),
            node: Some(r.node).filter(|_| is_staff),
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
            current_operation,
            actions,
            open_alerts,
            stats,
            os: ServerImage { id: r.image_id, name: r.image_name, r#type: r.image_type },
            tariff: TariffBrief { id: r.tariff_id, name: r.tariff_name, price: r.price, currency: r.currency },
        }
    }
}
