//! What drivers have and no resource declares: of the catalog, and removed.

use pavior_core::principal::Principal;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_driver::{ApplyRequest, CallContext, Driver as _, NullSink, Outcome};
use pavior_proto::google::longrunning::{CancelOperationRequest, Operation};
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::resource_finding::Kind;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;
use crate::harness::alice;

const ENTITY: &str = "organizations/acme/kinds/component/entities/hello";
const LOST: &str = "organizations/acme/kinds/component/entities/lost";
const LOST_RESOURCE: &str = "organizations/acme/projects/lost/resources/catalog";

async fn findings(f: &Fixture) -> Vec<(Kind, String, String, String)> {
    let request = pb::DiagnoseResourcesRequest { parent: ACME.to_owned(), ..Default::default() };
    let answer = f.projects().diagnose_resources(f.call(request)).await.unwrap().into_inner();
    let found = answer.findings.into_iter();
    found.map(|one| (one.kind(), one.driver_id, one.external_id, one.resource)).collect()
}

/// An entry of the catalog whose project is not recorded: as after a restore of provisioning.
fn lost_entity(f: &Fixture) {
    let annotations =
        [("pavior.dev/resource", LOST_RESOURCE), ("pavior.dev/key", "lost"), ("pavior.dev/declaration", "x")];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let entity =
        catalog::Entity { name: LOST.to_owned(), annotations: annotations.into(), ..Default::default() };
    f.peers.state().entities.insert(LOST.to_owned(), entity);
}

/// A database whose project is not recorded. Returns the driver's name of it.
async fn lost_database(f: &Fixture, organization: &str) -> String {
    let resource = format!("organizations/{organization}/projects/lost/environments/x/resources/database");
    let context = CallContext::new(organization, &resource, &format!("lost/{organization}"), 1);
    let request = ApplyRequest {
        resource_type: "sql-database".into(),
        prior: None,
        inputs: json!({}),
        sensitive: Vec::new(),
        declaration_digest: "lost".to_owned(),
    };
    match f.driver.apply(&context, request, &NullSink).await {
        Outcome::Succeeded(made) => made.identity,
        other => panic!("not made: {other:?}"),
    }
}

fn request(driver: &str, identity: &str) -> pb::DeleteOrphanRequest {
    pb::DeleteOrphanRequest {
        parent: ACME.to_owned(),
        driver_id: driver.to_owned(),
        external_id: identity.to_owned(),
        ..Default::default()
    }
}

async fn delete(f: &Fixture, request: pb::DeleteOrphanRequest) -> Operation {
    f.projects().delete_orphan(f.call(request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn entries_of_the_catalog_are_compared_with_their_records() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        assert_eq!(findings(&f).await, []);
        let of_entity = |kind: Kind| {
            (kind, "catalog-entity".to_owned(), ENTITY.to_owned(), format!("{HELLO}/resources/entry"))
        };

        // The catalog was set back to what was declared before.
        let entity = f.peers.state().entities.get(ENTITY).cloned().unwrap();
        let declared = |text: &str| {
            let mut older = entity.clone();
            older.annotations.insert("pavior.dev/declaration".to_owned(), text.to_owned());
            older
        };
        f.peers.state().entities.insert(ENTITY.to_owned(), declared("older"));
        assert_eq!(findings(&f).await, [of_entity(Kind::Drifted)]);
        // One that was registered before digests were kept is as it should be, as far as anybody knows.
        f.peers.state().entities.insert(ENTITY.to_owned(), declared(""));
        assert_eq!(findings(&f).await, []);

        // It was made by somebody else since, or is gone.
        let mut others = entity.clone();
        others.annotations.insert("pavior.dev/resource".to_owned(), LOST_RESOURCE.to_owned());
        f.peers.state().entities.insert(ENTITY.to_owned(), others);
        assert_eq!(findings(&f).await, [of_entity(Kind::Missing)]);
        f.peers.state().entities.remove(ENTITY);
        assert_eq!(findings(&f).await, [of_entity(Kind::Missing)]);

        f.peers.state().entities.insert(ENTITY.to_owned(), entity);
        lost_entity(&f);
        let orphan = (Kind::Orphaned, "catalog-entity".to_owned(), LOST.to_owned(), LOST_RESOURCE.to_owned());
        assert_eq!(findings(&f).await, [orphan]);
    })
    .await;
}

