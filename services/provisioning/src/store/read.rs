//! Reads of single things.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entity::{deployment, environment, operation, plan, project, resource, run, secret, step};
use super::{Db, db};
use crate::domain::names;
use crate::domain::plan::Plan;
use crate::error::{Error, Result};

/// An operation with its steps.
#[derive(Debug, Clone)]
pub struct OperationView {
    /// The operation.
    pub op: operation::Model,
    /// Its steps, in order.
    pub steps: Vec<step::Model>,
}

pub(super) fn found<T>(row: Option<T>, kind: &'static str, name: &str) -> Result<T> {
    row.ok_or_else(|| Error::NotFound { kind, name: name.to_owned() })
}

macro_rules! by_name {
    ($($(#[$doc:meta])* $method:ident, $optional:ident, $entity:ident, $kind:literal);+ $(;)?) => {
        impl Db {
            $(
                $(#[$doc])*
                pub async fn $method(&self, permit: &Permit, name: &str) -> Result<$entity::Model> {
                    found(self.$optional(permit, name).await?, $kind, name)
                }

                /// The same, if it exists.
                pub async fn $optional(&self, permit: &Permit, name: &str) -> Result<Option<$entity::Model>> {
                    $entity::Entity::find()
                        .filter($entity::Column::Organization.eq(permit.organization()))
                        .filter($entity::Column::Name.eq(name))
                        .one(self.store.read())
                        .await
                        .map_err(db)
                }
            )+
        }
    };
}

by_name! {
    /// A project.
    project, find_project, project, "Project";
    /// An environment.
    environment, find_environment, environment, "Environment";
    /// A resource.
    resource, find_resource, resource, "Resource";
    /// A run.
    run, find_run, run, "Run";
    /// A deployment.
    deployment, find_deployment, deployment, "Deployment";
    /// The row of a plan.
    plan_row_of, find_plan, plan, "Plan";
    /// The row of an operation, also of one that was deleted and is kept for the record.
    kept_operation, find_kept_operation, operation, "Operation";
}

impl Db {
    /// An operation with its steps.
    pub async fn operation(&self, permit: &Permit, name: &str) -> Result<OperationView> {
        let op = self.find_kept_operation(permit, name).await?.filter(|op| op.delete_time.is_none());
        let op = found(op, "Operation", name)?;
        let steps = self.steps_unscoped(op.id).await?;
        Ok(OperationView { op, steps })
    }

    /// The steps of an operation, in order.
    pub async fn steps_unscoped(&self, operation: Uuid) -> Result<Vec<step::Model>> {
        step::Entity::find()
            .filter(step::Column::Operation.eq(operation))
            .order_by_asc(step::Column::Ordinal)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// The steps of several operations, each in order.
    pub async fn steps_of_unscoped(&self, operations: Vec<Uuid>) -> Result<BTreeMap<Uuid, Vec<step::Model>>> {
        let mut steps: BTreeMap<Uuid, Vec<step::Model>> = BTreeMap::new();
        if operations.is_empty() {
            return Ok(steps);
        }
        let rows = step::Entity::find()
            .filter(step::Column::Operation.is_in(operations))
            .order_by_asc(step::Column::Ordinal)
            .all(self.store.read())
            .await
            .map_err(db)?;
        for row in rows {
            steps.entry(row.operation).or_default().push(row);
        }
        Ok(steps)
    }

    /// One operation by its id.
    pub async fn operation_by_id_unscoped(&self, id: Uuid) -> Result<Option<operation::Model>> {
        operation::Entity::find_by_id(id).one(self.store.read()).await.map_err(db)
    }

    /// The operation that carries a plan out.
    pub async fn operation_of_plan(&self, permit: &Permit, plan: Uuid) -> Result<Option<operation::Model>> {
        operation::Entity::find()
            .filter(operation::Column::Organization.eq(permit.organization()))
            .filter(operation::Column::Plan.eq(plan))
            .one(self.store.read())
            .await
            .map_err(db)
    }

    /// A plan by its id.
    pub async fn plan_by_id_unscoped(&self, id: Uuid) -> Result<Plan> {
        let row = plan::Entity::find_by_id(id).one(self.store.read()).await.map_err(db)?;
        Ok(Plan::from_json(&found(row, "Plan", &id.to_string())?.document)?)
    }

    /// Every resource of a project, those of its environments included.
    pub async fn resources_of_project(&self, permit: &Permit, project: &str) -> Result<Vec<resource::Model>> {
        resource::Entity::find()
            .filter(resource::Column::Organization.eq(permit.organization()))
            .filter(resource::Column::Project.eq(project))
            .order_by_asc(resource::Column::Name)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// What a step may refer to: the resources of its project and of its environment.
    pub async fn resources_in_scope_unscoped(&self, resource: &str) -> Result<Vec<resource::Model>> {
        let environment = names::environment_of(resource);
        resource::Entity::find()
            .filter(resource::Column::Project.eq(names::project_of(resource)))
            .filter(resource::Column::Environment.is_in([environment, String::new()]))
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// The environments of a project.
    pub async fn environments_of_project(
        &self,
        permit: &Permit,
        project: &str,
    ) -> Result<Vec<environment::Model>> {
        environment::Entity::find()
            .filter(environment::Column::Organization.eq(permit.organization()))
            .filter(environment::Column::Project.eq(project))
            .order_by_asc(environment::Column::Name)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// The newest successful run of a project, or of one of its pipelines.
    pub async fn newest_run(&self, permit: &Permit, project: &str) -> Result<Option<run::Model>> {
        run::Entity::find()
            .filter(run::Column::Organization.eq(permit.organization()))
            .filter(run::Column::Project.eq(project))
            .filter(run::Column::State.eq("SUCCEEDED"))
            .order_by_desc(run::Column::CreateTime)
            .order_by_desc(run::Column::Uid)
            .one(self.store.read())
            .await
            .map_err(db)
    }

    /// Sealed values by their references.
    pub async fn secrets_unscoped(&self, references: Vec<String>) -> Result<Vec<secret::Model>> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        secret::Entity::find()
            .filter(secret::Column::Reference.is_in(references))
            .all(self.store.read())
            .await
            .map_err(db)
    }
}
