//! Pages of lists: filters, orders and positions as those of the kernel's tables, over rows that are found by their full
//! names and changed by operations.

use pavior_resource::{ListError, ListQuery};
use pavior_store::filter::{FieldMap, condition, unsortable};
use pavior_store::keyset::position;
use sea_orm::sea_query::IntoColumnRef;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::names::Parent;
use crate::store::prelude::*;

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The rows, each with its position in the order of the list, for page tokens.
    pub rows: Vec<(T, Value)>,
    /// How many rows there are on all pages, when that was asked.
    pub total: Option<u64>,
}

/// What a list can be sorted by.
const SORTABLE: [&str; 2] = ["name", "create_time"];

/// A table whose rows are listed.
pub(crate) trait Listed: EntityTrait<Model: Send + Sync, Column: IntoColumnRef> {
    /// The column of the unique id, of the name, and of the time of creation.
    const COLUMNS: [Self::Column; 3];
    /// Whether the newest come first, when nobody says; else they come by name.
    const NEWEST_FIRST: bool;
    /// What a row has in these columns.
    fn keys(row: &Self::Model) -> (Uuid, &str, OffsetDateTime);
}

macro_rules! listed {
    ($($entity:ident by $uid:ident.$id:ident, newest first: $newest:literal);+ $(;)?) => {
        $(
            impl Listed for super::entity::$entity::Entity {
                const COLUMNS: [Self::Column; 3] =
                    [Self::Column::$id, Self::Column::Name, Self::Column::CreateTime];
                const NEWEST_FIRST: bool = $newest;

                fn keys(row: &Self::Model) -> (Uuid, &str, OffsetDateTime) {
                    (row.$uid, &row.name, row.create_time)
                }
            }
        )+
    };
}

listed! {
    project by uid.Uid, newest first: false;
    environment by uid.Uid, newest first: false;
    resource by uid.Uid, newest first: false;
    run by uid.Uid, newest first: true;
    deployment by uid.Uid, newest first: true;
    operation by id.Id, newest first: true;
    plan by id.Id, newest first: true;
}

/// The rows in the project that a parent is or lies in, or of the whole organization.
pub(crate) fn in_project<C: ColumnTrait>(column: C, parent: &Parent) -> Condition {
    Condition::all().add_option(parent.project().map(|project| column.eq(project)))
}

/// The rows of one parent, by the column that holds it; else as [`in_project`].
pub(crate) fn below<C: ColumnTrait>(column: C, project: C, parent: &Parent) -> Condition {
    match parent.one() {
        Some(one) => Condition::all().add(column.eq(one.as_str())),
        None => in_project(project, parent),
    }
}

impl Db {
    /// The filter fields that all of these tables have.
    pub(crate) fn fields<E: Listed>(&self) -> FieldMap {
        let [_, name, create_time] = E::COLUMNS;
        FieldMap::new(self.store.backend()).text("name", name).timestamp("create_time", create_time)
    }

    /// A page of the selected rows.
    pub(crate) async fn page<E: Listed, T: From<E::Model>>(
        &self,
        select: Select<E>,
        fields: &FieldMap,
        query: &ListQuery,
    ) -> Result<Page<T>> {
        let matching = condition(&query.filter, fields).map_err(ListError::Filter)?;
        let by = if E::NEWEST_FIRST { "create_time" } else { "name" };
        let order = match query.order.as_slice() {
            [] => vec![(vec![by.to_owned()], E::NEWEST_FIRST)],
            order => order.to_vec(),
        };
        let mut paths = order.iter().map(|(path, _)| path.join("."));
        if let Some(other) = paths.find(|path| !SORTABLE.contains(&path.as_str())) {
            let message = format!("`{other}` {}", unsortable(&other, SORTABLE));
            return Err(ListError::Order(message).into());
        }
        let [uid, ..] = E::COLUMNS;
        let keyset = fields.keyset(&order, uid).map_err(|error| ListError::Order(error.to_string()))?;
        let select = select.filter(matching);
        let total = match query.count {
            true => Some(select.clone().count(self.store.read()).await?),
            false => None,
        };
        let mut select = keyset.order(select).limit(query.limit);
        if let Some(after) = &query.after {
            select = select.filter(keyset.after(after).map_err(ListError::Position)?);
        }
        let rows = select.all(self.store.read()).await?;
        let positioned = |row: E::Model| {
            let (uid, name, create_time) = E::keys(&row);
            let key = |(path, _): &(Vec<String>, bool)| match path.as_slice() {
                [field] if field == "name" => json!(name),
                _ => position::time(create_time),
            };
            let mut keys: Vec<Value> = order.iter().map(key).collect();
            keys.push(position::uuid(uid));
            (T::from(row), keys.into())
        };
        Ok(Page { rows: rows.into_iter().map(positioned).collect(), total })
    }
}
