//! `pavior.governance.v1.ResourceFactsService` for the resources of the catalog.

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::governance::v1 as pb;
use pavior_proto::pavior::governance::v1::resource_facts_service_server::ResourceFactsService;
use pavior_rpc::facts::recall;
use pavior_rpc::problem::Problem;
use pavior_rpc::validate;
use pavior_store::idempotency;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::convert::to_hash_map;
use super::handlers::{Api, checked};
use super::special::documents;
use super::status::to_status;
use crate::app::{Facts, OwnerChange};
use crate::domain::{EntityFields, Resource as _};

const ACTION: &str = "governance.facts.get";
const IMPORT: &str = "/pavior.catalog.v1.CatalogService/ImportEntities";
const CREATE: &str = "catalog.entities.create";
const UPDATE: &str = "catalog.entities.update";

#[tonic::async_trait]
impl ResourceFactsService for Api {
    async fn get_resource_facts(
        &self,
        request: Request<pb::GetResourceFactsRequest>,
    ) -> Result<Response<pb::ResourceFacts>, Status> {
        let (permit, request) = checked(request)?;
        let name = ResourceName::parse(&request.name)
            .map_err(|error| Problem::invalid_field("name", error.to_string()))?;
        if name.organization() != permit.organization() {
            return Err(Problem::permission_denied(ACTION, &request.name).into());
        }
        if !request.request_id.is_empty() {
            let pb::GetResourceFactsRequest { principal, method, request_id, .. } = &request;
            let key = idempotency::Key::new(permit.organization(), principal, method, request_id);
            let kept = self.app.facts_at_first(&key).await.map_err(|error| to_status(error, ACTION))?;
            if let Some(first) = recall(kept, &request.name)? {
                return Ok(Response::new(first));
            }
        }
        let facts = self.app.facts(&permit, &name).await.map_err(|error| to_status(error, ACTION))?;
        let mut facts = encode(&facts);
        if !request.message.is_empty() {
            facts.owner_changes = self.owner_changes(&permit, request).await?;
        }
        Ok(Response::new(facts))
    }
}

impl Api {
    /// What a change would do to owners. Imports alone speak of them in documents.
    async fn owner_changes(
        &self,
        permit: &Permit,
        request: pb::GetResourceFactsRequest,
    ) -> Result<Vec<pb::OwnerChange>, Status> {
        let pb::GetResourceFactsRequest { name, method, message, .. } = request;
        if method != IMPORT {
            return Err(Problem::invalid_field("method", "has no owners within its request").into());
        }
        let import = catalog::ImportEntitiesRequest::decode(message.as_slice())
            .map_err(|_| Problem::invalid_field("message", "is not valid protobuf"))?;
        if import.parent != name {
            return Err(Problem::invalid_field("message", "is about another resource than `name`").into());
        }
        validate::request(&import)?;
        let changes = self.app.owner_changes(permit, documents(import)).await;
        let changes = changes.map_err(|error| to_status(error, ACTION))?;
        let encode = |OwnerChange { exists, before, after }| pb::OwnerChange {
            action: if exists { UPDATE } else { CREATE }.to_owned(),
            r#type: EntityFields::TYPE.to_owned(),
            moves: exists && before != after,
            owner: before,
            new_owner: after,
        };
        Ok(changes.into_iter().map(encode).collect())
    }
}

/// As they are kept with an answer.
pub(super) fn bytes(facts: &Facts) -> Vec<u8> {
    encode(facts).encode_to_vec()
}

fn encode(facts: &Facts) -> pb::ResourceFacts {
    let Facts { name, exists, resource_type, owner, labels } = facts;
    pb::ResourceFacts {
        name: name.clone(),
        exists: *exists,
        r#type: (*resource_type).to_owned(),
        owner: owner.clone(),
        project: String::new(),
        environment_class: String::new(),
        labels: to_hash_map(labels),
        owner_changes: Vec::new(),
    }
}
