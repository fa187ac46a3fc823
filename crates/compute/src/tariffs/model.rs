//! Request and response types for tariffs.

use chrono::{DateTime, Utc};
use garde::Validate;
use hypervisor::GuestKind;
use kernel::error::{Code, Error};
use kernel::http::page::Listed;
use kernel::http::patch::Patch;
use kernel::http::text;
use kernel::stored_enum;
use serde::{Deserialize, Serialize};

use crate::ids::TariffId;

/// The kind of guest, of a tariff, an image or a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServerKind {
    /// A system container.
    Lxc,
    /// A virtual machine.
    Vm,
    /// A value that only a newer version knows.
    #[serde(skip_deserializing)]
    #[value(skip)]
    Unknown,
}

stored_enum!(ServerKind, Self::Unknown);

impl ServerKind {
    /// The value stored in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lxc => "lxc",
            Self::Vm => "vm",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for ServerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<ServerKind> for GuestKind {
    type Error = Error;

    fn try_from(kind: ServerKind) -> Result<Self, Error> {
        match kind {
            ServerKind::Lxc => Ok(Self::Lxc),
            ServerKind::Vm => Ok(Self::Vm),
            ServerKind::Unknown => {
                Err(Error::new(Code::Conflict, "Only a newer version of Innkeeper supports this kind."))
            }
        }
    }
}

/// A tariff: what a server gets and what it costs.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tariff {
    /// Its id.
    pub id: TariffId,
    /// Its name, in any script.
    #[schema(example = "Базовый")]
    pub name: String,
    /// The kind of its servers.
    pub kind: ServerKind,
    /// Processor cores.
    pub cores: i32,
    /// Memory in MiB.
    pub memory: i64,
    /// Disk in GiB.
    pub disk: i64,
    /// Monthly traffic in GiB; null: unlimited.
    pub traffic: Option<i64>,
    /// Network rate in Mbit/s, in each direction; null: unlimited.
    pub bandwidth: Option<i32>,
    /// Monthly price in minor units of the currency (cents, kopeks).
    pub price: i64,
    /// Three-letter ISO 4217 code.
    #[schema(example = "EUR")]
    pub currency: String,
    /// Whether it can be ordered. Servers keep a tariff that is disabled.
    pub enabled: bool,
    /// The maximum number of cores that customers may resize a server to; null: the tariff's own.
    pub max_cores: Option<i32>,
    /// The maximum memory that customers may resize a server to, in MiB; null: the tariff's own.
    pub max_memory: Option<i64>,
    /// The maximum disk that customers may resize a server to, in GiB; null: the tariff's own.
    pub max_disk: Option<i64>,
    /// How many snapshots a server may have at a time.
    pub snapshots: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Listed for Tariff {
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>) {
        (self.id.0, &self.name, self.enabled, self.created_at, self.updated_at)
    }
}

/// A new tariff.
#[derive(Debug, Clone, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTariff {
    /// Its name, in any script; unique among tariffs, ignoring case.
    #[garde(length(chars, max = 100), custom(text::title))]
    pub name: String,
    /// The kind of its servers.
    #[garde(skip)]
    pub kind: ServerKind,
    /// Processor cores.
    #[garde(range(min = 1, max = 1024))]
    pub cores: i32,
    /// Memory in MiB.
    #[garde(range(min = 16, max = 16_777_216))]
    pub memory: i64,
    /// Disk in GiB.
    #[garde(range(min = 1, max = 1_048_576))]
    pub disk: i64,
    /// Monthly traffic in GiB; null or omitted: unlimited.
    #[serde(default)]
    #[garde(range(min = 0, max = MAX_TRAFFIC))]
    pub traffic: Option<i64>,
    /// Network rate in Mbit/s, in each direction; null or omitted: unlimited.
    #[serde(default)]
    #[garde(range(min = 1, max = 1_000_000))]
    pub bandwidth: Option<i32>,
    /// Monthly price in minor units of the currency (cents, kopeks).
    #[garde(range(min = 0, max = MAX_PRICE))]
    pub price: i64,
    /// Three-letter ISO 4217 code; EUR if omitted.
    #[serde(default = "euro")]
    #[garde(custom(currency_code))]
    pub currency: String,
    /// Whether it can be ordered; true if omitted.
    #[serde(default = "yes")]
    #[garde(skip)]
    pub enabled: bool,
    /// The maximum number of cores that customers may resize a server to; null or omitted: the tariff's own.
    #[serde(default)]
    #[garde(range(min = 1, max = 1024))]
    pub max_cores: Option<i32>,
    /// The maximum memory that customers may resize a server to, in MiB; null or omitted: the tariff's own.
    #[serde(default)]
    #[garde(range(min = 16, max = 16_777_216))]
    pub max_memory: Option<i64>,
    /// The maximum disk that customers may resize a server to, in GiB; null or omitted: the tariff's own.
    #[serde(default)]
    #[garde(range(min = 1, max = 1_048_576))]
    pub max_disk: Option<i64>,
    /// How many snapshots a server may have at a time; 5 if omitted.
    #[serde(default = "five")]
    #[garde(range(min = 0, max = 1000))]
    pub snapshots: i32,
}

