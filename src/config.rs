//! Settings from the environment, checked once, at the start. `.env.example` lists them all.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use figment::Figment;
use figment::providers::Env;
use ipnet::{IpNet, Ipv4Net};
use secrecy::SecretString;
use serde::Deserialize;

use crate::addresses::reverse::Suffixes;

/// Every setting of the service. Names in the environment are these in capitals after `INNKEEPER_`, but for
/// `DATABASE_URL` and the mail settings, which start with `SMTP_` as the server-management API has them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Config {
    /// PostgreSQL, as a URL (`DATABASE_URL`).
    pub database_url: SecretString,
    /// The most database connections of this process for requests and work; four more claim, keep leases and listen.
    pub database_pool: u32,
    /// Seconds that a request waits for a free database connection before it is a 503.
    pub database_wait_seconds: u32,
    /// The master key that seals secrets: 32 bytes as base64.
    pub secret_key: SecretString,
    /// Master keys of before, comma-separated: they open what they sealed, and seal nothing.
    pub old_secret_keys: SecretKeys,
    /// Address and port to serve on.
    pub listen: SocketAddr,
    /// The most connections of clients at a time; more wait.
    pub max_connections: usize,
    /// How many of them one address (IPv6: one /64) may have, but for trusted proxies; a quarter where it is not set.
    pub max_connections_address: Option<usize>,
    /// Seconds that a request's head may take to arrive, and that an idle connection is kept.
    pub head_seconds: u32,
    /// Seconds after which a connection is closed whose client takes nothing of what it is sent.
    pub write_seconds: u32,
    /// Seconds that a request may take; password changes wait for the guest.
    pub request_seconds: u32,
    /// The folder for what is not in the database (mails without SMTP).
    pub data: PathBuf,
    /// The address that people reach us at, for links in mails and for consoles.
    pub public_url: String,
    /// The bearer token that `/metrics` is shown to; without one, to nobody.
    pub metrics_token: Option<SecretString>,
    /// Address and port to show `/metrics` on, to whoever reaches it, and nothing else.
    pub metrics_listen: Option<SocketAddr>,
    /// Whether strangers may register as customers.
    pub registration: bool,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed, comma-separated.
    pub trusted_proxies: Proxies,
    /// Life of an access token in minutes.
    pub access_token_minutes: u32,
    /// Life of a login in days; a refresh token lasts no longer.
    pub session_days: u32,
    /// Failed logins per account in 15 minutes.
    pub login_limit_account: i32,
    /// Failed logins per address in 15 minutes.
    pub login_limit_address: i32,
    /// Requests a minute with one token, all processes together.
    pub rate_limit_token: u32,
    /// Requests a minute of one account with all its logins and tokens, all processes together.
    pub rate_limit_account: u32,
    /// Requests a minute from one address (IPv6: one /64) that show no good token, all processes together.
    pub rate_limit_address: u32,
    /// Hours that an address which was given back rests before another account may have it; 0: none.
    pub address_rest_hours: u32,
    /// Names below which everybody may name their addresses (PTR), comma-separated.
    pub reverse_suffixes: Suffixes,
    /// Days that entries of the audit log are kept; they go a month at a time.
    pub audit_days: i32,
    /// Operations worked on at one time by this process.
    pub workers: usize,
    /// Seconds that a worker holds an operation without a sign of life before another may take it over.
    pub lease_seconds: u32,
    /// Seconds after which a create that has not succeeded is undone.
    pub create_deadline_seconds: u32,
    /// Seconds after which any other operation gives up.
    pub operation_deadline_seconds: u32,
    /// Seconds that an undo is tried before a person is asked (`stuck`).
    pub undo_deadline_seconds: u32,
    /// Seconds a guest may take to shut down before it is forced.
    pub shutdown_seconds: u32,
    /// The share of a storage, in percent, that must be free for one more snapshot or a bigger disk on it.
    pub storage_margin_percent: u32,
    /// Seconds between two sweeps of a host.
    pub sweep_seconds: u32,
    /// Seconds without another alert after which people are mailed; while they keep coming, six times as long.
    pub alert_settle_seconds: u32,
    /// Seconds in which a server's owner is told once that something of one kind is wrong with it, however often it comes
    /// and goes.
    pub alert_floor_seconds: u32,
    /// Seconds in which a console's ticket must be used.
    pub console_ticket_seconds: u32,
    /// Seconds in which a console that lost its connection may be taken up again.
    pub console_reconnect_seconds: u32,
    /// Seconds without anything typed after which a console is closed.
    pub console_idle_seconds: u32,
    /// Seconds that a console may be open, however often it is connected again.
    pub console_total_seconds: u32,
    /// Consoles that an account may have open at one time.
    pub console_limit_account: u32,
    /// Consoles that may be open on a server at one time.
    pub console_limit_server: u32,
    /// KiB a second that a console takes from its client; more waits.
    pub console_input_kib: u32,
    /// What to log, in `tracing`'s filter language.
    pub log: String,
    /// `text` for people, `json` for machines.
    pub log_format: LogFormat,
    /// The longest that a token is taken for good without asking, should the database's word not come through. Not for
    /// the environment: more would be unsafe.
    #[serde(skip)]
    pub token_life: Duration,
    /// Where mails go.
    #[serde(skip)]
    pub smtp: Option<Smtp>,
    /// Sender of mails (`SMTP_FROM`).
    #[serde(skip)]
    pub mail_from: String,
    /// Debug builds only: boundaries to fail at, as `kind:step:boundary=action` joined with `;`.
    pub failpoints: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A mail server to hand mails to.
