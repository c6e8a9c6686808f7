//! Environments, with where their workloads answer and what is deployed in them.

use std::collections::BTreeMap;
use std::time::Duration;

use pavior_auth::Permit;
use pavior_core::audit::PrincipalRef;
use pavior_resource::ListQuery;
use sea_orm::ConnectionTrait;
use time::OffsetDateTime;

use crate::domain::deployment::DeploymentState;
use crate::domain::environment::{Endpoint, Environment, EnvironmentState, EnvironmentView};
use crate::domain::names::Parent;
use crate::domain::timer::TimerKind;
use crate::store::entity::{deployment, environment, resource, timer};
use crate::store::page::{Page, in_project};
use crate::store::prelude::*;
use crate::store::{audit, found, grouped};

/// Most workloads, and most deployments, that are shown of an environment.
const MAX_SHOWN: usize = 100;

from_row! {
    environment::Model => Environment {
        uid, project, name, display_name, class, template_version, parameters, expire_time, state, operation,
        creator, create_time, update_time, revision
    } with {} without {
        organization, ttl_seconds, deployment_seq
    }
}

by_name! {
    /// An environment.
    environment, find_environment, environment => Environment;
}

keyed! {
    /// Environments by their names.
    environments_named, environment.Name => Environment.name;
}

impl Db {
    /// Environments of a project.
    pub async fn environments_page(
        &self,
        permit: &Permit,
        parent: &Parent,
        query: &ListQuery,
    ) -> Result<Page<Environment>> {
        use environment::Column as C;
        let fields = self
            .fields::<environment::Entity>()
            .text("display_name", C::DisplayName)
            .text("environment_class_id", C::Class)
            .enumeration("state", C::State, words!(EnvironmentState))
            .global(["name", "display_name"]);
        let select = environment::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(in_project(C::Project, parent));
        self.page(select, &fields, query).await
    }

    /// The environments of a project.
    pub async fn environments_of_project(&self, permit: &Permit, project: &str) -> Result<Vec<Environment>> {
        let rows = environment::Entity::find()
            .filter(environment::Column::Organization.eq(permit.organization()))
            .filter(environment::Column::Project.eq(project))
            .order_by_asc(environment::Column::Name);
        self.all(rows).await
    }

    /// Environments with their workloads, in the order of the rows: two queries, however many they are.
    pub async fn with_workloads(
        &self,
        permit: &Permit,
        rows: Vec<Environment>,
    ) -> Result<Vec<EnvironmentView>> {
        with_workloads(self.store.read(), permit.organization(), rows).await
    }

    /// An environment with its workloads.
    pub async fn environment_view(&self, permit: &Permit, row: Environment) -> Result<EnvironmentView> {
        view(self.store.read(), permit.organization(), row).await
    }

    /// Environments that would be taken down within the grace, by name: since the copy their time may have been prolonged.
    pub async fn expiring_unscoped(&self, grace: Duration) -> Result<Vec<String>> {
        let by = self.wall_time(self.store.read()).await?.saturating_add(grace_micros(grace));
        Ok(timer::Entity::find()
            .select_only()
            .column(timer::Column::Subject)
            .filter(timer::Column::Kind.eq(TimerKind::Expire))
            .filter(timer::Column::Due.lt(by))
            .order_by_asc(timer::Column::Subject)
            .into_tuple()
            .all(self.store.read())
            .await?)
    }

    /// Lets an environment stand for the grace, and says so; one that stands longer stays as it is.
    pub async fn spare_unscoped(&self, name: &str, grace: Duration, operator: &PrincipalRef) -> Result<bool> {
        self.change((name.to_owned(), operator.clone()), move |this, tx, (name, operator)| {
            Box::pin(async move {
                let due = this.wall_time(tx).await?.saturating_add(grace_micros(grace));
                let row = environment::Entity::find()
                    .filter(environment::Column::Name.eq(name.as_str()))
                    .lock_exclusive()
                    .one(tx)
                    .await?;
                let moved = timer::Entity::update_many()
                    .col_expr(timer::Column::Due, due.into())
                    .col_expr(timer::Column::Attempt, 0.into())
                    .filter(timer::Column::Subject.eq(name.as_str()))
                    .filter(timer::Column::Kind.eq(TimerKind::Expire))
                    .filter(timer::Column::Due.lt(due))
                    .exec(tx)
                    .await?;
                let Some(row) = row.filter(|_| moved.rows_affected > 0) else {
                    return Ok(Recorded::unchanged(false));
                };
                let expire_time = pavior_store::from_micros(due);
                let set = environment::ActiveModel { expire_time: Set(expire_time), ..Default::default() };
                change_environment(tx, &row, set, this.now()).await?;
                Ok(Recorded::new(true, audit::spared_event(this, operator.clone(), &row, expire_time)))
            })
        })
        .await
    }
}

