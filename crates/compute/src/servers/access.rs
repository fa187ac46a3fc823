//! Access to a server.

use kernel::auth::Owner;
use kernel::core::Core;
use kernel::error::Result;
use kernel::http::owned::{Ownable, Owned, Ownership};

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

    fn ownership(&self, _: &Core) -> Ownership {
        let owner = Owner { account: self.account_id, reseller: self.reseller_id };
        Ownership::Account(owner, Some(subject::subject(self.id)))
    }
}
