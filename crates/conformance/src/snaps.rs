//! Snapshots.

use hypervisor::{Error, GuestPower, GuestSize, StopMode, Task};

use super::{Lab, refused};

/// Snapshots are listed oldest first with the customer's description, and can be deleted one by one.
pub async fn snapshots_are_kept_in_order(lab: Lab) {
    let spec = lab.stopped().await;
    let (driver, guest) = (&lab.driver, &spec.guest);
    assert_eq!(driver.snapshots(guest).await.unwrap(), Vec::new());
    let words = "before the \"upgrade\" \u{2013} caf\u{e9}";
    lab.done(driver.create_snapshot(guest, "zulu", words).await).await;
    lab.done(driver.create_snapshot(guest, "alpha", "").await).await;
    let list = driver.snapshots(guest).await.unwrap();
    let seen: Vec<_> = list.iter().map(|s| (s.name.as_str(), s.description.as_str())).collect();
    assert_eq!(seen, [("zulu", words), ("alpha", "")]);
    assert!(list[0].taken_at <= list[1].taken_at);
    let age = chrono::Utc::now() - list[1].taken_at;
    assert!(age.num_seconds().abs() < 120, "taken {age} ago");
    lab.done(driver.delete_snapshot(guest, "zulu").await).await;
    assert_eq!(driver.snapshots(guest).await.unwrap().len(), 1);
    // A guest's snapshots are deleted with it.
    lab.done(driver.delete(guest).await).await;
    assert_eq!(lab.power(guest).await, None);
}

/// A rollback restores files; a guest that was running runs again, and a stopped one stays stopped.
pub async fn a_roll_back_restores_files(lab: Lab) {
    let spec = lab.running().await;
    let (driver, guest) = (&lab.driver, &spec.guest);
    let inside = lab.rig.has_insides();
    if inside {
        lab.sh(guest, "echo first > /root/file; sync").await;
    }
    lab.done(driver.create_snapshot(guest, "one", "").await).await;
    if inside {
        lab.sh(guest, "echo second > /root/file; touch /root/new; rm /etc/motd; sync").await;
    }
    lab.done(driver.rollback(guest, "one").await).await;
    assert_eq!(lab.power(guest).await, Some(GuestPower::Running));
    lab.up(guest).await;
    if inside {
        assert_eq!(
            lab.output_of(guest, "cat /root/file; ls /root/new 2>/dev/null || echo gone").await,
            "first\ngone\n"
        );
    }
    lab.done(driver.stop(guest, StopMode::Force).await).await;
    lab.done(driver.rollback(guest, "one").await).await;
    assert_eq!(lab.power(guest).await, Some(GuestPower::Stopped));
}

/// A rollback restores the disk and nothing else: size and other snapshots stay, later ones if the storage supports
/// that.
pub async fn a_roll_back_keeps_size_and_rest(lab: Lab) {
    let spec = lab.running().await;
    let (driver, guest) = (&lab.driver, &spec.guest);
    lab.done(driver.create_snapshot(guest, "small", "").await).await;
    let disk = spec.limits.disk_gib.unwrap() + 1;
    let limits = GuestSize { cores: Some(2), memory_mib: Some(384), disk_gib: Some(disk), ..GuestSize::default() };
    lab.done(driver.resize(guest, &limits).await).await;
    // Requested twice, as after a crash half-way.
    let first = driver.rollback(guest, "small").await.unwrap();
    match driver.rollback(guest, "small").await {
        Ok(second) => lab.end(second).await.unwrap(),
        Err(error) => assert!(error.is_transient(), "{error:?}"),
    }
    lab.end(first).await.unwrap();
    assert_eq!(lab.power(guest).await, Some(GuestPower::Running));
    let sweep = driver.sweep().await.unwrap();
    let seen = sweep.guests.iter().find(|g| g.marker == guest.marker).unwrap();
    assert_eq!((seen.cores, seen.memory_max, seen.disk_max), (2, Some(384 << 20), Some(disk << 30)));
    lab.up(guest).await;
    if lab.rig.has_insides() {
        lab.eventually("it has two cores", async || lab.sh(guest, "nproc").await.trim() == "2").await;
    }
    assert_eq!(driver.snapshots(guest).await.unwrap().len(), 1);
    assert_eq!(driver.resize(guest, &limits).await.unwrap(), Task::Done);
}

/// Taken names are refused, deleting a missing snapshot succeeds, and rolling back to a missing one fails.
pub async fn snapshot_calls_may_be_repeated(lab: Lab) {
    let spec = lab.stopped().await;
    let (driver, guest) = (&lab.driver, &spec.guest);
    lab.done(driver.create_snapshot(guest, "one", "first").await).await;
    refused(driver.create_snapshot(guest, "one", "second").await, |e| matches!(e, Error::AlreadyExists(_)));
    assert_eq!(driver.snapshots(guest).await.unwrap()[0].description, "first");
    refused(driver.rollback(guest, "never").await, |e| matches!(e, Error::NotFound(_)));
    for bad in ["", "a/b", "..", "a b", "a\nb"] {
        refused(driver.create_snapshot(guest, bad, "").await, |e| matches!(e, Error::Invalid(_)));
    }
    lab.done(driver.delete_snapshot(guest, "one").await).await;
    assert_eq!(driver.delete_snapshot(guest, "one").await.unwrap(), Task::Done);
}
