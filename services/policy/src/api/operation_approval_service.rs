//! `pavior.policy.internal.v1.OperationApprovalService`.

use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::operation_approval_service_server::OperationApprovalService;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl OperationApprovalService for Api {
    async fn create_approval_request(
        &self,
        request: Request<decision_pb::CreateApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.ask_for_approval(request).await
    }

    async fn cancel_approval_request(
        &self,
        request: Request<decision_pb::CancelApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.cancel(request).await
    }

    async fn batch_get_approval_requests(
        &self,
        request: Request<decision_pb::BatchGetApprovalRequestsRequest>,
    ) -> Answer<decision_pb::BatchGetApprovalRequestsResponse> {
        self.several_approval_requests(request).await
    }
}
