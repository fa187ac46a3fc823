//! Access to a server.

use kernel::auth::Owner;
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::owned::{Ownable, Owned};
use kernel::subjects::Subject;

use super::model::ServerRecord;
use super::{store, subject};
use crate::ids::ServerId;

/// A server that the caller may read (GET) or change (other methods), never a deleted one.
pub type ServerAccess = Owned<ServerRecord>;

impl Ownable for ServerRecord {
    const NAME: &'static str = subject::KIND;

    type Id = ServerId;

    async fn find(core: &Core, id: ServerId) -> Result<Option<Self>> {
        Ok(store::live(&core.db, id).await?)
    }

    fn owner(&self) -> Owner {
        Owner { account: self.account_id, reseller: self.reseller_id }
    }

    fn subject(&self) -> Option<Subject> {
        Some(subject::subject(self.id))
    }
}
