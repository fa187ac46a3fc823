//! The master key and its predecessors: whether a process has the right one, and which secrets are sealed with which.

pub mod service;
mod store;

use crate::secrets::SealedBy;

/// Sealed secrets of one kind, by the key that opens them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SealCounts {
    /// Sealed with the master key already.
    pub master: u64,
    /// Resealed from an old key to the master key.
    pub resealed: u64,
    /// Still sealed with an old key.
    pub old: u64,
    /// Opened by no key that we have.
    pub lost: u64,
}

impl SealCounts {
    /// Counts a secret; `done` means that it was sealed with an old key and has been resealed with the master key.
    pub fn add(&mut self, by: &SealedBy, done: bool) {
        *match by {
            SealedBy::Master => &mut self.master,
            SealedBy::Old(_) if done => &mut self.resealed,
            SealedBy::Old(_) => &mut self.old,
            SealedBy::Unknown => &mut self.lost,
        } += 1;
    }

    /// Total number of secrets.
    pub fn all(&self) -> u64 {
        self.master + self.resealed + self.old + self.lost
    }
}
