//! How hosts are reached: settings of each kind, checked, with their secrets in and out of sight.

use garde::Validate;
use kernel::error::{Code, Error, Result};
use kernel::http::extract::read;
use kernel::http::text;
use kernel::stored_enum;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// The kinds of hosts that there are drivers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// An Incus server.
    Incus,
    /// A Proxmox VE cluster or single node.
    Proxmox,
    /// One that a newer version knows and this one does not.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(HostKind, Self::Unknown);

impl HostKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incus => "incus",
            Self::Proxmox => "proxmox",
            Self::Unknown => "unknown",
        }
    }
}

/// Settings as they were sent: what is in them depends on the host's kind, and [`HostSettings::read`] finds out. They
/// may hold secrets and are never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct GivenSettings(Value);

impl std::fmt::Debug for GivenSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenSettings")
    }
}

/// How a host is reached and where on it our guests go, by its kind. Stored sealed, shown without secrets.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum HostSettings {
    /// Of the kind `incus`.
    Incus(IncusSettings),
    /// Of the kind `proxmox`.
    Proxmox(ProxmoxSettings),
}

impl HostSettings {
    /// The kind of host that they are for.
    pub fn kind(&self) -> HostKind {
        match self {
            Self::Incus(_) => HostKind::Incus,
            Self::Proxmox(_) => HostKind::Proxmox,
        }
    }

    /// Reads and checks settings for a host of this kind.
    pub fn read(kind: HostKind, given: GivenSettings) -> Result<Self> {
        match kind {
            HostKind::Incus => read("config", given.0).map(Self::Incus),
            HostKind::Proxmox => read("config", given.0).map(Self::Proxmox),
            HostKind::Unknown => Err(unknown_kind()),
        }
    }

    /// The settings as [`Self::read`] takes them, secrets included.
    pub fn given(&self) -> Result<GivenSettings> {
        serde_json::to_value(self).map(GivenSettings).map_err(Error::internal)
    }

    /// Reads what [`Self::to_stored`] made for a host of this kind.
    pub(super) fn from_stored(kind: HostKind, stored: &[u8]) -> Result<Self> {
        fn parse<T: DeserializeOwned>(stored: &[u8]) -> Result<T> {
            serde_json::from_slice(stored).map_err(Error::internal)
        }
        match kind {
            HostKind::Incus => parse(stored).map(Self::Incus),
            HostKind::Proxmox => parse(stored).map(Self::Proxmox),
            HostKind::Unknown => Err(unknown_kind()),
        }
    }

    /// As they are stored, secrets in plain: to be sealed.
    pub(super) fn to_stored(&self) -> Result<Vec<u8>> {
        let mut stored = serde_json::to_value(self).map_err(Error::internal)?;
        // A program of before there was this setting reads what says nothing of it.
        let usual = |value: &mut Value| *value == default_processes();
        if let Some(settings) = stored.as_object_mut()
            && settings.get_mut("processesPerGib").is_some_and(usual)
        {
            settings.remove("processesPerGib");
        }
        serde_json::to_vec(&stored).map_err(Error::internal)
    }

    /// Without secrets, for showing.
    pub(super) fn shown(mut self) -> Self {
        if let Self::Proxmox(settings) = &mut self {
            settings.token_secret = None;
            if let Some(login) = &mut settings.login {
                login.password = None;
            }
        }
        self
    }

    /// Fills in the secrets that were left out: those of before, where there are any.
    pub(super) fn complete(&mut self, before: Option<&Self>) -> Result<()> {
        let Self::Proxmox(settings) = self else { return Ok(()) };
        let before = before.and_then(|b| if let Self::Proxmox(before) = b { Some(before) } else { None });
        let missing = |field: &str| Error::field(field, "Is missing: there is none from before.");
        // A secret goes where it went before, and nowhere else: who may change settings need not know it.
        let before = before.filter(|b| settings.endpoints.iter().all(|e| b.endpoints.contains(e)));
        if settings.token_secret.is_none() {
            let kept = before.filter(|b| b.token_id == settings.token_id).and_then(|b| b.token_secret.clone());
            settings.token_secret = Some(kept.ok_or_else(|| missing("config.tokenSecret"))?);
        }
        if let Some(login) = settings.login.as_mut().filter(|l| l.password.is_none()) {
            let kept = before.and_then(|b| b.login.as_ref()).filter(|l| l.user == login.user);
            let kept = kept.and_then(|l| l.password.clone());
            login.password = Some(kept.ok_or_else(|| missing("config.login.password"))?);
        }
        Ok(())
    }

