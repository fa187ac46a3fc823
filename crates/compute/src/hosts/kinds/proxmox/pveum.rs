//! `innkeeper host pveum`: the commands, to be run as root on a node, that create a user and a token with exactly the
//! permissions that the driver needs.

use clap::Args;
use hypervisor::HostInfo;
use proxmox::Proxmox;

use super::ProxmoxSettings;

/// The scope of the permissions.
#[derive(Debug, Args)]
pub struct PveumCommands {
    /// Major version of the cluster (`pveversion` shows it): 9 renamed some permissions
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(8..=9))]
    version: u32,
    /// User to create; no one can sign in as this user
    #[arg(long, default_value = "innkeeper@pve", value_parser = word)]
    user: String,
    /// Name of the token
    #[arg(long, default_value = "innkeeper", value_parser = word)]
    token: String,
    /// Storage for the guests' root disks
    #[arg(long, default_value = "local-lvm", value_parser = word)]
    storage: String,
    /// Storage for container templates; may be repeated
    #[arg(long, default_value = "local", value_parser = word)]
    templates: Vec<String>,
    /// Resource pool for our guests: permissions on guests are limited to it. VM templates must be in it
    #[arg(long, value_parser = word)]
    pool: Option<String>,
}

/// Only characters that need no quoting, in any shell the lines are pasted into.
fn word(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("must have only letters, digits, dots, hyphens, underscores and @".to_owned()),
    }
}

impl PveumCommands {
    /// The permissions for a host with these settings, for the version and the storages that a check found; none if a
    /// name in the settings would need quoting.
    pub(super) fn of(settings: &ProxmoxSettings, found: Option<&HostInfo>) -> Option<Self> {
        let (user, token) = settings.token_id.split_once('!')?;
        let word = |text: &str| word(text).ok();
        let templates: Vec<_> = found.iter().flat_map(|info| &info.template_storages).filter_map(|s| word(s)).collect();
        Some(Self {
            version: found.map(|info| info.major).filter(|major| (8..=9).contains(major)).unwrap_or(9),
            user: word(user)?,
            token: word(token)?,
            storage: word(&settings.storage)?,
            // If none is visible, that permission may be missing.
            templates: if templates.is_empty() { vec!["local".to_owned()] } else { templates },
            pool: settings.pool.as_deref().and_then(word),
        })
    }

    /// The commands with an introduction, for printing after an error message.
    pub(super) fn advice(&self) -> Vec<String> {
        let mut lines = vec![
            "These commands, run as root on a node, create the user and the token with all privileges needed"
                .to_owned(),
            format!(
                "(version {}; `innkeeper host pveum --help` has more options). Existing ones are corrected:",
                self.version
            ),
        ];
        lines.extend(self.commands().iter().map(|line| format!("  {line}")));
        lines
    }

    /// The commands, one per line.
    pub fn commands(&self) -> Vec<String> {
        let made_once =
            |what: &str, rest: &str| first(&format!("pveum {what} modify {rest}"), &format!("pveum {what} add {rest}"));
        let mut lines = vec![made_once("user", &format!("{} --comment Innkeeper", self.user))];
        lines.extend(self.pool.as_ref().map(|pool| made_once("pool", &format!("{pool} --comment Innkeeper"))));
        let mut needed = Proxmox::privileges(self.version, &self.storage, self.pool.as_deref());
        for storage in self.templates.iter().filter(|storage| **storage != self.storage) {
            needed.push((format!("/storage/{storage}"), vec!["Datastore.Audit"]));
        }
        let mut made = Vec::new();
        for (path, privileges) in needed {
            let role = role(&path, &privileges);
            if !made.contains(&role) {
                lines.push(made_once("role", &format!("{role} --privs {}", privileges.join(","))));
                made.push(role.clone());
            }
            lines.push(format!("pveum acl modify {path} --users {} --roles {role}", self.user));
        }
        // The user has no other permissions, so the token may have all of them. An existing token keeps its secret.
        let token = format!("{} {} --privsep 0", self.user, self.token);
        let add = format!("pveum user token add {token} --output-format json-pretty");
        lines.push(first(&format!("pveum user token modify {token}"), &add));
        lines
    }
}

/// One command, or another if the first one fails: so all of them can be run again, after a change or an upgrade.
fn first(one: &str, other: &str) -> String {
    format!("{one} >/dev/null 2>&1 || {other}")
}

/// A role's name shows its purpose.
fn role(path: &str, privileges: &[&str]) -> String {
    let name = match path.split('/').nth(1).unwrap_or_default() {
        // With a pool: whether a number is taken must be visible everywhere.
        "vms" if privileges == ["VM.Audit"] => "Numbers",
        "vms" | "pool" => "Guests",
        "storage" if privileges == ["Datastore.Audit"] => "Templates",
        "storage" => "Disks",
        "sdn" => "Network",
        _ => "Cluster",
    };
    format!("Innkeeper{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn commands(line: &str) -> Vec<String> {
        let matches = PveumCommands::augment_args(Command::new("pveum").no_binary_name(true))
            .try_get_matches_from(line.split_whitespace())
            .unwrap();
        PveumCommands::from_arg_matches(&matches).unwrap().commands()
    }

    #[test]
    fn every_right_is_given_where_it_is_needed_and_each_role_is_made_once() {
        for (line, agent, guests) in [
            ("", "VM.GuestAgent.Unrestricted", "/vms"),
            ("--version 8 --pool ink --storage ceph", "VM.Monitor", "/pool/ink"),
        ] {
            let lines = commands(line);
            let made: Vec<&str> =
                lines.iter().filter_map(|l| l.split_once("|| pveum role add ")).map(|l| l.1).collect();
            let names: std::collections::HashSet<&str> = made.iter().filter_map(|l| l.split(' ').next()).collect();
            assert_eq!(names.len(), made.len(), "{lines:?}");
            assert!(lines.iter().any(|l| l.contains("InnkeeperGuests --privs") && l.contains(agent)), "{lines:?}");
            let given = format!("pveum acl modify {guests} --users innkeeper@pve --roles InnkeeperGuests");
            assert!(lines.contains(&given), "{lines:?}");
            let pool = if line.contains("ceph") { Some("ink") } else { None };
            let (version, storage) = if pool.is_some() { (8, "ceph") } else { (9, "local-lvm") };
            for (path, privileges) in Proxmox::privileges(version, storage, pool) {
                assert!(lines.iter().any(|l| l.starts_with(&format!("pveum acl modify {path} "))), "{path}");
                assert!(lines.iter().any(|l| privileges.iter().all(|p| l.contains(p))), "{privileges:?}");
            }
            assert!(lines.last().unwrap().contains("|| pveum user token add innkeeper@pve innkeeper --privsep 0"));
        }
    }

    #[test]
    fn what_a_shell_would_read_is_refused() {
        for bad in ["", "a b", "a;b", "$(x)", "`x`", "-x", "a'b", "a|b", "a\nb"] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
    }
}
