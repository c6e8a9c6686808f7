//! `pavior.catalog.v1.CatalogService`: each method decodes, calls a use case, and encodes.

mod convert;
mod convert_entity;
mod convert_resource;
mod facts;
mod special;
mod status;

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::catalog_service_server::CatalogService;
use pavior_resource::{Answer, Patch, create, create_with, delete, get, list, update, update_with};
use tonic::Request;

use convert_entity::encode_entity;

use crate::app::{App, create_entity, update_entity};
use crate::domain::{
    EntityFields, GroupFields, KindFields, OrganizationFields, ResourceDefinitionFields, ResourceTypeFields,
    TemplateFields, UserFields, VersionFields,
};

/// The catalog on the wire. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl CatalogService for Api {
    async fn create_organization(
        &self,
        request: Request<pb::CreateOrganizationRequest>,
    ) -> Answer<pb::Organization> {
        self.make_organization(request).await
    }

    async fn get_organization(
        &self,
        request: Request<pb::GetOrganizationRequest>,
    ) -> Answer<pb::Organization> {
        get::<OrganizationFields, _>(&self.app, request).await
    }

    async fn list_organizations(
        &self,
        request: Request<pb::ListOrganizationsRequest>,
    ) -> Answer<pb::ListOrganizationsResponse> {
        self.page_of_organizations(request).await
    }

    async fn get_group(&self, request: Request<pb::GetGroupRequest>) -> Answer<pb::Group> {
        get::<GroupFields, _>(&self.app, request).await
    }

    async fn list_groups(&self, request: Request<pb::ListGroupsRequest>) -> Answer<pb::ListGroupsResponse> {
        list::<GroupFields, _>(&self.app, request).await
    }

    async fn create_group(&self, request: Request<pb::CreateGroupRequest>) -> Answer<pb::Group> {
        create::<GroupFields, _>(&self.app, request).await
    }

    async fn update_group(&self, request: Request<pb::UpdateGroupRequest>) -> Answer<pb::Group> {
        update::<GroupFields, _>(&self.app, request).await
    }

    async fn delete_group(&self, request: Request<pb::DeleteGroupRequest>) -> Answer<()> {
        delete::<GroupFields, _>(&self.app, request).await
    }

    async fn get_user(&self, request: Request<pb::GetUserRequest>) -> Answer<pb::User> {
        get::<UserFields, _>(&self.app, request).await
    }

    async fn list_users(&self, request: Request<pb::ListUsersRequest>) -> Answer<pb::ListUsersResponse> {
        list::<UserFields, _>(&self.app, request).await
    }

    async fn create_user(&self, request: Request<pb::CreateUserRequest>) -> Answer<pb::User> {
        create::<UserFields, _>(&self.app, request).await
    }

    async fn update_user(&self, request: Request<pb::UpdateUserRequest>) -> Answer<pb::User> {
        update::<UserFields, _>(&self.app, request).await
    }

    async fn delete_user(&self, request: Request<pb::DeleteUserRequest>) -> Answer<()> {
        delete::<UserFields, _>(&self.app, request).await
    }

    async fn get_kind(&self, request: Request<pb::GetKindRequest>) -> Answer<pb::Kind> {
        get::<KindFields, _>(&self.app, request).await
    }

    async fn list_kinds(&self, request: Request<pb::ListKindsRequest>) -> Answer<pb::ListKindsResponse> {
        list::<KindFields, _>(&self.app, request).await
    }

    async fn create_kind(&self, request: Request<pb::CreateKindRequest>) -> Answer<pb::Kind> {
        create::<KindFields, _>(&self.app, request).await
    }

    async fn update_kind(&self, request: Request<pb::UpdateKindRequest>) -> Answer<pb::Kind> {
        update::<KindFields, _>(&self.app, request).await
    }

    async fn delete_kind(&self, request: Request<pb::DeleteKindRequest>) -> Answer<()> {
        delete::<KindFields, _>(&self.app, request).await
    }

    async fn get_entity(&self, request: Request<pb::GetEntityRequest>) -> Answer<pb::Entity> {
        self.entity(request).await
    }

    async fn batch_get_entities(
        &self,
        request: Request<pb::BatchGetEntitiesRequest>,
    ) -> Answer<pb::BatchGetEntitiesResponse> {
        self.several_entities(request).await
    }

    async fn list_entities(
        &self,
        request: Request<pb::ListEntitiesRequest>,
    ) -> Answer<pb::ListEntitiesResponse> {
        self.page_of_entities(request).await
    }

    async fn import_entities(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
    ) -> Answer<pb::ImportEntitiesResponse> {
        self.import(request).await
    }

    async fn create_entity(&self, request: Request<pb::CreateEntityRequest>) -> Answer<pb::Entity> {
        create_with(&self.app, request, encode_entity, |work, command| Box::pin(create_entity(work, command)))
            .await
    }

    async fn update_entity(&self, request: Request<pb::UpdateEntityRequest>) -> Answer<pb::Entity> {
        update_with(&self.app, request, encode_entity, |work, patch: &Patch<EntityFields>| {
            Box::pin(update_entity(work, &patch.update, |stored| patch.merged(work.service, stored)))
        })
        .await
    }

    async fn delete_entity(&self, request: Request<pb::DeleteEntityRequest>) -> Answer<()> {
        delete::<EntityFields, _>(&self.app, request).await
    }

    async fn register_entity(&self, request: Request<pb::RegisterEntityRequest>) -> Answer<pb::Entity> {
        self.register(request).await
    }

    async fn unregister_entity(&self, request: Request<pb::UnregisterEntityRequest>) -> Answer<()> {
        self.unregister(request).await
    }

    async fn get_template(&self, request: Request<pb::GetTemplateRequest>) -> Answer<pb::Template> {
        get::<TemplateFields, _>(&self.app, request).await
    }

    async fn list_templates(
        &self,
        request: Request<pb::ListTemplatesRequest>,
    ) -> Answer<pb::ListTemplatesResponse> {
        list::<TemplateFields, _>(&self.app, request).await
    }

    async fn create_template(&self, request: Request<pb::CreateTemplateRequest>) -> Answer<pb::Template> {
        create::<TemplateFields, _>(&self.app, request).await
    }

    async fn update_template(&self, request: Request<pb::UpdateTemplateRequest>) -> Answer<pb::Template> {
        update::<TemplateFields, _>(&self.app, request).await
    }

    async fn delete_template(&self, request: Request<pb::DeleteTemplateRequest>) -> Answer<()> {
        delete::<TemplateFields, _>(&self.app, request).await
    }

    async fn get_resource_type(
        &self,
        request: Request<pb::GetResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        get::<ResourceTypeFields, _>(&self.app, request).await
    }

    async fn list_resource_types(
        &self,
        request: Request<pb::ListResourceTypesRequest>,
    ) -> Answer<pb::ListResourceTypesResponse> {
        list::<ResourceTypeFields, _>(&self.app, request).await
    }

    async fn create_resource_type(
        &self,
        request: Request<pb::CreateResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        create::<ResourceTypeFields, _>(&self.app, request).await
    }

    async fn update_resource_type(
        &self,
        request: Request<pb::UpdateResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
        update::<ResourceTypeFields, _>(&self.app, request).await
    }

    async fn delete_resource_type(&self, request: Request<pb::DeleteResourceTypeRequest>) -> Answer<()> {
        delete::<ResourceTypeFields, _>(&self.app, request).await
    }

    async fn get_resource_definition(
        &self,
        request: Request<pb::GetResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        get::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn list_resource_definitions(
        &self,
        request: Request<pb::ListResourceDefinitionsRequest>,
    ) -> Answer<pb::ListResourceDefinitionsResponse> {
        list::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn create_resource_definition(
        &self,
        request: Request<pb::CreateResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        create::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn update_resource_definition(
        &self,
        request: Request<pb::UpdateResourceDefinitionRequest>,
    ) -> Answer<pb::ResourceDefinition> {
        update::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn delete_resource_definition(
        &self,
        request: Request<pb::DeleteResourceDefinitionRequest>,
    ) -> Answer<()> {
        delete::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn get_template_version(
        &self,
        request: Request<pb::GetTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        self.version(request).await
    }

    async fn list_template_versions(
        &self,
        request: Request<pb::ListTemplateVersionsRequest>,
    ) -> Answer<pb::ListTemplateVersionsResponse> {
        list::<VersionFields, _>(&self.app, request).await
    }

    async fn publish_template_version(
        &self,
        request: Request<pb::PublishTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        self.publish(request).await
    }

    async fn match_resource_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
    ) -> Answer<pb::MatchResourceDefinitionsResponse> {
        self.match_definitions(request).await
    }

    async fn get_directory(&self, request: Request<pb::GetDirectoryRequest>) -> Answer<pb::Directory> {
        self.directory(request).await
    }
}
