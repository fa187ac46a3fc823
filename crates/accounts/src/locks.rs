//! Locks of the database that are not rows. Their order is in `kernel::locks`.

use kernel::locks::Lock;

/// Held while a user may lose the provider's highest role: the last one who has it can't.
pub(crate) const ADMINS: Lock = Lock::named("accounts", "admins");
