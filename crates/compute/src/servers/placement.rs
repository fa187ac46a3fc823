//! Placement of new servers: nodes with enough capacity, best first, under a lock that serialises orders.

use std::collections::HashSet;
use std::time::Duration;

use kernel::error::{Error, Result};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::model::ServerRecord;
use super::store::{self, OrderableTariff};
use crate::addresses;
use crate::ids::{HostId, ImageId, ServerId};
use crate::locks::PLACEMENT;

/// A node with enough capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub host: HostId,
    pub node: String,
}

/// The requests of this process that need the placement lock, first come, first served. They wait here without a
/// database connection: in the database, where waiting has a limit, they wait for other processes only.
#[derive(Debug)]
pub(crate) struct PlacementQueue(Semaphore);

impl Default for PlacementQueue {
    /// One prepares its transaction while another holds the lock.
    fn default() -> Self {
        Self(Semaphore::new(2))
    }
}

impl PlacementQueue {
    /// Waits until the transaction may begin.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.0.acquire().await.map_err(|closed| Error::internal(anyhow::Error::new(closed)))
    }
}

/// Locks placement until the transaction ends, so that no two orders count the same free capacity.
pub async fn lock(tx: &mut PgConnection) -> sqlx::Result<()> {
    PLACEMENT.hold(tx).await
}

/// Whether the image is available on any enabled host.
pub(super) async fn is_image_available(tx: &mut PgConnection, image: ImageId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from image_sources i join hosts h on h.id = i.host_id
                          where i.image_id = $1 and h.enabled) as "offered!""#,
        image.0
    )
    .fetch_one(tx)
    .await
}

/// Whether placement waits for hosts to be checked first, because the database was restored.
pub(super) async fn awaits_sweep(tx: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from hosts h, installation i
                          where h.enabled and i.restored_at > now() - interval '1 hour'
                            and (h.guests_known_at is null or h.guests_known_at <= i.restored_at)) as "waiting!""#
    )
    .fetch_one(tx)
    .await
}

/// Nodes that can create guests from the image and have the capacity for the offer, also on a storage that is really no
/// fuller than the margin allows: hosts that answer first, then by free memory. If no node of a host had the image at
/// the last check, all of its nodes are candidates, since they may have it by now: the host itself will say.
pub(super) async fn candidates(
    tx: &mut PgConnection,
    image: ImageId,
    offer: &OrderableTariff,
    margin_percent: u32,
) -> sqlx::Result<Vec<Candidate>> {
    sqlx::query_as!(
        Candidate,
        r#"select n.host_id as "host: HostId", n.name as node
           from nodes n
           join hosts h on h.id = n.host_id and h.enabled
           join image_sources i on i.host_id = h.id and i.image_id = $1
             and (i.nodes is null or i.nodes = '{}' or n.name = any(i.nodes))
           join node_use used on used.host_id = n.host_id and used.name = n.name
           where n.online and n.cores >= $2
             -- After a restore it must be known first which guests there are.
             and not exists (select from installation i
                             where i.restored_at is not null
                               and (h.guests_known_at is null or h.guests_known_at <= i.restored_at))
             and used.cores + $2 <= n.cores * h.cpu_overcommit
             and used.memory_mib + $3 <= n.memory_mib * h.memory_overcommit
             and used.disk_gib + $4 <= n.disk_gib * h.disk_overcommit
             and has_margin(n, $5)
           order by h.last_error is not null, n.memory_mib * h.memory_overcommit - used.memory_mib desc, n.host_id,
           n.name"#,
        image.0,
        offer.cores,
        offer.memory_mib as i64,
        offer.disk_gib as i64,
        i64::from(margin_percent)
    )
    .fetch_all(tx)
    .await
}

/// Places a server on the first of these nodes whose host has addresses for it, takes the addresses, and returns the
/// host; `None` if none has. `rest`: how long an address released by another account is not reused.
pub(super) async fn place_with_addresses(
    tx: &mut PgConnection,
    id: ServerId,
    candidates: &[Candidate],
    rest: Duration,
) -> Result<Option<HostId>> {
    // Addresses belong to the host: if one node got none, its other nodes won't either.
    let mut without: HashSet<HostId> = HashSet::new();
    for Candidate { host, node } in candidates {
        if without.contains(host) {
            continue;
        }
        store::place(tx, id, *host, node).await?;
        if addresses::store::take(tx, *host, id, rest).await? {
            return Ok(Some(*host));
        }
        without.insert(*host);
    }
    Ok(None)
}

/// Finds another node for a server that could not be created on its own, under the placement lock: on its own host if
/// possible, so that it keeps its addresses. Returns its host; `None` if there is no node besides `refused`.
pub(super) async fn find_other_node(
    tx: &mut PgConnection,
    server: &ServerRecord,
    refused: &[Candidate],
    margin_percent: u32,
    rest: Duration,
) -> Result<Option<HostId>> {
    lock(tx).await?;
    // Its reservation must not count twice, so it is on no node while another is searched for.
    store::place(tx, server.id, server.host_id, "").await?;
    let offer = OrderableTariff {
        kind: server.kind.clone(),
        cores: server.cores,
        memory_mib: server.memory_mib,
        disk_gib: server.disk_gib,
        bandwidth_mbps: server.bandwidth_mbps,
    };
    let image = store::image_of(tx, server.id).await?;
    let mut candidates = candidates(tx, image, &offer, margin_percent).await?;
    candidates.retain(|candidate| !refused.contains(candidate));
    if let Some(near) = candidates.iter().find(|candidate| candidate.host == server.host_id) {
        store::place(tx, server.id, near.host, &near.node).await?;
        return Ok(Some(near.host));
    }
    addresses::store::release(tx, server.id).await?;
    place_with_addresses(tx, server.id, &candidates, rest).await
}
