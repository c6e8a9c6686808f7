//! Entities, and what a filter on them becomes.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::filter::{Filter, Literal, Op, Wildcard};
use pavior_store::filter::{FieldMap, FilterError};
use pavior_store::{StoreError, filter};
use sea_orm::sea_query::{Expr, ExprTrait as _, Func, Query};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, EntityTrait as _, JoinType, QueryFilter as _,
    QuerySelect as _,
};
use uuid::Uuid;

use super::row::json::{TextList, TextMap};
use super::row::{entity, facet};
use super::{CHUNK, Db, corrupt};
use crate::domain::entity::{MANAGED_FACET, links_from_json, links_to_json};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Stored};
use pavior_resource::{Key, Table, row, stored};

impl Table for EntityFields {
    type Entity = entity::Entity;
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Parent, false), (Key::Id, false)];
    const ORDER: &'static [(&'static str, &'static [Key])] = &[
        ("name", &[Key::Parent, Key::Id]),
        ("display_name", &[Key::Column("display_name")]),
        ("create_time", &[Key::CreateTime]),
        ("update_time", &[Key::UpdateTime]),
    ];

    const PARENT: Option<&'static str> = Some("kind");
    const WITH_IT: &'static [(&'static str, &'static str)] = &[("entity_facets", "entity")];

    fn parent(&self) -> &str {
        &self.kind
    }

    fn key_value(stored: &Stored<Self>, _column: &str) -> String {
        stored.fields.display_name.clone()
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("kind", entity::Column::Kind)
            .text("id", entity::Column::Id)
            .text("display_name", entity::Column::DisplayName)
            .text("description", entity::Column::Description)
            .text("owner", entity::Column::Owner)
            .json_map("labels", entity::Column::Labels)
            .json_map("annotations", entity::Column::Annotations)
            .json_list("tags", entity::Column::Tags)
            .timestamp_micros("update_time", entity::Column::UpdateTime)
            .global(["id", "display_name", "description"])
    }

    fn condition(organization: &str, parsed: &Filter, backend: DbBackend) -> Result<Condition, FilterError> {
        let fields = pavior_resource::fields_of::<Self>(backend);
        Compiler { organization, backend, fields }.condition(parsed, true)
    }

    fn read(row: entity::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            entity::Model {
                display_name,
                kind,
                description,
                labels,
                annotations,
                tags,
                links,
                owner,
                spec,
                origin,
                digest: _
            },
            EntityFields {
                kind,
                display_name,
                description,
                labels: labels.0,
                annotations: annotations.0,
                tags: tags.0,
                links: links_from_json(&links).ok_or_else(|| corrupt("links"))?,
                owner,
                spec,
                origin,
            }
        )
    }

    fn write(stored: &Stored<Self>) -> entity::Model {
        let digest = stored.fields.digest();
        let EntityFields {
            kind,
            display_name,
            description,
            labels,
            annotations,
            tags,
            links,
            owner,
            spec,
            origin,
        } = stored.fields.clone();
        row!(
            stored,
            entity::Model {
                display_name,
                kind,
                description,
                labels: TextMap(labels),
                annotations: TextMap(annotations),
                tags: TextList(tags),
                links: links_to_json(&links),
                owner,
                spec,
                origin,
                digest,
            }
        )
    }
}

/// Filters on entities know paths in `spec`, and find exact labels and tags through their own index.
struct Compiler<'a> {
    organization: &'a str,
    backend: DbBackend,
    fields: FieldMap,
}

