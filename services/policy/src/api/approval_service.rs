//! `pavior.policy.v1.ApprovalService`.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::approval_service_server::ApprovalService;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl ApprovalService for Api {
    async fn get_approval(&self, request: Request<pb::GetApprovalRequest>) -> Answer<pb::Approval> {
        self.approval(request).await
    }

    async fn list_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Answer<pb::ListApprovalsResponse> {
        self.page_of_approvals(request).await
    }

    async fn approve_approval(&self, request: Request<pb::ApproveApprovalRequest>) -> Answer<pb::Approval> {
        self.approve(request).await
    }

    async fn deny_approval(&self, request: Request<pb::DenyApprovalRequest>) -> Answer<pb::Approval> {
        self.deny(request).await
    }
}
