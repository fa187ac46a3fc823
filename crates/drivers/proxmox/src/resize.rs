//! Changing a guest's size. A container takes it at once; a running machine takes its disk at once, and cores and memory
//! with its next start.

use hypervisor::{Error, GuestRef, Limits, Result, Task};

use crate::api::GIB;
use crate::client::Client;
use crate::size::{disk_size, grow, root_disk, size_of};
use crate::tasks::plain;
use crate::{lookup, marker, place};

pub(crate) async fn resize(client: &Client, guest: &GuestRef, limits: &Limits) -> Result<Task> {
    if limits.cores == Some(0) || limits.memory_mib == Some(0) {
        return Err(Error::Invalid("cores and memory must be more than nothing".to_owned()));
    }
    let found = lookup::require(client, guest).await?;
    let config = place::config(client, &found.at).await?;
    let (key, root) = root_disk(guest.kind, &config)?;
    let (now, then) = (disk_size(&root), limits.disk_gib.map(|gib| gib.saturating_mul(GIB)));
    if then.is_some_and(|then| then < now) {
        let text = format!(
            "the disk has {} GiB and can't shrink to {} GiB",
            now.div_ceil(GIB),
            limits.disk_gib.unwrap_or_default()
        );
        return Err(Error::Invalid(text));
    }
    if marker::kept(&config.description()).is_some() {
        // Its end would undo this change.
        return Err(Error::Conflict(format!("a roll-back of {} is unfinished: repeat it first", guest.vmid)));
    }
    place::change(client, &found.at, &config, &size_of(guest.kind, &config, limits)).await?;
    match limits.disk_gib.filter(|_| then.is_some_and(|then| then > now)) {
        Some(gib) => grow(client, &found.at, &key, gib).await.map(plain),
        None => Ok(Task::Done),
    }
}
