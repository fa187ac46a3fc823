//! Stub.
use super::model::Stats;
use crate::{app::App, error::Result, ids::ServerId};
/// The contract's `stats` of a server; `data` is null until the first sweep.
pub async fn stats(_app: &App, _server: ServerId) -> Result<Stats> {
    todo!()
}
