//! `pavior.provisioning.v1.ProjectService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::project_service_server::ProjectService;
use tonic::Request;

use super::read::{get, list};
use super::{Answered, Api, convert, respond};

#[tonic::async_trait]
impl ProjectService for Api {
    async fn get_project(&self, request: Request<pb::GetProjectRequest>) -> Answered<pb::Project> {
        get(&self.app, request, convert::project).await
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Answered<pb::ListProjectsResponse> {
        list(&self.app, request, convert::project).await
    }

    async fn create_project(&self, request: Request<pb::CreateProjectRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn update_project(&self, request: Request<pb::UpdateProjectRequest>) -> Answered<pb::Project> {
        self.describe_project(request).await
    }

    async fn delete_project(&self, request: Request<pb::DeleteProjectRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn get_environment(
        &self,
        request: Request<pb::GetEnvironmentRequest>,
    ) -> Answered<pb::Environment> {
        get(&self.app, request, convert::environment).await
    }

    async fn list_environments(
        &self,
        request: Request<pb::ListEnvironmentsRequest>,
    ) -> Answered<pb::ListEnvironmentsResponse> {
        list(&self.app, request, convert::environment).await
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
        get(&self.app, request, convert::resource).await
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Answered<pb::ListResourcesResponse> {
        list(&self.app, request, convert::resource).await
    }

    async fn diagnose_resources(
        &self,
        request: Request<pb::DiagnoseResourcesRequest>,
    ) -> Answered<pb::DiagnoseResourcesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.diagnosis(&permit, request).await)
    }

    async fn repair_project(&self, request: Request<pb::RepairProjectRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn delete_orphan(&self, request: Request<pb::DeleteOrphanRequest>) -> Answered<Operation> {
        self.change(request).await
    }
}
