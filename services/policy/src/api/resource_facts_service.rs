//! `pavior.governance.internal.v1.ResourceFactsService`.

use pavior_auth::permit;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_resource::respond;
use pavior_rpc::validate;
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl ResourceFactsService for Api {
    async fn get_resource_facts(
        &self,
        request: Request<GetResourceFactsRequest>,
    ) -> Result<Response<ResourceFacts>, Status> {
        permit(&request)?;
        let request = request.into_inner();
        validate::request(&request)?;
        respond(self.app.facts(&request).await)
    }
}
