//! Settings from the environment, validated at startup. `.env.example` lists them all.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use figment::Figment;
use figment::providers::Env;
use ipnet::{IpNet, Ipv4Net};
use secrecy::SecretString;
use serde::Deserialize;

use crate::http::text;

/// All settings of the service. A setting's environment variable is its name in capitals after `INNKEEPER_`, except for
/// `DATABASE_URL` and the email settings, which start with `SMTP_` as in the server-management API.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Config {
    /// URL of the PostgreSQL database (`DATABASE_URL`).
    pub database_url: SecretString,
    /// Maximum number of this process's database connections for requests and operations; four more claim operations,
    /// keep leases and listen.
    pub database_pool: u32,
    /// Seconds that a request waits for a free database connection before it fails with a 503.
    pub database_wait_seconds: u32,
    /// The master key that seals secrets: 32 bytes in base64.
    pub secret_key: SecretString,
    /// Previous master keys, comma-separated: they only open secrets that were sealed with them.
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
    /// The service's public address, for links in emails and for consoles.
    pub public_url: String,
    /// Bearer token for `/metrics`; without it, `/metrics` is disabled.
    pub metrics_token: Option<SecretString>,
    /// Address and port that serves only `/metrics`, without authentication.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether anyone may register as a customer.
    pub registration: bool,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted, comma-separated.
    pub trusted_proxies: Proxies,
    /// Lifetime of an access token in minutes.
    pub access_token_minutes: u32,
    /// Lifetime of a login session in days; its refresh tokens expire with it.
    pub session_days: u32,
    /// Failed logins per account within 15 minutes.
    pub login_limit_account: i32,
    /// Failed logins per address within 15 minutes.
    pub login_limit_address: i32,
    /// Requests per minute with one token, across all processes.
    pub rate_limit_token: u32,
    /// Requests per minute of one account with all its sessions and tokens, across all processes.
    pub rate_limit_account: u32,
    /// Requests per minute without a valid token from one address (IPv6: one /64), across all processes.
    pub rate_limit_address: u32,
    /// Hours that a released address rests before another account may get it; 0 disables this.
    pub address_rest_hours: u32,
    /// Domains under which any customer may choose reverse DNS names (PTR), comma-separated.
    pub reverse_suffixes: Suffixes,
    /// Days that audit entries are kept; they are deleted a month at a time.
    pub audit_days: i32,
    /// Operations that this process runs concurrently.
    pub workers: usize,
    /// Seconds without a sign of life after which another worker may take over an operation.
    pub lease_seconds: u32,
    /// Seconds after which the creation of a server is undone if it has not succeeded.
    pub create_deadline_seconds: u32,
    /// Seconds after which any other operation fails.
    pub operation_deadline_seconds: u32,
    /// Seconds that undoing is retried before the operation is `stuck`.
    pub undo_deadline_seconds: u32,
    /// Seconds that a guest may take to shut down before it is forced off.
    pub shutdown_seconds: u32,
    /// Percentage of a storage that must stay free after another snapshot or a larger disk.
    pub storage_margin_percent: u32,
    /// Seconds between two sweeps of a host.
    pub sweep_seconds: u32,
    /// Seconds without a further alert before emails are sent; at most six times as long while new ones keep coming.
    pub alert_settle_seconds: u32,
    /// Seconds in which a server's owner is notified only once of the same kind of problem, however often it comes and
    /// goes.
    pub alert_floor_seconds: u32,
    /// Seconds within which a console ticket must be used.
    pub console_ticket_seconds: u32,
    /// Seconds within which a console that lost its connection can be reconnected.
    pub console_reconnect_seconds: u32,
    /// Seconds without input after which a console is closed.
    pub console_idle_seconds: u32,
    /// Maximum duration of a console in seconds, including all reconnects.
    pub console_total_seconds: u32,
    /// Maximum number of open consoles per account.
    pub console_limit_account: u32,
    /// Maximum number of open consoles per server.
    pub console_limit_server: u32,
    /// Maximum input of a console in KiB per second; more is delayed.
    pub console_input_kib: u32,
    /// Log filter, in `tracing`'s syntax.
    pub log: String,
    /// `text` for people, `json` for programs.
    pub log_format: LogFormat,
    /// How long a token is trusted without a query if notifications of the database don't arrive. Not settable from the
    /// environment: a higher value would be unsafe.
    #[serde(skip)]
    pub token_life: Duration,
    /// The mail server, if there is one.
    #[serde(skip)]
    pub smtp: Option<Smtp>,
    /// Sender of emails (`SMTP_FROM`).
    #[serde(skip)]
    pub mail_from: String,
    /// Debug builds only: boundaries to fail at, as `kind:step:boundary=action` entries joined with `;`.
    pub failpoints: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Default, Deserialize)]
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

