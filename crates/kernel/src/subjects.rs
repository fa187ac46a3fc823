//! What operations, scopes, alerts and sockets are about: a subject, of a kind that a feature brings.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::auth::{Access, Caller};
use crate::error::{Error, Result};
use crate::ids::{AccountId, UserId};

/// The kind of subjects whose id answers also show as `serverId`, where the server-management contract has it.
pub(crate) const CONTRACT_KIND: &str = "server";

/// One thing that can be worked on, such as `server:12` or `zone:example.com`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
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

    /// Its kind as text for people.
    pub fn kind_name(&self) -> String {
        self.kind.replace('_', " ")
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

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|()| format!("{text} is not a subject, such as server:12"))
    }
}

/// A kind of subjects, as its feature knows it.
#[async_trait]
pub trait SubjectKind: Debug + Send + Sync {
    /// The kind's name in ids of subjects, such as `server`.
    fn kind(&self) -> &'static str;

    /// The part of API paths that comes before its ids.
    fn path_part(&self) -> &'static str {
        self.kind()
    }

    /// Whether this can be the id of a subject, there or not.
    fn is_id(&self, id: &str) -> bool;

    /// The ids of what an account owns or owned: its history stays its own.
    async fn owned_by(&self, account: AccountId) -> Result<Vec<String>>;

    /// Refuses callers who may not do this much with a subject: 404 for those who may not even know it. What is deleted
    /// counts: its history stays its owner's.
    async fn authorize(&self, caller: &Caller, id: &str, level: Access) -> Result<()>;

    /// Which of these subjects each caller may not do this much with, and why. Kinds that can check many with one query
    /// override this.
    async fn refused(&self, asked: &[(Caller, Vec<String>)], level: Access) -> Result<Vec<Vec<(String, Error)>>> {
        let mut all = vec![];
        for (caller, ids) in asked {
            let mut refused = vec![];
            for id in ids {
                match self.authorize(caller, id, level).await {
                    Ok(()) => {}
                    Err(error) if error.code.status() >= 500 => return Err(error),
                    Err(error) => refused.push((id.clone(), error)),
                }
            }
            all.push(refused);
        }
        Ok(all)
    }

    /// An operation on it was abandoned, in this transaction: it has to show what is really there.
    async fn abandoned(&self, tx: &mut PgConnection, id: &str) -> Result<()>;

    /// How many an account has that are in use.
    async fn in_use(&self, _tx: &mut PgConnection, _account: AccountId) -> Result<i64> {
        Ok(0)
    }

    /// An account was suspended for this reason, or with `None` is so no longer, in this transaction: what it has
    /// stops, or is as it was before. `by`: the user who does so, if one does. Things that don't run keep the default.
    async fn suspend_owned(
        &self,
        _tx: &mut PgConnection,
        _by: Option<UserId>,
        _account: AccountId,
        _reason: Option<&str>,
    ) -> Result<()> {
        Ok(())
    }
}

/// The kinds of subjects that there are.
#[derive(Debug)]
pub struct Subjects(BTreeMap<&'static str, Arc<dyn SubjectKind>>);

impl Subjects {
    /// None.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Arc<dyn SubjectKind>>) -> Self {
        Self(kinds.into_iter().map(|kind| (kind.kind(), kind)).collect())
    }

    /// The kind of this name. One that only a newer version knows is nobody's.
    pub fn kind(&self, name: &str) -> Result<&dyn SubjectKind> {
        self.0.get(name).map(AsRef::as_ref).ok_or_else(|| Error::not_found("subject"))
    }

    /// Which of these subjects each of many callers may not do this much with, and why.
    pub async fn refused(&self, asked: &[(Caller, Vec<Subject>)], level: Access) -> Result<Vec<Vec<(Subject, Error)>>> {
        let mut all: Vec<Vec<(Subject, Error)>> = asked.iter().map(|_| vec![]).collect();
        for (name, kind) in &self.0 {
            let ids = |subjects: &[Subject]| -> Vec<String> {
                subjects.iter().filter(|s| s.kind == *name).map(|s| s.id.clone()).collect()
            };
            let of_kind: Vec<_> = asked.iter().map(|(caller, subjects)| (caller.clone(), ids(subjects))).collect();
            if of_kind.iter().all(|(_, ids)| ids.is_empty()) {
                continue;
            }
            for (refused, of_kind) in all.iter_mut().zip(kind.refused(&of_kind, level).await?) {
                refused.extend(of_kind.into_iter().map(|(id, error)| (Subject::new(name, id), error)));
            }
        }
        Ok(all)
    }

    /// The subject of this kind with this id, if there can be one.
    pub fn subject(&self, kind: &str, id: &str) -> Option<Subject> {
        let kind = self.0.get(kind).filter(|kind| kind.is_id(id))?;
        Some(Subject::new(kind.kind(), id))
    }

    /// The subject whose id follows this part of an API path, if there can be one.
    pub fn at(&self, part: &str, id: &str) -> Option<Subject> {
        let kind = self.0.values().find(|kind| kind.path_part() == part)?;
        self.subject(kind.kind(), id)
    }

    /// Everything that an account owns or owned.
    pub async fn owned_by(&self, account: AccountId) -> Result<Vec<Subject>> {
        let mut all = vec![];
        for (name, kind) in &self.0 {
            all.extend(kind.owned_by(account).await?.into_iter().map(|id| Subject::new(name, id)));
        }
        Ok(all)
    }

    /// How many things an account has that are in use.
    pub async fn in_use(&self, tx: &mut PgConnection, account: AccountId) -> Result<i64> {
        let mut all = 0;
        for kind in self.0.values() {
            all += kind.in_use(tx, account).await?;
        }
        Ok(all)
    }

    /// Stops everything of an account that was suspended for this reason; with `None` it is as it was before.
    pub async fn suspend_owned(
        &self,
        tx: &mut PgConnection,
        by: Option<UserId>,
        account: AccountId,
        reason: Option<&str>,
    ) -> Result<()> {
        for kind in self.0.values() {
            kind.suspend_owned(tx, by, account, reason).await?;
        }
        Ok(())
    }

    /// Refuses callers who may not do this much with a subject.
    pub async fn authorize(&self, caller: &Caller, subject: &Subject, level: Access) -> Result<()> {
        let kind = self.kind(&subject.kind)?;
        if !kind.is_id(&subject.id) {
            return Err(Error::not_found("subject"));
        }
        kind.authorize(caller, &subject.id, level).await
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
