//! The wire side: each method decodes, calls the use case and encodes.

mod convert;
mod diagnosis;
mod input;
mod longrunning;
mod operation;
mod reads;
mod status;

use futures::StreamExt;
use futures::stream::BoxStream;
use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::provisioning_service_server::ProvisioningService;
use pavior_rpc::validate;
use tonic::{Request, Response, Status};

use crate::app::{Answer, App, Ask};
use crate::error::Result as AppResult;
use status::{respond, to_status};

pub(crate) type Answered<T> = Result<Response<T>, Status>;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    async fn begun(&self, ask: &Ask, answer: AppResult<Answer>) -> Answered<Operation> {
        let answer = match answer {
            Ok(answer) => Ok(answer),
            Err(refusal) => self.app.first_answer(ask, refusal).await,
        };
        respond(match answer {
            Ok(answer) => operation::answer(&self.app, ask, answer).await,
            Err(error) => Err(error),
        })
    }
}

#[tonic::async_trait]
impl ProvisioningService for Api {
    async fn get_project(&self, request: Request<pb::GetProjectRequest>) -> Answered<pb::Project> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_project(&permit, &request.name).await)
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Answered<pb::ListProjectsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.projects(&permit, request).await)
    }

    async fn create_project(&self, request: Request<pb::CreateProjectRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(
            permit,
            "provisioning.projects.create",
            &request,
            &request.request_id,
            request.validate_only,
        );
        let violations = validate::violations(&request)?;
        let answer = self.app.create_project(&ask, input::project(request), violations).await;
        self.begun(&ask, answer).await
    }

    async fn delete_project(&self, request: Request<pb::DeleteProjectRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(
            permit,
            "provisioning.projects.delete",
            &request,
            &request.request_id,
            request.validate_only,
        );
        let violations = validate::violations(&request)?;
        let pb::DeleteProjectRequest { name, etag, allow_missing, request_id: _, validate_only: _ } =
            &request;
        let answer = self.app.delete_project(&ask, name, etag, *allow_missing, violations).await;
        self.begun(&ask, answer).await
    }

    async fn get_environment(
        &self,
        request: Request<pb::GetEnvironmentRequest>,
    ) -> Answered<pb::Environment> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_environment(&permit, &request.name).await)
    }

    async fn list_environments(
        &self,
        request: Request<pb::ListEnvironmentsRequest>,
    ) -> Answered<pb::ListEnvironmentsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.environments(&permit, request).await)
    }

    async fn create_environment(
        &self,
        request: Request<pb::CreateEnvironmentRequest>,
    ) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let action = "provisioning.environments.create";
        let ask = input::ask(permit, action, &request, &request.request_id, request.validate_only);
        let mut violations = validate::violations(&request)?;
        let wanted = input::environment(request.environment.as_ref(), &mut violations);
        let (parent, id) = (&request.parent, &request.environment_id);
        let answer = self.app.create_environment(&ask, parent, id, wanted, violations).await;
        self.begun(&ask, answer).await
    }

    async fn update_environment(
        &self,
        request: Request<pb::UpdateEnvironmentRequest>,
    ) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let action = "provisioning.environments.update";
        let ask = input::ask(permit, action, &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let answer = self.update(&ask, request).await;
        self.begun(&ask, answer).await
    }

    async fn delete_environment(
        &self,
        request: Request<pb::DeleteEnvironmentRequest>,
    ) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let action = "provisioning.environments.delete";
        let ask = input::ask(permit, action, &request, &request.request_id, request.validate_only);
        let violations = validate::violations(&request)?;
        let pb::DeleteEnvironmentRequest { name, etag, allow_missing, request_id: _, validate_only: _ } =
            &request;
        let answer = self.app.delete_environment(&ask, name, etag, *allow_missing, violations).await;
        self.begun(&ask, answer).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answered<pb::Resource> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_resource(&permit, &request.name).await)
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Answered<pb::ListResourcesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.resources(&permit, request).await)
    }

    async fn diagnose_resources(
        &self,
        request: Request<pb::DiagnoseResourcesRequest>,
    ) -> Answered<pb::DiagnoseResourcesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.diagnosis(&permit, request).await)
    }

    async fn get_pipeline(&self, request: Request<pb::GetPipelineRequest>) -> Answered<pb::Pipeline> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_pipeline(&permit, &request.name).await)
    }

    async fn list_pipelines(
        &self,
        request: Request<pb::ListPipelinesRequest>,
    ) -> Answered<pb::ListPipelinesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.pipelines(&permit, request).await)
    }

    async fn run_pipeline(&self, request: Request<pb::RunPipelineRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(
            permit,
            "provisioning.pipelines.run",
            &request,
            &request.request_id,
            request.validate_only,
        );
        let violations = validate::violations(&request)?;
        let answer = self.app.run_pipeline(&ask, &request.name, &request.revision, violations).await;
        self.begun(&ask, answer).await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Answered<pb::Run> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_run(&permit, &request.name).await)
    }

    async fn list_runs(&self, request: Request<pb::ListRunsRequest>) -> Answered<pb::ListRunsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.runs(&permit, request).await)
    }

    async fn get_deployment(&self, request: Request<pb::GetDeploymentRequest>) -> Answered<pb::Deployment> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_deployment(&permit, &request.name).await)
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> Answered<pb::ListDeploymentsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.deployments(&permit, request).await)
    }

    async fn create_deployment(&self, request: Request<pb::CreateDeploymentRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let action = "provisioning.deployments.create";
        let ask = input::ask(permit, action, &request, &request.request_id, request.validate_only);
        let violations = validate::violations(&request)?;
        let run = request.deployment.as_ref().map(|deployment| deployment.run.as_str()).unwrap_or_default();
        let (parent, id) = (&request.parent, &request.deployment_id);
        let answer = self.app.create_deployment(&ask, parent, id, run, violations).await;
        self.begun(&ask, answer).await
    }

    async fn promote_deployment(
        &self,
        request: Request<pb::PromoteDeploymentRequest>,
    ) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let action = "provisioning.deployments.promote";
        let ask = input::ask(permit, action, &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let answer = self.app.promote_deployment(&ask, &request.parent, &request.source_environment).await;
        self.begun(&ask, answer).await
    }

    async fn get_plan(&self, request: Request<pb::GetPlanRequest>) -> Answered<pb::Plan> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_plan(&permit, &request.name).await)
    }

    async fn list_plans(&self, request: Request<pb::ListPlansRequest>) -> Answered<pb::ListPlansResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.plans(&permit, request).await)
    }

    type WatchOperationStream = BoxStream<'static, Result<pb::WatchOperationResponse, Status>>;

    async fn watch_operation(
        &self,
        request: Request<pb::WatchOperationRequest>,
    ) -> Answered<Self::WatchOperationStream> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let watch = self
            .app
            .watch_operation(&permit, "provisioning.operations.get", &request.name, &request.resume_token)
            .await;
        respond(watch.map(|(operation, messages)| {
            messages
                .map(move |message| {
                    message.map(|message| operation::watched(operation, message)).map_err(to_status)
                })
                .boxed()
        }))
    }

    async fn retry_operation(&self, request: Request<pb::RetryOperationRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(permit, "provisioning.operations.retry", &request, &request.request_id, false);
        validate::request(&request)?;
        let view = self.app.retry_operation(&ask, &request.name).await;
        self.begun(&ask, view.map(|view| Answer::Operation(Box::new(view)))).await
    }
}
