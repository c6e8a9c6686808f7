//! Projects.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_store::Tx;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};

use crate::domain::project::{Project, ProjectEvent, ProjectState};
use crate::domain::state::Lifecycle as _;
use crate::error::Result;
use crate::store::entity::{deployment, project, resource, run};
use crate::store::page::{Listing, Page, key_of};
use crate::store::{Db, db, found};

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
    pub async fn projects_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<Project>> {
        use project::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("display_name", C::DisplayName)
            .text("owner", C::Owner)
            .text("template_version", C::TemplateVersion)
            .enumeration("state", C::State, words!(ProjectState))
            .json_map("labels", C::Labels)
            .timestamp("create_time", C::CreateTime)
            .global(["name", "display_name"]);
        let select = project::Entity::find().filter(C::Organization.eq(permit.organization()));
        self.page(select, &fields, C::Uid, listing, "name", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }
}

/// Removes a project with everything in it.
pub(crate) async fn remove_project(tx: &Tx, name: &str) -> Result<()> {
    let left =
        resource::Entity::find().filter(resource::Column::Project.eq(name)).all(tx).await.map_err(db)?;
    for row in left {
        super::resource::forget(tx, &row.name).await?;
    }
    run::Entity::delete_many().filter(run::Column::Project.eq(name)).exec(tx).await.map_err(db)?;
    deployment::Entity::delete_many()
        .filter(deployment::Column::Project.eq(name))
        .exec(tx)
        .await
        .map_err(db)?;
    project::Entity::delete_many().filter(project::Column::Name.eq(name)).exec(tx).await.map_err(db)?;
    Ok(())
}

/// The project that an operation held stands, and nothing holds it any more.
pub(crate) async fn release_project(this: &Db, tx: &Tx, operation: &str) -> Result<()> {
    let (state, from) = ProjectState::transition(ProjectEvent::Settle);
    project::Entity::update_many()
        .col_expr(project::Column::State, Expr::value(state))
        .col_expr(project::Column::Operation, Expr::value(""))
        .col_expr(project::Column::UpdateTime, Expr::value(this.now()))
        .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1))
        .filter(project::Column::Operation.eq(operation))
        .filter(project::Column::State.is_in(from.iter().copied()))
        .exec(tx)
        .await
        .map_err(db)?;
    Ok(())
}
