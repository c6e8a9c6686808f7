//! `PlatformService`: answers that several services are asked for side by side.
//!
//! What it shows of resources it asks for through the gateway's own path, as its caller: every part is governed and
//! recorded as if the caller had asked for it itself.

use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, join_all};
use http::{Request as HttpRequest, Response as HttpResponse};
use pavior_auth::{Peer, Permit, ServiceIdentity, permit};
use pavior_core::principal::{INSTALLATION, Principal, PrincipalKind};
use pavior_proto::google::longrunning::ListOperationsRequest;
use pavior_proto::google::longrunning::operations_client::OperationsClient;
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
use prost_types::FieldMask;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};
use tower::Service;

use crate::actions::Actions;
use crate::admission::{Caller, about, principal_to_pb};
use crate::gateway::Gateway;
use crate::resource::Resource;
use crate::routes::Method;

/// More memberships than one can have.
const MEMBERSHIPS: i32 = 1_000;
/// What one overview holds at most.
const ENVIRONMENTS: i32 = 100;
const RUNS: i32 = 10;
const OPERATIONS: i32 = 50;
const APPROVALS: i32 = 50;
/// Of so many pipelines the newest runs are looked for.
const PIPELINES: i32 = 10;

/// The service. It is one of the gateway's upstreams, and asks the gateway itself.
pub(crate) struct Platform {
    gateway: Weak<Gateway>,
    identity: ServiceIdentity,
    /// Signed, for what concerns nobody but the caller.
    directory: Option<IdentityServiceClient<Peer>>,
}

impl Platform {
    pub(crate) fn new(gateway: Weak<Gateway>, identity: ServiceIdentity, catalog: Option<Peer>) -> Self {
        Self { gateway, identity, directory: catalog.map(IdentityServiceClient::new) }
    }

    #[allow(clippy::result_large_err)]
    fn gateway(&self) -> Result<Arc<Gateway>, Status> {
        self.gateway.upgrade().ok_or_else(|| Problem::unavailable("the gateway is shutting down").into())
    }

    /// The groups of the caller in the catalog; somebody whom the catalog does not know has none.
    async fn catalog_groups(&self, permit: &Permit) -> Result<Vec<String>, Status> {
        let principal = permit.principal();
        let known = principal.kind == PrincipalKind::User && principal.organization != INSTALLATION;
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
        let gateway = self.gateway()?;
        let name = &request.get_ref().resource;
        let resource = Resource::parse(name)
            .map_err(|problem| Problem::invalid_field("resource", Resource::fault(name), problem))?;
        let actions = Actions::about(&gateway.routes, &resource.name);
        if actions.is_empty() {
            return Ok(Response::new(ListAllowedActionsResponse::default()));
        }
        let principal = Arc::new(permit.principal().clone());
        let facts = named_facts(&gateway, &principal, &resource).await?;
        let question = PolicyQuestion {
            organization: resource.organization_name(),
            principal: Some(principal_to_pb(&principal)),
            resource: Some(facts),
            ..actions.question()
        };
        let question = self.identity.request_as(&principal, &resource.organization, question);
        let answer = gateway.admission.decisions.clone().list_allowed_actions(question).await;
        let answer = answer.map_err(|status| Problem::from_dependency("policy", &status))?.into_inner();
        Ok(Response::new(actions.listed(answer)))
    }

    async fn get_project_overview(
        &self,
        request: Request<GetProjectOverviewRequest>,
    ) -> Result<Response<ProjectOverview>, Status> {
        let permit = permit(&request)?;
        let asked = Asked::new(self.gateway()?, permit.principal());
        let overview = request.into_inner().name;
        let name = overview.strip_suffix("/overview").unwrap_or_default().to_owned();
        let organization = format!("organizations/{}", permit.organization());
        let (project, environments, runs, operations, approvals) = tokio::join!(
            asked.project(&name),
            asked.environments(&name),
            asked.latest_runs(&name),
            asked.operations(&name, &organization),
            asked.approvals(&name, &organization),
        );
        // Without the project there is nothing to show; its service's own answer says why.
        let project = project?;
        let owner = asked.group(&project.owner).await;
        let mut lacking = Lacking::default();
        Ok(Response::new(ProjectOverview {
            name: overview,
            owner: lacking.had(owner, "owner").flatten(),
            environments: lacking.list(environments, "environments"),
            latest_runs: lacking.list(runs, "latest_runs"),
            active_operations: lacking.list(operations, "active_operations"),
            pending_approvals: lacking.list(approvals, "pending_approvals"),
            project: Some(project),
            unavailable_fields: mask(lacking.unavailable),
            incomplete_fields: mask(lacking.incomplete),
        }))
    }
}

/// What the owner of a resource says about it. The name alone is known of the platform itself, and of what no method
/// asks for facts about.
async fn named_facts(
    gateway: &Gateway,
    principal: &Arc<Principal>,
    resource: &Resource,
) -> Result<ResourceFacts, Problem> {
    // The kind says who keeps it; operations have none, and belong to whoever serves them.
    let kept_by = gateway.routes.kind(&resource.name).map(|kind| kind.role.as_str());
    let needed = |method: &&Arc<Method>| method.facts && kept_by.is_none_or(|role| role == method.role);
    let method = gateway.routes.methods_on(&resource.name).find(needed);
    let Some(method) = method.filter(|_| resource.organization != INSTALLATION) else {
        return Ok(ResourceFacts { name: resource.name.clone(), ..Default::default() });
    };
    let facts = gateway.admission.facts_of(principal, &method.role, resource, about(resource)).await;
    facts.map_err(|status| Problem::from_dependency(&method.role, &status))
}

