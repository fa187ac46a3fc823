//! The features' own settings. A feature declares a struct of its own, reads it once when it is built, and owns it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::Context;
use axum::http::Extensions;
use figment::Figment;
use figment::providers::Env;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::Config;

/// What the variables of all settings start with.
const PREFIX: &str = "INNKEEPER_";

/// A feature's settings. A setting's environment variable is its name in capitals after `INNKEEPER_`; `Default` says
/// what it is if that is not set.
pub trait Settings: Clone + Debug + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Rejects invalid values. Errors name the variable and the expected value.
    fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Refuses variables that are 0.
pub fn at_least_one<'a>(variables: impl IntoIterator<Item = (&'a str, u64)>) -> anyhow::Result<()> {
    for (name, value) in variables {
        anyhow::ensure!(value > 0, "{name} must be at least 1");
    }
    Ok(())
}

/// Environment variables with their defaults; null where there is none.
pub type Variables = BTreeMap<String, Value>;

/// The variables of these settings.
pub fn variables<S: Default + Serialize>() -> Variables {
    match serde_json::to_value(S::default()) {
        Ok(Value::Object(fields)) => {
            fields.into_iter().map(|(name, value)| (format!("{PREFIX}{}", name.to_uppercase()), value)).collect()
        }
        _ => Variables::new(),
    }
}

/// Where features get their settings from.
#[derive(Debug, Clone, Default)]
pub struct FeatureSettings {
    from_env: bool,
    set: Extensions,
}

impl FeatureSettings {
    pub(crate) fn from_env() -> Self {
        Self { from_env: true, ..Self::default() }
    }
}

/// What the environment sets, by the names of fields.
pub(crate) fn environment() -> Figment {
    Figment::from(Env::prefixed(PREFIX))
}

/// What an error about the environment's variables begins with.
pub(crate) const READING: &str = "reading the INNKEEPER_… settings from the environment";

impl Config {
    /// Reads and validates a feature's settings.
    pub fn read<S: Settings>(&self) -> anyhow::Result<S> {
        let settings = match self.features.set.get::<S>() {
            Some(set) => set.clone(),
            None if self.features.from_env => environment().extract().context(READING)?,
            None => S::default(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// A feature's settings, to set them here instead of in the environment before the feature is built.
    pub fn of<S: Settings>(&mut self) -> &mut S {
        self.features.set.get_or_insert_default()
    }
}