#[tokio::test]
async fn an_orphan_is_removed_as_an_operation() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let live = f.driver.live().len();
        let (identity, theirs) = (lost_database(&f, "acme").await, lost_database(&f, "globex").await);
        lost_entity(&f);
        let plan = pb::DeleteOrphanRequest { validate_only: true, ..request("fake", &identity) };
        let plan = metadata(&delete(&f, plan).await).validated_plan.unwrap();
        assert_eq!((plan.action.as_str(), plan.changes.len()), ("provisioning.resources.deleteOrphan", 1));
        assert_eq!(plan.changes[0].action(), pb::plan::Action::Delete);
        assert_eq!(f.driver.live().len(), live + 2);

        let id = "11111111-1111-4111-8111-111111111111";
        let asked = pb::DeleteOrphanRequest {
            request_id: id.to_owned(),
            plan_digest: plan.digest,
            ..request("fake", &identity)
        };
        let begun = delete(&f, asked.clone()).await;
        let done = f.wait(begun.clone()).await;
        assert_eq!(problem(&done), None);
        response::<()>(&done);
        assert_eq!(f.driver.live().len(), live + 1);
        assert_eq!(delete(&f, asked).await.name, begun.name, "the same request has the same answer");

        let before = f.peers.state().questions.len();
        let done = f.wait(delete(&f, request("catalog-entity", LOST)).await).await;
        assert_eq!(problem(&done), None);
        assert!(!f.peers.state().entities.contains_key(LOST));
        let asked: Vec<_> = {
            let state = f.peers.state();
            state.questions[before..].iter().map(|question| question.action.clone()).collect()
        };
        for action in ["provisioning.resources.deleteOrphan", "catalog.entities.delete"] {
            assert!(asked.iter().any(|one| one == action), "{action} in {asked:?}");
        }
        assert_eq!(findings(&f).await, []);

        for (driver, gone) in [("fake", &identity), ("fake", &theirs), ("catalog-entity", &LOST.to_owned())] {
            let call = f.call(request(driver, gone));
            assert_problem(f.projects().delete_orphan(call).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        }
        assert_eq!(f.driver.live().len(), live + 1, "that of the other organization is still there");
    })
    .await;
}

#[tokio::test]
async fn what_is_declared_or_needed_is_no_orphan_to_remove() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let refusal = |principal: Principal, request: pb::DeleteOrphanRequest| {
            let (mut projects, call) = (f.projects(), f.by(&principal, request));
            async move { refused(projects.delete_orphan(call).await) }
        };
        let declared = refusal(alice(), request("catalog-entity", ENTITY)).await;
        assert_eq!((declared.code, declared.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
        assert_eq!(declared.preconditions[0].subject, format!("{HELLO}/resources/entry"));
        let unknown = refusal(alice(), request("none", "x")).await;
        assert_eq!(
            (unknown.code, unknown.violations[0].field.as_str()),
            (Code::InvalidArgument, "driver_id")
        );
        for field in ["driver_id", "external_id"] {
            let mut asked = request("fake", "x");
            match field {
                "driver_id" => asked.driver_id.clear(),
                _ => asked.external_id.clear(),
            }
            let empty = refusal(alice(), asked).await;
            let violation = &empty.violations[0];
            assert_eq!((violation.field.as_str(), violation.reason.as_str()), (field, "REQUIRED"));
        }
        lost_entity(&f);
        f.peers.state().dependents = vec![ENTITY.to_owned()];
        let needed = refusal(alice(), request("catalog-entity", LOST)).await;
        assert_eq!((needed.code, needed.reason.as_str()), (Code::FailedPrecondition, "HAS_DEPENDENTS"));
        assert!(f.peers.state().entities.contains_key(LOST));
    })
    .await;
}

/// Recorded only for its removal, it is an orphan again when that does not happen.
#[tokio::test]
async fn a_removal_that_people_do_not_want_leaves_no_record() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let identity = lost_database(&f, "acme").await;
        let approvals =
            json!([{ "quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["orphans"] }]);
        let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
        f.decide("provisioning.resources.deleteOrphan", answer);
        let waits = delete(&f, request("fake", &identity)).await;
        let again = refused(f.projects().delete_orphan(f.call(request("fake", &identity))).await);
        assert_eq!((again.code, again.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
        let cancel = CancelOperationRequest { name: waits.name.clone() };
        f.operations().cancel_operation(f.call(cancel)).await.unwrap();
        f.wait(waits).await;
        let found = findings(&f).await;
        assert_eq!((found.len(), found[0].0, found[0].2.as_str()), (1, Kind::Orphaned, identity.as_str()));
    })
    .await;
}

/// Its driver refuses: the removal waits for an operator, and goes on when it is retried.
#[tokio::test]
async fn a_removal_that_fails_waits_for_an_operator() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let identity = lost_database(&f, "acme").await;
        let refusal = Behaviour::Fail { retryable: false, message: "it is in use".to_owned() };
        f.driver.script(CallKind::Destroy, "x.database", [refusal]);
        let begun = delete(&f, request("fake", &identity)).await;
        let failed = f.wait(begun).await;
        assert!(is_stuck(&failed), "{failed:?}");
        let retry = pb::RetryOperationRequest { name: failed.name.clone(), ..Default::default() };
        let again = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(again).await), None);
        assert_eq!(findings(&f).await, []);
    })
    .await;
}

async fn repair(f: &Fixture) -> Operation {
    let request = pb::RepairProjectRequest { name: HELLO.into(), ..Default::default() };
    f.wait(f.projects().repair_project(f.call(request)).await.unwrap().into_inner()).await
}

