//! Words of the database as types. A newer version beside this one may write words that this one does not know: those
//! are read as `unknown`, so that one row of another time breaks no list.

use serde::de::DeserializeOwned;
use serde::de::value::{Error, StrDeserializer};

/// A word of the database; none where this version does not know it.
pub(crate) fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    T::deserialize(StrDeserializer::<Error>::new(text)).ok()
}

/// Reads a type from a text column by its serde names, and what is none of them as `$unknown`.
macro_rules! stored {
    ($name:ty, $unknown:expr) => {
        impl sqlx::Type<sqlx::Postgres> for $name {
            fn type_info() -> sqlx::postgres::PgTypeInfo {
                <str as sqlx::Type<sqlx::Postgres>>::type_info()
            }

            fn compatible(ty: &sqlx::postgres::PgTypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Postgres>>::compatible(ty)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Postgres> for $name {
            fn decode(value: sqlx::postgres::PgValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                let text = <&str as sqlx::Decode<sqlx::Postgres>>::decode(value)?;
                Ok($crate::stored::word(text).unwrap_or($unknown))
            }
        }
    };
}
pub(crate) use stored;
