//! Stub.
use super::model::OperationView;
use crate::{app::App, error::Result};
use uuid::Uuid;
/// One operation, without the provider's detail.
pub async fn view(_app: &App, _id: Uuid) -> Result<Option<OperationView>> {
    todo!()
}
