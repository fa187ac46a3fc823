//! The SQL of the count that moves on while anybody is alive.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::note::Note;

type Result<T> = sqlx::Result<T>;

/// So far ahead of everything that any process can remember the count is put where the database was found to have gone
/// back: it is found once.
const AHEAD: i64 = 1_000_000_000;

/// Seconds without a sign of life after which what is under way is not simply gone on with.
pub(super) const SILENCE: f64 = 600.0;

/// How the database stands.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub installation: Uuid,
    pub beats: i64,
    pub guest_number: i64,
    /// When anybody was last seen to be alive.
    pub alive_at: Option<DateTime<Utc>>,
    /// How many seconds ago that was.
    pub silence: Option<f64>,
    /// Whether anything is under way.
    pub busy: bool,
    /// Whether it knows any server.
    pub inhabited: bool,
}

impl State {
    pub(super) fn note(&self) -> Note {
        Note { installation: self.installation, beats: self.beats, guest_number: self.guest_number }
    }
}

/// How the database stands now.
pub(super) async fn state(db: &PgPool) -> Result<State> {
    sqlx::query_as!(
        State,
        r#"select i.id as installation, i.beats, n.last_value as "guest_number!", a.alive_at as "alive_at?",
                  extract(epoch from clock_timestamp() - a.alive_at)::float8 as silence,
                  exists (select from operations where state in ('queued', 'running', 'undoing')) as "busy!",
                  exists (select from servers) as "inhabited!"
           from installation i, guest_numbers n, lateral (
               select greatest(i.beat_at, (select max(updated_at) from operations
                                           where state in ('queued', 'running', 'undoing'))) as alive_at) a"#
    )
    .fetch_one(db)
    .await
}

/// Moves the count on; `None` where it is behind what is known of it, or another installation's.
pub(super) async fn beat(db: &PgPool, known: &Note) -> Result<Option<Note>> {
    sqlx::query_as!(
        Note,
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

/// The last time that nobody was alive for long, where nothing was found of it yet.
pub(super) async fn silent(db: &PgPool) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    let row = sqlx::query!(
        r#"select silent_from as "from!", silent_to as "to!" from installation
           where silent_from is not null and silent_to is not null
             and (restored_at is null or restored_at < silent_to)"#
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| (r.from, r.to)))
}

/// Locks the count until the transaction ends; gives whose it is, where it stands, and when anybody was last alive.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(Uuid, i64, Option<DateTime<Utc>>)> {
    let row = sqlx::query!("select id, beats, beat_at from installation for update").fetch_one(tx).await?;
    Ok((row.id, row.beats, row.beat_at))
}

/// Notes that the database has gone back behind what is known of it, to its state of then; guest numbers go on where they
/// were.
pub(super) async fn restored(tx: &mut PgConnection, known: &Note, to: Option<DateTime<Utc>>) -> Result<Note> {
    sqlx::query!(
        "select setval('guest_numbers', $1) from guest_numbers where last_value < $1 and $1 between 100 and 999999999",
        known.guest_number
    )
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query_as!(
        Note,
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
