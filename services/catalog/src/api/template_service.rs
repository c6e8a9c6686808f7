//! `pavior.catalog.v1.TemplateService`.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::template_service_server::TemplateService;
use pavior_resource::{Answer, create, delete, get, list, update};
use tonic::Request;

use super::Api;
use crate::domain::{TemplateFields, VersionFields};

#[tonic::async_trait]
impl TemplateService for Api {
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

    async fn delete_template(&self, request: Request<pb::DeleteTemplateRequest>) -> Answer<pb::Template> {
        delete::<TemplateFields, _>(&self.app, request).await
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

    async fn create_template_version(
        &self,
        request: Request<pb::CreateTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        self.create_version(request).await
    }

    async fn move_template_channel(
        &self,
        request: Request<pb::MoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        self.move_channel(request).await
    }

    async fn remove_template_channel(
        &self,
        request: Request<pb::RemoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        self.remove_channel(request).await
    }
}
