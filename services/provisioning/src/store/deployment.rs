//! Deployments.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use time::OffsetDateTime;

use crate::domain::deployment::{Deployment, DeploymentEvent, DeploymentState};
use crate::domain::names::Parent;
use crate::store::entity::deployment;
use crate::store::page::{Page, below};
use crate::store::prelude::*;
use crate::store::{advance, found, grouped};

from_row! {
    deployment::Model => Deployment {
        uid, resource, name, state, run, artifact, url, source_deployment, operation, creator, create_time,
        update_time
    } with {
        commit: commit_id
    } without {
        organization, project, environment
    }
}

by_name! {
    /// A deployment.
    deployment, find_deployment, deployment => Deployment;
}

keyed! {
    /// Deployments by their names.
    deployments_named, deployment.Name => Deployment.name;
}

impl Db {
    /// Deployments of an environment, newest first.
    pub async fn deployments_page(
        &self,
        permit: &Permit,
        parent: &Parent,
        query: &ListQuery,
    ) -> Result<Page<Deployment>> {
        use deployment::Column as C;
        let fields = self.fields::<deployment::Entity>().text("commit", C::CommitId).enumeration(
            "state",
            C::State,
            words!(DeploymentState),
        );
        let select = deployment::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(below(C::Environment, C::Project, parent));
        self.page(select, &fields, query).await
    }

    /// The deployments that operations made, by the names of the operations, in order of the workloads.
    pub async fn deployments_of_operations(
        &self,
        permit: &Permit,
        operations: Vec<String>,
    ) -> Result<BTreeMap<String, Vec<Deployment>>> {
        if operations.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = deployment::Entity::find()
            .filter(deployment::Column::Organization.eq(permit.organization()))
            .filter(deployment::Column::Operation.is_in(operations))
            .order_by_asc(deployment::Column::Resource);
        let rows = self.all(rows).await?.into_iter();
        Ok(grouped(rows.map(|row: Deployment| (row.operation.clone(), row))))
    }

    /// The newest deployment that runs in an environment.
    pub async fn running_deployment(&self, permit: &Permit, environment: &str) -> Result<Option<Deployment>> {
        let row = deployment::Entity::find()
            .filter(deployment::Column::Organization.eq(permit.organization()))
            .filter(deployment::Column::Environment.eq(environment))
            .filter(deployment::Column::State.eq(DeploymentState::Active))
            .order_by_desc(deployment::Column::CreateTime)
            .order_by_desc(deployment::Column::Uid);
        self.one(row).await
    }
}

/// The deployments that an operation made in an environment run from now on, each in place of the one before in its
/// workload.
pub(crate) async fn activate(tx: &Tx, environment: &str, operation: &str, now: OffsetDateTime) -> Result<()> {
    let workloads: Vec<String> = deployment::Entity::find()
        .select_only()
        .column(deployment::Column::Resource)
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::Operation.eq(operation))
        .into_tuple()
        .all(tx)
        .await?;
    if workloads.is_empty() {
        return Ok(());
    }
    let replaced = deployment::Column::Resource.is_in(workloads);
    move_deployments(tx, DeploymentEvent::Supersede, environment, Some(replaced), now).await?;
    let made = deployment::Column::Operation.eq(operation);
    move_deployments(tx, DeploymentEvent::Activate, environment, Some(made), now).await
}

/// The deployments in an environment that had not come to run never do.
pub(crate) async fn fail_pending(tx: &Tx, environment: &str, now: OffsetDateTime) -> Result<()> {
    move_deployments(tx, DeploymentEvent::Fail, environment, None, now).await
}

/// Moves deployments in an environment to the state that an event leads to, those in which it is possible.
async fn move_deployments(
    tx: &Tx,
    event: DeploymentEvent,
    environment: &str,
    which: Option<Expr>,
    now: OffsetDateTime,
) -> Result<()> {
    let rows = deployment::Entity::update_many()
        .set(deployment::ActiveModel { update_time: Set(now), ..Default::default() })
        .filter(deployment::Column::Environment.eq(environment))
        .filter(Condition::all().add_option(which));
    advance::<_, DeploymentState>(tx, rows, deployment::Column::State, event).await
}
