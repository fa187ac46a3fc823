//! What every driver refuses before a host hears of it: text that could become a second line, or a second argument,
//! somewhere.

use secrecy::{ExposeSecret, SecretString};

use crate::{Error, GuestKind, GuestSpec, Limits, Result};

/// Refuses text with control characters.
pub fn line(what: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("the {what} holds a control character")));
    }
    Ok(())
}

/// Refuses a spec whose texts can't go into a guest's files.
pub fn texts(spec: &GuestSpec) -> Result<()> {
    line("hostname", &spec.hostname)?;
    let host_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    // Linux has no longer ones.
    if spec.hostname.is_empty() || spec.hostname.len() > 64 || !spec.hostname.chars().all(host_ok) {
        return Err(Error::Invalid(format!("{:?} is no host name", spec.hostname)));
    }
    spec.ssh_keys.iter().try_for_each(|key| line("key", key))
}

/// The size of a guest to be made: cores, MiB and GiB, all of them given and more than nothing.
pub fn size(limits: &Limits) -> Result<(u32, u64, u64)> {
    let (Some(cores), Some(memory), Some(disk)) = (limits.cores, limits.memory_mib, limits.disk_gib) else {
        return Err(Error::Invalid("cores, memory and disk must all be given".to_owned()));
    };
    if cores == 0 || memory == 0 || disk == 0 {
        return Err(Error::Invalid("cores, memory and disk must be more than nothing".to_owned()));
    }
    Ok((cores, memory, disk))
}

/// Memory in use, where that can be: a machine that uses all it has or more is one whose host looks from outside.
pub fn memory_used(kind: GuestKind, used: u64, max: Option<u64>) -> Option<u64> {
    let Some(max) = max.filter(|max| *max > 0) else { return Some(used) };
    (used < max || (used == max && kind == GuestKind::Lxc)).then_some(used)
}

/// Refuses what `chpasswd` would misread: it reads lines, and ends its fields at a colon only once.
pub fn password(password: &SecretString) -> Result<()> {
    let plain = password.expose_secret();
    if plain.is_empty() || plain.chars().any(char::is_control) {
        return Err(Error::Invalid("a password must not be empty or hold control characters".to_owned()));
    }
    Ok(())
}

/// Refuses an argument vector that is none.
pub fn command(argv: &[&str]) -> Result<()> {
    if argv.first().is_none_or(|program| program.is_empty()) || argv.iter().any(|a| a.contains('\0')) {
        return Err(Error::Invalid("an empty command".to_owned()));
    }
    Ok(())
}