/// Writes an environment's next revision.
pub(crate) async fn change_environment(
    tx: &Tx,
    row: &environment::Model,
    set: environment::ActiveModel,
    now: OffsetDateTime,
) -> Result<()> {
    let (update_time, revision) = (Set(now), Set(row.revision + 1));
    environment::Entity::update_many()
        .set(environment::ActiveModel { update_time, revision, ..set })
        .filter(environment::Column::Uid.eq(row.uid))
        .exec(tx)
        .await?;
    Ok(())
}

/// An environment with its workloads, as they are seen through this connection.
pub(crate) async fn view(
    conn: &impl ConnectionTrait,
    organization: &str,
    row: Environment,
) -> Result<EnvironmentView> {
    let without =
        EnvironmentView { environment: row.clone(), endpoints: Vec::new(), deployments: Vec::new() };
    Ok(with_workloads(conn, organization, vec![row]).await?.pop().unwrap_or(without))
}

async fn with_workloads(
    conn: &impl ConnectionTrait,
    organization: &str,
    rows: Vec<Environment>,
) -> Result<Vec<EnvironmentView>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let names = || rows.iter().map(|row| row.name.as_str());
    let answering: Vec<(String, String, String)> = resource::Entity::find()
        .select_only()
        .columns([resource::Column::Environment, resource::Column::Name, resource::Column::Url])
        .filter(resource::Column::Organization.eq(organization))
        .filter(resource::Column::Environment.is_in(names()))
        .filter(resource::Column::Url.ne(""))
        .order_by_asc(resource::Column::Name)
        .into_tuple()
        .all(conn)
        .await?;
    let running: Vec<(String, String)> = deployment::Entity::find()
        .select_only()
        .columns([deployment::Column::Environment, deployment::Column::Name])
        .filter(deployment::Column::Organization.eq(organization))
        .filter(deployment::Column::Environment.is_in(names()))
        .filter(deployment::Column::State.eq(DeploymentState::Active))
        .order_by_asc(deployment::Column::Resource)
        .into_tuple()
        .all(conn)
        .await?;
    let endpoint = |(environment, resource, url)| (environment, Endpoint { resource, url });
    let mut endpoints = grouped(answering.into_iter().map(endpoint));
    let mut deployments = grouped(running);
    let view = |row: Environment| {
        let mut endpoints = endpoints.remove(&row.name).unwrap_or_default();
        let mut deployments = deployments.remove(&row.name).unwrap_or_default();
        endpoints.truncate(MAX_SHOWN);
        deployments.truncate(MAX_SHOWN);
        EnvironmentView { environment: row, endpoints, deployments }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// The environments that an operation holds, in order of their names.
pub(crate) async fn held_environments(tx: &Tx, operation: &str) -> Result<Vec<environment::Model>> {
    Ok(environment::Entity::find()
        .filter(environment::Column::Operation.eq(operation))
        .order_by_asc(environment::Column::Name)
        .all(tx)
        .await?)
}

/// Removes an environment with everything in it.
pub(crate) async fn remove_environment(tx: &Tx, name: &str) -> Result<()> {
    let left = resource::Entity::find().filter(resource::Column::Environment.eq(name)).all(tx).await?;
    for row in left {
        super::resource::forget(tx, &row.name).await?;
    }
    deployment::Entity::delete_many().filter(deployment::Column::Environment.eq(name)).exec(tx).await?;
    crate::store::timer::remove(tx, name).await?;
    environment::Entity::delete_many().filter(environment::Column::Name.eq(name)).exec(tx).await?;
    Ok(())
}

fn grace_micros(grace: Duration) -> i64 {
    i64::try_from(grace.as_micros()).unwrap_or(i64::MAX)
}
