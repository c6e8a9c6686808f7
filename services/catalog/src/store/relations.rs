//! Relations between entities. Each is one row, written by the entity that declares it and read from both sides.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::confined;
use pavior_store::StoreError;
use sea_orm::sea_query::{Alias, Condition, Expr, ExprTrait as _, Query, SimpleExpr};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

use super::entities::by_key;
use super::entity::{facet, relation};
use super::{CHUNK, Db};
use crate::domain::entity::{Edge, SeenRelation};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Stored};

/// Most relations that one answer shows in each direction. What owns ten thousand things is asked for by a filter on
/// `owner` rather than by its relations.
const MAX_SHOWN: u64 = 5_000;

impl<C: ConnectionTrait> Db<'_, C> {
    /// The relations of some entities, seen from each: those that it declares and those that others declare of it.
    /// Two queries, however many entities there are.
    pub(crate) async fn relations(
        &self,
        permit: &Permit,
        entities: &[&Stored<EntityFields>],
    ) -> Result<BTreeMap<Uuid, BTreeSet<SeenRelation>>, StoreError> {
        let mut seen: BTreeMap<Uuid, BTreeSet<SeenRelation>> = BTreeMap::new();
        for chunk in entities.chunks(CHUNK) {
            // Side by side: on a pool each has a connection of its own.
            let (own, others) =
                tokio::try_join!(self.declared(permit, chunk), self.declared_by_others(permit, chunk))?;
            for (entity, relation) in own.into_iter().chain(others) {
                // Both sides may have declared the same relation; one is enough.
                seen.entry(entity).or_default().insert(relation);
            }
        }
        Ok(seen)
    }

    async fn declared(
        &self,
        permit: &Permit,
        entities: &[&Stored<EntityFields>],
    ) -> Result<Vec<(Uuid, SeenRelation)>, StoreError> {
        let sources: Vec<Uuid> = entities.iter().map(|entity| entity.uid).collect();
        let rows: Vec<(Uuid, String, String, String, bool)> = relation::Entity::find()
            .select_only()
            .column(relation::Column::Source)
            .column(relation::Column::Relation)
            .column(relation::Column::TargetKind)
            .column(relation::Column::TargetId)
            .expr_as(resolved(permit.organization()), "resolved")
            .filter(relation::Column::Organization.eq(permit.organization()))
            .filter(relation::Column::Source.is_in(uids(&sources)))
            .order_by_asc(relation::Column::Source)
            .limit(MAX_SHOWN)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let seen = |(source, relation, kind, id, resolved)| {
            (source, SeenRelation { relation, target: EntityKey { kind, id }, resolved })
        };
        Ok(rows.into_iter().map(seen).collect())
    }

    async fn declared_by_others(
        &self,
        permit: &Permit,
        entities: &[&Stored<EntityFields>],
    ) -> Result<Vec<(Uuid, SeenRelation)>, StoreError> {
        let uids: BTreeMap<(&str, &str), Uuid> =
            entities.iter().map(|e| ((e.fields.kind.as_str(), e.id.as_str()), e.uid)).collect();
        let keys: Vec<EntityKey> =
            entities.iter().map(|e| EntityKey::new(e.fields.kind.as_str(), e.id.as_str())).collect();
        let rows: Vec<(String, String, String, String, String)> = relation::Entity::find()
            .select_only()
            .column(relation::Column::TargetKind)
            .column(relation::Column::TargetId)
            .column(relation::Column::Inverse)
            .column(relation::Column::SourceKind)
            .column(relation::Column::SourceId)
            .filter(relation::Column::Organization.eq(permit.organization()))
            .filter(by_key(&keys, relation::Column::TargetKind, relation::Column::TargetId))
            .limit(MAX_SHOWN)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let seen = |(target_kind, target_id, inverse, source_kind, source_id): (String, String, _, _, _)| {
            let uid = uids.get(&(target_kind.as_str(), target_id.as_str()))?;
            let target = EntityKey { kind: source_kind, id: source_id };
            Some((*uid, SeenRelation { relation: inverse, target, resolved: true }))
        };
        Ok(rows.into_iter().filter_map(seen).collect())
    }

    /// The first entities that declare a relation to this one.
    pub(crate) async fn dependents(
        &self,
        permit: &Permit,
        target: &EntityKey,
        limit: u64,
    ) -> Result<Vec<EntityKey>, StoreError> {
        let rows: Vec<(String, String)> = relation::Entity::find()
            .select_only()
            .column(relation::Column::SourceKind)
            .column(relation::Column::SourceId)
            .distinct()
            .filter(relation::Column::Organization.eq(permit.organization()))
            .filter(relation::Column::TargetKind.eq(target.kind.as_str()))
            .filter(relation::Column::TargetId.eq(target.id.as_str()))
            .order_by_asc(relation::Column::SourceKind)
            .order_by_asc(relation::Column::SourceId)
            .limit(limit)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        Ok(rows.into_iter().map(|(kind, id)| EntityKey { kind, id }).collect())
    }

    /// Takes away what entities declare and what they are found by.
    pub(crate) async fn clear_declared(&self, permit: &Permit, entities: &[Uuid]) -> Result<(), StoreError> {
        for chunk in entities.chunks(CHUNK) {
            relation::Entity::delete_many()
                .filter(relation::Column::Organization.eq(permit.organization()))
                .filter(relation::Column::Source.is_in(uids(chunk)))
                .exec(self.rows.connection())
                .await?;
            facet::Entity::delete_many()
                .filter(facet::Column::Organization.eq(permit.organization()))
                .filter(facet::Column::Entity.is_in(uids(chunk)))
                .exec(self.rows.connection())
                .await?;
        }
        Ok(())
    }

    /// Writes what entities declare and what they are found by.
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
            facets.extend(entity.fields.facets().into_iter().map(|(name, value)| facet::ActiveModel {
                entity: Set(entity.uid),
                name: Set(name),
                value: Set(value),
                organization: Set(entity.organization.clone()),
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
