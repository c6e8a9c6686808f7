//! The directory of an organization: its groups, and who belongs to them.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_store::StoreError;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::Db;
use super::row::{group, membership, organization};

/// Members, by resource name, with their groups; groups with their parents; groups by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryRows {
    pub(crate) memberships: Vec<(String, Vec<String>)>,
    pub(crate) groups: Vec<(String, Option<String>)>,
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// Increments the revision of the directory.
    pub(crate) async fn bump_directory(&self, permit: &Permit) -> Result<(), StoreError> {
        let column = organization::Column::DirectoryRevision;
        organization::Entity::update_many()
            .col_expr(column, Expr::col(column).add(1))
            .filter(organization::Column::Id.eq(permit.organization()))
            .exec(self.rows.connection())
            .await?;
        Ok(())
    }

    /// The revision of the directory; none when the organization does not exist.
    pub(crate) async fn directory_revision(&self, permit: &Permit) -> Result<Option<String>, StoreError> {
        let row: Option<(uuid::Uuid, i64)> = organization::Entity::find()
            .select_only()
            .column(organization::Column::Uid)
            .column(organization::Column::DirectoryRevision)
            .filter(organization::Column::Id.eq(permit.organization()))
            .into_tuple()
            .one(self.rows.connection())
            .await?;
        // The uid keeps an organization that is created again under the same id from repeating a revision.
        Ok(row.map(|(uid, revision)| format!("{}-{revision}", uid.simple())))
    }

    /// The whole directory, sorted.
    pub(crate) async fn directory(&self, permit: &Permit) -> Result<DirectoryRows, StoreError> {
        let organization = permit.organization();
        let pairs: Vec<(String, String)> = membership::Entity::find()
            .select_only()
            .column(membership::Column::Member)
            .column(membership::Column::GroupId)
            .filter(membership::Column::Organization.eq(organization))
            .order_by_asc(membership::Column::Member)
            .order_by_asc(membership::Column::GroupId)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let groups = group::Entity::find()
            .select_only()
            .column(group::Column::Id)
            .column(group::Column::Parent)
            .filter(group::Column::Organization.eq(organization))
            .order_by_asc(group::Column::Id)
            .into_tuple()
            .all(self.rows.connection())
            .await?;
        let mut memberships: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (member, group) in pairs {
            memberships.entry(member).or_default().push(group);
        }
        Ok(DirectoryRows { memberships: memberships.into_iter().collect(), groups })
    }
}
