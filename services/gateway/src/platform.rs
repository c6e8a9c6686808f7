//! `PlatformService`: answers that several services are asked for side by side.
//!
//! What it shows of resources it asks for through the gateway's own path, as its caller: every part is governed and
//! recorded as if the caller had asked for it itself.

use pavior_core::Fault;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, join_all};
use http::{Request as HttpRequest, Response as HttpResponse};
use pavior_auth::{Peer, Permit, ServiceIdentity, permit};
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_proto::google::longrunning::operations_client::OperationsClient;
use pavior_proto::google::longrunning::{GetOperationRequest, Operation};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::identity::v1::{GetGroupRequest, Group, ListMembershipsRequest};
use pavior_proto::pavior::platform::v1::platform_service_server::PlatformService;
use pavior_proto::pavior::platform::v1::project_overview::ActiveOperation;
use pavior_proto::pavior::platform::v1::{
    GetProjectOverviewRequest, ListAllowedActionsRequest, ListAllowedActionsResponse, ProjectOverview,
    WhoAmIRequest, WhoAmIResponse,
};
use pavior_proto::pavior::policy::internal::v1::ListAllowedActionsRequest as PolicyQuestion;
use pavior_proto::pavior::policy::v1::approval_service_client::ApprovalServiceClient;
use pavior_proto::pavior::policy::v1::{Approval, ListApprovalsRequest};
use pavior_proto::pavior::provisioning::v1::pipeline_service_client::PipelineServiceClient;
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use pavior_proto::pavior::provisioning::v1::{
    Environment, GetProjectRequest, ListEnvironmentsRequest, ListPipelinesRequest, ListRunsRequest,
    OperationMetadata, Project, Run,
};
use pavior_rpc::problem::Problem;
use pavior_rpc::{BoxError, Transport};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};
use tower::Service;

use crate::actions::Actions;
use crate::admission::{Caller, about, principal_to_pb};
use crate::gateway::Engine;
use crate::resource::{PLATFORM_ID, Resource};
use crate::table::Method;

/// More memberships than one can have.
const MEMBERSHIPS: i32 = 1_000;
/// Parts of one overview.
const ENVIRONMENTS: i32 = 100;
const PIPELINES: i32 = 10;
const RUNS: i32 = 5;
const APPROVALS: i32 = 200;

/// The service. It is one of the gateway's upstreams, and asks the gateway itself.
pub(crate) struct Platform {
    engine: Weak<Engine>,
    identity: ServiceIdentity,
    /// Signed, for what concerns nobody but the caller.
    directory: Option<IdentityServiceClient<Peer>>,
}

impl Platform {
    pub(crate) fn new(engine: Weak<Engine>, identity: ServiceIdentity, catalog: Option<Peer>) -> Self {
        Self { engine, identity, directory: catalog.map(IdentityServiceClient::new) }
    }

    #[allow(clippy::result_large_err)]
    fn engine(&self) -> Result<Arc<Engine>, Status> {
        self.engine.upgrade().ok_or_else(|| Problem::unavailable("the gateway is shutting down").into())
    }

    /// The groups of the caller in the catalog; somebody whom the catalog does not know has none.
    async fn catalog_groups(&self, permit: &Permit) -> Result<Vec<String>, Status> {
        let principal = permit.principal();
        let known = principal.kind == PrincipalKind::User && principal.organization != PLATFORM_ID;
        let Some(mut directory) = self.directory.clone().filter(|_| known) else {
            return Ok(Vec::new());
        };
        let request = ListMembershipsRequest {
            parent: format!("organizations/{}/groups/-", principal.organization),
            filter: format!("member = \"{}\"", principal.name),
            page_size: MEMBERSHIPS,
            ..Default::default()
        };
        let found = directory.list_memberships(self.identity.request(permit, request)).await;
        let found = found.map_err(|status| Problem::from_dependency("catalog", &status))?.into_inner();
        let group = |name: String| name.split_once("/memberships/").map(|(group, _)| group.to_owned());
        Ok(found.memberships.into_iter().filter_map(|one| group(one.name)).collect())
    }
}

