//! An open console of a guest: bytes in both directions, whatever the host's own protocol.

use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::mpsc;

/// An open console. Dropping it closes it on the host.
#[derive(Debug)]
pub struct Console {
    /// Kind of data that it carries.
    pub kind: ConsoleKind,
    /// Output of the guest; the console has ended when this ends.
    pub output: mpsc::Receiver<Bytes>,
    /// Input for the guest. If the channel is full, the guest is slow: wait.
    pub input: mpsc::Sender<ConsoleInput>,
}

/// Kind of data that a console carries.
#[derive(Debug, Clone)]
pub enum ConsoleKind {
    /// A terminal: program output and keyboard input.
    Text,
    /// A graphical console: the RFB protocol (VNC) from its first byte.
    Screen {
        /// The password that the RFB server asks for ("VNC authentication"); `None` if it asks for none.
        password: Option<SecretString>,
    },
}

/// Input to a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleInput {
    /// Bytes for the guest.
    Data(Bytes),
    /// New size of the terminal in characters; graphical consoles ignore it.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
}

/// The last lines of a console or task log, without terminal control sequences: colours, cursor movements, overwritten
/// lines.
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
