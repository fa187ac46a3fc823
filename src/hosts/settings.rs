//! How a host is reached, whatever its kind: settings that were read and checked, with their secrets in and out of
//! sight.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use hypervisor::ssh::Ways;
use hypervisor::{Driver, GuestShell, HostInfo};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{OneOfBuilder, RefBuilder, Schema};

use super::kinds::{self, HostKind, KindName, Schemas};
use crate::error::{Error, Result};

/// Settings as they were sent: what is in them depends on the host's kind, and [`HostSettings::read`] finds out. They
/// may hold secrets and are never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct GivenSettings(Value);

impl Debug for GivenSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenSettings")
    }
}

/// How a host is reached and where on it our guests go, by its kind. Stored sealed, shown without secrets.
#[derive(Debug)]
pub struct HostSettings(Box<dyn AnySettings>);

impl HostSettings {
    /// Those of a kind.
    pub fn of<K: HostKind>(settings: K) -> Self {
        Self(Box::new(settings))
    }

    /// Those of a kind; none where they are of another.
    pub fn get<K: HostKind>(&self) -> Option<&K> {
        let settings: &dyn Any = &*self.0;
        settings.downcast_ref()
    }

    /// The kind of host that they are for.
    pub fn kind(&self) -> KindName {
        self.0.kind()
    }

    /// Reads and checks settings for a host of this kind.
    pub fn read(kind: KindName, given: GivenSettings) -> Result<Self> {
        (kind.registered()?.read)(given.0)
    }

    /// The settings as [`Self::read`] takes them, secrets included.
    pub fn given(&self) -> Result<GivenSettings> {
        serde_json::to_value(self).map(GivenSettings).map_err(Error::internal)
    }

    /// Reads what [`Self::to_stored`] made for a host of this kind.
    pub(super) fn from_stored(kind: KindName, stored: &[u8]) -> Result<Self> {
        let parse = kind.registered()?.parse;
        serde_json::from_slice(stored).and_then(parse).map_err(Error::internal)
    }

    /// As they are stored, secrets in plain: to be sealed.
    pub(super) fn to_stored(&self) -> Result<Vec<u8>> {
        self.0.stored().and_then(|stored| serde_json::to_vec(&stored)).map_err(Error::internal)
    }

    /// Without secrets, for showing.
    pub(super) fn shown(mut self) -> Self {
        self.0.hide();
        self
    }

    /// Fills in the secrets that were left out: those of before, where there are any.
    pub(super) fn complete(&mut self, before: Option<&Self>) -> Result<()> {
        self.0.complete(before)
    }

    /// Whether both lead to the same place by the same address. Others may do so all the same.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.meets(other)
    }

    /// Whether guests of `before` may not be found any more with these.
    pub(super) fn moved(&self, before: &Self) -> bool {
        self.0.moved(before)
    }

    /// What a host with them is called in a sentence.
    pub(super) fn noun(&self) -> &'static str {
        self.0.noun()
    }

    /// The ways over SSH that they allow; none where such hosts are never signed in to, and have no management key.
    pub fn ways(&self) -> Option<Ways> {
        self.0.ways()
    }

    /// What the provider can do about a host that can't be used.
    pub(super) fn hint(&self, error: &hypervisor::Error) -> Option<String> {
        self.0.hint(error)
    }

    /// What the command line shows beside a complaint that rights are lacking, for what a look found: a line each.
    pub fn advice(&self, found: Option<&HostInfo>) -> Vec<String> {
        self.0.advice(found)
    }

    /// A driver for these settings, with a way into guests where the host itself has none; nothing is sent yet.
    pub(super) fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>> {
        self.0.connect(shell)
    }
}

/// Settings whose kind is forgotten.
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
    fn ways(&self) -> Option<Ways>;
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
                return Err(Error::field(&format!("config.{missing}"), "Is missing: there is none from before."));
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

    fn ways(&self) -> Option<Ways> {
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

/// As the settings' own derive has it, its order included.
impl Serialize for HostSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.written().map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// What is shown does not say of which kind it is: it is of the one that can read it.
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
