//! `pavior.policy.v1.AccessService`.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::access_service_server::AccessService;
use pavior_resource::{Answer, create, delete, get, list, update};
use tonic::Request;

use super::Api;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::RoleBindingFields;

#[tonic::async_trait]
impl AccessService for Api {
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

    async fn delete_role(&self, request: Request<pb::DeleteRoleRequest>) -> Answer<pb::Role> {
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

    async fn delete_role_binding(
        &self,
        request: Request<pb::DeleteRoleBindingRequest>,
    ) -> Answer<pb::RoleBinding> {
        self.changed(delete::<RoleBindingFields, _>(&self.app, request)).await
    }

    async fn get_decision(&self, request: Request<pb::GetDecisionRequest>) -> Answer<pb::Decision> {
        self.decision(request).await
    }

    async fn list_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Answer<pb::ListDecisionsResponse> {
        self.page_of_decisions(request).await
    }
}
