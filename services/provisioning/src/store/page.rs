//! Pages of lists: AIP-160 filters, orders and keysets, one function for every table.

use pavior_core::filter::{Filter, order_by};
use pavior_store::filter::{FieldMap, condition};
use pavior_store::keyset::position;
use sea_orm::{EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Select};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::store::{Db, db};

/// What is asked of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The parent, by resource name.
    pub parent: String,
    /// AIP-160.
    pub filter: String,
    /// AIP-132.
    pub order_by: String,
    /// How many rows.
    pub limit: u64,
    /// The position after which to go on.
    pub after: Option<Value>,
}

/// Rows with the position of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<M> {
    /// The rows.
    pub rows: Vec<(M, Value)>,
}

pub(crate) type Positions<M> = fn(&M, &str) -> Option<Value>;

impl Db {
    pub(crate) async fn page<E, R>(
        &self,
        select: Select<E>,
        fields: &FieldMap,
        uid: E::Column,
        listing: &Listing,
        default_order: &str,
        positions: Positions<E::Model>,
    ) -> Result<Page<R>>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + Sized + Send + Sync,
        R: From<E::Model>,
    {
        let filter = Filter::parse(&listing.filter).map_err(|error| refuse("filter", error))?;
        let condition = condition(&filter, fields).map_err(|error| refuse("filter", error))?;
        let order = if listing.order_by.trim().is_empty() { default_order } else { &listing.order_by };
        let order = order_by(order).map_err(|error| refuse("order_by", error))?;
        let sortable = |path: &[String]| matches!(path, [one] if one == "name" || one == "create_time");
        if let Some((path, _)) = order.iter().find(|(path, _)| !sortable(path)) {
            return Err(refuse("order_by", format!("`{}` cannot be sorted by", path.join("."))));
        }
        let keyset = fields.keyset(&order, uid).map_err(|error| refuse("order_by", error))?;
        let mut select = keyset.order(select.filter(condition)).limit(listing.limit);
        if let Some(after) = &listing.after {
            select = select.filter(keyset.after(after).map_err(|error| refuse("page_token", error))?);
        }
        let rows = select.all(self.store.read()).await.map_err(db)?;
        let rows = rows.into_iter().map(|row| {
            let mut keys: Vec<Value> =
                order.iter().filter_map(|(path, _)| positions(&row, &path.join("."))).collect();
            keys.extend(positions(&row, "uid"));
            (R::from(row), json!(keys))
        });
        Ok(Page { rows: rows.collect() })
    }

    pub(crate) fn fields(&self) -> FieldMap {
        FieldMap::new(self.store.backend())
    }
}

fn refuse(field: &str, problem: impl std::fmt::Display) -> Error {
    Error::Listing { field: field.to_owned(), problem: problem.to_string() }
}

pub(crate) fn key_of(
    key: &str,
    uid: uuid::Uuid,
    name: &str,
    create_time: time::OffsetDateTime,
) -> Option<Value> {
    match key {
        "uid" => Some(position::uuid(uid)),
        "name" => Some(json!(name)),
        "create_time" => Some(position::time(create_time)),
        _ => None,
    }
}
