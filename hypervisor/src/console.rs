//! A guest's console while it is open: bytes both ways, whatever the host's own protocol.

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

/// An open console. Dropping it closes it on the host.
#[derive(Debug)]
pub struct Console {
    /// What the bytes are.
    pub kind: ConsoleKind,
    /// What the guest sends; its end is the console's end.
    pub output: mpsc::Receiver<Bytes>,
    /// What goes to the guest. A full channel means that the guest is slow: wait for it.
    pub input: mpsc::Sender<ConsoleInput>,
}

/// What a console's bytes are.
#[derive(Debug, Clone)]
pub enum ConsoleKind {
    /// A terminal: what a program prints, and what is typed.
    Text,
    /// A screen: the RFB protocol (VNC) from its first byte on.
    Screen {
        /// What the RFB server asks for ("VNC authentication"); `None` where it asks for nothing.
        password: Option<SecretString>,
    },
}

/// What a person does at a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleInput {
    /// Bytes for the guest.
    Data(Bytes),
    /// The terminal's new size in characters; a screen has none and ignores it.
    Resize {
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
}

/// The last lines of what a console or a task has said, without what only a terminal understands: colours, cursor
/// movements, lines overwritten.
pub fn last_lines(text: &str) -> String {
    const LINES: usize = 20;
    const WIDTH: usize = 200;
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => plain.push(c),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            }
            c if !c.is_control() => plain.push(c),
            _ => {}
        }
    }
    let mut lines: Vec<String> =
        plain.lines().map(|l| l.trim_end().chars().take(WIDTH).collect()).filter(|l: &String| !l.is_empty()).collect();
    lines.split_off(lines.len().saturating_sub(LINES)).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_plain_text_and_few() {
        assert_eq!(
            last_lines("[\u{1b}[0;1;31mFAILED\u{1b}[0m] to mount\r\n\r\n\u{7}stop\u{1b}"),
            "[FAILED] to mount\nstop"
        );
        assert_eq!(last_lines(""), "");
        let many: String = (0..1000).map(|n| format!("{n}{}", "x".repeat(1000))).collect::<Vec<_>>().join("\n");
        let end = last_lines(&many);
        assert!(end.lines().count() == 20 && end.lines().all(|l| l.len() == 200), "{end}");
        assert!(end.lines().last().is_some_and(|l| l.starts_with("999x")), "{end}");
    }
}
