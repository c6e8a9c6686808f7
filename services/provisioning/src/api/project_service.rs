//! `pavior.provisioning.v1.ProjectService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::project_service_server::ProjectService;
use pavior_rpc::validate;
use tonic::Request;

use super::status::respond;
use super::{Answered, Api, input};

#[tonic::async_trait]
impl ProjectService for Api {
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
        let ask = input::ask(permit, &request);
        let violations = validate::violations(&request)?;
        let answer = self.app.create_project(&ask, input::project(request), violations).await;
        self.begun(&ask, answer).await
    }

    async fn delete_project(&self, request: Request<pb::DeleteProjectRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(permit, &request);
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
        let ask = input::ask(permit, &request);
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
        let ask = input::ask(permit, &request);
        validate::request(&request)?;
        let answer = self.update(&ask, request).await;
        self.begun(&ask, answer).await
    }

    async fn delete_environment(
        &self,
        request: Request<pb::DeleteEnvironmentRequest>,
    ) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(permit, &request);
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
}
