//! The cookie that has a browser's refresh token.
//!
//! Only the routes below its path read it, and those answer with an access token, which other sites' pages can't see:
//! they can neither read the response nor send the `Authorization` header that everything else asks for.

use axum::http::{HeaderMap, HeaderValue, header};
use kernel::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};

use crate::settings::AccountSettings;

/// Its name.
const NAME: &str = "ink_session";
/// The routes that get it, below the public address.
const PATH: &str = "/api/auth/browser";

/// A `Set-Cookie` with this token for this many seconds.
pub(crate) fn set(settings: &AccountSettings, token: &SecretString, seconds: i64) -> Result<HeaderValue> {
    header_value(settings, token.expose_secret(), seconds)
}

/// A `Set-Cookie` that deletes it.
pub(crate) fn cleared(settings: &AccountSettings) -> Result<HeaderValue> {
    header_value(settings, "", 0)
}

fn header_value(settings: &AccountSettings, value: &str, seconds: i64) -> Result<HeaderValue> {
    let (path, secure) = (settings.public_path(), if settings.cookie_is_secure() { "; Secure" } else { "" });
    let text = format!("{NAME}={value}; Path={path}{PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&text).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The refresh token of a request's cookie. Two cookies of that name, of which one was set by another site of the same
/// domain, are none.
pub(crate) fn read(headers: &HeaderMap) -> Option<SecretString> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut found = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == NAME).then_some(value));
    match (found.next(), found.next()) {
        (Some(token), None) if !token.is_empty() => Some(token.to_owned().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_for(url: &str) -> String {
        let settings = AccountSettings { public_url: url.into(), ..AccountSettings::default() };
        set(&settings, &"ink_r_x".to_owned().into(), 60).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn only_a_loopback_address_gets_a_cookie_for_plain_http() {
        let same = "ink_session=ink_r_x; Path=/api/auth/browser; Max-Age=60; HttpOnly; SameSite=Strict";
        for loopback in ["http://127.0.0.1:5000", "http://localhost", "http://[::1]:5000/"] {
            assert_eq!(set_for(loopback), same, "{loopback}");
        }
        for other in
            ["https://panel.example.com", "http://panel.example.com", "https://127.0.0.1", "http://127.0.0.2.a"]
        {
            assert_eq!(set_for(other), format!("{same}; Secure"), "{other}");
        }
    }

    #[test]
    fn the_cookie_s_path_is_below_the_public_address() {
        let cookie = set_for("https://example.com/cloud/");
        assert!(cookie.contains("; Path=/cloud/api/auth/browser;"), "{cookie}");
    }

    #[test]
    fn of_two_cookies_of_one_name_neither_counts() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            super::read(&headers).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(read(&["a=b; ink_session=x; ink_sessions=y"]).as_deref(), Some("x"));
        assert_eq!(read(&["a=b", "ink_session=x"]).as_deref(), Some("x"));
        for none in [&["ink_session=x; ink_session=y"][..], &["ink_session=x", "ink_session=y"], &["ink_session="], &[]]
        {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
