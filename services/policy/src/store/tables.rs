//! How each kind of resource lies in its table.

use pavior_store::filter::FieldMap;
use pavior_store::{StoreError, from_micros, micros};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait as _, ConnectionTrait, EntityTrait, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use pavior_auth::Permit;

use super::entity::{policy, policy_binding, role, role_binding};
use crate::domain::action::Pattern;
use crate::domain::combine::Mode;
use crate::domain::record::{PolicyBindingSpec, PolicySpec, RoleBindingSpec, RoleSpec, Stored};
use crate::domain::role::Member;
use crate::domain::source::SetKind;

/// A kind of resource with its table.
pub(crate) trait Table: Clone + std::fmt::Debug + PartialEq + Send + Sync + Sized + 'static {
    /// The table.
    type Entity: EntityTrait<Model: Send + Sync>;
    /// A row to write.
    type Row: ActiveModelTrait<Entity = Self::Entity> + Send;
    /// For people.
    const KIND: &'static str;
    /// For people, in the plural.
    const KINDS: &'static str;
    /// The collection in resource names.
    const COLLECTION: &'static str;
    /// The type of the resource.
    const TYPE: &'static str;

    /// The columns that every resource has: uid, organization, id, revision, create time.
    fn columns() -> [<Self::Entity as EntityTrait>::Column; 5];
    /// The row of a resource.
    fn to_row(stored: &Stored<Self>) -> Result<Self::Row, StoreError>;
    /// The resource of a row.
    fn from_row(row: <Self::Entity as EntityTrait>::Model) -> Result<Stored<Self>, StoreError>;
    /// The fields that a filter may name, beside `create_time`.
    fn fields(fields: FieldMap) -> FieldMap;
}

pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("column `{what}` cannot be read"))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| corrupt(what))
}

pub(super) fn time_of(value: i64) -> Result<OffsetDateTime, StoreError> {
    from_micros(value).ok_or_else(|| corrupt("time"))
}

fn last(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// The name of a mode in the database and in filters.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "MODE_OFF",
        Mode::Shadow => "MODE_SHADOW",
        Mode::Warn => "MODE_WARN",
        Mode::Enforce => "MODE_ENFORCE",
    }
}

const MODES: [Mode; 4] = [Mode::Off, Mode::Shadow, Mode::Warn, Mode::Enforce];

/// The name of a set in the database and in filters.
fn set_name(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Access => "POLICY_SET_ACCESS",
        SetKind::Guardrail => "POLICY_SET_GUARDRAIL",
    }
}

const SETS: [SetKind; 2] = [SetKind::Access, SetKind::Guardrail];

/// Names of an enum for filters: with the enum's prefix and without.
fn names<const N: usize>(all: [&'static str; N], prefix: &str) -> Vec<(String, String)> {
    let both = |name: &'static str| {
        [(name.to_owned(), name.to_owned()), (name.trim_start_matches(prefix).to_owned(), name.to_owned())]
    };
    all.into_iter().flat_map(both).collect()
}

impl Table for RoleSpec {
    type Entity = role::Entity;
    type Row = role::ActiveModel;
    const KIND: &'static str = "role";
    const KINDS: &'static str = "roles";
    const COLLECTION: &'static str = "roles";
    const TYPE: &'static str = "policy.pavior.dev/Role";

    fn columns() -> [role::Column; 5] {
        use role::Column as C;
        [C::Uid, C::Organization, C::Id, C::Revision, C::CreateTime]
    }

    fn to_row(stored: &Stored<Self>) -> Result<Self::Row, StoreError> {
        let Stored { uid, organization, id, revision, create_time, update_time, spec } = stored;
        let Self { display_name, description, actions } = spec;
        let actions: Vec<String> = actions.iter().map(ToString::to_string).collect();
        Ok(role::ActiveModel {
            uid: Set(*uid),
            organization: Set(organization.clone()),
            id: Set(id.clone()),
            revision: Set(*revision),
            create_time: Set(micros(*create_time)),
            update_time: Set(micros(*update_time)),
            display_name: Set(display_name.clone()),
            description: Set(description.clone()),
            actions: Set(to_json(&actions)?),
        })
    }

