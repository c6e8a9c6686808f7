//! `pavior.catalog.v1.CatalogService`.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::catalog_service_server::CatalogService;
use pavior_resource::{
    Answer, Patch, create, create_with, delete, delete_with, get, list, update, update_with,
};
use tonic::Request;

use super::Api;
use super::entity::{encode_deleted, encode_entity};
use crate::app::{create_entity, delete_entity, update_entity};
use crate::domain::{EntityFields, KindFields, Stored};

#[tonic::async_trait]
impl CatalogService for Api {
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

    async fn delete_kind(&self, request: Request<pb::DeleteKindRequest>) -> Answer<pb::Kind> {
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

    async fn list_entity_relations(
        &self,
        request: Request<pb::ListEntityRelationsRequest>,
    ) -> Answer<pb::ListEntityRelationsResponse> {
        self.page_of_relations(request).await
    }

    async fn create_entity(&self, request: Request<pb::CreateEntityRequest>) -> Answer<pb::Entity> {
        create_with(&self.app, request, encode_entity, |work, command| Box::pin(create_entity(work, command)))
            .await
    }

    async fn update_entity(&self, request: Request<pb::UpdateEntityRequest>) -> Answer<pb::Entity> {
        update_with(&self.app, request, encode_entity, |work, patch: &Patch<EntityFields>| {
            let merge = move |before: Option<&Stored<EntityFields>>| patch.merged(work, before);
            Box::pin(update_entity(work, &patch.update, patch.allow_missing, merge))
        })
        .await
    }

    async fn delete_entity(&self, request: Request<pb::DeleteEntityRequest>) -> Answer<pb::Entity> {
        delete_with::<EntityFields, _, _, _>(&self.app, request, encode_deleted, |work, command| {
            Box::pin(delete_entity(work, command))
        })
        .await
    }

    async fn import_entities(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
    ) -> Answer<pb::ImportEntitiesResponse> {
        self.import(request).await
    }
}
