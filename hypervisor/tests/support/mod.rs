//! What the drivers' tests share.

pub(crate) mod relay;
