//! The Incus driver.
