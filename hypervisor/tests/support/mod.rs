//! What the drivers' tests share.

pub mod relay;