#[tonic::async_trait]
impl PlatformService for Platform {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let permit = permit(&request)?;
        let principal = permit.principal();
        let mut groups = self.catalog_groups(&permit).await?;
        let own = principal.groups.iter();
        groups.extend(own.map(|group| format!("organizations/{}/groups/{group}", principal.organization)));
        groups.sort();
        groups.dedup();
        Ok(Response::new(WhoAmIResponse { principal: Some(principal_to_pb(principal)), groups }))
    }

    async fn list_allowed_actions(
        &self,
        request: Request<ListAllowedActionsRequest>,
    ) -> Result<Response<ListAllowedActionsResponse>, Status> {
        let permit = permit(&request)?;
        let engine = self.engine()?;
        let resource = Resource::parse(&request.get_ref().resource)
            .map_err(|problem| Problem::invalid_field("resource", Fault::Pattern, problem))?;
        let actions = Actions::about(&engine.table, &resource.name);
        if actions.is_empty() {
            return Ok(Response::new(ListAllowedActionsResponse::default()));
        }
        let principal = Arc::new(permit.principal().clone());
        let facts = named_facts(&engine, &principal, &resource).await?;
        let question = PolicyQuestion {
            organization: resource.organization_name(),
            principal: Some(principal_to_pb(&principal)),
            resource: Some(facts),
            ..actions.question()
        };
        let question = self.identity.request_as(&principal, &resource.organization, question);
        let answer = engine.decisions.clone().list_allowed_actions(question).await;
        let answer = answer.map_err(|status| Problem::from_dependency("policy", &status))?.into_inner();
        Ok(Response::new(actions.listed(answer)))
    }

    async fn get_project_overview(
        &self,
        request: Request<GetProjectOverviewRequest>,
    ) -> Result<Response<ProjectOverview>, Status> {
        let permit = permit(&request)?;
        let asked = Asked::new(self.engine()?, permit.principal());
        let overview = request.into_inner().name;
        let name = overview.strip_suffix("/overview").unwrap_or_default().to_owned();
        let (project, environments, runs, approvals) = tokio::join!(
            asked.project(&name),
            asked.environments(&name),
            asked.latest_runs(&name),
            asked.approvals(&name, permit.organization()),
        );
        // Without the project there is nothing to show; its service's own answer says why.
        let project = project?;
        let environments_known = environments.as_deref().unwrap_or_default();
        let operations = std::iter::once(&project.operation)
            .chain(environments_known.iter().map(|environment| &environment.operation))
            .filter(|operation| !operation.is_empty());
        let (owner, operations) =
            tokio::join!(asked.group(&project.owner), asked.operations(operations.cloned().collect()));
        let mut unreachable = Vec::new();
        Ok(Response::new(ProjectOverview {
            name: overview,
            owner: or_missing(owner, "owner", &mut unreachable).flatten(),
            environments: or_missing(environments, "environments", &mut unreachable).unwrap_or_default(),
            latest_runs: or_missing(runs, "latest_runs", &mut unreachable).unwrap_or_default(),
            active_operations: or_missing(operations, "active_operations", &mut unreachable)
                .unwrap_or_default(),
            pending_approvals: or_missing(approvals, "pending_approvals", &mut unreachable)
                .unwrap_or_default(),
            project: Some(project),
            unreachable,
        }))
    }
}

/// What the owner of a resource says about it. The name alone is known of the platform itself, and of what no method
/// asks for facts about.
async fn named_facts(
    engine: &Engine,
    principal: &Arc<Principal>,
    resource: &Resource,
) -> Result<ResourceFacts, Problem> {
    // The kind says who keeps it; operations have none, and belong to whoever serves them.
    let kept_by = engine.table.kind(&resource.name).map(|kind| kind.role.as_str());
    let needed = |method: &&Arc<Method>| method.facts && kept_by.is_none_or(|role| role == method.role);
    let method = engine.table.methods_on(&resource.name).find(needed);
    let Some(method) = method.filter(|_| resource.organization != PLATFORM_ID) else {
        return Ok(ResourceFacts { name: resource.name.clone(), ..Default::default() });
    };
    let facts = engine.facts_of(principal, &method.role, resource, about(resource)).await;
    facts.map_err(|status| Problem::from_dependency(&method.role, &status))
}

/// Notes a part that could not be had.
fn or_missing<T>(part: Result<T, Status>, field: &str, unreachable: &mut Vec<String>) -> Option<T> {
    match part {
        Ok(part) => Some(part),
        Err(status) => {
            tracing::debug!(field, code = ?status.code(), "part of an overview could not be had");
            unreachable.push(field.to_owned());
            None
        }
    }
}

