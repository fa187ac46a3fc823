//! Kinds of hosts. What is particular to one is in a file of its own here and nowhere else: a new kind is a file with
//! its settings, which are a [`HostKind`], and a line in `BUILT_IN`.

mod checks;
mod flags;
pub mod incus;
mod name;
pub mod proxmox;

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use garde::Validate;
use hypervisor::ssh::Ways;
use hypervisor::{Driver, GuestShell, HostInfo};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

pub use self::flags::KindFlags;
use self::incus::IncusSettings;
pub use self::name::KindName;
use self::proxmox::ProxmoxSettings;
use super::settings::HostSettings;
use crate::error::Result;
use crate::http::extract::read;

/// The kinds that this program has. The first is the one that `innkeeper host add` takes where none is named.
const BUILT_IN: &[Registered] = &[Registered::of::<IncusSettings>(), Registered::of::<ProxmoxSettings>()];

/// What a program has beside them.
static ADDED: RwLock<Vec<Registered>> = RwLock::new(Vec::new());

/// Asks for a secret, by what it is called.
pub type Ask<'a> = dyn Fn(&str) -> anyhow::Result<SecretString> + 'a;

/// A kind of host, by its settings: how such a host is reached, and where on it our guests go. They are read from
/// requests and checked as their derives say, and stored sealed. What may be left out has a default; what is secret is a
/// `SecretString`, so that `Debug` does not print it.
pub trait HostKind:
    Clone + Debug + Serialize + DeserializeOwned + Validate<Context = ()> + ToSchema + Send + Sync + 'static
{
    /// What it is called in requests, in the database and on the command line.
    const NAME: &'static str;
    /// What it is, for who has to choose one.
    const ABOUT: &'static str;
    /// What a host of this kind is called in a sentence about it.
    const NOUN: &'static str;

    /// The flags of `innkeeper host add`. One that several kinds have is one flag, so it must be of one type.
    type Flags: Args;

    /// Settings from flags. Secrets are no flags: they are asked for.
    fn from_flags(flags: Self::Flags, ask: &Ask<'_>) -> anyhow::Result<Self>;

    /// The secrets, each with its place in the settings, as `login.password`. They are never shown; one that a change
    /// leaves out is that of before, where [`Self::keeps`] says so, and missing otherwise.
    fn secrets(&mut self) -> Vec<(&'static str, &mut Option<SecretString>)> {
        vec![]
    }

    /// Whether the secret at this place of `before` is the one that goes with these settings. It goes where it went
    /// before, and nowhere else: who may change settings need not know it.
    fn keeps(&self, _secret: &str, _before: &Self) -> bool {
        false
    }

    /// As they are stored, secrets in plain: to be sealed.
    fn stored(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    /// Whether both lead to the same place by the same address. Others may do so all the same.
    fn meets(&self, other: &Self) -> bool;

    /// Whether guests of `before` may not be found any more with these.
    fn moved(&self, before: &Self) -> bool;

    /// The ways over SSH that the settings allow; none where hosts of this kind are never signed in to, and have no
    /// management key.
    fn ways(&self) -> Option<Ways> {
        None
    }

    /// What the provider can do about a host that can't be used.
    fn hint(&self, _error: &hypervisor::Error) -> Option<String> {
        None
    }

    /// What the command line shows beside a complaint that rights are lacking, for what a look found: a line each.
    fn advice(&self, _found: Option<&HostInfo>) -> Vec<String> {
        vec![]
    }

    /// A driver, with a way into guests where the host itself has none; nothing is sent yet.
    fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>>;

    /// Settings that have everything, as a request gives them; each secret is `s3cret`.
    #[cfg(test)]
    fn example() -> Value;
}

/// Schemas of the OpenAPI document by their names.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// A kind of host whose type is forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registered {
    pub name: &'static str,
    about: &'static str,
    /// Reads and checks what a request gives as `config`.
    pub read: fn(Value) -> Result<HostSettings>,
    /// Reads what was stored or shown.
    pub parse: fn(Value) -> serde_json::Result<HostSettings>,
    pub schema_name: fn() -> Cow<'static, str>,
    /// Adds the schema of its settings, and those that are used in it.
    pub schemas: fn(&mut Schemas),
    flags: fn(Command) -> Command,
    from_flags: fn(&ArgMatches, &Ask<'_>) -> anyhow::Result<HostSettings>,
    #[cfg(test)]
    example: fn() -> Value,
}

impl Registered {
    const fn of<K: HostKind>() -> Self {
        Self {
            name: K::NAME,
            about: K::ABOUT,
            read: |given| read::<K>("config", given).map(HostSettings::of),
            parse: |stored| serde_json::from_value::<K>(stored).map(HostSettings::of),
            schema_name: K::name,
            schemas: |schemas| {
                schemas.push((K::name().into_owned(), K::schema()));
                K::schemas(schemas);
            },
            flags: K::Flags::augment_args,
            from_flags: |matches, ask| K::from_flags(K::Flags::from_arg_matches(matches)?, ask).map(HostSettings::of),
            #[cfg(test)]
            example: K::example,
        }
    }
}

/// Every kind that there is a driver for.
pub(super) fn all() -> Vec<Registered> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(added.iter()).copied().collect()
}

/// Adds a kind that is not built in, before anything else is done. Once is enough.
pub fn register<K: HostKind>() {
    if all().iter().all(|kind| kind.name != K::NAME) {
        ADDED.write().unwrap_or_else(PoisonError::into_inner).push(Registered::of::<K>());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::secrets::Sealer;

    fn names_of_secrets(value: &Value, at: &str, names: &mut HashSet<String>) {
        match value {
            Value::String(text) if text == "s3cret" => {
                names.insert(at.to_owned());
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    names_of_secrets(value, &at, names);
                }
            }
            _ => {}
        }
    }

    /// All that registering a kind promises.
    #[test]
    fn every_kind_is_read_sealed_opened_and_shown_without_its_secrets() {
        let sealer = Sealer::new(&"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".into(), &[]).unwrap();
        for kind in all() {
            let (name, example) = (kind.name, (kind.example)());
            let settings = (kind.read)(example.clone()).unwrap();
            assert_eq!(settings.kind().as_str(), name);
            assert_eq!(serde_json::to_value(&settings).unwrap(), example, "{name}: the example has everything");
            assert!(!format!("{settings:?}").contains("s3cret"), "{name}");

            let kept = sealer.seal("host", &settings.to_stored().unwrap()).unwrap();
            let opened = HostSettings::from_stored(settings.kind(), &sealer.open("host", &kept).unwrap()).unwrap();
            assert_eq!(serde_json::to_value(&opened).unwrap(), example, "{name}");
            assert!(opened.meets(&settings) && !opened.moved(&settings), "{name}");

            let shown = serde_json::to_string(&settings.clone().shown()).unwrap();
            assert!(!shown.contains("s3cret"), "{shown}");
            let again: HostSettings = serde_json::from_str(&shown).unwrap();
            assert_eq!((again.kind().as_str(), serde_json::to_string(&again).unwrap()), (name, shown));
            let mut secrets = HashSet::new();
            names_of_secrets(&example, "", &mut secrets);
            let mut change = settings.clone().shown();
            if let Err(error) = change.complete(None) {
                let fields = error.details.unwrap()["fields"].clone();
                let field = fields.as_object().unwrap().keys().next().unwrap().clone();
                assert!(secrets.contains(field.trim_start_matches("config.")), "{name}: {field}");
            } else {
                assert_eq!(secrets, HashSet::new(), "{name}: all secrets are named");
            }
            change.complete(Some(&settings)).unwrap();
            assert_eq!(serde_json::to_value(&change).unwrap(), example, "{name}: secrets stay where they belong");
        }
    }

    #[test]
    fn settings_of_one_kind_are_those_of_no_other() {
        let all = all();
        for one in &all {
            for other in all.iter().filter(|other| other.name != one.name) {
                assert!((other.parse)((one.example)()).is_err(), "{} is {}", one.name, other.name);
                let (one, other) = ((one.read)((one.example)()).unwrap(), (other.read)((other.example)()).unwrap());
                assert!(!one.meets(&other) && one.moved(&other));
                let mut change = one.clone().shown();
                assert_eq!(change.complete(Some(&other)).is_err(), change.complete(None).is_err());
            }
        }
    }

    #[test]
    fn a_name_is_that_of_a_kind_or_is_refused_as_it_always_was() {
        let read = |json: &str| serde_json::from_str::<KindName>(json);
        for kind in all() {
            let kind = read(&format!("{:?}", kind.name)).unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for no_kind in ["\"unknown\"", "\"Incus\"", "\"\""] {
            let error = read(no_kind).unwrap_err().to_string();
            assert!(error.starts_with("unknown variant `") && error.contains("`, expected `incus` or `"), "{error}");
        }
        assert!(read("5").unwrap_err().is_syntax());
    }
}