impl Compiler<'_> {
    /// `must` means that this part is required: it stands under no OR and no NOT.
    fn condition(&self, parsed: &Filter, must: bool) -> Result<Condition, FilterError> {
        match parsed {
            Filter::And(items) => {
                items.iter().try_fold(Condition::all(), |all, item| Ok(all.add(self.condition(item, must)?)))
            }
            Filter::Or(items) => {
                let must = must && items.len() == 1;
                items.iter().try_fold(Condition::any(), |any, item| Ok(any.add(self.condition(item, must)?)))
            }
            // Comparing an absent value gives NULL, which NOT must treat as false.
            Filter::Not(inner) => {
                let inner = Expr::from(self.condition(inner, false)?);
                Ok(Condition::all().add(Expr::from(Func::coalesce([inner, Expr::val(false)])).not()))
            }
            Filter::Restriction { path, op, value } => self.restriction(parsed, path, *op, value, must),
            Filter::Global(_) => filter::condition(parsed, &self.fields),
        }
    }

    fn restriction(
        &self,
        parsed: &Filter,
        path: &[String],
        op: Op,
        value: &Literal,
        must: bool,
    ) -> Result<Condition, FilterError> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let name = path.join(".");
        if name.contains('\0') || value.raw().contains('\0') {
            return fail(&name, "must not hold the character NUL");
        }
        let plain = value.wildcard() == Wildcard::None && !matches!(value, Literal::Null);
        match path.as_slice() {
            ["labels", key] if plain && op == Op::Eq => {
                Ok(self.facet(&format!("label:{key}"), value.raw(), must))
            }
            ["tags"] if plain && matches!(op, Op::Eq | Op::Has) => Ok(self.facet("tag", value.raw(), must)),
            ["spec", rest @ ..] if !rest.is_empty() => self.spec(&name, rest, op, value),
            ["spec"] => fail(&name, "must name a field, as in `spec.type`"),
            _ => filter::condition(parsed, &self.fields),
        }
    }

    /// The entities with a label or tag, from the index.
    fn facet(&self, name: &str, value: &str, must: bool) -> Condition {
        let found = Query::select()
            .column(facet::Column::Entity)
            .from(facet::Entity)
            .and_where(Expr::col(facet::Column::Organization).eq(self.organization))
            .and_where(Expr::col(facet::Column::Name).eq(name))
            .and_where(Expr::col(facet::Column::Value).eq(value))
            .to_owned();
        if must && self.backend == DbBackend::Postgres {
            // As an array the subquery runs once and its result is looked up by primary key. `IN` becomes a semi-join,
            // which compared every entity with every match on tables without statistics (5 s for 10,000 entities).
            let found = Expr::SubQuery(None, Box::new(found.into()));
            let parts = [Expr::col((entity::Entity, entity::Column::Uid)), found];
            return Condition::all().add(Expr::cust_with_exprs("$1 = ANY(ARRAY $2)", parts));
        }
        Condition::all().add(entity::Column::Uid.in_subquery(found))
    }

    /// A text, number or truth value in `spec`. The type of the literal decides what is compared, so that
    /// `spec.replicas > 9` compares numbers and `spec.type = 9` also finds the text.
    fn spec(&self, name: &str, path: &[&str], op: Op, value: &Literal) -> Result<Condition, FilterError> {
        if path.len() > 8 || path.iter().any(|part| part.contains('"')) {
            return fail(name, "is not a path in `spec`");
        }
        if let (Literal::Number { value: number, .. }, Op::Lt | Op::Le | Op::Gt | Op::Ge) = (value, op) {
            let column = self.spec_number(path);
            let wanted = Expr::val(*number);
            let compared = match op {
                Op::Lt => column.lt(wanted),
                Op::Le => column.lte(wanted),
                Op::Gt => column.gt(wanted),
                _ => column.gte(wanted),
            };
            return Ok(Condition::all().add(compared));
        }
        let fields = FieldMap::new(self.backend).text_expr("value", self.spec_text(path));
        let restriction = Filter::Restriction { path: vec!["value".to_owned()], op, value: value.clone() };
        filter::condition(&restriction, &fields)
            .map_err(|error| FilterError { path: name.to_owned(), problem: error.problem })
    }

    /// A place in `spec` as text: `true` and `false` for truth values, nothing for what is absent.
    fn spec_text(&self, path: &[&str]) -> Expr {
        let column = Expr::col(entity::Column::Spec);
        if self.backend == DbBackend::Postgres {
            return function("jsonb_extract_path_text", column, path.iter().map(|part| Expr::val(*part)));
        }
        let place = || Expr::val(sqlite_path(path));
        let kind = || function("json_type", column.clone(), [place()]);
        let value = function("json_extract", column.clone(), [place()]);
        Expr::case(kind().eq("true"), Expr::val("true"))
            .case(kind().eq("false"), Expr::val("false"))
            .finally(value.cast_as("text"))
            .into()
    }

    fn spec_number(&self, path: &[&str]) -> Expr {
        let column = Expr::col(entity::Column::Spec);
        if self.backend == DbBackend::Postgres {
            let parts = || path.iter().map(|part| Expr::val(*part));
            let found = function("jsonb_extract_path", column.clone(), parts());
            let text = function("jsonb_extract_path_text", column, parts());
            let kind = Expr::from(Func::cust("jsonb_typeof").arg(found));
            return Expr::case(kind.eq("number"), text.cast_as("double precision")).into();
        }
        let place = || Expr::val(sqlite_path(path));
        let kind = function("json_type", column.clone(), [place()]);
        let value = function("json_extract", column, [place()]);
        Expr::case(kind.is_in(["integer", "real"]), value).into()
    }
}

