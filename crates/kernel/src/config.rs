//! The kernel's settings from the environment, validated at startup. `.env.example` lists all settings.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use figment::Figment;
use figment::providers::Env;
use ipnet::{IpNet, Ipv4Net};
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use crate::settings::{self, FeatureSettings, Variables, at_least_one};

/// The kernel's settings, and the features' [own](crate::settings). A setting's environment variable is its name in
/// capitals after `INNKEEPER_`, except for `DATABASE_URL` and the email settings, which start with `SMTP_` as in the
/// server-management API.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Config {
    /// URL of the PostgreSQL database (`DATABASE_URL`).
    #[serde(serialize_with = "hidden")]
    pub database_url: SecretString,
    /// Maximum number of this process's database connections for requests and operations; four more claim operations,
    /// keep leases and listen.
    pub database_pool: u32,
    /// Seconds that a request waits for a free database connection before it fails with a 503.
    pub database_wait_seconds: u32,
    /// The master key that seals secrets: 32 bytes in base64.
    #[serde(serialize_with = "hidden")]
    pub secret_key: SecretString,
    /// Previous master keys, comma-separated: they only open secrets that were sealed with them.
    #[serde(serialize_with = "hidden")]
    pub old_secret_keys: SecretKeys,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Maximum number of concurrent client connections; further clients wait.
    pub max_connections: usize,
    /// Maximum number of them per address (IPv6: per /64), except for trusted proxies; a quarter of the total by
    /// default.
    pub max_connections_address: Option<usize>,
    /// Seconds until a request's headers must have arrived, and until an idle connection is closed.
    pub head_seconds: u32,
    /// Seconds after which a connection is closed if its client reads nothing.
    pub write_seconds: u32,
    /// Maximum duration of a request in seconds; password changes wait for the guest.
    pub request_seconds: u32,
    /// The folder for data outside the database (such as emails without SMTP).
    pub data: PathBuf,
    /// Bearer token for `/metrics`; without it, `/metrics` is disabled.
    #[serde(serialize_with = "hidden")]
    pub metrics_token: Option<SecretString>,
    /// Address and port that serves only `/metrics`, without authentication.
    pub metrics_listen: Option<SocketAddr>,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted, comma-separated.
    pub trusted_proxies: Proxies,
    /// Requests per minute with one token, across all processes.
    pub rate_limit_token: u32,
    /// Requests per minute of one account with all its sessions and tokens, across all processes.
    pub rate_limit_account: u32,
    /// Requests per minute without a valid token from one address (IPv6: one /64), across all processes.
    pub rate_limit_address: u32,
    /// Days that audit entries are kept; they are deleted a month at a time.
    pub audit_days: i32,
    /// Operations that this process runs concurrently.
    pub workers: usize,
    /// Seconds without a sign of life after which another worker may take over an operation.
    pub lease_seconds: u32,
    /// Seconds after which any other operation fails.
    pub operation_deadline_seconds: u32,
    /// Seconds that undoing is retried before the operation is `stuck`.
    pub undo_deadline_seconds: u32,
    /// Log filter, in `tracing`'s syntax.
    pub log: String,
    /// `text` for people, `json` for programs.
    pub log_format: LogFormat,
    /// The mail server, if there is one.
    #[serde(skip)]
    pub smtp: Option<Smtp>,
    /// Sender of emails (`SMTP_FROM`).
    #[serde(skip)]
    pub mail_from: String,
    /// Debug builds only: boundaries to fail at, as `kind:step:boundary=action` entries joined with `;`.
    pub failpoints: String,
    /// The features' settings.
    #[serde(skip)]
    pub features: FeatureSettings,
}

/// Secrets have no defaults, and are shown to nobody.
fn hidden<T, S: Serializer>(_: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable.
    Text,
    /// One JSON object per line.
    Json,
}

