//! The SQL of judging: loads what was known and stores what changed. Everything is batched, and incidents are locked in
//! the order of their ids so that transactions can't deadlock.

use chrono::{DateTime, Utc};
use monitor::alerts::{AlertTrack, Kind, Level};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use crate::alerts::model::AlertKind;
use crate::alerts::watch::TrackChange;
use crate::ids::{HostId, ServerId, TariffId};

/// A server, as far as alerts need it.
#[derive(Debug)]
pub(in crate::alerts) struct WatchedServer {
    pub id: ServerId,
    pub marker: Uuid,
    /// Last known node, and its number there.
    pub node: String,
    pub guest_number: i64,
    pub tariff: TariffId,
    /// Whether it should be up.
    pub wanted: bool,
    /// Whether an operation holds it, or did when the host was asked: then it is unknown whether it should be up.
    pub held: bool,
    /// Bytes per month.
    pub quota: Option<f64>,
}

/// The servers of a host that have a guest.
pub(in crate::alerts) async fn watched(
    tx: &mut PgConnection,
    host: HostId,
    known_at: DateTime<Utc>,
) -> Result<Vec<WatchedServer>> {
    sqlx::query_as!(
        WatchedServer,
        r#"select s.id as "id: ServerId", s.uuid as marker, s.node, s.guest_number, s.tariff_id as "tariff: TariffId",
                  s.wanted_up and s.suspended_at is null as "wanted!",
                  s.status not in ('running', 'stopped', 'paused', 'unknown')
                  or s.id::text in (select subject_id from operations
                                    where subject_kind = 'server'
                                    and state in ('queued', 'running', 'undoing', 'stuck'))
                  or s.id::text in (select subject_id from operations
                                    where subject_kind = 'server' and ended_at >= $2) as "held!",
                  t.traffic_gib * 1073741824.0::float8 as quota
           from servers s join tariffs t on t.id = s.tariff_id
           where s.host_id = $1 and s.deleted_at is null and s.status not in ('creating', 'failed')"#,
        host.0,
        known_at
    )
    .fetch_all(tx)
    .await
}

/// The key columns of tracks and open incidents.
fn keys<'a>(changes: impl IntoIterator<Item = &'a TrackChange>) -> (Vec<String>, Vec<String>) {
    changes.into_iter().map(TrackChange::key).unzip()
}

/// The stored tracks of these subjects.
pub(in crate::alerts) async fn tracks(
    tx: &mut PgConnection,
    subjects: &[String],
) -> Result<Vec<(String, AlertKind, AlertTrack)>> {
    let rows = sqlx::query!(
        r#"select subject, kind as "kind: AlertKind", track as "track: Json<AlertTrack>" from alert_tracks
           where subject = any($1)"#,
        subjects
    )
    .fetch_all(tx)
    .await?;
    // Kinds that only a newer version watches must not be ended by this one.
    Ok(rows.into_iter().filter(|r| r.kind.0 != Kind::Unknown).map(|r| (r.subject, r.kind, r.track.0)).collect())
}