/// What a project has itself is in no environment: it has a verb of its own, which does nothing when all is well.
#[tokio::test]
async fn what_a_project_has_itself_is_mended() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let effects = f.driver.effects();
        let nothing = repair(&f).await;
        assert_eq!((problem(&nothing), f.driver.effects()), (None, effects));

        let entity = f.peers.state().entities.remove(ENTITY).unwrap();
        assert_eq!(findings(&f).await.len(), 1);
        let done = repair(&f).await;
        assert_eq!(problem(&done), None);
        assert_eq!(response::<pb::Project>(&done).state(), pb::project::State::Active);
        assert_eq!(findings(&f).await, []);
        assert_eq!(f.peers.state().entities.get(ENTITY).unwrap().owner, entity.owner);

        // The catalog was set back to what was declared before.
        let mut older = entity;
        older.display_name = "older".to_owned();
        older.annotations.insert("pavior.dev/declaration".to_owned(), "older".to_owned());
        f.peers.state().entities.insert(ENTITY.to_owned(), older);
        assert_eq!(findings(&f).await.len(), 1);
        assert_eq!(problem(&repair(&f).await), None);
        assert_eq!(findings(&f).await, []);
        assert_ne!(f.peers.state().entities.get(ENTITY).unwrap().display_name, "older");
        // A change of an environment leaves it alone.
        f.peers.state().entities.remove(ENTITY);
        let environment =
            pb::Environment { name: format!("{HELLO}/environments/development"), ..Default::default() };
        let request = pb::UpdateEnvironmentRequest { environment: Some(environment), ..Default::default() };
        f.wait(f.projects().update_environment(f.call(request)).await.unwrap().into_inner()).await;
        assert_eq!(findings(&f).await.len(), 1);
    })
    .await;
}

/// It holds the project, so that no two mend the same, and nobody plans with what is being mended.
#[tokio::test]
async fn a_project_that_is_mended_is_held() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.peers.state().entities.remove(ENTITY);
        let approvals =
            json!([{ "quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["mends"] }]);
        let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
        f.decide("provisioning.projects.repair", answer);
        let ask = || f.call(pb::RepairProjectRequest { name: HELLO.into(), ..Default::default() });
        let waits = f.projects().repair_project(ask()).await.unwrap().into_inner();
        let again = refused(f.projects().repair_project(ask()).await);
        assert_eq!((again.code, again.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
        assert_eq!(again.metadata["operation"], waits.name);
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let busy = refused(f.projects().delete_project(f.call(delete)).await);
        assert_eq!(
            (busy.reason.as_str(), busy.metadata["operation"].as_str()),
            ("RESOURCE_BUSY", &*waits.name)
        );
        f.operations()
            .cancel_operation(f.call(CancelOperationRequest { name: waits.name.clone() }))
            .await
            .unwrap();
        f.wait(waits).await;
        let get = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
        let project = f.projects().get_project(f.call(get)).await.unwrap().into_inner();
        assert_eq!((project.state(), project.active_operation.as_str()), (pb::project::State::Active, ""));
    })
    .await;
}

/// While an orphan waits for its removal its name is taken, whatever becomes of the project: nobody's new resource is
/// removed in its place, and no driver starts it.
#[tokio::test]
async fn the_name_of_an_orphan_is_held_until_it_is_gone() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        // Of an environment of the project that is recorded no more.
        let resource = format!("{HELLO}/environments/development/resources/database");
        let context = CallContext::new("acme", &resource, "lost/again", i64::MAX / 2);
        let apply = ApplyRequest {
            resource_type: "sql-database".into(),
            prior: None,
            inputs: json!({}),
            sensitive: Vec::new(),
            declaration_digest: "lost".to_owned(),
        };
        let environment = format!("{HELLO}/environments/development");
        let remove = pb::DeleteEnvironmentRequest { name: environment, ..Default::default() };
        f.wait(f.projects().delete_environment(f.call(remove)).await.unwrap().into_inner()).await;
        let Outcome::Succeeded(made) = f.driver.apply(&context, apply, &NullSink).await else {
            panic!("not made")
        };
        f.driver.set_fence(&resource, 0);
        let approvals =
            json!([{ "quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["orphans"] }]);
        let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
        f.decide("provisioning.resources.deleteOrphan", answer);
        let waits = delete(&f, request("fake", &made.identity)).await;

        let project = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let gone = f.wait(f.projects().delete_project(f.call(project)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&gone), None);
        let busy = refused(f.projects().create_project(f.call(hello())).await);
        assert_eq!((busy.code, busy.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
        assert_eq!(busy.metadata["operation"], waits.name);
        // Nobody sees as a resource what is recorded for its removal only.
        let get = pb::GetResourceRequest { name: resource.clone(), ..Default::default() };
        assert_eq!(refused(f.projects().get_resource(f.call(get)).await).code, Code::NotFound);
        assert!(f.driver.live().iter().any(|one| one.contains(&resource)), "{:?}", f.driver.live());

        let cancel = CancelOperationRequest { name: waits.name.clone() };
        f.operations().cancel_operation(f.call(cancel)).await.unwrap();
        f.wait(waits).await;
    })
    .await;
}
