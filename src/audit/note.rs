//! What only the code at work knows about a deed: noted here, by whoever knows it, for the entry's end.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::UserId;

/// What was noted.
#[derive(Debug, Clone, Default)]
pub(super) struct Noted {
    pub account: Option<UserId>,
    pub subject_id: Option<String>,
}

pub(super) type Notes = Arc<Mutex<Noted>>;

tokio::task_local! {
    pub(super) static NOTES: Notes;
}

fn note(write: impl FnOnce(&mut Noted)) {
    // Where nobody watches there is nothing to note.
    let _ = NOTES.try_with(|notes| write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// It is about this account, whoever does it.
pub fn account(user: UserId) {
    note(|noted| noted.account = Some(user));
}

/// It is about the thing with this id, where neither the address nor the answer tells.
pub fn subject(id: impl std::fmt::Display) {
    note(|noted| noted.subject_id = Some(id.to_string()));
}
