//! How each kind of resource lies in its table.

use pavior_resource::crud::LOOK_FOR;
use pavior_resource::{Table, stored_time};
use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, micros};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use pavior_auth::Permit;

use super::entity::{policy, policy_binding, role, role_binding};
use crate::domain::action::Pattern;
use crate::domain::combine::Mode;
use crate::domain::record::{
    PolicyBindingFields, PolicyFields, RoleBindingFields, RoleFields, Stored, policy_name, role_name,
};
use crate::domain::role::{Member, Reach};
use crate::domain::source::PolicyType;

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("column `{what}` cannot be read"))
}

/// Texts as JSON.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::json!(value).to_string()
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(what))
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// The type of this name.
pub(super) fn type_of(name: &str) -> Result<PolicyType, StoreError> {
    PolicyType::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| corrupt("policy_type"))
}

/// Names of an enum for filters: with the enum's prefix and without.
fn names<const N: usize>(all: [&'static str; N], prefix: &str) -> Vec<(String, String)> {
    let both = |name: &'static str| {
        [(name.to_owned(), name.to_owned()), (name.trim_start_matches(prefix).to_owned(), name.to_owned())]
    };
    all.into_iter().flat_map(both).collect()
}

impl Table for RoleFields {
    type Entity = role::Entity;

    fn write(stored: &Stored<Self>) -> role::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields: spec } = stored;
        let Self { display_name, description, actions } = spec;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        role::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            display_name: display_name.clone(),
            description: description.clone(),
            actions: to_json(&actions),
        }
    }

    fn read(row: role::Model) -> Result<Stored<Self>, StoreError> {
        let role::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            actions,
        } = row;
        let actions: Vec<String> = from_json(&actions, "actions")?;
        let actions = actions.iter().map(|text| Pattern::parse(text).map_err(|_| corrupt("actions")));
        let spec = Self { display_name, description, actions: actions.collect::<Result<_, _>>()? };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields: spec })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", role::Column::DisplayName).global(["display_name"])
    }
}

impl Table for RoleBindingFields {
    type Entity = role_binding::Entity;

    fn write(stored: &Stored<Self>) -> role_binding::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields: spec } = stored;
        let Self { role, members, project, reach } = spec;
        let members: Vec<String> = members.iter().map(|member| member.name(organization)).collect();
        let scope = match project {
            Some(project) => format!("organizations/{organization}/projects/{project}"),
            None => format!("organizations/{organization}"),
        };
        role_binding::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            role: role_name(organization, role),
            members: to_json(&members),
            scope,
            reach: reach.name().to_owned(),
        }
    }

    fn read(row: role_binding::Model) -> Result<Stored<Self>, StoreError> {
        let role_binding::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            role,
            members,
            scope,
            reach,
        } = row;
        let members: Vec<String> = from_json(&members, "members")?;
        let members =
            members.iter().map(|name| Member::parse(name, &organization).map_err(|_| corrupt("members")));
        let spec = Self {
            role: last(&role),
            members: members.collect::<Result<_, _>>()?,
            project: scope.contains("/projects/").then(|| last(&scope)),
            reach: Reach::ALL.into_iter().find(|r| r.name() == reach).ok_or_else(|| corrupt("reach"))?,
        };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields: spec })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        fields.text("role", role_binding::Column::Role).text("scope", role_binding::Column::Scope)
    }
}

impl Table for PolicyFields {
    type Entity = policy::Entity;

    fn write(stored: &Stored<Self>) -> policy::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields: spec } = stored;
        let Self { display_name, description, kind, source, digest, text_revision } = spec;
        policy::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            display_name: display_name.clone(),
            description: description.clone(),
            policy_type: kind.name().to_owned(),
            source: source.clone(),
            digest: digest.clone(),
            text_revision: *text_revision,
        }
    }

    fn read(row: policy::Model) -> Result<Stored<Self>, StoreError> {
        let policy::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            policy_type,
            source,
            digest,
            text_revision,
        } = row;
        let kind = type_of(&policy_type)?;
        let spec = Self { display_name, description, kind, source, digest, text_revision };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields: spec })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let types = names(PolicyType::ALL.map(PolicyType::name), "POLICY_TYPE_");
        let fields = fields.text("display_name", policy::Column::DisplayName);
        fields.enumeration("policy_type", policy::Column::PolicyType, types).global(["display_name"])
    }
}

impl Table for PolicyBindingFields {
    type Entity = policy_binding::Entity;

    fn write(stored: &Stored<Self>) -> policy_binding::Model {
        let Stored { uid, organization, id, revision, create_time, update_time, fields: spec } = stored;
        let Self { policy, projects, environment_class_ids, mode, text_revision } = spec;
        policy_binding::Model {
            uid: *uid,
            organization: organization.clone(),
            id: id.clone(),
            revision: *revision,
            create_time: micros(*create_time),
            update_time: micros(*update_time),
            policy: policy_name(organization, policy),
            projects: to_json(projects),
            environment_class_ids: to_json(environment_class_ids),
            mode: mode.name().to_owned(),
            text_revision: *text_revision,
        }
    }

    fn read(row: policy_binding::Model) -> Result<Stored<Self>, StoreError> {
        let policy_binding::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            policy,
            projects,
            environment_class_ids,
            mode,
            text_revision,
        } = row;
        let spec = Self {
            policy: last(&policy),
            projects: from_json(&projects, "projects")?,
            environment_class_ids: from_json(&environment_class_ids, "environment_class_ids")?,
            mode: Mode::ALL.into_iter().find(|m| m.name() == mode).ok_or_else(|| corrupt("mode"))?,
            text_revision,
        };
        let (create_time, update_time) = (stored_time(create_time)?, stored_time(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, fields: spec })
    }

    fn filter_fields(fields: FieldMap) -> FieldMap {
        let modes = names(Mode::ALL.map(Mode::name), "MODE_");
        let fields = fields.text("policy", policy_binding::Column::Policy);
        fields.enumeration("mode", policy_binding::Column::Mode, modes)
    }
}

/// Ids of role bindings that grant a role.
pub(crate) async fn role_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    role: &str,
) -> Result<Vec<String>, StoreError> {
    use role_binding::Column as C;
    let name = role_name(permit.organization(), role);
    let rows = role_binding::Entity::find()
        .filter(C::Organization.eq(permit.organization()))
        .filter(C::Role.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(LOOK_FOR).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Ids of bindings that put a policy into force.
pub(crate) async fn policy_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    policy: &str,
) -> Result<Vec<String>, StoreError> {
    use policy_binding::Column as C;
    let name = policy_name(permit.organization(), policy);
    let rows = policy_binding::Entity::find()
        .filter(C::Organization.eq(permit.organization()))
        .filter(C::Policy.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(LOOK_FOR).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
