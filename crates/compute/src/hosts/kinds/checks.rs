//! Checks and defaults that the settings of several kinds share.

use kernel::error::Result;
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

/// Serializes a secret in plain: settings are stored sealed, and secrets are removed before they are shown.
#[allow(clippy::ref_option, reason = "serde hands fields by reference")]
pub(super) fn in_plain<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

#[allow(clippy::ref_option, reason = "garde hands fields by reference")]
pub(super) fn is_secret(secret: &Option<SecretString>, (): &()) -> garde::Result {
    let fine = |text: &str| (1..=500).contains(&text.len()) && !text.chars().any(char::is_control);
    match secret.as_ref().is_none_or(|s| fine(s.expose_secret())) {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 500 characters and no control characters")),
    }
}

/// The name of a storage, project or pool.
pub(super) fn is_name(name: &str, (): &()) -> garde::Result {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (1..=63).contains(&name.len()) && name.chars().all(fine) && name.starts_with(|c: char| c != '-' && c != '.') {
        true => Ok(()),
        false => Err(garde::Error::new("must have 1 to 63 letters, digits, dots, hyphens or underscores")),
    }
}

pub(super) fn is_domain(name: &str, (): &()) -> garde::Result {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(fine) && !label.starts_with('-') && !label.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => Err(garde::Error::new("must be a domain such as example.com")),
    }
}

pub(super) fn yes() -> bool {
    true
}
