//! Lists in pages.

use axum::http::{HeaderMap, HeaderName};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};

use super::extract::Json;
use super::text;
use crate::error::{Error, Result};

/// How many there are in all, where a list is a bare array.
pub const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// Rows a page where nothing is said.
pub const LIMIT: i64 = 20;

/// How far lists are counted and shown in pages. Nobody reads more one by one, and to count all there is is as much work as
/// to read it.
pub const COUNTED: i64 = 10_000;

/// What reading a list came to: one that takes too long is to be narrowed, not tried again.
pub fn too_long(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("57014") => Error::field("page", "This list takes too long to read; narrow it by its other parameters."),
        _ => error.into(),
    }
}

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// What is on it.
    pub data: Vec<T>,
    /// How many there are on all pages.
    pub total: i64,
    /// This page, counted from 1.
    pub page: i64,
    /// The most rows on a page.
    pub limit: i64,
    /// How many pages there are.
    pub pages: i64,
}

impl<T> Page<T> {
    /// The page that `query` asks for.
    pub fn new(data: Vec<T>, total: i64, query: PageQuery) -> Self {
        let (page, limit) = (query.number(), query.size());
        Self { data, total, page, limit, pages: total / limit + i64::from(total % limit > 0) }
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// From 1.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Rows a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
}

impl PageQuery {
    fn number(self) -> i64 {
        self.page.unwrap_or(1)
    }

    /// The most rows on the page.
    pub fn size(self) -> i64 {
        self.limit.unwrap_or(LIMIT)
    }

    /// Refuses a page that is further than lists are counted.
    pub fn check(self) -> Result<()> {
        match self.offset() < COUNTED {
            true => Ok(()),
            false => Err(Error::field("page", format!("Pages go as far as row {COUNTED}; narrow the list."))),
        }
    }

    /// How many rows come before it.
    pub fn offset(self) -> i64 {
        (self.number() - 1) * self.size()
    }
}

/// Which way a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Smallest, oldest, A first.
    Asc,
    /// The other way round.
    Desc,
}

/// Something of the catalogue: few enough to be sorted and counted here.
pub trait Listed {
    /// What can be asked of it: id, name, whether it is in use, when it was made and changed.
    fn facts(&self) -> (i64, &str, bool, DateTime<Utc>, DateTime<Utc>);
}

/// Which of a catalogue's things to list.
#[derive(Debug, Default, Deserialize, Validate, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CatalogueQuery {
    /// From 1. Without it, and without `limit`, all are listed.
    #[garde(range(min = 1, max = 1_000_000))]
    #[param(minimum = 1, maximum = 1_000_000)]
    pub page: Option<i64>,
    /// Rows a page: 20, at most 100.
    #[garde(range(min = 1, max = 100))]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// By what; `id` if left out.
    #[garde(skip)]
    #[param(inline)]
    pub sort: Option<CatalogueSort>,
    /// Which way; `asc` if left out.
    #[garde(skip)]
    #[param(inline)]
    pub order: Option<Order>,
    /// Those whose name has this in it, without regard to case.
    #[garde(inner(length(chars, max = 255), custom(text::plain)))]
    pub name: Option<String>,
    /// Those that are in use, or those that are not.
    #[garde(skip)]
    pub enabled: Option<bool>,
}

/// What a catalogue can be sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CatalogueSort {
    /// The order they were made in.
    #[default]
    Id,
    /// Their names.
    Name,
    /// When they were made.
    CreatedAt,
    /// When they last changed.
    UpdatedAt,
}

impl CatalogueQuery {
    /// The part of `rows` that is asked for, with how many there are of it on all pages.
    pub fn of<T: Listed>(&self, mut rows: Vec<T>) -> (HeaderMap, Json<Vec<T>>) {
        let name = self.name.as_ref().map(|name| name.to_lowercase());
        rows.retain(|row| {
            let (_, has, enabled, ..) = row.facts();
            self.enabled.is_none_or(|wanted| wanted == enabled)
                && name.as_ref().is_none_or(|name| has.to_lowercase().contains(name))
        });
        rows.sort_by(|a, b| {
            let ((id, name, _, made, changed), (id2, name2, _, made2, changed2)) = (a.facts(), b.facts());
            let by = match self.sort.unwrap_or_default() {
                CatalogueSort::Id => id.cmp(&id2),
                CatalogueSort::Name => name.to_lowercase().cmp(&name2.to_lowercase()),
                CatalogueSort::CreatedAt => made.cmp(&made2),
                CatalogueSort::UpdatedAt => changed.cmp(&changed2),
            };
            let by = by.then(id.cmp(&id2));
            if self.order == Some(Order::Desc) { by.reverse() } else { by }
        });
        let total = rows.len();
        if self.page.is_some() || self.limit.is_some() {
            let page = PageQuery { page: self.page, limit: self.limit };
            let (skip, take) = (usize::try_from(page.offset()), usize::try_from(page.size()));
            rows = rows.into_iter().skip(skip.unwrap_or(usize::MAX)).take(take.unwrap_or(0)).collect();
        }
        (HeaderMap::from_iter([(TOTAL, total.into())]), Json(rows))
    }
}
