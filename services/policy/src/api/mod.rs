//! The wire side: each method decodes, calls the use case and encodes.

mod approval_request;
mod decision;
mod facts;
mod policy;
mod policy_binding;
mod role;
mod role_binding;
mod status;

use pavior_auth::permit;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::policy_service_server::PolicyService;
use pavior_resource::{Answer, create, delete, get, list, respond, update};
use pavior_rpc::{Problem, validate};
use prost::{Message, Name};
use tonic::{Request, Response};

use crate::app::App;
use crate::app::decide::AskedActions;
use crate::domain::record::{PolicyBindingFields, PolicyFields, RoleBindingFields, RoleFields};

/// Most questions in one batch.
const MAX_BATCH: usize = 100;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// Answers a change of what decisions are made from: the next one is made from what is there now.
    async fn changed<M>(&self, work: impl Future<Output = Answer<M>>) -> Answer<M> {
        let answer = work.await;
        self.app.compilations.touch();
        answer
    }

    /// Checks the text of a policy that is about to be written.
    async fn check_ahead<R: Message + Name>(&self, request: &Request<R>, policy: Option<&pb::Policy>) {
        if let (Ok(permit), Some(policy)) = (permit(request), policy)
            && !policy.source.is_empty()
            // What is refused for its shape is not read.
            && validate::request(request.get_ref()).is_ok()
        {
            let id = policy.name.rsplit('/').next().unwrap_or_default();
            self.app.check_ahead(&permit, policy::set_of(policy), id, &policy.source).await;
        }
    }
}

#[tonic::async_trait]
impl PolicyService for Api {
    async fn get_role(&self, request: Request<pb::GetRoleRequest>) -> Answer<pb::Role> {
        get::<RoleFields, _>(&self.app, request).await
    }

    async fn list_roles(&self, request: Request<pb::ListRolesRequest>) -> Answer<pb::ListRolesResponse> {
        list::<RoleFields, _>(&self.app, request).await
    }

    async fn create_role(&self, request: Request<pb::CreateRoleRequest>) -> Answer<pb::Role> {
        self.changed(create::<RoleFields, _>(&self.app, request)).await
    }

    async fn update_role(&self, request: Request<pb::UpdateRoleRequest>) -> Answer<pb::Role> {
        self.changed(update::<RoleFields, _>(&self.app, request)).await
    }

    async fn delete_role(&self, request: Request<pb::DeleteRoleRequest>) -> Answer<()> {
        self.changed(delete::<RoleFields, _>(&self.app, request)).await
    }

    async fn get_role_binding(&self, request: Request<pb::GetRoleBindingRequest>) -> Answer<pb::RoleBinding> {
        get::<RoleBindingFields, _>(&self.app, request).await
    }

    async fn list_role_bindings(
        &self,
        request: Request<pb::ListRoleBindingsRequest>,
    ) -> Answer<pb::ListRoleBindingsResponse> {
        list::<RoleBindingFields, _>(&self.app, request).await
    }

    async fn create_role_binding(
        &self,
        request: Request<pb::CreateRoleBindingRequest>,
    ) -> Answer<pb::RoleBinding> {
        self.changed(create::<RoleBindingFields, _>(&self.app, request)).await
    }

    async fn update_role_binding(
        &self,
        request: Request<pb::UpdateRoleBindingRequest>,
    ) -> Answer<pb::RoleBinding> {
        self.changed(update::<RoleBindingFields, _>(&self.app, request)).await
    }

    async fn delete_role_binding(&self, request: Request<pb::DeleteRoleBindingRequest>) -> Answer<()> {
        self.changed(delete::<RoleBindingFields, _>(&self.app, request)).await
    }

    async fn get_policy(&self, request: Request<pb::GetPolicyRequest>) -> Answer<pb::Policy> {
        get::<PolicyFields, _>(&self.app, request).await
    }

    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Answer<pb::ListPoliciesResponse> {
        list::<PolicyFields, _>(&self.app, request).await
    }

