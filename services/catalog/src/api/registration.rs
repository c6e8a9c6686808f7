//! `pavior.catalog.internal.v1.RegistrationService`.

use pavior_core::Fault;
use pavior_core::id::validate_new_id;
use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::internal::v1::registration_service_server::RegistrationService;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{Answer, ChangeContext, Scope, decode, name, parent, read_request, respond};
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use super::entity::encode_entity;
use crate::app::{Register, Registered, Unregister};
use crate::domain::EntityFields;

/// Most entities of one part of their list.
const MAX_REGISTERED: u64 = 1_000;

#[tonic::async_trait]
impl RegistrationService for Api {
    async fn register_entity(
        &self,
        request: Request<registration_pb::RegisterEntityRequest>,
    ) -> Answer<pb::Entity> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::RegisterEntityRequest::ACTION;
        let kind = parent::<EntityFields>(&permit, "parent", &request.parent, false, action);
        let kind = kind.map_err(Problem::from)?.unwrap_or_default();
        if !request.entity_id.is_empty() {
            validate_new_id("entities", &request.entity_id)
                .map_err(|message| Problem::invalid_field("entity_id", Fault::Pattern, message))?;
        }
        let scope = Scope { service: &self.app, organization: permit.organization(), parent: &kind };
        let fields = decode::<EntityFields>(&request.entity.clone().unwrap_or_default(), &scope, None);
        let fields = fields.map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request).within(&request.operation_id)?;
        let registration_pb::RegisterEntityRequest {
            parent: _,
            entity_id: id,
            entity: _,
            resource,
            key,
            operation_id: _,
            declaration_digest: declaration,
            create,
            uid,
        } = request;
        let command = Register { id, fields, resource, key, declaration, create, uid };
        respond(self.app.register_entity(&context, encode_entity, command).await)
    }

    async fn unregister_entity(
        &self,
        request: Request<registration_pb::UnregisterEntityRequest>,
    ) -> Answer<()> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::UnregisterEntityRequest::ACTION;
        let named = name::<EntityFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request).within(&request.operation_id)?;
        let registration_pb::UnregisterEntityRequest { name: _, resource, operation_id: _, uid, key } =
            request;
        let command = Unregister { kind: named.parent, id: named.id, resource, uid, key };
        respond(self.app.unregister_entity(&context, command).await)
    }

    async fn list_dependents(
        &self,
        request: Request<registration_pb::ListDependentsRequest>,
    ) -> Answer<registration_pb::ListDependentsResponse> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::ListDependentsRequest::ACTION;
        let named = name::<EntityFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let registration_pb::ListDependentsRequest { name: _, resource, uid } = request;
        let found = self.app.dependents_of(&permit, &named.parent, &named.id, &resource, &uid).await;
        respond(found.map(|entities| registration_pb::ListDependentsResponse { entities }))
    }

    async fn list_registered_entities(
        &self,
        request: Request<registration_pb::ListRegisteredEntitiesRequest>,
    ) -> Answer<registration_pb::ListRegisteredEntitiesResponse> {
        let (_, request) = read_request(request)?;
        let limit =
            u64::try_from(request.page_size).ok().filter(|limit| (1..=MAX_REGISTERED).contains(limit));
        let limit = limit.ok_or_else(|| {
            let text = format!("must be between 1 and {MAX_REGISTERED}");
            Problem::invalid_field("page_size", Fault::OutOfRange, text)
        })?;
        let found = self.app.registered(&request.after, limit).await;
        respond(found.map(|entities| registration_pb::ListRegisteredEntitiesResponse {
            entities: entities.into_iter().map(registered).collect(),
        }))
    }
}

fn registered(entity: Registered) -> registration_pb::RegisteredEntity {
    let Registered { name, uid, resource, key, declaration: declaration_digest } = entity;
    registration_pb::RegisteredEntity { name, resource, key, declaration_digest, uid }
}
