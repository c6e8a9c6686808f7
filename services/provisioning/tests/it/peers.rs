//! The peers: a catalog of fixed documents, a policy service that answers as it is told, an audit service that takes
//! everything. Real servers, small ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

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
use pavior_testkit::fake::Fake;
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;

#[derive(Default)]
pub(crate) struct State {
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
    /// Why people cannot be asked now.
    pub(crate) away: Option<Problem>,
    /// What people agree to is not enough.
    pub(crate) wants_more: bool,
    pub(crate) records: Vec<String>,
    /// What the audit log knows of its only producer.
    pub(crate) producer: ProducerState,
}

/// The peers, which share what they know.
#[derive(Clone)]
pub(crate) struct Peers {
    state: Arc<Mutex<State>>,
    pub(crate) catalog: Fake,
    pub(crate) policy: Fake,
    pub(crate) audit: Fake,
}

const ACME: &str = "organizations/acme";

impl Default for Peers {
    fn default() -> Self {
        let [catalog, policy, audit] = std::array::from_fn(|_| Fake::default());
        let this = Self { state: Arc::default(), catalog, policy, audit };
        this.on(&this.catalog, "catalog.v1.TemplateService/GetTemplateVersion", State::template_version);
        this.on(&this.catalog, "catalog.v1.ResourceTypeService/MatchResourceDefinitions", State::matches);
        this.on(&this.catalog, "catalog.v1.CatalogService/GetEntity", State::entity);
        this.on(&this.catalog, "identity.v1.IdentityService/GetGroup", State::group);
        let registration = "catalog.internal.v1.RegistrationService";
        this.on(&this.catalog, &format!("{registration}/RegisterEntity"), State::register_entity);
        this.on(&this.catalog, &format!("{registration}/UnregisterEntity"), State::unregister_entity);
        this.on(&this.catalog, &format!("{registration}/ListDependents"), State::list_dependents);
        this.on(&this.catalog, &format!("{registration}/ListRegisteredEntities"), State::list_registered);
        this.on_gated("policy.internal.v1.DecisionService/Decide", State::decide);
        this.on_gated("policy.internal.v1.DecisionService/BatchDecide", State::decide_all);
        let approvals = "policy.internal.v1.OperationApprovalService";
        this.on(&this.policy, &format!("{approvals}/CreateApproval"), State::ask);
        this.on(&this.policy, &format!("{approvals}/BatchGetApprovals"), State::said);
        this.on(&this.policy, &format!("{approvals}/CancelApproval"), State::cancel);
        let recorder = "audit.internal.v1.RecorderService";
        this.on(&this.audit, &format!("{recorder}/AppendRecords"), State::append);
        this.on(&this.audit, &format!("{recorder}/GetProducerState"), State::producer_state);
        this
    }
}

impl Peers {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Answers a method, named without `pavior.`, from the state.
    fn on<Q, A>(&self, fake: &Fake, method: &str, answer: fn(&mut State, Q) -> Result<A, Status>)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let state = self.state.clone();
        fake.on(&format!("/pavior.{method}"), move |request| answer(&mut state.lock().unwrap(), request));
    }

    /// The same for a method of policy that waits at the gate first.
    fn on_gated<Q, A>(&self, method: &str, answer: fn(&mut State, Q) -> Result<A, Status>)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let state = self.state.clone();
        self.policy.on_async(&format!("/pavior.{method}"), move |request: Q| {
            let state = state.clone();
            async move {
                let gate = state.lock().unwrap().gate.take();
                if let Some(gate) = gate {
                    gate.acquire().await.unwrap().forget();
                }
                answer(&mut state.lock().unwrap(), request)
            }
        });
    }
}

impl State {
    fn template_version(
        &mut self,
        request: catalog::GetTemplateVersionRequest,
    ) -> Result<catalog::TemplateVersion, Status> {
        let name = format!("{ACME}/templates/web-service/versions/1.0.0");
        if request.name != name && request.name != format!("{ACME}/templates/web-service/versions/stable") {
            return Err(Status::not_found("no such version"));
        }
        Ok(catalog::TemplateVersion {
            name,
            parameter_schema_json: self.schema.to_string(),
            content: to_struct(&self.content).ok(),
            ..Default::default()
        })
    }

