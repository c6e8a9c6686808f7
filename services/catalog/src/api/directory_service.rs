//! `pavior.identity.internal.v1.DirectoryService`.

use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::internal::v1::directory_service_server::DirectoryService;
use pavior_resource::Answer;
use tonic::Request;

use super::Api;

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn get_directory(
        &self,
        request: Request<directory_pb::GetDirectoryRequest>,
    ) -> Answer<directory_pb::Directory> {
        self.directory(request).await
    }
}
