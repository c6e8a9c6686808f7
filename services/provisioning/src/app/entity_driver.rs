//! The built-in driver of catalog entries: a component in the catalog is a resource of its project like any other.

use async_trait::async_trait;
use pavior_auth::{Permit, SystemAuthority};
use pavior_core::annotation;
use pavior_core::principal::INSTALLATION;
use pavior_driver::{
    ApplyRequest, CallContext, Dependents, DestroyRequest, Driver, DriverInfo, Failure, FailureCode, Found,
    Health, ListRequest, ListResponse, Listed, Lookup, Observation, ObserveRequest, Outcome, Paging, Partial,
    PlanRequest, PlanResponse, Sink, Success, TypeSchema, Undo, ValidateRequest, Violation, diff,
};
use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_rpc::convert;
use serde_json::{Map, Value, json};
use tonic::Code;

use super::peers::{Meant, Peers};
use crate::domain::names::{self, ENTITY_DRIVER};

/// Most entities of one page: with the one behind them, as many as the catalog gives at once.
const MAX_LISTED: usize = 999;

/// Registers entities on behalf of the organization.
#[derive(Debug)]
pub(crate) struct EntityDriver {
    peers: Peers,
    authority: SystemAuthority,
    paging: Paging,
}

impl EntityDriver {
    /// The key is that of page tokens.
    pub(crate) fn new(peers: Peers, authority: SystemAuthority, key: [u8; 32]) -> Self {
        Self { peers, authority, paging: Paging::new(key, ENTITY_DRIVER) }
    }

    fn permit(&self, context: &CallContext) -> Permit {
        Permit::for_system(&self.authority, &context.organization)
    }

    async fn put(&self, context: &CallContext, request: &ApplyRequest, sink: &dyn Sink) -> Outcome {
        match self.try_put(context, request, sink).await {
            Ok(success) => Outcome::Succeeded(success),
            // It may have been made although the answer did not arrive. To ask again for the same is safe.
            Err(failure) if failure.code == FailureCode::Unavailable => {
                failure.with_partial(Partial::default()).into()
            }
            Err(Failure { code: FailureCode::Timeout, message, .. }) => Outcome::Unknown { message },
            Err(failure) => Outcome::Failed(failure),
        }
    }

    async fn try_put(
        &self,
        context: &CallContext,
        request: &ApplyRequest,
        sink: &dyn Sink,
    ) -> Result<Success, Failure> {
        let inputs = &request.inputs;
        let permit = self.permit(context);
        let (kind, id) = (text(inputs, "kind"), text(inputs, "id"));
        let parent = format!("organizations/{}/kinds/{kind}", context.organization);
        let message = registration_pb::RegisterEntityRequest {
            parent: parent.clone(),
            entity_id: id.clone(),
            entity: Some(entity(inputs)?),
            resource: context.resource.clone(),
            // What is put back may be what the call itself had made anew.
            key: context.idempotency_key.trim_end_matches("/undo").to_owned(),
            operation_id: context.operation.clone(),
            declaration_digest: request.declaration_digest.clone(),
            create: request.prior.is_none(),
            uid: request.prior.as_ref().map_or("", |prior| names::entity_of(&prior.identity).1).to_owned(),
        };
        let name = format!("{parent}/entities/{id}");
        // So that an undo knows what to look for, even when nobody ever hears what became of the call.
        sink.checkpoint(json!({ "name": name })).await?;
        self.peers.register_entity(&permit, message).await.map(|made| success(&made)).map_err(failure)
    }
}

fn text(inputs: &Value, key: &str) -> String {
    inputs.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn entity(inputs: &Value) -> Result<catalog::Entity, Failure> {
    let invalid = |what: &str| Failure::new(FailureCode::InvalidArgument, format!("`{what}` is not valid"));
    let spec = inputs.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    Ok(catalog::Entity {
        display_name: text(inputs, "title"),
        description: text(inputs, "description"),
        owner: text(inputs, "owner"),
        spec: Some(convert::to_struct(&spec).map_err(|_| invalid("spec"))?),
        ..Default::default()
    })
}

fn listed(entity: registration_pb::RegisteredEntity) -> Listed {
    let registration_pb::RegisteredEntity { name, resource, key, declaration_digest, uid } = entity;
    Listed {
        resource_type: ENTITY_DRIVER.to_owned(),
        organization: names::organization_of(&name).to_owned(),
        identity: names::entity_identity(&name, &uid),
        resource,
        key,
        declaration_digest,
    }
}

fn success(entity: &catalog::Entity) -> Success {
    Success {
        identity: names::entity_identity(&entity.name, &entity.uid),
        outputs: json!({ "name": entity.name, "uid": entity.uid }),
        state: Value::Null,
        ..Success::default()
    }
}

fn failure((code, message): (Code, String)) -> Failure {
    let code = match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => FailureCode::InvalidArgument,
        Code::PermissionDenied | Code::Unauthenticated => FailureCode::Unsupported,
        Code::AlreadyExists | Code::Aborted => FailureCode::Conflict,
        Code::Unavailable | Code::ResourceExhausted | Code::Cancelled => FailureCode::Unavailable,
        Code::DeadlineExceeded => {
            return Failure {
                retryable: true,
                ..Failure::new(FailureCode::Timeout, "the catalog did not answer in time")
            };
        }
        _ => FailureCode::Internal,
    };
    Failure::new(code, format!("the catalog says: {message}"))
}

