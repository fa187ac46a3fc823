//! Stub.
/// stats.data
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Stats {}
