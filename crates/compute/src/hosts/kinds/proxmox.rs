//! The host kind `proxmox`: a Proxmox VE cluster or single node, reached with an API token.

pub mod pveum;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use garde::Validate;
use hypervisor::ssh::SshRoutes;
use hypervisor::{Driver, GuestShell, HostInfo};
use kernel::http::text;
use proxmox::{PasswordLogin, Proxmox, ProxmoxConfig, Tls};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::pveum::PveumCommands;
use super::checks::{in_plain, is_domain, is_name, is_secret, yes};
use super::{Ask, HostKind};

/// How to reach a Proxmox VE cluster or single node, and where to place our guests on it.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxmoxSettings {
    /// `https://host:8006` of one or more nodes of a cluster: if one can't be reached, the next is used.
    #[garde(length(min = 1, max = 32), inner(length(max = 300), custom(is_endpoint)))]
    #[schema(example = json!(["https://pve1.example.com:8006"]))]
    pub endpoints: Vec<String>,
    /// The API token's full id, `user@realm!name`.
    #[garde(length(max = 200), custom(is_token))]
    #[schema(example = "innkeeper@pve!innkeeper")]
    pub token_id: String,
    /// The API token's secret, never shown. If omitted in an update it is kept, unless `tokenId` changes or an endpoint
    /// is new.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "in_plain")]
    #[garde(custom(is_secret))]
    #[schema(value_type = Option<String>)]
    pub token_secret: Option<SecretString>,
    /// A login for consoles, which versions before 9.1 (or 8.4 with the updates of April 2026) don't open with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub login: Option<ProxmoxLogin>,
    /// The CA that signed the nodes' certificates, in PEM (`/etc/pve/pve-root-ca.pem`). Without this and `fingerprint`,
    /// certificates must be trusted by this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 65536))]
    pub ca: Option<String>,
    /// The SHA-256 fingerprint of a certificate to accept, whatever else it contains; separate several with commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 4096), inner(custom(text::plain)), custom(is_fingerprint(&self.ca)))]
    pub fingerprint: Option<String>,
    /// The storage for the guests' root disks; `local-lvm` if omitted.
    #[serde(default = "default_storage")]
    #[garde(custom(is_name))]
    pub storage: String,
    /// The resource pool to put our guests in, if the privileges are granted on a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_name)))]
    pub pool: Option<String>,
    /// Whether the firewall prevents guests from using addresses that are not their own; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub address_filters: bool,
    /// Whether containers are created with `nesting`, which systemd in Debian 11, Ubuntu 20.04 and later needs to
    /// isolate its services; true if omitted. It exposes more of the node's procfs and sysfs to them.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub nesting: bool,
    /// The search domain of new guests. If omitted, they use the domain of their own host name, or `localdomain`, never
    /// their node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_domain)))]
    pub search_domain: Option<String>,
    /// SSH access to guests, for what the API can't do in a container.
    #[serde(default)]
    #[garde(dive)]
    pub ssh: SshSettings,
}

/// A user with a password and without a second factor.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxmoxLogin {
    /// `user@realm`.
    #[garde(length(max = 200), custom(is_user))]
    pub user: String,
    /// The password, never shown. If omitted in an update it is kept, unless `user` changes.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "in_plain")]
    #[garde(custom(is_secret))]
    #[schema(value_type = Option<String>)]
    pub password: Option<SecretString>,
}

/// How guests can be accessed over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SshSettings {
    /// Install the host's management key in new guests, in addition to the customer's keys, and sign in with it as
    /// root; true if omitted.
    #[garde(skip)]
    pub guests: bool,
    /// Sign in to the nodes as root with the management key and run `pct exec` there. The provider has to install the
    /// key on them; false if omitted.
    #[garde(skip)]
    pub nodes: bool,
    /// The port of the nodes' SSH servers; 22 if omitted.
    #[garde(range(min = 1))]
    pub node_port: u16,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self { guests: true, nodes: false, node_port: 22 }
    }
}

