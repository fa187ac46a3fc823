//! Notes as subjects of operations and scopes.

use async_trait::async_trait;
use kernel::auth::{Access, Caller, Owner};
use kernel::error::{Error, Result};
use kernel::ids::AccountId;
use kernel::subjects::{Subject, SubjectKind};
use sqlx::PgConnection;

use super::Notes;

pub(super) const KIND: &str = "note";

#[async_trait]
impl SubjectKind for Notes {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn path_part(&self) -> &'static str {
        "notes"
    }

    fn is_id(&self, id: &str) -> bool {
        id.parse::<u32>().is_ok_and(|number| number.to_string() == id)
    }

    async fn owned_by(&self, account: AccountId) -> Result<Vec<String>> {
        Ok(self.of(account).into_iter().map(|note| note.id.to_string()).collect())
    }

    async fn authorize(&self, caller: &Caller, id: &str, level: Access) -> Result<()> {
        let account = self.owner(id).ok_or_else(|| Error::not_found(KIND))?;
        let owner = Owner { account, reseller: None };
        caller.check(KIND, Some(&Subject::new(KIND, id)), owner, level)
    }

    async fn abandoned(&self, _: &mut PgConnection, _: &str) -> Result<()> {
        Ok(())
    }
}
