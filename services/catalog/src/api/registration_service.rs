//! `pavior.catalog.internal.v1.RegistrationService`.

use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::internal::v1::registration_service_server::RegistrationService;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl RegistrationService for Api {
    async fn register_entity(
        &self,
        request: Request<registration_pb::RegisterEntityRequest>,
    ) -> Answer<pb::Entity> {
        self.register(request).await
    }

    async fn unregister_entity(
        &self,
        request: Request<registration_pb::UnregisterEntityRequest>,
    ) -> Answer<()> {
        self.unregister(request).await
    }

    async fn list_dependents(
        &self,
        request: Request<registration_pb::ListDependentsRequest>,
    ) -> Answer<registration_pb::ListDependentsResponse> {
        self.dependents(request).await
    }
}
