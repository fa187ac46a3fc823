//! How long a developer waits from an edit to the nearest tests: today, and before the service was split into crates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context;
use tokio::process::Command;

use crate::report::{Report, Row};

/// The last commit with the whole service in one crate.
const BEFORE: &str = "191a096d4a4852c82ed855e80d99ce6ca28e5695";
/// Edits of which the median counts.
const EDITS: u32 = 3;

/// A part of the service, in a tree: the file to edit, its package, its unit tests.
struct Part {
    file: &'static str,
    package: &'static str,
    tests: &'static str,
}

/// Name, today, before.
const PARTS: [(&str, Part, Part); 2] = [
    (
        "edit of the servers' service to its tests run",
        Part { file: "crates/compute/src/servers/service.rs", package: "innkeeper-compute", tests: "servers::" },
        Part { file: "src/servers/service.rs", package: "innkeeper", tests: "servers::" },
    ),
    (
        "edit of a leaf (alerts) to its tests run",
        Part { file: "crates/watch/src/alerts/service.rs", package: "innkeeper-watch", tests: "alerts::" },
        Part { file: "src/alerts/service.rs", package: "innkeeper", tests: "alerts::" },
    ),
];

/// A checkout of its own, with its own build; removed on drop, but for the build.
struct Tree {
    source: PathBuf,
    build: PathBuf,
}

impl Tree {
    async fn check_out(commit: &str, folder: &Path) -> anyhow::Result<Self> {
        let tree = Self { source: folder.join("source"), build: folder.join("build") };
        tree.remove();
        let add = ["worktree", "add", "--quiet", "--detach"];
        run(Command::new("git").args(add).arg(&tree.source).arg(commit)).await?;
        Ok(tree)
    }

    /// Builds and runs a part's unit tests.
    async fn test(&self, part: &Part) -> anyhow::Result<()> {
        let test = ["test", "--quiet", "--locked", "--all-features", "--lib", "--package", part.package];
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.source).env("CARGO_TARGET_DIR", &self.build).env("SQLX_OFFLINE", "true");
        run(cargo.args(test).args(["--", part.tests])).await
    }

    /// Seconds from an edit to the end of the tests, as the median of several.
    async fn edit(&self, part: &Part) -> anyhow::Result<f64> {
        self.test(part).await?;
        let mut times = vec![];
        for number in 0..EDITS {
            let path = self.source.join(part.file);
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).context("opening a file to edit")?;
            writeln!(file, "#[allow(dead_code)]\nfn edited_{number}() -> u32 {{\n    {number}\n}}")?;
            drop(file);
            let start = Instant::now();
            self.test(part).await?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn remove(&self) {
        for arguments in [&["worktree", "remove", "--force"][..], &["worktree", "prune"]] {
            let mut git = std::process::Command::new("git");
            git.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            if arguments[1] == "remove" {
                git.arg(&self.source);
            }
            // Nothing to remove is as good.
            let _ = git.status();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.remove();
    }
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let target = PathBuf::from(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into()));
    let folder = std::path::absolute(target.join("bench-edits"))?;
    let today = Tree::check_out("HEAD", &folder.join("today")).await?;
    let before = Tree::check_out(BEFORE, &folder.join("before")).await.context("this needs the project's history")?;
    for (name, ours, theirs) in &PARTS {
        let (ours, theirs) = (today.edit(ours).await?, before.edit(theirs).await?);
        report.add(Row { aim: Some(0.33), ..Row::cost(name, "s", ours, theirs, "one crate (191a096)") });
    }
    Ok(())
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let out = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&out.stderr);
    anyhow::ensure!(out.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}
