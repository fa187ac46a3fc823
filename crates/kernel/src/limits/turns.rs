//! Limits how many lists each account reads at the same time, because they are expensive: other requests wait for a
//! slot, without holding a database connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error, Result};
use crate::ids::AccountId;

/// Lists that an account may read at the same time, in each process.
const AT_ONCE: usize = 3;
/// How long other requests wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// Accounts kept in memory before idle ones are dropped.
const SIZE: usize = 1_000;

/// The slots of each account.
#[derive(Debug, Default)]
pub struct ListSlots(Mutex<HashMap<AccountId, Arc<Semaphore>>>);

/// A slot for reading a list, released when dropped.
#[derive(Debug)]
pub struct ListSlot {
    _permit: OwnedSemaphorePermit,
}

impl ListSlots {
    /// Waits for one of this account's slots.
    pub async fn take(&self, account: AccountId) -> Result<ListSlot> {
        let places = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= SIZE {
                all.retain(|_, places| Arc::strong_count(places) > 1 || places.available_permits() < AT_ONCE);
            }
            Arc::clone(all.entry(account).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))))
        };
        match tokio::time::timeout(PATIENCE, places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(ListSlot { _permit: permit }),
            Ok(Err(closed)) => Err(Error::internal(closed)),
            Err(_) => Err(Error {
                retry_after: Some(PATIENCE),
                ..Error::new(
                    Code::RateLimited,
                    "Your account is reading too many long lists at once; filter them, or wait for the earlier ones.",
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_waits_for_itself_and_for_nobody_else() {
        let turns = ListSlots::default();
        let mut held = vec![];
        for _ in 0..AT_ONCE {
            held.push(turns.take(AccountId(1)).await.unwrap());
        }
        assert_eq!(turns.take(AccountId(1)).await.unwrap_err().code, Code::RateLimited);
        turns.take(AccountId(2)).await.unwrap();
        held.pop();
        turns.take(AccountId(1)).await.unwrap();
    }
}
