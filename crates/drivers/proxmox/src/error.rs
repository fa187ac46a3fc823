//! What Proxmox VE's errors mean. Nearly all are 400 (parameters) or 500 (something died): only their text tells them
//! apart, in answers and in tasks' exit statuses alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hypervisor::{Error, Result};
use serde::Deserialize;

/// The body of a refusal. Up to version 8.3 the text is only in the reason phrase.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorReply {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<BTreeMap<String, String>>,
}

/// The text of a refusal, on one line.
pub(crate) fn words(body: Option<&ErrorReply>, reason: Option<&str>, status: u16) -> String {
    let message = body.and_then(|b| b.message.as_deref()).map(str::trim).filter(|m| !m.is_empty());
    let mut text = message.or(reason).unwrap_or_default().trim().replace('\n', " ");
    for (field, error) in body.and_then(|b| b.errors.as_ref()).into_iter().flatten() {
        let _ = write!(text, " {field}: {}", error.trim());
    }
    if text.is_empty() { format!("HTTP {status}") } else { text }
}

pub(crate) fn refusal(status: u16, text: String, mutates: bool) -> Error {
    match status {
        // The node that we asked could not reach the one that should act, or lost the connection to it.
        502..=504 | 595..=599 if mutates => Error::OutcomeUnknown(format!("{text} (HTTP {status})")),
        502..=504 | 595..=599 => Error::Unreachable(format!("{text} (HTTP {status})")),
        401 => Error::Unauthorized(text),
        403 => Error::Forbidden(text),
        400 | 500 => classify(&text).unwrap_or(match status {
            400 => Error::Invalid(text),
            _ => Error::Failed(text),
        }),
        501 => Error::Unsupported(text),
        _ => Error::Failed(format!("{text} (HTTP {status})")),
    }
}

/// Maps a failed task's exit status.
pub(crate) fn failure(text: &str) -> Error {
    classify(text).unwrap_or_else(|| Error::Failed(text.to_owned()))
}

/// Maps a failed task's exit status, with the last lines of its log.
pub(crate) fn failure_with(text: &str, log: &str) -> Error {
    match failure(text).with_detail(log) {
        Error::Failed(words) | Error::Exhausted(words) if in_the_guest(&words) => Error::DiskFull(words),
        error => error,
    }
}

/// Whether a task found a container's own file system full: the node writes into it before each start.
fn in_the_guest(words: &str) -> bool {
    let lower = words.to_lowercase();
    let full = lower.contains("no space left on device") || lower.contains("disk quota exceeded");
    full && (lower.contains("error in setup task") || lower.contains("/rootfs/"))
}

/// Whether a guest's configuration is not on the node that was asked. No evidence of absence: it may be on another
/// node.
pub(crate) fn no_config(error: &Error) -> bool {
    matches!(error, Error::NotFound(text) if text.contains("onfiguration file"))
}

/// `Ok(None)` where [`no_config`].
pub(crate) fn unless_no_config<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if no_config(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error is about a lock in a guest's configuration, which may outlive its task, rather than one that a
/// running task holds.
pub(crate) fn config_lock(error: &Error) -> bool {
    matches!(error, Error::Locked(text) if text.to_lowercase().contains("is locked ("))
}

/// Texts, and the error that they mean.
type MessageRule = (&'static [&'static str], fn(String) -> Error);

/// The first match counts.
#[rustfmt::skip]
const MEANINGS: &[MessageRule] = &[
    // Nothing was done, and the guest is fine.
    (&["no quorum"], Error::Unreachable),
    (&["is locked (", "can't lock file", "got lock request timeout", "got lock timeout", "cfs-lock",
       "lock request timed out", "file changed by other user", "file change by other user"], Error::Locked),
    (&["no space left", "not enough space", "out of space", "quota exceeded", "insufficient free space",
       "no free space", "cannot allocate memory", "out of memory", "out of disk space", "is full"], Error::Exhausted),
    (&["permission check failed", "only root can", "is only allowed for root"], Error::Forbidden),
    (&["protection mode enabled"], Error::Protected),
    (&["snapshot feature is not available", "linked clone feature", "clone feature is not available",
       "not supported with", "is not supported for", "is not most recent snapshot",
       "no qemu guest agent configured"], Error::Unsupported),
    (&["unable to shrink disk", "shrinking disks is not supported", "does not support container directories",
       "does not support vm images", "unable to parse", "ssh public key"], Error::Invalid),
    (&["already exists", "already used", "already in use"], Error::AlreadyExists),
    (&["already running", "not running", "is running", "used in ha resources",
       "quit/powerdown failed", "if it's a template"], Error::Conflict),
    (&["does not exist", "no such", "no options specified", "unable to find", "is not available on node"],
       Error::NotFound),
];

