//! Task-local notes that handlers attach to the current audit entry: facts that only the running code knows.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::UserId;

/// The notes of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct EntryNotes {
    pub account: Option<UserId>,
    pub subject_id: Option<String>,
}

pub(super) type Notes = Arc<Mutex<EntryNotes>>;

tokio::task_local! {
    pub(super) static NOTES: Notes;
}

fn note(write: impl FnOnce(&mut EntryNotes)) {
    // Outside of an audited action there is no entry to attach it to.
    let _ = NOTES.try_with(|notes| write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// The action concerns this account, whoever the caller is.
pub fn account(user: UserId) {
    note(|noted| noted.account = Some(user));
}

/// The action concerns the object with this id, which neither the path nor the response contains.
pub fn subject(id: impl std::fmt::Display) {
    note(|noted| noted.subject_id = Some(id.to_string()));
}
