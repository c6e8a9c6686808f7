//! What drivers have and no resource declares: of the catalog, and removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pavior_core::principal::Principal;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_driver::{ApplyRequest, CallContext, Driver as _, ListRequest, NullSink, Outcome};
use pavior_proto::google::longrunning::{CancelOperationRequest, Operation};
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::resource_finding::Kind;
use pavior_provisioning::store::Db;
use pavior_provisioning::store::migration::Migrator;
use pavior_store::outbox::Limits;
use pavior_testkit::db::both;
use pavior_testkit::{SystemClock, SystemIds, assert_problem};
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;
use crate::harness::alice;

pub(crate) const ENTITY: &str = "organizations/acme/kinds/component/entities/hello";
const LOST: &str = "organizations/acme/kinds/component/entities/lost";
const LOST_RESOURCE: &str = "organizations/acme/projects/lost/resources/catalog";

pub(crate) async fn findings(f: &Fixture) -> Vec<(Kind, String, String, String)> {
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
pub(crate) async fn lost_database(f: &Fixture, organization: &str) -> String {
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

pub(crate) fn request(driver: &str, identity: &str) -> pb::DeleteOrphanRequest {
    pb::DeleteOrphanRequest {
        parent: ACME.to_owned(),
        driver_id: driver.to_owned(),
        external_id: identity.to_owned(),
        ..Default::default()
    }
}

pub(crate) async fn delete(f: &Fixture, request: pb::DeleteOrphanRequest) -> Operation {
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

        // It is in no project, and so is what is told of it.
        pavior_testkit::wait_for("the records", std::time::Duration::from_secs(60), async || {
            let state = f.peers.state();
            let of_it = |record: &&String| record.contains(&begun.name) || record.contains("only planned");
            let records: Vec<&String> = state.records.iter().filter(of_it).collect();
            assert!(records.iter().all(|record| record.contains("project: \"\"")), "{records:?}");
            if records.len() >= 4 { Ok(()) } else { Err(records.len()) }
        })
        .await;

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

/// A driver may have more than anybody wants to read: it is gone through up to what is looked for.
#[tokio::test]
async fn an_orphan_is_found_among_more_than_can_be_compared() {
    const MANY: usize = 205;
    both(|db| async {
        let f = Fixture::new(db).await;
        for number in 0..MANY {
            lost_database(&f, &format!("org-{number:03}")).await;
        }
        let identity = lost_database(&f, "acme").await;
        let listed =
            f.driver.list(ListRequest { page_size: 1_000, page_token: String::new() }).await.unwrap();
        let place = listed.resources.iter().position(|thing| thing.identity == identity).unwrap();
        // As if each thing filled a page.
        f.pages.size.store(1, Ordering::SeqCst);
        assert_eq!(problem(&f.wait(delete(&f, request("fake", &identity)).await).await), None);
        assert_eq!(f.pages.asked.load(Ordering::SeqCst), place + 1, "nothing behind it is read");
        let call = f.call(request("fake", &identity));
        assert_problem(f.projects().delete_orphan(call).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let last = f.call(request("fake", "zzz"));
        assert_problem(f.projects().delete_orphan(last).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
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
        assert_eq!(problem(&retry(&f, &failed).await), None);
        assert_eq!(findings(&f).await, []);
    })
    .await;
}

async fn retry(f: &Fixture, operation: &Operation) -> Operation {
    let request = pb::RetryOperationRequest { name: operation.name.clone(), ..Default::default() };
    let again = f.operation_service().retry_operation(f.call(request)).await.unwrap().into_inner();
    f.wait(again).await
}

/// After this database was set back, the driver has seen claims that are not recorded here.
#[tokio::test]
async fn a_retry_outruns_every_claim_that_was_ever_made() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let identity = lost_database(&f, "acme").await;
        let refusal = Behaviour::Fail { retryable: false, message: "it is in use".to_owned() };
        f.driver.script(CallKind::Destroy, "x.database", [refusal]);
        let failed = f.wait(delete(&f, request("fake", &identity)).await).await;
        assert!(is_stuck(&failed), "{failed:?}");
        let call = f.driver.calls().into_iter().rev().find(|call| call.kind == CallKind::Destroy).unwrap();
        f.driver.set_fence(&call.resource, call.fence + 50);
        assert_eq!(problem(&retry(&f, &failed).await), None);
        assert_eq!(findings(&f).await, []);
    })
    .await;
}

/// A driver that does not let go is no reason to hold a name for ever: whoever gives up is named, and the thing is an
/// orphan again.
#[tokio::test]
async fn a_removal_that_is_stuck_is_given_up() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let identity = lost_database(&f, "acme").await;
        f.driver.set_fence("organizations/acme/projects/lost/environments/x/resources/database", i64::MAX);
        let begun = delete(&f, request("fake", &identity)).await;
        let failed = f.wait(begun.clone()).await;
        assert!(is_stuck(&failed), "{failed:?}");
        assert!(is_stuck(&retry(&f, &failed).await));
        let busy = f.projects().delete_orphan(f.call(request("fake", &identity))).await;
        let told = [("operation", begun.name.as_str())];
        let busy = assert_problem(busy, Code::Aborted, "RESOURCE_BUSY", &told);
        assert!(busy.message.contains("waits for an operator: it is stuck"), "{}", busy.message);
        assert_eq!(busy.retry_after, Some(std::time::Duration::from_secs(60)));

        let cancel = || CancelOperationRequest { name: begun.name.clone() };
        f.operations().cancel_operation(f.call(cancel())).await.unwrap();
        f.operations().cancel_operation(f.call(cancel())).await.unwrap();
        let ended = f.wait(begun.clone()).await;
        let said = problem(&ended).unwrap();
        assert!(ended.done && said.starts_with("CANCELLED: ") && said.contains("given up by"), "{said}");
        let found = findings(&f).await;
        assert_eq!((found.len(), found[0].0, found[0].2.as_str()), (1, Kind::Orphaned, identity.as_str()));
        pavior_testkit::wait_for("the record", std::time::Duration::from_secs(60), async || {
            let state = f.peers.state();
            let given_up =
                |record: &&String| record.contains("was given up") && record.contains(&alice().name);
            match state.records.iter().filter(given_up).count() {
                1 => Ok(()),
                other => Err((other, state.records.len())),
            }
        })
        .await;
        f.driver.set_fence("organizations/acme/projects/lost/environments/x/resources/database", 0);
        assert_eq!(problem(&f.wait(delete(&f, request("fake", &identity)).await).await), None);
        assert_eq!(findings(&f).await, []);
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
        // Nobody sees as a resource what is recorded for its removal only.
        let get = pb::GetResourceRequest { name: resource.clone(), ..Default::default() };
        assert_eq!(refused(f.projects().get_resource(f.call(get)).await).code, Code::NotFound);
        let told = GetResourceFactsRequest { name: resource.clone(), ..Default::default() };
        let told = f.facts().get_resource_facts(f.call(told)).await.unwrap().into_inner();
        assert_eq!((told.exists, told.name.as_str()), (false, HELLO));

        // Nor does its removal look at what the project has that has its name, or open the secrets of that.
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
        let db = Db::new(f.store.clone(), clock, ids, "look", Limits::default());
        let near = db.resources_in_scope_unscoped("", &resource).await.unwrap();
        assert_eq!(near.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), [resource.as_str()]);

        let project = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let gone = f.wait(f.projects().delete_project(f.call(project)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&gone), None);
        let busy = refused(f.projects().create_project(f.call(hello())).await);
        assert_eq!((busy.code, busy.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
        assert_eq!(busy.metadata["operation"], waits.name);
        // It is no project's: its owner cannot look at it, and is told who can.
        let who = ", and waits for approval `";
        assert!(busy.message.contains("removes what was left behind under `"), "{}", busy.message);
        assert!(
            busy.message.contains(who) && busy.message.contains("whoever may remove orphans"),
            "{}",
            busy.message
        );
        assert!(f.driver.live().iter().any(|one| one.contains(&resource)), "{:?}", f.driver.live());

        let cancel = CancelOperationRequest { name: waits.name.clone() };
        f.operations().cancel_operation(f.call(cancel)).await.unwrap();
        f.wait(waits).await;
    })
    .await;
}

