//! The wire side: each method decodes, calls the use case and encodes.

pub(crate) mod convert;
mod decision;
mod facts;
mod status;

use pavior_auth::{Permit, permit};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::policy_service_server::PolicyService;
use pavior_rpc::{Problem, Violations, validate};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::app::App;
use crate::app::approvals::Ballot;
use crate::app::codec::{Codec, Decoding};
use crate::app::decide::AskedActions;
use crate::app::resources::{ListArgs, Patch, check_new_id, parent};
use crate::app::write::Call;
use crate::domain::record::{PolicyBindingSpec, PolicySpec, RoleBindingSpec, RoleSpec};
use crate::error::Error;
use status::respond;

/// Most questions in one batch.
const MAX_BATCH: usize = 100;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

type Answer<T> = Result<Response<T>, Status>;

/// A new resource as it came in.
struct New<'a, T: Codec> {
    parent: &'a str,
    id: &'a str,
    id_field: &'static str,
    path: &'static str,
    wire: Option<&'a T::Wire>,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// Answers a change, as often as it is asked for under one request id.
    async fn once<M: Message + Default>(
        &self,
        permit: &Permit,
        call: &Call,
        work: impl Future<Output = Result<M, Error>>,
    ) -> Answer<M> {
        respond(self.app.once(permit, call, work).await)
    }

    async fn create<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        mut violations: Violations,
        new: New<'_, T>,
    ) -> Result<T::Wire, Error> {
        let organization = violations.check("parent", parent(new.parent, "parent")).unwrap_or_default();
        check_new_id(new.id, new.id_field, &mut violations);
        let actions = &self.app.schema.actions;
        let decoding = Decoding { organization: &organization, actions, path: new.path };
        let spec = new.wire.and_then(|wire| T::decode(wire, decoding, &mut violations));
        violations.into_result()?;
        let spec = spec.ok_or_else(|| Problem::invalid_field(new.path, "is required"))?;
        self.app.create(permit, call, &organization, new.id, spec).await
    }
}

