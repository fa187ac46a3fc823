//! Where a new server goes: nodes with room for it, best first, under a lock that makes orders wait for each other.

use sqlx::PgConnection;

use super::store::Offer;
use crate::ids::{HostId, ImageId};
use crate::locks::Lock;

/// A node with room.
#[derive(Debug)]
pub(super) struct Candidate {
    pub host: HostId,
    pub node: String,
}

/// Locks placement until the transaction ends, so that no two orders count the same room.
pub(crate) async fn lock(tx: &mut PgConnection) -> sqlx::Result<()> {
    Lock::Placement.hold(tx).await
}

/// Whether the image is to be had on any host in use.
pub(super) async fn is_offered(tx: &mut PgConnection, image: ImageId) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select 1 from image_sources i join hosts h on h.id = i.host_id
                          where i.image_id = $1 and h.enabled) as "offered!""#,
        image.0
    )
    .fetch_one(tx)
    .await
}

/// Nodes that have the image and room for the offer: hosts that answer first, then the most memory left.
pub(super) async fn candidates(tx: &mut PgConnection, image: ImageId, offer: &Offer) -> sqlx::Result<Vec<Candidate>> {
    sqlx::query_as!(
        Candidate,
        r#"select n.host_id as "host: HostId", n.name as node
           from nodes n
           join hosts h on h.id = n.host_id and h.enabled
           join image_sources i on i.host_id = h.id and i.image_id = $1
           cross join lateral (
               select coalesce(sum(s.cores), 0) as cores, coalesce(sum(s.memory_mib), 0) as memory,
                      coalesce(sum(s.disk_gib), 0) as disk
               from servers s where s.reserved and s.host_id = n.host_id and s.node = n.name) used
           where n.online and n.cores >= $2
             and used.cores + $2 <= n.cores * h.cpu_overcommit
             and used.memory + $3 <= n.memory_mib * h.memory_overcommit
             and used.disk + $4 <= n.disk_gib * h.disk_overcommit
           order by h.last_error is not null, n.memory_mib * h.memory_overcommit - used.memory desc, n.host_id, n.name"#,
        image.0,
        offer.cores,
        offer.memory_mib as i64,
        offer.disk_gib as i64
    )
    .fetch_all(tx)
    .await
}
