//! What services and stores need to list a part of many rows.

use serde::Deserialize;

use crate::error::{Error, Result};

/// How far lists are counted and paged. No one reads further one by one, and counting all rows is as much work as
/// reading them.
pub const COUNTED: i64 = 10_000;

/// The error for a failed listing: a list that takes too long has to be filtered, not retried.
pub fn list_error(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("57014") => {
            Error::field("page", "This list takes too long to read; narrow it down with the other parameters.")
        }
        _ => error.into(),
    }
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Maximum number of rows.
    pub limit: i64,
    /// Number of rows before the first one.
    pub offset: i64,
}

impl Window {
    /// The first rows.
    pub fn first(limit: i64) -> Self {
        Self { limit, offset: 0 }
    }

    /// Rejects a window beyond the rows that lists count.
    pub fn check(self) -> Result<()> {
        match self.offset < COUNTED {
            true => Ok(()),
            false => Err(Error::field("page", format!("Pages end at row {COUNTED}; filter the list."))),
        }
    }
}

/// Sort direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SortOrder {
    /// Smallest, oldest, A first.
    Asc,
    /// The other way round.
    Desc,
}
