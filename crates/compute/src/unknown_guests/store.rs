//! SQL for unknown guests.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use hypervisor::{GuestFacts, GuestKind, GuestRef};
use kernel::error::{Error, Result};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::model::UnknownGuest;
use crate::ids::{HostId, ServerId};

/// Which of these markers belong to no server. If a server was deleted only after the host was asked, its guest may
/// rightly be in the host's response.
pub(super) async fn without_server(db: &PgPool, markers: &[Uuid], known_at: DateTime<Utc>) -> Result<Vec<Uuid>> {
    let rows = sqlx::query_scalar!(
        r#"select g.marker as "marker!" from unnest($1::uuid[]) as g (marker)
           where not exists (select from servers s
                             where s.uuid = g.marker and (s.reserved or s.updated_at >= $2))"#,
        markers,
        known_at
    );
    Ok(rows.fetch_all(db).await?)
}

fn kind(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Lxc => "lxc",
        GuestKind::Vm => "vm",
    }
}

/// Records that these were seen; returns the numbers of the new ones.
pub(super) async fn record_seen(db: &PgPool, host: HostId, guests: &[&GuestRef]) -> Result<Vec<i64>> {
    let markers: Vec<Uuid> = guests.iter().map(|g| g.marker).collect();
    let numbers: Vec<i64> = guests.iter().map(|g| g.vmid).collect();
    let kinds: Vec<String> = guests.iter().map(|g| kind(g.kind).to_owned()).collect();
    let nodes: Vec<String> = guests.iter().map(|g| g.node.clone()).collect();
    let rows = sqlx::query!(
        r#"insert into unknown_guests as u (host_id, marker, guest_number, kind, node)
           select $1, g.* from unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[]) as g
           on conflict (host_id, marker) do update
               set last_seen_at = now(), guest_number = excluded.guest_number, node = excluded.node
               where u.last_seen_at < now() - interval '1 minute' or u.guest_number <> excluded.guest_number
                  or u.node <> excluded.node
           returning guest_number, xmax = 0 as "is_new!""#,
        host.0,
        &markers,
        &numbers,
        &kinds,
        &nodes
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter(|r| r.is_new).map(|r| r.guest_number).collect())
}

/// Those of a host that are no longer unknown: missing from a complete sweep of their nodes, or a server's by now.
pub(super) async fn no_longer_unknown(
    db: &PgPool,
    host: HostId,
    seen: &[Uuid],
    unknown: &[Uuid],
    nodes: &[String],
    unread: &[i64],
) -> Result<Vec<Uuid>> {
    let rows = sqlx::query_scalar!(
        "select marker from unknown_guests
         where host_id = $1 and marker <> all($3)
           and (marker = any($2) or (node = any($4) and guest_number <> all($5)))",
        host.0,
        seen,
        unknown,
        nodes,
        unread
    );
    Ok(rows.fetch_all(db).await?)
}

/// Deletes these records.
pub(super) async fn forget(tx: &mut PgConnection, host: HostId, markers: &[Uuid]) -> Result<()> {
    sqlx::query!("delete from unknown_guests where host_id = $1 and marker = any($2)", host.0, markers)
        .execute(tx)
        .await?;
    Ok(())
}

/// Those of a host whose addresses are not known yet.
pub(super) async fn without_facts(db: &PgPool, host: HostId, most: i64) -> Result<Vec<GuestRef>> {
    let rows = sqlx::query!(
        "select marker, guest_number, kind, node from unknown_guests
         where host_id = $1 and addresses is null order by guest_number limit $2",
        host.0,
        most
    )
    .fetch_all(db)
    .await?;
    let kind = |word: &str| if word == "vm" { GuestKind::Vm } else { GuestKind::Lxc };
    Ok(rows
        .into_iter()
        .map(|r| GuestRef { marker: r.marker, vmid: r.guest_number, kind: kind(&r.kind), node: r.node })
        .collect())
}

