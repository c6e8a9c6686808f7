//! `pavior.provisioning.v1.DeploymentService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::deployment_service_server::DeploymentService;
use tonic::Request;

use super::status::respond;
use super::{Answered, Api, convert};

#[tonic::async_trait]
impl DeploymentService for Api {
    async fn get_deployment(&self, request: Request<pb::GetDeploymentRequest>) -> Answered<pb::Deployment> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_deployment(&permit, &request.name).await.map(convert::deployment))
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> Answered<pb::ListDeploymentsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_deployments, &permit, request: ListDeploymentsRequest, convert::deployment => ListDeploymentsResponse.deployments),
        )
    }

    async fn create_deployment(&self, request: Request<pb::CreateDeploymentRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn promote_deployment(
        &self,
        request: Request<pb::PromoteDeploymentRequest>,
    ) -> Answered<Operation> {
        self.change(request).await
    }
}