/// Stores tracks, and deletes those that are quiet again.
pub(in crate::alerts) async fn store_tracks(tx: &mut PgConnection, changes: &[TrackChange]) -> Result<()> {
    let (subjects, kinds) = keys(changes.iter().filter(|c| c.track.is_none()));
    if !subjects.is_empty() {
        sqlx::query!(
            "delete from alert_tracks t using unnest($1::text[], $2::text[]) as g (subject, kind)
             where t.subject = g.subject and t.kind = g.kind",
            &subjects,
            &kinds
        )
        .execute(&mut *tx)
        .await?;
    }
    let loud = || changes.iter().filter(|c| c.track.is_some());
    let (subjects, kinds) = keys(loud());
    let tracks: Vec<Json<&AlertTrack>> = loud().filter_map(|c| c.track.as_ref()).map(Json).collect();
    if !subjects.is_empty() {
        sqlx::query!(
            "insert into alert_tracks (subject, kind, track)
             select * from unnest($1::text[], $2::text[], $3::jsonb[])
             on conflict (subject, kind) do update set track = excluded.track",
            &subjects,
            &kinds,
            &tracks as &[Json<&AlertTrack>]
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

pub(in crate::alerts) async fn raise(
    tx: &mut PgConnection,
    changes: &[(&TrackChange, Level)],
    at: DateTime<Utc>,
) -> Result<()> {
    let (subjects, kinds) = keys(changes.iter().map(|(c, _)| *c));
    let levels: Vec<String> = changes.iter().map(|(_, level)| level.as_str().to_owned()).collect();
    let values: Vec<f64> = changes.iter().map(|(c, _)| c.value).collect();
    let ids: Vec<_> = changes.iter().map(|(c, _)| c.subject.ids()).collect();
    let servers: Vec<Option<i64>> = ids.iter().map(|id| id.0).collect();
    let hosts: Vec<Option<i64>> = ids.iter().map(|id| id.1).collect();
    let pools: Vec<Option<i64>> = ids.iter().map(|id| id.2).collect();
    let operations: Vec<Option<Uuid>> = ids.iter().map(|id| id.3).collect();
    sqlx::query!(
        "insert into alerts (subject, kind, level, value, server_id, host_id, pool_id, operation_id, raised_at)
         select g.*, $9 from unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::bigint[], $6::bigint[],
                                    $7::bigint[], $8::uuid[]) as g
         on conflict (kind, subject) where resolved_at is null do nothing",
        &subjects,
        &kinds,
        &levels,
        &values,
        &servers as &[Option<i64>],
        &hosts as &[Option<i64>],
        &pools as &[Option<i64>],
        &operations as &[Option<Uuid>],
        at
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Updates the latest values of open incidents, and changed levels. Values that round to the same text are skipped.
pub(in crate::alerts) async fn refresh(tx: &mut PgConnection, changes: &[(&TrackChange, Option<Level>)]) -> Result<()> {
    let (subjects, kinds) = keys(changes.iter().map(|(c, _)| *c));
    let values: Vec<f64> = changes.iter().map(|(c, _)| c.value).collect();
    let levels: Vec<Option<String>> = changes.iter().map(|(_, level)| level.map(|l| l.as_str().to_owned())).collect();
    sqlx::query!(
        "update alerts a set value = g.value, level = coalesce(g.level, a.level),
                changed_at = case when g.level is null then a.changed_at else now() end
         from (select a.id, g.value, g.level
               from unnest($1::text[], $2::text[], $3::float8[], $4::text[]) as g (subject, kind, value, level)
               join alerts a on a.subject = g.subject and a.kind = g.kind and a.resolved_at is null
               where g.level is not null or round(a.value * 100) <> round(g.value * 100)
               order by a.id for no key update of a) g
         where a.id = g.id",
        &subjects,
        &kinds,
        &values,
        &levels as &[Option<String>]
    )
    .execute(tx)
    .await
    .map(drop)
}

pub(in crate::alerts) async fn resolve(
    tx: &mut PgConnection,
    changes: &[&TrackChange],
    at: DateTime<Utc>,
) -> Result<()> {
    let (subjects, kinds) = keys(changes.iter().copied());
    let values: Vec<f64> = changes.iter().map(|c| c.value).collect();
    let withdrawn: Vec<bool> = changes.iter().map(|c| c.withdrawn).collect();
    sqlx::query!(
        "update alerts a set value = case when g.withdrawn then a.value else g.value end, resolved_at = $5,
                ended = case when g.withdrawn then 'withdrawn' else 'recovered' end, changed_at = now()
         from (select a.id, g.value, g.withdrawn
               from unnest($1::text[], $2::text[], $3::float8[], $4::bool[]) as g (subject, kind, value, withdrawn)
               join alerts a on a.subject = g.subject and a.kind = g.kind and a.resolved_at is null
               order by a.id for no key update of a) g
         where a.id = g.id",
        &subjects,
        &kinds,
        &values,
        &withdrawn,
        at
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Opens an incident for each server of a host that should be up: their owners must be notified and can't see hosts.
pub(in crate::alerts) async fn raise_on_host(tx: &mut PgConnection, host: HostId, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "insert into alerts (subject, kind, level, value, server_id, host_id, raised_at)
         select 'server:' || s.id, 'host_unreachable', 'critical', 1, s.id, s.host_id, $2 from servers s
         where s.host_id = $1 and s.deleted_at is null and s.suspended_at is null and s.wanted_up
           and s.status <> 'creating'
         on conflict (kind, subject) where resolved_at is null do nothing",
        host.0,
        at
    )
    .execute(tx)
    .await
    .map(drop)
}

pub(in crate::alerts) async fn resolve_on_host(
    tx: &mut PgConnection,
    host: HostId,
    at: DateTime<Utc>,
    withdrawn: bool,
) -> Result<()> {
    sqlx::query!(
        "update alerts set value = 0, resolved_at = $2, changed_at = now(),
                ended = case when $3 then 'withdrawn' else 'recovered' end
         where id in (select id from alerts where host_id = $1 and kind = 'host_unreachable'
                          and server_id is not null and resolved_at is null
                      order by id for no key update)",
        host.0,
        at,
        withdrawn
    )
    .execute(tx)
    .await
    .map(drop)
}

/// Stuck operations, and those that have a track: whether each is stuck.
pub(in crate::alerts) async fn stuck(tx: &mut PgConnection) -> Result<Vec<(Uuid, bool)>> {
    let rows = sqlx::query!(
        r#"select id, state = 'stuck' as "stuck!" from operations
           where id in (select id from operations where state = 'stuck'
                        union
                        select split_part(subject, ':', 2)::uuid from alert_tracks where kind = 'operation_stuck')"#
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.stuck)).collect())
}

/// Of each server the first operation that failed because of a stale lock, if none has succeeded since; and those that
/// have a track and are no longer among them.
pub(in crate::alerts) async fn stale_locks(tx: &mut PgConnection) -> Result<Vec<(Uuid, bool)>> {
    let rows = sqlx::query!(
        r#"with stale as (
               select distinct on (o.subject_id) o.id from operations o
               join servers s on s.id = case when o.subject_kind = 'server' then o.subject_id::bigint end
               where o.subject_kind = 'server' and o.state = 'failed' and o.error_code = 'LOCKED'
                 and starts_with(o.error_detail, $1) and s.deleted_at is null and s.status <> 'failed'
                 and not exists (select from operations d
                                 where d.subject_kind = o.subject_kind and d.subject_id = o.subject_id
                                   and d.state = 'succeeded' and d.ended_at > o.ended_at)
               order by o.subject_id, o.ended_at, o.id)
           select id as "id!", true as "locked!" from stale
           union all
           select id, false from operations
           where id in (select split_part(subject, ':', 2)::uuid from alert_tracks where kind = 'stale_lock')
             and id not in (select id from stale)"#,
        hypervisor::STALE_LOCK
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.locked)).collect())
}