    async fn create_policy(&self, request: Request<pb::CreatePolicyRequest>) -> Answer<pb::Policy> {
        self.check_ahead(&request, request.get_ref().policy.as_ref()).await;
        self.changed(create::<PolicyFields, _>(&self.app, request)).await
    }

    async fn update_policy(&self, request: Request<pb::UpdatePolicyRequest>) -> Answer<pb::Policy> {
        self.check_ahead(&request, request.get_ref().policy.as_ref()).await;
        self.changed(update::<PolicyFields, _>(&self.app, request)).await
    }

    async fn delete_policy(&self, request: Request<pb::DeletePolicyRequest>) -> Answer<()> {
        self.changed(delete::<PolicyFields, _>(&self.app, request)).await
    }

    async fn get_policy_binding(
        &self,
        request: Request<pb::GetPolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        get::<PolicyBindingFields, _>(&self.app, request).await
    }

    async fn list_policy_bindings(
        &self,
        request: Request<pb::ListPolicyBindingsRequest>,
    ) -> Answer<pb::ListPolicyBindingsResponse> {
        list::<PolicyBindingFields, _>(&self.app, request).await
    }

    async fn create_policy_binding(
        &self,
        request: Request<pb::CreatePolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        self.changed(create::<PolicyBindingFields, _>(&self.app, request)).await
    }

    async fn update_policy_binding(
        &self,
        request: Request<pb::UpdatePolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        self.changed(update::<PolicyBindingFields, _>(&self.app, request)).await
    }

    async fn delete_policy_binding(&self, request: Request<pb::DeletePolicyBindingRequest>) -> Answer<()> {
        self.changed(delete::<PolicyBindingFields, _>(&self.app, request)).await
    }

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

    async fn create_approval_request(
        &self,
        request: Request<pb::CreateApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.ask_for_approval(request).await
    }

    async fn cancel_approval_request(
        &self,
        request: Request<pb::CancelApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        self.cancel(request).await
    }

    async fn batch_get_approval_requests(
        &self,
        request: Request<pb::BatchGetApprovalRequestsRequest>,
    ) -> Answer<pb::BatchGetApprovalRequestsResponse> {
        self.several_approval_requests(request).await
    }

    async fn decide(&self, request: Request<pb::DecideRequest>) -> Answer<pb::Decision> {
        permit(&request)?;
        let question = decision::question(request.into_inner(), "")?;
        respond(self.app.decide(question).await.map(decision::decision))
    }

    async fn batch_decide(
        &self,
        request: Request<pb::BatchDecideRequest>,
    ) -> Answer<pb::BatchDecideResponse> {
        permit(&request)?;
        let requests = request.into_inner().requests;
        if requests.is_empty() || requests.len() > MAX_BATCH {
            return Err(
                Problem::invalid_field("requests", format!("must have 1 to {MAX_BATCH} elements")).into()
            );
        }
        let mut questions = Vec::with_capacity(requests.len());
        for (at, request) in requests.into_iter().enumerate() {
            questions.push(decision::question(request, &format!("requests[{at}]"))?);
        }
        let mut decisions = Vec::with_capacity(questions.len());
        for question in questions {
            decisions.push(respond(self.app.decide(question).await.map(decision::decision))?.into_inner());
        }
        Ok(Response::new(pb::BatchDecideResponse { decisions }))
    }

    async fn list_allowed_actions(
        &self,
        request: Request<pb::ListAllowedActionsRequest>,
    ) -> Answer<pb::ListAllowedActionsResponse> {
        permit(&request)?;
        let (input, actions) = decision::allowed_actions(request.into_inner())?;
        let allowed = self.app.allowed_actions(input, actions).await;
        respond(allowed.map(|AskedActions { actions, planned }| pb::ListAllowedActionsResponse {
            actions,
            planned_actions: planned,
        }))
    }
}
