//! Subjects of alerts.

use std::fmt::{Display, Formatter};

use uuid::Uuid;

use crate::ids::{HostId, PoolId, ServerId};

/// What an alert is about. Its text form (`server:1`) is the key of its tracks and incidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AlertSubject {
    Server(ServerId, HostId),
    Host(HostId),
    Pool(PoolId),
    Operation(Uuid),
    Mail,
    Installation,
}

impl AlertSubject {
    /// Server, host, pool and operation ids for an incident's row.
    pub(super) fn ids(self) -> (Option<i64>, Option<i64>, Option<i64>, Option<Uuid>) {
        match self {
            Self::Server(server, host) => (Some(server.0), Some(host.0), None, None),
            Self::Host(host) => (None, Some(host.0), None, None),
            Self::Pool(pool) => (None, None, Some(pool.0), None),
            Self::Operation(id) => (None, None, None, Some(id)),
            Self::Mail | Self::Installation => (None, None, None, None),
        }
    }
}

impl Display for AlertSubject {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(id, _) => write!(f, "server:{id}"),
            Self::Host(id) => write!(f, "host:{id}"),
            Self::Pool(id) => write!(f, "pool:{id}"),
            Self::Operation(id) => write!(f, "operation:{id}"),
            Self::Mail => write!(f, "mail"),
            Self::Installation => write!(f, "installation"),
        }
    }
}
