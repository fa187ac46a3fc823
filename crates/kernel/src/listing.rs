//! What services and stores need to list a part of many rows.

use std::fmt::{self, Display};
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};

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

/// A row's place in a list sorted by time, where lists can be continued however long they are: `{microseconds}-{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<Id> {
    /// The time that the list is sorted by.
    pub at: DateTime<Utc>,
    /// The row's id, which sorts rows of the same time.
    pub id: Id,
}

impl<Id: Display> Display for Place<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.timestamp_micros(), self.id)
    }
}

impl<Id: FromStr> FromStr for Place<Id> {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let parts = text.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
        let place = parts.and_then(|(at, id)| Some(Self { at: DateTime::from_timestamp_micros(at)?, id }));
        // No row of ours is older, and the database can't store every older time.
        place.filter(|place| place.at >= DateTime::UNIX_EPOCH).ok_or("send `next` of the response before")
    }
}

impl<'de, Id: FromStr> Deserialize<'de> for Place<Id> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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