#[tonic::async_trait]
impl PolicyService for Api {
    async fn get_role(&self, request: Request<pb::GetRoleRequest>) -> Answer<pb::Role> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.roles.get");
        respond(self.app.get::<RoleSpec>(&permit, &call, &request.name).await)
    }

    async fn list_roles(&self, request: Request<pb::ListRolesRequest>) -> Answer<pb::ListRolesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::ListRolesRequest { parent, page_size, page_token, filter, order_by } = &request;
        let args = ListArgs { parent, page_size: *page_size, page_token, filter, order_by };
        let page = self.app.list::<RoleSpec>(&permit, &Call::read("policy.roles.list"), args).await;
        respond(page.map(|(roles, next_page_token)| pb::ListRolesResponse { roles, next_page_token }))
    }

    async fn create_role(&self, request: Request<pb::CreateRoleRequest>) -> Answer<pb::Role> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.roles.create", &request, &request.request_id, request.validate_only);
        let violations = validate::violations(&request)?;
        let pb::CreateRoleRequest { parent, role_id, role, request_id: _, validate_only: _ } = &request;
        let new =
            New::<RoleSpec> { parent, id: role_id, id_field: "role_id", path: "role", wire: role.as_ref() };
        self.once(&permit, &call, self.create(&permit, &call, violations, new)).await
    }

    async fn update_role(&self, request: Request<pb::UpdateRoleRequest>) -> Answer<pb::Role> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.roles.update", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::UpdateRoleRequest { role, update_mask: mask, request_id: _, validate_only: _ } = request;
        let wire = role.unwrap_or_default();
        let (name, etag) = (wire.name.clone(), wire.etag.clone());
        let patch = Patch::<RoleSpec> { name, etag, wire, mask, path: "role" };
        self.once(&permit, &call, self.app.update(&permit, &call, patch)).await
    }

    async fn delete_role(&self, request: Request<pb::DeleteRoleRequest>) -> Answer<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.roles.delete", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::DeleteRoleRequest { name, etag, allow_missing, request_id: _, validate_only: _ } = &request;
        self.once(&permit, &call, self.app.delete::<RoleSpec>(&permit, &call, name, etag, *allow_missing))
            .await
    }

    async fn get_role_binding(&self, request: Request<pb::GetRoleBindingRequest>) -> Answer<pb::RoleBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.roleBindings.get");
        respond(self.app.get::<RoleBindingSpec>(&permit, &call, &request.name).await)
    }

    async fn list_role_bindings(
        &self,
        request: Request<pb::ListRoleBindingsRequest>,
    ) -> Answer<pb::ListRoleBindingsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::ListRoleBindingsRequest { parent, page_size, page_token, filter, order_by } = &request;
        let args = ListArgs { parent, page_size: *page_size, page_token, filter, order_by };
        let page =
            self.app.list::<RoleBindingSpec>(&permit, &Call::read("policy.roleBindings.list"), args).await;
        respond(page.map(|(role_bindings, next_page_token)| pb::ListRoleBindingsResponse {
            role_bindings,
            next_page_token,
        }))
    }

    async fn create_role_binding(
        &self,
        request: Request<pb::CreateRoleBindingRequest>,
    ) -> Answer<pb::RoleBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.roleBindings.create", &request, &request.request_id, request.validate_only);
        let violations = validate::violations(&request)?;
        let pb::CreateRoleBindingRequest {
            parent,
            role_binding_id,
            role_binding,
            request_id: _,
            validate_only: _,
        } = &request;
        let new = New::<RoleBindingSpec> {
            parent,
            id: role_binding_id,
            id_field: "role_binding_id",
            path: "role_binding",
            wire: role_binding.as_ref(),
        };
        self.once(&permit, &call, self.create(&permit, &call, violations, new)).await
    }

    async fn update_role_binding(
        &self,
        request: Request<pb::UpdateRoleBindingRequest>,
    ) -> Answer<pb::RoleBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.roleBindings.update", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::UpdateRoleBindingRequest { role_binding, update_mask: mask, request_id: _, validate_only: _ } =
            request;
        let wire = role_binding.unwrap_or_default();
        let (name, etag) = (wire.name.clone(), wire.etag.clone());
        let patch = Patch::<RoleBindingSpec> { name, etag, wire, mask, path: "role_binding" };
        self.once(&permit, &call, self.app.update(&permit, &call, patch)).await
    }

    async fn delete_role_binding(&self, request: Request<pb::DeleteRoleBindingRequest>) -> Answer<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.roleBindings.delete", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::DeleteRoleBindingRequest { name, etag, allow_missing, request_id: _, validate_only: _ } =
            &request;
        self.once(
            &permit,
            &call,
            self.app.delete::<RoleBindingSpec>(&permit, &call, name, etag, *allow_missing),
        )
        .await
    }

    async fn get_policy(&self, request: Request<pb::GetPolicyRequest>) -> Answer<pb::Policy> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.policies.get");
        respond(self.app.get::<PolicySpec>(&permit, &call, &request.name).await)
    }

    async fn list_policies(
        &self,
        request: Request<pb::ListPoliciesRequest>,
    ) -> Answer<pb::ListPoliciesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::ListPoliciesRequest { parent, page_size, page_token, filter, order_by } = &request;
        let args = ListArgs { parent, page_size: *page_size, page_token, filter, order_by };
        let page = self.app.list::<PolicySpec>(&permit, &Call::read("policy.policies.list"), args).await;
        respond(
            page.map(|(policies, next_page_token)| pb::ListPoliciesResponse { policies, next_page_token }),
        )
    }

    async fn create_policy(&self, request: Request<pb::CreatePolicyRequest>) -> Answer<pb::Policy> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.policies.create", &request, &request.request_id, request.validate_only);
        let violations = validate::violations(&request)?;
        let pb::CreatePolicyRequest { parent, policy_id, policy, request_id: _, validate_only: _ } = &request;
        let new = New::<PolicySpec> {
            parent,
            id: policy_id,
            id_field: "policy_id",
            path: "policy",
            wire: policy.as_ref(),
        };
        self.once(&permit, &call, self.create(&permit, &call, violations, new)).await
    }

    async fn update_policy(&self, request: Request<pb::UpdatePolicyRequest>) -> Answer<pb::Policy> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.policies.update", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::UpdatePolicyRequest { policy, update_mask: mask, request_id: _, validate_only: _ } = request;
        let wire = policy.unwrap_or_default();
        let (name, etag) = (wire.name.clone(), wire.etag.clone());
        let patch = Patch::<PolicySpec> { name, etag, wire, mask, path: "policy" };
        self.once(&permit, &call, self.app.update(&permit, &call, patch)).await
    }

    async fn delete_policy(&self, request: Request<pb::DeletePolicyRequest>) -> Answer<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call =
            Call::change("policy.policies.delete", &request, &request.request_id, request.validate_only);
        validate::request(&request)?;
        let pb::DeletePolicyRequest { name, etag, allow_missing, request_id: _, validate_only: _ } = &request;
        self.once(&permit, &call, self.app.delete::<PolicySpec>(&permit, &call, name, etag, *allow_missing))
            .await
    }

    async fn get_policy_binding(
        &self,
        request: Request<pb::GetPolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.policyBindings.get");
        respond(self.app.get::<PolicyBindingSpec>(&permit, &call, &request.name).await)
    }

    async fn list_policy_bindings(
        &self,
        request: Request<pb::ListPolicyBindingsRequest>,
    ) -> Answer<pb::ListPolicyBindingsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::ListPolicyBindingsRequest { parent, page_size, page_token, filter, order_by } = &request;
        let args = ListArgs { parent, page_size: *page_size, page_token, filter, order_by };
        let page = self
            .app
            .list::<PolicyBindingSpec>(&permit, &Call::read("policy.policyBindings.list"), args)
            .await;
        respond(page.map(|(policy_bindings, next_page_token)| pb::ListPolicyBindingsResponse {
            policy_bindings,
            next_page_token,
        }))
    }

    async fn create_policy_binding(
        &self,
        request: Request<pb::CreatePolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change(
            "policy.policyBindings.create",
            &request,
            &request.request_id,
            request.validate_only,
        );
        let violations = validate::violations(&request)?;
        let pb::CreatePolicyBindingRequest {
            parent,
            policy_binding_id,
            policy_binding,
            request_id: _,
            validate_only: _,
        } = &request;
        let new = New::<PolicyBindingSpec> {
            parent,
            id: policy_binding_id,
            id_field: "policy_binding_id",
            path: "policy_binding",
            wire: policy_binding.as_ref(),
        };
        self.once(&permit, &call, self.create(&permit, &call, violations, new)).await
    }

    async fn update_policy_binding(
        &self,
        request: Request<pb::UpdatePolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change(
            "policy.policyBindings.update",
            &request,
            &request.request_id,
            request.validate_only,
        );
        validate::request(&request)?;
        let pb::UpdatePolicyBindingRequest {
            policy_binding,
            update_mask: mask,
            request_id: _,
            validate_only: _,
        } = request;
        let wire = policy_binding.unwrap_or_default();
        let (name, etag) = (wire.name.clone(), wire.etag.clone());
        let patch = Patch::<PolicyBindingSpec> { name, etag, wire, mask, path: "policy_binding" };
        self.once(&permit, &call, self.app.update(&permit, &call, patch)).await
    }

    async fn delete_policy_binding(&self, request: Request<pb::DeletePolicyBindingRequest>) -> Answer<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change(
            "policy.policyBindings.delete",
            &request,
            &request.request_id,
            request.validate_only,
        );
        validate::request(&request)?;
        let pb::DeletePolicyBindingRequest { name, etag, allow_missing, request_id: _, validate_only: _ } =
            &request;
        self.once(
            &permit,
            &call,
            self.app.delete::<PolicyBindingSpec>(&permit, &call, name, etag, *allow_missing),
        )
        .await
    }

    async fn get_approval_request(
        &self,
        request: Request<pb::GetApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.approvalRequests.get");
        respond(self.app.get_approval(&permit, &call, &request.name).await)
    }

    async fn list_approval_requests(
        &self,
        request: Request<pb::ListApprovalRequestsRequest>,
    ) -> Answer<pb::ListApprovalRequestsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::ListApprovalRequestsRequest { parent, page_size, page_token, filter, order_by } = &request;
        let args = ListArgs { parent, page_size: *page_size, page_token, filter, order_by };
        let page = self.app.list_approvals(&permit, &Call::read("policy.approvalRequests.list"), args).await;
        respond(page.map(|(approval_requests, next_page_token)| pb::ListApprovalRequestsResponse {
            approval_requests,
            next_page_token,
        }))
    }

    async fn approve_approval_request(
        &self,
        request: Request<pb::ApproveApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.approvalRequests.approve", &request, &request.request_id, false);
        validate::request(&request)?;
        decision::check_reason(&request.reason)?;
        let pb::ApproveApprovalRequestRequest { name, reason, plan_digest, request_id: _ } = request;
        self.once(
            &permit,
            &call,
            self.app.vote(&permit, &call, Ballot { name, approved: true, reason, plan_digest }),
        )
        .await
    }

    async fn deny_approval_request(
        &self,
        request: Request<pb::DenyApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.approvalRequests.deny", &request, &request.request_id, false);
        validate::request(&request)?;
        decision::check_reason(&request.reason)?;
        let pb::DenyApprovalRequestRequest { name, reason, plan_digest, request_id: _ } = request;
        self.once(
            &permit,
            &call,
            self.app.vote(&permit, &call, Ballot { name, approved: false, reason, plan_digest }),
        )
        .await
    }

    async fn create_approval_request(
        &self,
        request: Request<pb::CreateApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.approvalRequests.create", &request, &request.request_id, false);
        let ask = decision::ask(&request)?;
        self.once(&permit, &call, self.app.create_approval(&permit, &call, ask)).await
    }

    async fn cancel_approval_request(
        &self,
        request: Request<pb::CancelApprovalRequestRequest>,
    ) -> Answer<pb::ApprovalRequest> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let call = Call::change("policy.approvalRequests.cancel", &request, "", false);
        validate::request(&request)?;
        decision::check_reason(&request.reason)?;
        self.once(&permit, &call, self.app.cancel_approval(&permit, &call, request)).await
    }

    async fn batch_get_approval_requests(
        &self,
        request: Request<pb::BatchGetApprovalRequestsRequest>,
    ) -> Answer<pb::BatchGetApprovalRequestsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let call = Call::read("policy.approvalRequests.get");
        let found = self.app.batch_get_approvals(&permit, &call, &request).await;
        respond(found.map(|approval_requests| pb::BatchGetApprovalRequestsResponse { approval_requests }))
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
