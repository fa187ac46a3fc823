//! Checks that every driver makes before it contacts a host: rejects text that could be taken for another line or
//! another argument.

use secrecy::{ExposeSecret, SecretString};

use crate::{Error, GuestKind, GuestSize, GuestSpec, Result};

/// Rejects text with control characters.
pub fn line(what: &str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::Invalid(format!("the {what} contains a control character")));
    }
    Ok(())
}

/// Rejects a spec whose texts can't be written into a guest's files.
pub fn texts(spec: &GuestSpec) -> Result<()> {
    line("hostname", &spec.hostname)?;
    let host_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    // Linux allows no longer host names.
    if spec.hostname.is_empty() || spec.hostname.len() > 64 || !spec.hostname.chars().all(host_ok) {
        return Err(Error::Invalid(format!("{:?} is not a valid host name", spec.hostname)));
    }
    spec.ssh_keys.iter().try_for_each(|key| line("key", key))
}

/// The size of a new guest (cores, MiB, GiB): all values must be given and positive.
pub fn size(limits: &GuestSize) -> Result<(u32, u64, u64)> {
    let (Some(cores), Some(memory), Some(disk)) = (limits.cores, limits.memory_mib, limits.disk_gib) else {
        return Err(Error::Invalid("cores, memory and disk must all be given".to_owned()));
    };
    if cores == 0 || memory == 0 || disk == 0 {
        return Err(Error::Invalid("cores, memory and disk must be greater than 0".to_owned()));
    }
    Ok((cores, memory, disk))
}

/// Memory in use, if plausible: for a VM that uses all of its memory or more, the host only measures from outside.
pub fn memory_used(kind: GuestKind, used: u64, max: Option<u64>) -> Option<u64> {
    let Some(max) = max.filter(|max| *max > 0) else { return Some(used) };
    (used < max || (used == max && kind == GuestKind::Lxc)).then_some(used)
}

/// Rejects passwords that `chpasswd` would misread. It reads lines, and splits them at the first colon only.
pub fn password(password: &SecretString) -> Result<()> {
    let plain = password.expose_secret();
    if plain.is_empty() || plain.chars().any(char::is_control) {
        return Err(Error::Invalid("a password must not be empty or contain control characters".to_owned()));
    }
    Ok(())
}

/// Rejects an invalid argument vector.
pub fn command(argv: &[&str]) -> Result<()> {
    if argv.first().is_none_or(|program| program.is_empty()) || argv.iter().any(|a| a.contains('\0')) {
        return Err(Error::Invalid("an empty command".to_owned()));
    }
    Ok(())
}
