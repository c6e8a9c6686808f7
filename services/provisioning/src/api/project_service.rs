//! `pavior.provisioning.v1.ProjectService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::project_service_server::ProjectService;
use tonic::Request;

use super::status::respond;
use super::{Answered, Api, convert};

#[tonic::async_trait]
impl ProjectService for Api {
    async fn get_project(&self, request: Request<pb::GetProjectRequest>) -> Answered<pb::Project> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_project(&permit, &request.name).await.map(convert::project))
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Answered<pb::ListProjectsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_projects, &permit, request: ListProjectsRequest, convert::project => ListProjectsResponse.projects),
        )
    }

    async fn create_project(&self, request: Request<pb::CreateProjectRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn delete_project(&self, request: Request<pb::DeleteProjectRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn get_environment(
        &self,
        request: Request<pb::GetEnvironmentRequest>,
    ) -> Answered<pb::Environment> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_environment(&permit, &request.name).await.map(convert::environment))
    }

    async fn list_environments(
        &self,
        request: Request<pb::ListEnvironmentsRequest>,
    ) -> Answered<pb::ListEnvironmentsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_environments, &permit, request: ListEnvironmentsRequest, convert::environment => ListEnvironmentsResponse.environments),
        )
    }

    async fn create_environment(
        &self,
        request: Request<pb::CreateEnvironmentRequest>,
    ) -> Answered<Operation> {
        self.change(request).await
    }

    async fn update_environment(
        &self,
        request: Request<pb::UpdateEnvironmentRequest>,
    ) -> Answered<Operation> {
        self.change(request).await
    }

    async fn delete_environment(
        &self,
        request: Request<pb::DeleteEnvironmentRequest>,
    ) -> Answered<Operation> {
        self.change(request).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answered<pb::Resource> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_resource(&permit, &request.name).await.map(convert::resource))
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Answered<pb::ListResourcesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_resources, &permit, request: ListResourcesRequest, convert::resource => ListResourcesResponse.resources),
        )
    }

    async fn diagnose_resources(
        &self,
        request: Request<pb::DiagnoseResourcesRequest>,
    ) -> Answered<pb::DiagnoseResourcesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.diagnosis(&permit, request).await)
    }
}