/// The services as one caller sees them through the gateway.
struct Asked {
    through: Peer,
}

impl Asked {
    fn new(engine: Arc<Engine>, principal: &Principal) -> Self {
        let caller = Caller { principal: Arc::new(principal.clone()), expires_at: None };
        Self { through: Peer::new(Transport::new(Governed { engine, caller })) }
    }

    fn projects(&self) -> ProjectServiceClient<Peer> {
        ProjectServiceClient::new(self.through.clone())
    }

    fn pipelines(&self) -> PipelineServiceClient<Peer> {
        PipelineServiceClient::new(self.through.clone())
    }

    async fn project(&self, name: &str) -> Result<Project, Status> {
        let request = GetProjectRequest { name: name.to_owned() };
        Ok(self.projects().get_project(request).await?.into_inner())
    }

    async fn environments(&self, project: &str) -> Result<Vec<Environment>, Status> {
        let request = ListEnvironmentsRequest {
            parent: project.to_owned(),
            page_size: ENVIRONMENTS,
            ..Default::default()
        };
        Ok(self.projects().list_environments(request).await?.into_inner().environments)
    }

    /// The newest runs of each pipeline.
    async fn latest_runs(&self, project: &str) -> Result<Vec<Run>, Status> {
        let request =
            ListPipelinesRequest { parent: project.to_owned(), page_size: PIPELINES, ..Default::default() };
        let pipelines = self.pipelines().list_pipelines(request).await?.into_inner().pipelines;
        let runs = join_all(pipelines.into_iter().map(|pipeline| self.runs(pipeline.name))).await;
        let runs: Result<Vec<Vec<Run>>, Status> = runs.into_iter().collect();
        Ok(runs?.into_iter().flatten().collect())
    }

    async fn runs(&self, pipeline: String) -> Result<Vec<Run>, Status> {
        let request = ListRunsRequest {
            parent: pipeline,
            page_size: RUNS,
            order_by: "create_time desc".to_owned(),
            ..Default::default()
        };
        Ok(self.pipelines().list_runs(request).await?.into_inner().runs)
    }

    async fn approvals(&self, project: &str, organization: &str) -> Result<Vec<Approval>, Status> {
        let request = ListApprovalsRequest {
            parent: format!("organizations/{organization}"),
            page_size: APPROVALS,
            filter: "state = PENDING".to_owned(),
            ..Default::default()
        };
        let mut approvals = ApprovalServiceClient::new(self.through.clone());
        let pending = approvals.list_approvals(request).await?.into_inner().approvals;
        let below = format!("{project}/");
        let of_project =
            |request: &Approval| request.resource == project || request.resource.starts_with(&below);
        Ok(pending.into_iter().filter(of_project).collect())
    }

    /// Absent when the caller may not see it.
    async fn group(&self, name: &str) -> Result<Option<Group>, Status> {
        if name.is_empty() {
            return Ok(None);
        }
        let request = GetGroupRequest { name: name.to_owned() };
        match IdentityServiceClient::new(self.through.clone()).get_group(request).await {
            Ok(group) => Ok(Some(group.into_inner())),
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::NotFound) => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn operation(&self, name: String) -> Result<Operation, Status> {
        let mut operations = OperationsClient::new(self.through.clone());
        Ok(operations.get_operation(GetOperationRequest { name }).await?.into_inner())
    }

    async fn operations(&self, names: Vec<String>) -> Result<Vec<ActiveOperation>, Status> {
        let mut active = Vec::new();
        for operation in join_all(names.into_iter().map(|name| self.operation(name))).await {
            let operation = operation?;
            let metadata = operation.metadata.as_ref();
            let metadata = metadata.and_then(|any| OperationMetadata::decode(any.value.as_slice()).ok());
            if !operation.done {
                active.push(ActiveOperation { operation: operation.name, metadata });
            }
        }
        Ok(active)
    }
}

/// The gateway's own path for a caller who is authenticated already.
#[derive(Clone)]
struct Governed {
    engine: Arc<Engine>,
    caller: Caller,
}

impl Service<HttpRequest<Body>> for Governed {
    type Response = HttpResponse<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<HttpResponse<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let Self { engine, caller } = self.clone();
        Box::pin(async move {
            let method = engine.route(&request)?;
            Ok(engine.serve_for(&caller, &method, request).await?)
        })
    }
}
