//! The peers: a catalog of fixed documents, a policy service that answers as it is told, an audit service that takes
//! everything. Real servers, small ones.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use pavior_proto::pavior::audit::internal::v1::{
    AppendRecordsRequest, AppendRecordsResponse, GetProducerStateRequest, ProducerState,
};
use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_rpc::convert::{self, from_json, to_struct};
use pavior_rpc::{ErrorReason, Problem};
use prost::Message;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

/// One method as a function.
struct Method<F>(F);

impl<Q, A, F> UnaryService<Q> for Method<F>
where
    F: Fn(Q) -> Result<A, Status>,
{
    type Response = A;
    type Future = std::future::Ready<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        std::future::ready((self.0)(request.into_inner()).map(Response::new))
    }
}

async fn unary<Q, A>(
    request: http::Request<Body>,
    method: impl Fn(Q) -> Result<A, Status>,
) -> http::Response<Body>
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
{
    let codec = tonic_prost::ProstCodec::<A, Q>::default();
    tonic::server::Grpc::new(codec).unary(Method(method), request).await
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) catalog_down: bool,
    pub(crate) policy_down: bool,
    pub(crate) audit_down: bool,
    /// The next question waits here.
    pub(crate) gate: Option<Arc<tokio::sync::Semaphore>>,
    pub(crate) content: Value,
    pub(crate) schema: Value,
    pub(crate) entities: BTreeMap<String, catalog::Entity>,
    /// What the catalog says to whoever asks what needs an entity.
    pub(crate) dependents: Vec<String>,
    /// Others need what is to be deleted.
    pub(crate) entities_needed: bool,
    /// Decisions by action; else yes.
    pub(crate) decisions: BTreeMap<String, Value>,
    pub(crate) questions: Vec<decision_pb::DecideRequest>,
    pub(crate) approvals: BTreeMap<String, policy::Approval>,
    pub(crate) records: Vec<String>,
    /// What the audit log knows of its only producer.
    pub(crate) producer: ProducerState,
}

/// All peers in one.
#[derive(Clone, Default)]
pub(crate) struct Peers(pub(crate) Arc<Mutex<State>>);

const ACME: &str = "organizations/acme";

impl Peers {
    fn template_version(
        &self,
        request: catalog::GetTemplateVersionRequest,
    ) -> Result<catalog::TemplateVersion, Status> {
        let state = self.0.lock().unwrap();
        let name = format!("{ACME}/templates/web-service/versions/1.0.0");
        if request.name != name && request.name != format!("{ACME}/templates/web-service/versions/stable") {
            return Err(Status::not_found("no such version"));
        }
        Ok(catalog::TemplateVersion {
            name,
            parameter_schema_json: state.schema.to_string(),
            content: to_struct(&state.content).ok(),
            ..Default::default()
        })
    }

    fn matches(
        &self,
        request: catalog::MatchResourceDefinitionsRequest,
    ) -> Result<catalog::MatchResourceDefinitionsResponse, Status> {
        if request.contexts.iter().any(|context| context.resource_type.ends_with("/tied")) {
            let tied = Problem::precondition(ErrorReason::AmbiguousDefinition, "several match").because(
                "STATE",
                format!("{ACME}/resourceDefinitions/one"),
                "applies to everything",
            );
            return Err(tied.into());
        }
        let one = |context: catalog::match_resource_definitions_request::Context| {
            let id = context.resource_type.rsplit('/').next().unwrap_or_default().to_owned();
            let secret = if id == "sql-database" { vec!["password".to_owned()] } else { vec![] };
            let driver = if id == "catalog-entity" { "catalog-entity" } else { "fake" };
            let definition = (id != "unheard-of").then(|| catalog::ResourceDefinition {
                name: format!("{ACME}/resourceDefinitions/{id}"),
                resource_type: context.resource_type.clone(),
                driver_id: driver.into(),
                monthly_cost: (id == "sql-database").then(|| convert::to_money("2.50 USD").unwrap()),
                ..Default::default()
            });
            catalog::match_resource_definitions_response::Match {
                resource_definition: definition,
                resource_type: Some(catalog::ResourceType {
                    name: context.resource_type,
                    secret_outputs: secret,
                    ..Default::default()
                }),
                explanation: String::new(),
            }
        };
        let matches = request.contexts.into_iter().map(one).collect();
        Ok(catalog::MatchResourceDefinitionsResponse { matches })
    }

    fn decide(&self, request: decision_pb::DecideRequest) -> Result<policy::Decision, Status> {
        let mut state = self.0.lock().unwrap();
        let approved = state.approvals.get(&request.approval).is_some_and(|approval| approval.state == 2);
        let told = state.decisions.get(&request.action).cloned();
        let told = told.filter(|told| !(approved && told["effect"] == "EFFECT_REQUIRE_APPROVAL"));
        let mut decision = told.unwrap_or_else(|| json!({ "effect": "EFFECT_ALLOW" }));
        decision["name"] = json!(format!("decision-{}", state.questions.len()));
        state.questions.push(request);
        from_json(decision).map_err(|error| Status::internal(error.to_string()))
    }

    fn decide_all(
        &self,
        request: decision_pb::BatchDecideRequest,
    ) -> Result<decision_pb::BatchDecideResponse, Status> {
        let decisions = request.requests.into_iter().map(|one| self.decide(one)).collect::<Result<_, _>>()?;
        Ok(decision_pb::BatchDecideResponse { decisions })
    }

