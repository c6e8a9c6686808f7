//! `pavior.catalog.v1.CatalogService`: each method decodes, calls a use case, and encodes.

mod convert;
mod convert_entity;
mod convert_resource;
mod facts;
mod handlers;
mod special;
mod status;
mod wire;

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status};

use crate::domain::{
    EntityFields, GroupFields, KindFields, OrganizationFields, ResourceDefinitionFields, ResourceTypeFields,
    TemplateFields, UserFields, VersionFields,
};
use handlers::{PageOf, Rpc, checked};

pub(crate) use handlers::Api;

type Answer<M> = Result<Response<M>, Status>;

/// A method of this service with its action.
macro_rules! rpc {
    ($method:literal, $action:literal) => {
        Rpc {
            method: concat!("/pavior.catalog.v1.CatalogService/", $method),
            action: concat!("catalog.", $action),
        }
    };
}

#[tonic::async_trait]
impl CatalogService for Api {
    async fn create_organization(
        &self,
        request: Request<pb::CreateOrganizationRequest>,
    ) -> Answer<pb::Organization> {
        self.make_organization(request, rpc!("CreateOrganization", "organizations.create")).await
    }

    async fn get_organization(
        &self,
        request: Request<pb::GetOrganizationRequest>,
    ) -> Answer<pb::Organization> {
        let (permit, request) = checked(request)?;
        self.get::<OrganizationFields>(&permit, &request.name, rpc!("GetOrganization", "organizations.get"))
            .await
    }

    async fn list_organizations(
        &self,
        request: Request<pb::ListOrganizationsRequest>,
    ) -> Answer<pb::ListOrganizationsResponse> {
        self.page_of_organizations(request, rpc!("ListOrganizations", "organizations.list")).await
    }

    async fn get_group(&self, request: Request<pb::GetGroupRequest>) -> Answer<pb::Group> {
        let (permit, request) = checked(request)?;
        self.get::<GroupFields>(&permit, &request.name, rpc!("GetGroup", "groups.get")).await
    }

    async fn list_groups(&self, request: Request<pb::ListGroupsRequest>) -> Answer<pb::ListGroupsResponse> {
        let page = self.list::<GroupFields, _>(request, rpc!("ListGroups", "groups.list")).await?;
        let PageOf { items: groups, next_page_token } = page;
        Ok(Response::new(pb::ListGroupsResponse { groups, next_page_token }))
    }

    async fn create_group(&self, request: Request<pb::CreateGroupRequest>) -> Answer<pb::Group> {
        self.create::<GroupFields, _>(request, rpc!("CreateGroup", "groups.create")).await
    }

    async fn update_group(&self, request: Request<pb::UpdateGroupRequest>) -> Answer<pb::Group> {
        self.update::<GroupFields, _>(request, rpc!("UpdateGroup", "groups.update")).await
    }