/// Flags of `innkeeper host add` for a Proxmox VE cluster or single node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Proxmox VE")]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct ProxmoxFlags {
    /// URL of a node, `https://HOST:8006`; may be repeated for more nodes of the same cluster
    #[arg(long = "endpoint", required_if_eq("kind", ProxmoxSettings::NAME))]
    endpoints: Vec<String>,
    /// Full id of the API token, USER@REALM!NAME. Its secret is read from standard input; `innkeeper host pveum` shows
    /// how to create one
    #[arg(long, required_if_eq("kind", ProxmoxSettings::NAME))]
    token_id: Option<String>,
    /// A user, USER@REALM, for consoles on versions before 9.1 (or 8.4 with the updates of April 2026). The password is
    /// read from the next line of standard input
    #[arg(long)]
    login: Option<String>,
    /// File with the CA certificate (/etc/pve/pve-root-ca.pem on a node)
    #[arg(long, conflicts_with = "fingerprint")]
    ca: Option<PathBuf>,
    /// SHA-256 fingerprint of the certificate to accept; separate several with commas
    #[arg(long)]
    fingerprint: Option<String>,
    /// Storage for the guests' root disks
    #[arg(long, default_value = "local-lvm")]
    storage: String,
    /// resource pool for our guests (default: none)
    #[arg(long)]
    pool: Option<String>,
    /// Don't let the host filter the guests' addresses: for kernels and clusters that don't support it
    #[arg(long)]
    no_address_filters: bool,
    /// Create containers without nesting, which systemd in current templates needs to isolate its services
    #[arg(long)]
    no_nesting: bool,
    /// Search domain of new guests. Without it they use the domain of their host name, and never their node's
    #[arg(long)]
    search_domain: Option<String>,
    /// Don't install the management key in guests
    #[arg(long)]
    no_guest_ssh: bool,
    /// Sign in to the nodes as root with the management key, and run `pct exec` there
    #[arg(long)]
    node_ssh: bool,
    /// SSH port of the nodes
    #[arg(long, default_value_t = 22)]
    node_ssh_port: u16,
}

impl HostKind for ProxmoxSettings {
    const NAME: &'static str = "proxmox";
    const ABOUT: &'static str = "A Proxmox VE cluster or single node";
    const NOUN: &'static str = "cluster";

    type Flags = ProxmoxFlags;

    fn from_flags(flags: ProxmoxFlags, ask: &Ask<'_>) -> anyhow::Result<Self> {
        let ca = flags.ca.as_deref().map(|file| {
            std::fs::read_to_string(file).with_context(|| format!("reading the certificate {}", file.display()))
        });
        Ok(Self {
            endpoints: flags.endpoints,
            token_id: flags.token_id.unwrap_or_default(),
            token_secret: Some(ask("The token's secret")?),
            login: match flags.login {
                Some(user) => Some(ProxmoxLogin { user, password: Some(ask("The login's password")?) }),
                None => None,
            },
            ca: ca.transpose()?,
            fingerprint: flags.fingerprint,
            storage: flags.storage,
            pool: flags.pool,
            address_filters: !flags.no_address_filters,
            nesting: !flags.no_nesting,
            search_domain: flags.search_domain,
            ssh: SshSettings { guests: !flags.no_guest_ssh, nodes: flags.node_ssh, node_port: flags.node_ssh_port },
        })
    }

    fn secrets(&mut self) -> Vec<(&'static str, &mut Option<SecretString>)> {
        let login = self.login.as_mut().map(|login| ("login.password", &mut login.password));
        std::iter::once(("tokenSecret", &mut self.token_secret)).chain(login).collect()
    }

    fn keeps(&self, secret: &str, before: &Self) -> bool {
        fn user(settings: &ProxmoxSettings) -> Option<&String> {
            settings.login.as_ref().map(|login| &login.user)
        }
        let same = match secret {
            "login.password" => user(self) == user(before),
            _ => self.token_id == before.token_id,
        };
        // A removed endpoint is no new destination.
        same && self.endpoints.iter().all(|e| before.endpoints.contains(e))
    }

    fn meets(&self, other: &Self) -> bool {
        self.endpoints.iter().any(|e| other.endpoints.contains(e))
    }

    fn moved(&self, before: &Self) -> bool {
        // If one endpoint stays, it is the same cluster.
        !self.meets(before)
    }

    fn ways(&self) -> Option<SshRoutes> {
        let ssh = self.ssh;
        Some(SshRoutes { guests: ssh.guests.then_some(22), nodes: ssh.nodes.then_some(ssh.node_port) })
    }

