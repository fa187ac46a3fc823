//! Settings of a host of any kind: parsed and validated, with and without their secrets.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use hypervisor::ssh::SshRoutes;
use hypervisor::{Driver, GuestShell, HostInfo};
use kernel::error::{Error, Result};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{OneOfBuilder, RefBuilder, Schema};

use super::kinds::{self, HostKind, KindName, Schemas};

/// Settings as they were sent, to be parsed by [`HostSettings::read`]. They may contain secrets and are never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct RawSettings(Value);

impl Debug for RawSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenSettings")
    }
}

/// How a host is reached and where on it our guests go, by its kind. Stored sealed, shown without secrets.
#[derive(Debug)]
pub struct HostSettings(Box<dyn AnySettings>);

impl HostSettings {
    /// Settings of this kind.
    pub fn of<K: HostKind>(settings: K) -> Self {
        Self(Box::new(settings))
    }

    /// The settings themselves; `None` if they are of another kind.
    pub fn get<K: HostKind>(&self) -> Option<&K> {
        let settings: &dyn Any = &*self.0;
        settings.downcast_ref()
    }

    /// The kind of host they are for.
    pub fn kind(&self) -> KindName {
        self.0.kind()
    }

    /// Parses and validates settings for a host of this kind.
    pub fn read(kind: KindName, given: RawSettings) -> Result<Self> {
        (kind.registered()?.read)(given.0)
    }

    /// The settings as [`Self::read`] accepts them, including secrets.
    pub fn given(&self) -> Result<RawSettings> {
        serde_json::to_value(self).map(RawSettings).map_err(Error::internal)
    }

    /// Parses the result of [`Self::to_stored`] for a host of this kind.
    pub(super) fn from_stored(kind: KindName, stored: &[u8]) -> Result<Self> {
        let parse = kind.registered()?.parse;
        serde_json::from_slice(stored).and_then(parse).map_err(Error::internal)
    }

    /// The settings as they are stored, secrets in plain: to be sealed.
    pub(super) fn to_stored(&self) -> Result<Vec<u8>> {
        self.0.stored().and_then(|stored| serde_json::to_vec(&stored)).map_err(Error::internal)
    }

    /// The settings without secrets.
    pub(super) fn shown(mut self) -> Self {
        self.0.hide();
        self
    }

    /// Fills in the secrets that were left out, from the previous settings.
    pub(super) fn complete(&mut self, before: Option<&Self>) -> Result<()> {
        self.0.complete(before)
    }

    /// See [`HostKind::meets`]; false for settings of another kind.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.meets(other)
    }

    /// See [`HostKind::moved`]; true for settings of another kind.
    pub(super) fn moved(&self, before: &Self) -> bool {
        self.0.moved(before)
    }

    /// See [`HostKind::NOUN`].
    pub(super) fn noun(&self) -> &'static str {
        self.0.noun()
    }

    /// See [`HostKind::ways`].
    pub fn ways(&self) -> Option<SshRoutes> {
        self.0.ways()
    }

    /// See [`HostKind::hint`].
    pub(super) fn hint(&self, error: &hypervisor::Error) -> Option<String> {
        self.0.hint(error)
    }

    /// See [`HostKind::advice`].
    pub fn advice(&self, found: Option<&HostInfo>) -> Vec<String> {
        self.0.advice(found)
    }

    /// See [`HostKind::connect`].
    pub(super) fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        self.0.connect(shell)
    }
}

/// Settings with their type erased.
trait AnySettings: Any + Debug + Send + Sync {
    fn kind(&self) -> KindName;
    fn copied(&self) -> HostSettings;
    fn written(&self) -> serde_json::Result<Box<RawValue>>;
    fn stored(&self) -> serde_json::Result<Value>;
    fn hide(&mut self);
    fn complete(&mut self, before: Option<&HostSettings>) -> Result<()>;
    fn meets(&self, other: &HostSettings) -> bool;
    fn moved(&self, before: &HostSettings) -> bool;
    fn noun(&self) -> &'static str;
    fn ways(&self) -> Option<SshRoutes>;
    fn hint(&self, error: &hypervisor::Error) -> Option<String>;
    fn advice(&self, found: Option<&HostInfo>) -> Vec<String>;
    fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>>;
}

