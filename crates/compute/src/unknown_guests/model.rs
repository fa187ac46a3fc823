//! Request and response types for unknown guests.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use garde::Validate;
use kernel::http::text;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{AccountId, HostId, ImageId, ServerId, TariffId};

/// A guest that carries our marker but belongs to no server.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnknownGuest {
    /// The host that it is on.
    pub host_id: HostId,
    /// The guest's number there.
    pub proxmox_id: i64,
    /// The marker that it carries: the UUID of the server that it belonged to.
    pub uuid: Uuid,
    /// `lxc` or `vm`.
    pub kind: String,
    /// The node that it is on.
    pub node: String,
    /// Its host name, if the host reports one.
    pub name: Option<String>,
    /// Its addresses, as reported by the host; null: the host has not been asked yet.
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Vec<IpAddr>>,
    /// Its cores, if the host reports them.
    pub cores: Option<i32>,
    /// Its memory in MiB.
    pub memory: Option<i64>,
    /// Its root disk in GiB.
    pub disk: Option<i64>,
    /// Servers that have one of its addresses: two guests with the same address.
    pub conflicts: Vec<ServerId>,
    /// When a sweep first saw it.
    pub first_seen_at: DateTime<Utc>,
    /// When a sweep last saw it, to within a minute.
    pub last_seen_at: DateTime<Utc>,
}

/// A request to turn an unknown guest into a server. The guest itself is not changed.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptGuest {
    /// The new server's owner.
    #[garde(skip)]
    pub account_id: AccountId,
    /// The tariff that it is charged by, which may be disabled. Any size that the host does not report is taken from
    /// the tariff.
    #[garde(skip)]
    pub tariff_id: TariffId,
    /// The image to record as the one that it was made from.
    #[garde(skip)]
    pub os_id: ImageId,
    /// Its name; the guest's own host name if omitted.
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
}
