//! A token's privileges: what it has and what it needs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Proxmox;

/// Privileges on guests that all versions need.
const ON_GUESTS: &[&str] = &[
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

impl Proxmox {
    /// What a token needs in a version of Proxmox VE (8 or 9): paths and the privileges on each.
    pub fn privileges(major: u32, storage: &str, pool: Option<&str>) -> Vec<(String, Vec<&'static str>)> {
        // Version 9 renamed the guest agent's.
        let agent: &[&str] =
            if major >= 9 { &["VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"] } else { &["VM.Monitor"] };
        let mut needed = vec![
            ("/".to_owned(), vec!["Sys.Audit"]),
            (
                pool.map_or_else(|| "/vms".to_owned(), |pool| format!("/pool/{pool}")),
                ON_GUESTS.iter().chain(agent).copied().collect(),
            ),
            (format!("/storage/{storage}"), vec!["Datastore.AllocateSpace", "Datastore.Audit"]),
            ("/sdn/zones/localnetwork".to_owned(), vec!["SDN.Use"]),
        ];
        if pool.is_some() {
            // A free number is in no pool, and must be seen to be free.
            needed.push(("/vms".to_owned(), vec!["VM.Audit"]));
        }
        needed
    }
}

/// A token's privileges by path.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Permissions(BTreeMap<String, BTreeMap<String, Value>>);

impl Permissions {
    /// Whether a privilege is held on a path: the nearest listed path above decides. Each privilege has a flag that
    /// says whether it propagates, as it must unless the path is the thing itself.
    fn has(&self, path: &str, privilege: &str) -> bool {
        let mut at = path;
        loop {
            if let Some(held) = self.0.get(at) {
                return held.get(privilege).is_some_and(|flag| is_on(flag) || (at == path && is_single_object(path)));
            }
            match at.rfind('/') {
                _ if at == "/" => return false,
                Some(0) | None => at = "/",
                Some(end) => at = &at[..end],
            }
        }
    }

    /// Whether this very path is listed.
    pub(crate) fn names(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn missing<'a>(&self, path: &str, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|privilege| !self.has(path, privilege)).collect()
    }
}

/// Whether a path is a single object, with nothing below it.
fn is_single_object(path: &str) -> bool {
    let number = path.strip_prefix("/vms/").is_some_and(|number| !number.is_empty());
    number || path.strip_prefix("/storage/").is_some_and(|name| !name.is_empty())
}

fn is_on(flag: &Value) -> bool {
    match flag {
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Bool(flag) => *flag,
        other => other.as_f64() != Some(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(text: &str) -> Permissions {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_nearest_path_decides() {
        let held = permissions(r#"{"/":{"Sys.Audit":1},"/vms":{"VM.Audit":1},"/vms/100":{"VM.Console":1}}"#);
        assert!(held.has("/nodes/a", "Sys.Audit") && held.has("/vms/7", "VM.Audit"));
        assert!(!held.has("/vms/100", "VM.Audit") && !held.has("/vms", "Sys.Audit"));
        assert_eq!(held.missing("/vms", &["VM.Audit", "VM.Clone"]), ["VM.Clone"]);
        assert!(!permissions("{}").has("/", "Sys.Audit"));
    }

    #[test]
    fn a_right_that_is_not_handed_down_is_none_for_what_is_below() {
        let held = permissions(
            r#"{"/":{"Sys.Audit":0},"/vms":{"VM.Audit":0,"VM.Clone":1,"VM.Console":"0"},
                "/storage/s":{"Datastore.Audit":0}}"#,
        );
        assert_eq!(held.missing("/vms", &["VM.Audit", "VM.Clone", "VM.Console"]), ["VM.Audit", "VM.Console"]);
        assert!(!held.has("/vms/100", "VM.Audit") && held.has("/vms/100", "VM.Clone"));
        assert!(!held.has("/", "Sys.Audit") && !held.has("/nodes/a", "Sys.Audit"));
        assert!(held.has("/storage/s", "Datastore.Audit"), "the storage itself is meant");
    }

    #[test]
    fn the_agent_s_privileges_changed_with_9() {
        let all =
            |major| -> Vec<_> { Proxmox::privileges(major, "s", None).into_iter().flat_map(|(_, all)| all).collect() };
        assert!(all(8).contains(&"VM.Monitor") && !all(8).contains(&"VM.GuestAgent.Audit"));
        assert!(!all(9).contains(&"VM.Monitor") && all(9).contains(&"VM.GuestAgent.Unrestricted"));
        assert!(Proxmox::privileges(9, "s", Some("p")).iter().any(|(path, _)| path == "/pool/p"));
    }
}
