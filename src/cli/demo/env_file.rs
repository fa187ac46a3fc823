//! A file of `KEY=value` lines that shells can source and other programs can parse, readable only by its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Removes the file, if there is one.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes the file atomically.
pub(super) fn write(path: &Path, values: &[(String, String)]) -> anyhow::Result<()> {
    let text = lines(values)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("creating the folder {}", folder.display()))?;
    let new = beside(path)?;
    let written = write_new(&new, &text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("writing {}", path.display()))?;
    // A file system that can't sync a folder still has the new name, unless the power fails.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn beside(path: &Path) -> anyhow::Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} is not a file name", path.display()))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}.new", std::process::id()));
    Ok(path.with_file_name(new))
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Only values without special characters: nothing needs quoting, so no program can parse them differently.
fn lines(values: &[(String, String)]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (key, value) in values {
        let safe = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-[]".contains(c);
        anyhow::ensure!(value.chars().all(safe), "cannot write {key}: {value:?} has special characters of the shell");
        text.extend([key, "=", value, "\n"]);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn values(value: &str) -> Vec<(String, String)> {
        vec![("KEY".to_owned(), value.to_owned())]
    }

    #[test]
    fn the_file_is_whole_and_for_its_owner_alone() {
        let folder = std::env::temp_dir().join(format!("innkeeper-demo-{}", std::process::id()));
        let path = folder.join("data/demo.env");
        write(&path, &values("first")).unwrap();
        write(&path, &values("abc-DEF_1@x.example")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "KEY=abc-DEF_1@x.example\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.join("data")).unwrap().count(), 1, "no temporary file is left");
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_refused() {
        for bad in ["a b", "$(x)", "a'b", "a\"b", "a;b", "a\nb", "a#b", "`x`", "a\\b", "a&b", "*"] {
            assert!(lines(&values(bad)).is_err(), "{bad:?}");
        }
        assert!(lines(&values("http://[::1]:5000")).is_ok());
    }
}
