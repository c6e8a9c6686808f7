//! The table of role bindings.

use pavior_auth::Permit;
use pavior_resource::{Stored, Table};
use pavior_resource::{crud::LOOK_FOR, row, stored};
use pavior_store::StoreError;
use pavior_store::filter::FieldMap;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::column::{corrupt, from_json, last, to_json};
use super::entity::role_binding as row;
use crate::domain::role::role_name;
use crate::domain::role_binding::{Member, RoleBindingFields};

impl Table for RoleBindingFields {
    type Entity = row::Entity;

    fn write(stored: &Stored<Self>) -> row::Model {
        let Self { role, members, project, reach } = &stored.fields;
        let members: Vec<String> = members.iter().map(|member| member.name(&stored.organization)).collect();
        let organization = &stored.organization;
        let scope = match project {
            Some(project) => format!("organizations/{organization}/projects/{project}"),
            None => format!("organizations/{organization}"),
        };
        row!(
            stored,
            row::Model {
                role: role_name(organization, role),
                members: to_json(&members),
                scope,
                reach: (*reach).into(),
            }
        )
    }

    fn read(row: row::Model) -> Result<Stored<Self>, StoreError> {
        let organization = row.organization.clone();
        stored!(row, row::Model { role, members, scope, reach }, {
            let members: Vec<String> = from_json(&members, "members")?;
            let members =
                members.iter().map(|name| Member::parse(name, &organization).map_err(|_| corrupt("members")));
            Self {
                role: last(&role),
                members: members.collect::<Result<_, _>>()?,
                project: scope.contains("/projects/").then(|| last(&scope)),
                reach: reach.into(),
            }
        })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("role", row::Column::Role).text("scope", row::Column::Scope)
    }
}

/// Ids of role bindings that grant a role.
pub(crate) async fn role_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    role: &str,
) -> Result<Vec<String>, StoreError> {
    use row::Column as C;
    let name = role_name(permit.organization(), role);
    let rows = row::Entity::find().filter(C::Organization.eq(permit.organization())).filter(C::Role.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(LOOK_FOR).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