fn function(name: &'static str, column: Expr, rest: impl IntoIterator<Item = Expr>) -> Expr {
    Expr::from(Func::cust(name).args(std::iter::once(column).chain(rest)))
}

fn sqlite_path(path: &[&str]) -> String {
    let parts: Vec<String> = path.iter().map(|part| format!(".\"{part}\"")).collect();
    format!("${}", parts.concat())
}

fn fail<T>(path: &str, problem: &str) -> Result<T, FilterError> {
    Err(FilterError { path: path.to_owned(), problem: problem.to_owned() })
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// Several entities of several kinds, in any order.
    pub(crate) async fn entities_by_key(
        &self,
        permit: &Permit,
        keys: &[EntityKey],
    ) -> Result<Vec<Stored<EntityFields>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let rows = entity::Entity::find()
                .filter(entity::Column::Organization.eq(permit.organization()))
                .filter(by_key(chunk, entity::Column::Kind, entity::Column::Id))
                .all(self.rows.connection())
                .await?;
            for row in rows {
                found.push(EntityFields::read(row)?);
            }
        }
        Ok(found)
    }

    /// All entities of a kind in the order of their ids, `limit` at a time.
    pub(crate) async fn entities_of_kind(
        &self,
        permit: &Permit,
        kind: &str,
        after: &str,
        limit: u64,
    ) -> Result<Vec<Stored<EntityFields>>, StoreError> {
        use sea_orm::QueryOrder as _;
        let rows = entity::Entity::find()
            .filter(entity::Column::Organization.eq(permit.organization()))
            .filter(entity::Column::Kind.eq(kind))
            .filter(entity::Column::Id.gt(after))
            .order_by_asc(entity::Column::Id)
            .limit(limit)
            .all(self.rows.connection())
            .await?;
        rows.into_iter().map(EntityFields::read).collect()
    }

    /// The entities that are made for resources, those of all organizations, in order of their names, `limit` at a time:
    /// their names and annotations.
    pub(crate) async fn managed_unscoped(
        &self,
        after: &str,
        limit: u64,
    ) -> Result<Vec<(String, Uuid, BTreeMap<String, String>)>, StoreError> {
        use sea_orm::QueryOrder as _;
        // SQLite takes the index of the managed ones only where its condition stands in the query word for word.
        let managed = Expr::cust(format!("\"entity_facets\".\"name\" = '{MANAGED_FACET}'"));
        let to_facet = entity::Entity::belongs_to(facet::Entity)
            .from(entity::Column::Uid)
            .to(facet::Column::Entity)
            .into();
        let rows: Vec<(String, Uuid, TextMap)> = entity::Entity::find()
            .select_only()
            .column(facet::Column::Value)
            .column(entity::Column::Uid)
            .column(entity::Column::Annotations)
            .join(JoinType::InnerJoin, to_facet)
            .filter(managed)
            .filter(facet::Column::Value.gt(after))
            .order_by_asc(facet::Column::Value)
            .limit(limit)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        Ok(rows.into_iter().map(|(name, uid, annotations)| (name, uid, annotations.0)).collect())
    }
}

/// The rows of some kinds and ids. Grouped by kind, which both databases can look up in an index.
pub(super) fn by_key<K: sea_orm::ColumnTrait>(keys: &[EntityKey], kind: K, id: K) -> Condition {
    let mut kinds: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
    for key in keys {
        kinds.entry(&key.kind).or_default().push(&key.id);
    }
    kinds.into_iter().fold(Condition::any(), |any, (one, ids)| {
        any.add(Condition::all().add(kind.eq(one)).add(id.is_in(ids)))
    })
}