    fn from_row(row: role::Model) -> Result<Stored<Self>, StoreError> {
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
        let (create_time, update_time) = (time_of(create_time)?, time_of(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, spec })
    }

    fn fields(fields: FieldMap) -> FieldMap {
        fields.text("display_name", role::Column::DisplayName).global(["display_name"])
    }
}

impl Table for RoleBindingSpec {
    type Entity = role_binding::Entity;
    type Row = role_binding::ActiveModel;
    const KIND: &'static str = "role binding";
    const KINDS: &'static str = "role bindings";
    const COLLECTION: &'static str = "roleBindings";
    const TYPE: &'static str = "policy.pavior.dev/RoleBinding";

    fn columns() -> [role_binding::Column; 5] {
        use role_binding::Column as C;
        [C::Uid, C::Organization, C::Id, C::Revision, C::CreateTime]
    }

    fn to_row(stored: &Stored<Self>) -> Result<Self::Row, StoreError> {
        let Stored { uid, organization, id, revision, create_time, update_time, spec } = stored;
        let Self { role, members, project, owned_only } = spec;
        let members: Vec<String> = members.iter().map(|member| member.name(organization)).collect();
        let scope = match project {
            Some(project) => format!("organizations/{organization}/projects/{project}"),
            None => format!("organizations/{organization}"),
        };
        Ok(role_binding::ActiveModel {
            uid: Set(*uid),
            organization: Set(organization.clone()),
            id: Set(id.clone()),
            revision: Set(*revision),
            create_time: Set(micros(*create_time)),
            update_time: Set(micros(*update_time)),
            role: Set(format!("organizations/{organization}/roles/{role}")),
            members: Set(to_json(&members)?),
            scope: Set(scope),
            owned_only: Set(*owned_only),
        })
    }

    fn from_row(row: role_binding::Model) -> Result<Stored<Self>, StoreError> {
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
            owned_only,
        } = row;
        let members: Vec<String> = from_json(&members, "members")?;
        let members =
            members.iter().map(|name| Member::parse(name, &organization).map_err(|_| corrupt("members")));
        let spec = Self {
            role: last(&role),
            members: members.collect::<Result<_, _>>()?,
            project: scope.contains("/projects/").then(|| last(&scope)),
            owned_only,
        };
        let (create_time, update_time) = (time_of(create_time)?, time_of(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, spec })
    }

    fn fields(fields: FieldMap) -> FieldMap {
        fields.text("role", role_binding::Column::Role).text("scope", role_binding::Column::Scope)
    }
}

impl Table for PolicySpec {
    type Entity = policy::Entity;
    type Row = policy::ActiveModel;
    const KIND: &'static str = "policy";
    const KINDS: &'static str = "policies";
    const COLLECTION: &'static str = "policies";
    const TYPE: &'static str = "policy.pavior.dev/Policy";

    fn columns() -> [policy::Column; 5] {
        use policy::Column as C;
        [C::Uid, C::Organization, C::Id, C::Revision, C::CreateTime]
    }

    fn to_row(stored: &Stored<Self>) -> Result<Self::Row, StoreError> {
        let Stored { uid, organization, id, revision, create_time, update_time, spec } = stored;
        let Self { display_name, description, kind, source, digest } = spec;
        Ok(policy::ActiveModel {
            uid: Set(*uid),
            organization: Set(organization.clone()),
            id: Set(id.clone()),
            revision: Set(*revision),
            create_time: Set(micros(*create_time)),
            update_time: Set(micros(*update_time)),
            display_name: Set(display_name.clone()),
            description: Set(description.clone()),
            policy_set: Set(set_name(*kind).to_owned()),
            source: Set(source.clone()),
            digest: Set(digest.clone()),
        })
    }

