//! Drivers against records: who is told what, and what is found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pavior_core::principal::{INSTALLATION, Principal};
use pavior_driver::testing::{Behaviour, CallKind, FakeDriver};
use pavior_driver::{
    ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, Failure, Health, ListRequest, NullSink,
    Observation, ObserveRequest, Outcome, PlanRequest, PlanResponse, Prior, Sink, ValidateRequest, Violation,
    async_trait,
};
use pavior_proto::google::longrunning::CancelOperationRequest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::resource_finding::Kind;
use pavior_testkit::db::{both, sqlite};
use serde_json::{Value, json};
use tonic::Code;

use crate::fixture::*;
use crate::harness::alice;

/// Waits until `met`.
async fn until(what: &str, met: impl Fn() -> bool) {
    let met = &met;
    pavior_testkit::wait_for(what, Duration::from_secs(20), || async move {
        met().then_some(()).ok_or("not yet")
    })
    .await;
}

fn operator() -> Principal {
    Principal { organization: INSTALLATION.into(), installation_operator: true, ..alice() }
}

async fn diagnose(f: &Fixture, principal: &Principal, parent: &str) -> pb::DiagnoseResourcesResponse {
    let request = pb::DiagnoseResourcesRequest { parent: parent.to_owned(), ..Default::default() };
    f.projects().diagnose_resources(f.by(principal, request)).await.unwrap().into_inner()
}

fn found(answer: &pb::DiagnoseResourcesResponse) -> Vec<(Kind, String)> {
    answer.findings.iter().map(|finding| (finding.kind(), finding.resource.clone())).collect()
}

/// Made by the driver, and nothing of it is recorded: as after a restore.
async fn orphan(f: &Fixture, organization: &str, name: &str) -> String {
    let resource = format!("organizations/{organization}/projects/lost/resources/{name}");
    let context = CallContext::new(organization, &resource, &format!("lost/{organization}/{name}"), 1);
    let request = ApplyRequest {
        resource_type: "sql-database".into(),
        prior: None,
        inputs: json!({}),
        sensitive: Vec::new(),
        declaration_digest: "lost".to_owned(),
    };
    let Outcome::Succeeded(_) = f.driver.apply(&context, request, &NullSink).await else {
        panic!("not made")
    };
    resource
}

#[tokio::test]
async fn drivers_are_told_what_is_declared() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    orphan(&f, "acme", "db").await;
    let live = f.driver.live().len();
    until("what is declared", || f.driver.declared().is_some_and(|declared| declared.len() == live - 1))
        .await;
    let name = format!("{HELLO}/environments/development");
    let delete = pb::DeleteEnvironmentRequest { name, ..Default::default() };
    f.wait(f.projects().delete_environment(f.call(delete)).await.unwrap().into_inner()).await;
    let live = f.driver.live().len();
    until("what is left", || f.driver.declared().is_some_and(|declared| declared.len() == live - 1)).await;
}

/// A driver that never comes to an end with what it is told. Counts how often it was asked how it is.
struct Stuck(FakeDriver, Arc<AtomicUsize>);

#[async_trait]
impl Driver for Stuck {
    fn info(&self) -> DriverInfo {
        self.0.info()
    }
    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        self.0.validate(request).await
    }
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        self.0.plan(request).await
    }
    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        self.0.apply(context, request, sink).await
    }
    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        self.0.observe(context, request).await
    }
    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
        self.0.destroy(context, request, sink).await
    }
    async fn reconcile(&self, declared: &BTreeSet<String>) {
        self.0.reconcile(declared).await;
        std::future::pending::<()>().await;
    }
    async fn health(&self) -> Health {
        self.1.fetch_add(1, Ordering::SeqCst);
        Health::Ok
    }
}

#[tokio::test]
async fn a_driver_that_never_ends_holds_up_no_other() {
    let f = Fixture::new(sqlite()).await;
    let (stuck, asked) = (FakeDriver::new("stuck", &["stone"]), Arc::new(AtomicUsize::new(0)));
    assert!(f.drivers.join("elsewhere", Arc::new(Stuck(stuck.clone(), asked.clone()))));
    until("the one that is stuck", || stuck.declared().is_some()).await;
    f.project().await;
    let live = f.driver.live().len();
    until("what is declared of the other", || {
        f.driver.declared().is_some_and(|declared| declared.len() == live)
    })
    .await;
    let before = asked.load(Ordering::SeqCst);
    until("how the one that is stuck is", || asked.load(Ordering::SeqCst) > before + 1).await;
}

