//! Pages of lists: AIP-160 filters, orders and keysets, one function for every table.

use pavior_auth::Permit;
use pavior_core::filter::{Filter, order_by};
use pavior_store::filter::{FieldMap, condition};
use pavior_store::keyset::position;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QuerySelect, Select};
use serde_json::{Value, json};

use super::entity::{deployment, environment, operation, plan, project, resource, run};
use super::retention::done_states;
use super::{Db, db};
use crate::domain::names;
use crate::error::{Error, Result};

/// What is asked of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// The parent, by resource name.
    pub parent: String,
    /// AIP-160.
    pub filter: String,
    /// AIP-132.
    pub order_by: String,
    /// How many rows.
    pub limit: u64,
    /// The position after which to go on.
    pub after: Option<Value>,
}

/// Rows with the position of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<M> {
    /// The rows.
    pub rows: Vec<(M, Value)>,
}

fn refuse(field: &str, problem: impl std::fmt::Display) -> Error {
    Error::Listing { field: field.to_owned(), problem: problem.to_string() }
}

type Positions<M> = fn(&M, &str) -> Option<Value>;

impl Db {
    async fn page<E>(
        &self,
        select: Select<E>,
        fields: &FieldMap,
        uid: E::Column,
        listing: &Listing,
        default_order: &str,
        positions: Positions<E::Model>,
    ) -> Result<Page<E::Model>>
    where
        E: EntityTrait,
        E::Model: FromQueryResult + Sized + Send + Sync,
    {
        let filter = Filter::parse(&listing.filter).map_err(|error| refuse("filter", error))?;
        let condition = condition(&filter, fields).map_err(|error| refuse("filter", error))?;
        let order = if listing.order_by.trim().is_empty() { default_order } else { &listing.order_by };
        let order = order_by(order).map_err(|error| refuse("order_by", error))?;
        let sortable = |path: &[String]| matches!(path, [one] if one == "name" || one == "create_time");
        if let Some((path, _)) = order.iter().find(|(path, _)| !sortable(path)) {
            return Err(refuse("order_by", format!("`{}` cannot be sorted by", path.join("."))));
        }
        let keyset = fields.keyset(&order, uid).map_err(|error| refuse("order_by", error))?;
        let mut select = keyset.order(select.filter(condition)).limit(listing.limit);
        if let Some(after) = &listing.after {
            select = select.filter(keyset.after(after).map_err(|error| refuse("page_token", error))?);
        }
        let rows = select.all(self.store.read()).await.map_err(db)?;
        let rows = rows
            .into_iter()
            .map(|row| {
                let mut keys: Vec<Value> =
                    order.iter().filter_map(|(path, _)| positions(&row, &path.join("."))).collect();
                keys.extend(positions(&row, "uid"));
                (row, json!(keys))
            })
            .collect();
        Ok(Page { rows })
    }

    fn fields(&self) -> FieldMap {
        FieldMap::new(self.store.backend())
    }

