//! The table of policy revisions.

use pavior_auth::Permit;
use pavior_resource::{Key, Stored, Table, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use super::entity::{policy_binding, policy_revision as row};
use crate::domain::policy::policy_name;
use crate::domain::policy_revision::PolicyRevisionFields;

/// Most revisions that are deleted at once; each change adds one.
const LIMIT: u64 = 500;

impl Table for PolicyRevisionFields {
    type Entity = row::Entity;
    const PARENT: Option<&'static str> = Some("policy");
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::CreateTime, true)];
    const ORDER: &'static [(&'static str, &'static [Key])] = &[("create_time", &[Key::CreateTime])];

    fn parent(&self) -> &str {
        &self.policy
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("author", row::Column::Author).text("digest", row::Column::Digest)
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        stored!(
            row,
            row::Model { policy, policy_type, source, digest, author },
            Self { policy, kind: policy_type.into(), source, digest, author }
        )
    }

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self { policy, kind, source, digest, author } = stored.fields.clone();
        row!(stored, row::Model { policy, policy_type: kind.into(), source, digest, author })
    }
}

/// Deletes all revisions of a policy.
pub(crate) async fn delete_revisions_of<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    policy: &str,
) -> Result<(), StoreError> {
    row::Entity::delete_many()
        .filter(row::Column::Organization.eq(permit.organization()))
        .filter(row::Column::Policy.eq(policy))
        .exec(tx)
        .await?;
    Ok(())
}

/// Deletes the oldest revisions of a policy beyond the newest `keep`, except those that bindings name.
pub(crate) async fn trim_revisions_of<C: ConnectionTrait>(
    tx: &C,
    permit: &Permit,
    policy: &str,
    keep: u64,
) -> Result<(), StoreError> {
    let organization = permit.organization();
    let bound: Vec<i64> = policy_binding::Entity::find()
        .select_only()
        .column(policy_binding::Column::TextRevision)
        .filter(policy_binding::Column::Organization.eq(organization))
        .filter(policy_binding::Column::Policy.eq(policy_name(organization, policy)))
        .filter(policy_binding::Column::TextRevision.is_not_null())
        .into_tuple()
        .all(tx)
        .await?;
    let bound: Vec<String> = bound.iter().map(i64::to_string).collect();
    let old: Vec<Uuid> = row::Entity::find()
        .select_only()
        .column(row::Column::Uid)
        .filter(row::Column::Organization.eq(organization))
        .filter(row::Column::Policy.eq(policy))
        .filter(row::Column::Id.is_not_in(bound))
        .order_by_desc(row::Column::CreateTime)
        .order_by_desc(row::Column::Uid)
        // SQLite takes no offset without a limit.
        .offset(keep)
        .limit(LIMIT)
        .into_tuple()
        .all(tx)
        .await?;
    if !old.is_empty() {
        row::Entity::delete_many().filter(row::Column::Uid.is_in(old)).exec(tx).await?;
    }
    Ok(())
}
