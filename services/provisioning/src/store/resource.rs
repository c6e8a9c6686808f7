//! Resources: what drivers made.

use std::collections::BTreeSet;

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde_json::Value;
use time::OffsetDateTime;

use crate::domain::deployment::DeploymentState;
use crate::domain::names::{self, Parent};
use crate::domain::plan::Spec;
use crate::domain::resource::{Resource, ResourceEvent, ResourceState};
use crate::store::entity::{deployment, environment, resource, secret};
use crate::store::page::{Page, in_project};
use crate::store::prelude::*;
use crate::store::{advance, found};

from_row! {
    resource::Model => Resource {
        uid, organization, project, environment, name, resource_type, type_id, resource_definition, driver,
        driver_version, identity, inputs, outputs, driver_state, sealed_inputs, state, generation, monthly_cost,
        undoable, create_time, update_time, revision
    } with {
        spec: spec.0, depends_on: depends_on.0
    } without {
        url, fence
    }
}

/// A resource as it is recorded, as far as its driver is concerned.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct ResourceRecord {
    /// The driver's id.
    pub driver: String,
    /// The driver's name of it; empty as long as nothing is made.
    pub identity: String,
    /// Its resource name.
    pub name: String,
    /// The organization's id.
    pub organization: String,
    /// The id of its type.
    pub type_id: String,
    /// Its state.
    pub state: ResourceState,
    /// The inputs of its last apply, with secrets as references.
    pub inputs: serde_json::Value,
    /// Where they are sealed when there are secrets in them; else empty.
    pub sealed_inputs: String,
}

impl From<&Resource> for ResourceRecord {
    fn from(row: &Resource) -> Self {
        Self {
            driver: row.driver.clone(),
            identity: row.identity.clone(),
            name: row.name.clone(),
            organization: row.organization.clone(),
            type_id: row.type_id.clone(),
            state: row.state,
            inputs: row.inputs.clone(),
            sealed_inputs: row.sealed_inputs.clone(),
        }
    }
}

by_name! {
    /// What is recorded under a name, be it declared or only to be removed.
    recorded, find_recorded, resource => Resource;
}

/// Resources: what somebody declares. What is in no project is recorded for its removal only.
fn declared() -> Select<resource::Entity> {
    resource::Entity::find().filter(resource::Column::Project.ne(""))
}

impl Db {
    /// A resource, if it exists.
    pub async fn find_resource(&self, permit: &Permit, name: &str) -> Result<Option<Resource>> {
        let row = declared()
            .filter(resource::Column::Organization.eq(permit.organization()))
            .filter(resource::Column::Name.eq(name));
        self.one(row).await
    }

    /// Resources of a project's own section, or of an environment.
    pub async fn resources_page(
        &self,
        permit: &Permit,
        parent: &Parent,
        query: &ListQuery,
    ) -> Result<Page<Resource>> {
        use resource::Column as C;
        let fields = self
            .fields::<resource::Entity>()
            .text("resource_type", C::ResourceType)
            .text("driver_id", C::Driver)
            .enumeration("state", C::State, words!(ResourceState))
            .global(["name"]);
        let section = match (parent.pattern(), parent.one()) {
            (names::ENVIRONMENT, Some(environment)) => C::Environment.eq(environment.as_str()),
            (names::ENVIRONMENT, None) => C::Environment.gt(""),
            _ => C::Environment.eq(""),
        };
        let select = declared()
            .filter(C::Organization.eq(permit.organization()))
            .filter(in_project(C::Project, parent))
            .filter(section);
        self.page(select, &fields, query).await
    }

    /// Pipelines of a project: its resources of the pipeline type.
    pub async fn pipelines_page(
        &self,
        permit: &Permit,
        parent: &Parent,
        query: &ListQuery,
    ) -> Result<Page<Resource>> {
        use resource::Column as C;
        let fields = self.fields::<resource::Entity>();
        let select = declared()
            .filter(C::Organization.eq(permit.organization()))
            .filter(in_project(C::Project, parent))
            .filter(C::Environment.eq(""))
            .filter(C::TypeId.eq(names::PIPELINE_TYPE));
        self.page(select, &fields, query).await
    }

    /// Every resource of a project, those of its environments included.
    pub async fn resources_of_project(&self, permit: &Permit, project: &str) -> Result<Vec<Resource>> {
        let rows = resource::Entity::find()
            .filter(resource::Column::Organization.eq(permit.organization()))
            .filter(resource::Column::Project.eq(project))
            .order_by_asc(resource::Column::Name);
        self.all(rows).await
    }

    /// What a step may refer to: its own resource, and those of the project of its operation and of its environment. What
    /// is in no project is alone, whatever project has its name.
    pub async fn resources_in_scope_unscoped(&self, project: &str, resource: &str) -> Result<Vec<Resource>> {
        use resource::Column as C;
        let environment = names::environment_of(resource);
        let near = (!project.is_empty())
            .then(|| C::Project.eq(project).and(C::Environment.is_in([environment, String::new()])));
        let rows =
            resource::Entity::find().filter(Condition::any().add_option(near).add(C::Name.eq(resource)));
        self.all(rows).await
    }

