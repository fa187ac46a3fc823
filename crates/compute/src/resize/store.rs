//! SQL for sizes.

use sqlx::PgConnection;

use crate::servers::model::ServerRecord;
use crate::servers::size::ServerSize;

type Result<T> = sqlx::Result<T>;

/// Whether the server's node has the capacity for it to grow, under the placement lock. A value that does not grow
/// needs none, even if the node is oversold; a disk grows only while its storage has more than the margin actually
/// free.
pub(super) async fn has_room(
    tx: &mut PgConnection,
    server: &ServerRecord,
    from: ServerSize,
    to: ServerSize,
    margin_percent: u32,
) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select (($3::int = 0 or used.cores + $3 <= n.cores * h.cpu_overcommit and $6::int <= n.cores)
                   and ($4::bigint = 0 or used.memory_mib + $4 <= n.memory_mib * h.memory_overcommit)
                   and ($5::bigint = 0 or used.disk_gib + $5 <= n.disk_gib * h.disk_overcommit
                        and has_margin(n, $7))) as "room!"
           from nodes n
           join hosts h on h.id = n.host_id
           join node_use used on used.host_id = n.host_id and used.name = n.name
           where n.host_id = $1 and n.name = $2"#,
        server.host_id.0,
        server.node,
        to.cores - from.cores,
        to.memory - from.memory,
        to.disk - from.disk,
        to.cores,
        i64::from(margin_percent)
    )
    .fetch_optional(tx)
    .await
    .map(|room| room.unwrap_or(false))
}
