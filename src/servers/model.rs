//! Servers as the server-management API has them. Answers may carry more fields than its document, never fewer.

use chrono::{DateTime, Utc};
use garde::Validate;
use hypervisor::{GuestKind, GuestRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::labels::{Labels, selector};
use crate::http::page::Order;
use crate::http::text;
use crate::ids::{HostId, ImageId, ServerId, SshKeyId, TariffId, UserId};
use crate::stored::stored;

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// It is up and stands still, halted by its host or by a crash; a start wakes it.
    Paused,
    /// On its way up.
    Starting,
    /// On its way down.
    Stopping,
    /// Going down and up again.
    Restarting,
    /// Down for a change of its size.
    Resizing,
    /// Being put back to a snapshot.
    Restoring,
    /// Being made anew.
    Reinstalling,
    /// Being deleted.
    Deleting,
    /// Gone.
    Deleted,
    /// The host does not tell.
    Unknown,
    /// It could not be made, and nothing of it is on the host. After a reinstallation that failed it keeps its place and
    /// addresses, and can be reinstalled or deleted.
    Failed,
}

stored!(Status, Self::Unknown);

impl Status {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Resizing => "resizing",
            Self::Restoring => "restoring",
            Self::Reinstalling => "reinstalling",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// A server, as its owner and the provider see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// Its id.
    pub id: ServerId,
    /// Whose.
    pub user_id: UserId,
    /// Its tariff.
    pub tariff_id: TariffId,
    /// Its image.
    pub os_id: ImageId,
    /// Host name.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// The guest's number, which names one guest in the whole installation.
    pub proxmox_id: i64,
    /// Its first address, IPv4 before IPv6; null until it has been made.
    pub ip_address: Option<String>,
    /// All its addresses.
    pub ip_addresses: Vec<String>,
    /// Always null: the password is shown once, when it is made.
    pub root_password: Option<String>,
    /// Processor cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Disk in GiB.
    pub disk: i64,
    /// When it was ordered.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// The customer's labels.
    pub labels: Labels,
    /// Whether deleting and reinstalling it are refused.
    pub deletion_protection: bool,
    /// Since when the provider keeps it down; null: it is not suspended.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Why it is suspended.
    pub suspend_reason: Option<String>,
    /// Its operating system.
    pub os: Os,
    /// Its tariff, in short.
    pub tariff: TariffBrief,
}

/// A server's operating system.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Os {
    /// The image's id.
    pub id: ImageId,
    /// The image's name.
    pub name: String,
    /// The family, such as `linux`.
    pub r#type: String,
}

/// A server's tariff, in short.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct TariffBrief {
    /// Its id.
    pub id: TariffId,
    /// Its name.
    pub name: String,
    /// Price a month in minor units of its currency.
    pub price: i64,
    /// ISO 4217.
    pub currency: String,
}

/// What the service knows of a server beyond what it shows.
#[derive(Debug, Clone)]
pub struct ServerRecord {
    /// Its id.
    pub id: ServerId,
    /// The marker that its guest carries.
    pub uuid: Uuid,
    /// Whose.
    pub user_id: UserId,
    /// Under which tariff.
    pub tariff_id: TariffId,
    /// Where.
    pub host_id: HostId,
    /// The node it was placed on.
    pub node: String,
    /// The guest's number.
    pub guest_number: i64,
    /// `lxc` or `vm`.
    pub kind: String,
    /// Host name.
    pub name: String,
    /// Where it stands.
    pub status: Status,
    /// Cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory_mib: i64,
    /// Disk in GiB.
    pub disk_gib: i64,
    /// Rate of its network in Mbit/s; none: not limited.
    pub bandwidth_mbps: Option<i32>,
    /// Root's public keys.
    pub ssh_keys: Vec<String>,
    /// Whether anything of it may be on the host.
    pub reserved: bool,
    /// Whether deleting and reinstalling it are refused.
    pub protected: bool,
    /// Why the provider keeps it down; `None`: it does not.
    pub suspend_reason: Option<String>,
}

impl ServerRecord {
    /// What its host knows it by.
    pub fn guest(&self) -> GuestRef {
        let kind = if self.kind == "vm" { GuestKind::Vm } else { GuestKind::Lxc };
        GuestRef { marker: self.uuid, vmid: self.guest_number, kind, node: self.node.clone() }
    }
}

/// An order.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateServer {
    /// An image's id, from `GET /api/images`.
    #[garde(skip)]
    pub os_id: ImageId,
    /// A tariff's id, from `GET /api/tariffs`.
    #[garde(skip)]
    pub tariff_id: TariffId,
    /// Host name, of 64 characters at most; `server-<proxmoxId>` if left out.
    #[serde(default)]
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
    /// Public keys that may sign in as root, one OpenSSH line each; a line end behind one is cut off.
    #[serde(default, deserialize_with = "text::lines")]
    #[garde(length(max = 20), inner(length(max = 8192), custom(text::ssh_key)))]
    pub ssh_keys: Vec<String>,
    /// Keys of the account (`GET /api/ssh-keys`) that may sign in as well.
    #[serde(default)]
    #[garde(length(max = 20))]
    pub ssh_key_ids: Vec<SshKeyId>,
}