/// Enabled hosts, and whether each has unknown guests.
pub(in crate::alerts) async fn unknown_guests(tx: &mut PgConnection) -> Result<Vec<(HostId, bool)>> {
    let rows = sqlx::query!(
        r#"select h.id as "id: HostId", exists (select from unknown_guests u where u.host_id = h.id) as "any!"
           from hosts h where h.enabled order by h.id"#
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.any)).collect())
}

/// Whether a restore of the database was noticed within the last day.
pub(in crate::alerts) async fn is_restored(tx: &mut PgConnection) -> Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from installation where restored_at > now() - interval '1 day') as "restored!""#
    )
    .fetch_one(tx)
    .await
}

/// Ends the incidents of subjects that are no longer watched (deleted and failed servers, disabled hosts and pools),
/// and deletes their tracks.
pub(in crate::alerts) async fn withdraw(tx: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "update alerts set resolved_at = now(), ended = 'withdrawn', changed_at = now()
         where id in (
             select id from alerts a where resolved_at is null
               and (exists (select from servers s where s.id = a.server_id
                            and (s.deleted_at is not null or s.status = 'failed'))
                    or exists (select from hosts h where h.id = a.host_id and not h.enabled)
                    or exists (select from address_pools p where p.id = a.pool_id and not p.enabled))
             order by id for no key update)"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from alert_tracks t where not exists (
             select from servers s join hosts h on h.id = s.host_id and h.enabled
             where s.deleted_at is null and s.status <> 'failed'
               and s.id = case when t.subject like 'server:%' then split_part(t.subject, ':', 2)::bigint end)
           and not exists (
             select from hosts h where h.enabled
               and h.id = case when t.subject like 'host:%' then split_part(t.subject, ':', 2)::bigint end)
           and not exists (
             select from address_pools p where p.enabled
               and p.id = case when t.subject like 'pool:%' then split_part(t.subject, ':', 2)::bigint end)
           and t.subject not like 'operation:%' and t.subject not in ('mail', 'installation')"
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The database's clock, which all processes share.
pub(in crate::alerts) async fn now(db: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await
}
