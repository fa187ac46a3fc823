//! What operations, scopes, alerts and sockets are about: a subject, of a kind that a feature brings.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgConnection;

use crate::auth::{Access, Caller};
use crate::error::{Error, Result};

/// One thing that can be worked on, such as `server:12` or `zone:example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// Its kind: lower-case letters.
    pub kind: String,
    /// Its id, unique within the kind.
    pub id: String,
}

impl Subject {
    /// The thing of this kind with this id.
    pub fn new(kind: &str, id: impl Display) -> Self {
        Self { kind: kind.to_owned(), id: id.to_string() }
    }

    /// Its id as a number, where it is of this kind and has one.
    pub fn number(&self, kind: &str) -> Option<i64> {
        (self.kind == kind).then(|| self.id.parse().ok()).flatten()
    }
}

impl Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.id)
    }
}

impl FromStr for Subject {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, id) = text.split_once(':').ok_or(())?;
        let kind_is_fine = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        // No id of ours is longer, and none has blanks.
        let id_is_fine = (1..=253).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        if kind_is_fine && id_is_fine { Ok(Self::new(kind, id)) } else { Err(()) }
    }
}

/// A kind of subjects, as its feature knows it.
#[async_trait]
pub trait SubjectKind: Debug + Send + Sync {
    /// The kind's name in ids of subjects, such as `server`.
    fn kind(&self) -> &'static str;

    /// Refuses callers who may not do this much with a subject: 404 for those who may not even know it. What is deleted
    /// counts: its history stays its owner's.
    async fn authorize(&self, caller: &Caller, id: &str, level: Access) -> Result<()>;

    /// An operation on it was abandoned, in this transaction: it has to show what is really there.
    async fn abandoned(&self, tx: &mut PgConnection, id: &str) -> Result<()>;
}

/// The kinds of subjects that there are.
#[derive(Debug, Default)]
pub struct Subjects(HashMap<&'static str, Arc<dyn SubjectKind>>);

impl Subjects {
    /// Of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Arc<dyn SubjectKind>>) -> Self {
        Self(kinds.into_iter().map(|kind| (kind.kind(), kind)).collect())
    }

    /// The kind of this name. One that only a newer version knows is nobody's.
    pub fn kind(&self, name: &str) -> Result<&dyn SubjectKind> {
        self.0.get(name).map(AsRef::as_ref).ok_or_else(|| Error::not_found("subject"))
    }

    /// Refuses callers who may not do this much with a subject.
    pub async fn authorize(&self, caller: &Caller, subject: &Subject, level: Access) -> Result<()> {
        self.kind(&subject.kind)?.authorize(caller, &subject.id, level).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_reads_as_it_writes() {
        for text in ["server:12", "zone:example.com", "mailbox:a@example.com", "address:2001:db8::1"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for bad in ["", "server", "server:", ":12", "Server:12", "server:1 2", "server:é", "ser ver:1"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad:?}");
        }
        assert_eq!(Subject::new("server", 7).number("server"), Some(7));
        assert_eq!(Subject::new("zone", 7).number("server"), None);
    }
}
