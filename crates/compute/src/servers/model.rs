//! Request and response types for the server-management API. Responses may have more fields than its specification,
//! never fewer.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use garde::Validate;
use hypervisor::{GuestKind, GuestRef};
use kernel::http::text;
use kernel::listing::SortOrder;
use kernel::operations::model::OperationView;
use kernel::stored_enum;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actions::ServerActions;
use super::figures::ServerStats;
use super::labels::{Labels, selector};
use crate::ids::{AccountId, HostId, ImageId, ServerId, SshKeyId, TariffId, UserId};

/// A server's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// Being created.
    Creating,
    /// Running.
    Running,
    /// Stopped.
    Stopped,
    /// Running but frozen, by its host or after a crash; a start resumes it.
    Paused,
    /// Being started.
    Starting,
    /// Being stopped.
    Stopping,
    /// Being restarted.
    Restarting,
    /// Stopped while its size is changed.
    Resizing,
    /// Being rolled back to a snapshot.
    Restoring,
    /// Being reinstalled.
    Reinstalling,
    /// Being deleted.
    Deleting,
    /// Deleted.
    Deleted,
    /// The host does not report it.
    Unknown,
    /// The server could not be created, and nothing of it is on the host. After a failed reinstallation it keeps its
    /// place and addresses, and can be reinstalled or deleted.
    Failed,
}

stored_enum!(ServerState, Self::Unknown);

impl ServerState {
    /// The value stored in the database.
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
    /// The user who owns its account.
    pub user_id: UserId,
    /// That user's email address.
    pub owner_email: String,
    /// The account that owns it.
    pub account_id: AccountId,
    /// Its tariff.
    pub tariff_id: TariffId,
    /// Its image.
    pub os_id: ImageId,
    /// Host name.
    pub name: String,
    /// Its status.
    pub status: ServerState,
    /// The guest's number, which is unique in the whole installation.
    pub proxmox_id: i64,
    /// The host that it is on; null for customers.
    pub host_id: Option<HostId>,
    /// The host's node that it is on; null for customers.
    pub node: Option<String>,
    /// Its first address, IPv4 before IPv6; null until the server has been created.
    pub ip_address: Option<String>,
    /// All its addresses.
    pub ip_addresses: Vec<String>,
    /// Always null: the password is shown only once, when it is generated.
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
    /// Whether deletion and reinstallation are refused.
    pub deletion_protection: bool,
    /// When the provider suspended it; null: it is not suspended.
    pub suspended_at: Option<DateTime<Utc>>,
    /// Why it is suspended.
    pub suspend_reason: Option<String>,
    /// The operation in progress on it, or that waits for its turn; null: there is none.
    pub current_operation: Option<OperationView>,
    /// What the caller can do with it now.
    pub actions: ServerActions,
    /// The number of its open alerts.
    pub open_alerts: i64,
    /// Its latest figures, in lists that include them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<ServerStats>,
    /// Its operating system.
    pub os: ServerImage,
    /// Its tariff, in brief.
    pub tariff: TariffBrief,
}

/// A server's operating system.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ServerImage {
    /// The image's id.
    pub id: ImageId,
    /// The image's name.
    pub name: String,
    /// The family, such as `linux`.
    pub r#type: String,
}

/// A server's tariff, in brief.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct TariffBrief {
    /// Its id.
    pub id: TariffId,
    /// Its name.
    pub name: String,
    /// Monthly price in minor units of the currency.
    pub price: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// A server's row: more than [`ServerView`] shows.
#[derive(Debug, Clone)]
pub struct ServerRecord {
    /// Its id.
    pub id: ServerId,
    /// The UUID that marks its guest on the host.
    pub uuid: Uuid,
    /// The account that owns it.
    pub account_id: AccountId,
    /// The reseller whose customer the account is.
    pub reseller_id: Option<AccountId>,
    /// Its tariff.
    pub tariff_id: TariffId,
    /// Its host.
    pub host_id: HostId,
    /// The node it was placed on.
    pub node: String,
    /// The guest's number.
    pub guest_number: i64,
    /// `lxc` or `vm`.
    pub kind: String,
    /// Host name.
    pub name: String,
    /// Its status.
    pub status: ServerState,
    /// Cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory_mib: i64,
    /// Disk in GiB.
    pub disk_gib: i64,
    /// Network rate in Mbit/s; `None`: unlimited.
    pub bandwidth_mbps: Option<i32>,
    /// Root's public keys.
    pub ssh_keys: Vec<String>,
    /// Whether something of the server may be on the host.
    pub reserved: bool,
    /// Whether deletion and reinstallation are refused.
    pub protected: bool,
    /// Why it is suspended; `None`: it is not suspended.
    pub suspend_reason: Option<String>,
    /// Whether it is suspended because its account is.
    pub suspended_with_account: bool,
}

impl ServerRecord {
    /// How the host identifies the guest.
    pub fn guest(&self) -> GuestRef {
        let kind = if self.kind == "vm" { GuestKind::Vm } else { GuestKind::Lxc };
        GuestRef { marker: self.uuid, vmid: self.guest_number, kind, node: self.node.clone() }
    }
}