    fn ask(&self, request: decision_pb::CreateApprovalRequest) -> Result<policy::Approval, Status> {
        let mut state = self.0.lock().unwrap();
        let mut wanted = request.approval.unwrap_or_default();
        if let Some(there) = state.approvals.values().find(|there| there.operation == wanted.operation) {
            return Ok(there.clone());
        }
        wanted.name = format!("{ACME}/approvals/a{}", state.approvals.len());
        wanted.state = 1;
        state.approvals.insert(wanted.name.clone(), wanted.clone());
        Ok(wanted)
    }

    fn said(
        &self,
        request: decision_pb::BatchGetApprovalsRequest,
    ) -> Result<decision_pb::BatchGetApprovalsResponse, Status> {
        let state = self.0.lock().unwrap();
        let found = request.names.iter().map(|name| state.approvals.get(name).cloned());
        let approvals: Option<_> = found.collect();
        let approvals = approvals.ok_or_else(|| Status::not_found("one of them"))?;
        Ok(decision_pb::BatchGetApprovalsResponse { approvals })
    }

    fn register_entity(
        &self,
        request: registration_pb::RegisterEntityRequest,
    ) -> Result<catalog::Entity, Status> {
        let name = format!("{}/entities/{}", request.parent, request.entity_id);
        let of = ("pavior.dev/resource".to_owned(), request.resource);
        let mut state = self.0.lock().unwrap();
        if state.entities.get(&name).is_some_and(|there| there.annotations.get(&of.0) != Some(&of.1)) {
            return Err(Status::already_exists("there is one"));
        }
        let annotations = [of].into();
        let entity =
            catalog::Entity { name: name.clone(), annotations, ..request.entity.unwrap_or_default() };
        state.entities.insert(name, entity.clone());
        Ok(entity)
    }

    async fn gate(&self) {
        let gate = self.0.lock().unwrap().gate.take();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        let down = {
            let state = self.0.lock().unwrap();
            [("catalog", state.catalog_down), ("policy", state.policy_down), ("audit", state.audit_down)]
        };
        if down.iter().any(|(service, down)| *down && path.contains(service)) {
            return Status::unavailable("down").into_http();
        }
        let entities = |state: &Peers, name: &str| state.0.lock().unwrap().entities.get(name).cloned();
        match path.rsplit('/').next().unwrap_or_default() {
            "GetTemplateVersion" => unary(request, |q| self.template_version(q)).await,
            "MatchResourceDefinitions" => unary(request, |q| self.matches(q)).await,
            "RegisterEntity" => unary(request, |q| self.register_entity(q)).await,
            "ListDependents" => {
                unary(request, |_: registration_pb::ListDependentsRequest| {
                    let entities = self.0.lock().unwrap().dependents.clone();
                    Ok(registration_pb::ListDependentsResponse { entities })
                })
                .await
            }
            "GetEntity" => {
                unary(request, |q: catalog::GetEntityRequest| {
                    entities(&self, &q.name).ok_or_else(|| Status::not_found("none"))
                })
                .await
            }
            "GetGroup" => {
                unary(request, |q: identity_pb::GetGroupRequest| match q.name.ends_with("/nobody") {
                    true => Err(Status::not_found("none")),
                    false => Ok(identity_pb::Group { name: q.name, ..Default::default() }),
                })
                .await
            }
            "UnregisterEntity" => {
                unary(request, |q: registration_pb::UnregisterEntityRequest| {
                    let mut state = self.0.lock().unwrap();
                    if state.entities_needed {
                        return Err(Status::failed_precondition("it is needed by others"));
                    }
                    state.entities.remove(&q.name);
                    Ok(())
                })
                .await
            }
            "Decide" => {
                self.gate().await;
                unary(request, |q| self.decide(q)).await
            }
            "BatchDecide" => {
                self.gate().await;
                unary(request, |q| self.decide_all(q)).await
            }
            "CreateApproval" => unary(request, |q| self.ask(q)).await,
            "BatchGetApprovals" => unary(request, |q| self.said(q)).await,
            "CancelApproval" => {
                unary(request, |q: decision_pb::CancelApprovalRequest| {
                    let mut state = self.0.lock().unwrap();
                    let approval =
                        state.approvals.get_mut(&q.name).ok_or_else(|| Status::not_found("none"))?;
                    approval.state = 5;
                    Ok(approval.clone())
                })
                .await
            }
            "AppendRecords" => {
                unary(request, |q: AppendRecordsRequest| {
                    let last = q.events.last().map(|event| event.sequence).unwrap_or_default();
                    let records = q.events.iter().map(|event| format!("{event:?}"));
                    let mut state = self.0.lock().unwrap();
                    state.records.extend(records);
                    state.producer.last_sequence = last;
                    state.producer.newest_epoch = q.producer.unwrap_or_default().epoch;
                    Ok(AppendRecordsResponse { acknowledged_sequence: last })
                })
                .await
            }
            "GetProducerState" => {
                unary(request, |_: GetProducerStateRequest| Ok(self.0.lock().unwrap().producer.clone())).await
            }
            other => Status::unimplemented(other.to_owned()).into_http(),
        }
    }
}

impl tower::Service<http::Request<Body>> for Peers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}