fn classify(text: &str) -> Option<Error> {
    let lower = text.to_lowercase();
    // The machine may well run: this says nothing about its state.
    if lower.contains("guest agent is not running") {
        return Some(Error::Unsupported(text.to_owned()));
    }
    // The agent has stopped answering: that is up to the machine's owner.
    if lower.contains("qga command") && lower.contains("timeout") {
        return Some(Error::GuestHung(text.to_owned()));
    }
    let (_, meaning) = MEANINGS.iter().find(|(needles, _)| needles.iter().any(|needle| lower.contains(needle)))?;
    Some(meaning(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five_hundred(text: &str) -> Error {
        refusal(500, text.to_owned(), true)
    }

    #[test]
    fn the_words_of_a_500_tell_what_it_means() {
        for (text, right) in [
            ("CT is locked (backup)", "Locked"),
            ("can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout", "Locked"),
            ("can't lock file '/var/lock/pve-manager/pve-storage-x' - got timeout", "Locked"),
            ("cfs-lock 'file-user_cfg' error: got lock request timeout", "Locked"),
            ("detected modified configuration - file changed by other user? Try again.", "Locked"),
            ("cluster not ready - no quorum?", "Unreachable"),
            ("CT 100 already exists on node 'pve1'", "AlreadyExists"),
            ("unable to create CT 120 - CT 120 already exists on node 'pve1'", "AlreadyExists"),
            ("snapshot name 's1' already used", "AlreadyExists"),
            ("snapshot 'nosuch' does not exist", "NotFound"),
            ("storage 'a' is not available on node 'pve1'", "NotFound"),
            ("snapshot feature is not available", "Unsupported"),
            ("unable to shrink disk size", "Invalid"),
            ("shrinking disks is not supported", "Invalid"),
            ("CT 100 not running", "Conflict"),
            ("CT 100 already running", "Conflict"),
            ("unable to destroy CT 100 - container is running", "Conflict"),
            ("QEMU guest agent is not running", "Unsupported"),
            ("unable to write to storage 'a': No space left on device", "Exhausted"),
            ("Configuration file 'nodes/pve1/lxc/999.conf' does not exist", "NotFound"),
            ("Permission check failed (/vms/2101, VM.Config.Options)", "Forbidden"),
            ("can't remove CT 2103 - protection mode enabled", "Protected"),
            ("something else died", "Failed"),
        ] {
            let error = five_hundred(text);
            assert!(format!("{error:?}").starts_with(right), "{text}: {error:?}");
            assert_eq!(failure(text), error);
        }
        let full = failure_with(
            "startup for container '7' failed",
            "unable to open file '/fastboot.tmp.1' - Disk quota exceeded\n\
             error in setup task PVE::LXC::Setup::pre_start_hook",
        );
        assert!(matches!(full, Error::DiskFull(_)), "{full:?}");
        assert!(matches!(failure_with("out of space", "no space left on device"), Error::Exhausted(_)));
        assert!(no_config(&five_hundred("Configuration file 'nodes/pve1/lxc/999.conf' does not exist")));
        assert!(!no_config(&five_hundred("storage 'nostore' does not exist")));
        assert!(config_lock(&five_hundred("VM is locked (snapshot-delete)")));
        assert!(!config_lock(&five_hundred("can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout")));
    }

    #[test]
    fn pseudo_statuses_leave_a_mutation_s_outcome_open() {
        for status in [595, 596, 597, 599, 502, 504] {
            assert!(matches!(refusal(status, String::new(), true), Error::OutcomeUnknown(_)));
            assert!(matches!(refusal(status, String::new(), false), Error::Unreachable(_)));
        }
        assert!(matches!(refusal(401, "No ticket".to_owned(), true), Error::Unauthorized(_)));
        assert!(matches!(refusal(403, "Permission check failed".to_owned(), true), Error::Forbidden(_)));
        assert!(matches!(refusal(501, String::new(), true), Error::Unsupported(_)));
    }

    #[test]
    fn words_come_from_the_body_then_from_the_reason() {
        let body: ErrorReply = serde_json::from_str(
            r#"{"data":null,"message":"Parameter verification failed.\n","errors":{"vmid":"VM 100 already exists"}}"#,
        )
        .unwrap();
        let text = words(Some(&body), Some("Parameter verification failed."), 400);
        assert_eq!(text, "Parameter verification failed. vmid: VM 100 already exists");
        assert!(matches!(refusal(400, text, false), Error::AlreadyExists(_)));
        // Versions before 8.4 return `{"data":null}` and put the message into the reason phrase.
        let old: ErrorReply = serde_json::from_str(r#"{"data":null}"#).unwrap();
        assert_eq!(words(Some(&old), Some("CT is locked (backup)"), 500), "CT is locked (backup)");
        assert_eq!(words(None, None, 599), "HTTP 599");
    }
}
