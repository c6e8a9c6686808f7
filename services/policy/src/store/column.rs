//! Columns that are more than a value of the database: JSON, enums and resource names.

use pavior_store::StoreError;
use sea_orm::ActiveEnum;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Declares the type of a column that holds an enum of the domain. The texts are independent of the names in the API and
/// must never change. Any other text in a row is an error, never a default.
macro_rules! enum_column {
    ($(#[$doc:meta])* $name:ident of $domain:ty { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $(#[sea_orm(string_value = $text)] #[serde(rename = $text)] $variant,)+
        }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$variant => Self::$variant,)+ }
            }
        }

        impl From<$name> for $domain {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
}
pub(super) use enum_column;

/// The values of an enum column in filters, by their names in the API with and without the enum's prefix.
pub(super) fn filter_values<E: ActiveEnum<Value = String>>(prefix: &str) -> Vec<(String, String)> {
    let both = |value: E| {
        let (text, name) = (value.to_value(), value.to_value().to_uppercase());
        let short = name.trim_start_matches(prefix).to_owned();
        [(format!("{prefix}{short}"), text.clone()), (short, text)]
    };
    E::iter().flat_map(both).collect()
}

pub(super) fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("column `{column}` cannot be read"))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::json!(value).to_string()
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(column))
}

/// The last part of a resource name.
pub(super) fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}