    fn from_row(row: policy::Model) -> Result<Stored<Self>, StoreError> {
        let policy::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            display_name,
            description,
            policy_set,
            source,
            digest,
        } = row;
        let kind = SETS
            .into_iter()
            .find(|kind| set_name(*kind) == policy_set)
            .ok_or_else(|| corrupt("policy_set"))?;
        let spec = Self { display_name, description, kind, source, digest };
        let (create_time, update_time) = (time_of(create_time)?, time_of(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, spec })
    }

    fn fields(fields: FieldMap) -> FieldMap {
        let sets = names(SETS.map(set_name), "POLICY_SET_");
        let fields = fields.text("display_name", policy::Column::DisplayName);
        fields.enumeration("policy_set", policy::Column::PolicySet, sets).global(["display_name"])
    }
}

impl Table for PolicyBindingSpec {
    type Entity = policy_binding::Entity;
    type Row = policy_binding::ActiveModel;
    const KIND: &'static str = "policy binding";
    const KINDS: &'static str = "policy bindings";
    const COLLECTION: &'static str = "policyBindings";
    const TYPE: &'static str = "policy.pavior.dev/PolicyBinding";

    fn columns() -> [policy_binding::Column; 5] {
        use policy_binding::Column as C;
        [C::Uid, C::Organization, C::Id, C::Revision, C::CreateTime]
    }

    fn to_row(stored: &Stored<Self>) -> Result<Self::Row, StoreError> {
        let Stored { uid, organization, id, revision, create_time, update_time, spec } = stored;
        let Self { policy, projects, environment_classes, mode } = spec;
        Ok(policy_binding::ActiveModel {
            uid: Set(*uid),
            organization: Set(organization.clone()),
            id: Set(id.clone()),
            revision: Set(*revision),
            create_time: Set(micros(*create_time)),
            update_time: Set(micros(*update_time)),
            policy: Set(format!("organizations/{organization}/policies/{policy}")),
            projects: Set(to_json(projects)?),
            environment_classes: Set(to_json(environment_classes)?),
            mode: Set(mode_name(*mode).to_owned()),
        })
    }

    fn from_row(row: policy_binding::Model) -> Result<Stored<Self>, StoreError> {
        let policy_binding::Model {
            uid,
            organization,
            id,
            revision,
            create_time,
            update_time,
            policy,
            projects,
            environment_classes,
            mode,
        } = row;
        let spec = Self {
            policy: last(&policy),
            projects: from_json(&projects, "projects")?,
            environment_classes: from_json(&environment_classes, "environment_classes")?,
            mode: MODES.into_iter().find(|m| mode_name(*m) == mode).ok_or_else(|| corrupt("mode"))?,
        };
        let (create_time, update_time) = (time_of(create_time)?, time_of(update_time)?);
        Ok(Stored { uid, organization, id, revision, create_time, update_time, spec })
    }

    fn fields(fields: FieldMap) -> FieldMap {
        let modes = names(MODES.map(mode_name), "MODE_");
        let fields = fields.text("policy", policy_binding::Column::Policy);
        fields.enumeration("mode", policy_binding::Column::Mode, modes)
    }
}

/// How many of those that refer to something are named.
const MAX_DEPENDENTS: u64 = 5;

/// Ids of role bindings that grant a role.
pub(crate) async fn role_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    role: &str,
) -> Result<Vec<String>, StoreError> {
    use role_binding::Column as C;
    let name = format!("organizations/{}/roles/{role}", permit.organization());
    let rows = role_binding::Entity::find()
        .filter(C::Organization.eq(permit.organization()))
        .filter(C::Role.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(MAX_DEPENDENTS).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Ids of bindings that put a policy into force.
pub(crate) async fn policy_bindings_of<C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    policy: &str,
) -> Result<Vec<String>, StoreError> {
    use policy_binding::Column as C;
    let name = format!("organizations/{}/policies/{policy}", permit.organization());
    let rows = policy_binding::Entity::find()
        .filter(C::Organization.eq(permit.organization()))
        .filter(C::Policy.eq(name));
    let rows = rows.order_by_asc(C::Id).limit(MAX_DEPENDENTS).all(db).await?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