/// Comma-separated domains in which all accounts may name their addresses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct Suffixes(Vec<String>);

impl Suffixes {
    /// The domains, normalised.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<String> for Suffixes {
    type Error = String;

    fn try_from(list: String) -> Result<Self, Self::Error> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names
            .map(|name| suffix(name).map_err(|problem| format!("{name} {problem}")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Normalises a domain: lower case, without dots at either end.
pub fn suffix(name: &str) -> Result<String, String> {
    let name = name.trim_matches('.').to_ascii_lowercase();
    text::domain(&name, &()).map_err(|problem| problem.to_string())?;
    Ok(name)
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
            public_url: "http://127.0.0.1:5000".into(),
            metrics_token: None,
            metrics_listen: None,
            registration: false,
            trusted_proxies: Proxies::default(),
            access_token_minutes: 15,
            session_days: 30,
            login_limit_account: 10,
            login_limit_address: 50,
            rate_limit_token: 6000,
            rate_limit_account: 18_000,
            rate_limit_address: 600,
            address_rest_hours: 24,
            reverse_suffixes: Suffixes::default(),
            audit_days: 365,
            workers: 8,
            lease_seconds: 30,
            create_deadline_seconds: 900,
            operation_deadline_seconds: 900,
            undo_deadline_seconds: 86_400,
            shutdown_seconds: 60,
            storage_margin_percent: 10,
            sweep_seconds: 30,
            alert_settle_seconds: 10,
            alert_floor_seconds: 900,
            console_ticket_seconds: 30,
            console_reconnect_seconds: 120,
            console_idle_seconds: 900,
            console_total_seconds: 28_800,
            console_limit_account: 20,
            console_limit_server: 5,
            console_input_kib: 256,
            log: "info,sqlx::postgres::notice=warn".into(),
            log_format: LogFormat::Text,
            token_life: Duration::from_secs(5),
            smtp: None,
            mail_from: "Innkeeper <innkeeper@localhost>".into(),
            failpoints: String::new(),
        }
    }
}

impl Config {
    /// From the start of one sweep of a host to the start of the next one.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_seconds.into())
    }

    /// How long a released address rests before another account may get it.
    pub fn address_rest(&self) -> Duration {
        Duration::from_hours(self.address_rest_hours.into())
    }