    fn matches(
        &mut self,
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

    fn decide(&mut self, request: decision_pb::DecideRequest) -> Result<policy::Decision, Status> {
        let approved = !self.wants_more
            && self.approvals.get(&request.approval).is_some_and(|approval| approval.state == 2);
        let told = self.decisions.get(&request.action).cloned();
        let told = told.filter(|told| !(approved && told["effect"] == "EFFECT_REQUIRE_APPROVAL"));
        let mut decision = told.unwrap_or_else(|| json!({ "effect": "EFFECT_ALLOW" }));
        decision["name"] = json!(format!("decision-{}", self.questions.len()));
        self.questions.push(request);
        from_json(decision).map_err(|error| Status::internal(error.to_string()))
    }

    fn decide_all(
        &mut self,
        request: decision_pb::BatchDecideRequest,
    ) -> Result<decision_pb::BatchDecideResponse, Status> {
        let decisions = request.requests.into_iter().map(|one| self.decide(one)).collect::<Result<_, _>>()?;
        Ok(decision_pb::BatchDecideResponse { decisions })
    }

    fn ask(&mut self, request: decision_pb::CreateApprovalRequest) -> Result<policy::Approval, Status> {
        if let Some(away) = self.away.clone() {
            return Err(away.into());
        }
        let mut wanted = request.approval.unwrap_or_default();
        if let Some(there) = self.approvals.values().find(|there| there.operation == wanted.operation) {
            return Ok(there.clone());
        }
        wanted.name = format!("{ACME}/approvals/a{}", self.approvals.len());
        wanted.state = 1;
        self.approvals.insert(wanted.name.clone(), wanted.clone());
        Ok(wanted)
    }

    fn said(
        &mut self,
        request: decision_pb::BatchGetApprovalsRequest,
    ) -> Result<decision_pb::BatchGetApprovalsResponse, Status> {
        if let Some(away) = self.away.clone() {
            return Err(away.into());
        }
        let found = request.names.iter().map(|name| self.approvals.get(name).cloned());
        let approvals: Option<_> = found.collect();
        let approvals = approvals.ok_or_else(|| Status::not_found("one of them"))?;
        Ok(decision_pb::BatchGetApprovalsResponse { approvals })
    }

    fn register_entity(
        &mut self,
        request: registration_pb::RegisterEntityRequest,
    ) -> Result<catalog::Entity, Status> {
        let name = format!("{}/entities/{}", request.parent, request.entity_id);
        let of = ("pavior.dev/resource".to_owned(), request.resource);
        let key = ("pavior.dev/key".to_owned(), request.key);
        let declared = ("pavior.dev/declaration".to_owned(), request.declaration_digest);
        let foreign = |there: &catalog::Entity| {
            let differs = |(name, text): &(String, String)| there.annotations.get(name) != Some(text);
            differs(&of) || request.create && differs(&key)
        };
        if self.entities.get(&name).is_some_and(foreign) {
            return Err(Status::already_exists("there is one"));
        }
        let annotations = [of, key, declared].into();
        let entity =
            catalog::Entity { name: name.clone(), annotations, ..request.entity.unwrap_or_default() };
        self.entities.insert(name, entity.clone());
        Ok(entity)
    }

    fn unregister_entity(&mut self, request: registration_pb::UnregisterEntityRequest) -> Result<(), Status> {
        if self.entities_needed {
            return Err(Status::failed_precondition("it is needed by others"));
        }
        if self
            .entities
            .get(&request.name)
            .is_some_and(|there| request.uid.is_empty() || there.uid == request.uid)
        {
            self.entities.remove(&request.name);
        }
        Ok(())
    }

    fn list_dependents(
        &mut self,
        _: registration_pb::ListDependentsRequest,
    ) -> Result<registration_pb::ListDependentsResponse, Status> {
        Ok(registration_pb::ListDependentsResponse { entities: self.dependents.clone() })
    }

    fn list_registered(
        &mut self,
        request: registration_pb::ListRegisteredEntitiesRequest,
    ) -> Result<registration_pb::ListRegisteredEntitiesResponse, Status> {
        let mut entities: Vec<_> =
            self.entities.values().filter(|entity| entity.name > request.after).collect();
        entities.sort_by(|a, b| a.name.cmp(&b.name));
        let entities = entities.into_iter().take(usize::try_from(request.page_size).unwrap()).map(|entity| {
            let text = |key: &str| entity.annotations.get(key).cloned().unwrap_or_default();
            registration_pb::RegisteredEntity {
                name: entity.name.clone(),
                resource: text("pavior.dev/resource"),
                key: text("pavior.dev/key"),
                declaration_digest: text("pavior.dev/declaration"),
                uid: entity.uid.clone(),
            }
        });
        Ok(registration_pb::ListRegisteredEntitiesResponse { entities: entities.collect() })
    }

    fn entity(&mut self, request: catalog::GetEntityRequest) -> Result<catalog::Entity, Status> {
        self.entities.get(&request.name).cloned().ok_or_else(|| Status::not_found("none"))
    }

    fn group(&mut self, request: identity_pb::GetGroupRequest) -> Result<identity_pb::Group, Status> {
        match request.name.ends_with("/nobody") {
            true => Err(Status::not_found("none")),
            false => Ok(identity_pb::Group { name: request.name, ..Default::default() }),
        }
    }

    fn cancel(&mut self, request: decision_pb::CancelApprovalRequest) -> Result<policy::Approval, Status> {
        let approval = self.approvals.get_mut(&request.name).ok_or_else(|| Status::not_found("none"))?;
        approval.state = 5;
        Ok(approval.clone())
    }

    fn append(&mut self, request: AppendRecordsRequest) -> Result<AppendRecordsResponse, Status> {
        let last = request.events.last().map(|event| event.sequence).unwrap_or_default();
        self.records.extend(request.events.iter().map(|event| format!("{event:?}")));
        self.producer.last_sequence = last;
        self.producer.newest_epoch = request.producer.unwrap_or_default().epoch;
        Ok(AppendRecordsResponse { acknowledged_sequence: last })
    }

    fn producer_state(&mut self, _: GetProducerStateRequest) -> Result<ProducerState, Status> {
        Ok(self.producer.clone())
    }
}
