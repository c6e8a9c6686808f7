//! What a project has itself is mended by a verb of its own.

use std::sync::Arc;

use pavior_driver::testing::{Behaviour, CallKind, Presence};
use pavior_proto::google::longrunning::{CancelOperationRequest, Operation};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_provisioning::restore::park;
use pavior_testkit::db::both;
use pavior_testkit::{SystemClock, SystemIds, assert_problem};
use prost_types::FieldMask;
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::fixture::*;
use crate::harness::restorer;
use crate::orphans::{ENTITY, findings};

fn request() -> pb::RepairProjectRequest {
    pb::RepairProjectRequest { name: HELLO.into(), ..Default::default() }
}

async fn begun(f: &Fixture) -> Operation {
    f.projects().repair_project(f.call(request())).await.unwrap().into_inner()
}

async fn repair(f: &Fixture) -> Operation {
    f.wait(begun(f).await).await
}

async fn project(f: &Fixture) -> pb::Project {
    let get = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
    f.projects().get_project(f.call(get)).await.unwrap().into_inner()
}

fn needs_approval(f: &Fixture, action: &str) {
    let approvals =
        json!([{ "quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["mends"] }]);
    let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
    f.decide(action, answer);
}

fn approve(f: &Fixture, operation: &Operation) {
    f.peers.state().approvals.get_mut(&metadata(operation).approval).unwrap().state = 2;
}

/// Changes what is said about the project, which makes it another for whoever planned with it.
async fn describe(f: &Fixture, display_name: &str) {
    let display_name = display_name.to_owned();
    let described = pb::Project { name: HELLO.into(), display_name, ..Default::default() };
    let describe = pb::UpdateProjectRequest {
        project: Some(described),
        update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
        ..Default::default()
    };
    f.projects().update_project(f.call(describe)).await.unwrap();
}

/// A repair of the project, whose repository is gone, that waits for people.
async fn asked_about_a_repair(f: &Fixture) -> Operation {
    f.project().await;
    f.driver.vanish(&format!("{HELLO}/resources/repository"));
    needs_approval(f, "provisioning.projects.repair");
    begun(f).await
}

/// All is as it should be, and nothing has the project.
async fn assert_mended(f: &Fixture) {
    assert_eq!(findings(f).await, []);
    let shown = project(f).await;
    assert_eq!((shown.state(), shown.active_operation.as_str()), (pb::project::State::Active, ""));
}

/// What was not mended can still be.
async fn assert_repairable(f: &Fixture) {
    assert_eq!(problem(&repair(f).await), None);
    assert_mended(f).await;
}

fn assert_outdated(ended: &Operation) {
    let said = problem(ended).unwrap();
    assert!(
        said.starts_with("PLAN_STALE: ") && said.ends_with("has changed since this was planned: ask anew"),
        "{said}"
    );
    assert_eq!(metadata(ended).state(), pb::operation_metadata::State::Denied);
}

async fn cancelled(f: &Fixture, operation: Operation) {
    let cancel = CancelOperationRequest { name: operation.name.clone() };
    f.operations().cancel_operation(f.call(cancel)).await.unwrap();
    f.wait(operation).await;
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

/// That all is well is not said without having looked.
#[tokio::test]
async fn a_driver_that_does_not_say_is_no_reason_to_mend_nothing() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let effects = f.driver.effects();
        f.driver.set_presence(Presence::Refuses);
        let answer = f.projects().repair_project(f.call(request())).await;
        let told = [("dependency", "fake")];
        let refused = assert_problem(answer, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", &told);
        assert!(refused.message.contains("`repository`"), "{}", refused.message);
        // One that has drifted is no reason not to look at the others.
        let entity = f.peers.state().entities.remove(ENTITY).unwrap();
        let answer = f.projects().repair_project(f.call(request())).await;
        assert_problem(answer, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", &told);
        f.driver.set_presence(Presence::There);
        f.peers.state().entities.insert(ENTITY.to_owned(), entity);
        assert_eq!((problem(&repair(&f).await), f.driver.effects()), (None, effects));
    })
    .await;
}

/// Nobody mends what others plan with at the same time: not those who come later, nor those who came before.
#[tokio::test]
async fn a_project_is_not_mended_while_something_goes_on_in_it() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let gate = Arc::new(Semaphore::new(0));
        f.driver.script(CallKind::Apply, "staging.database", [Behaviour::Gate(gate.clone())]);
        let going_on = f.begin_environment("staging").await;
        // Nothing to do is in nobody's way.
        assert_eq!(problem(&repair(&f).await), None);
        f.peers.state().entities.remove(ENTITY);
        let answer = f.projects().repair_project(f.call(request())).await;
        let told = [("operation", going_on.name.as_str())];
        assert_problem(answer, Code::Aborted, "RESOURCE_BUSY", &told);
        gate.add_permits(1);
        assert_eq!(problem(&f.wait(going_on).await), None);
        assert_eq!(problem(&repair(&f).await), None);
        assert_eq!(findings(&f).await, []);
    })
    .await;
}

