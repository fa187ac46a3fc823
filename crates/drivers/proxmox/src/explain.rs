//! Errors about a guest's lock, explained: whether it will pass, or what to do about it.

use hypervisor::{GuestRef, Result};

use crate::client::Client;
use crate::error::config_lock;
use crate::{locks, lookup};

/// Makes a call on a guest. If it fails for a lock in the guest's configuration, the error says whether that will pass.
pub(crate) async fn explained<T>(
    client: &Client,
    guest: &GuestRef,
    call: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let result = call.await;
    let Err(error) = &result else { return result };
    if config_lock(error)
        && let Ok(Some(found)) = lookup::get(client, guest).await
    {
        locks::check_unlocked(client, &found).await?;
    }
    result
}
