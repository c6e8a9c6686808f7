//! The workloads of environments: where they answer, and what is deployed in them.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_store::Tx;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::entity::{deployment, environment, resource};
use super::{Db, db};
use crate::domain::plan::Spec;
use crate::error::Result;

/// Most workloads, and most deployments, that are shown of an environment.
const MAX_SHOWN: usize = 100;

/// Where a workload answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The resource that answers, by resource name.
    pub resource: String,
    /// Where.
    pub url: String,
}

/// An environment with its workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentView {
    /// Its row.
    pub row: environment::Model,
    /// Where its workloads answer, in order of their resources.
    pub endpoints: Vec<Endpoint>,
    /// The deployments that run in it, by resource name, in order of their workloads.
    pub deployments: Vec<String>,
}

impl Db {
    /// Environments with their workloads, in the order of the rows: two queries, however many they are.
    pub async fn with_workloads(
        &self,
        permit: &Permit,
        rows: Vec<environment::Model>,
    ) -> Result<Vec<EnvironmentView>> {
        with_workloads(self.store.read(), permit.organization(), rows).await
    }

    /// An environment with its workloads.
    pub async fn environment_view(
        &self,
        permit: &Permit,
        row: environment::Model,
    ) -> Result<EnvironmentView> {
        view(self.store.read(), permit.organization(), row).await
    }

    /// The newest deployment that runs in an environment.
    pub async fn running_deployment(
        &self,
        permit: &Permit,
        environment: &str,
    ) -> Result<Option<deployment::Model>> {
        deployment::Entity::find()
            .filter(deployment::Column::Organization.eq(permit.organization()))
            .filter(deployment::Column::Environment.eq(environment))
            .filter(deployment::Column::State.eq("ACTIVE"))
            .order_by_desc(deployment::Column::CreateTime)
            .order_by_desc(deployment::Column::Uid)
            .one(self.store.read())
            .await
            .map_err(db)
    }
}

/// An environment with its workloads, as they are seen through this connection.
pub(super) async fn view(
    conn: &impl ConnectionTrait,
    organization: &str,
    row: environment::Model,
) -> Result<EnvironmentView> {
    let without = EnvironmentView { row: row.clone(), endpoints: Vec::new(), deployments: Vec::new() };
    Ok(with_workloads(conn, organization, vec![row]).await?.pop().unwrap_or(without))
}

async fn with_workloads(
    conn: &impl ConnectionTrait,
    organization: &str,
    rows: Vec<environment::Model>,
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
        .await
        .map_err(db)?;
    let running: Vec<(String, String)> = deployment::Entity::find()
        .select_only()
        .columns([deployment::Column::Environment, deployment::Column::Name])
        .filter(deployment::Column::Organization.eq(organization))
        .filter(deployment::Column::Environment.is_in(names()))
        .filter(deployment::Column::State.eq("ACTIVE"))
        .order_by_asc(deployment::Column::Resource)
        .into_tuple()
        .all(conn)
        .await
        .map_err(db)?;
    let mut endpoints: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for (environment, resource, url) in answering {
        endpoints.entry(environment).or_default().push(Endpoint { resource, url });
    }
    let mut deployments: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (environment, deployment) in running {
        deployments.entry(environment).or_default().push(deployment);
    }
    let view = |row: environment::Model| {
        let mut endpoints = endpoints.remove(&row.name).unwrap_or_default();
        let mut deployments = deployments.remove(&row.name).unwrap_or_default();
        endpoints.truncate(MAX_SHOWN);
        deployments.truncate(MAX_SHOWN);
        EnvironmentView { row, endpoints, deployments }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Notes where a resource answers, which is nowhere unless it is a workload: its environment, and what is deployed in it,
/// are found there from now on, also after an undo, which starts the former one somewhere else.
pub(super) async fn note_url(
    tx: &Tx,
    resource: &str,
    environment: &str,
    spec: &Value,
    outputs: &Value,
    now: OffsetDateTime,
) -> Result<()> {
    let url = match Spec::from_json(spec)?.is_workload() {
        true => outputs.get("url").and_then(Value::as_str).unwrap_or_default(),
        false => "",
    };
    let moved = resource::Entity::update_many()
        .set(resource::ActiveModel { url: Set(url.to_owned()), ..Default::default() })
        .filter(resource::Column::Name.eq(resource))
        .filter(resource::Column::Url.ne(url))
        .exec(tx)
        .await
        .map_err(db)?;
    if moved.rows_affected == 0 {
        return Ok(());
    }
    environment::Entity::update_many()
        .set(environment::ActiveModel { update_time: Set(now), ..Default::default() })
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(environment))
        .exec(tx)
        .await
        .map_err(db)?;
    deployment::Entity::update_many()
        .set(deployment::ActiveModel {
            url: Set(url.to_owned()),
            update_time: Set(now),
            ..Default::default()
        })
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::Resource.eq(resource))
        .filter(deployment::Column::State.eq("ACTIVE"))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

/// The deployments that an operation made in an environment run from now on, each in place of the one before in its
/// workload.
pub(super) async fn activate(tx: &Tx, environment: &str, operation: &str, now: OffsetDateTime) -> Result<()> {
    let workloads: Vec<String> = deployment::Entity::find()
        .select_only()
        .column(deployment::Column::Resource)
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::Operation.eq(operation))
        .into_tuple()
        .all(tx)
        .await
        .map_err(db)?;
    if workloads.is_empty() {
        return Ok(());
    }
    let to = |state: &str| deployment::ActiveModel {
        state: Set(state.to_owned()),
        update_time: Set(now),
        ..Default::default()
    };
    deployment::Entity::update_many()
        .set(to("SUPERSEDED"))
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::State.eq("ACTIVE"))
        .filter(deployment::Column::Resource.is_in(workloads))
        .exec(tx)
        .await
        .map_err(db)?;
    deployment::Entity::update_many()
        .set(to("ACTIVE"))
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::Operation.eq(operation))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}

/// The deployments in an environment that had not come to run never do.
pub(super) async fn fail_pending(tx: &Tx, environment: &str, now: OffsetDateTime) -> Result<()> {
    let set =
        deployment::ActiveModel { state: Set("FAILED".into()), update_time: Set(now), ..Default::default() };
    deployment::Entity::update_many()
        .set(set)
        .filter(deployment::Column::Environment.eq(environment))
        .filter(deployment::Column::State.eq("PENDING"))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}
