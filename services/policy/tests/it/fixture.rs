//! One policy service with its callers.

use std::sync::Arc;
use std::time::Duration;

use pavior_auth::{Grant, INTERNAL_TOKEN, Permit, ServiceIdentity};
use pavior_core::audit::{AuditEvent, DecisionRef, Effect};
use pavior_core::principal::INSTALLATION;
use pavior_core::{Principal, PrincipalKind};
use pavior_policy::{Config, Deps, ROLE};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::decision_service_client::DecisionServiceClient;
use pavior_proto::pavior::policy::internal::v1::operation_approval_service_client::OperationApprovalServiceClient;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::policy::v1::access_service_client::AccessServiceClient;
use pavior_proto::pavior::policy::v1::approval_service_client::ApprovalServiceClient;
use pavior_proto::pavior::policy::v1::policy_service_client::PolicyServiceClient;
use pavior_proto::pavior::r#type::v1 as types;
use pavior_rpc::{StackOptions, Transport, local};
use pavior_runtime::Task;
use pavior_store::{Store, outbox};
use pavior_testkit::db::TestDb;
use pavior_testkit::fake::Fake;
use pavior_testkit::{ManualClock, PAGE_TOKEN_KEY, SeededIds, ServiceHarness, meter};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status};

use crate::catalog::{Catalog, audit};

pub(crate) const ACME: &str = "organizations/acme";
pub(crate) const CREATE: &str = "provisioning.environments.create";
pub(crate) const GET: &str = "provisioning.environments.get";

pub(crate) struct Fixture {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) catalog: Catalog,
    pub(crate) transport: Transport,
    pub(crate) tasks: Vec<Task>,
    pub(crate) audit: Fake,
    pub(crate) gateway: ServiceIdentity,
    pub(crate) provisioning: ServiceIdentity,
    _db: Option<TestDb>,
}

impl Fixture {
    pub(crate) async fn new(db: TestDb) -> Self {
        let store = db.connect().await;
        store.history().set(None);
        let catalog = Catalog::default();
        catalog.set(
            "1",
            &[("alice", &["core"]), ("bob", &["platform"]), ("carol", &["platform"])],
            &[("core", "payments")],
        );
        let mut f = Self::with(store, catalog, Arc::new(ManualClock::default()), 1).await;
        f._db = Some(db);
        f
    }

    /// Another replica over the same database.
    pub(crate) async fn replica(&self) -> Self {
        Self::with(self.store.clone(), self.catalog.clone(), self.clock.clone(), 1_000).await
    }

