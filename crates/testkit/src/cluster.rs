//! A PostgreSQL cluster of a test's own: one that archives its WAL and is recovered to a point in time, or one whose
//! disk the test fills.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;

use crate::db::run;
use crate::{ROOT, wait_for};

/// A cluster, removed with the test.
pub struct Cluster {
    folder: TempDir,
    /// The URL of a database in it.
    pub url: String,
}

impl Cluster {
    async fn within(folder: io::Result<TempDir>) -> Self {
        let folder = folder.expect("a folder");
        // Root's cluster belongs to another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
        let mut cluster = Self { folder, url: String::new() };
        cluster.url = cluster.script("start").await;
        cluster
    }

    /// On a file system of its own of some 256 MiB, in memory, that the test may fill. One test at a time.
    pub async fn on_small_disk() -> Self {
        let disk = std::env::var_os("INNKEEPER_TEST_SMALL_DISK")
            .expect("INNKEEPER_TEST_SMALL_DISK is a disk that a test may fill; `make test` makes one");
        Self::within(TempDir::new_in(disk)).await
    }

    /// Takes all the room that the disk has left.
    pub fn fill_disk(&self) {
        let mut ballast = File::create(self.path("ballast")).expect("a file beside the cluster");
        for size in [1 << 20, 1 << 12] {
            let full = loop {
                if let Err(full) = ballast.write_all(&vec![0; size]) {
                    break full;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it back.
    pub fn free_disk(&self) {
        fs::remove_file(self.path("ballast")).expect("the disk has been filled");
    }

    /// On a full disk: fills the WAL that there is, until the server ends because it can't have more.
    pub async fn exhaust_wal(&self) {
        let next = "select pg_switch_wal() from pg_logical_emit_message(false, 'test', 'no segment is empty')";
        wait_for("the end of the server", async || match PgConnection::connect(&self.url).await {
            Err(sqlx::Error::Io(_)) => Ok(()),
            Err(error) => Err(format!("it restarts: {error}")),
            Ok(mut db) => Err(format!("{:?}", db.execute(next).await)),
        })
        .await;
    }

    /// With a WAL archive.
    pub async fn with_archive() -> Self {
        let cluster = Self::within(tempfile::tempdir()).await;
        for name in ["archive", "backups"] {
            let path = cluster.path(name);
            fs::create_dir(&path).expect("a new folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a folder of ours");
        }
        let archive = cluster.path("archive");
        let archive = archive.display();
        for sql in [
            "alter system set archive_mode = on".to_owned(),
            format!("alter system set archive_command = 'test ! -f {archive}/%f && cp %p {archive}/%f'"),
            format!("alter system set restore_command = 'cp {archive}/%f %p'"),
        ] {
            cluster.admin().await.execute(AssertSqlSafe(sql)).await.expect("a setting");
        }
        cluster.stop().await;
        cluster.start().await;
        cluster
    }

    /// What `make run` and `make test` start theirs with.
    async fn script(&self, action: &str) -> String {
        let script = Path::new(ROOT).join("scripts/postgres.sh");
        run(Command::new(script).arg(action).arg(self.folder.path())).await
    }

    pub async fn start(&self) {
        assert_eq!(self.script("start").await, self.url, "nobody has taken its port");
    }

    pub async fn stop(&self) {
        self.script("stop").await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn admin(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the cluster answers")
    }

    /// Makes a base backup.
    pub async fn back_up(&self) {
        // As the cluster's user, to whom the files must belong.
        let as_owner: &[&str] = match rustix::process::geteuid().is_root() {
            true => &["runuser", "-u", "postgres", "--"],
            false => &["env"],
        };
        let mut command = Command::new(as_owner[0]);
        command.args(&as_owner[1..]).args(["pg_basebackup", "--checkpoint=fast", "-d", &self.url, "-D"]);
        run(command.arg(self.path("backups/base")).current_dir("/")).await;
    }

    /// The time of the cluster's clock.
    pub async fn now(&self) -> String {
        sqlx::query_scalar("select clock_timestamp()::text").fetch_one(&mut self.admin().await).await.expect("the time")
    }

    /// Waits until everything that has been written is in the archive.
    pub async fn archived(&self) {
        let mut db = self.admin().await;
        let last: String = sqlx::query_scalar("select pg_walfile_name(pg_switch_wal())")
            .fetch_one(&mut db)
            .await
            .expect("the last segment");
        wait_for("the last segment in the archive", async || {
            let found: Vec<_> = fs::read_dir(self.path("archive")).expect("the archive").flatten().collect();
            let found: Vec<_> = found.into_iter().map(|entry| entry.file_name()).collect();
            if found.iter().any(|name| *name == *last) { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Replaces the cluster, which has been stopped, with the base backup and what the archive has of the time up to
    /// this, as docs/backup.md has it.
    pub async fn recover_to(&self, time: &str) {
        let data = self.path("cluster");
        fs::rename(&data, self.path("lost")).expect("the lost cluster is put aside");
        fs::rename(self.path("backups/base"), &data).expect("the backup in its place");
        fs::write(data.join("recovery.signal"), "").expect("a file in the cluster");
        let settings = data.join("postgresql.auto.conf");
        let target = format!("recovery_target_time = '{time}'\nrecovery_target_action = 'promote'\n");
        let before = fs::read_to_string(&settings).expect("the settings");
        fs::write(&settings, before + &target).expect("the cluster's settings");
        self.start().await;
        wait_for("the end of the recovery", async || {
            let recovers: bool = sqlx::query_scalar("select pg_is_in_recovery()")
                .fetch_one(&mut self.admin().await)
                .await
                .expect("the cluster answers");
            if recovers { Err("it recovers") } else { Ok(()) }
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let script = Path::new(ROOT).join("scripts/postgres.sh");
        let removed =
            std::process::Command::new(script).arg("remove").arg(self.folder.path()).stdin(Stdio::null()).status();
        if !removed.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("the cluster was not removed: {removed:?}");
        }
    }
}
