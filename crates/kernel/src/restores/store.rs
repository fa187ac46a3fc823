//! SQL for the counter that shows which processes are alive.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::note::HeartbeatRecord;

type Result<T> = sqlx::Result<T>;

/// When a restore is found the counter is set this far ahead of anything that a process can remember, so that it is
/// found only once.
const AHEAD: i64 = 1_000_000_000;

/// Seconds without a sign of life after which operations in progress are not simply resumed.
pub(super) const SILENCE: f64 = 600.0;

/// State of the database.
#[derive(Debug, Clone)]
pub(super) struct DatabaseHeartbeat {
    pub installation: Uuid,
    pub beats: i64,
    pub guest_number: i64,
    /// When a process was last known to be alive.
    pub alive_at: Option<DateTime<Utc>>,
    /// Seconds since then.
    pub silence: Option<f64>,
    /// Whether any operation is in progress.
    pub busy: bool,
    /// Whether any operation was ever accepted. A database with nothing but adopted servers counts as empty.
    pub inhabited: bool,
}

impl DatabaseHeartbeat {
    pub(super) fn note(&self) -> HeartbeatRecord {
        HeartbeatRecord { installation: self.installation, beats: self.beats, guest_number: self.guest_number }
    }
}

/// Reads the state of the database.
pub(super) async fn state(db: &PgPool) -> Result<DatabaseHeartbeat> {
    sqlx::query_as!(
        DatabaseHeartbeat,
        r#"select i.id as installation, i.beats, n.last_value as "guest_number!", a.alive_at as "alive_at?",
                  extract(epoch from clock_timestamp() - a.alive_at)::float8 as silence,
                  exists (select from operations where state in ('queued', 'running', 'undoing')) as "busy!",
                  exists (select from operations) as "inhabited!"
           from installation i, guest_numbers n, lateral (
               select greatest(i.beat_at, (select max(updated_at) from operations
                                           where state in ('queued', 'running', 'undoing'))) as alive_at) a"#
    )
    .fetch_one(db)
    .await
}

/// Increments the counter; `None` if it is behind its known value, or belongs to another installation.
pub(super) async fn beat(db: &PgPool, known: &HeartbeatRecord) -> Result<Option<HeartbeatRecord>> {
    sqlx::query_as!(
        HeartbeatRecord,
        r#"update installation i set beats = beats + 1, beat_at = clock_timestamp(),
               silent_from = case when i.beat_at < clock_timestamp() - make_interval(secs => $3) then i.beat_at
                                  else i.silent_from end,
               silent_to = case when i.beat_at < clock_timestamp() - make_interval(secs => $3) then clock_timestamp()
                                else i.silent_to end
           where i.id = $1 and i.beats >= $2
           returning i.id as installation, i.beats, (select last_value from guest_numbers) as "guest_number!""#,
        known.installation,
        known.beats,
        SILENCE
    )
    .fetch_optional(db)
    .await
}

/// The last long period without a live process, if no restore has been found since.
pub(super) async fn silent_period(db: &PgPool) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    let row = sqlx::query!(
        r#"select silent_from as "from!", silent_to as "to!" from installation
           where silent_from is not null and silent_to is not null
             and (restored_at is null or restored_at < silent_to)"#
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| (r.from, r.to)))
}

/// Locks the counter until the transaction ends; returns its installation, its value and when a process was last alive.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(Uuid, i64, Option<DateTime<Utc>>)> {
    let row = sqlx::query!("select id, beats, beat_at from installation for update").fetch_one(tx).await?;
    Ok((row.id, row.beats, row.beat_at))
}

/// Records that the database was restored to a state before `known`, that of the time `to`; guest numbers continue from
/// their known value.
pub(super) async fn restored(
    tx: &mut PgConnection,
    known: &HeartbeatRecord,
    to: Option<DateTime<Utc>>,
) -> Result<HeartbeatRecord> {
    sqlx::query!(
        "select setval('guest_numbers', $1) from guest_numbers where last_value < $1 and $1 between 100 and 999999999",
        known.guest_number
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query_as!(
        HeartbeatRecord,
        r#"update installation i set beats = greatest(beats, $1) + $2, beat_at = clock_timestamp(),
                  restored_at = clock_timestamp(), restored_to = $3
           returning i.id as installation, i.beats, (select last_value from guest_numbers) as "guest_number!""#,
        known.beats,
        AHEAD,
        to
    )
    .fetch_one(tx)
    .await
}