    fn hint(&self, error: &hypervisor::Error) -> Option<String> {
        match error {
            hypervisor::Error::Unreachable(text) => {
                // A rejected certificate is identified by its fingerprint.
                let seen = text.split(|c: char| !c.is_ascii_hexdigit() && c != ':').find(|word| word.len() == 95)?;
                Some(format!(
                    "Compare it with what `pvenode cert info` shows on the node. If it is the same, pin it: \
                     \"fingerprint\": \"{seen}\" in the settings, or --fingerprint {seen} on the command line."
                ))
            }
            hypervisor::Error::Unauthorized(_) => Some(
                "Is the token id complete (user@realm!name), its secret correct, and has it not expired?".to_owned(),
            ),
            _ => None,
        }
    }

    fn advice(&self, found: Option<&HostInfo>) -> Vec<String> {
        PveumCommands::of(self, found).as_ref().map(PveumCommands::advice).unwrap_or_default()
    }

    fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        let driver = Proxmox::new(config(self))?;
        Ok(Arc::new(match shell {
            Some(shell) => driver.with_shell(shell),
            None => driver,
        }))
    }

    #[cfg(test)]
    fn example() -> serde_json::Value {
        serde_json::json!({ "endpoints": ["https://pve1:8006"], "tokenId": "ink@pve!t", "tokenSecret": "s3cret",
                            "login": { "user": "c@pve", "password": "s3cret" }, "ca": "x", "storage": "local",
                            "pool": "p", "addressFilters": false, "nesting": false, "searchDomain": "example.com",
                            "ssh": { "guests": false, "nodes": true, "nodePort": 2222 } })
    }
}

fn config(settings: &ProxmoxSettings) -> ProxmoxConfig {
    ProxmoxConfig {
        endpoints: settings.endpoints.clone(),
        token_id: settings.token_id.clone(),
        token_secret: settings.token_secret.clone().unwrap_or_default(),
        login: settings.login.as_ref().map(|login| PasswordLogin {
            user: login.user.clone(),
            password: login.password.clone().unwrap_or_default(),
        }),
        tls: match (&settings.ca, &settings.fingerprint) {
            (Some(pem), _) => Tls::Ca { pem: pem.clone() },
            (None, Some(sha256)) => Tls::Fingerprint { sha256: sha256.clone() },
            (None, None) => Tls::SystemRoots,
        },
        storage: settings.storage.clone(),
        pool: settings.pool.clone(),
        address_filters: settings.address_filters,
        nesting: settings.nesting,
        search_domain: settings.search_domain.clone(),
        connect_timeout_s: 5,
        // Nodes give each other 30 seconds.
        request_timeout_s: 35,
    }
}

fn default_storage() -> String {
    "local-lvm".to_owned()
}

fn is_endpoint(text: &str, (): &()) -> garde::Result {
    let uri = text.parse::<axum::http::Uri>().ok();
    let fine = uri.is_some_and(|u| {
        let bare = u.authority().is_some_and(|a| !a.as_str().contains('@'));
        u.scheme_str() == Some("https") && bare && u.path_and_query().is_none_or(|p| p == "/")
    });
    match fine {
        true => Ok(()),
        false => Err(garde::Error::new("must be the address of a node such as https://pve1.example.com:8006")),
    }
}

