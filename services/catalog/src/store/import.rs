//! Many entities at once.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_core::name::is_reserved_key;
use pavior_store::StoreError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::by_key;
use super::row::entity;
use super::row::json::TextMap;
use super::{CHUNK, Db, time};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Stored};
use pavior_resource::{Table as _, all_set, confined};

/// What an import needs to know of an entity that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Existing {
    pub(crate) uid: Uuid,
    pub(crate) revision: i64,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) digest: String,
    /// The group or user that owns it; empty when nobody does.
    pub(crate) owner: String,
    /// The reserved annotations, which documents cannot set.
    pub(crate) reserved: BTreeMap<String, String>,
}

/// Rows in one insert: each has 17 values, and PostgreSQL takes 65,535 in a statement, SQLite 32,766.
const ROWS: usize = 250;

/// An entity to write, new or changed.
pub(crate) type Upsert = Stored<EntityFields>;

/// Kind, id, uid, revision, time of creation, digest, owner, annotations.
type Row = (String, String, Uuid, i64, i64, String, String, TextMap);

impl<C: ConnectionTrait> Db<'_, C> {
    /// Which of some entities exist.
    pub(crate) async fn existing_entities(
        &self,
        permit: &Permit,
        keys: &[EntityKey],
    ) -> Result<BTreeMap<EntityKey, Existing>, StoreError> {
        let mut found = BTreeMap::new();
        for chunk in keys.chunks(CHUNK) {
            let rows: Vec<Row> = entity::Entity::find()
                .select_only()
                .column(entity::Column::Kind)
                .column(entity::Column::Id)
                .column(entity::Column::Uid)
                .column(entity::Column::Revision)
                .column(entity::Column::CreateTime)
                .column(entity::Column::Digest)
                .column(entity::Column::Owner)
                .column(entity::Column::Annotations)
                .filter(entity::Column::Organization.eq(permit.organization()))
                .filter(by_key(chunk, entity::Column::Kind, entity::Column::Id))
                .into_tuple()
                .all(self.rows.connection())
                .await?;
            for (kind, id, uid, revision, create_time, digest, owner, annotations) in rows {
                let create_time = time(create_time)?;
                let TextMap(mut reserved) = annotations;
                reserved.retain(|key, _| is_reserved_key(key));
                found.insert(
                    EntityKey { kind, id },
                    Existing { uid, revision, create_time, digest, owner, reserved },
                );
            }
        }
        Ok(found)
    }

    /// Inserts entities, or replaces those that exist. The organization is locked, so none changes meanwhile.
    pub(crate) async fn upsert_entities(
        &self,
        permit: &Permit,
        entities: &[Upsert],
    ) -> Result<(), StoreError> {
        use entity::Column as C;
        for chunk in entities.chunks(ROWS) {
            for stored in chunk {
                confined(permit, &stored.organization)?;
            }
            let rows = chunk.iter().map(|stored| all_set::<EntityFields>(EntityFields::write(stored)));
            let mut conflict = OnConflict::columns([C::Organization, C::Kind, C::Id]);
            conflict.update_columns([
                C::Revision,
                C::UpdateTime,
                C::DisplayName,
                C::Description,
                C::Labels,
                C::Annotations,
                C::Tags,
                C::Links,
                C::Owner,
                C::Spec,
                C::Origin,
                C::Digest,
            ]);
            entity::Entity::insert_many(rows)
                .on_conflict(conflict)
                .exec_without_returning(self.rows.connection())
                .await?;
        }
        Ok(())
    }
}
