//! Reads for whole pages: as many queries as there are kinds of things on it, however many rows it has.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};

use super::entity::{deployment, environment, project, run};
use super::{Db, db};
use crate::error::Result;

macro_rules! keyed {
    ($($(#[$doc:meta])* $method:ident, $entity:ident, $column:ident, $field:ident);+ $(;)?) => {
        impl Db {
            $(
                $(#[$doc])*
                pub async fn $method(
                    &self,
                    permit: &Permit,
                    keys: Vec<String>,
                ) -> Result<BTreeMap<String, $entity::Model>> {
                    if keys.is_empty() {
                        return Ok(BTreeMap::new());
                    }
                    let rows = $entity::Entity::find()
                        .filter($entity::Column::Organization.eq(permit.organization()))
                        .filter($entity::Column::$column.is_in(keys))
                        .all(self.store.read())
                        .await
                        .map_err(db)?;
                    Ok(rows.into_iter().map(|row| (row.$field.clone(), row)).collect())
                }
            )+
        }
    };
}

keyed! {
    /// Projects by their names.
    projects_named, project, Name, name;
    /// Environments by their names.
    environments_named, environment, Name, name;
    /// Deployments by their names.
    deployments_named, deployment, Name, name;
    /// The runs that operations made, by the names of the operations.
    runs_of_operations, run, Operation, operation;
}

impl Db {
    /// The deployments that operations made, by the names of the operations, in order of the workloads.
    pub async fn deployments_of_operations(
        &self,
        permit: &Permit,
        operations: Vec<String>,
    ) -> Result<BTreeMap<String, Vec<deployment::Model>>> {
        if operations.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = deployment::Entity::find()
            .filter(deployment::Column::Organization.eq(permit.organization()))
            .filter(deployment::Column::Operation.is_in(operations))
            .order_by_asc(deployment::Column::Resource)
            .all(self.store.read())
            .await
            .map_err(db)?;
        let mut made: BTreeMap<String, Vec<deployment::Model>> = BTreeMap::new();
        for row in rows {
            made.entry(row.operation.clone()).or_default().push(row);
        }
        Ok(made)
    }

    /// The newest run of each pipeline, whatever became of it, by the names of the pipelines.
    pub async fn latest_runs(
        &self,
        permit: &Permit,
        pipelines: Vec<String>,
    ) -> Result<BTreeMap<String, run::Model>> {
        use run::Column as C;
        if pipelines.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut newest = run::Entity::find()
            .select_only()
            .column(C::Pipeline)
            .column_as(C::CreateTime.max(), "newest")
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Pipeline.is_in(pipelines.clone()))
            .group_by(C::Pipeline);
        let newest = QuerySelect::query(&mut newest).to_owned();
        let rows = run::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Pipeline.is_in(pipelines))
            .filter(Expr::tuple([Expr::col(C::Pipeline), Expr::col(C::CreateTime)]).in_subquery(newest))
            // Of two of the same moment the later id counts.
            .order_by_asc(C::Uid)
            .all(self.store.read())
            .await
            .map_err(db)?;
        Ok(rows.into_iter().map(|row| (row.pipeline.clone(), row)).collect())
    }
}
