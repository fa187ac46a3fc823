//! Scopes of a token: read or write, on everything or on one server.

use std::str::FromStr;

use crate::ids::ServerId;

/// The access level of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and change.
    Write,
}

/// One grant: `read`, `write`, `read:server:12` or `write:server:12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The access level.
    pub level: Access,
    /// The server it is limited to; none: everything in the account.
    pub server: Option<ServerId>,
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "must be read, write, read:server:ID or write:server:ID".to_owned();
        let (level, rest) = text.split_once(':').map_or((text, None), |(l, r)| (l, Some(r)));
        let level = match level {
            "read" => Access::Read,
            "write" => Access::Write,
            _ => return Err(unknown()),
        };
        let server = match rest {
            None => None,
            Some(rest) => {
                let id = rest.strip_prefix("server:").and_then(|id| id.parse().ok()).filter(|id: &ServerId| id.0 > 0);
                Some(id.ok_or_else(unknown)?)
            }
        };
        Ok(Self { level, server })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.level {
            Access::Read => "read",
            Access::Write => "write",
        })?;
        self.server.map_or(Ok(()), |id| write!(f, ":server:{id}"))
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
            Self::Only(scopes) => scopes.iter().any(|s| s.server.is_none() && s.level >= level),
        }
    }

    /// Whether they cover this server.
    pub fn allow_server(&self, level: Access, server: ServerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(scopes) => scopes.iter().any(|s| s.level >= level && s.server.is_none_or(|id| id == server)),
        }
    }

    /// The only servers they cover, or none if they cover all of the account's.
    pub fn only_servers(&self) -> Option<Vec<ServerId>> {
        match self {
            Self::Only(scopes) if !self.allow(Access::Read) => Some(scopes.iter().filter_map(|s| s.server).collect()),
            _ => None,
        }
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
        for text in ["read", "write", "read:server:12", "write:server:7"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for bad in ["", "admin", "read:", "read:server", "read:server:", "read:server:x", "read:server:-1", "READ"] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_grant_no_more_than_they_say() {
        let one = scopes(&["write:server:7"]);
        assert!(one.allow_server(Access::Write, ServerId(7)) && one.allow_server(Access::Read, ServerId(7)));
        assert!(!one.allow_server(Access::Read, ServerId(8)) && !one.allow(Access::Read));
        assert_eq!(one.only_servers(), Some(vec![ServerId(7)]));
        let read = scopes(&["read", "write:server:7"]);
        assert!(read.allow(Access::Read) && !read.allow(Access::Write));
        assert!(read.allow_server(Access::Write, ServerId(7)) && !read.allow_server(Access::Write, ServerId(8)));
        assert_eq!(read.only_servers(), None);
        assert!(!scopes(&["nonsense"]).allow(Access::Read) && !scopes(&[]).allow_server(Access::Read, ServerId(1)));
    }
}