/// The mail server to send emails through.
#[derive(Debug, Clone, Deserialize)]
pub struct Smtp {
    /// Host name (`SMTP_HOST`).
    pub host: String,
    /// Port (`SMTP_PORT`): 587 by default.
    #[serde(default = "submission")]
    pub port: u16,
    /// User name (`SMTP_USER`), if the server requires one.
    pub user: Option<String>,
    /// Password (`SMTP_PASS`).
    pub pass: Option<SecretString>,
    /// `starttls` (default), `tls` from the first byte, or `none`, which is allowed only for loopback addresses
    /// (`SMTP_TLS`).
    #[serde(default)]
    pub tls: SmtpTls,
}

/// Encryption of the connection to the mail server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Plain at first, then upgraded to TLS; fails without TLS.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// No encryption.
    None,
}

fn submission() -> u16 {
    587
}

/// Master keys, comma-separated.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "String")]
pub struct SecretKeys(pub Vec<SecretString>);

impl From<String> for SecretKeys {
    fn from(text: String) -> Self {
        Self(text.split(',').map(str::trim).filter(|key| !key.is_empty()).map(SecretString::from).collect())
    }
}

/// Proxies by address or network, comma-separated.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Whether this address belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl TryFrom<String> for Proxies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(proxies).collect::<Result<_, _>>().map(Self)
    }
}

/// Parses an address or a network.
fn proxies(text: &str) -> Result<IpNet, String> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| format!("{text} is neither an address nor a network such as 10.0.0.0/8"))?,
    };
    if network != network.trunc() {
        return Err(format!("{text} is an address in a network; the network is {}", network.trunc()));
    }
    // An IPv4 address may be written in its IPv6-mapped form.
    let network = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_err(|e| format!("{text}: {e}"))?.into(),
            None => network,
        },
        _ => network,
    };
    match network.prefix_len() {
        0 => Err(format!("{text} covers every address, but a trusted proxy decides which client address is believed")),
        _ => Ok(network),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: SecretString::default(),
            database_pool: 20,
            database_wait_seconds: 3,
            secret_key: SecretString::default(),
            old_secret_keys: SecretKeys::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            max_connections: 4096,
            max_connections_address: None,
            head_seconds: 15,
            write_seconds: 30,
            request_seconds: 30,
            data: PathBuf::from("data"),
            metrics_token: None,
            metrics_listen: None,
            trusted_proxies: Proxies::default(),
            rate_limit_token: 6000,
            rate_limit_account: 18_000,
            rate_limit_address: 600,
            audit_days: 365,
            workers: 8,
            lease_seconds: 30,
            operation_deadline_seconds: 900,
            undo_deadline_seconds: 86_400,
            log: "info,sqlx::postgres::notice=warn".into(),
            log_format: LogFormat::Text,
            smtp: None,
            mail_from: "Innkeeper <innkeeper@localhost>".into(),
            failpoints: String::new(),
            features: FeatureSettings::default(),
        }
    }
}

