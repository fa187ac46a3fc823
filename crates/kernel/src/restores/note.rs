//! The note on the local disk: the state of the database when this machine last saw it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The file's name in `INNKEEPER_DATA`.
const FILE: &str = "heartbeat.json";

/// What is remembered of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeartbeatRecord {
    /// The installation that the database belongs to.
    pub installation: Uuid,
    /// The value of its counter.
    pub beats: i64,
    /// The last guest number that was assigned.
    pub guest_number: i64,
}

impl HeartbeatRecord {
    /// The later of two notes; the first if they belong to different installations.
    pub(super) fn or_later(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.installation == self.installation && other.beats > self.beats => {
                Self { guest_number: other.guest_number.max(self.guest_number), ..other }
            }
            _ => self,
        }
    }
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Reads the note, if there is a readable one.
pub(super) fn read(data: &Path) -> Option<HeartbeatRecord> {
    let text = std::fs::read(path(data)).ok()?;
    match serde_json::from_slice(&text) {
        Ok(note) => Some(note),
        Err(error) => {
            tracing::warn!(%error, file = %path(data).display(), "cannot read the heartbeat note; ignoring it");
            None
        }
    }
}

/// Replaces the note atomically: a concurrent reader gets the old one or the new one.
pub(super) fn write(data: &Path, note: &HeartbeatRecord) -> std::io::Result<()> {
    std::fs::create_dir_all(data)?;
    let new = data.join(format!("{FILE}.{}", std::process::id()));
    std::fs::write(&new, serde_json::to_vec(note)?)?;
    std::fs::rename(new, path(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_nonsense_is_none() {
        let data = std::env::temp_dir().join(format!("innkeeper-note-{}", Uuid::new_v4().simple()));
        assert_eq!(read(&data), None);
        let note = HeartbeatRecord { installation: Uuid::new_v4(), beats: 7, guest_number: 1003 };
        write(&data, &note).unwrap();
        assert_eq!(read(&data), Some(note));
        std::fs::write(path(&data), "{}").unwrap();
        assert_eq!(read(&data), None);
        std::fs::remove_dir_all(&data).unwrap();
    }

    #[test]
    fn of_two_notes_the_later_of_the_same_installation_counts() {
        let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
        let note = |installation, beats, guest_number| HeartbeatRecord { installation, beats, guest_number };
        assert_eq!(note(ours, 5, 9).or_later(Some(note(ours, 7, 3))), note(ours, 7, 9));
        assert_eq!(note(ours, 5, 9).or_later(Some(note(theirs, 7, 3))), note(ours, 5, 9));
        assert_eq!(note(ours, 5, 9).or_later(None), note(ours, 5, 9));
    }
}
