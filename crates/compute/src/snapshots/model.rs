//! Requests for snapshots, as the server-management API has them.

use garde::Validate;
use kernel::http::text;
use serde::{Deserialize, Serialize};

/// A snapshot to create.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// Its name: a letter, then letters, digits, `-` and `_`, 2 to 40 characters in total.
    #[garde(custom(name))]
    #[schema(example = "backup-2024-01-01")]
    pub snapname: String,
    /// Its description.
    #[serde(default)]
    #[garde(length(chars, max = 500), custom(text::plain))]
    pub description: String,
}

/// A snapshot to roll back to.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Its name.
    #[garde(custom(name))]
    pub snapname: String,
    /// Takes a snapshot of the current state first, so that nothing is lost; false if omitted.
    #[serde(default, rename = "safetySnapshot")]
    #[garde(skip)]
    pub safety_snapshot: bool,
}

/// The name of a snapshot.
#[derive(Debug, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedSnapshot {
    /// Its name.
    #[garde(custom(name))]
    pub snapname: String,
}

/// A name that every kind of host accepts. Proxmox VE is the strictest: a configuration id of at most 40 characters,
/// but not `current` or `vzdump`, which it reserves; `pending` is a section of its configuration files.
fn name(text: &str, (): &()) -> garde::Result {
    let reserved = ["current", "vzdump", "pending"].iter().any(|r| text.eq_ignore_ascii_case(r));
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if (2..=40).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_alphabetic()) && letters && !reserved {
        return Ok(());
    }
    Err(garde::Error::new(
        "must have 2 to 40 letters, digits, - and _, begin with a letter, and not be current, pending or vzdump",
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_that_every_host_takes() {
        for good in ["backup-2024-01-01", "backup-1704067200000", "a1", "A_b"] {
            assert!(super::name(good, &()).is_ok(), "{good}");
        }
        for bad in ["", "a", "1a", "a b", "a/b", "..", "current", "Current", "vzdump", "копия", "a\n", &"a".repeat(41)]
        {
            assert!(super::name(bad, &()).is_err(), "{bad:?}");
        }
    }
}
