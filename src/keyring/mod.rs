//! The master key and those before it: whether a process has the right one, and what is sealed with which.

pub mod service;
mod store;

use crate::secrets::SealedBy;

/// Sealed secrets of one kind, by the key that opens them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resealed {
    /// By the master key from the start.
    pub master: u64,
    /// By an old key until now, and by the master key from now on.
    pub resealed: u64,
    /// By an old key still.
    pub old: u64,
    /// By none that we have.
    pub lost: u64,
}

impl Resealed {
    /// Counts a secret; `done` says that one of an old key was written back, sealed with the master key.
    pub fn add(&mut self, by: &SealedBy, done: bool) {
        *match by {
            SealedBy::Master => &mut self.master,
            SealedBy::Old(_) if done => &mut self.resealed,
            SealedBy::Old(_) => &mut self.old,
            SealedBy::Unknown => &mut self.lost,
        } += 1;
    }

    /// How many there are.
    pub fn all(&self) -> u64 {
        self.master + self.resealed + self.old + self.lost
    }
}
