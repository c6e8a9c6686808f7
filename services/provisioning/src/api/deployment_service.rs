//! `pavior.provisioning.v1.DeploymentService`.

use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::deployment_service_server::DeploymentService;
use tonic::Request;

use super::read::{get, list};
use super::{Answered, Api, convert};

#[tonic::async_trait]
impl DeploymentService for Api {
    async fn get_deployment(&self, request: Request<pb::GetDeploymentRequest>) -> Answered<pb::Deployment> {
        get(&self.app, request, convert::deployment).await
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> Answered<pb::ListDeploymentsResponse> {
        list(&self.app, request, convert::deployment).await
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