/// A change of a tariff. Omitted fields stay unchanged. Servers keep the size they were ordered with.
#[derive(Debug, Default, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTariff {
    /// Its name.
    #[garde(inner(length(chars, max = 100), custom(text::title)))]
    pub name: Option<String>,
    /// The kind of its servers.
    #[garde(skip)]
    pub kind: Option<ServerKind>,
    /// Processor cores.
    #[garde(inner(range(min = 1, max = 1024)))]
    pub cores: Option<i32>,
    /// Memory in MiB.
    #[garde(inner(range(min = 16, max = 16_777_216)))]
    pub memory: Option<i64>,
    /// Disk in GiB.
    #[garde(inner(range(min = 1, max = 1_048_576)))]
    pub disk: Option<i64>,
    /// Monthly traffic in GiB; null: unlimited from now on.
    #[serde(default)]
    #[garde(custom(within(0, MAX_TRAFFIC)))]
    #[schema(value_type = Option<i64>)]
    pub traffic: Patch<i64>,
    /// Network rate in Mbit/s, in each direction; null: unlimited. Servers keep the rate they were ordered with.
    #[serde(default)]
    #[garde(custom(within(1, 1_000_000)))]
    #[schema(value_type = Option<i32>)]
    pub bandwidth: Patch<i32>,
    /// Monthly price in minor units of the currency.
    #[garde(inner(range(min = 0, max = MAX_PRICE)))]
    pub price: Option<i64>,
    /// Three-letter ISO 4217 code.
    #[garde(inner(custom(currency_code)))]
    pub currency: Option<String>,
    /// Whether it can be ordered.
    #[garde(skip)]
    pub enabled: Option<bool>,
    /// The maximum number of cores that customers may resize a server to; null: the tariff's own.
    #[serde(default)]
    #[garde(custom(within(1, 1024)))]
    #[schema(value_type = Option<i32>)]
    pub max_cores: Patch<i32>,
    /// The maximum memory that customers may resize a server to, in MiB; null: the tariff's own.
    #[serde(default)]
    #[garde(custom(within(16, 16_777_216)))]
    #[schema(value_type = Option<i64>)]
    pub max_memory: Patch<i64>,
    /// The maximum disk that customers may resize a server to, in GiB; null: the tariff's own.
    #[serde(default)]
    #[garde(custom(within(1, 1_048_576)))]
    #[schema(value_type = Option<i64>)]
    pub max_disk: Patch<i64>,
    /// How many snapshots a server may have at a time.
    #[garde(inner(range(min = 0, max = 1000)))]
    pub snapshots: Option<i32>,
}

/// One exabyte per month.
const MAX_TRAFFIC: i64 = 1_000_000_000;
/// Far below the point where floating-point numbers become inexact.
const MAX_PRICE: i64 = 1_000_000_000_000;

fn euro() -> String {
    "EUR".to_owned()
}

fn yes() -> bool {
    true
}

fn currency_code(text: &str, (): &()) -> garde::Result {
    match text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
        true => Ok(()),
        false => Err(garde::Error::new("must be three capital letters such as EUR")),
    }
}

fn five() -> i32 {
    5
}

/// A range check for a field that can be cleared.
fn within<T: PartialOrd + std::fmt::Display>(min: T, max: T) -> impl FnOnce(&Patch<T>, &()) -> garde::Result {
    move |field, ()| match field.value() {
        Some(value) if *value < min || *value > max => {
            Err(garde::Error::new(format!("must be between {min} and {max}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: serde_json::Value) -> Vec<String> {
        let mut json =
            serde_json::json!({"name": "Базовый", "kind": "lxc", "cores": 1, "memory": 512, "disk": 5, "price": 300});
        json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let new: NewTariff = serde_json::from_value(json).unwrap();
        new.validate().err().map(|r| r.iter().map(|(path, _)| path.to_string()).collect()).unwrap_or_default()
    }

    #[test]
    fn a_tariff_in_any_script_passes_and_absurd_ones_name_their_field() {
        assert_eq!(refused(serde_json::json!({})), Vec::<String>::new());
        for (change, field) in [
            (serde_json::json!({"name": "  "}), "name"),
            (serde_json::json!({"name": "a\u{1b}[31m"}), "name"),
            (serde_json::json!({"name": "x".repeat(101)}), "name"),
            (serde_json::json!({"cores": 0}), "cores"),
            (serde_json::json!({"cores": 1_000_000}), "cores"),
            (serde_json::json!({"memory": -512}), "memory"),
            (serde_json::json!({"disk": 1_i64 << 60}), "disk"),
            (serde_json::json!({"traffic": -1}), "traffic"),
            (serde_json::json!({"price": -1}), "price"),
            (serde_json::json!({"price": i64::MAX}), "price"),
            (serde_json::json!({"currency": "eur"}), "currency"),
        ] {
            assert_eq!(refused(change.clone()), [field], "{change}");
        }
    }

    #[test]
    fn an_update_takes_any_part() {
        let update: UpdateTariff = serde_json::from_str(r#"{"price": 1, "traffic": null}"#).unwrap();
        assert!(update.validate().is_ok() && update.traffic == Patch::Clear && update.name.is_none());
        let bad: UpdateTariff = serde_json::from_str(r#"{"traffic": -5, "cores": 0}"#).unwrap();
        assert_eq!(bad.validate().unwrap_err().iter().count(), 2);
        assert!(serde_json::from_str::<UpdateTariff>(r#"{"ram": 1}"#).is_err());
    }
}