/// A change of what a server is called and how it is kept. Fields left out stay as they are.
#[derive(Debug, Default, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateServer {
    /// Its name here, in mails and, when it is reinstalled, its host name; inside it, the host name is the customer's.
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
    /// All of its labels.
    #[garde(dive)]
    pub labels: Option<Labels>,
    /// Whether deleting and reinstalling it are refused.
    #[garde(skip)]
    pub deletion_protection: Option<bool>,
}

/// A wish to have a server made anew.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReinstallServer {
    /// An image's id, from `GET /api/images`.
    #[garde(skip)]
    pub os_id: ImageId,
    /// Public keys that may sign in as root, one OpenSSH line each; those it has, if neither these nor ids are given.
    #[serde(default, deserialize_with = "text::some_lines")]
    #[garde(inner(length(max = 20), inner(length(max = 8192), custom(text::ssh_key))))]
    pub ssh_keys: Option<Vec<String>>,
    /// Keys of the account (`GET /api/ssh-keys`) that may sign in.
    #[garde(inner(length(max = 20)))]
    pub ssh_key_ids: Option<Vec<SshKeyId>>,
}

/// The answer to a reinstallation.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reinstalling {
    /// `success`: it has been taken on.
    pub status: String,
    /// The host's own id of the task, or the operation's where the host has none (yet).
    pub task_id: String,
    /// Root's new password. It is shown this once.
    pub root_password: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

/// Why a server is suspended.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendServer {
    /// For the customer.
    #[garde(length(chars, max = 500), custom(text::title))]
    pub reason: String,
}

/// The answer to a suspension and to its end.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// `success`: it counts from now on.
    pub status: String,
    /// `suspend` or `unsuspend`.
    pub action: String,
    /// The operation that stops or starts the server; null where it is as it should be.
    pub operation_id: Option<Uuid>,
}

/// The answer to an order.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedServer {
    /// The new server's id.
    pub id: ServerId,
    /// `creating`.
    pub status: Status,
    /// The guest's number.
    pub proxmox_id: i64,
    /// Null: it is in `GET /api/server/{id}` once the server has been made.
    pub ip_address: Option<String>,
    /// Root's password. It is shown this once.
    pub root_password: String,
    /// The operation that makes it, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

/// The answer to start, stop and restart.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// `success`: it has been taken on.
    pub status: &'static str,
    /// What.
    pub action: &'static str,
    /// The host's own id of the task, or the operation's where the host has none (yet).
    pub task_id: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

/// The answer to a deletion.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// `deleted`: it has been taken on; the server shows as `deleting` until its guest is gone.
    pub status: &'static str,
    /// The operation, for `GET /api/operations/{id}`; null where nothing was left to do.
    pub operation_id: Option<Uuid>,
}

/// The answer to a change of root's password.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordChanged {
    /// `success`: it is set in the guest. `pending`: the host is slow, and the operation goes on.
    pub status: String,
    /// Root's new password. It is shown this once.
    pub password: String,
    /// The operation, for `GET /api/operations/{id}`.
    pub operation_id: Uuid,
}

/// Which servers to list.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListServers {
    /// Providers: everyone's servers, not only one's own.
    #[serde(default)]
    #[garde(skip)]
    pub all: bool,
    /// From 1. Without it, and without `limit`, all of one's own are listed.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Servers a page, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// By what; `id`, oldest order first, if left out.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Which way; `asc` if left out.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<Order>,
    /// Those that stand so.
    #[garde(skip)]
    #[param(inline)]
    pub status: Option<Status>,
    /// Those of this tariff.
    #[garde(skip)]
    pub tariff_id: Option<TariffId>,
    /// Those made from this image.
    #[garde(skip)]
    pub os_id: Option<ImageId>,
    /// Those whose host name has this in it, without regard to case.
    #[garde(inner(length(chars, max = 253), custom(text::plain)))]
    pub name: Option<String>,
    /// Those whose labels are like this: `key=value`, `key!=value`, `key` and `!key`, joined by commas.
    #[garde(inner(length(chars, max = 1000), custom(selector)))]
    #[param(example = "env=production,!old")]
    pub labels: Option<String>,
}

impl ListServers {
    /// Whether it asks for anything beyond a page.
    pub fn asks(&self) -> bool {
        let Self { all: _, page: _, limit: _, sort, order, status, tariff_id, os_id, name, labels } = self;
        sort.is_some()
            || order.is_some()
            || status.is_some()
            || tariff_id.is_some()
            || os_id.is_some()
            || name.is_some()
            || labels.is_some()
    }
}

/// What servers can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// The order they were ordered in.
    #[default]
    Id,
    /// Host name.
    Name,
    /// Where they stand.
    Status,
    /// When they were ordered.
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
}

impl Sort {
    /// As the query has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Status => "status",
            Self::CreatedAt => "createdAt",
            Self::UpdatedAt => "updatedAt",
        }
    }
}