#[async_trait]
impl Driver for EntityDriver {
    fn info(&self) -> DriverInfo {
        let text = json!({ "type": "string" });
        DriverInfo {
            id: ENTITY_DRIVER.to_owned(),
            version: "1.0.0".to_owned(),
            types: vec![TypeSchema {
                id: ENTITY_DRIVER.to_owned(),
                inputs: json!({
                    "type": "object",
                    "required": ["kind", "id"],
                    "additionalProperties": false,
                    "properties": {
                        "kind": text, "id": text, "title": text, "description": text, "owner": text,
                        "spec": { "type": "object" },
                    },
                }),
                outputs: json!({ "type": "object", "properties": { "name": text, "uid": text } }),
                secret_outputs: Vec::new(),
                immutable: vec!["/kind".to_owned(), "/id".to_owned()],
                actions: Vec::new(),
                undo: Undo::Destroy,
                secret_inputs: Vec::new(),
            }],
        }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        let schema = self.info().types.first().map(|schema| schema.inputs.clone()).unwrap_or_default();
        let found = pavior_expr::schema::validate_planned(&schema, &request.inputs);
        if found.is_empty() {
            return Ok(request.inputs);
        }
        Err(found.into_iter().map(|v| Violation { path: v.pointer, message: v.message }).collect())
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let immutable = ["/kind".to_owned(), "/id".to_owned()];
        Ok(diff(request.prior.as_ref().map(|prior| &prior.inputs), request.desired.as_ref(), &immutable))
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        self.put(context, &request, sink).await
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        let identity = match request.lookup {
            Lookup::Identity(identity) => identity,
            // An entity is found by its name only; to apply again is safe and gives the same.
            Lookup::Key(_) => return Observation::Absent,
        };
        let (name, uid) = names::entity_of(&identity);
        match self.peers.get_entity(&self.permit(context), name).await {
            // One that belongs to something else now, or was made later, is not what was made.
            Ok(entity)
                if entity.annotations.get(annotation::RESOURCE) != Some(&context.resource)
                    || !(uid.is_empty() || entity.uid == uid) =>
            {
                Observation::Absent
            }
            Ok(entity) => {
                let declaration_digest =
                    entity.annotations.get(annotation::DECLARATION).cloned().unwrap_or_default();
                Observation::Found(Found { declaration_digest, ..Found::from(success(&entity)) })
            }
            Err((Code::NotFound, _)) => Observation::Absent,
            Err((_, message)) => Observation::Indeterminate { message },
        }
    }

    async fn dependents(
        &self,
        context: &CallContext,
        request: ObserveRequest,
    ) -> Result<Dependents, Failure> {
        let Lookup::Identity(identity) = request.lookup else { return Ok(Dependents::Are(Vec::new())) };
        let (name, uid) = names::entity_of(&identity);
        let found = self.peers.dependents(&self.permit(context), name, uid, &context.resource).await;
        found.map(Dependents::Are).map_err(failure)
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, _sink: &dyn Sink) -> Outcome {
        let permit = self.permit(context);
        let (identity, key) = match request.lookup {
            Lookup::Identity(identity) => (identity, String::new()),
            Lookup::Key(key) => (text(&request.state, "name"), key),
        };
        let (name, uid) = names::entity_of(&identity);
        if name.is_empty() {
            // The call never came as far as to ask for one.
            return Outcome::Succeeded(Success::default());
        }
        // One that was taken over by somebody else, or made anew since, is not ours to delete: the catalog leaves it alone.
        let meant = Meant { name: name.to_owned(), uid: uid.to_owned(), key };
        match self.peers.unregister_entity(&permit, meant, context).await {
            Ok(()) => Outcome::Succeeded(Success::default()),
            // Others need it, so that nothing was done.
            Err((Code::FailedPrecondition, message)) => failure((Code::Aborted, message)).into(),
            Err(error) => failure(error).into(),
        }
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let after = self.paging.after(&request)?;
        // One more than the page holds tells whether there is another.
        let wanted = request.page_size.min(MAX_LISTED) + 1;
        let request = ListRequest { page_size: wanted - 1, ..request };
        let permit = Permit::for_system(&self.authority, INSTALLATION);
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let after = names::entity_of(&after).0.to_owned();
        let found = self.peers.registered_entities(&permit, after, wanted).await.map_err(failure)?;
        Ok(self.paging.page(&request, found.into_iter().map(listed)))
    }

    async fn health(&self) -> Health {
        Health::Ok
    }
}
