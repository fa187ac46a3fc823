//! Our marker: the word `innkeeper-<number>-<uuid>` among a guest's tags and in its description.
//!
//! A sweep of the whole cluster shows tags; the description survives where tags don't (a roll-back, and the first
//! moments of a clone). The number is part of the word because a person's clone of one of our guests keeps both
//! texts: with its other number it is not ours.

use hypervisor::{GuestKind, GuestRef};
use uuid::Uuid;

const PREFIX: &str = "innkeeper-";
/// The description's line in a machine that is still being made.
const MAKING: &str = "innkeeper-making";
/// Begins the description's line with what a roll-back must not change.
const KEEP: &str = "innkeeper-keep ";

pub(crate) fn word(guest: &GuestRef) -> String {
    format!("{PREFIX}{}-{}", guest.vmid, guest.marker)
}

/// The server's uuid, if `text` (tags or a description) has our word with this number.
pub(crate) fn find(text: &str, vmid: i64) -> Option<Uuid> {
    let prefix = format!("{PREFIX}{vmid}-");
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').find_map(|word| {
        let word = word.to_ascii_lowercase();
        word.strip_prefix(&prefix).and_then(|uuid| Uuid::parse_str(uuid).ok())
    })
}

/// The present tags with our word, sorted as Proxmox VE sorts them.
pub(crate) fn tags(present: &str, guest: &GuestRef) -> String {
    let mut tags: Vec<String> = present.split([';', ',', ' ']).map(str::to_ascii_lowercase).collect();
    tags.retain(|tag| !tag.is_empty() && !tag.starts_with(PREFIX));
    tags.push(word(guest));
    tags.sort_unstable();
    tags.dedup();
    tags.join(";")
}

/// The same, but unchanged if our word is among them.
pub(crate) fn tags_with(present: &str, guest: &GuestRef) -> String {
    if find(present, guest.vmid).is_some() { present.to_owned() } else { tags(present, guest) }
}

pub(crate) fn description(guest: &GuestRef) -> String {
    let what = if guest.kind == GuestKind::Lxc { "container" } else { "machine" };
    format!("This {what} belongs to a server of Innkeeper ({}). Change it there.", word(guest))
}

/// The description of a guest whose creation takes several tasks, until the last has ended.
pub(crate) fn making(guest: &GuestRef) -> String {
    format!("{}\n{MAKING}", description(guest))
}

pub(crate) fn is_making(description: &str) -> bool {
    description.lines().any(|line| line == MAKING)
}

/// What a roll-back saved in the description.
pub(crate) fn kept(description: &str) -> Option<&str> {
    description.lines().find_map(|line| line.strip_prefix(KEEP))
}

/// The description with `keep`, or without. All other lines, which others may have written, stay exactly as they are.
pub(crate) fn with_kept(description: &str, keep: Option<&str>) -> String {
    let mut lines: Vec<&str> = description.split('\n').filter(|line| !line.starts_with(KEEP)).collect();
    let line = keep.map(|keep| format!("{KEEP}{keep}"));
    lines.extend(line.as_deref());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> GuestRef {
        GuestRef { marker: Uuid::new_v4(), vmid: 500, kind: GuestKind::Lxc, node: String::new() }
    }

    #[test]
    fn the_marker_is_found_and_no_other() {
        let guest = guest();
        for text in [tags("web;Zoo", &guest), description(&guest), format!("x\n{}\ny", word(&guest)).to_uppercase()] {
            assert_eq!(find(&text, 500), Some(guest.marker), "{text}");
            assert_eq!(find(&text, 50), None, "a clone is not ours");
        }
        assert_eq!(find(&making(&guest), 500), Some(guest.marker));
        assert!(is_making(&making(&guest)) && !is_making(&description(&guest)));
        assert_eq!(find("innkeeper-500-nonsense", 500), None);
        assert_eq!(tags(&tags("zoo web", &guest), &guest), format!("{};web;zoo", word(&guest)));
    }

    #[test]
    fn what_is_kept_goes_in_and_out_of_a_description() {
        let text = description(&guest());
        let with = with_kept(&text, Some("{\"a\":1}"));
        assert_eq!(kept(&with), Some("{\"a\":1}"));
        assert_eq!(kept(&with_kept(&with, Some("{}"))), Some("{}"));
        assert_eq!(kept(&text), None);
        assert_eq!(with_kept(&with, None), text);
        // Users' notes are preserved, including blank lines and foreign line endings.
        for notes in ["", "a\r\nb\r", "\n\n a \n\n", "x"] {
            assert_eq!(with_kept(&with_kept(notes, Some("{}")), None), notes, "{notes:?}");
        }
    }
}
