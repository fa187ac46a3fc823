//! Scopes of a token: read or write, on everything or on one subject.

use std::str::FromStr;

use crate::subjects::Subject;

/// The access level of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and change.
    Write,
}

/// One grant: `read`, `write`, or either on one subject: `write:server:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The access level.
    pub level: Access,
    /// The subject it is limited to; none: everything in the account.
    pub subject: Option<Subject>,
}

/// What is wrong with a scope's text.
pub const UNKNOWN_SCOPE: &str = "must be read or write, or either for one thing, such as read:server:12";

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (level, rest) = text.split_once(':').map_or((text, None), |(level, rest)| (level, Some(rest)));
        let level = match level {
            "read" => Access::Read,
            "write" => Access::Write,
            _ => return Err(UNKNOWN_SCOPE),
        };
        let subject = rest.map(str::parse).transpose().map_err(|()| UNKNOWN_SCOPE)?;
        Ok(Self { level, subject })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.level {
            Access::Read => "read",
            Access::Write => "write",
        })?;
        self.subject.as_ref().map_or(Ok(()), |subject| write!(f, ":{subject}"))
    }
}

/// All scopes of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scopes {
    /// A login: everything that the account may do.
    All,
    /// An API token: only these scopes.
    Only(Vec<Scope>),
}

impl Scopes {
    /// Parses the stored scopes. An unreadable one grants nothing.
    pub fn from_stored(scopes: &[String]) -> Self {
        Self::Only(scopes.iter().filter_map(|s| s.parse().ok()).collect())
    }

    /// Whether they cover the account as a whole (ordering, other lists, settings).
    pub fn allow(&self, level: Access) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => scopes.iter().any(|s| s.subject.is_none() && s.level >= level),
        }
    }

    /// Whether they cover this subject.
    pub fn allow_on(&self, level: Access, subject: &Subject) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => {
                scopes.iter().any(|s| s.level >= level && s.subject.as_ref().is_none_or(|only| only == subject))
            }
        }
    }

    /// The only subjects that they cover, or none if they cover all of the account's.
    pub fn subjects(&self) -> Option<Vec<&Subject>> {
        match self {
            Self::Only(scopes) if !self.allow(Access::Read) => {
                Some(scopes.iter().filter_map(|s| s.subject.as_ref()).collect())
            }
            _ => None,
        }
    }

    /// The ids of the only subjects of a kind that they cover, or none if they cover all of the account's.
    pub fn only(&self, kind: &str) -> Option<Vec<&str>> {
        let subjects = self.subjects()?.into_iter();
        Some(subjects.filter(|s| s.kind == kind).map(|s| s.id.as_str()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(texts: &[&str]) -> Scopes {
        Scopes::from_stored(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_scope_reads_as_it_writes() {
        for text in ["read", "write", "read:server:12", "write:zone:example.com"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in ["", "admin", "read:", "read:server", "read:server:", "READ", "read:Server:1"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_grant_no_more_than_they_say() {
        let server = |id: i64| Subject::new("server", id);
        let one = scopes(&["write:server:7"]);
        assert!(one.allow_on(Access::Write, &server(7)) && one.allow_on(Access::Read, &server(7)));
        assert!(!one.allow_on(Access::Read, &server(8)) && !one.allow(Access::Read));
        assert!(!one.allow_on(Access::Read, &Subject::new("zone", 7)), "an id is one of its kind");
        assert_eq!((one.only("server"), one.only("zone")), (Some(vec!["7"]), Some(vec![])));
        let read = scopes(&["read", "write:server:7"]);
        assert!(read.allow(Access::Read) && !read.allow(Access::Write));
        assert!(read.allow_on(Access::Write, &server(7)) && !read.allow_on(Access::Write, &server(8)));
        assert_eq!(read.only("server"), None);
        assert!(!scopes(&["nonsense"]).allow(Access::Read) && !scopes(&[]).allow_on(Access::Read, &server(1)));
    }
}
