//! Stub.
use crate::{accounts::Level, accounts::model::Caller, app::App, error::Result, ids::ServerId};
/// 404 unless the caller may see (read) or change (write) this server.
pub async fn authorize(_app: &App, _caller: &Caller, _server: ServerId, _level: Level) -> Result<()> {
    todo!()
}
