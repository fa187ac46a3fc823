//! The request for another size.

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::ids::TariffId;

/// A request for another size: another tariff, or single values. Omitted fields stay unchanged.
#[derive(Debug, Default, Serialize, Deserialize, Validate, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResizeServer {
    /// Processor cores.
    #[garde(inner(range(min = 1, max = 1024)))]
    pub cores: Option<i32>,
    /// Memory in MiB.
    #[garde(inner(range(min = 64, max = 16_777_216)))]
    pub memory: Option<i64>,
    /// Disk in GiB; it can only grow.
    #[garde(inner(range(min = 1, max = 1_048_576)))]
    pub disk: Option<i64>,
    /// Another tariff, which sets cores, memory and disk itself: can't be combined with any of these.
    #[garde(skip)]
    pub tariff_id: Option<TariffId>,
    /// Whether the server may be restarted if its size can't be changed while it runs. If that is needed, the response
    /// is 422 without it.
    #[serde(default)]
    #[garde(skip)]
    pub allow_restart: bool,
}