#[tokio::test]
async fn orphans_and_missing_resources_are_found() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let healthy = diagnose(&f, &operator(), "organizations/-").await;
        assert_eq!(found(&healthy), []);
        let compared: Vec<_> = healthy.drivers.iter().map(|d| (d.driver_id.as_str(), d.compared)).collect();
        assert_eq!(compared, [("catalog-entity", true), ("fake", true)]);
        assert_eq!(usize::try_from(healthy.drivers[1].resource_count).unwrap(), f.driver.live().len());

        let (ours, theirs) = (orphan(&f, "acme", "db").await, orphan(&f, "globex", "db").await);
        let gone = format!("{HELLO}/environments/development/resources/database");
        f.driver.vanish(&gone);
        let all = found(&diagnose(&f, &operator(), "organizations/-").await);
        assert_eq!(all.len(), 3, "{all:?}");
        for finding in
            [(Kind::Orphaned, ours.clone()), (Kind::Orphaned, theirs), (Kind::Missing, gone.clone())]
        {
            assert!(all.contains(&finding), "{finding:?} in {all:?}");
        }
        let acme = diagnose(&f, &alice(), ACME).await;
        assert_eq!(found(&acme).len(), 2, "{acme:?}");
        assert!(
            acme.findings.iter().all(|finding| finding.organization == ACME && !finding.advice.is_empty())
        );
    })
    .await;
}

/// Pages together are all that is found, each thing once; a token belongs to what was asked.
#[tokio::test]
async fn differences_come_in_pages_and_drivers_with_each_of_them() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        for name in ["a", "b", "c"] {
            orphan(&f, "acme", name).await;
        }
        let gone = format!("{HELLO}/environments/development/resources/database");
        f.driver.vanish(&gone);
        let all = diagnose(&f, &alice(), ACME).await;
        assert_eq!((all.findings.len(), all.next_page_token.as_str()), (4, ""));
        let place = |finding: &pb::ResourceFinding| (finding.driver_id.clone(), finding.external_id.clone());
        assert!(all.findings.is_sorted_by_key(place), "{all:?}");
        for page_size in 1..=4 {
            let mut request =
                pb::DiagnoseResourcesRequest { parent: ACME.into(), page_size, ..Default::default() };
            let mut findings = Vec::new();
            loop {
                let call = f.call(request.clone());
                let page = f.projects().diagnose_resources(call).await.unwrap().into_inner();
                assert!(page.findings.len() <= usize::try_from(page_size).unwrap());
                assert_eq!(page.drivers, all.drivers);
                findings.extend(page.findings);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(findings, all.findings, "pages of {page_size}");
        }
        let first = pb::DiagnoseResourcesRequest { parent: ACME.into(), page_size: 1, ..Default::default() };
        let page = f.projects().diagnose_resources(f.call(first)).await.unwrap().into_inner();
        let elsewhere = pb::DiagnoseResourcesRequest {
            parent: "organizations/-".into(),
            page_token: page.next_page_token,
            ..Default::default()
        };
        let refused = refused(f.projects().diagnose_resources(f.by(&operator(), elsewhere)).await);
        assert_eq!(
            (refused.code, refused.reason.as_str(), refused.violations[0].field.as_str()),
            (Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token")
        );
    })
    .await;
}

/// Changes a thing as the platform did after the backup that was restored.
pub(crate) async fn change_behind(f: &Fixture, resource: &str, inputs: Value) {
    let whole = ListRequest { page_size: 1_000, page_token: String::new() };
    let listed = f.driver.list(whole).await.unwrap().resources;
    let identity = listed.into_iter().find(|thing| thing.resource == resource).unwrap().identity;
    let request = ApplyRequest {
        resource_type: "sql-database".into(),
        prior: Some(Prior { identity, ..Prior::default() }),
        inputs,
        sensitive: Vec::new(),
        declaration_digest: "of after the backup".to_owned(),
    };
    let context = CallContext::new("acme", resource, "lost/change", i64::MAX / 2);
    let Outcome::Succeeded(_) = f.driver.apply(&context, request, &NullSink).await else {
        panic!("not changed")
    };
    f.driver.set_fence(resource, 0);
}