    /// Projects of the permit's organization.
    pub async fn projects_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<project::Model>> {
        use project::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("display_name", C::DisplayName)
            .text("owner", C::Owner)
            .text("template_version", C::TemplateVersion)
            .enumeration("state", C::State, same(&["CREATING", "ACTIVE", "DELETING", "STUCK"]))
            .json_map("labels", C::Labels)
            .timestamp("create_time", C::CreateTime)
            .global(["name", "display_name"]);
        let select = project::Entity::find().filter(C::Organization.eq(permit.organization()));
        self.page(select, &fields, C::Uid, listing, "name", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Environments of a project.
    pub async fn environments_page(
        &self,
        permit: &Permit,
        listing: &Listing,
    ) -> Result<Page<environment::Model>> {
        use environment::Column as C;
        let states = ["AWAITING_APPROVAL", "CREATING", "ACTIVE", "UPDATING", "DELETING", "STUCK"];
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("display_name", C::DisplayName)
            .text("environment_class_id", C::Class)
            .enumeration("state", C::State, same(&states))
            .timestamp("create_time", C::CreateTime)
            .global(["name", "display_name"]);
        let select = environment::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Project.eq(listing.parent.clone()));
        self.page(select, &fields, C::Uid, listing, "name", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Resources of a project's own section, or of an environment.
    pub async fn resources_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<resource::Model>> {
        use resource::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("resource_type", C::ResourceType)
            .text("driver_id", C::Driver)
            .enumeration("state", C::State, same(&["CREATING", "ACTIVE", "UPDATING", "DELETING", "FAILED"]))
            .timestamp("create_time", C::CreateTime)
            .global(["name"]);
        let (project, environment) =
            (names::project_of(&listing.parent), names::environment_of(&listing.parent));
        let select = resource::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Project.eq(project))
            .filter(C::Environment.eq(environment));
        self.page(select, &fields, C::Uid, listing, "name", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Pipelines of a project: its resources of the pipeline type.
    pub async fn pipelines_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<resource::Model>> {
        use resource::Column as C;
        let fields = self.fields().text("name", C::Name).timestamp("create_time", C::CreateTime);
        let select = resource::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Project.eq(listing.parent.clone()))
            .filter(C::Environment.eq(""))
            .filter(C::TypeId.eq(crate::domain::names::PIPELINE_TYPE));
        self.page(select, &fields, C::Uid, listing, "name", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Runs of a pipeline, newest first.
    pub async fn runs_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<run::Model>> {
        use run::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("commit", C::CommitId)
            .enumeration("state", C::State, same(&["QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"]))
            .timestamp("create_time", C::CreateTime);
        let select = run::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Pipeline.eq(listing.parent.clone()));
        self.page(select, &fields, C::Uid, listing, "create_time desc", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Deployments of an environment, newest first.
    pub async fn deployments_page(
        &self,
        permit: &Permit,
        listing: &Listing,
    ) -> Result<Page<deployment::Model>> {
        use deployment::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("commit", C::CommitId)
            .enumeration("state", C::State, same(&["PENDING", "ACTIVE", "SUPERSEDED", "FAILED"]))
            .timestamp("create_time", C::CreateTime);
        let select = deployment::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::Environment.eq(listing.parent.clone()));
        self.page(select, &fields, C::Uid, listing, "create_time desc", |row, key| {
            key_of(key, row.uid, &row.name, row.create_time)
        })
        .await
    }

    /// Plans of the permit's organization, newest first.
    pub async fn plans_page(&self, permit: &Permit, listing: &Listing) -> Result<Page<plan::Model>> {
        use plan::Column as C;
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("action", C::Action)
            .text("target", C::Target)
            .text("requester", C::Requester)
            .timestamp("create_time", C::CreateTime);
        let select = plan::Entity::find().filter(C::Organization.eq(permit.organization()));
        self.page(select, &fields, C::Id, listing, "create_time desc", |row, key| {
            key_of(key, row.id, &row.name, row.create_time)
        })
        .await
    }

    /// Operations of the permit's organization, newest first.
    pub async fn operations_page(
        &self,
        permit: &Permit,
        listing: &Listing,
    ) -> Result<Page<operation::Model>> {
        use operation::Column as C;
        let states =
            crate::domain::state::OperationState::ALL.iter().map(|state| (state.as_str(), state.as_str()));
        let fields = self
            .fields()
            .text("name", C::Name)
            .text("action", C::Action)
            .text("target", C::Target)
            .text("requester", C::Requester)
            .enumeration("state", C::State, states)
            .bool_expr("done", Expr::col(C::State).is_in(done_states()))
            .timestamp("create_time", C::CreateTime);
        let select = operation::Entity::find()
            .filter(C::Organization.eq(permit.organization()))
            .filter(C::DeleteTime.is_null());
        self.page(select, &fields, C::Id, listing, "create_time desc", |row, key| {
            key_of(key, row.id, &row.name, row.create_time)
        })
        .await
    }
}

fn same(values: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    values.iter().map(|value| (*value, *value)).collect()
}

fn key_of(key: &str, uid: uuid::Uuid, name: &str, create_time: time::OffsetDateTime) -> Option<Value> {
    match key {
        "uid" => Some(position::uuid(uid)),
        "name" => Some(json!(name)),
        "create_time" => Some(position::time(create_time)),
        _ => None,
    }
}
