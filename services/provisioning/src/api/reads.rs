//! Single things and pages of them.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::ResourceName;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::paging::Page;
use pavior_rpc::{Problem, validate};

use super::{Api, convert};
use crate::app::App;
use crate::app::rows::{self, KeptPlan, Listing};
use crate::domain::names;
use crate::error::{Error, Result};

/// A page that was asked for, opened.
struct Opened {
    page: Page,
    listing: Listing,
}

impl Api {
    fn open(&self, method: &str, args: [&str; 4], page_size: i32) -> Result<Opened> {
        let [parent, page_token, filter, order_by] = args;
        let page = Page::open(&self.app.tokens, page_size, page_token, &[method, parent, filter, order_by])?;
        let listing = Listing {
            parent: parent.to_owned(),
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
            limit: page.limit(),
            after: page.after.clone(),
        };
        Ok(Opened { page, listing })
    }

    fn close<M>(&self, opened: &Opened, page: rows::Page<M>) -> (Vec<M>, String) {
        let mut rows = page.rows;
        let next = opened.page.close(&self.app.tokens, &mut rows, |(_, position)| position.clone());
        (rows.into_iter().map(|(row, _)| row).collect(), next)
    }

    pub(crate) async fn read_project(&self, permit: &Permit, name: &str) -> Result<pb::Project> {
        App::name(permit, "provisioning.projects.get", "name", name, names::PROJECT)?;
        self.app.db.project(permit, name).await.map(convert::project)
    }

