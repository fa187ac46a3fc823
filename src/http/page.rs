//! Lists in pages.

use garde::Validate;
use serde::{Deserialize, Serialize};

/// Rows a page where nothing is said.
pub const LIMIT: i64 = 20;

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
