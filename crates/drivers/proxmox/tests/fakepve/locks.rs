//! Locks in guests' configurations: the call waits if a task is working on the guest, and reports a stale lock at once.

use std::time::Duration;

use hypervisor::{
    Error, GuestKind, GuestPower, GuestSize, Inventory, Power, Presence, Provision, Result, Snapshots, StopMode, Task,
    TaskState,
};

use crate::Bench;

use GuestKind::{Lxc, Vm};

const CLEAN: StopMode = StopMode::Clean { timeout: Duration::from_secs(5) };

impl Bench {
    /// The error of a call, at once or when its task ends.
    async fn why(&self, result: Result<Task>) -> Error {
        match result {
            Ok(task) => match self.end(task).await {
                TaskState::Failed(error) => error,
                other => panic!("should have failed, is {other:?}"),
            },
            Err(error) => error,
        }
    }

    async fn lock(&self, lock: &str) {
        self.fake.run(&format!("pve.snapshot_lock({}, '{lock}')", self.vmid())).await;
    }

    /// Number of requests for a power change.
    async fn asked(&self, action: &str) -> u64 {
        let path = self.path(&format!("/status/{action}"));
        self.fake
            .run(&format!("len([a for a in pve.asked if a[0] == 'POST' and a[1] == '{path}'])"))
            .await
            .as_u64()
            .unwrap()
    }
}

#[tokio::test]
async fn a_lock_that_no_task_is_at_work_on_is_told_with_what_lifts_it() {
    for (kind, unlock) in [(Lxc, "pct unlock"), (Vm, "qm unlock")] {
        let bench = Bench::running(kind).await;
        let (driver, guest) = (&bench.driver, &bench.spec.guest);
        bench.done(driver.create_snapshot(guest, "one", "").await).await;
        bench.lock("snapshot-delete").await;
        let more = GuestSize { cores: Some(2), ..GuestSize::default() };
        for (what, error) in [
            ("restart", bench.why(driver.restart(guest, Duration::from_secs(1)).await).await),
            ("stop", bench.why(driver.stop(guest, CLEAN).await).await),
            ("force", bench.why(driver.stop(guest, StopMode::Force).await).await),
            ("resize", bench.why(driver.resize(guest, &more).await).await),
            ("snapshot", bench.why(driver.create_snapshot(guest, "two", "").await).await),
            ("delete a snapshot", bench.why(driver.delete_snapshot(guest, "one").await).await),
            ("roll back", bench.why(driver.rollback(guest, "one").await).await),
            ("can it be deleted", driver.check_delete(guest).await.unwrap_err()),
        ] {
            let told = format!("{unlock} {}", guest.vmid);
            assert!(matches!(&error, Error::StaleLock(text) if text.contains(&told)), "{kind:?} {what}: {error:?}");
            assert!(!error.is_transient());
        }
        assert_eq!(bench.power().await, Some(GuestPower::Running));
        assert_eq!((bench.asked("reboot").await, bench.asked("stop").await, bench.asked("shutdown").await), (0, 0, 0));
        bench.fake.run(&format!("pve.unlock({})", bench.vmid())).await;
        bench.done(driver.stop(guest, CLEAN).await).await;
        bench.lock("backup").await;
        let error = bench.why(driver.start(guest).await).await;
        assert!(matches!(error, Error::StaleLock(_)), "{error:?}");
    }
}

/// A reboot during a backup would take the guest down and could not start it again.
#[tokio::test]
async fn a_restart_during_a_backup_is_not_sent_before_its_end() {
    for kind in [Lxc, Vm] {
        let bench = Bench::running(kind).await;
        let (driver, guest) = (&bench.driver, &bench.spec.guest);
        bench.fake.run("pve.time_scale = 1").await;
        bench.fake.run(&format!("pve.backup({}, secs=1000)", bench.vmid())).await;
        for _ in 0..3 {
            for error in [
                driver.restart(guest, Duration::from_secs(1)).await.unwrap_err(),
                driver.stop(guest, StopMode::Force).await.unwrap_err(),
                driver.check_delete(guest).await.unwrap_err(),
            ] {
                assert!(matches!(&error, Error::Locked(text) if text.contains("backup")), "{kind:?}: {error:?}");
                assert!(error.is_transient());
            }
        }
        assert_eq!(bench.asked("reboot").await, 0);
        assert_eq!(bench.power().await, Some(GuestPower::Running));
    }
}

/// A backup job is one task for many guests, and names none of them.
#[tokio::test]
async fn a_backup_job_that_names_no_guest_is_at_work_too() {
    let bench = Bench::running(Lxc).await;
    bench.lock("backup").await;
    let job = r#"{"data":[{"upid":"UPID:pve1:000004F0:0002D892:6B018A7A:vzdump::root@pam:","type":"vzdump","id":"",
        "node":"pve1","user":"root@pam","starttime":1795263098,"pid":1264,"pstart":186514}]}"#;
    bench.canned("GET", "/nodes/pve1/tasks", 200, "OK", r#"{"data":[]}"#).await;
    bench.canned("GET", "/nodes/pve1/tasks", 200, "OK", job).await;
    let error = bench.driver.restart(&bench.spec.guest, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, Error::Locked(text) if text.contains("backup")), "{error:?}");
}

#[tokio::test]
async fn a_lock_that_went_between_two_looks_is_only_waited_for() {
    let bench = Bench::running(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    let tag = format!("innkeeper-{}-{}", bench.vmid(), guest.marker);
    let locked = serde_json::json!({ "data": { "status": "running", "lock": "backup", "tags": tag } });
    bench.canned("GET", &bench.path("/status/current"), 200, "OK", &locked.to_string()).await;
    let error = driver.restart(guest, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, Error::Locked(_)), "{error:?}");
    bench.done(driver.restart(guest, Duration::from_secs(1)).await).await;
}

#[tokio::test]
async fn a_creation_that_ended_between_two_looks_is_done_and_a_killed_one_is_told() {
    let bench = Bench::stopped(Lxc).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    let half_made = async || {
        for (path, fields) in [("/status/current", r#""status":"stopped","#), ("/config", "")] {
            let body = format!(r#"{{"data":{{{fields}"lock":"create"}}}}"#);
            bench.canned("GET", &bench.path(path), 200, "OK", &body).await;
        }
    };
    half_made().await;
    let found = driver.find(guest).await.unwrap();
    assert!(matches!(found, Presence::Present { power: GuestPower::Stopped, busy: false, .. }), "{found:?}");
    half_made().await;
    half_made().await;
    let error = driver.find(guest).await.unwrap_err();
    assert!(matches!(&error, Error::StaleLock(text) if text.contains("a creation")), "{error:?}");
}

#[tokio::test]
async fn a_hibernated_machine_can_be_started_and_is_told_to_be() {
    let bench = Bench::stopped(Vm).await;
    let (driver, guest) = (&bench.driver, &bench.spec.guest);
    bench.lock("suspended").await;
    assert_eq!(driver.stop(guest, CLEAN).await.unwrap(), Task::Done);
    let more = GuestSize { cores: Some(2), ..GuestSize::default() };
    let error = bench.why(driver.resize(guest, &more).await).await;
    assert!(matches!(&error, Error::Conflict(text) if text.contains("start it first")), "{error:?}");
    driver.check_delete(guest).await.unwrap();
    bench.done(driver.start(guest).await).await;
    assert_eq!(bench.power().await, Some(GuestPower::Running));
    bench.done(driver.resize(guest, &more).await).await;
}
