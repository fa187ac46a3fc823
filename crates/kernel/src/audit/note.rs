//! Task-local notes that handlers attach to the current audit entry: facts that only the running code knows.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::AccountId;

/// The notes of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct EntryNotes {
    pub account: Option<AccountId>,
    pub subject_id: Option<String>,
    pub reason: Option<String>,
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
pub fn account(account: AccountId) {
    note(|noted| noted.account = Some(account));
}

/// Why the caller acts, as they said: everybody who may read the entry may read it.
pub fn reason(reason: &str) {
    note(|noted| noted.reason = Some(reason.to_owned()));
}

/// The action concerns the object with this id, which neither the path nor the response contains.
pub fn subject(id: impl std::fmt::Display) {
    note(|noted| noted.subject_id = Some(id.to_string()));
}