/// Entries that were recorded before they had their uid in their identity get it, and so does what a step puts back.
#[tokio::test]
async fn entries_from_before_are_recorded_with_their_uid() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.store
            .upkeep::<(), pavior_store::StoreError, _>("a test", |tx| {
                Box::pin(async move {
                    let step = format!(r#"{{"identity": "{ENTITY}", "outputs": {{"uid": "its-uid"}}}}"#);
                    for sql in [
                        r#"UPDATE resource SET outputs = '{"uid": "its-uid"}' WHERE driver = 'catalog-entity'"#,
                        &format!("UPDATE step SET prior = '{step}' WHERE name = 'entry'"),
                        "DELETE FROM seaql_migrations WHERE version = 'm20261201_000001_entities'",
                    ] {
                        tx.execute_unprepared(sql).await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        pavior_store::migrate::<Migrator>(&f.store).await.unwrap();
        let row = sea_orm::Statement::from_string(
            f.store.backend(),
            "SELECT r.identity, s.prior FROM resource r, step s WHERE r.driver = 'catalog-entity' AND s.name = 'entry'",
        );
        let row = f.store.read().query_one_raw(row).await.unwrap().unwrap();
        let (identity, prior): (String, serde_json::Value) =
            (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap());
        let wanted = format!("{ENTITY}#its-uid");
        assert_eq!((identity.as_str(), prior["identity"].as_str()), (wanted.as_str(), Some(wanted.as_str())));
    })
    .await;
}
