//! Host kinds. Everything specific to a kind is in its own file here: to add one, write a file with its settings, which
//! implement [`HostKind`], and add a line to `BUILT_IN`.

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
use hypervisor::ssh::SshRoutes;
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
use kernel::error::Result;
use kernel::http::extract::read;

use self::proxmox::ProxmoxSettings;
use super::settings::HostSettings;

/// The built-in kinds. The first is the default of `innkeeper host add`.
const BUILT_IN: &[Registered] = &[Registered::of::<IncusSettings>(), Registered::of::<ProxmoxSettings>()];

/// Kinds added at run time.
static ADDED: RwLock<Vec<Registered>> = RwLock::new(Vec::new());

/// Asks the user for the secret with this description.
pub type Ask<'a> = dyn Fn(&str) -> anyhow::Result<SecretString> + 'a;

/// A kind of host, implemented by its settings: how such a host is reached, and where on it our guests go. The derives
/// parse and validate them; they are stored sealed. Secrets must be `SecretString`s, which `Debug` does not print.
pub trait HostKind:
    Clone + Debug + Serialize + DeserializeOwned + Validate<Context = ()> + ToSchema + Send + Sync + 'static
{
    /// Its name in requests, in the database and on the command line.
    const NAME: &'static str;
    /// What it is, for the help of `--kind`.
    const ABOUT: &'static str;
    /// A noun for a host of this kind, for messages.
    const NOUN: &'static str;

    /// Its flags of `innkeeper host add`. Kinds share a flag of the same name, so it must have the same type in each.
    type Flags: Args;

    /// Settings from flags. Secrets are not flags: `ask` supplies them.
    fn from_flags(flags: Self::Flags, ask: &Ask<'_>) -> anyhow::Result<Self>;

    /// The secrets, each with its path in the settings, such as `login.password`. They are never shown. A secret that a
    /// change leaves out keeps its previous value if [`Self::keeps`] allows it, and is reported as missing otherwise.
    fn secrets(&mut self) -> Vec<(&'static str, &mut Option<SecretString>)> {
        vec![]
    }

    /// Whether the secret at this path of `before` may be used with these settings. It must not be sent anywhere new:
    /// whoever may change settings does not necessarily know it.
    fn keeps(&self, _secret: &str, _before: &Self) -> bool {
        false
    }

    /// The settings as they are stored, secrets in plain: the caller seals them.
    fn stored(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    /// Whether both lead to the same host by the same address. Different addresses may still lead to one host.
    fn meets(&self, other: &Self) -> bool;

    /// Whether guests found with `before` might no longer be found with these.
    fn moved(&self, before: &Self) -> bool;

    /// The SSH access that the settings allow; `None` if hosts of this kind never use SSH and have no management key.
    fn ways(&self) -> Option<SshRoutes> {
        None
    }

    /// What the provider can do about a host that can't be used.
    fn hint(&self, _error: &hypervisor::Error) -> Option<String> {
        None
    }

    /// Lines that the command line prints after a message about missing permissions, given what a check found.
    fn advice(&self, _found: Option<&HostInfo>) -> Vec<String> {
        vec![]
    }

    /// A driver, which runs commands in guests through `shell` if the host itself can't. Nothing is sent yet.
    fn connect(&self, shell: Option<Arc<dyn GuestShell>>) -> hypervisor::Result<Arc<dyn Driver>>;

    /// A request's settings with every field set; each secret is `s3cret`.
    #[cfg(test)]
    fn example() -> Value;
}

/// Named schemas of the OpenAPI document.
pub(super) type Schemas = Vec<(String, RefOr<Schema>)>;

/// A host kind with its type erased.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registered {
    pub name: &'static str,
    about: &'static str,
    /// Parses and validates `config` of a request.
    pub read: fn(Value) -> Result<HostSettings>,
    /// Parses stored or shown settings.
    pub parse: fn(Value) -> serde_json::Result<HostSettings>,
    pub schema_name: fn() -> Cow<'static, str>,
    /// Adds the schema of its settings and those it refers to.
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

/// Every registered kind.
pub(super) fn all() -> Vec<Registered> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(added.iter()).copied().collect()
}

/// Registers a kind that is not built in. To be called at start-up; a second call has no effect.
pub fn register<K: HostKind>() {
    if all().iter().all(|kind| kind.name != K::NAME) {
        ADDED.write().unwrap_or_else(PoisonError::into_inner).push(Registered::of::<K>());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use kernel::secrets::Sealer;

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

    /// The guarantees that every registered kind must keep.
    #[test]
    fn settings_of_every_kind_survive_sealing_and_are_shown_without_secrets() {
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
    fn settings_of_one_kind_are_not_valid_for_another() {
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
    fn only_names_of_registered_kinds_are_accepted() {
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