/// While people are asked nobody waits for them but those who ask for the same, or would take the project down.
#[tokio::test]
async fn a_repair_that_waits_for_people_holds_nothing() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let waits = asked_about_a_repair(&f).await;
        let shown = project(&f).await;
        assert_eq!((shown.state(), shown.active_operation.as_str()), (pb::project::State::Active, ""));
        let told = [("operation", waits.name.as_str())];
        let again = f.projects().repair_project(f.call(request())).await;
        let again = assert_problem(again, Code::Aborted, "RESOURCE_BUSY", &told);
        assert!(again.message.contains("waits for approval `"), "{}", again.message);
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let busy = f.projects().delete_project(f.call(delete)).await;
        assert_problem(busy, Code::Aborted, "RESOURCE_BUSY", &told);

        let deploy = pb::CreateDeploymentRequest {
            parent: format!("{HELLO}/environments/development"),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let deployed = f.deployments().create_deployment(f.call(deploy)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(deployed).await), None);
        assert_eq!(problem(&f.wait(f.begin_environment("staging").await).await), None);

        // Who has agreed to a plan has agreed to what was planned with: it is still so.
        approve(&f, &waits);
        assert_eq!(problem(&f.wait(waits).await), None);
        assert_mended(&f).await;

        // One that is not wanted leaves everything as it is.
        f.peers.state().entities.remove(ENTITY);
        cancelled(&f, begun(&f).await).await;
        assert_eq!((project(&f).await.state(), findings(&f).await.len()), (pb::project::State::Active, 1));
        f.peers.state().decisions.clear();
        assert_repairable(&f).await;
    })
    .await;
}

/// It begins once nothing else goes on in the project, and those who were asked about meanwhile begin after it.
#[tokio::test]
async fn a_repair_that_waited_begins_when_nothing_else_goes_on() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let waits = asked_about_a_repair(&f).await;
        let (first, second) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        f.driver.script(CallKind::Apply, "staging.database", [Behaviour::Gate(first.clone())]);
        f.driver.script(CallKind::Apply, "repository", [Behaviour::Gate(second.clone())]);
        let goes_on = f.begin_environment("staging").await;
        needs_approval(&f, "provisioning.environments.create");
        let asked = f.begin_environment("preview").await;
        approve(&f, &waits);
        first.add_permits(1);
        assert_eq!(problem(&f.wait(goes_on.clone()).await), None);
        pavior_testkit::wait_for("the repair", std::time::Duration::from_secs(60), async || {
            let shown = project(&f).await;
            if shown.active_operation == waits.name { Ok(()) } else { Err(shown) }
        })
        .await;
        approve(&f, &asked);
        second.add_permits(1);
        let (goes_on, waits) = (f.wait(goes_on).await, f.wait(waits).await);
        let asked = f.wait(asked).await;
        assert_eq!((problem(&waits), problem(&asked)), (None, None));
        let times = |operation: &Operation| {
            let told = metadata(operation);
            let micros = |time: Option<prost_types::Timestamp>| time.map(|time| (time.seconds, time.nanos));
            (micros(told.start_time).unwrap(), micros(told.end_time).unwrap())
        };
        assert!(times(&goes_on).1 <= times(&waits).0, "{:?} {:?}", times(&goes_on), times(&waits));
        assert!(times(&waits).1 <= times(&asked).0, "{:?} {:?}", times(&waits), times(&asked));
    })
    .await;
}

/// What people agreed to was planned with the project as it was.
#[tokio::test]
async fn a_repair_that_waited_is_refused_when_the_project_has_changed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let waits = asked_about_a_repair(&f).await;
        describe(&f, "Hello").await;
        let effects = f.driver.effects();
        approve(&f, &waits);
        assert_outdated(&f.wait(waits).await);
        assert_eq!((f.driver.effects(), project(&f).await.state()), (effects, pb::project::State::Active));
        f.peers.state().decisions.clear();
        assert_repairable(&f).await;
    })
    .await;
}

/// The same where it is taken up by an operator: it ends, instead of being refused for ever and staying stuck.
#[tokio::test]
async fn a_repair_that_is_taken_up_ends_when_the_project_has_changed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let waits = asked_about_a_repair(&f).await;
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
        park(f.store.clone(), clock, ids, &restorer()).await.unwrap();
        describe(&f, "Hello").await;
        let effects = f.driver.effects();
        f.peers.state().decisions.clear();
        let retry = pb::RetryOperationRequest { name: waits.name.clone(), ..Default::default() };
        let ended = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        assert!(ended.done);
        assert_outdated(&ended);
        assert_eq!((f.driver.effects(), project(&f).await.state()), (effects, pb::project::State::Active));
        assert_repairable(&f).await;
    })
    .await;
}

/// Of a project whose deletion was given up half-way, after a restore, nothing but the rest is recorded.
#[tokio::test]
async fn what_a_deletion_took_down_that_was_given_up_is_made_anew() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let refusal = Behaviour::Fail { retryable: false, message: "it is in use".to_owned() };
        f.driver.script(CallKind::Destroy, "repository", [refusal]);
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let stuck = f.projects().delete_project(f.call(delete)).await.unwrap().into_inner();
        let stuck = f.wait(stuck).await;
        assert!(is_stuck(&stuck), "{stuck:?}");
        let before = f.driver.live();
        let (clock, ids) = (Arc::new(SystemClock), Arc::new(SystemIds));
        park(f.store.clone(), clock, ids, &restorer()).await.unwrap();
        cancelled(&f, stuck).await;
        assert_eq!(f.driver.live(), before);
        assert_repairable(&f).await;
        assert!(f.driver.live().len() > before.len(), "{:?} {before:?}", f.driver.live());
        assert!(f.peers.state().entities.contains_key(ENTITY));
    })
    .await;
}
