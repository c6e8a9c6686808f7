//! `pavior.policy.v1.ApprovalService`.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::approval_service_server::ApprovalService;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl ApprovalService for Api {
    async fn get_approval_request(
        &self,
        request: Request<pb::GetApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.approval_request(request).await
    }

    async fn list_approval_requests(
        &self,
        request: Request<pb::ListApprovalRequestsRequest>,
    ) -> Answer<pb::ListApprovalRequestsResponse> {
        self.page_of_approval_requests(request).await
    }

    async fn approve_approval_request(
        &self,
        request: Request<pb::ApproveApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.approve(request).await
    }

    async fn deny_approval_request(
        &self,
        request: Request<pb::DenyApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.deny(request).await
    }
}