/// The database of the development environment, which is large and is recorded as small.
async fn enlarged_behind(f: &Fixture) -> String {
    let database = format!("{HELLO}/environments/development/resources/database");
    let mut inputs = f.driver.inputs_of(&database).unwrap();
    inputs["size"] = json!("large");
    change_behind(f, &database, inputs).await;
    database
}

/// A database that was set back behind a change: what its driver has is not what is recorded.
#[tokio::test]
async fn what_differs_from_its_record_is_found_and_mended_by_the_change_again() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let database = enlarged_behind(&f).await;
        let answer = diagnose(&f, &operator(), "organizations/-").await;
        assert_eq!(found(&answer), [(Kind::Drifted, database.clone())]);
        assert!(answer.findings[0].advice.starts_with("repeat the change that the record has lost"));
        let request = pb::UpdateEnvironmentRequest {
            environment: Some(pb::Environment {
                name: format!("{HELLO}/environments/development"),
                parameters: pavior_rpc::convert::to_struct(&json!({"size": "large"})).ok(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let done = f.wait(f.projects().update_environment(f.call(request)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        assert_eq!(f.driver.inputs_of(&database).unwrap()["size"], "large");
        assert_eq!(found(&diagnose(&f, &operator(), "organizations/-").await), []);
    })
    .await;
}

/// People may take days: what they are asked about is as it is recorded, or is found.
#[tokio::test]
async fn what_waits_for_people_is_compared() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let database = enlarged_behind(&f).await;
        let approvals = json!([{"quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["p"]}]);
        let people = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
        for action in ["update", "delete"] {
            f.decide(&format!("provisioning.environments.{action}"), people.clone());
            let name = format!("{HELLO}/environments/development");
            let waits = match action {
                "update" => {
                    let parameters = pavior_rpc::convert::to_struct(&json!({"size": "large"})).ok();
                    let environment = Some(pb::Environment { name, parameters, ..Default::default() });
                    let request = pb::UpdateEnvironmentRequest { environment, ..Default::default() };
                    f.projects().update_environment(f.call(request)).await
                }
                _ => {
                    let request = pb::DeleteEnvironmentRequest { name, ..Default::default() };
                    f.projects().delete_environment(f.call(request)).await
                }
            };
            let waits = waits.unwrap().into_inner();
            let state = metadata(&waits).state();
            assert_eq!(state, pb::operation_metadata::State::AwaitingApproval, "{action}");
            let answer = diagnose(&f, &operator(), "organizations/-").await;
            assert_eq!(found(&answer), [(Kind::Drifted, database.clone())], "{action}");
            let cancel = CancelOperationRequest { name: waits.name.clone() };
            f.operations().cancel_operation(f.call(cancel)).await.unwrap();
            f.wait(waits).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_under_way_is_nobodys_orphan() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    // The effect has happened, the answer has not come: only the operation knows of it.
    f.driver.script(CallKind::Apply, "staging.database", [Behaviour::Unknown { effect: true }]);
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    f.driver.script(CallKind::Observe, "staging.database", [Behaviour::Gate(gate.clone())]);
    let request = environment_request("staging");
    let operation = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
    let database = format!("{HELLO}/environments/staging/resources/database");
    until("the database", || f.driver.live().contains(&database)).await;
    assert_eq!(found(&diagnose(&f, &operator(), "organizations/-").await), []);
    gate.add_permits(1);
    assert_eq!(problem(&f.wait(operation).await), None);
    assert_eq!(found(&diagnose(&f, &operator(), "organizations/-").await), []);
}

#[tokio::test]
async fn only_operators_see_all_organizations() {
    let f = Fixture::new(sqlite()).await;
    for (principal, parent) in [
        (Principal { organization: INSTALLATION.into(), ..alice() }, "organizations/-"),
        (alice(), "organizations/globex"),
    ] {
        let request = pb::DiagnoseResourcesRequest { parent: parent.to_owned(), ..Default::default() };
        let refused = refused(f.projects().diagnose_resources(f.by(&principal, request)).await);
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, "ACCESS_DENIED"),
            "{parent}"
        );
    }
    let request = pb::DiagnoseResourcesRequest::default();
    assert_eq!(refused(f.projects().diagnose_resources(f.call(request)).await).code, Code::InvalidArgument);
}
