//! Settings of addresses.

use std::time::Duration;

use kernel::http::text;
use kernel::settings::Settings;
use serde::{Deserialize, Serialize};

/// When addresses are reassigned, and which reverse names they may have.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressSettings {
    /// Hours that a released address rests before another account may get it; 0 disables this.
    pub address_rest_hours: u32,
    /// Domains under which any customer may choose reverse DNS names (PTR), comma-separated.
    pub reverse_suffixes: Suffixes,
}

impl Default for AddressSettings {
    fn default() -> Self {
        Self { address_rest_hours: 24, reverse_suffixes: Suffixes::default() }
    }
}

impl Settings for AddressSettings {}

impl AddressSettings {
    /// How long a released address rests before another account may get it.
    pub fn rest(&self) -> Duration {
        Duration::from_hours(self.address_rest_hours.into())
    }
}

/// Comma-separated domains in which all accounts may name their addresses.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
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
pub(super) fn suffix(name: &str) -> Result<String, String> {
    let name = name.trim_matches('.').to_ascii_lowercase();
    text::domain(&name, &()).map_err(|problem| problem.to_string())?;
    Ok(name)
}
