//! Users and their memberships.

use pavior_auth::Permit;
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _};
use serde_json::json;

use super::entity::{membership, user};
use super::{CHUNK, Db, corrupt, text_list, time};
use crate::domain::{Stored, UserFields};
use pavior_resource::Table;

impl Table for UserFields {
    type Entity = user::Entity;

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields
            .text("display_name", user::Column::DisplayName)
            .text("email", user::Column::Email)
            .json_list("groups", user::Column::Groups)
            .global(["display_name", "email"])
    }

    fn read(row: user::Model) -> Result<Stored<Self>, StoreError> {
        let user::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            email,
            groups,
        } = row;
        let prefix = format!("organizations/{organization}/groups/");
        let groups = text_list(&groups).ok_or_else(|| corrupt("groups of a user"))?;
        let groups = groups.iter().map(|name| name.strip_prefix(&prefix).map(str::to_owned));
        let groups = groups.collect::<Option<Vec<_>>>().ok_or_else(|| corrupt("groups of a user"))?;
        Ok(Stored {
            organization,
            id,
            uid,
            revision,
            create_time: time(create_time)?,
            update_time: time(update_time)?,
            fields: UserFields { display_name, email, groups },
        })
    }

    fn write(stored: &Stored<Self>) -> user::Model {
        let Stored { organization, id, uid, revision, create_time, update_time, fields } = stored.clone();
        let UserFields { display_name, email, groups } = fields;
        let groups: Vec<String> =
            groups.iter().map(|group| format!("organizations/{organization}/groups/{group}")).collect();
        user::Model {
            uid,
            organization,
            id,
            revision,
            create_time: micros(create_time),
            update_time: micros(update_time),
            display_name,
            email,
            groups: json!(groups),
        }
    }
}

impl<C: ConnectionTrait> Db<'_, C> {
    /// Replaces the memberships of a user.
    pub(crate) async fn set_memberships(
        &self,
        permit: &Permit,
        user: &str,
        groups: &[String],
    ) -> Result<(), StoreError> {
        membership::Entity::delete_many()
            .filter(membership::Column::Organization.eq(permit.organization()))
            .filter(membership::Column::UserId.eq(user))
            .exec(self.rows.connection())
            .await?;
        for chunk in groups.chunks(CHUNK) {
            let rows = chunk.iter().map(|group| membership::ActiveModel {
                organization: Set(permit.organization().to_owned()),
                user_id: Set(user.to_owned()),
                group_id: Set(group.clone()),
            });
            membership::Entity::insert_many(rows).exec_without_returning(self.rows.connection()).await?;
        }
        Ok(())
    }
}
