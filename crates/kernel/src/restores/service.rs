//! Business logic for restores: what is remembered, when the database is behind it, and what happens then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tokio::sync::OnceCell;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::note::{self, HeartbeatRecord};
use super::store::{self, DatabaseHeartbeat, SILENCE};
use crate::core::Core;
use crate::db;
use crate::error::Result;
use crate::{mail, operations};

/// How often the counter is incremented: if a database loses less than this, it may go unnoticed.
const BEAT: Duration = Duration::from_secs(2);
/// More than the counter advances while a restore is being recorded.
const FAR: i64 = 1000;
/// How far the hosts' clocks and ours may differ.
const CLOCKS: TimeDelta = TimeDelta::minutes(2);

/// What this process remembers of the database.
#[derive(Debug, Default)]
pub struct HeartbeatState {
    known: Mutex<Option<HeartbeatRecord>>,
    begun: OnceCell<()>,
    failed: AtomicBool,
}

impl HeartbeatState {
    /// The installation, and the minimum value of its counter; `None` before the first check.
    pub fn known(&self) -> Option<(Uuid, i64)> {
        self.note().map(|note| (note.installation, note.beats))
    }

    /// Whether the last heartbeat could not be written: the database may answer and yet accept no changes, as when its
    /// disk is full.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn note(&self) -> Option<HeartbeatRecord> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, note: HeartbeatRecord) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }
}

/// Result of the first check.
#[derive(Debug, PartialEq)]
enum FirstCheck {
    /// Unchanged, or later.
    Same,
    /// Restored to a state earlier than this.
    Restored(HeartbeatRecord),
    /// Impossible to tell.
    Doubtful,
}

fn judge(note: Option<HeartbeatRecord>, state: &DatabaseHeartbeat) -> FirstCheck {
    match note {
        Some(note) if note.installation == state.installation && note.beats > state.beats => FirstCheck::Restored(note),
        // From before the counter existed, or of another installation altogether.
        Some(note) if note.installation != state.installation && state.inhabited => FirstCheck::Restored(note),
        None if state.busy && state.silence.is_some_and(|seconds| seconds > SILENCE) => FirstCheck::Doubtful,
        _ => FirstCheck::Same,
    }
}

/// Checks whether the database was restored, before this process acts on anything it contains; runs once.
pub async fn begin(core: &Core) -> Result<()> {
    core.heart.begun.get_or_try_init(|| first_look(core)).await.map(drop)
}

/// The same for callers that can't continue without it: true once it is done, false if the process shuts down first.
pub async fn wait_for_first_check(core: &Core) -> bool {
    while let Err(error) = begin(core).await {
        tracing::warn!(%error, "cannot check yet whether the database was restored; retrying");
        tokio::select! {
            () = core.shutdown.cancelled() => return false,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    true
}

async fn first_look(core: &Core) -> Result<()> {
    // The note is read before the counter: another process may advance both meanwhile.
    let note = note::read(&core.config.data);
    let state = store::state(&core.db).await?;
    match judge(note, &state) {
        FirstCheck::Same => {}
        FirstCheck::Restored(known) => record(core, &known, state.alive_at).await?,
        FirstCheck::Doubtful => {
            tracing::warn!(
                data = %core.config.data.display(),
                "there is no heartbeat.json in INNKEEPER_DATA, but operations are in progress in the database and no \
                 process has been alive for a while: treating the database as restored"
            );
            record(core, &HeartbeatRecord { beats: state.beats + 1, ..state.note() }, state.alive_at).await?;
        }
    }
    if core.heart.note().is_none() {
        core.heart.remember(state.note());
    }
    beat(core).await
}

/// Keeps incrementing the counter until shutdown.
pub async fn keep(core: &Core) {
    if !wait_for_first_check(core).await {
        return;
    }
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let failed = core.heart.has_failed();
        if let Err(error) = beat(core).await
            && !failed
        {
            tracing::warn!(%error, "cannot write the heartbeat to the database; retrying");
        }
        tokio::select! {
            () = core.shutdown.cancelled() => break,
            _ = tick.tick() => {}
        }
    }
    // The final value.
    let _ = beat(core).await;
}

/// Increments the counter and remembers it, or detects that the database was restored.
pub async fn beat(core: &Core) -> Result<()> {
    let beaten = advance(core).await;
    core.heart.failed.store(beaten.is_err(), Ordering::Relaxed);
    beaten
}

async fn advance(core: &Core) -> Result<()> {
    let note = note::read(&core.config.data);
    let Some(known) = core.heart.note() else { return Ok(()) };
    let known = known.or_later(note);
    match store::beat(&core.db, &known).await? {
        Some(now) => {
            remember(core, now);
            Ok(())
        }
        None => record(core, &known, None).await,
    }
}

fn remember(core: &Core, now: HeartbeatRecord) {
    core.heart.remember(now);
    if let Err(error) = note::write(&core.config.data, &now) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            tracing::warn!(%error, data = %core.config.data.display(), "cannot write the heartbeat note; a database \
                that is restored while this process is down will go unnoticed");
        });
    }
}