impl Config {
    /// Reads and validates the environment; features read theirs when they are built. Errors name the variable and the
    /// expected value.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut config: Self =
            settings::environment().merge(Env::raw().only(&["DATABASE_URL"])).extract().context(settings::READING)?;
        config.features = FeatureSettings::from_env();
        let mail = Figment::from(Env::prefixed("SMTP_"));
        if let Ok(from) = mail.extract_inner::<String>("from") {
            config.mail_from = from;
        }
        if mail.contains("host") {
            config.smtp = Some(mail.extract().context("reading the SMTP_… settings from the environment")?);
        }
        config.check()?;
        Ok(config)
    }

    /// The environment variables of the kernel's settings.
    pub fn variables() -> Variables {
        let mut variables = settings::variables::<Self>();
        variables.remove("INNKEEPER_DATABASE_URL");
        variables.extend([
            ("DATABASE_URL".to_owned(), json!(null)),
            ("SMTP_HOST".to_owned(), json!(null)),
            ("SMTP_PORT".to_owned(), json!(submission())),
            ("SMTP_USER".to_owned(), json!(null)),
            ("SMTP_PASS".to_owned(), json!(null)),
            ("SMTP_TLS".to_owned(), json!("starttls")),
            ("SMTP_FROM".to_owned(), json!(Self::default().mail_from)),
        ]);
        variables
    }

    fn check(&self) -> anyhow::Result<()> {
        use secrecy::ExposeSecret;
        anyhow::ensure!(
            !self.database_url.expose_secret().is_empty(),
            "DATABASE_URL is not set; it is the PostgreSQL URL, such as postgres://user@127.0.0.1/innkeeper"
        );
        crate::secrets::Sealer::new(&self.secret_key, &self.old_secret_keys.0)?;
        at_least_one([
            ("INNKEEPER_WORKERS", u64::try_from(self.workers)?),
            ("INNKEEPER_MAX_CONNECTIONS", u64::try_from(self.max_connections)?),
            ("INNKEEPER_MAX_CONNECTIONS_ADDRESS", u64::try_from(self.max_connections_per_address())?),
            ("INNKEEPER_HEAD_SECONDS", self.head_seconds.into()),
            ("INNKEEPER_WRITE_SECONDS", self.write_seconds.into()),
            ("INNKEEPER_REQUEST_SECONDS", self.request_seconds.into()),
            ("INNKEEPER_LEASE_SECONDS", self.lease_seconds.into()),
            ("INNKEEPER_DATABASE_POOL", self.database_pool.into()),
            ("INNKEEPER_DATABASE_WAIT_SECONDS", self.database_wait_seconds.into()),
            ("INNKEEPER_RATE_LIMIT_TOKEN", self.rate_limit_token.into()),
            ("INNKEEPER_RATE_LIMIT_ACCOUNT", self.rate_limit_account.into()),
            ("INNKEEPER_RATE_LIMIT_ADDRESS", self.rate_limit_address.into()),
            ("INNKEEPER_AUDIT_DAYS", u64::try_from(self.audit_days).unwrap_or(0)),
        ])?;
        if let Some(token) = &self.metrics_token {
            anyhow::ensure!(
                token.expose_secret().len() >= 16,
                "INNKEEPER_METRICS_TOKEN must have at least 16 characters; generate one with `openssl rand -base64 32`"
            );
        }
        self.mail_from
            .parse::<lettre::message::Mailbox>()
            .context("SMTP_FROM must be an email address such as \"Innkeeper <panel@example.com>\"")?;
        if let Some(smtp) = &self.smtp {
            let loopback = smtp.host == "localhost" || smtp.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            anyhow::ensure!(
                rustls::pki_types::ServerName::try_from(smtp.host.as_str()).is_ok(),
                "SMTP_HOST must be a host name or an IP address such as mail.example.com; the port is SMTP_PORT"
            );
            anyhow::ensure!(
                smtp.tls != SmtpTls::None || loopback,
                "SMTP_TLS=none is allowed only for a mail server on this machine; use starttls or tls"
            );
        }
        Ok(())
    }

    /// Maximum number of connections from one address.
    pub fn max_connections_per_address(&self) -> usize {
        self.max_connections_address.unwrap_or_else(|| self.max_connections.div_ceil(4))
    }

    /// How long a worker's claim lasts without renewal.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_by_address_and_by_network() {
        let proxies = |text: &str| Proxies::try_from(text.to_owned());
        let some = proxies("10.0.0.1, 172.16.0.0/12,fd00::/64,").unwrap();
        for inside in ["10.0.0.1", "172.31.255.255", "fd00::5", "::ffff:10.0.0.1"] {
            assert!(some.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.0.0.2", "172.32.0.0", "fd00:0:0:1::", "::1"] {
            assert!(!some.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Proxies::default().contains("127.0.0.1".parse().unwrap()));
        for bad in ["proxy", "10.0.0.0/33", "10.0.0.1/8", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "10.0.0.1:80"] {
            assert!(proxies(bad).is_err(), "{bad}");
        }
    }
}
