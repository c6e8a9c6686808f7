//! Projects.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use pavior_store::StoreError;

use crate::domain::project::{Project, ProjectEvent, ProjectState};
use crate::store::entity::{deployment, project, resource, run};
use crate::store::page::Page;
use crate::store::prelude::*;
use crate::store::{advance, found};

from_row! {
    project::Model => Project {
        uid, name, display_name, owner, template_version, parameters, state, operation, creator, create_time,
        update_time, revision
    } with {
        labels: labels.0
    } without {
        organization, run_seq, touched
    }
}

by_name! {
    /// A project.
    project, find_project, project => Project;
}

keyed! {
    /// Projects by their names.
    projects_named, project.Name => Project.name;
}

impl Db {
    /// Projects of the permit's organization.
    pub async fn projects_page(&self, permit: &Permit, query: &ListQuery) -> Result<Page<Project>> {
        use project::Column as C;
        let fields = self
            .fields::<project::Entity>()
            .text("display_name", C::DisplayName)
            .text("owner", C::Owner)
            .text("template_version", C::TemplateVersion)
            .enumeration("state", C::State, words!(ProjectState))
            .json_map("labels", C::Labels)
            .global(["name", "display_name"]);
        let select = project::Entity::find().filter(C::Organization.eq(permit.organization()));
        self.page(select, &fields, query).await
    }

    /// A project as it is until the transaction ends: nobody else changes it before.
    pub(crate) async fn held_project(&self, tx: &Tx, permit: &Permit, name: &str) -> Result<Option<Project>> {
        let row = project::Entity::find()
            .filter(project::Column::Organization.eq(permit.organization()))
            .filter(project::Column::Name.eq(name))
            .lock_exclusive();
        Ok(row.one(tx).await?.map(Project::from))
    }

    /// Writes what is said about a project that is held.
    pub(crate) async fn describe_project(&self, tx: &Tx, permit: &Permit, after: &Project) -> Result<()> {
        let Project { display_name, labels, update_time, revision, .. } = after;
        let done = project::Entity::update_many()
            .set(project::ActiveModel {
                display_name: Set(display_name.clone()),
                labels: Set(Typed(labels.clone())),
                update_time: Set(*update_time),
                revision: Set(*revision),
                ..Default::default()
            })
            .filter(project::Column::Organization.eq(permit.organization()))
            .filter(project::Column::Uid.eq(after.uid))
            .filter(project::Column::Revision.eq(revision - 1))
            .exec(tx)
            .await?;
        if done.rows_affected == 1 { Ok(()) } else { Err(StoreError::Concurrent.into()) }
    }
}

/// Removes a project with everything in it.
pub(crate) async fn remove_project(tx: &Tx, name: &str) -> Result<()> {
    let left = resource::Entity::find().filter(resource::Column::Project.eq(name)).all(tx).await?;
    for row in left {
        super::resource::forget(tx, &row.name).await?;
    }
    run::Entity::delete_many().filter(run::Column::Project.eq(name)).exec(tx).await?;
    deployment::Entity::delete_many().filter(deployment::Column::Project.eq(name)).exec(tx).await?;
    project::Entity::delete_many().filter(project::Column::Name.eq(name)).exec(tx).await?;
    Ok(())
}

/// The project that an operation held stands, and nothing holds it any more.
pub(crate) async fn release_project(this: &Db, tx: &Tx, operation: &str) -> Result<()> {
    let rows = project::Entity::update_many()
        .col_expr(project::Column::Operation, Expr::value(""))
        .col_expr(project::Column::UpdateTime, Expr::value(this.now()))
        .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1))
        .filter(project::Column::Operation.eq(operation));
    advance::<_, ProjectState>(tx, rows, project::Column::State, ProjectEvent::Settle).await
}
