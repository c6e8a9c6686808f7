//! Memberships: one table, read from the group's side and from the member's.

use pavior_auth::Permit;
use pavior_resource::{CHUNK, Key, Table, all_set, confined, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::Db;
use super::row::membership;
use crate::domain::membership::Source;
use crate::domain::{MembershipFields, Stored};

impl Table for MembershipFields {
    type Entity = membership::Entity;
    const PARENT: Option<&'static str> = Some("group_id");
    const DEFAULT_ORDER: &'static [(Key, bool)] = &[(Key::Parent, false), (Key::Id, false)];
    const ORDER: &'static [(&'static str, &'static [Key])] =
        &[("name", &[Key::Parent, Key::Id]), ("create_time", &[Key::CreateTime])];

    fn parent(&self) -> &str {
        &self.group
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let sources = [Source::Api, Source::Import { group: true, member: true }].map(Source::as_str);
        let sources = sources.into_iter().flat_map(|word| {
            [(word.to_owned(), word.to_owned()), (format!("SOURCE_{word}"), word.to_owned())]
        });
        fields
            .text("member", membership::Column::Member)
            .enumeration("source", membership::Column::Source, sources)
            .global(["member"])
    }

    fn read(row: membership::Model) -> Result<Stored<Self>, StoreError> {
        stored!(row, membership::Model { group_id, member, source, by_group, by_member }, {
            let source = match source {
                membership::Source::Api => Source::Api,
                membership::Source::Import => Source::Import { group: by_group, member: by_member },
            };
            MembershipFields { group: group_id, member, source }
        })
    }

    fn write(stored: &Stored<Self>) -> membership::Model {
        let MembershipFields { group, member, source } = stored.fields.clone();
        let (source, by_group, by_member) = match source {
            Source::Api => (membership::Source::Api, false, false),
            Source::Import { group, member } => (membership::Source::Import, group, member),
        };
        row!(stored, membership::Model { group_id: group, member, source, by_group, by_member })
    }
}

/// The side of a membership that a query selects by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Groups, by their ids.
    Group,
    /// Members, by their resource names.
    Member,
}

impl Side {
    /// The group or member of a membership, by side.
    pub(crate) fn of(self, fields: &MembershipFields) -> &str {
        match self {
            Self::Group => &fields.group,
            Self::Member => &fields.member,
        }
    }

    fn column(self) -> membership::Column {
        match self {
            Self::Group => membership::Column::GroupId,
            Self::Member => membership::Column::Member,
        }
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// All memberships of these groups (by id), and all of these members (by resource name); each once.
    pub(crate) async fn memberships_among(
        &self,
        permit: &Permit,
        groups: &[String],
        members: &[String],
    ) -> Result<Vec<Stored<MembershipFields>>, StoreError> {
        use membership::Column as C;
        let mut found = std::collections::BTreeMap::new();
        let of_groups = groups.chunks(CHUNK).map(|chunk| C::GroupId.is_in(chunk));
        let of_members = members.chunks(CHUNK).map(|chunk| C::Member.is_in(chunk));
        for condition in of_groups.chain(of_members) {
            let rows = membership::Entity::find()
                .filter(C::Organization.eq(permit.organization()))
                .filter(condition)
                .all(self.rows.connection())
                .await?;
            for row in rows {
                let stored = MembershipFields::read(row)?;
                found.insert((stored.fields.group.clone(), stored.id.clone()), stored);
            }
        }
        Ok(found.into_values().collect())
    }

    /// The first memberships of a group (by id) or a member (by resource name), by name.
    pub(crate) async fn first_memberships(
        &self,
        permit: &Permit,
        side: Side,
        one: &str,
        limit: usize,
    ) -> Result<Vec<Stored<MembershipFields>>, StoreError> {
        use membership::Column as C;
        let rows = membership::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(side.column().eq(one))
            .order_by_asc(C::GroupId)
            .order_by_asc(C::Id)
            .limit(limit as u64)
            .all(self.rows.connection())
            .await?;
        rows.into_iter().map(MembershipFields::read).collect()
    }

    /// How many memberships a group (by id) or a member (by resource name) has.
    pub(crate) async fn memberships_of(
        &self,
        permit: &Permit,
        side: Side,
        one: &str,
    ) -> Result<u64, StoreError> {
        let found = membership::Entity::find()
            .filter(membership::Column::Organization.eq(permit.organization()))
            .filter(side.column().eq(one));
        Ok(found.count(self.rows.connection()).await?)
    }

    /// Those of some groups or members that have more memberships than this.
    pub(crate) async fn with_more_than(
        &self,
        permit: &Permit,
        side: Side,
        some: &[String],
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        use membership::Column as C;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = Vec::new();
        for chunk in some.chunks(CHUNK) {
            let many: Vec<String> = membership::Entity::find()
                .select_only()
                .column(side.column())
                .filter(C::Organization.eq(permit.organization()))
                .filter(side.column().is_in(chunk))
                .group_by(side.column())
                .having(Expr::col(C::Id).count().gt(limit))
                .into_tuple()
                .all(self.rows.connection())
                .await?;
            found.extend(many);
        }
        Ok(found)
    }

    /// Inserts memberships.
    pub(crate) async fn insert_memberships(
        &self,
        permit: &Permit,
        memberships: &[Stored<MembershipFields>],
    ) -> Result<(), StoreError> {
        for chunk in memberships.chunks(CHUNK) {
            for stored in chunk {
                confined(permit, &stored.organization)?;
            }
            let rows =
                chunk.iter().map(|stored| all_set::<MembershipFields>(MembershipFields::write(stored)));
            membership::Entity::insert_many(rows).exec_without_returning(self.rows.connection()).await?;
        }
        Ok(())
    }
}