    /// Reads and validates the environment. Errors name the variable and the expected value.
    pub fn from_env() -> anyhow::Result<Self> {
        let mut config: Self = Figment::from(Env::prefixed("INNKEEPER_"))
            .merge(Env::raw().only(&["DATABASE_URL"]))
            .extract()
            .context("reading the INNKEEPER_… settings from the environment")?;
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

    fn check(&self) -> anyhow::Result<()> {
        use secrecy::ExposeSecret;
        anyhow::ensure!(
            !self.database_url.expose_secret().is_empty(),
            "DATABASE_URL is not set; it is the PostgreSQL URL, such as postgres://user@127.0.0.1/innkeeper"
        );
        crate::secrets::Sealer::new(&self.secret_key, &self.old_secret_keys.0)?;
        for (name, value) in [
            ("INNKEEPER_WORKERS", u64::try_from(self.workers)?),
            ("INNKEEPER_MAX_CONNECTIONS", u64::try_from(self.max_connections)?),
            ("INNKEEPER_MAX_CONNECTIONS_ADDRESS", u64::try_from(self.max_connections_per_address())?),
            ("INNKEEPER_HEAD_SECONDS", self.head_seconds.into()),
            ("INNKEEPER_WRITE_SECONDS", self.write_seconds.into()),
            ("INNKEEPER_REQUEST_SECONDS", self.request_seconds.into()),
            ("INNKEEPER_LEASE_SECONDS", self.lease_seconds.into()),
            ("INNKEEPER_SWEEP_SECONDS", self.sweep_seconds.into()),
            ("INNKEEPER_DATABASE_POOL", self.database_pool.into()),
            ("INNKEEPER_DATABASE_WAIT_SECONDS", self.database_wait_seconds.into()),
            ("INNKEEPER_ACCESS_TOKEN_MINUTES", self.access_token_minutes.into()),
            ("INNKEEPER_SESSION_DAYS", self.session_days.into()),
            ("INNKEEPER_RATE_LIMIT_TOKEN", self.rate_limit_token.into()),
            ("INNKEEPER_RATE_LIMIT_ACCOUNT", self.rate_limit_account.into()),
            ("INNKEEPER_RATE_LIMIT_ADDRESS", self.rate_limit_address.into()),
            ("INNKEEPER_AUDIT_DAYS", u64::try_from(self.audit_days).unwrap_or(0)),
            ("INNKEEPER_CONSOLE_TICKET_SECONDS", self.console_ticket_seconds.into()),
            ("INNKEEPER_CONSOLE_IDLE_SECONDS", self.console_idle_seconds.into()),
            ("INNKEEPER_CONSOLE_TOTAL_SECONDS", self.console_total_seconds.into()),
            ("INNKEEPER_CONSOLE_LIMIT_ACCOUNT", self.console_limit_account.into()),
            ("INNKEEPER_CONSOLE_LIMIT_SERVER", self.console_limit_server.into()),
            ("INNKEEPER_CONSOLE_INPUT_KIB", self.console_input_kib.into()),
        ] {
            anyhow::ensure!(value > 0, "{name} must be at least 1");
        }
        anyhow::ensure!(self.storage_margin_percent < 100, "INNKEEPER_STORAGE_MARGIN_PERCENT must be less than 100");
        if let Some(token) = &self.metrics_token {
            anyhow::ensure!(
                token.expose_secret().len() >= 16,
                "INNKEEPER_METRICS_TOKEN must have at least 16 characters; generate one with `openssl rand -base64 32`"
            );
        }
        self.public_origin().context("INNKEEPER_PUBLIC_URL must be a URL such as https://panel.example.com")?;
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

    /// The origin that browsers send for our own pages: the public address without its path. None if it is not an
    /// http(s) URL.
    pub fn public_origin(&self) -> Option<String> {
        let (scheme, rest) = self.public_url.split_once("://").filter(|(s, _)| matches!(*s, "http" | "https"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        // Browsers omit the default port.
        let usual = if scheme == "http" { ":80" } else { ":443" };
        let host = host.strip_suffix(usual).unwrap_or(&host);
        (!host.is_empty() && !host.contains('@')).then(|| format!("{scheme}://{host}"))
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

    #[test]
    fn an_origin_is_what_a_browser_makes_of_the_address() {
        let origin = |url: &str| Config { public_url: url.into(), ..Config::default() }.public_origin();
        for (url, expected) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("https://Panel.example.com/", "https://panel.example.com"),
            ("https://panel.example.com:443/cloud", "https://panel.example.com"),
            ("http://panel.example.com:443", "http://panel.example.com:443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(origin(url).as_deref(), Some(expected), "{url}");
        }
        for bad in ["", "panel.example.com", "ftp://panel.example.com", "http://", "https://me@panel.example.com"] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }
}