    /// Whether both lead to the same place by the same address. Others may do so all the same.
    pub(super) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Incus(one), Self::Incus(two)) => one.socket == two.socket,
            (Self::Proxmox(one), Self::Proxmox(two)) => one.endpoints.iter().any(|e| two.endpoints.contains(e)),
            _ => false,
        }
    }

    /// Whether guests of `before` may not be found any more with these.
    pub(super) fn moved(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Incus(old), Self::Incus(new)) => (&old.socket, &old.project) != (&new.socket, &new.project),
            // One node that stays is the same cluster.
            (Self::Proxmox(old), Self::Proxmox(new)) => !old.endpoints.iter().any(|e| new.endpoints.contains(e)),
            _ => true,
        }
    }
}

fn unknown_kind() -> Error {
    Error::new(Code::Conflict, "This is a host of a kind that only a newer version of Innkeeper knows.")
}

/// How to reach an Incus server, and where on it our guests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncusSettings {
    /// The daemon's unix socket.
    #[garde(length(max = 107), custom(is_absolute))]
    #[schema(example = "/var/lib/incus/unix.socket")]
    pub socket: String,
    /// The Incus project that our guests live in; `default` if left out.
    #[serde(default = "default_name")]
    #[garde(custom(is_name))]
    pub project: String,
    /// The storage pool of the guests' root disks; `default` if left out.
    #[serde(default = "default_name")]
    #[garde(custom(is_name))]
    pub storage_pool: String,
    /// Whether Incus filters traffic so that no guest can take another's address; true if left out. Switch it off
    /// only where the node's kernel can't do it.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub address_filters: bool,
    /// The search domain of new guests; without it they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_domain)))]
    pub search_domain: Option<String>,
    /// How many processes a container may have for each GiB of its memory, beside 500 that each may; 0: as many as it
    /// likes; 1000 if left out. Containers that are there already have it from their next start, restart or change of size.
    #[serde(default = "default_processes")]
    #[garde(range(max = 1_000_000))]
    pub processes_per_gib: u32,
}

/// How to reach a Proxmox VE cluster or single node, and where on it our guests go.
#[derive(Debug, Clone, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxmoxSettings {
    /// `https://host:8006` of one or more nodes of one cluster: where one can't be reached, the next is asked.
    #[garde(length(min = 1, max = 32), inner(length(max = 300), custom(is_endpoint)))]
    #[schema(example = json!(["https://pve1.example.com:8006"]))]
    pub endpoints: Vec<String>,
    /// The API token's whole id, `user@realm!name`.
    #[garde(length(max = 200), custom(is_token))]
    #[schema(example = "innkeeper@pve!innkeeper")]
    pub token_id: String,
    /// The API token's secret. Never shown; left out in a change it stays, unless `tokenId` changes or an endpoint is
    /// new.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "in_plain")]
    #[garde(custom(is_secret))]
    #[schema(value_type = Option<String>)]
    pub token_secret: Option<SecretString>,
    /// A login for consoles, which versions before 9.1 (or 8.4 with the updates of April 2026) don't open with a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub login: Option<ProxmoxLogin>,
    /// The authority that signed the nodes' certificates, in PEM (`/etc/pve/pve-root-ca.pem`). Without it and without
    /// `fingerprint`, certificates must be ones that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 65536))]
    pub ca: Option<String>,
    /// The SHA-256 fingerprint of a certificate that is taken whatever else it says; several are separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(length(max = 4096), inner(custom(text::plain)), custom(is_fingerprint(&self.ca)))]
    pub fingerprint: Option<String>,
    /// The storage of the guests' root disks; `local-lvm` if left out.
    #[serde(default = "default_storage")]
    #[garde(custom(is_name))]
    pub storage: String,
    /// The resource pool that our guests are put in, where rights are given for a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_name)))]
    pub pool: Option<String>,
    /// Whether the firewall keeps guests from using addresses that are not their own; true if left out.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub address_filters: bool,
    /// Whether containers are made with `nesting`, which systemd in Debian 11, Ubuntu 20.04 and later needs to set its
    /// services apart; true if left out. It shows them more of their node's procfs and sysfs.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub nesting: bool,
    /// The search domain of new guests; without it they have that of their own host name, or `localdomain`, and never
    /// their node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(is_domain)))]
    pub search_domain: Option<String>,
    /// The way into guests over SSH, for what the API can't do in a container.
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
    /// The password. Never shown; left out in a change it stays, unless `user` changes.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "in_plain")]
    #[garde(custom(is_secret))]
    #[schema(value_type = Option<String>)]
    pub password: Option<SecretString>,
}

