//! `pavior.governance.internal.v1.ResourceFactsService` for the resources of the catalog.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::governance::internal::v1 as facts_pb;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::shape::Request as _;
use pavior_resource::facts::{Told, tell_facts};
use pavior_resource::read_request;
use pavior_rpc::problem::Problem;
use pavior_rpc::validate;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Api;
use super::import::documents;

#[tonic::async_trait]
impl ResourceFactsService for Api {
    async fn get_resource_facts(
        &self,
        request: Request<facts_pb::GetResourceFactsRequest>,
    ) -> Result<Response<facts_pb::ResourceFacts>, Status> {
        let (permit, request) = read_request(request)?;
        let mut facts = match tell_facts(&self.app, &permit, &request).await.map_err(Problem::from)? {
            Told::Recalled(first) => return Ok(Response::new(first)),
            Told::Current(facts) => facts,
        };
        if !request.message.is_empty() {
            facts.owner_changes = self.owner_changes(&permit, request).await?;
        }
        Ok(Response::new(facts))
    }
}

impl Api {
    /// How a change would move entities between owners. Only imports name owners inside documents.
    async fn owner_changes(
        &self,
        permit: &Permit,
        request: facts_pb::GetResourceFactsRequest,
    ) -> Result<Vec<facts_pb::OwnerChange>, Status> {
        let facts_pb::GetResourceFactsRequest { name, method, message, .. } = request;
        if method != catalog::ImportEntitiesRequest::PATH {
            return Err(
                Problem::invalid_field("method", Fault::Unknown, "has no owners within its request").into()
            );
        }
        let import = catalog::ImportEntitiesRequest::decode(message.as_slice())
            .map_err(|_| Problem::invalid_field("message", Fault::Syntax, "is not valid protobuf"))?;
        if import.parent != name {
            return Err(Problem::invalid_field(
                "message",
                Fault::Conflict,
                "is about another resource than `name`",
            )
            .into());
        }
        validate::request(&import)?;
        let changes = self.app.owner_changes(permit, documents(import)).await;
        Ok(changes.map_err(Problem::from)?.into_iter().map(Into::into).collect())
    }
}