    async fn delete_group(&self, request: Request<pb::DeleteGroupRequest>) -> Answer<()> {
        self.delete::<GroupFields, _>(request, rpc!("DeleteGroup", "groups.delete")).await
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Answer<pb::User> {
        let (permit, request) = checked(request)?;
        self.get::<UserFields>(&permit, &request.name, rpc!("GetUser", "users.get")).await
    }

    async fn list_users(&self, request: Request<pb::ListUsersRequest>) -> Answer<pb::ListUsersResponse> {
        let page = self.list::<UserFields, _>(request, rpc!("ListUsers", "users.list")).await?;
        let PageOf { items: users, next_page_token } = page;
        Ok(Response::new(pb::ListUsersResponse { users, next_page_token }))
    }

    async fn create_user(&self, request: Request<pb::CreateUserRequest>) -> Answer<pb::User> {
        self.create::<UserFields, _>(request, rpc!("CreateUser", "users.create")).await
    }

    async fn update_user(&self, request: Request<pb::UpdateUserRequest>) -> Answer<pb::User> {
        self.update::<UserFields, _>(request, rpc!("UpdateUser", "users.update")).await
    }

    async fn delete_user(&self, request: Request<pb::DeleteUserRequest>) -> Answer<()> {
        self.delete::<UserFields, _>(request, rpc!("DeleteUser", "users.delete")).await
    }

    async fn get_kind(&self, request: Request<pb::GetKindRequest>) -> Answer<pb::Kind> {
        let (permit, request) = checked(request)?;
        self.get::<KindFields>(&permit, &request.name, rpc!("GetKind", "kinds.get")).await
    }

    async fn list_kinds(&self, request: Request<pb::ListKindsRequest>) -> Answer<pb::ListKindsResponse> {
        let page = self.list::<KindFields, _>(request, rpc!("ListKinds", "kinds.list")).await?;
        let PageOf { items: kinds, next_page_token } = page;
        Ok(Response::new(pb::ListKindsResponse { kinds, next_page_token }))
    }

    async fn create_kind(&self, request: Request<pb::CreateKindRequest>) -> Answer<pb::Kind> {
        self.create::<KindFields, _>(request, rpc!("CreateKind", "kinds.create")).await
    }

    async fn update_kind(&self, request: Request<pb::UpdateKindRequest>) -> Answer<pb::Kind> {
        self.update::<KindFields, _>(request, rpc!("UpdateKind", "kinds.update")).await
    }

    async fn delete_kind(&self, request: Request<pb::DeleteKindRequest>) -> Answer<()> {
        self.delete::<KindFields, _>(request, rpc!("DeleteKind", "kinds.delete")).await
    }

    async fn get_entity(&self, request: Request<pb::GetEntityRequest>) -> Answer<pb::Entity> {
        self.entity(request, rpc!("GetEntity", "entities.get")).await
    }

    async fn batch_get_entities(
        &self,
        request: Request<pb::BatchGetEntitiesRequest>,
    ) -> Answer<pb::BatchGetEntitiesResponse> {
        self.several_entities(request, rpc!("BatchGetEntities", "entities.get")).await
    }

    async fn list_entities(
        &self,
        request: Request<pb::ListEntitiesRequest>,
    ) -> Answer<pb::ListEntitiesResponse> {
        let page = self.page_of_entities(request, rpc!("ListEntities", "entities.list")).await?;
        let PageOf { items: entities, next_page_token } = page;
        Ok(Response::new(pb::ListEntitiesResponse { entities, next_page_token }))
    }

    async fn import_entities(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
    ) -> Answer<pb::ImportEntitiesResponse> {
        self.import(request, rpc!("ImportEntities", "entities.import")).await
    }

    async fn create_entity(&self, request: Request<pb::CreateEntityRequest>) -> Answer<pb::Entity> {
        self.create::<EntityFields, _>(request, rpc!("CreateEntity", "entities.create")).await
    }

    async fn update_entity(&self, request: Request<pb::UpdateEntityRequest>) -> Answer<pb::Entity> {
        self.update::<EntityFields, _>(request, rpc!("UpdateEntity", "entities.update")).await
    }

    async fn delete_entity(&self, request: Request<pb::DeleteEntityRequest>) -> Answer<()> {
        self.delete::<EntityFields, _>(request, rpc!("DeleteEntity", "entities.delete")).await
    }

    async fn register_entity(&self, request: Request<pb::RegisterEntityRequest>) -> Answer<pb::Entity> {
        self.register(request, rpc!("RegisterEntity", "entities.register")).await
    }

    async fn unregister_entity(&self, request: Request<pb::UnregisterEntityRequest>) -> Answer<()> {
        self.unregister(request, rpc!("UnregisterEntity", "entities.unregister")).await
    }

    async fn get_template(&self, request: Request<pb::GetTemplateRequest>) -> Answer<pb::Template> {
        let (permit, request) = checked(request)?;
        self.get::<TemplateFields>(&permit, &request.name, rpc!("GetTemplate", "templates.get")).await
    }

    async fn list_templates(
        &self,
        request: Request<pb::ListTemplatesRequest>,
    ) -> Answer<pb::ListTemplatesResponse> {
        let page = self.list::<TemplateFields, _>(request, rpc!("ListTemplates", "templates.list")).await?;
        let PageOf { items: templates, next_page_token } = page;
        Ok(Response::new(pb::ListTemplatesResponse { templates, next_page_token }))
    }

    async fn create_template(&self, request: Request<pb::CreateTemplateRequest>) -> Answer<pb::Template> {
        self.create::<TemplateFields, _>(request, rpc!("CreateTemplate", "templates.create")).await
    }

    async fn update_template(&self, request: Request<pb::UpdateTemplateRequest>) -> Answer<pb::Template> {
        self.update::<TemplateFields, _>(request, rpc!("UpdateTemplate", "templates.update")).await
    }

    async fn delete_template(&self, request: Request<pb::DeleteTemplateRequest>) -> Answer<()> {
        self.delete::<TemplateFields, _>(request, rpc!("DeleteTemplate", "templates.delete")).await
    }

    async fn get_resource_type(
        &self,
        request: Request<pb::GetResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        let (permit, request) = checked(request)?;
        self.get::<ResourceTypeFields>(&permit, &request.name, rpc!("GetResourceType", "resourceTypes.get"))
            .await
    }

    async fn list_resource_types(
        &self,
        request: Request<pb::ListResourceTypesRequest>,
    ) -> Answer<pb::ListResourceTypesResponse> {
        let page = self
            .list::<ResourceTypeFields, _>(request, rpc!("ListResourceTypes", "resourceTypes.list"))
            .await?;
        let PageOf { items: resource_types, next_page_token } = page;
        Ok(Response::new(pb::ListResourceTypesResponse { resource_types, next_page_token }))
    }

    async fn create_resource_type(
        &self,
        request: Request<pb::CreateResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        self.create::<ResourceTypeFields, _>(request, rpc!("CreateResourceType", "resourceTypes.create"))
            .await
    }

    async fn update_resource_type(
        &self,
        request: Request<pb::UpdateResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        self.update::<ResourceTypeFields, _>(request, rpc!("UpdateResourceType", "resourceTypes.update"))
            .await
    }

    async fn delete_resource_type(&self, request: Request<pb::DeleteResourceTypeRequest>) -> Answer<()> {
        self.delete::<ResourceTypeFields, _>(request, rpc!("DeleteResourceType", "resourceTypes.delete"))
            .await
    }

    async fn get_resource_definition(
        &self,
        request: Request<pb::GetResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        let (permit, request) = checked(request)?;
        self.get::<ResourceDefinitionFields>(
            &permit,
            &request.name,
            rpc!("GetResourceDefinition", "resourceDefinitions.get"),
        )
        .await
    }

    async fn list_resource_definitions(
        &self,
        request: Request<pb::ListResourceDefinitionsRequest>,
    ) -> Answer<pb::ListResourceDefinitionsResponse> {
        let page = self
            .list::<ResourceDefinitionFields, _>(
                request,
                rpc!("ListResourceDefinitions", "resourceDefinitions.list"),
            )
            .await?;
        let PageOf { items: resource_definitions, next_page_token } = page;
        Ok(Response::new(pb::ListResourceDefinitionsResponse { resource_definitions, next_page_token }))
    }

    async fn create_resource_definition(
        &self,
        request: Request<pb::CreateResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        self.create::<ResourceDefinitionFields, _>(
            request,
            rpc!("CreateResourceDefinition", "resourceDefinitions.create"),
        )
        .await
    }

    async fn update_resource_definition(
        &self,
        request: Request<pb::UpdateResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        self.update::<ResourceDefinitionFields, _>(
            request,
            rpc!("UpdateResourceDefinition", "resourceDefinitions.update"),
        )
        .await
    }

    async fn delete_resource_definition(
        &self,
        request: Request<pb::DeleteResourceDefinitionRequest>,
    ) -> Answer<()> {
        self.delete::<ResourceDefinitionFields, _>(
            request,
            rpc!("DeleteResourceDefinition", "resourceDefinitions.delete"),
        )
        .await
    }

    async fn get_template_version(
        &self,
        request: Request<pb::GetTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        self.version(request, rpc!("GetTemplateVersion", "versions.get")).await
    }

    async fn list_template_versions(
        &self,
        request: Request<pb::ListTemplateVersionsRequest>,
    ) -> Answer<pb::ListTemplateVersionsResponse> {
        let page =
            self.list::<VersionFields, _>(request, rpc!("ListTemplateVersions", "versions.list")).await?;
        let PageOf { items: template_versions, next_page_token } = page;
        Ok(Response::new(pb::ListTemplateVersionsResponse { template_versions, next_page_token }))
    }

    async fn publish_template_version(
        &self,
        request: Request<pb::PublishTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        self.publish(request, rpc!("PublishTemplateVersion", "versions.publish")).await
    }

    async fn match_resource_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
    ) -> Answer<pb::MatchResourceDefinitionsResponse> {
        self.match_definitions(request, rpc!("MatchResourceDefinitions", "resourceDefinitions.match")).await
    }

    async fn get_directory(&self, request: Request<pb::GetDirectoryRequest>) -> Answer<pb::Directory> {
        self.directory(request, rpc!("GetDirectory", "directory.get")).await
    }
}