fn graphic(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

fn is_user(text: &str, (): &()) -> garde::Result {
    match text.rsplit_once('@') {
        Some((name, realm)) if graphic(name) && graphic(realm) && !text.contains(['!', '=', ':', '/']) => Ok(()),
        _ => Err(garde::Error::new("must be a user with the realm, such as innkeeper@pve")),
    }
}

fn is_token(text: &str, ctx: &()) -> garde::Result {
    match text.split_once('!') {
        Some((who, token)) if is_user(who, ctx).is_ok() && is_name(token, ctx).is_ok() => Ok(()),
        _ => Err(garde::Error::new("must be the token's whole id, such as innkeeper@pve!innkeeper")),
    }
}

#[allow(clippy::ref_option, reason = "garde hands fields by reference")]
fn is_fingerprint(ca: &Option<String>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |fingerprint, ()| {
        let digits = |text: &str| text.chars().filter(|c| !matches!(c, ':' | ' ')).all(|c| c.is_ascii_hexdigit());
        let one = |text: &str| digits(text) && text.chars().filter(char::is_ascii_hexdigit).count() == 64;
        match fingerprint {
            Some(_) if ca.is_some() => Err(garde::Error::new("can't be combined with `ca`")),
            Some(text) if !text.split(',').all(one) => {
                Err(garde::Error::new("must be SHA-256 in hexadecimal: 32 bytes, with or without colons"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::kinds::KindName;
    use crate::hosts::settings::HostSettings;
    use kernel::error::Result;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    fn proxmox(change: Value) -> Result<HostSettings> {
        let mut config = json!({ "endpoints": ["https://pve1:8006"], "tokenId": "ink@pve!t", "tokenSecret": "s3cret" });
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        HostSettings::read(KindName::of::<ProxmoxSettings>(), serde_json::from_value(config).unwrap())
    }

    #[test]
    fn odd_proxmox_settings_are_refused_by_field() {
        let fine = proxmox(json!({})).unwrap();
        let fine = fine.get::<ProxmoxSettings>().unwrap();
        assert_eq!((fine.storage.as_str(), fine.address_filters, fine.ssh.guests), ("local-lvm", true, true));
        for (change, field) in [
            (json!({ "endpoints": [] }), "config.endpoints"),
            (json!({ "endpoints": ["http://pve1:8006"] }), "config.endpoints[0]"),
            (json!({ "endpoints": ["https://a@pve1:8006"] }), "config.endpoints[0]"),
            (json!({ "endpoints": ["https://pve1:8006/api2"] }), "config.endpoints[0]"),
            (json!({ "endpoints": ["pve1"] }), "config.endpoints[0]"),
            (json!({ "tokenId": "root" }), "config.tokenId"),
            (json!({ "tokenId": "root@pam" }), "config.tokenId"),
            (json!({ "tokenId": "root@pam!x=y" }), "config.tokenId"),
            (json!({ "tokenSecret": "a\nb" }), "config.tokenSecret"),
            (json!({ "login": { "user": "root" } }), "config.login.user"),
            (json!({ "fingerprint": "AB:CD" }), "config.fingerprint"),
            (json!({ "fingerprint": "AB".repeat(32), "ca": "x" }), "config.fingerprint"),
            (json!({ "storage": "a,b" }), "config.storage"),
            (json!({ "pool": "" }), "config.pool"),
            (json!({ "ssh": { "nodePort": 0 } }), "config.ssh.nodePort"),
            (json!({ "socket": "/x" }), "config.socket"),
        ] {
            let error = proxmox(change.clone()).unwrap_err();
            assert!(error.details.unwrap()["fields"].get(field).is_some(), "{change}: {}", error.message);
        }
        assert!(
            proxmox(
                json!({ "fingerprint": format!("{}, {}", "AB:".repeat(32).trim_end_matches(':'), "cd".repeat(32)) })
            )
            .is_ok()
        );
    }

    #[test]
    fn secrets_stay_where_a_change_leaves_them_out_and_are_never_shown() {
        let login = |password: Option<&str>| json!({ "login": { "user": "c@pve", "password": password } });
        let mut before = proxmox(login(Some("geheim"))).unwrap();
        before.complete(None).unwrap();
        let shown = serde_json::to_string(&before.clone().shown()).unwrap();
        assert!(!shown.contains("s3cret") && !shown.contains("geheim") && shown.contains("c@pve"), "{shown}");
        assert!(!format!("{before:?} {:?}", before.given().unwrap()).contains("s3cret"));

        let mut change = proxmox(login(None)).unwrap().shown();
        change.complete(Some(&before)).unwrap();
        let stored = HostSettings::from_stored(change.kind(), &change.to_stored().unwrap()).unwrap();
        let stored = stored.get::<ProxmoxSettings>().unwrap().clone();
        assert_eq!(stored.token_secret.unwrap().expose_secret(), "s3cret");
        assert_eq!(stored.login.unwrap().password.unwrap().expose_secret(), "geheim");

        // Another token's secret is another one.
        let mut other = proxmox(json!({ "tokenId": "ink@pve!u" })).unwrap().shown();
        assert!(other.complete(Some(&before)).unwrap_err().message.contains("tokenSecret"));
        // Nor does it go to another endpoint; one less is none other.
        let both = proxmox(json!({ "endpoints": ["https://pve1:8006", "https://evil:8006"] })).unwrap();
        assert!(both.clone().shown().complete(Some(&before)).unwrap_err().message.contains("tokenSecret"));
        assert!(proxmox(json!({})).unwrap().shown().complete(Some(&both)).is_ok());
        assert!(proxmox(json!({})).unwrap().shown().complete(None).is_err());
    }
}
