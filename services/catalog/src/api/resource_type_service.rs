//! `pavior.catalog.v1.ResourceTypeService`.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::resource_type_service_server::ResourceTypeService;
use pavior_resource::{Answer, create, delete, get, list, update};
use tonic::Request;

use super::Api;
use crate::domain::{ResourceDefinitionFields, ResourceTypeFields};

#[tonic::async_trait]
impl ResourceTypeService for Api {
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

    async fn delete_resource_type(
        &self,
        request: Request<pb::DeleteResourceTypeRequest>,
    ) -> Answer<pb::ResourceType> {
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
    ) -> Answer<pb::ResourceDefinition> {
        delete::<ResourceDefinitionFields, _>(&self.app, request).await
    }

    async fn match_resource_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
    ) -> Answer<pb::MatchResourceDefinitionsResponse> {
        self.match_definitions(request).await
    }
}
