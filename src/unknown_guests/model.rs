//! Unknown guests as they are shown and adopted.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::http::text;
use crate::ids::{HostId, ImageId, ServerId, TariffId, UserId};

/// A guest with our marker that no server goes with.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnknownGuest {
    /// Where it is.
    pub host_id: HostId,
    /// The guest's number there.
    pub proxmox_id: i64,
    /// The marker that it carries: the uuid of the server that it was.
    pub uuid: Uuid,
    /// `lxc` or `vm`.
    pub kind: String,
    /// The machine that it is on.
    pub node: String,
    /// Its host name, where its host has it.
    pub name: Option<String>,
    /// Its addresses, as its host has them; null: its host was not asked yet.
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Vec<IpAddr>>,
    /// Its cores, where its host says.
    pub cores: Option<i32>,
    /// Its memory in MiB.
    pub memory: Option<i64>,
    /// Its root disk in GiB.
    pub disk: Option<i64>,
    /// Servers that hold one of its addresses: two guests have the same one.
    pub conflicts: Vec<ServerId>,
    /// When a sweep first saw it.
    pub first_seen_at: DateTime<Utc>,
    /// When one last did, to within a minute.
    pub last_seen_at: DateTime<Utc>,
}

/// Make a server of an unknown guest. The guest itself is not changed.
#[derive(Debug, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdoptGuest {
    /// Whose server it is to be.
    #[garde(skip)]
    pub user_id: UserId,
    /// The tariff that it is charged by, on offer or not. What the host does not say of the guest's size is as the
    /// tariff has it.
    #[garde(skip)]
    pub tariff_id: TariffId,
    /// The image that it is said to be made from.
    #[garde(skip)]
    pub os_id: ImageId,
    /// What it is called; the guest's own host name if left out.
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
}
