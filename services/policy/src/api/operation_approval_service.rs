//! `pavior.policy.internal.v1.OperationApprovalService`.

use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::operation_approval_service_server::OperationApprovalService;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl OperationApprovalService for Api {
    async fn create_approval(
        &self,
        request: Request<decision_pb::CreateApprovalRequest>,
    ) -> Answer<pb::Approval> {
        self.create_operation_approval(request).await
    }

    async fn cancel_approval(
        &self,
        request: Request<decision_pb::CancelApprovalRequest>,
    ) -> Answer<pb::Approval> {
        self.cancel(request).await
    }

    async fn batch_get_approvals(
        &self,
        request: Request<decision_pb::BatchGetApprovalsRequest>,
    ) -> Answer<decision_pb::BatchGetApprovalsResponse> {
        self.several_approvals(request).await
    }
}
