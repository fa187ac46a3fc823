//! SSH sends a command as a single text that the remote shell splits again: this quotes it unambiguously.

use crate::{Error, Result};

/// The text with which a POSIX shell runs exactly this argument vector and is replaced by it.
pub(super) fn command(argv: &[&str]) -> Result<String> {
    // Everything is quoted and `exec` only runs programs, so nothing can be an option, an assignment or a builtin.
    if argv.first().is_none_or(|program| program.is_empty() || program.starts_with('-')) {
        return Err(Error::Invalid("there is no program to run".to_owned()));
    }
    if argv.iter().any(|word| word.contains('\0')) {
        return Err(Error::Invalid("a command can't contain a NUL".to_owned()));
    }
    let words: Vec<String> = argv.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    Ok(format!("exec {}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_exactly_what_was_meant() {
        let hostile = [
            "",
            " ",
            "'",
            "''",
            "\\",
            "\\'",
            "a'b\"c",
            "$(id)",
            "`id`",
            "${HOME}",
            "$",
            "!!",
            "a\nb",
            "\n",
            "\r",
            "\t*?[x]",
            "~",
            "~root",
            "#x",
            "; reboot",
            "&& id",
            "| id",
            "> /tmp/x",
            "-n",
            "--",
            "A=b",
            "{a,b}",
            "é☕",
            "\u{7f}\u{1b}[2J",
            "\\n",
            "'; exec sh; '",
            "'\\''",
            "%s%n",
        ];
        for shell in ["sh", "bash"] {
            let mut argv = vec!["printf", "%s\\0"];
            argv.extend(hostile);
            let output = Command::new(shell).arg("-c").arg(command(&argv).unwrap()).output().unwrap();
            let read = String::from_utf8(output.stdout).unwrap();
            let words: Vec<&str> = read.split_terminator('\0').collect();
            assert_eq!(words, hostile, "{shell}");
        }
    }

    #[test]
    fn quoting_stays_exact_where_it_is_done_twice() {
        // As with `pct exec`: the node's shell removes one layer, and the guest gets a vector rather than a text.
        let inner = command(&["printf", "%s", "$(id)'\"; x"]).unwrap();
        let outer = command(&["sh", "-c", &inner]).unwrap();
        let output = Command::new("sh").arg("-c").arg(outer).output().unwrap();
        assert_eq!(output.stdout, b"$(id)'\"; x");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for bad in [&[][..], &[""], &["-x"], &["a\0b"], &["a", "\0"]] {
            assert!(matches!(command(bad), Err(Error::Invalid(_))), "{bad:?}");
        }
    }
}
