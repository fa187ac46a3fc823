//! The named locks of this crate. `kernel::locks` has the order in which locks are taken.

use kernel::locks::Lock;

/// Choosing a node with enough capacity: one order at a time.
pub const PLACEMENT: Lock = Lock::numbered(0x696e_6b70_6c61_6365);
/// Counting connected consoles.
pub const CONSOLES: Lock = Lock::numbered(0x696e_6b63_6f6e_736f);