/// A list as far as it was asked for.
struct Part<T> {
    items: Vec<T>,
    /// There is more of it.
    more: bool,
}

impl<T> Part<T> {
    fn page(items: Vec<T>, next_page_token: &str) -> Self {
        Self { items, more: !next_page_token.is_empty() }
    }
}

/// What an overview lacks.
#[derive(Default)]
struct Lacking {
    unavailable: Vec<String>,
    incomplete: Vec<String>,
}

impl Lacking {
    /// Notes a part that could not be had.
    fn had<T>(&mut self, part: Result<T, Status>, field: &str) -> Option<T> {
        match part {
            Ok(part) => Some(part),
            Err(status) => {
                tracing::debug!(field, code = ?status.code(), "part of an overview could not be had");
                self.unavailable.push(field.to_owned());
                None
            }
        }
    }

    /// The same of a list, of which there may be more.
    fn list<T>(&mut self, part: Result<Part<T>, Status>, field: &str) -> Vec<T> {
        let Some(Part { items, more }) = self.had(part, field) else { return Vec::new() };
        if more {
            self.incomplete.push(field.to_owned());
        }
        items
    }
}

/// The names of fields; absent for none.
fn mask(paths: Vec<String>) -> Option<FieldMask> {
    (!paths.is_empty()).then_some(FieldMask { paths })
}

/// A filter for what is about a project, or about anything in it.
fn within(field: &str, project: &str) -> String {
    format!("({field} = \"{project}\" OR {field} = \"{project}/*\")")
}

/// The services as one caller sees them through the gateway.
struct Asked {
    through: Peer,
}

impl Asked {
    fn new(gateway: Arc<Gateway>, principal: &Principal) -> Self {
        let caller = Caller { principal: Arc::new(principal.clone()), expires_at: None };
        Self { through: Peer::new(Transport::new(Governed { gateway, caller })) }
    }

    fn projects(&self) -> ProjectServiceClient<Peer> {
        ProjectServiceClient::new(self.through.clone())
    }

    fn pipelines(&self) -> PipelineServiceClient<Peer> {
        PipelineServiceClient::new(self.through.clone())
    }

    async fn project(&self, name: &str) -> Result<Project, Status> {
        let request = GetProjectRequest { name: name.to_owned(), ..Default::default() };
        Ok(self.projects().get_project(request).await?.into_inner())
    }

    async fn environments(&self, project: &str) -> Result<Part<Environment>, Status> {
        let request = ListEnvironmentsRequest {
            parent: project.to_owned(),
            page_size: ENVIRONMENTS,
            order_by: "name".to_owned(),
            ..Default::default()
        };
        let page = self.projects().list_environments(request).await?.into_inner();
        Ok(Part::page(page.environments, &page.next_page_token))
    }

    /// The newest runs of all pipelines together.
    async fn latest_runs(&self, project: &str) -> Result<Part<Run>, Status> {
        let request =
            ListPipelinesRequest { parent: project.to_owned(), page_size: PIPELINES, ..Default::default() };
        let page = self.pipelines().list_pipelines(request).await?.into_inner();
        let mut all = Part::page(Vec::new(), &page.next_page_token);
        for part in join_all(page.pipelines.into_iter().map(|pipeline| self.runs(pipeline.name))).await {
            let Part { items, more } = part?;
            all.items.extend(items);
            all.more |= more;
        }
        all.items.sort_by_key(|run| {
            let time = run.create_time.unwrap_or_default();
            std::cmp::Reverse((time.seconds, time.nanos))
        });
        let most = usize::try_from(RUNS).unwrap_or_default();
        all.more |= all.items.len() > most;
        all.items.truncate(most);
        Ok(all)
    }

    async fn runs(&self, pipeline: String) -> Result<Part<Run>, Status> {
        let request = ListRunsRequest {
            parent: pipeline,
            page_size: RUNS,
            order_by: "create_time desc".to_owned(),
            ..Default::default()
        };
        let page = self.pipelines().list_runs(request).await?.into_inner();
        Ok(Part::page(page.runs, &page.next_page_token))
    }

    async fn approvals(&self, project: &str, organization: &str) -> Result<Part<Approval>, Status> {
        let request = ListApprovalsRequest {
            parent: organization.to_owned(),
            page_size: APPROVALS,
            filter: format!("state = PENDING AND {}", within("resource", project)),
            order_by: "name".to_owned(),
            ..Default::default()
        };
        let mut approvals = ApprovalServiceClient::new(self.through.clone());
        let page = approvals.list_approvals(request).await?.into_inner();
        Ok(Part::page(page.approvals, &page.next_page_token))
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

    /// The newest first, as the list has them.
    async fn operations(&self, project: &str, organization: &str) -> Result<Part<ActiveOperation>, Status> {
        let request = ListOperationsRequest {
            name: organization.to_owned(),
            page_size: OPERATIONS,
            filter: format!("done = false AND {}", within("target", project)),
            ..Default::default()
        };
        let mut operations = OperationsClient::new(self.through.clone());
        let page = operations.list_operations(request).await?.into_inner();
        let active = page.operations.into_iter().map(|operation| {
            let metadata = operation.metadata.as_ref();
            let metadata = metadata.and_then(|any| OperationMetadata::decode(any.value.as_slice()).ok());
            ActiveOperation { operation: operation.name, metadata }
        });
        Ok(Part::page(active.collect(), &page.next_page_token))
    }
}

/// The gateway's own path for a caller who is authenticated already.
#[derive(Clone)]
struct Governed {
    gateway: Arc<Gateway>,
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
        let Self { gateway, caller } = self.clone();
        Box::pin(async move {
            let method = gateway.route(&request)?;
            Ok(gateway.serve_for(&caller, &method, request).await?)
        })
    }
}
