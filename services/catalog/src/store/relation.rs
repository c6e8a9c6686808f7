//! Relations between entities. Each is one row, written by the entity that declares it and read from both sides.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::{ListError, confined};
use pavior_store::StoreError;
use pavior_store::keyset::Keyset;
use sea_orm::sea_query::{Alias, Condition, Expr, ExprTrait as _, Query, SimpleExpr, UnionType};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::row::{entity, facet, relation};
use super::{CHUNK, Db};
use crate::domain::entity::MANAGED_FACET;
use crate::domain::entity::{Edge, SeenRelation};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Stored};

impl<C: ConnectionTrait> Db<'_, C> {
    /// The relations that some entities declare, by their uids. What an entity declares is bounded when it is written.
    pub(crate) async fn declared(
        &self,
        permit: &Permit,
        entities: &[Uuid],
    ) -> Result<BTreeMap<Uuid, BTreeSet<SeenRelation>>, StoreError> {
        let mut seen: BTreeMap<Uuid, BTreeSet<SeenRelation>> = BTreeMap::new();
        for chunk in entities.chunks(CHUNK) {
            let rows: Vec<(Uuid, String, String, String, bool)> = relation::Entity::find()
                .select_only()
                .column(relation::Column::Source)
                .column(relation::Column::Relation)
                .column(relation::Column::TargetKind)
                .column(relation::Column::TargetId)
                .expr_as(resolved(permit.organization()), "resolved")
                .filter(relation::Column::Organization.eq(permit.organization()))
                .filter(relation::Column::Source.is_in(uids(chunk)))
                .into_tuple()
                .all(self.rows.connection())
                .await?;
            for (source, relation, kind, id, resolved) in rows {
                let target = EntityKey { kind, id };
                seen.entry(source).or_default().insert(SeenRelation { relation, target, resolved });
            }
        }
        Ok(seen)
    }

    /// How many relations some entities declare, by their uids.
    pub(crate) async fn count_declared(
        &self,
        permit: &Permit,
        entities: &[Uuid],
    ) -> Result<BTreeMap<Uuid, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for chunk in entities.chunks(CHUNK) {
            let rows: Vec<(Uuid, i64)> = relation::Entity::find()
                .select_only()
                .column(relation::Column::Source)
                .expr_as(Expr::col(relation::Column::Source).count(), "declared")
                .filter(relation::Column::Organization.eq(permit.organization()))
                .filter(relation::Column::Source.is_in(uids(chunk)))
                .group_by(relation::Column::Source)
                .into_tuple()
                .all(self.rows.connection())
                .await?;
            counts.extend(rows.into_iter().map(|(uid, count)| (uid, count.unsigned_abs())));
        }
        Ok(counts)
    }

    /// The first relations of an entity after a position, each with its own: those that it declares and those that
    /// others declare of it, in the order of type, kind and id. Both sides may have declared the same one, which is
    /// there once.
    pub(crate) async fn relations_after(
        &self,
        permit: &Permit,
        entity: &Stored<EntityFields>,
        after: Option<&Json>,
        limit: u64,
    ) -> Result<Vec<(SeenRelation, Json)>, ListError> {
        // Concurrently: each query takes a connection of the pool.
        let (own, others) = tokio::try_join!(
            self.side(permit, entity, Side::Declared, after, limit),
            self.side(permit, entity, Side::OfOthers, after, limit)
        )?;
        let mut seen: BTreeMap<(String, EntityKey), bool> = BTreeMap::new();
        for SeenRelation { relation, target, resolved } in own.into_iter().chain(others) {
            *seen.entry((relation, target)).or_default() |= resolved;
        }
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let found = seen.into_iter().take(wanted).map(|((relation, target), resolved)| {
            let position = json!([relation, target.kind, target.id]);
            (SeenRelation { relation, target, resolved }, position)
        });
        Ok(found.collect())
    }

    /// How many relations an entity has on both sides. One that both have declared is one.
    pub(crate) async fn count_relations(
        &self,
        permit: &Permit,
        entity: &Stored<EntityFields>,
    ) -> Result<u64, StoreError> {
        let of = |side: Side| {
            let select = relation::Entity::find().select_only().columns(side.columns());
            let own = relation::Column::Organization.eq(permit.organization());
            select.filter(own).filter(side.of(entity)).into_query()
        };
        let mut both = of(Side::Declared);
        both.union(UnionType::Distinct, of(Side::OfOthers));
        let counted =
            Query::select().expr(Expr::cust("COUNT(*)")).from_subquery(both, "both_sides").to_owned();
        let row = self.rows.connection().query_one(&counted).await?;
        let count = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?.unwrap_or_default();
        Ok(count.unsigned_abs())
    }

    /// The first relations of one side after a position. Each side has an index in this order.
    async fn side(
        &self,
        permit: &Permit,
        entity: &Stored<EntityFields>,
        side: Side,
        after: Option<&Json>,
        limit: u64,
    ) -> Result<Vec<SeenRelation>, ListError> {
        let columns = side.columns();
        let keyset =
            columns.iter().fold(Keyset::new(self.rows.backend()), |keyset, column| keyset.text(*column));
        let [first, ..] = columns;
        let mut select = relation::Entity::find()
            .select_only()
            .columns(columns)
            .expr_as(side.resolved(permit.organization()), "resolved")
            .filter(relation::Column::Organization.eq(permit.organization()))
            .filter(side.of(entity));
        if let Some(position) = after {
            select = select.filter(keyset.after(position)?);
            // An index range can start at this condition; it cannot at the OR of the whole position.
            if let Some(kind) = position.get(0).and_then(Json::as_str) {
                select = select.filter(first.gte(kind));
            }
        }
        // Several rules of a kind may declare the same relation.
        let select = columns.into_iter().fold(select, |select, column| select.group_by(column));
        let rows: Vec<(String, String, String, bool)> = keyset
            .order(select)
            .limit(limit)
            .into_tuple()
            .all(self.rows.connection())
            .await
            .map_err(StoreError::from)?;
        let seen = |(relation, kind, id, resolved)| SeenRelation {
            relation,
            target: EntityKey { kind, id },
            resolved,
        };
        Ok(rows.into_iter().map(seen).collect())
    }

    /// The first entities that declare a relation to this one: of any owner, or of this one only.
    pub(crate) async fn dependents(
        &self,
        permit: &Permit,
        target: &EntityKey,
        owner: Option<&str>,
        limit: u64,
    ) -> Result<Vec<EntityKey>, StoreError> {
        let mut select = relation::Entity::find()
            .select_only()
            .column(relation::Column::SourceKind)
            .column(relation::Column::SourceId)
            .distinct()
            .filter(relation::Column::Organization.eq(permit.organization()))
            .filter(relation::Column::TargetKind.eq(target.kind.as_str()))
            .filter(relation::Column::TargetId.eq(target.id.as_str()))
            .order_by_asc(relation::Column::SourceKind)
            .order_by_asc(relation::Column::SourceId)
            .limit(limit);
        if let Some(owner) = owner {
            let owned = Query::select()
                .expr(Expr::val(1))
                .from(entity::Entity)
                .and_where(
                    Expr::col((entity::Entity, entity::Column::Uid))
                        .equals((relation::Entity, relation::Column::Source)),
                )
                .and_where(Expr::col((entity::Entity, entity::Column::Owner)).eq(owner))
                .to_owned();
            select = select.filter(Expr::exists(owned));
        }
        let rows: Vec<(String, String)> = select.into_tuple().all(self.rows.connection()).await?;
        Ok(rows.into_iter().map(|(kind, id)| EntityKey { kind, id }).collect())
    }

    /// Deletes the relations and facets of entities.
    pub(crate) async fn clear_declared(&self, permit: &Permit, entities: &[Uuid]) -> Result<(), StoreError> {
        self.clear(permit, entities, Condition::all()).await
    }

    /// Deletes the relations of entities that are deleted. Labels and tags stay: what is deleted is found by them, too.
    pub(crate) async fn end_declared(&self, permit: &Permit, entities: &[Uuid]) -> Result<(), StoreError> {
        self.clear(permit, entities, Condition::all().add(facet::Column::Name.eq(MANAGED_FACET))).await
    }

    async fn clear(&self, permit: &Permit, entities: &[Uuid], facets: Condition) -> Result<(), StoreError> {
        for chunk in entities.chunks(CHUNK) {
            relation::Entity::delete_many()
                .filter(relation::Column::Organization.eq(permit.organization()))
                .filter(relation::Column::Source.is_in(uids(chunk)))
                .exec(self.rows.connection())
                .await?;
            facet::Entity::delete_many()
                .filter(facet::Column::Organization.eq(permit.organization()))
                .filter(facet::Column::Entity.is_in(uids(chunk)))
                .filter(facets.clone())
                .exec(self.rows.connection())
                .await?;
        }
        Ok(())
    }

    /// Inserts the relations and facets of entities.
    pub(crate) async fn insert_declared(
        &self,
        permit: &Permit,
        entities: &[(&Stored<EntityFields>, &BTreeSet<Edge>)],
    ) -> Result<(), StoreError> {
        let mut relations = Vec::new();
        let mut facets = Vec::new();
        for (entity, edges) in entities {
            confined(permit, &entity.organization)?;
            relations.extend(edges.iter().map(|edge| relation::ActiveModel {
                source: Set(entity.uid),
                relation: Set(edge.relation.clone()),
                target_kind: Set(edge.target.kind.clone()),
                target_id: Set(edge.target.id.clone()),
                organization: Set(entity.organization.clone()),
                inverse: Set(edge.inverse.clone()),
                source_kind: Set(entity.fields.kind.clone()),
                source_id: Set(entity.id.clone()),
            }));
            facets.extend(entity.fields.facets(&entity.name()).into_iter().map(|(name, value)| {
                facet::ActiveModel {
                    entity: Set(entity.uid),
                    name: Set(name),
                    value: Set(value),
                    organization: Set(entity.organization.clone()),
                }
            }));
        }
        for chunk in relations.chunks(CHUNK) {
            relation::Entity::insert_many(chunk.to_vec())
                .exec_without_returning(self.rows.connection())
                .await?;
        }
        for chunk in facets.chunks(CHUNK) {
            facet::Entity::insert_many(chunk.to_vec()).exec_without_returning(self.rows.connection()).await?;
        }
        Ok(())
    }
}

