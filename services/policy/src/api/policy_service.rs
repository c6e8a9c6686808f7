//! `pavior.policy.v1.PolicyService`.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::policy_service_server::PolicyService;
use pavior_resource::{Answer, create, delete, get, list, update};
use tonic::Request;

use super::Api;
use crate::domain::policy::PolicyFields;
use crate::domain::policy_binding::PolicyBindingFields;
use crate::domain::policy_revision::PolicyRevisionFields;

#[tonic::async_trait]
impl PolicyService for Api {
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

    async fn delete_policy(&self, request: Request<pb::DeletePolicyRequest>) -> Answer<pb::Policy> {
        self.changed(delete::<PolicyFields, _>(&self.app, request)).await
    }

    async fn rollback_policy(&self, request: Request<pb::RollbackPolicyRequest>) -> Answer<pb::Policy> {
        self.changed(self.roll_back(request)).await
    }

    async fn get_policy_revision(
        &self,
        request: Request<pb::GetPolicyRevisionRequest>,
    ) -> Answer<pb::PolicyRevision> {
        get::<PolicyRevisionFields, _>(&self.app, request).await
    }

    async fn list_policy_revisions(
        &self,
        request: Request<pb::ListPolicyRevisionsRequest>,
    ) -> Answer<pb::ListPolicyRevisionsResponse> {
        list::<PolicyRevisionFields, _>(&self.app, request).await
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

    async fn delete_policy_binding(
        &self,
        request: Request<pb::DeletePolicyBindingRequest>,
    ) -> Answer<pb::PolicyBinding> {
        self.changed(delete::<PolicyBindingFields, _>(&self.app, request)).await
    }
}