#[derive(Debug, Clone, Deserialize)]
pub struct Smtp {
    /// Its name (`SMTP_HOST`).
    pub host: String,
    /// Its port (`SMTP_PORT`): 587 by default.
    #[serde(default = "submission")]
    pub port: u16,
    /// User name (`SMTP_USER`), where it wants one.
    pub user: Option<String>,
    /// Password (`SMTP_PASS`).
    pub pass: Option<SecretString>,
    /// `starttls` (default), `tls` from the first byte, or `none`, which is taken for loopback only (`SMTP_TLS`).
    #[serde(default)]
    pub tls: SmtpTls,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Plain at first, then TLS, or nothing at all.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// No protection.
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
    /// Whether the proxy at this address is among them.
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

/// An address, or a network of addresses.
fn proxies(text: &str) -> Result<IpNet, String> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().map_err(|_| format!("{text} is neither an address nor a network such as 10.0.0.0/8"))?,
    };
    if network != network.trunc() {
        return Err(format!("{text} is an address in a network; the network is {}", network.trunc()));
    }
    // An IPv4 address may be written as IPv6 has it.
    let network = match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_err(|e| format!("{text}: {e}"))?.into(),
            None => network,
        },
        _ => network,
    };
    match network.prefix_len() {
        0 => Err(format!("{text} is everybody: whoever is trusted chooses the address that is believed")),
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
    /// From the start of one sweep of a host to the start of the next.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_seconds.into())
    }

    /// How long an address that was given back rests before another account may have it.
    pub fn address_rest(&self) -> Duration {
        Duration::from_hours(self.address_rest_hours.into())
    }

    /// Reads and checks the environment. Errors name the variable and what it should be.
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
            "DATABASE_URL is not set; it names the PostgreSQL database, such as postgres://user@127.0.0.1/innkeeper"
        );
        crate::secrets::Sealer::new(&self.secret_key, &self.old_secret_keys.0)?;
        for (name, value) in [
            ("INNKEEPER_WORKERS", u64::try_from(self.workers)?),
            ("INNKEEPER_MAX_CONNECTIONS", u64::try_from(self.max_connections)?),
            ("INNKEEPER_MAX_CONNECTIONS_ADDRESS", u64::try_from(self.places_of_an_address())?),
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
                "INNKEEPER_METRICS_TOKEN must have 16 characters or more; make one with `openssl rand -base64 32`"
            );
        }
        self.public_origin().context("INNKEEPER_PUBLIC_URL must be an address such as https://panel.example.com")?;
        self.mail_from
            .parse::<lettre::message::Mailbox>()
            .context("SMTP_FROM must be a mail address such as \"Innkeeper <panel@example.com>\"")?;
        if let Some(smtp) = &self.smtp {
            let loopback = smtp.host == "localhost" || smtp.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            anyhow::ensure!(
                smtp.tls != SmtpTls::None || loopback,
                "SMTP_TLS=none is taken for a mail server on this machine only; use starttls or tls"
            );
        }
        Ok(())
    }

    /// How many connections one address may have.
    pub fn places_of_an_address(&self) -> usize {
        self.max_connections_address.unwrap_or_else(|| self.max_connections.div_ceil(4))
    }

    /// Where browsers say that our own pages come from: the public address without its path. None where it is no
    /// http(s) address.
    pub fn public_origin(&self) -> Option<String> {
        let (scheme, rest) = self.public_url.split_once("://").filter(|(s, _)| matches!(*s, "http" | "https"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
        // Browsers leave the usual port out.
        let usual = if scheme == "http" { ":80" } else { ":443" };
        let host = host.strip_suffix(usual).unwrap_or(&host);
        (!host.is_empty() && !host.contains('@')).then(|| format!("{scheme}://{host}"))
    }

    /// How long a worker's claim lasts.
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
