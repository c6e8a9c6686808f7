//! Keyset paging: `ORDER BY k, uid` and `(k, uid) > (?, ?)`, never OFFSET, with one order on both databases.
//!
//! ```ignore
//! let keyset = fields.keyset(&order_by(text)?, component::Column::Uid)?;
//! let mut select = keyset.order(component::Entity::find().filter(condition)).limit(page_size + 1);
//! if let Some(last) = last { select = select.filter(keyset.after(&last)?) }   // `last` is from the page token
//! ```
//!
//! The position of a row, kept in a page token, is a JSON array with one value for each key: text, a time in
//! RFC 3339, a number, a UUID. [`position`] makes the common ones.

use crate::sql;
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoColumnRef, Order};
use sea_orm::{Condition, DbBackend, QueryOrder};
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How a key is stored and sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Text, sorted by bytes.
    Text,
    /// SeaORM's `TimeDateTimeWithTimeZone`, always written in UTC.
    Time,
    /// An integer.
    Number,
    /// A UUID.
    Uuid,
}

/// A position that does not fit the keys: the page token is not valid for this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("position does not fit the order of the list")]
pub struct PositionError;

#[derive(Debug, Clone)]
struct Key {
    column: Expr,
    kind: KeyKind,
    descending: bool,
}

/// An order of rows. The last key must be unique, and no key may be null.
#[derive(Debug, Clone)]
pub struct Keyset {
    backend: DbBackend,
    keys: Vec<Key>,
}

impl Keyset {
    /// No keys yet. `backend` is [`crate::Store::backend`].
    pub fn new(backend: DbBackend) -> Self {
        Self { backend, keys: Vec::new() }
    }

    /// Adds a text column, ascending.
    #[must_use]
    pub fn text(self, column: impl IntoColumnRef) -> Self {
        self.key(Expr::col(column), KeyKind::Text, false)
    }

    /// Adds an integer column, ascending.
    #[must_use]
    pub fn number(self, column: impl IntoColumnRef) -> Self {
        self.key(Expr::col(column), KeyKind::Number, false)
    }

    /// Adds a UUID column, ascending.
    #[must_use]
    pub fn uuid(self, column: impl IntoColumnRef) -> Self {
        self.key(Expr::col(column), KeyKind::Uuid, false)
    }

    /// Adds any key.
    #[must_use]
    pub fn key(mut self, column: Expr, kind: KeyKind, descending: bool) -> Self {
        self.keys.push(Key { column, kind, descending });
        self
    }

    /// How many values a position has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Sorts a query by the keys.
    pub fn order<Q: QueryOrder>(&self, query: Q) -> Q {
        self.keys.iter().fold(query, |query, key| {
            let order = if key.descending { Order::Desc } else { Order::Asc };
            query.order_by(self.sortable(key.kind, key.column.clone()), order)
        })
    }

    /// The condition that a row comes after `position`.
    pub fn after(&self, position: &Json) -> Result<Condition, PositionError> {
        let values = position.as_array().filter(|v| v.len() == self.keys.len()).ok_or(PositionError)?;
        let mut pairs = Vec::with_capacity(self.keys.len());
        for (key, value) in self.keys.iter().zip(values) {
            let value = match key.kind {
                KeyKind::Text => Expr::val(value.as_str().ok_or(PositionError)?),
                KeyKind::Number => Expr::val(value.as_i64().ok_or(PositionError)?),
                KeyKind::Uuid => Expr::val(
                    value.as_str().and_then(|v| uuid::Uuid::try_parse(v).ok()).ok_or(PositionError)?,
                ),
                KeyKind::Time => {
                    let time = value.as_str().and_then(|v| OffsetDateTime::parse(v, &Rfc3339).ok());
                    let value = Expr::val(time.ok_or(PositionError)?);
                    sql::ordered_time(self.backend, value)
                }
            };
            pairs.push((key.descending, self.sortable(key.kind, key.column.clone()), value));
        }
        // On the first key alone: an index can begin there, which it cannot with the alternatives of the whole position.
        let bound = pairs.first().map(|(descending, column, value)| {
            let (column, value) = (column.clone(), value.clone());
            if *descending { column.lte(value) } else { column.gte(value) }
        });
        // (a > x) OR (a = x AND ((b > y) OR …)), which unlike a row comparison allows mixed directions.
        let rest: Option<Condition> =
            pairs.into_iter().rev().fold(None, |rest, (descending, column, value)| {
                let beyond = if descending {
                    column.clone().lt(value.clone())
                } else {
                    column.clone().gt(value.clone())
                };
                let any = Condition::any().add(beyond);
                Some(match rest {
                    Some(rest) => any.add(Condition::all().add(column.eq(value)).add(rest)),
                    None => any,
                })
            });
        let rest = rest.ok_or(PositionError)?;
        Ok(Condition::all().add_option(bound).add(rest))
    }

    fn sortable(&self, kind: KeyKind, column: Expr) -> Expr {
        match kind {
            KeyKind::Text => sql::binary_text(self.backend, column),
            KeyKind::Time => sql::ordered_time(self.backend, column),
            KeyKind::Number | KeyKind::Uuid => column,
        }
    }
}

/// Values of a position.
pub mod position {
    use serde_json::Value as Json;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    /// For [`super::KeyKind::Time`].
    pub fn time(time: OffsetDateTime) -> Json {
        time.format(&Rfc3339).map_or(Json::Null, Json::String)
    }

    /// For [`super::KeyKind::Uuid`].
    pub fn uuid(uuid: uuid::Uuid) -> Json {
        Json::String(uuid.to_string())
    }
}
