//! How to reach a Proxmox VE cluster, and where to place guests on it.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// The settings of a cluster or single node. They are serialized with secrets in plain text: seal them before storing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxmoxConfig {
    /// `https://host:8006` of one or more nodes of the same cluster; where one can't be reached, the next is used.
    pub endpoints: Vec<String>,
    /// The API token's full id, `user@realm!name`.
    pub token_id: String,
    /// The API token's secret.
    #[serde(serialize_with = "plain")]
    pub token_secret: SecretString,
    /// A login for consoles, which nodes before version 9.1 (or 8.4 with the updates of April 2026) don't open with a
    /// token.
    #[serde(default)]
    pub login: Option<PasswordLogin>,
    /// How the nodes' certificates are verified.
    #[serde(default)]
    pub tls: Tls,
    /// The storage for guests' root disks.
    pub storage: String,
    /// The resource pool to add our guests to.
    #[serde(default)]
    pub pool: Option<String>,
    /// Whether the firewall prevents guests from using other addresses than their own.
    #[serde(default = "yes")]
    pub address_filters: bool,
    /// Whether containers may use nesting (containers and mounts of their own), which systemd needs to isolate its
    /// services.
    #[serde(default = "yes")]
    pub nesting: bool,
    /// The search domain of guests; `None`: the domain of a guest's own host name.
    #[serde(default)]
    pub search_domain: Option<String>,
    /// Timeout for connecting, in seconds.
    #[serde(default = "connect_timeout")]
    pub connect_timeout_s: u64,
    /// Timeout for a whole request, in seconds. Nodes give each other 30.
    #[serde(default = "request_timeout")]
    pub request_timeout_s: u64,
}

/// A user with a password and without a second factor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordLogin {
    /// `user@realm`.
    pub user: String,
    /// The password.
    #[serde(serialize_with = "plain")]
    pub password: SecretString,
}

/// How a node's certificate is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tls {
    /// By a certificate that this machine trusts.
    #[default]
    SystemRoots,
    /// By a certificate that this CA has signed (the cluster's `/etc/pve/pve-root-ca.pem`).
    Ca {
        /// One or more certificates in PEM.
        pem: String,
    },
    /// By a certificate with one of these fingerprints; nothing else is checked. Each node has its own.
    Fingerprint {
        /// SHA-256 of the certificate in hexadecimal, with or without colons; several are separated by commas.
        sha256: String,
    },
}

fn plain<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn yes() -> bool {
    true
}

fn connect_timeout() -> u64 {
    5
}

fn request_timeout() -> u64 {
    35
}