/// Stores a host's report about a guest.
pub(super) async fn store_facts(db: &PgPool, host: HostId, marker: Uuid, facts: &GuestFacts) -> Result<()> {
    let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    let number = |n: Option<u64>| n.and_then(|n| i64::try_from(n).ok());
    sqlx::query!(
        "update unknown_guests set hostname = left($3, 253), addresses = $4::text[]::inet[], cores = $5,
         memory_mib = $6,
                disk_gib = $7
         where host_id = $1 and marker = $2",
        host.0,
        marker,
        facts.hostname,
        &addresses,
        facts.limits.cores.and_then(|n| i32::try_from(n).ok()),
        number(facts.limits.memory_mib),
        number(facts.limits.disk_gib)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The addresses of a host's unknown guests, each with the guest's marker, number and host name.
pub(super) async fn addresses(tx: &mut PgConnection, host: HostId) -> Result<Vec<(IpAddr, Uuid, i64, Option<String>)>> {
    let rows = sqlx::query!(
        r#"select host(a.address) as "address!", u.marker, u.guest_number, u.hostname
           from unknown_guests u, unnest(u.addresses) as a (address) where u.host_id = $1"#,
        host.0
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|r| Ok((r.address.parse().map_err(Error::internal)?, r.marker, r.guest_number, r.hostname)))
        .collect()
}

macro_rules! guests {
    ($run:ident, $db:expr, $condition:literal $(, $parameter:expr)*) => {
        sqlx::query_as!(
            UnknownGuestRow,
            r#"select u.host_id as "host_id: HostId", u.guest_number, u.marker, u.kind, u.node, u.hostname,
                      (select array_agg(host(a)) from unnest(u.addresses) a) as "found?: Vec<String>",
                      u.addresses is not null as "asked!", u.cores, u.memory_mib, u.disk_gib,
                      array(select distinct a.server_id from addresses a join address_pools p on p.id = a.pool_id
                            where p.host_id = u.host_id and a.server_id is not null and a.address = any(u.addresses))
                          as "conflicts!: Vec<ServerId>",
                      u.first_seen_at, u.last_seen_at
               from unknown_guests u where "# + $condition
            $(, $parameter)*
        )
        .$run($db)
        .await?
    };
}

struct UnknownGuestRow {
    host_id: HostId,
    guest_number: i64,
    marker: Uuid,
    kind: String,
    node: String,
    hostname: Option<String>,
    found: Option<Vec<String>>,
    asked: bool,
    cores: Option<i32>,
    memory_mib: Option<i64>,
    disk_gib: Option<i64>,
    conflicts: Vec<ServerId>,
    first_seen_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
}

impl UnknownGuestRow {
    fn view(self) -> Result<UnknownGuest> {
        let addresses: Vec<IpAddr> = self
            .found
            .unwrap_or_default()
            .iter()
            .map(|text| text.parse().map_err(Error::internal))
            .collect::<Result<_>>()?;
        Ok(UnknownGuest {
            host_id: self.host_id,
            proxmox_id: self.guest_number,
            uuid: self.marker,
            kind: self.kind,
            node: self.node,
            name: self.hostname,
            addresses: self.asked.then_some(addresses),
            cores: self.cores,
            memory: self.memory_mib,
            disk: self.disk_gib,
            conflicts: self.conflicts,
            first_seen_at: self.first_seen_at,
            last_seen_at: self.last_seen_at,
        })
    }
}

/// All unknown guests of a host, by number.
pub(super) async fn of_host(db: &PgPool, host: HostId) -> Result<Vec<UnknownGuest>> {
    guests!(fetch_all, db, "u.host_id = $1 order by u.guest_number, u.marker", host.0)
        .into_iter()
        .map(UnknownGuestRow::view)
        .collect()
}

/// One of a host's unknown guests by number, locked until the transaction ends.
pub(super) async fn lock(tx: &mut PgConnection, host: HostId, number: i64) -> Result<Option<UnknownGuest>> {
    guests!(
        fetch_optional,
        tx,
        "u.host_id = $1 and u.guest_number = $2 order by u.marker limit 1 for update",
        host.0,
        number
    )
    .map(UnknownGuestRow::view)
    .transpose()
}
