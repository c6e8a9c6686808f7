//! `pavior.identity.v1.IdentityService`.

use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::identity::v1::identity_service_server::IdentityService;
use pavior_resource::{
    Answer, Wire as _, create, create_with, delete, delete_with, get, gone, list, list_across, update,
};
use tonic::Request;

use super::Api;
use crate::app::{create_membership, delete_group, delete_user};
use crate::domain::{GroupFields, MembershipFields, OrganizationFields, UserFields};

#[tonic::async_trait]
impl IdentityService for Api {
    async fn create_organization(
        &self,
        request: Request<identity_pb::CreateOrganizationRequest>,
    ) -> Answer<identity_pb::Organization> {
        self.make_organization(request).await
    }

    async fn get_organization(
        &self,
        request: Request<identity_pb::GetOrganizationRequest>,
    ) -> Answer<identity_pb::Organization> {
        get::<OrganizationFields, _>(&self.app, request).await
    }

    async fn list_organizations(
        &self,
        request: Request<identity_pb::ListOrganizationsRequest>,
    ) -> Answer<identity_pb::ListOrganizationsResponse> {
        self.page_of_organizations(request).await
    }

    async fn get_group(&self, request: Request<identity_pb::GetGroupRequest>) -> Answer<identity_pb::Group> {
        get::<GroupFields, _>(&self.app, request).await
    }

    async fn list_groups(
        &self,
        request: Request<identity_pb::ListGroupsRequest>,
    ) -> Answer<identity_pb::ListGroupsResponse> {
        list::<GroupFields, _>(&self.app, request).await
    }

    async fn create_group(
        &self,
        request: Request<identity_pb::CreateGroupRequest>,
    ) -> Answer<identity_pb::Group> {
        create::<GroupFields, _>(&self.app, request).await
    }

    async fn update_group(
        &self,
        request: Request<identity_pb::UpdateGroupRequest>,
    ) -> Answer<identity_pb::Group> {
        update::<GroupFields, _>(&self.app, request).await
    }

    async fn delete_group(
        &self,
        request: Request<identity_pb::DeleteGroupRequest>,
    ) -> Answer<identity_pb::Group> {
        delete_with::<GroupFields, _, _, _>(&self.app, request, gone::<GroupFields>, |work, command| {
            Box::pin(delete_group(work, command))
        })
        .await
    }

    async fn get_user(&self, request: Request<identity_pb::GetUserRequest>) -> Answer<identity_pb::User> {
        get::<UserFields, _>(&self.app, request).await
    }

    async fn list_users(
        &self,
        request: Request<identity_pb::ListUsersRequest>,
    ) -> Answer<identity_pb::ListUsersResponse> {
        list::<UserFields, _>(&self.app, request).await
    }

    async fn create_user(
        &self,
        request: Request<identity_pb::CreateUserRequest>,
    ) -> Answer<identity_pb::User> {
        create::<UserFields, _>(&self.app, request).await
    }

    async fn update_user(
        &self,
        request: Request<identity_pb::UpdateUserRequest>,
    ) -> Answer<identity_pb::User> {
        update::<UserFields, _>(&self.app, request).await
    }

    async fn delete_user(
        &self,
        request: Request<identity_pb::DeleteUserRequest>,
    ) -> Answer<identity_pb::User> {
        delete_with::<UserFields, _, _, _>(&self.app, request, gone::<UserFields>, |work, command| {
            Box::pin(delete_user(work, command))
        })
        .await
    }

    async fn get_membership(
        &self,
        request: Request<identity_pb::GetMembershipRequest>,
    ) -> Answer<identity_pb::Membership> {
        get::<MembershipFields, _>(&self.app, request).await
    }

    async fn list_memberships(
        &self,
        request: Request<identity_pb::ListMembershipsRequest>,
    ) -> Answer<identity_pb::ListMembershipsResponse> {
        list_across::<MembershipFields, _>(&self.app, request).await
    }

    async fn create_membership(
        &self,
        request: Request<identity_pb::CreateMembershipRequest>,
    ) -> Answer<identity_pb::Membership> {
        create_with(&self.app, request, MembershipFields::encode, |work, command| {
            Box::pin(create_membership(work, command))
        })
        .await
    }

    async fn delete_membership(
        &self,
        request: Request<identity_pb::DeleteMembershipRequest>,
    ) -> Answer<identity_pb::Membership> {
        delete::<MembershipFields, _>(&self.app, request).await
    }
}