/// A server order.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateServer {
    /// An image's id, from `GET /api/images`.
    #[garde(skip)]
    pub os_id: ImageId,
    /// A tariff's id, from `GET /api/tariffs`.
    #[garde(skip)]
    pub tariff_id: TariffId,
    /// Host name, of 64 characters at most; `server-<proxmoxId>` if omitted.
    #[serde(default)]
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
    /// Public keys for root's login, one OpenSSH line each; a trailing line break is removed.
    #[serde(default, deserialize_with = "text::lines")]
    #[garde(length(max = 20), inner(length(max = 8192), custom(text::ssh_key)))]
    pub ssh_keys: Vec<String>,
    /// Keys of the account (`GET /api/ssh-keys`) for root's login, in addition.
    #[serde(default)]
    #[garde(length(max = 20))]
    pub ssh_key_ids: Vec<SshKeyId>,
    /// The server's labels.
    #[serde(default)]
    #[garde(dive)]
    pub labels: Labels,
}

/// A change of a server's name, labels and protection. Omitted fields stay unchanged.
#[derive(Debug, Default, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateServer {
    /// Its name here, in emails and, after a reinstallation, its host name; the host name inside the guest is up to the
    /// customer.
    #[garde(inner(custom(text::hostname)))]
    pub name: Option<String>,
    /// All of its labels: these replace the current ones.
    #[garde(dive)]
    pub labels: Option<Labels>,
    /// Whether deletion and reinstallation are refused.
    #[garde(skip)]
    pub deletion_protection: Option<bool>,
}

/// A request to reinstall a server.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReinstallServer {
    /// An image's id, from `GET /api/images`.
    #[garde(skip)]
    pub os_id: ImageId,
    /// Public keys for root's login, one OpenSSH line each; the current keys, if neither these nor ids are given.
    #[serde(default, deserialize_with = "text::some_lines")]
    #[garde(inner(length(max = 20), inner(length(max = 8192), custom(text::ssh_key))))]
    pub ssh_keys: Option<Vec<String>>,
    /// Keys of the account (`GET /api/ssh-keys`) for root's login.
    #[garde(inner(length(max = 20)))]
    pub ssh_key_ids: Option<Vec<SshKeyId>>,
}

/// The reason for a suspension.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendServer {
    /// Shown to the customer.
    #[garde(length(chars, max = 500), custom(text::title))]
    pub reason: String,
}

/// Filters, sorting and paging for the list of servers.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListServers {
    /// Providers: everyone's servers, not only their own.
    #[serde(default)]
    #[garde(skip)]
    pub all: bool,
    /// From 1. Without `page` and `limit`, all of the caller's own servers are listed.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Servers per page, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// A server's id: only those that follow it in the list, which must be sorted by `id`. Not together with `page`.
    #[garde(skip)]
    pub after: Option<ServerId>,
    /// The field to sort by; `id`, in order of creation, if omitted.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<Sort>,
    /// Sort direction; `asc` if omitted.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<SortOrder>,
    /// Only servers with this status.
    #[garde(skip)]
    #[param(inline)]
    pub status: Option<ServerState>,
    /// Only servers with this tariff.
    #[garde(skip)]
    pub tariff_id: Option<TariffId>,
    /// Only servers with this image.
    #[garde(skip)]
    pub os_id: Option<ImageId>,
    /// Only servers whose host name contains this, ignoring case.
    #[garde(inner(length(chars, max = 253), custom(text::plain)))]
    pub name: Option<String>,
    /// Only servers with this text in their name, their owner's address or at the start of an IP address, ignoring case,
    /// or with this id or guest's number.
    #[garde(inner(length(chars, max = 254), custom(text::plain)))]
    pub q: Option<String>,
    /// Providers: only servers on this host.
    #[garde(skip)]
    pub host_id: Option<HostId>,
    /// Providers: only servers on nodes of this name.
    #[garde(inner(length(chars, max = 253), custom(text::plain)))]
    pub node: Option<String>,
    /// Only this account's servers, of those that are listed anyway.
    #[garde(skip)]
    pub account_id: Option<AccountId>,
    /// Only servers whose labels match: `key=value`, `key!=value`, `key` and `!key`, separated by commas.
    #[garde(inner(length(chars, max = 1000), custom(selector)))]
    #[param(example = "env=production,!old")]
    pub labels: Option<String>,
    /// `stats`: each server with its latest figures.
    #[garde(skip)]
    #[param(inline)]
    pub include: Option<Include>,
}

/// What lists of servers show only if asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Include {
    /// The latest figures.
    Stats,
}

impl ListServers {
    /// Whether it filters, sorts or lists other accounts' servers, beyond plain paging.
    pub fn asks(&self) -> bool {
        let Self {
            all: _,
            page: _,
            limit: _,
            include: _,
            after,
            sort,
            order,
            status,
            tariff_id,
            os_id,
            name,
            q,
            host_id,
            node,
            account_id,
            labels,
        } = self;
        let numbers =
            [tariff_id.map(|id| id.0), os_id.map(|id| id.0), host_id.map(|id| id.0), account_id.map(|id| id.0)];
        numbers.iter().any(Option::is_some)
            || [name, q, node, labels].iter().any(|text| text.is_some())
            || after.is_some()
            || sort.is_some()
            || order.is_some()
            || status.is_some()
    }

    /// The IP address that `q` is, as the database writes it.
    pub(super) fn address(&self) -> Option<String> {
        self.q.as_deref().and_then(|q| q.parse::<IpAddr>().ok()).map(|address| address.to_string())
    }

    /// The beginning of IP addresses that `q` may be.
    pub(super) fn start_of_address(&self) -> Option<&str> {
        self.q.as_deref().filter(|q| q.contains(['.', ':']) && q.parse::<IpAddr>().is_err())
    }
}

/// Fields that servers can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Sort {
    /// In order of creation.
    #[default]
    Id,
    /// Host name.
    Name,
    /// Status.
    Status,
    /// When they were ordered.
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
}

impl Sort {
    /// The value used in the query.
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