/// Records that the database was restored to a state before `known`, unless another process has done so.
async fn record(core: &Core, known: &HeartbeatRecord, alive_at: Option<DateTime<Utc>>) -> Result<()> {
    let mut tx = db::begin(&core.db).await?;
    let (installation, beats, beat_at) = store::lock(&mut tx).await?;
    if installation == known.installation && beats >= known.beats {
        // Another process was first; its counter is ahead of all others.
        tx.rollback().await?;
        core.heart.remember(HeartbeatRecord { beats, ..*known });
        return Ok(());
    }
    // Counter and guest numbers of another installation say nothing about this one.
    let ours = HeartbeatRecord { installation, beats, guest_number: 0 };
    let known = if installation == known.installation { known } else { &ours };
    let to = alive_at.max(beat_at);
    let (held, now) = hold(&mut tx, known, to).await?;
    tx.commit().await?;
    remember(core, now);
    tracing::error!(
        state_of = to.map(|at| at.to_rfc3339()),
        operations = held,
        "the database was restored to an earlier state. Operations in progress are stuck until you decide about them \
         (innkeeper operation list); see docs/backup.md"
    );
    Ok(())
}

/// Looks for things of ours, each with its number and the time of its creation, that were created while, according to
/// the database, no process was alive: only we create any, so the database was restored, and this machine's note with
/// it.
pub async fn check_created(core: &Core, ours: impl IntoIterator<Item = (i64, DateTime<Utc>)>) -> Result<()> {
    let Some((from, to)) = store::silent_period(&core.db).await? else { return Ok(()) };
    let created = ours.into_iter().find(|(_, at)| *at > from + CLOCKS && *at < to - CLOCKS);
    let Some((number, _)) = created else { return Ok(()) };
    tracing::warn!(number, %from, %to, "a guest of ours was created while no process was alive");
    let Some(known) = core.heart.note() else { return Ok(()) };
    let state = store::state(&core.db).await?;
    record(core, &HeartbeatRecord { beats: state.beats.max(known.beats) + FAR, ..state.note() }, Some(from)).await
}

/// Declares that the database was restored, on an operator's command; returns the number of operations that are now
/// stuck.
pub async fn declare_restored(core: &Core) -> Result<u64> {
    let state = store::state(&core.db).await?;
    let mut tx = db::begin(&core.db).await?;
    let (installation, beats, beat_at) = store::lock(&mut tx).await?;
    let known = HeartbeatRecord { installation, beats, guest_number: state.guest_number };
    let (held, _) = hold(&mut tx, &known, beat_at).await?;
    tx.commit().await?;
    Ok(held)
}

async fn hold(
    tx: &mut PgConnection,
    known: &HeartbeatRecord,
    to: Option<DateTime<Utc>>,
) -> Result<(u64, HeartbeatRecord)> {
    let held = operations::service::mark_all_stuck(tx, to).await?;
    mail::service::hold_queued(tx).await?;
    Ok((held, store::restored(tx, known, to).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Uuid = Uuid::from_u128(1);

    fn state(beats: i64) -> DatabaseHeartbeat {
        let silence = Some(5.0);
        DatabaseHeartbeat {
            installation: OURS,
            beats,
            guest_number: 1000,
            alive_at: None,
            silence,
            busy: true,
            inhabited: true,
        }
    }

    fn note(installation: Uuid, beats: i64) -> HeartbeatRecord {
        HeartbeatRecord { installation, beats, guest_number: 1000 }
    }

    #[test]
    fn a_count_behind_the_note_is_a_restored_database() {
        assert_eq!(judge(Some(note(OURS, 7)), &state(7)), FirstCheck::Same);
        assert_eq!(judge(Some(note(OURS, 7)), &state(900)), FirstCheck::Same, "others were alive meanwhile");
        assert_eq!(judge(Some(note(OURS, 7)), &state(6)), FirstCheck::Restored(note(OURS, 7)));
    }

    #[test]
    fn another_installations_note_counts_where_there_are_servers() {
        let other = Uuid::from_u128(2);
        assert_eq!(judge(Some(note(other, 7)), &state(900)), FirstCheck::Restored(note(other, 7)));
        assert_eq!(
            judge(Some(note(other, 7)), &DatabaseHeartbeat { inhabited: false, busy: false, ..state(0) }),
            FirstCheck::Same
        );
    }

    #[test]
    fn without_a_note_long_silence_over_open_work_is_doubtful() {
        assert_eq!(judge(None, &state(7)), FirstCheck::Same);
        assert_eq!(judge(None, &DatabaseHeartbeat { silence: Some(601.0), ..state(7) }), FirstCheck::Doubtful);
        assert_eq!(judge(None, &DatabaseHeartbeat { silence: Some(601.0), busy: false, ..state(7) }), FirstCheck::Same);
        assert_eq!(judge(None, &DatabaseHeartbeat { silence: None, ..state(7) }), FirstCheck::Same);
    }
}