impl<K: HostKind> AnySettings for K {
    fn kind(&self) -> KindName {
        KindName::of::<K>()
    }

    fn copied(&self) -> HostSettings {
        HostSettings::of(self.clone())
    }

    fn written(&self) -> serde_json::Result<Box<RawValue>> {
        to_raw_value(self)
    }

    fn stored(&self) -> serde_json::Result<Value> {
        HostKind::stored(self)
    }

    fn hide(&mut self) {
        for (_, secret) in self.secrets() {
            *secret = None;
        }
    }

    fn complete(&mut self, before: Option<&HostSettings>) -> Result<()> {
        let mut before = before.and_then(HostSettings::get::<K>).cloned();
        let missing = self.secrets().into_iter().filter(|(_, secret)| secret.is_none()).map(|(at, _)| at);
        for missing in missing.collect::<Vec<_>>() {
            let before = before.as_mut().filter(|before| self.keeps(missing, before));
            let secrets = before.map(HostKind::secrets).unwrap_or_default();
            let kept = secrets.into_iter().find(|(at, _)| *at == missing).and_then(|(_, secret)| secret.clone());
            let Some(kept) = kept else {
                return Err(Error::field(&format!("config.{missing}"), "Is missing: no earlier value is stored."));
            };
            for (_, secret) in self.secrets().into_iter().filter(|(at, _)| *at == missing) {
                *secret = Some(kept.clone());
            }
        }
        Ok(())
    }

    fn meets(&self, other: &HostSettings) -> bool {
        other.get().is_some_and(|other| HostKind::meets(self, other))
    }

    fn moved(&self, before: &HostSettings) -> bool {
        before.get().is_none_or(|before| HostKind::moved(self, before))
    }

    fn noun(&self) -> &'static str {
        K::NOUN
    }

    fn ways(&self) -> Option<SshRoutes> {
        HostKind::ways(self)
    }

    fn hint(&self, error: &hypervisor::Error) -> Option<String> {
        HostKind::hint(self, error)
    }

    fn advice(&self, found: Option<&HostInfo>) -> Vec<String> {
        HostKind::advice(self, found)
    }

    fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        HostKind::connect(self, shell)
    }
}

impl Clone for HostSettings {
    fn clone(&self) -> Self {
        self.0.copied()
    }
}

/// Keeps the order of the fields, which a `Value` would not.
impl Serialize for HostSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.written().map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Shown settings don't name their kind: they are parsed as the first kind that accepts them.
impl<'de> Deserialize<'de> for HostSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shown = Value::deserialize(deserializer)?;
        let read = kinds::all().into_iter().find_map(|kind| (kind.parse)(shown.clone()).ok());
        read.ok_or_else(|| D::Error::custom("settings of no kind of host"))
    }
}

impl utoipa::PartialSchema for HostSettings {
    fn schema() -> RefOr<Schema> {
        let about =
            "How a host is reached and where on it our guests go, by its kind. Stored sealed, shown without secrets.";
        let kinds = kinds::all().into_iter().fold(OneOfBuilder::new(), |kinds, kind| {
            let of = format!("Of the kind `{}`.", kind.name);
            kinds.item(RefBuilder::new().description(Some(of)).ref_location_from_schema_name((kind.schema_name)()))
        });
        kinds.description(Some(about)).into()
    }
}

impl utoipa::ToSchema for HostSettings {
    fn name() -> std::borrow::Cow<'static, str> {
        "HostSettings".into()
    }

    fn schemas(schemas: &mut Schemas) {
        for kind in kinds::all() {
            (kind.schemas)(schemas);
        }
    }
}