    pub(crate) async fn with(store: Store, catalog: Catalog, clock: Arc<ManualClock>, seed: u64) -> Self {
        let ids = Arc::new(SeededIds::new(seed + 1));
        let harness = ServiceHarness::with(ROLE, &["provisioning"], clock.clone(), ids);
        let audit = audit();
        let config =
            Config { max_roles: 6, max_policy_revisions: 3, expiry_interval_ms: 100, ..Config::default() };
        let deps = Deps {
            store: store.clone(),
            clock: clock.clone(),
            ids: Arc::new(SeededIds::new(seed + 2)),
            identity: harness.identity(ROLE).clone(),
            catalog: catalog.fake.transport(),
            audit: audit.transport(),
            meter: meter(),
            page_token_key: PAGE_TOKEN_KEY,
            instance: "test".into(),
        };
        let component = pavior_policy::build(config, deps).await.unwrap();
        Self {
            store,
            clock: clock.clone(),
            catalog,
            transport: local(harness.stack(component.routes, StackOptions::default())),
            tasks: component.tasks,
            audit,
            gateway: harness.identity("gateway").clone(),
            provisioning: harness.identity("provisioning").clone(),
            _db: None,
        }
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Transport> {
        AccessServiceClient::new(self.transport.clone())
    }

    pub(crate) fn policies(&self) -> PolicyServiceClient<Transport> {
        PolicyServiceClient::new(self.transport.clone())
    }

    pub(crate) fn approvals(&self) -> ApprovalServiceClient<Transport> {
        ApprovalServiceClient::new(self.transport.clone())
    }

    pub(crate) fn decisions(&self) -> DecisionServiceClient<Transport> {
        DecisionServiceClient::new(self.transport.clone())
    }

    pub(crate) fn operation_approvals(&self) -> OperationApprovalServiceClient<Transport> {
        OperationApprovalServiceClient::new(self.transport.clone())
    }

    pub(crate) fn facts(&self) -> ResourceFactsServiceClient<Transport> {
        ResourceFactsServiceClient::new(self.transport.clone())
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn signed<T>(
        &self,
        by: &ServiceIdentity,
        who: &Principal,
        action: &str,
        message: T,
    ) -> Request<T> {
        // Services belong to no organization, and work for one.
        let organization = if who.kind == PrincipalKind::Service { "acme" } else { &who.organization };
        self.signed_in(organization, by, who, action, message)
    }

    fn signed_in<T>(
        &self,
        organization: &str,
        by: &ServiceIdentity,
        who: &Principal,
        action: &str,
        message: T,
    ) -> Request<T> {
        let decision =
            DecisionRef { decision: "decision-1".into(), effect: Effect::Allow, ..DecisionRef::default() };
        let grant = Grant {
            audience: "policy",
            method: "",
            principal: who,
            organization,
            action,
            resource: "",
            decision: Some(&decision),
            facts: "",
            request_id: "request-1",
        };
        let mut request = Request::new(message);
        let token = by.mint(&grant).unwrap();
        request.metadata_mut().insert(INTERNAL_TOKEN, token.to_str().unwrap().parse().unwrap());
        request
    }

    /// A call of a user through the gateway.
    pub(crate) fn call<T>(&self, who: &str, action: &str, message: T) -> Request<T> {
        self.signed(&self.gateway, &user(who), action, message)
    }

    /// A call of a user through the gateway that is about the installation.
    pub(crate) fn on_platform<T>(&self, who: &str, action: &str, message: T) -> Request<T> {
        self.signed_in(INSTALLATION, &self.gateway, &user(who), action, message)
    }

    /// Decisions that wait to be written are.
    pub(crate) async fn write_decisions(&mut self) {
        let at = self.tasks.iter().position(|task| task.name == "decision_writer").unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        (self.tasks.remove(at).run)(cancel).await.unwrap();
    }

    /// A call of provisioning on behalf of a user.
    pub(crate) fn internal<T>(&self, who: &str, message: T) -> Request<T> {
        self.signed(&self.provisioning, &user(who), "", message)
    }

    /// A call of provisioning as itself.
    pub(crate) fn own<T>(&self, message: T) -> Request<T> {
        let itself = Permit::for_system(&self.provisioning.authority(), "acme");
        self.signed(&self.provisioning, itself.principal(), "", message)
    }

    pub(crate) async fn role(&self, id: &str, actions: &[&str]) -> pb::Role {
        let request = new_role(id, actions);
        self.access()
            .create_role(self.call("root", "policy.roles.create", request))
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn bind(
        &self,
        id: &str,
        role: &str,
        members: &[&str],
        reach: pb::role_binding::Reach,
    ) -> pb::RoleBinding {
        let request = pb::CreateRoleBindingRequest {
            parent: ACME.into(),
            role_binding_id: id.into(),
            role_binding: Some(pb::RoleBinding {
                role: format!("{ACME}/roles/{role}"),
                members: members.iter().map(|member| format!("{ACME}/{member}")).collect(),
                reach: reach.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let call = self.call("root", "policy.roleBindings.create", request);
        self.access().create_role_binding(call).await.unwrap().into_inner()
    }

    pub(crate) async fn policy(
        &self,
        id: &str,
        policy_type: pb::PolicyType,
        source: &str,
    ) -> Result<pb::Policy, Status> {
        let request = pb::CreatePolicyRequest {
            parent: ACME.into(),
            policy_id: id.into(),
            policy: Some(pb::Policy {
                policy_type: policy_type.into(),
                source: source.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let call = self.call("root", "policy.policies.create", request);
        Ok(self.policies().create_policy(call).await?.into_inner())
    }

    pub(crate) async fn enforce(&self, id: &str, policy: &str) -> pb::PolicyBinding {
        let binding = pb::PolicyBinding { policy: format!("{ACME}/policies/{policy}"), ..Default::default() };
        let request = pb::CreatePolicyBindingRequest {
            parent: ACME.into(),
            policy_binding_id: id.into(),
            policy_binding: Some(binding),
            ..Default::default()
        };
        let call = self.call("root", "policy.policyBindings.create", request);
        self.policies().create_policy_binding(call).await.unwrap().into_inner()
    }

    pub(crate) async fn decide(&self, request: decision_pb::DecideRequest) -> Result<pb::Decision, Status> {
        Ok(self.decisions().decide(self.own(request)).await?.into_inner())
    }

    /// Starts one of the service's tasks; it ends with the guard.
    pub(crate) fn start(&mut self, name: &str) -> DropGuard {
        let at = self.tasks.iter().position(|task| task.name == name).unwrap();
        let cancel = CancellationToken::new();
        tokio::spawn((self.tasks.remove(at).run)(cancel.clone()));
        cancel.drop_guard()
    }

    /// The audit service takes what waits.
    pub(crate) async fn ship(&self) {
        let relay = outbox::Relay::new(self.store.clone(), "policy", outbox::Limits::default());
        let taken = |rows: Vec<outbox::OutboxRow>| {
            let acknowledged = rows.last().map(|row| row.seq);
            Box::pin(std::future::ready(outbox::Delivery { acknowledged, error: None }))
                as futures::future::BoxFuture<'static, _>
        };
        relay.drain(taken).await.unwrap();
    }

    /// What waits for the audit service.
    pub(crate) async fn audited(&self) -> Vec<AuditEvent> {
        let rows = outbox::pending(&self.store, "policy", 1_000, usize::MAX).await.unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }
}

pub(crate) fn new_role(id: &str, actions: &[&str]) -> pb::CreateRoleRequest {
    let actions = actions.iter().map(|action| (*action).to_owned()).collect();
    pb::CreateRoleRequest {
        parent: ACME.into(),
        role_id: id.into(),
        role: Some(pb::Role { display_name: id.to_uppercase(), actions, ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn user(id: &str) -> Principal {
    let (organization, id) = id.split_once('/').unwrap_or(("acme", id));
    pavior_testkit::user(organization, id)
}

pub(crate) fn wire(who: &Principal) -> types::Principal {
    types::Principal {
        kind: types::principal::Kind::User.into(),
        name: who.name.clone(),
        organization_id: who.organization.clone(),
        subject: who.subject.clone(),
        group_ids: who.groups.clone(),
        installation_operator: who.installation_operator,
        ..Default::default()
    }
}

/// Alice makes an environment in the project `hello`, which the group payments owns.
pub(crate) fn question(who: &str, action: &str) -> decision_pb::DecideRequest {
    decision_pb::DecideRequest {
        organization: ACME.into(),
        principal: Some(wire(&user(who))),
        action: action.into(),
        resource: Some(ResourceFacts {
            name: format!("{ACME}/projects/hello"),
            exists: true,
            r#type: "provisioning.pavior.dev/Project".into(),
            owner: format!("{ACME}/groups/payments"),
            ..Default::default()
        }),
        stage: decision_pb::DecisionStage::Plan.into(),
        context: Some(decision_pb::DecisionContext { plan_digest: "d1".into(), ..Default::default() }),
        ..Default::default()
    }
}