/// The direction in which the relations of an entity are read.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// Those that it declares.
    Declared,
    /// Those that others declare of it.
    OfOthers,
}

impl Side {
    /// Type, kind and id of the other one, as they are seen from here.
    fn columns(self) -> [relation::Column; 3] {
        use relation::Column as C;
        match self {
            Self::Declared => [C::Relation, C::TargetKind, C::TargetId],
            Self::OfOthers => [C::Inverse, C::SourceKind, C::SourceId],
        }
    }

    fn of(self, entity: &Stored<EntityFields>) -> Condition {
        use relation::Column as C;
        match self {
            Self::Declared => Condition::all().add(C::Source.eq(entity.uid)),
            Self::OfOthers => Condition::all()
                .add(C::TargetKind.eq(entity.fields.kind.as_str()))
                .add(C::TargetId.eq(entity.id.as_str())),
        }
    }

    /// Whether the other entity exists. One that declares a relation does.
    fn resolved(self, organization: &str) -> SimpleExpr {
        match self {
            Self::Declared => resolved(organization),
            Self::OfOthers => Expr::val(true),
        }
    }
}

/// Whether the target of a relation exists: as an entity, or as a group or user of the organization.
fn resolved(organization: &str) -> SimpleExpr {
    let target_kind = || Expr::col((relation::Entity, relation::Column::TargetKind));
    let target_id = || Expr::col((relation::Entity, relation::Column::TargetId));
    let found = Alias::new("found");
    let exists = |table: sea_orm::sea_query::TableRef, conditions: Condition| {
        Expr::exists(Query::select().expr(Expr::val(1)).from(table).cond_where(conditions).to_owned())
    };
    let at = |column: &'static str| Expr::col((found.clone(), Alias::new(column)));
    let table =
        |name: &'static str| sea_orm::sea_query::TableRef::from(Alias::new(name)).alias(found.clone());
    let entities = Condition::all()
        .add(at("organization").eq(organization))
        .add(at("kind").eq(target_kind()))
        .add(at("id").eq(target_id()));
    let member = || Condition::all().add(at("organization").eq(organization)).add(at("id").eq(target_id()));
    exists(table("entities"), entities)
        .or(target_kind().eq("group").and(exists(table("groups"), member())))
        .or(target_kind().eq("user").and(exists(table("users"), member())))
}

/// Uids as the databases keep them.
fn uids(values: &[Uuid]) -> Vec<sea_orm::Value> {
    values.iter().map(|uid| (*uid).into()).collect()
}
