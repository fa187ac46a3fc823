//! Preflight checks of the machine and its storage pool: a sentence for each problem.

use std::path::{Path, PathBuf};

use hypervisor::Result;
use serde::Deserialize;

use crate::api::Map;
use crate::client::Client;

pub(crate) async fn storage_problem(client: &Client) -> Result<Option<String>> {
    let name = &client.config.storage_pool;
    let pool: Option<StoragePool> = client.get_opt(&["storage-pools", name], &[]).await?;
    Ok(match pool {
        None => Some(format!(
            "The storage pool {name} is missing: create it (incus storage create {name} btrfs) or name another one."
        )),
        Some(pool) if pool.driver == "dir" => Some(format!(
            "The storage pool {name} uses the driver dir, which does not enforce disk sizes: use btrfs, zfs or lvm."
        )),
        Some(pool) if pool.driver == "btrfs" => quota_problem(Path::new("/sys"), pool.config.get("source")),
        Some(_) => None,
    })
}

#[derive(Deserialize)]
struct StoragePool {
    driver: String,
    #[serde(default)]
    config: Map,
}

/// Whether the kernel has stopped counting a btrfs pool's quotas, or will: from then on no disk size is enforced and no
/// usage counted. Since Linux 6.1 deleting a large subvolume (so any guest) stops it; since 6.11 so does deleting one
/// whose count is found to be wrong (kdave/btrfs-progs#922). The socket is local, so this machine's sysfs tells; where
/// it can't be read, or the pool's device is not in it, there is no problem to report.
fn quota_problem(sysfs: &Path, source: Option<&String>) -> Option<String> {
    let filesystem = filesystem(sysfs, Path::new(source?))?;
    let read = |name: &str| -> Option<u32> {
        std::fs::read_to_string(filesystem.join("qgroups").join(name)).ok()?.trim().parse().ok()
    };
    if read("enabled") != Some(1) {
        return None;
    }
    let problem = if read("drop_subtree_threshold").is_some_and(|n| n < 8) {
        "btrfs stops counting quotas when a guest is deleted, and then enforces no disk sizes: write 8 to \
         /sys/fs/btrfs/*/qgroups/drop_subtree_threshold at each start, then run btrfs quota rescan on the pool."
    } else if read("inconsistent") == Some(1) {
        "btrfs has stopped counting quotas, and enforces no disk sizes until btrfs quota rescan has run on the pool. \
         Linux 6.11 and later do this now and then when a guest is deleted: have a timer run it whenever \
         /sys/fs/btrfs/*/qgroups/inconsistent is 1."
    } else {
        return None;
    };
    Some(problem.to_owned())
}

/// Whether the kernel's limit of inotify instances is too low. Every container's systemd takes up to ten, and
/// whatever the id mapping, they count against the host's root: the first container that gets none dies at boot, and
/// Incus only shows it as stopped. The socket is local, so this machine's sysctls tell.
pub(crate) fn inotify_problem(sysctls: &Path) -> Option<String> {
    const NAME: &str = "fs.inotify.max_user_instances";
    /// Enough for about 800 guests.
    const ENOUGH: u64 = 8192;
    const ADVICE: u64 = 1_048_576;
    let now: u64 = std::fs::read_to_string(sysctls.join(NAME.replace('.', "/"))).ok()?.trim().parse().ok()?;
    (now < ENOUGH).then(|| {
        format!(
            "{NAME} is {now}, and every container takes up to 10 of them: from about the {}th on, guests die at boot. \
             Run sysctl -w {NAME}={ADVICE}, and put the line {NAME}={ADVICE} into /etc/sysctl.d/90-innkeeper.conf to \
             make it permanent.",
            now / 8 + 1
        )
    })
}

/// The sysfs folder of the btrfs file system on a pool's source, which is a block device or a file behind a loop
/// device.
fn filesystem(sysfs: &Path, source: &Path) -> Option<PathBuf> {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
    let behind = |entry: &std::fs::DirEntry| {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()) == source)
    };
    let device = match entries(sysfs.join("block")).find(behind) {
        Some(entry) => entry.file_name(),
        None => source.file_name()?.to_owned(),
    };
    entries(sysfs.join("fs/btrfs")).map(|entry| entry.path()).find(|path| path.join("devices").join(&device).exists())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn too_few_inotify_instances_are_named_with_the_line_to_set() {
        let sysctls = std::env::temp_dir().join(format!("innkeeper-sysctl-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(sysctls.join("fs/inotify")).unwrap();
        let set = |number: &str| {
            std::fs::write(sysctls.join("fs/inotify/max_user_instances"), number).unwrap();
            inotify_problem(&sysctls)
        };
        let text = set("128\n").unwrap();
        assert!(
            text.contains("from about the 17th on") && text.contains("sysctl -w fs.inotify.max_user_instances=1048576"),
            "{text}"
        );
        assert_eq!([set("8192\n"), set("what\n")], [None, None]);
        std::fs::remove_dir_all(&sysctls).unwrap();
        assert_eq!(inotify_problem(&sysctls), None, "no warning if it can't be read");
    }

    #[test]
    fn lost_quotas_of_the_pools_own_file_system_are_noticed() {
        let sysfs = std::env::temp_dir().join(format!("innkeeper-sysfs-{}", Uuid::new_v4().simple()));
        let write = |path: &str, text: &str| {
            let path = sysfs.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("block/loop3/loop/backing_file", "/disks/pool.img\n");
        write("fs/btrfs/ours/devices/loop3/size", "1");
        write("fs/btrfs/other/devices/sda1/size", "1");
        let pool = "/disks/pool.img".to_owned();
        let set = |of: &str, threshold: &str, inconsistent: &str| {
            write(&format!("fs/btrfs/{of}/qgroups/enabled"), "1\n");
            write(&format!("fs/btrfs/{of}/qgroups/drop_subtree_threshold"), threshold);
            write(&format!("fs/btrfs/{of}/qgroups/inconsistent"), inconsistent);
            quota_problem(&sysfs, Some(&pool)).is_some()
        };
        assert!(!set("other", "3\n", "1\n"), "other file systems are ignored");
        assert_eq!(
            [set("ours", "3\n", "0\n"), set("ours", "8\n", "1\n"), set("ours", "8\n", "0\n")],
            [true, true, false]
        );
        assert!(quota_problem(&sysfs, Some(&"/dev/sda1".to_owned())).is_some());
        std::fs::remove_dir_all(&sysfs).unwrap();
        assert_eq!(quota_problem(&sysfs, Some(&pool)), None);
    }
}