/// Which ways into guests there are over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SshSettings {
    /// Put the host's management key into new guests, beside the customer's keys, and sign in with it as root; true if
    /// left out.
    #[garde(skip)]
    pub guests: bool,
    /// Sign in to the nodes as root with the management key and run `pct exec` there. The provider puts the key in
    /// place; false if left out.
    #[garde(skip)]
    pub nodes: bool,
    /// The port of the nodes' SSH servers; 22 if left out.
    #[garde(range(min = 1))]
    pub node_port: u16,
}

impl Default for SshSettings {
    fn default() -> Self {
        Self { guests: true, nodes: false, node_port: 22 }
    }
}

#[allow(clippy::ref_option, reason = "serde hands fields by reference")]
fn in_plain<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

fn default_name() -> String {
    "default".to_owned()
}

fn default_storage() -> String {
    "local-lvm".to_owned()
}

/// How many processes a container may have for each GiB of its memory where nobody says.
pub fn default_processes() -> u32 {
    1000
}

fn yes() -> bool {
    true
}

fn is_absolute(path: &str, ctx: &()) -> garde::Result {
    text::plain(path, ctx)?;
    match path.starts_with('/') && path.len() > 1 {
        true => Ok(()),
        false => Err(garde::Error::new("must be an absolute path such as /var/lib/incus/unix.socket")),
    }
}

fn is_name(name: &str, (): &()) -> garde::Result {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=63).contains(&name.len()) && name.chars().all(fine) && name.starts_with(|c: char| c != '-' && c != '.') {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 63 letters, digits, dots, hyphens or underscores")),
    }
}

fn is_domain(name: &str, (): &()) -> garde::Result {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(fine) && !label.starts_with('-') && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => Err(garde::Error::new("must be a domain such as example.com")),
    }
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
fn is_secret(secret: &Option<SecretString>, (): &()) -> garde::Result {
    let fine = |text: &str| (1..=500).contains(&text.len()) && !text.chars().any(char::is_control);
    match secret.as_ref().is_none_or(|s| fine(s.expose_secret())) {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 500 characters and no control characters")),
    }
}

#[allow(clippy::ref_option, reason = "garde hands fields by reference")]
fn is_fingerprint(ca: &Option<String>) -> impl FnOnce(&Option<String>, &()) -> garde::Result + '_ {
    move |fingerprint, ()| {
        let digits = |text: &str| text.chars().filter(|c| !matches!(c, ':' | ' ')).all(|c| c.is_ascii_hexdigit());
        let one = |text: &str| digits(text) && text.chars().filter(char::is_ascii_hexdigit).count() == 64;
        match fingerprint {
            Some(_) if ca.is_some() => Err(garde::Error::new("goes without `ca`: one rule is enough")),
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
    use serde_json::json;

    fn proxmox(change: Value) -> Result<HostSettings> {
        let mut config = json!({ "endpoints": ["https://pve1:8006"], "tokenId": "ink@pve!t", "tokenSecret": "s3cret" });
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        HostSettings::read(HostKind::Proxmox, GivenSettings(config))
    }

    #[test]
    fn incus_settings_have_defaults_and_odd_ones_are_refused() {
        let settings: IncusSettings = serde_json::from_str(r#"{"socket": "/run/incus.socket"}"#).unwrap();
        assert!(settings.validate().is_ok() && settings.address_filters);
        assert_eq!((settings.project.as_str(), settings.storage_pool.as_str()), ("default", "default"));
        for (socket, project) in
            [("run/x", "p"), ("/", "p"), ("/run/\n", "p"), ("/x", ""), ("/x", "../y"), ("/x", "a/b")]
        {
            let bad = IncusSettings { socket: socket.into(), project: project.into(), ..settings.clone() };
            assert!(bad.validate().is_err(), "{socket:?} {project:?}");
        }
    }

    #[test]
    fn odd_proxmox_settings_are_refused_by_field() {
        let HostSettings::Proxmox(fine) = proxmox(json!({})).unwrap() else { panic!() };
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
        let stored = HostSettings::from_stored(HostKind::Proxmox, &change.to_stored().unwrap()).unwrap();
        let HostSettings::Proxmox(stored) = stored else { panic!() };
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
