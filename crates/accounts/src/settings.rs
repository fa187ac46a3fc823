//! Settings of accounts.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::HeaderValue;
use kernel::settings::{Settings, at_least_one};
use serde::{Deserialize, Serialize};

/// Who may sign in, for how long, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct AccountSettings {
    /// The service's public address, for links in emails and for consoles.
    pub public_url: String,
    /// Whether anyone may register as a customer.
    pub registration: bool,
    /// How many servers the account of someone who registered may have, until the provider changes it.
    pub registration_server_limit: u16,
    /// Lifetime of an access token in minutes.
    pub access_token_minutes: u32,
    /// Lifetime of a login session in days; its refresh tokens expire with it.
    pub session_days: u32,
    /// Failed logins per account within 15 minutes.
    pub login_limit_account: i32,
    /// Failed logins per address within 15 minutes.
    pub login_limit_address: i32,
    /// How long a token is trusted without a query if the database's notifications don't arrive. Not settable from the
    /// environment: a higher value would be unsafe.
    #[serde(skip)]
    pub token_life: Duration,
}

impl Default for AccountSettings {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1:5000".into(),
            registration: false,
            registration_server_limit: 5,
            access_token_minutes: 15,
            session_days: 30,
            login_limit_account: 10,
            login_limit_address: 50,
            token_life: Duration::from_secs(5),
        }
    }
}

impl Settings for AccountSettings {
    fn check(&self) -> anyhow::Result<()> {
        self.public_origin().context("INNKEEPER_PUBLIC_URL must be a URL such as https://panel.example.com")?;
        // It becomes a cookie's `Path`, of which a semicolon would be the end.
        ensure!(
            self.public_path().bytes().all(|b| b.is_ascii_graphic() && b != b';'),
            "INNKEEPER_PUBLIC_URL must have a path of printable ASCII characters without spaces and semicolons; \
             percent-encode others"
        );
        at_least_one([
            ("INNKEEPER_ACCESS_TOKEN_MINUTES", self.access_token_minutes.into()),
            ("INNKEEPER_SESSION_DAYS", self.session_days.into()),
        ])
    }
}

impl AccountSettings {
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

    /// Whether this `Origin` header is of our own pages.
    pub fn is_own_origin(&self, origin: &HeaderValue) -> bool {
        self.public_origin().is_some_and(|own| origin == own.as_str())
    }

    /// The path of the public address, without a slash at its end.
    pub(crate) fn public_path(&self) -> &str {
        let rest = self.public_url.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.find('/').map_or("", |start| &rest[start..]);
        path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
    }

    /// Whether browsers may send cookies over encrypted connections only: everywhere but on this machine, where some of
    /// them take no such cookie from plain HTTP.
    pub(crate) fn cookie_is_secure(&self) -> bool {
        let origin = self.public_origin().unwrap_or_default();
        let Some(host) = origin.strip_prefix("http://") else { return true };
        let name = match host.find(']') {
            Some(end) => &host[..=end],
            None => host.split(':').next().unwrap_or_default(),
        };
        !matches!(name, "127.0.0.1" | "localhost" | "[::1]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_cookie_can_have_is_refused() {
        let check = |path: &str| {
            AccountSettings { public_url: format!("https://example.com{path}"), ..AccountSettings::default() }.check()
        };
        for good in ["", "/", "/cloud", "/cl%C3%B6ud/"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["/clöud", "/a b", "/a;Secure", "/a\n"] {
            assert!(check(bad).unwrap_err().to_string().contains("INNKEEPER_PUBLIC_URL"), "{bad:?}");
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_makes_of_the_address() {
        let origin =
            |url: &str| AccountSettings { public_url: url.into(), ..AccountSettings::default() }.public_origin();
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