    pub(crate) async fn projects(
        &self,
        permit: &Permit,
        request: pb::ListProjectsRequest,
    ) -> Result<pb::ListProjectsResponse> {
        validate::request(&request)?;
        let pb::ListProjectsRequest { parent, page_size, page_token, filter, order_by } = request;
        App::name(permit, "provisioning.projects.list", "parent", &parent, names::ORGANIZATION)?;
        let opened = self.open("ListProjects", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.projects_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        Ok(pb::ListProjectsResponse {
            projects: rows.into_iter().map(convert::project).collect(),
            next_page_token,
        })
    }

    pub(crate) async fn read_environment(&self, permit: &Permit, name: &str) -> Result<pb::Environment> {
        App::name(permit, "provisioning.environments.get", "name", name, names::ENVIRONMENT)?;
        let row = self.app.db.environment(permit, name).await?;
        self.app.db.environment_view(permit, row).await.map(convert::environment)
    }

    pub(crate) async fn environments(
        &self,
        permit: &Permit,
        request: pb::ListEnvironmentsRequest,
    ) -> Result<pb::ListEnvironmentsResponse> {
        validate::request(&request)?;
        let pb::ListEnvironmentsRequest { parent, page_size, page_token, filter, order_by } = request;
        App::name(permit, "provisioning.environments.list", "parent", &parent, names::PROJECT)?;
        self.app.db.project(permit, &parent).await?;
        let opened = self.open("ListEnvironments", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.environments_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        let views = self.app.db.with_workloads(permit, rows).await?;
        let environments = views.into_iter().map(convert::environment).collect();
        Ok(pb::ListEnvironmentsResponse { environments, next_page_token })
    }

    pub(crate) async fn read_resource(&self, permit: &Permit, name: &str) -> Result<pb::Resource> {
        scoped(permit, "provisioning.resources.get", "name", name, "/resources/{resource}")?;
        self.app.db.resource(permit, name).await.map(convert::resource)
    }

    pub(crate) async fn resources(
        &self,
        permit: &Permit,
        request: pb::ListResourcesRequest,
    ) -> Result<pb::ListResourcesResponse> {
        validate::request(&request)?;
        let pb::ListResourcesRequest { parent, page_size, page_token, filter, order_by } = request;
        let name = scoped(permit, "provisioning.resources.list", "parent", &parent, "")?;
        match name.collection() {
            "environments" => drop(self.app.db.environment(permit, &parent).await?),
            _ => drop(self.app.db.project(permit, &parent).await?),
        }
        let opened = self.open("ListResources", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.resources_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        Ok(pb::ListResourcesResponse {
            resources: rows.into_iter().map(convert::resource).collect(),
            next_page_token,
        })
    }

    pub(crate) async fn read_pipeline(&self, permit: &Permit, name: &str) -> Result<pb::Pipeline> {
        let parsed = App::name(permit, "provisioning.pipelines.get", "name", name, names::PIPELINE)?;
        let row = self.app.pipeline(permit, &parsed).await?;
        let mut latest = self.app.db.latest_runs(permit, vec![name.to_owned()]).await?;
        Ok(convert::pipeline(row, latest.remove(name).map(|run| run.name).unwrap_or_default()))
    }

    pub(crate) async fn pipelines(
        &self,
        permit: &Permit,
        request: pb::ListPipelinesRequest,
    ) -> Result<pb::ListPipelinesResponse> {
        validate::request(&request)?;
        let pb::ListPipelinesRequest { parent, page_size, page_token, filter, order_by } = request;
        App::name(permit, "provisioning.pipelines.list", "parent", &parent, names::PROJECT)?;
        self.app.db.project(permit, &parent).await?;
        let opened = self.open("ListPipelines", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.pipelines_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        let name =
            |row: &rows::resource::Model| format!("{}/pipelines/{}", row.project, names::last(&row.name));
        let mut latest = self.app.db.latest_runs(permit, rows.iter().map(name).collect()).await?;
        let each = rows.into_iter().map(|row| {
            let latest = latest.remove(&name(&row)).map(|run| run.name);
            convert::pipeline(row, latest.unwrap_or_default())
        });
        let pipelines = each.collect();
        Ok(pb::ListPipelinesResponse { pipelines, next_page_token })
    }

    pub(crate) async fn read_run(&self, permit: &Permit, name: &str) -> Result<pb::Run> {
        App::name(permit, "provisioning.runs.get", "name", name, names::RUN)?;
        self.app.db.run(permit, name).await.map(convert::run)
    }

    pub(crate) async fn runs(
        &self,
        permit: &Permit,
        request: pb::ListRunsRequest,
    ) -> Result<pb::ListRunsResponse> {
        validate::request(&request)?;
        let pb::ListRunsRequest { parent, page_size, page_token, filter, order_by } = request;
        let name = App::name(permit, "provisioning.runs.list", "parent", &parent, names::PIPELINE)?;
        self.app.pipeline(permit, &name).await?;
        let opened = self.open("ListRuns", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.runs_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        Ok(pb::ListRunsResponse { runs: rows.into_iter().map(convert::run).collect(), next_page_token })
    }

    pub(crate) async fn read_deployment(&self, permit: &Permit, name: &str) -> Result<pb::Deployment> {
        App::name(permit, "provisioning.deployments.get", "name", name, names::DEPLOYMENT)?;
        self.app.db.deployment(permit, name).await.map(convert::deployment)
    }

    pub(crate) async fn deployments(
        &self,
        permit: &Permit,
        request: pb::ListDeploymentsRequest,
    ) -> Result<pb::ListDeploymentsResponse> {
        validate::request(&request)?;
        let pb::ListDeploymentsRequest { parent, page_size, page_token, filter, order_by } = request;
        App::name(permit, "provisioning.deployments.list", "parent", &parent, names::ENVIRONMENT)?;
        self.app.db.environment(permit, &parent).await?;
        let opened = self.open("ListDeployments", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.deployments_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        let deployments = rows.into_iter().map(convert::deployment).collect();
        Ok(pb::ListDeploymentsResponse { deployments, next_page_token })
    }

    pub(crate) async fn read_plan(&self, permit: &Permit, name: &str) -> Result<pb::Plan> {
        App::name(permit, "provisioning.plans.get", "name", name, names::PLAN)?;
        convert::kept_plan(self.app.db.kept_plan(permit, name).await?)
    }

    pub(crate) async fn plans(
        &self,
        permit: &Permit,
        request: pb::ListPlansRequest,
    ) -> Result<pb::ListPlansResponse> {
        validate::request(&request)?;
        let pb::ListPlansRequest { parent, page_size, page_token, filter, order_by } = request;
        App::name(permit, "provisioning.plans.list", "parent", &parent, names::ORGANIZATION)?;
        let opened = self.open("ListPlans", [&parent, &page_token, &filter, &order_by], page_size)?;
        let page = self.app.db.plans_page(permit, &opened.listing).await?;
        let (rows, next_page_token) = self.close(&opened, page);
        let mut plans = Vec::with_capacity(rows.len());
        for row in rows {
            plans.push(convert::kept_plan(KeptPlan::of(row)?)?);
        }
        Ok(pb::ListPlansResponse { plans, next_page_token })
    }
}

/// A name in a project, or in one of its environments.
fn scoped(permit: &Permit, action: &str, field: &str, name: &str, below: &str) -> Result<ResourceName> {
    let patterns = [names::PROJECT, names::ENVIRONMENT].map(|pattern| format!("{pattern}{below}"));
    let parsed = ResourceName::parse(name).ok().filter(|parsed| patterns.iter().any(|p| parsed.matches(p)));
    let Some(parsed) = parsed else {
        let message = format!("`{name}` must have the form `{}`", patterns.join("` or `"));
        return Err(Error::from(Problem::invalid_field(field, Fault::Pattern, message)));
    };
    App::permitted(permit, action, parsed.organization(), name)?;
    Ok(parsed)
}