    /// The identities that are declared of a driver.
    pub async fn declared_of_unscoped(&self, driver: &str) -> Result<BTreeSet<String>> {
        let identities: Vec<String> = declared()
            .select_only()
            .column(resource::Column::Identity)
            .filter(resource::Column::Driver.eq(driver))
            .filter(resource::Column::Identity.ne(""))
            .into_tuple()
            .all(self.store.read())
            .await?;
        Ok(identities.into_iter().collect())
    }

    /// What is recorded of a driver's thing.
    pub async fn recorded_as(
        &self,
        permit: &Permit,
        driver: &str,
        identity: &str,
    ) -> Result<Option<Resource>> {
        let row = recorded_as(self.store.read(), permit.organization(), driver, identity).await?;
        Ok(row.map(Resource::from))
    }

    /// Every resource that has been made, of one organization or of all, by name.
    pub async fn recorded_unscoped(&self, organization: Option<&str>) -> Result<Vec<ResourceRecord>> {
        use resource::Column as C;
        let mut query = resource::Entity::find()
            .select_only()
            .columns([
                C::Driver,
                C::Identity,
                C::Name,
                C::Organization,
                C::TypeId,
                C::State,
                C::Inputs,
                C::SealedInputs,
            ])
            .filter(C::Identity.ne(""))
            .order_by_asc(C::Name);
        if let Some(organization) = organization {
            query = query.filter(C::Organization.eq(organization));
        }
        Ok(query.into_model().all(self.store.read()).await?)
    }
}

/// What is recorded of a driver's thing in an organization.
pub(crate) async fn recorded_as(
    connection: &impl ConnectionTrait,
    organization: &str,
    driver: &str,
    identity: &str,
) -> Result<Option<resource::Model>> {
    let rows = resource::Entity::find()
        .filter(resource::Column::Organization.eq(organization))
        .filter(resource::Column::Driver.eq(driver))
        .filter(resource::Column::Identity.eq(identity))
        // What is recorded for its removal only comes last.
        .order_by_desc(resource::Column::Project);
    Ok(rows.one(connection).await?)
}

/// Sets columns of a resource.
pub(crate) async fn set_resource(tx: &Tx, name: &str, set: resource::ActiveModel) -> Result<()> {
    resource::Entity::update_many().set(set).filter(resource::Column::Name.eq(name)).exec(tx).await?;
    Ok(())
}

/// Moves a resource to the state that an event leads to.
pub(crate) async fn move_resource(tx: &Tx, name: &str, event: ResourceEvent) -> Result<()> {
    let row = resource::Entity::update_many().filter(resource::Column::Name.eq(name));
    advance::<_, ResourceState>(tx, row, resource::Column::State, event).await
}

/// Deletes a resource's row and its secrets.
pub(crate) async fn forget(tx: &Tx, name: &str) -> Result<()> {
    let Some(row) = resource::Entity::find().filter(resource::Column::Name.eq(name)).one(tx).await? else {
        return Ok(());
    };
    secret::Entity::delete_many().filter(secret::Column::Resource.eq(row.uid)).exec(tx).await?;
    resource::Entity::delete_by_id(row.uid).exec(tx).await?;
    // Nothing runs in a workload that is gone.
    let over = deployment::ActiveModel { state: Set(DeploymentState::Superseded), ..Default::default() };
    deployment::Entity::update_many()
        .set(over)
        .filter(deployment::Column::Environment.eq(row.environment))
        .filter(deployment::Column::Resource.eq(name))
        .filter(deployment::Column::State.eq(DeploymentState::Active))
        .exec(tx)
        .await?;
    Ok(())
}

/// Notes where a resource answers, which is nowhere unless it is a workload: its environment, and what is deployed in it,
/// are found there from now on, also after an undo, which starts the former one somewhere else.
pub(crate) async fn note_url(
    tx: &Tx,
    resource: &str,
    environment: &str,
    spec: &Spec,
    outputs: &Value,
    now: OffsetDateTime,
) -> Result<()> {
    let url = match spec.is_workload() {
        true => outputs.get("url").and_then(Value::as_str).unwrap_or_default(),
        false => "",
    };
    let moved = resource::Entity::update_many()
        .set(resource::ActiveModel { url: Set(url.to_owned()), ..Default::default() })
        .filter(resource::Column::Name.eq(resource))
        .filter(resource::Column::Url.ne(url))
        .exec(tx)
        .await?;
    if moved.rows_affected == 0 {
        return Ok(());
    }
    environment::Entity::update_many()
        .set(environment::ActiveModel { update_time: Set(now), ..Default::default() })
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(environment))
        .exec(tx)
        .await?;
    deployment::Entity::update_many()
        .set(deployment::ActiveModel {
            url: Set(url.to_owned()),
            update_time: Set(now),
            ..Default::default()
        })
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::Resource.eq(resource))
        .filter(deployment::Column::State.eq(DeploymentState::Active))
        .exec(tx)
        .await?;
    Ok(())
}
