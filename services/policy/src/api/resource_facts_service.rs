//! `pavior.governance.internal.v1.ResourceFactsService`.

use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_resource::facts::{Told, tell_facts};
use pavior_resource::{read_request, respond};
use pavior_rpc::facts::no_owners_within;
use tonic::{Request, Response, Status};

use super::Api;

#[tonic::async_trait]
impl ResourceFactsService for Api {
    async fn get_resource_facts(
        &self,
        request: Request<GetResourceFactsRequest>,
    ) -> Result<Response<ResourceFacts>, Status> {
        let (permit, request) = read_request(request)?;
        no_owners_within(&request.message)?;
        let told = tell_facts(&self.app, &permit, &request).await;
        respond(told.map(|told| match told {
            Told::Recalled(facts) | Told::Current(facts) => facts,
        }))
    }
}
